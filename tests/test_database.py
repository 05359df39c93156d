"""Whose transaction is it: connections, transactions and savepoints, on every database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import database, define_tables, sql
from mailqueue.errors import UnsupportedDatabase
from pydal import DAL, Field
from support.store import another_dal


@pytest.fixture
def db(empty_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = DAL(empty_uri, folder=str(tmp_path))
    db.define_table("thing", Field("name", unique=True))
    db.commit()
    yield db
    db._adapter.close("rollback")


def names(db: DAL) -> list[str]:
    return [row.name for row in db(db.thing).select(orderby=db.thing.id)]


def in_another_thread(work: Any) -> Any:
    """What `work` returns in a thread that has no connection."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_the_kind_of_database_is_known(db: DAL, empty_uri: str) -> None:
    assert database.engine(db) == empty_uri.split(":")[0]


def test_a_transaction_is_seen_from_the_first_write_to_its_end(db: DAL) -> None:
    assert not database.in_transaction(db)
    db.thing.insert(name="a")
    assert database.in_transaction(db)
    db.commit()
    assert not database.in_transaction(db)
    db.thing.insert(name="b")
    db.rollback()
    assert not database.in_transaction(db)


def test_asking_in_a_thread_without_a_connection_opens_none(db: DAL) -> None:
    def ask() -> tuple[bool, bool]:
        return database.in_transaction(db), database.has_connection(db)

    assert in_another_thread(ask) == (False, False)
    assert database.has_connection(db)


@pytest.mark.parametrize("empty_uri", ["postgres", "mariadb"], indirect=True)
def test_asking_about_a_connection_that_is_gone_raises_nothing(db: DAL) -> None:
    db._adapter.connection.close()
    assert database.in_transaction(db) in (True, False)
    database.roll_back(db)


def test_an_own_transaction_commits_and_leaves_no_connection_that_was_not_there(db: DAL) -> None:
    def insert() -> bool:
        with database.own_transaction(db):
            db.thing.insert(name="mine")
        return database.has_connection(db)

    assert in_another_thread(insert) is False
    assert names(db) == ["mine"]


def test_an_own_transaction_rolls_back_on_any_exception_and_passes_it_on(db: DAL) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), database.own_transaction(db):
            db.thing.insert(name="never")
            raise error
    assert names(db) == []


def test_an_own_transaction_keeps_a_connection_that_was_there(db: DAL) -> None:
    with database.own_transaction(db):
        db.thing.insert(name="mine")
    assert database.has_connection(db)
    assert not database.in_transaction(db)


def test_a_failing_statement_in_a_savepoint_spoils_nothing_around_it(db: DAL) -> None:
    db.thing.insert(name="a")
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"), database.savepoint(db):
        db.thing.insert(name="b")
        db.thing.insert(name="a")
    db.thing.insert(name="c")
    db.commit()
    assert names(db) == ["a", "c"]


def test_a_savepoint_does_not_commit_what_is_around_it(db: DAL) -> None:
    for before in (lambda: None, lambda: db.thing.insert(name="a")):
        before()
        with database.savepoint(db):
            db.thing.insert(name="b")
        assert database.in_transaction(db)
        db.rollback()
        assert names(db) == []


def test_savepoints_nest(db: DAL) -> None:
    with database.savepoint(db):
        db.thing.insert(name="outer")
        with pytest.raises(ValueError), database.savepoint(db):
            db.thing.insert(name="inner")
            raise ValueError
    db.commit()
    assert names(db) == ["outer"]


def test_the_folder_is_where_the_tables_files_are(db: DAL, tmp_path: Path) -> None:
    assert database.folder_of(db) == str(tmp_path)
    assert list(tmp_path.glob("*_thing.table"))


def test_a_database_in_memory_has_no_folder() -> None:
    DAL.set_folder("")  # pydal remembers the last one of this thread
    db = DAL("sqlite:memory", folder=None)
    assert database.folder_of(db) in (None, "")
    assert database.engine(db) == "sqlite"


def test_a_transaction_that_is_begun_sees_what_was_committed_before_and_commits_what_was_open(
    db: DAL, empty_uri: str, tmp_path: Path
) -> None:
    db.thing.insert(name="a")
    database.begin(db)
    db.rollback()
    assert len(names(db)) == 1
    with another_dal(empty_uri, tmp_path) as other:
        sql.insert_one(other, "thing", {"name": "b"})
        other.commit()
        database.begin(db)
        assert len(names(db)) == 2
        if database.engine(db) != database.SQLITE:  # where nobody else can write now
            sql.insert_one(other, "thing", {"name": "c"})
            other.commit()
            assert len(names(db)) == 3, "what others commit meanwhile is seen"


def test_another_kind_of_database_is_refused_in_plain_words(db: DAL) -> None:
    db._adapter.dbengine = "oracle"
    with pytest.raises(UnsupportedDatabase, match=r"oracle.*PostgreSQL"):
        define_tables(db)

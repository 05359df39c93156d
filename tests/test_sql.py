"""SQL for many rows at once, on every database."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import database, sql
from pydal import DAL, Field
from pydal.helpers.classes import ExecutionHandler
from support.store import another_dal


@pytest.fixture
def things(empty_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = DAL(empty_uri, folder=str(tmp_path))
    db.define_table("many", Field("name"), Field("number", "integer"), Field("moment", "double"))
    db.commit()
    yield db
    db._adapter.close("rollback")


def all_things(db: DAL) -> list[tuple[Any, ...]]:
    return sql.fetch(db, "SELECT id, name, number, moment FROM many ORDER BY id")


ODD = 'it\'s 100 % of %s, ?, :name, "{}", é, \\u0041 and \\n'


def test_very_many_rows_are_inserted_in_order_and_brought_in_line(things: DAL) -> None:
    rows = [
        {"name": f"{ODD} {n}", "number": n if n % 2 else None, "moment": 1.8e9 + n / 1000}
        for n in range(2000)
    ]
    sql.insert(things, "many", rows)
    found = all_things(things)
    assert [values for _, *values in found] == [list(row.values()) for row in rows]
    changed = [{"id": one, "name": None, "number": n, "moment": None} for one, _, n, _ in found[:-1]]
    sql.update(things, "many", [*changed, {**changed[0], "id": found[-1][0] + 1}])
    assert all_things(things) == [*((one, None, n, None) for one, _, n, _ in found[:-1]), found[-1]]
    things.rollback()
    assert all_things(things) == []


def test_numbers_that_are_not_finite_are_stored_as_such_where_the_database_knows_them(things: DAL) -> None:
    if database.engine(things) == database.MYSQL:
        pytest.skip("MySQL knows none")
    rows = [{"name": "for ever", "number": 1, "moment": math.inf}, {"name": "", "number": 2, "moment": 1.5}]
    sql.insert(things, "many", rows)
    found = all_things(things)
    assert [moment for *_, moment in found] == [math.inf, 1.5]
    sql.update(things, "many", [{"id": one, "moment": -math.inf} for one, *_ in found])
    assert [moment for *_, moment in all_things(things)] == [-math.inf] * 2


def statements_of(db: DAL) -> list[str]:
    """Collects what is executed from now on."""
    seen: list[str] = []

    class Seen(ExecutionHandler):  # type: ignore[misc]
        def before_execute(self, command: str) -> None:
            seen.append(command)

    db._adapter.execution_handlers.append(Seen)
    return seen


def test_sqlite_looks_up_what_it_updates_even_if_it_takes_a_large_table_for_a_small_one(
    tmp_path: Path,
) -> None:
    db = DAL(f"sqlite://{tmp_path}/q.db", folder=str(tmp_path))
    db.define_table("many", Field("name"), Field("number", "integer"))
    first = sql.insert_one(db, "many", {"name": "a", "number": 1})
    db.executesql("ANALYZE")  # from here the planner believes that there is one row
    sql.insert(db, "many", [{"name": "b", "number": n} for n in range(2000)])
    seen = statements_of(db)
    sql.update(db, "many", [{"id": first + n, "number": -1, "name": "c"} for n in range(50)])
    (update,) = seen
    plan = sql.fetch(db, f"EXPLAIN QUERY PLAN {update}", *([None] * update.count("?")))
    assert not [step for *_, step in plan if step.startswith("SCAN many")], plan
    assert len(sql.fetch(db, "SELECT id FROM many WHERE number = -1 AND name = 'c'")) == 50
    db._adapter.close("rollback")


def test_an_sqlite_before_3_32_is_given_no_more_values_than_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = DAL(f"sqlite://{tmp_path}/q.db", folder=str(tmp_path))
    db.define_table("many", Field("name"), Field("number", "integer"))
    seen = statements_of(db)
    monkeypatch.setattr(db._adapter.driver, "sqlite_version_info", (3, 31, 1))
    sql.insert(db, "many", [{"name": "a", "number": n} for n in range(1000)])
    sql.update(db, "many", [{"id": n, "number": 0, "name": "c"} for n in range(1, 1001)])
    assert len(seen) > 4 and max(statement.count("?") for statement in seen) <= 999
    db._adapter.close("rollback")


def test_no_rows_are_no_statement(things: DAL) -> None:
    sql.insert(things, "many", [])
    sql.update(things, "many", [])
    assert all_things(things) == []


def test_one_row_is_inserted_and_tells_its_id(things: DAL) -> None:
    ids = [sql.insert_one(things, "many", {"name": ODD, "number": n}) for n in range(3)]
    assert [row[0] for row in all_things(things)] == ids


def test_what_a_host_has_hung_into_pydal_is_told_of_each_statement(things: DAL) -> None:
    seen = []

    class Told(ExecutionHandler):  # type: ignore[misc]
        def before_execute(self, command: str) -> None:
            seen.append(("before", command))

        def after_execute(self, command: str) -> None:
            seen.append(("after", command))

    things._adapter.execution_handlers.append(Told)
    sql.insert_one(things, "many", {"name": "a"})
    sign = "?" if database.engine(things) == database.SQLITE else "%s"
    statement = f"INSERT INTO many (name) VALUES ({sign})"
    assert [(when, command.removesuffix(" RETURNING id")) for when, command in seen] == [
        ("before", statement),
        ("after", statement),
    ]
    assert statement in things._timings[-1][0]


def test_a_thread_without_a_connection_gets_one(things: DAL) -> None:
    things._adapter.close("rollback")
    assert not database.has_connection(things)
    assert sql.fetch(things, "SELECT 1") == [(1,)]


def test_rows_that_are_locked_are_as_they_are_now_and_stay_so(
    things: DAL, empty_uri: str, tmp_path: Path
) -> None:
    row_id = sql.insert_one(things, "many", {"name": "a", "number": 1})
    things.commit()
    all_things(things)  # from here MySQL would show an old state
    with another_dal(empty_uri, tmp_path) as other:
        sql.change(other, "UPDATE many SET number = 2")
        other.commit()
        assert sql.lock(things, "many", ("id", "number"), "id = %s", row_id) == [{"id": row_id, "number": 2}]
        assert sql.lock(things, "many", ("id",), "id = %s", row_id + 1) == []
        if database.engine(things) == database.SQLITE:
            assert database.in_transaction(things), "and it writes: nobody else can begin one that does"
            with pytest.raises(database.faults(other), match="locked"):
                other._adapter.connection.execute("PRAGMA busy_timeout = 1")
                database.begin_writing(other)
        else:
            assert sql.lock_free(other, "many", ("id",), "id = %s", row_id, index="PRIMARY") == []

"""The tables in the host's database: made by whoever comes first, kept by whoever comes later."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mailqueue
import pytest
from mailqueue import TablesMissing, define_tables, outbox, tables, words
from mailqueue.outbox import Finished, Outcome
from mailqueue.terms import terms
from pydal import DAL, Field
from support.store import KEEP, NOW, all_rows, another_dal, claim, finish, finished, message, open_dal, put

PROCESS = """
import sys
sys.path.insert(0, {apps!r})
from pydal import DAL
from mailqueue import define_tables
db = DAL(sys.argv[1], folder=sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
define_tables(db)
db.mailqueue_worker.insert(token="t")
db.commit()
"""


@pytest.fixture
def db(empty_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(empty_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


def index_names(db: DAL) -> set[str]:
    return tables._index_names(db) & set(tables._INDEXES)


def test_a_fresh_database_gets_every_table_and_index(db: DAL) -> None:
    for name in tables.TABLES:
        assert db(db[name].id > 0).count() == 0
    assert index_names(db) == set(tables._INDEXES)


def test_defining_twice_changes_nothing(db: DAL) -> None:
    put(db)
    define_tables(db)
    assert len(all_rows(db, "message")) == 1


def test_a_second_process_with_the_same_folder_finds_what_is_there(
    db: DAL, empty_uri: str, tmp_path: Path
) -> None:
    message_id = put(db)
    with another_dal(empty_uri, tmp_path) as other:
        assert message(other, message_id)["status"] == words.QUEUED


def test_another_host_with_a_folder_of_its_own_finds_what_is_there(
    db: DAL, empty_uri: str, tmp_path: Path
) -> None:
    message_id = put(db)
    for _ in range(2):  # the second start finds table files
        with another_dal(empty_uri, tmp_path / "other host") as other:
            assert message(other, message_id)["status"] == words.QUEUED
            put(other)
    assert len(all_rows(db, "message")) == 3


@pytest.mark.parametrize("folders", ["same", "own"])
def test_six_processes_that_start_at_once_on_an_empty_database_all_come_up(
    empty_uri: str, tmp_path: Path, folders: str
) -> None:
    program = PROCESS.format(apps=str(Path(mailqueue.__file__).parent.parent))
    processes = []
    for number in range(6):
        folder = tmp_path / (folders if folders == "same" else f"own{number}")
        folder.mkdir(exist_ok=True)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, empty_uri, str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    errors = [process.communicate("go\n", timeout=60)[1] for process in processes]
    assert errors == [""] * 6
    assert [process.returncode for process in processes] == [0] * 6
    with another_dal(empty_uri, tmp_path / "same" if folders == "same" else tmp_path / "own0") as db:
        assert len(all_rows(db, "worker")) == 6
        assert index_names(db) == set(tables._INDEXES)


@pytest.mark.parametrize("folder", ["same", "own"])
def test_whoever_defines_keeps_the_others_waiting(empty_uri: str, tmp_path: Path, folder: str) -> None:
    for name in ("same", "own"):
        (tmp_path / name).mkdir()
    first = DAL(empty_uri, folder=str(tmp_path / "same"))
    done = threading.Event()

    def define() -> None:
        second = DAL(empty_uri, folder=str(tmp_path / folder))
        define_tables(second)
        done.set()
        second._adapter.close("rollback")

    waiting = threading.Thread(target=define)
    with tables._one_process_at_a_time(first):
        waiting.start()
        assert not done.wait(0.4)
    assert done.wait(30)
    waiting.join()
    first._adapter.close("rollback")


def test_no_name_is_a_reserved_word_of_any_database(tmp_path: Path) -> None:
    define_tables(DAL("sqlite://reserved.db", folder=str(tmp_path), check_reserved=["all"]))


def test_no_column_refers_to_a_table(db: DAL) -> None:
    types = [field.type for name in tables.TABLES for field in db[name]]
    assert not [kind for kind in types if "reference" in str(kind)]


def test_without_tables_and_without_migration_it_says_what_to_do_each_time(
    empty_uri: str, tmp_path: Path
) -> None:
    db = DAL(empty_uri, folder=str(tmp_path), migrate=False)
    for _ in range(2):
        with pytest.raises(TablesMissing, match=r"migrate=True .*web2py: migrate under \[db\]"):
            define_tables(db)
    db._adapter.close("rollback")


def test_with_tables_and_without_migration_everything_works(db: DAL, empty_uri: str, tmp_path: Path) -> None:
    for number, options in enumerate(({"migrate": False}, {"migrate_enabled": False})):
        other = open_dal(empty_uri, tmp_path / f"elsewhere{number}", **options)
        put(other)
        assert len(claim(other)) == 1
        assert not list((tmp_path / f"elsewhere{number}").glob("*.table"))
        other._adapter.close("rollback")


def test_an_emoji_comes_back_from_every_column(db: DAL) -> None:
    everywhere = "für 😀 „you“"
    message_id = put(db, "😀@x.test", subject=everywhere, mime=f"Subject: {everywhere}\r\n\r\n".encode())
    (claimed,) = claim(db)
    refused = Outcome(claimed.recipients[0].id, words.FAILED, reply=everywhere, failure_kind=words.RECIPIENT)
    finish(db, finished(claimed, refused))
    assert claimed.recipients[0].address == "😀@x.test"
    assert message(db, message_id)["subject"] == message(db, message_id)["error"] == everywhere
    assert outbox.content(db, message_id) == f"Subject: {everywhere}\r\n\r\n".encode()
    assert all_rows(db, "attempt")[0]["reply"] == everywhere


def test_an_emoji_comes_back_where_the_host_did_not_think_of_it(empty_uri: str, tmp_path: Path) -> None:
    db = open_dal(empty_uri.partition("?")[0], tmp_path)  # on MySQL pydal then speaks "utf8"
    message_id = put(db, "😀@x.test", subject="😀")
    db._adapter.close("rollback")  # and the next connection too
    assert message(db, message_id)["subject"] == "😀"
    assert claim(db)[0].recipients[0].address == "😀@x.test"
    db._adapter.close("rollback")


LONG = "ä😀" * 5000
HOSTILE = "nul \0 and \ud800 alone"


@pytest.mark.parametrize("reply", [LONG, HOSTILE], ids=["long", "hostile"])
def test_whatever_a_server_says_it_stops_no_database(db: DAL, reply: str) -> None:
    message_id = put(db)
    (claimed,) = claim(db)
    outcome = Outcome(
        claimed.recipients[0].id,
        words.FAILED,
        failure_kind=words.RECIPIENT,
        cause=reply,
        enhanced=reply,
        reply=reply,
        stage=words.RCPT,
    )
    result = Finished(message_id, claimed.token, reply, NOW, 0.0, (outcome,))
    assert outbox.finish(db, [result], NOW, KEEP) == [words.FAILED]
    kept = reply.replace("\0", "").replace("\ud800", "?")
    for row in (all_rows(db, "recipient")[0], all_rows(db, "attempt")[0]):
        assert row["reply"] == kept
        assert row["enhanced"] == kept[:16]
        assert row["transport"] == kept[:255]
    assert message(db, message_id)["error"] == kept


def test_a_subject_and_names_that_are_too_long_are_cut_by_characters(db: DAL) -> None:
    text = composed_with_long_words()
    message_id = outbox.enqueue(db, text, terms(NOW, category="c" * 100), now=NOW)
    db.commit()
    row = message(db, message_id)
    assert (row["subject"], row["category"]) == (LONG[:255], "c" * 64)
    assert row["message_uid"] == "<" + "i" * 254


def composed_with_long_words() -> mailqueue.compose.Composed:
    envelope = mailqueue.compose.Envelope(None, ((words.TO, "ann@x.test"),), False)
    return mailqueue.compose.Composed(envelope, b"\r\n", LONG, "<" + "i" * 300 + ">")


def test_the_longest_address_of_all_fits(db: DAL) -> None:
    longest = "l" * 64 + "@" + "d" * 250 + ".test"
    assert len(longest) == tables.ADDRESS
    put(db, longest)
    assert claim(db)[0].recipients[0].address == longest


def after(empty_uri: str, folder: Path) -> list[dict[str, Any]]:
    with another_dal(empty_uri, folder) as db:
        return all_rows(db, "message")


def an_older_release(db: DAL) -> None:
    """The tables as a release would have made them that did not know some of today's columns."""
    fields = [field for field in tables._message_fields() if field.name not in ("category", "purge_on")]
    db.define_table(tables.MESSAGE, *fields)
    fields = [field for field in tables._recipient_fields() if field.name != "provider_id"]
    db.define_table(tables.RECIPIENT, *fields)
    db[tables.RECIPIENT].insert(status=words.SENT, address="old@x.test", reply="250 2.0.0 OK")
    db[tables.MESSAGE].insert(status=words.QUEUED, subject="from the old days", due=NOW)
    db.commit()
    db._adapter.close("rollback")


@pytest.mark.parametrize("folder", ["same", "fresh"])
def test_a_column_that_came_later_is_added_by_itself_and_nothing_is_lost(
    empty_uri: str, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "same").mkdir()
    an_older_release(DAL(empty_uri, folder=str(tmp_path / "same")))
    for _ in range(2):
        with another_dal(empty_uri, tmp_path / folder) as db:
            old = all_rows(db, "message")[0]
            assert (old["subject"], old["category"]) == ("from the old days", None)
            person = all_rows(db, "recipient")[0]
            assert (person["reply"], person["provider_id"]) == ("250 2.0.0 OK", None)
            put(db)
            assert index_names(db) == set(tables._INDEXES)
    assert [row["category"] for row in after(empty_uri, tmp_path / folder)] == [None, "test", "test"]


def test_a_host_that_upgrades_second_finds_the_columns_added(empty_uri: str, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    an_older_release(DAL(empty_uri, folder=str(tmp_path / "first")))
    for table_file in (tmp_path / "first").glob("*.table"):
        shutil.copy(table_file, tmp_path / "second")
    for name in ("first", "second"):
        with another_dal(empty_uri, tmp_path / name) as db:
            put(db)
    assert [row["category"] for row in after(empty_uri, tmp_path / "first")] == [None, "test", "test"]


def test_a_dal_that_defines_lazily_has_them_at_once(empty_uri: str, tmp_path: Path) -> None:
    for number in range(2):
        db = open_dal(empty_uri, tmp_path / f"host{number}", lazy_tables=True)
        assert index_names(db) == set(tables._INDEXES)
        put(db)
        assert len(claim(db)) == 1
        db._adapter.close("rollback")


def test_fields_that_a_host_adds_to_all_of_its_tables_stay_out_of_ours(
    empty_uri: str, tmp_path: Path
) -> None:
    db = DAL(empty_uri, folder=str(tmp_path))
    db.define_table("auth_user")
    db._common_fields.append(Field("created_by", "reference auth_user"))
    define_tables(db)
    assert [name for name in tables.TABLES if "created_by" in db[name].fields] == []
    db.define_table("theirs")
    assert "created_by" in db.theirs.fields
    db._adapter.close("rollback")


def test_a_definition_that_fails_for_another_reason_says_so(
    empty_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tables._FIELDS, tables.WORKER, lambda: [Field("odd", "no such type")])
    db = DAL(empty_uri, folder=str(tmp_path))
    with pytest.raises(SyntaxError, match="no such type"):
        define_tables(db)
    monkeypatch.undo()
    define_tables(db)
    assert all_rows(db, "worker") == []
    db._adapter.close("rollback")


def test_a_time_is_shown_in_the_servers_own_zone_and_none_as_nothing() -> None:
    assert tables.local_time(None) == ""
    assert len(tables.local_time(NOW)) == len("2027-01-15 08:00:00")


@pytest.mark.parametrize("moment", [1e300, -1e300, float("nan"), 1e15])
def test_a_time_that_no_calendar_has_breaks_no_page(moment: float) -> None:
    assert tables.local_time(moment)

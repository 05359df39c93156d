"""One verb for many messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, bulk, finding, words
from mailqueue.selection import Selection
from support.mail import START, make_mail, rows, statuses, to_server
from support.smtp_server import ScriptedServer
from support.store import end, put

EVERYTHING = 10**9
ANN = "ann@x.test"


@pytest.fixture
def mail(db_uri: str, tmp_path: Path) -> Any:
    mail = make_mail(tmp_path, uri=db_uri)
    yield mail
    mail.db._adapter.close("rollback")


@pytest.fixture
def in_bites(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bite is two messages, and a request takes no more than one."""
    monkeypatch.setattr(bulk, "BITE", 2)
    monkeypatch.setattr(bulk, "AT_ONCE", -1.0)


def begin(mail: QueuedMailer, verb: str, below: int = EVERYTHING, **chosen: str) -> dict[str, Any]:
    number = bulk.begin(mail.site, verb, Selection(**chosen), below, ANN)
    return row(mail, number)


def row(mail: QueuedMailer, number: int) -> dict[str, Any]:
    mail.db.rollback()  # what was done is committed
    found = bulk.found(mail.db, number)
    assert found
    return found


def told(mail: QueuedMailer) -> list[tuple[str, str, str]]:
    return [(entry["who"], entry["action_name"], entry["detail"]) for entry in rows(mail, "audit")]


def counted(mail: QueuedMailer, verb: str, below: int = EVERYTHING, **chosen: str) -> str:
    found = bulk.count(mail.db, verb, Selection(**chosen), below)
    return str(found.number) if found.complete else f"at least {found.number}"


def test_each_verb_is_for_the_messages_that_it_changes(mail: QueuedMailer) -> None:
    for status in (words.SENT, words.FAILED, words.FAILED, words.IN_DOUBT):
        end(mail.db, status)
    put(mail.db)
    assert {verb: counted(mail, verb) for verb in bulk.VERBS} == {"retry": "3", "cancel": "2", "delete": "3"}
    assert counted(mail, "retry", status=words.FAILED) == "2"
    retried = begin(mail, "retry", status=words.FAILED)
    assert (retried["changed"], retried["expected"], retried["status"]) == (2, 2, "done")
    assert statuses(mail) == ["sent", "queued", "queued", "in_doubt", "queued"]
    assert begin(mail, "cancel", status=words.QUEUED)["changed"] == 3
    assert statuses(mail) == ["sent", "cancelled", "cancelled", "in_doubt", "cancelled"]


def test_what_is_deleted_leaves_nothing_but_records_with_its_total(mail: QueuedMailer) -> None:
    end(mail.db, words.SENT), end(mail.db, words.FAILED)
    waiting = put(mail.db)
    assert begin(mail, "delete")["changed"] == 2
    for table in ("message", "content", "recipient"):
        key = "id" if table == "message" else "message_ref"
        assert [found[key] for found in rows(mail, table)] == [waiting], table
    assert rows(mail, "attempt") == []
    assert told(mail) == [
        (ANN, "delete", "many at once, begun: all messages"),
        (ANN, "delete", "many at once (2): all messages"),
    ]


@pytest.mark.usefixtures("in_bites")
def test_what_is_queued_after_the_preview_is_never_meant(mail: QueuedMailer) -> None:
    for _ in range(3):
        put(mail.db)
    below = finding.newest(mail.db) + 1
    put(mail.db)
    assert counted(mail, "cancel", below) == "3"
    begun = begin(mail, "cancel", below)
    put(mail.db)
    while bulk.go_on(mail.site):
        pass
    assert row(mail, begun["id"])["changed"] == 3
    assert statuses(mail) == ["cancelled"] * 3 + ["queued"] * 2


@pytest.mark.usefixtures("in_bites")
def test_a_worker_goes_on_with_what_a_request_began_and_both_ends_are_recorded(mail: QueuedMailer) -> None:
    for _ in range(5):
        put(mail.db)
    begun = begin(mail, "cancel")
    assert (begun["status"], begun["changed"], begun["expected"]) == ("running", 2, 5)
    assert statuses(mail) == ["queued"] * 3 + ["cancelled"] * 2
    assert told(mail) == [(ANN, "cancel", "many at once, begun: all messages")]
    again = make_mail(Path(str(mail.db._adapter.folder)), uri=mail.db._uri)  # after a restart
    again.process_queue()
    again.db._adapter.close("rollback")
    ended = row(mail, begun["id"])
    assert (ended["status"], ended["changed"]) == ("done", 5)
    assert statuses(mail) == ["cancelled"] * 5
    assert told(mail)[1:] == [(ANN, "cancel", "many at once (5): all messages")]
    assert not bulk.go_on(mail.site)


@pytest.mark.usefixtures("in_bites")
def test_what_was_stopped_is_not_gone_on_with(mail: QueuedMailer) -> None:
    for _ in range(5):
        put(mail.db)
    begun = begin(mail, "cancel")
    assert bulk.stop(mail.site, begun["id"], "bob@x.test")
    mail.db.commit()
    assert not bulk.go_on(mail.site)
    assert not bulk.stop(mail.site, begun["id"], "bob@x.test")
    assert (row(mail, begun["id"])["status"], statuses(mail).count("cancelled")) == ("stopped", 2)
    assert told(mail)[1:] == [(ANN, "cancel", "many at once (2, stopped by bob@x.test): all messages")]


@pytest.mark.usefixtures("in_bites")
def test_mail_is_sent_between_two_bites(tmp_path: Path, smtp: ScriptedServer) -> None:
    mail = make_mail(tmp_path)
    to_server(mail, smtp)
    for _ in range(5):
        end(mail.db, words.FAILED)
    begin(mail, "retry")
    put(mail.db, "new@x.test", now=START)
    while mail.process_queue()["sent"]:
        pass
    assert statuses(mail) == ["sent"] * 6
    mail.db._adapter.close("rollback")


@pytest.mark.usefixtures("in_bites")
def test_a_message_that_cannot_be_changed_holds_up_nothing(mail: QueuedMailer) -> None:
    made = [end(mail.db, words.FAILED) for _ in range(4)]
    mail.db(mail.db.mailqueue_content.message_ref.belongs(made[1:])).delete()
    mail.db.commit()
    begun = begin(mail, "retry")
    while bulk.go_on(mail.site):
        pass
    assert (row(mail, begun["id"])["changed"], statuses(mail)[0]) == (1, "queued")


def test_a_damaged_row_stops_no_worker(mail: QueuedMailer) -> None:
    for chosen, verb in (("%%%&=&a", "cancel"), (None, "nonsense")):
        mail.db.mailqueue_bulk.insert(
            status="running", action_name=verb, chosen=chosen, who=ANN, next_below=9, changed=0
        )
    mail.process_queue()
    assert [found["status"] for found in rows(mail, "bulk")] == ["done", "running"]


def test_counting_ends_at_a_bound(mail: QueuedMailer, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        put(mail.db)
    monkeypatch.setattr(bulk, "MOST_COUNTED", 2)
    assert counted(mail, "cancel") == "at least 2"
    assert begin(mail, "cancel", status=words.FAILED)["expected"] == 0
    assert begin(mail, "cancel")["expected"] is None


def test_counting_ends_when_its_time_is_over(mail: QueuedMailer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LOOKED_AT", 2)
    monkeypatch.setattr(bulk, "COUNTING", -1.0)
    for number in range(5):
        put(mail.db, category="news" if number > 2 else "site")
    assert counted(mail, "cancel", category="site") == "at least 0"
    assert counted(mail, "cancel") == "5"

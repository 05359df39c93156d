"""Limits on the way: what is over one waits at no cost, whoever sends; what servers say is learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, Retention, leases, outbox, worker
from mailqueue import pace as pace_module
from mailqueue.classify import classify_reply
from mailqueue.database import own_transaction
from mailqueue.pace import Pace
from mailqueue.transports.base import Answer
from support.mail import Clock, make_mail, rows, statuses, to_server
from support.smtp_faults import Reply
from support.smtp_server import ScriptedServer
from support.statements import record_statements

TRANSPORT = "smtp://127.0.0.1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Mails:
    """Mailers on one database, each as another process has one."""

    def __init__(self, uri: str, folder: Path, clock: Clock, smtp: ScriptedServer):
        self._uri, self._folder, self._clock, self._smtp = uri, folder, clock, smtp
        self._made: list[QueuedMailer] = []

    def make(self, **options: Any) -> QueuedMailer:
        mail = make_mail(self._folder, uri=self._uri, clock=self._clock, **options)
        to_server(mail, self._smtp)
        self._made.append(mail)
        return mail

    def close(self) -> None:
        for mail in self._made:
            mail.db._adapter.close("rollback")


@pytest.fixture
def mails(db_uri: str, tmp_path: Path, clock: Clock, smtp: ScriptedServer) -> Iterator[Mails]:
    mails = Mails(db_uri, tmp_path, clock, smtp)
    yield mails
    mails.close()


@pytest.fixture
def site(tmp_path: Path, clock: Clock, smtp: ScriptedServer) -> Iterator[Mails]:
    """As `mails`, on SQLite alone: for what no database does its own way."""
    mails = Mails("sqlite://mail.db", tmp_path, clock, smtp)
    yield mails
    mails.close()


def send(mail: QueuedMailer, number: int, domain: str, **options: Any) -> None:
    for one in range(number):
        mail.send(f"user{one}@{domain}", **options)


def reached(smtp: ScriptedServer) -> Counter[str]:
    """How many recipients of each domain the server has taken."""
    return Counter(to.rpartition("@")[2] for message in smtp.messages for to in message.rcpt_tos)


# --- limits ----------------------------------------------------------------------------------


def test_a_batch_goes_out_at_its_limit_and_waiting_costs_no_attempt(
    mails: Mails, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = mails.make(limits={"slow.test": "10/minute"})
    send(mail, 25, "slow.test")
    send(mail, 3, "other.test")
    mail.process_queue()
    clock.advance(59)
    mail.process_queue()
    assert reached(smtp) == {"slow.test": 10, "other.test": 3}
    assert len(rows(mail, "attempt")) == 13
    waiting = [row for row in rows(mail, "recipient") if row["status"] == "queued"]
    assert {(row["held_by"], row["attempts"]) for row in waiting} == {("domain:slow.test", 0)}
    clock.advance(1)
    mail.process_queue()
    assert reached(smtp)["slow.test"] == 20
    clock.advance(60)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * 28
    assert {row["held_by"] for row in rows(mail, "recipient")} == {None}
    clock.advance(120)
    mail.process_queue()
    assert [row["name"] for row in rows(mail, "window")] == ["gate"], "what is over is deleted"


def test_all_workers_share_a_limit(mails: Mails, smtp: ScriptedServer, clock: Clock) -> None:
    limits = {"transport": "10/minute"}
    one, other = mails.make(limits=limits), mails.make(limits=limits)
    send(one, 7, "a.test")
    one.process_queue()
    send(one, 7, "b.test")
    other.process_queue()
    assert reached(smtp) == {"a.test": 7, "b.test": 3}
    clock.advance(60)
    other.process_queue()
    assert reached(smtp) == {"a.test": 7, "b.test": 7}


def test_of_a_message_to_several_domains_those_that_are_free_get_it(
    mails: Mails, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = mails.make(limits={"slow.test": "1/minute"})
    mail.send("first@slow.test")
    mail.send(["ann@slow.test", "bob@other.test"])
    mail.process_queue()
    assert [message.rcpt_tos for message in smtp.messages] == [("first@slow.test",), ("bob@other.test",)]
    assert statuses(mail) == ["sent", "queued"]
    clock.advance(60)
    mail.process_queue()
    assert smtp.messages[-1].rcpt_tos == ("ann@slow.test",)
    assert statuses(mail) == ["sent", "sent"]


def test_urgent_mail_does_not_wait_behind_a_long_line(
    site: Mails, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = site.make(limits={"*": "2/minute"})
    send(mail, 9, "slow.test")
    mail.process_queue()
    mail.send("link@slow.test", priority=0)
    mail.process_queue()
    clock.advance(60)
    mail.process_queue()
    assert ("link@slow.test",) in [message.rcpt_tos for message in smtp.messages]
    assert len(smtp.messages) == 4


def test_nobody_waits_behind_those_that_were_cancelled(
    mails: Mails, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = mails.make(limits={"slow.test": "2/minute", "transport": "100/minute"})
    send(mail, 9, "slow.test")
    mail.process_queue()
    with own_transaction(mail.db):
        waiting = [row["id"] for row in rows(mail, "message") if row["status"] == "queued"]
        outbox.cancel_all(mail.db, waiting, clock.now, Retention())
    mail.send("next@slow.test")
    mail.process_queue()
    clock.advance(60)
    mail.process_queue()
    assert [message.rcpt_tos for message in smtp.messages][2:] == [("next@slow.test",)]


def test_a_clock_that_is_set_back_does_not_stop_mail(site: Mails, smtp: ScriptedServer, clock: Clock) -> None:
    mail = site.make(limits={"*": "1/hour"})
    send(mail, 1, "slow.test")
    mail.process_queue()
    clock.advance(-86400)
    send(mail, 1, "slow.test")
    mail.process_queue()
    assert len(smtp.messages) == 2


def test_a_long_line_is_read_once(mails: Mails, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    mail = mails.make(limits={"slow.test": "1/minute"})
    db = mail.db
    for table, columns in (
        ("message", {"status": "queued", "priority": 1, "due": clock.now, "recipients": 1}),
        ("recipient", {"address": "ann@slow.test", "status": "queued", "due": clock.now}),
    ):
        keyed = {"message_ref": 0} if table == "recipient" else {}
        db[f"mailqueue_{table}"].bulk_insert(
            [{**columns, **dict.fromkeys(keyed, number)} for number in range(1, 1001)]
        )
    db.commit()
    seen = _spy_on_claims(monkeypatch)
    mail.process_queue()
    assert Counter(seen).most_common(1)[0][1] == 1
    assert len(seen) == 1000
    seen.clear()
    mail.send("bob@other.test")
    executed = _count_statements(mail, monkeypatch)
    mail.process_queue()
    assert len(seen) == 1, "the others are not looked at again"
    assert statuses(mail)[-1] == "sent"
    assert executed["statements"] < 100


def _spy_on_claims(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    seen: list[int] = []
    claim = outbox.claim

    def noted(*arguments: Any, **options: Any) -> list[outbox.Claimed]:
        claimed = claim(*arguments, **options)
        seen.extend(one.id for one in claimed)
        return claimed

    monkeypatch.setattr(outbox, "claim", noted)
    return seen


def _count_statements(mail: QueuedMailer, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    counted: Counter[str] = Counter()
    record_statements(mail.db, monkeypatch, lambda _statement, _values: counted.update(statements=1))
    return counted


def _at_work(mail: QueuedMailer) -> tuple[int, Pace, list[outbox.Claimed]]:
    """A worker, its pace, and what it has claimed."""
    now = mail.site.clock()
    worker_id = leases.register(mail.db, token="t", host_name="h", pid=1, journal="", now=now)
    claims = outbox.claim(mail.db, worker_id, limit=10, now=now)
    return worker_id, Pace(mail.site, worker_id, [TRANSPORT], lambda _: [TRANSPORT]), claims


def test_without_limits_and_lessons_a_claim_pays_one_statement(
    site: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = site.make()
    mail.send("ann@x.test")
    _, pace, claims = _at_work(mail)
    executed = _count_statements(mail, monkeypatch)
    assert pace.admit(claims) == claims
    assert executed["statements"] == 1


def test_without_lessons_it_is_not_asked_for_them_all_the_time_until_one_is_learned(
    site: Mails, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = site.make()
    mail.send("ann@slow.test")
    _, pace, claims = _at_work(mail)
    monkeypatch.setattr(pace_module, "LOOK_SECONDS", 1000.0)
    assert pace.admit(claims) == claims
    executed = _count_statements(mail, monkeypatch)
    assert pace.admit(claims) == claims and not executed
    refused = classify_reply("rcpt", 421, "4.7.0 too many messages, slow down")
    pace.hear(claims[0], [Answer.refused("ann@slow.test", refused)], TRANSPORT)
    pace.learn()
    assert pace.admit(claims) == []


def test_what_a_worker_held_back_after_it_lost_its_claims_stays_as_it_is(mails: Mails) -> None:
    mail = mails.make(limits={"*": "1/hour"})
    send(mail, 2, "slow.test")
    worker_id, pace, claims = _at_work(mail)
    leases.retire(mail.db, worker_id)
    assert pace.admit(claims) == []
    assert statuses(mail) == ["sending", "sending"]
    assert rows(mail, "window") == []


# --- connections -----------------------------------------------------------------------------


def test_no_more_messages_to_a_domain_are_under_way_than_it_has_connections(
    site: Mails, smtp: ScriptedServer
) -> None:
    mail = site.make(limits={"narrow.test": "1 connection"}, connections=4)
    send(mail, 10, "narrow.test")
    send(mail, 30, "wide.test")
    now = mail.site.clock()
    worker_id = leases.register(mail.db, token="t", host_name="h", pid=1, journal="", now=now)
    pace = Pace(mail.site, worker_id, ["s"], lambda _: ["s"])
    (first, second) = (
        outbox.Claimed(n, "t", None, False, None, None, 1, None, (outbox.Pending(n, "a@narrow.test", 0),))
        for n in (1, 2)
    )
    assert pace.has_room(first, [])
    assert not pace.has_room(second, [first])
    leases.retire(mail.db, pace._worker_id)
    mail.process_queue()
    assert reached(smtp) == {"narrow.test": 10, "wide.test": 30}


def test_workers_share_the_connections_of_a_transport(site: Mails, smtp: ScriptedServer) -> None:
    mail = site.make(limits={"transport": "1 connection"}, connections=4)
    now = mail.site.clock()
    leases.register(mail.db, token="t", host_name="h", pid=1, journal="", now=now, machine="another")
    send(mail, 30, "x.test")
    assert mail.process_queue()["sent"] == 0, "the other worker has it"
    assert set(statuses(mail)) == {"queued"}
    mail.db(mail.db.mailqueue_worker.id > 0).delete()
    mail.db.commit()
    before = smtp.connections
    assert mail.process_queue()["sent"] == 30
    assert smtp.connections == before + 1


# --- lessons ---------------------------------------------------------------------------------


def test_a_domain_that_asks_for_less_is_left_alone_and_then_sent_to_slowly(
    mails: Mails, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = mails.make(connections=1)
    smtp.script["rcpt"] = {f"user{n}@busy.test": Reply(421, "4.7.28 too fast") for n in range(40)}
    mail.send("user0@busy.test")
    mail.process_queue()
    send(mail, 25, "busy.test")
    send(mail, 2, "other.test")
    attempts = len(rows(mail, "attempt"))
    mail.process_queue()
    assert reached(smtp) == {"other.test": 2}
    assert len(rows(mail, "attempt")) == attempts + 2, "nobody who is held back has spent an attempt"
    (lesson,) = rows(mail, "lesson")
    assert (lesson["name"], lesson["strikes"]) == ("domain:busy.test", 1)
    assert "too fast" in lesson["reason"]
    smtp.script.clear()
    clock.advance(60)
    mail.process_queue()
    assert reached(smtp)["busy.test"] == 10, "as many as the first pace allows"
    for _ in range(12):
        clock.advance(60)
        send(mail, 1, "busy.test")
        mail.process_queue()
    assert set(statuses(mail)) == {"sent"}
    assert rows(mail, "lesson") == []


def test_one_address_that_is_greylisted_slows_nobody_down(
    mails: Mails, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = mails.make()
    smtp.script["rcpt"] = {"user0@grey.test": Reply(450, "4.2.0 greylisted")}
    send(mail, 20, "grey.test")
    mail.process_queue()
    assert reached(smtp)["grey.test"] == 19
    assert rows(mail, "lesson") == []


def test_several_refusals_in_a_row_are_a_wish(mails: Mails, smtp: ScriptedServer, clock: Clock) -> None:
    mail = mails.make(connections=1)
    smtp.script["rcpt"] = {f"user{n}@busy.test": Reply(450, "4.2.0 busy") for n in range(4)}
    for number in range(3):
        mail.send(f"user{number}@busy.test")
        mail.process_queue()
        clock.advance(5)
    (lesson,) = rows(mail, "lesson")
    assert lesson["strikes"] == 1
    mail.send("user3@busy.test")
    mail.process_queue()
    assert rows(mail, "recipient")[3]["held_by"] == "domain:busy.test"


def test_workers_that_claim_at_the_same_moment_take_no_place_twice(
    mails: Mails, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "BATCH", 1)
    limits = {"slow.test": "10/minute", "other.test": "7/minute"}
    first, *others = [mails.make(limits=limits) for _ in range(3)]
    first.process_queue()  # the transport's own row is there: the race is to be for the places
    send(first, 20, "slow.test")
    send(first, 20, "other.test")

    def work(mail: QueuedMailer) -> None:
        with own_transaction(mail.db):
            mail.process_queue()

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, mail) for mail in (first, *others)]:
            done.result()
    assert reached(smtp) == {"slow.test": 10, "other.test": 7}

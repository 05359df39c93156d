"""What a backlog must not do: flood people with dead links, send twice, or let bulk mail hold up Auth's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mailqueue import BadMessage, QueuedMailer, outbox, words, worker
from mailqueue.outbox import SHARE
from mailqueue.terms import terms
from pydal import DAL
from support.mail import START, Clock, make_mail, rows, statuses, to_server
from support.smtp_faults import Close, Hang, nth
from support.smtp_server import ScriptedServer, Session
from support.store import NOW, all_rows, another_dal, claim, composed, open_dal, put

DAY = 86400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, clock: Clock, smtp: ScriptedServer) -> QueuedMailer:
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    return mail


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


# --- expiry ----------------------------------------------------------------------------------


def test_after_a_long_outage_dead_links_are_expired_and_the_rest_goes_out(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.settings.server = None
    mail.send("ann@x.test", subject="your link", expires_after=DAY)
    mail.send("bob@x.test", subject="your invoice")
    mail.process_queue()
    clock.advance(3 * DAY)
    mail.process_queue()
    assert statuses(mail) == ["expired", "queued"], "shown as expired while sending is still impossible"
    to_server(mail, smtp)
    assert mail.process_queue()["sent"] == 1
    assert [m.rcpt_tos for m in smtp.messages] == [("bob@x.test",)]
    assert rows(mail, "recipient")[0]["status"] == "expired"


def test_what_expires_while_it_is_deferred_is_not_tried_again(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["rcpt"] = Close()
    mail.send("ann@x.test", expires_after=90)
    mail.process_queue()
    smtp.script.clear()
    clock.advance(91)
    mail.process_queue()
    assert (statuses(mail), smtp.messages) == (["expired"], [])
    assert len(rows(mail, "attempt")) == 1


def test_what_expires_while_it_is_claimed_is_not_sent(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.site.connections = 1

    def slow(_session: Session, _line: str) -> None:
        clock.advance(10)

    smtp.script["rcpt"] = slow
    for number in range(40):
        mail.send(f"user{number}@x.test", expires_after=35)
    mail.process_queue()
    assert len(smtp.messages) < 30, "those that a connection had in hand when the time was over"
    assert sorted(set(statuses(mail))) == ["expired", "sent"]


# --- once ------------------------------------------------------------------------------------


def test_a_key_makes_send_idempotent_for_its_window(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    for _ in range(3):
        assert mail.send("ann@x.test", dedupe="invoice-7", dedupe_window=3600)
    mail.send("ann@x.test", dedupe="invoice-8")
    assert mail.process_queue()["sent"] == 2
    clock.advance(3601)
    mail.send("ann@x.test", dedupe="invoice-7", dedupe_window=3600)
    mail.send("ann@x.test", dedupe="invoice-7", dedupe_window=3600)
    assert mail.process_queue()["sent"] == 1


def test_a_key_rolls_back_with_its_request(db: DAL) -> None:
    once = terms(NOW, dedupe="k")
    assert outbox.enqueue(db, composed(), once, now=NOW)
    db.rollback()
    assert outbox.enqueue(db, composed(), once, now=NOW)
    assert outbox.enqueue(db, composed(), once, now=NOW) is None
    db.commit()
    assert len(all_rows(db, "message")) == len(all_rows(db, "dedupe")) == 1


@pytest.mark.parametrize("earlier", [False, True])
def test_of_many_requests_at_once_with_one_key_one_queues(
    db: DAL, db_uri: str, tmp_path: Path, earlier: bool
) -> None:
    if earlier:  # a key whose window is over
        put(db, dedupe="k", dedupe_window=1)
    before, now = len(all_rows(db, "message")), NOW + 2
    start = threading.Barrier(6)

    def request(_: int) -> int | None:
        with another_dal(db_uri, tmp_path) as own:
            start.wait()
            message_id = outbox.enqueue(own, composed(), terms(now, dedupe="k"), now=now)
            own.commit()
            return message_id

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(request, range(6)))
    assert len([message_id for message_id in found if message_id]) == 1
    assert len(all_rows(db, "message")) == before + 1


def test_keys_whose_window_is_over_are_purged(mail: QueuedMailer, clock: Clock) -> None:
    mail.send("ann@x.test", dedupe="a", dedupe_window=10)
    mail.send("ann@x.test", dedupe="b", dedupe_window=DAY)
    clock.advance(11)
    mail.process_queue()
    assert [row["until_on"] for row in rows(mail, "dedupe")] == [START + DAY]


def test_keys_that_look_alike_to_a_database_are_different_keys(db: DAL) -> None:
    for key in ("Order-A", "order-a", "órder-a", "Order-A ", "😀", "😁"):
        put(db, dedupe=key)
    assert len(all_rows(db, "message")) == 6


# --- later -----------------------------------------------------------------------------------


def test_a_message_is_not_sent_before_its_time(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.send("ann@x.test", send_at=clock.now + 3600)
    assert not any(mail.process_queue().values())
    clock.advance(3600)
    assert mail.process_queue()["sent"] == 1


def test_terms_that_make_no_sense_write_nothing(mail: QueuedMailer) -> None:
    for wanted in (
        {"send_at": "soon"},
        {"expires_after": 0},
        {"dedupe": ""},
        {"doubt": "x"},
        {"priority": 9},
    ):
        with pytest.raises(BadMessage):
            mail.send("ann@x.test", **wanted)
    assert rows(mail, "message") == rows(mail, "dedupe") == []


# --- doubt -----------------------------------------------------------------------------------


def test_a_site_may_hold_what_is_in_doubt_until_somebody_decides(
    tmp_path: Path, clock: Clock, smtp: ScriptedServer
) -> None:
    mail = make_mail(tmp_path, clock=clock, doubt="hold")
    to_server(mail, smtp)
    smtp.script["dot"] = Close(taken=True)
    mail.send("ann@x.test")
    mail.send("bob@x.test", doubt="resend")
    mail.process_queue()
    smtp.script.clear()
    clock.advance(9 * DAY)
    mail.process_queue()
    assert statuses(mail) == ["in_doubt", "sent"]
    assert [m.rcpt_tos[0] for m in smtp.messages] == ["ann@x.test", "bob@x.test", "bob@x.test"]


# --- priorities ------------------------------------------------------------------------------


def test_urgent_mail_goes_first_and_bulk_mail_is_never_starved(db: DAL) -> None:
    bulk = [put(db, priority=words.BULK, now=NOW - 9) for _ in range(30)]
    normal = [put(db, now=NOW - 8) for _ in range(3)]
    urgent = [put(db, priority=words.URGENT) for _ in range(30)]
    ids = [one.id for one in claim(db, limit=20)]
    assert ids[:18] == urgent[:18]
    assert set(ids[18:]) <= {*normal, *bulk}
    assert len(ids[18:]) == 20 // SHARE
    ids = [one.id for one in claim(db, limit=20)]
    assert ids[:12] == urgent[18:]
    assert ids[12] == normal[2]
    assert ids[13:] == bulk[:7]
    assert len(claim(db, limit=1)) == 1


def test_a_flood_of_urgent_mail_keeps_its_order_and_starves_nobody(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Urgent mail that never ends, and a server that is slower than the looks for it."""
    monkeypatch.setattr(worker, "URGENT_SECONDS", 0.0)
    monkeypatch.setattr(worker, "BATCH", 20)
    mail.site.connections = 1
    for number in range(4):
        mail.send(f"bulk{number}@x.test", priority=words.BULK)
    for number in range(100):
        mail.send(f"urgent{number}@x.test", priority=words.URGENT)
    mail.process_queue()
    order = [m.rcpt_tos[0].partition("@")[0] for m in smtp.messages]
    assert [name for name in order if name[0] == "u"] == [f"urgent{number}" for number in range(100)]
    assert order.index("bulk0") < 32
    assert order.index("bulk3") < 100, "in between, not after all of them"


@pytest.mark.parametrize(
    ("usual", "sooner"),
    [(words.BULK, words.URGENT), (words.URGENT, words.INSTANT)],
    ids=["urgent mail before bulk mail", "a code before even urgent mail"],
)
def test_mail_overtakes_less_urgent_mail_that_is_claimed_already(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch, usual: int, sooner: int
) -> None:
    monkeypatch.setattr(worker, "URGENT_SECONDS", 0.0)
    mail.site.connections = 1
    for number in range(40):
        mail.send(f"user{number}@x.test", priority=usual)
    smtp.script["rcpt"] = {"user3@x.test": Hang()}
    draining = threading.Thread(target=mail.process_queue)
    draining.start()
    smtp.wait_for_stage("rcpt", 4)
    mail.send("ann@x.test", priority=sooner)
    mail.db.commit()
    smtp.release()
    draining.join()
    order: list[Any] = [m.rcpt_tos[0] for m in smtp.messages]
    assert len(order) == 41
    assert order.index("ann@x.test") <= 6, "behind what the connection had in hand, before the rest"


def test_urgent_mail_overtakes_the_few_that_lie_ready_where_no_more_wait(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "URGENT_SECONDS", 0.0)
    mail.site.connections = 1
    for number in range(4):
        mail.send(f"bulk{number}@x.test", priority=words.BULK)
    smtp.script["dot"] = nth(Hang(), 1)
    draining = threading.Thread(target=mail.process_queue)
    draining.start()
    smtp.wait_for_stage("dot")
    mail.send("ann@x.test", priority=words.URGENT)
    mail.db.commit()
    threading.Event().wait(2 * worker.GROUP_SECONDS)
    smtp.release()
    draining.join(20)
    order = [m.rcpt_tos[0] for m in smtp.messages]
    assert len(order) == 5
    assert order.index("ann@x.test") <= 2, "behind what is at hand and what is announced"


def test_a_code_is_claimed_before_all_urgent_mail(db: DAL) -> None:
    urgent = [put(db, priority=words.URGENT, now=NOW - 9) for _ in range(30)]
    code = put(db, priority=words.INSTANT)
    assert [one.id for one in claim(db, limit=3)] == [code, *urgent[:2]]

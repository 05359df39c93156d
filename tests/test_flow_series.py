"""A whole drain over a near server: messages one behind the other, and what breaks their series off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, journal, words
from mailqueue.series import ClaimedSeries
from mailqueue.shift import Shift
from mailqueue.transports import smtp_series
from mailqueue.transports.smtp import SmtpTransport
from mailqueue.transports.smtp_wire import Wire
from support.mail import Clock, make_mail, rows, statuses, to_server
from support.smtp_faults import Close, Fault, Raw, Reply, nth
from support.smtp_server import ScriptedServer

MESSAGES = 12
PLACE = 6  # of the one that is met by something; the first of the series is the second


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> QueuedMailer:
    monkeypatch.setattr("mailqueue.supply.FOR_EACH", MESSAGES)  # all of them lie ready from the beginning
    monkeypatch.setattr(smtp_series, "LULL", 20.0)  # however slow the machine is
    mail = make_mail(tmp_path, clock=Clock(), connections=1)
    to_server(mail, smtp)
    return mail


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What went out in one write: texts with their dots and the next commands."""
    return noted(monkeypatch, Wire, "send_some")


def noted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """The first arguments with which a method is called from now on."""
    calls: list[Any] = []
    original = getattr(owner, name)

    def note(self: Any, first: Any, *rest: Any) -> Any:
        calls.append(first)
        return original(self, first, *rest)

    monkeypatch.setattr(owner, name, note)
    return calls


def send(mail: QueuedMailer, number: int = MESSAGES, **options: Any) -> None:
    for place in range(1, number + 1):
        mail.send(f"user{place}@x.test", subject=f"No. {place}", body="hello\n.\n..two\n", **options)
    mail.db.commit()


def taken(smtp: ScriptedServer) -> list[str]:
    return [message.rcpt_tos[0].partition("@")[0] for message in smtp.messages]


def test_what_goes_out_in_a_series_arrives_as_it_would_in_step(
    mail: QueuedMailer, smtp: ScriptedServer, at_once: list[bytes]
) -> None:
    send(mail)
    mail.process_queue()
    assert taken(smtp) == [f"user{place}" for place in range(1, MESSAGES + 1)]
    texts = [message.parsed().get_content().replace("\r\n", "\n") for message in smtp.messages]
    assert texts == ["hello\n.\n..two\n"] * MESSAGES
    assert len(at_once) == MESSAGES - 1 and smtp.connections == 1
    assert statuses(mail) == ["sent"] * MESSAGES
    (first, *others) = rows(mail, "recipient")
    told = ("status", "attempts", "code", "enhanced", "reply", "transport", "failure_kind", "due")
    assert all([row[name] for name in told] == [first[name] for name in told] for row in others)
    assert len(rows(mail, "attempt")) == MESSAGES and rows(mail, "worker") == []


ANSWERS: dict[str, tuple[str, Fault, str]] = {
    "a sender who is to wait": ("mail", Reply(451, "4.3.0 later"), "deferred"),
    "a recipient who is refused": ("rcpt", Reply(550, "5.1.1 no such user"), "failed"),
    "a recipient who is to wait": ("rcpt", Reply(450, "4.2.0 later"), "deferred"),
    "a text that is not wanted": ("data", Reply(451, "4.3.0 no room"), "deferred"),
    "a text that is refused": ("dot", Reply(550, "5.7.1 spam"), "failed"),
    "a text that is to come again": ("dot", Reply(451, "4.3.0 later"), "deferred"),
    "an end before the answer": ("dot", Close(), "in_doubt"),
    "an answer that is none": ("dot", Raw(b"hello\r\n"), "in_doubt"),
    "a yes in two lines": ("dot", Reply(250, "2.0.0 taken\nthank you"), "sent"),
    "a yes of another kind": ("dot", Reply(251, "2.0.0 taken"), "sent"),
    "a yes with more than ASCII": ("dot", Raw(b"250 2.0.0 d'\xc3\xa9accord\r\n"), "sent"),
    "a yes that comes twice": ("dot", Reply(250, "2.0.0 taken", times=2), "sent"),
}


@pytest.mark.parametrize(("stage", "answer", "fate"), ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_plain_yes_is_the_answer_for_that_message_alone(
    mail: QueuedMailer, smtp: ScriptedServer, at_once: list[bytes], stage: str, answer: Fault, fate: str
) -> None:
    smtp.script[stage] = nth(answer, PLACE)
    send(mail, sender="own@site.test")
    mail.process_queue()
    expected = ["sent"] * MESSAGES
    expected[PLACE - 1] = fate
    assert statuses(mail) == expected
    assert len(at_once) >= MESSAGES - 4, "and the series goes on behind it"
    assert not any(smtp.messages.count(message) > 1 for message in smtp.messages)


def test_a_connection_that_is_lost_before_the_text_leaves_no_doubt(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(wire: Wire, _data: bytes) -> int:
        wire.close()
        raise ConnectionResetError

    monkeypatch.setattr(Wire, "send_some", lost)
    send(mail, 2)
    mail.process_queue()
    assert statuses(mail) == ["sent", "deferred"]
    assert rows(mail, "recipient")[1]["failure_kind"] == words.TRANSIENT


def test_a_server_that_asks_for_the_text_for_nobody_gets_none(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["rcpt"] = nth(Reply(550, "5.1.1 no such user"), PLACE)
    smtp.script["data"] = nth(Reply(354, "go ahead, whoever it is for"), PLACE)
    send(mail)
    mail.process_queue()
    expected = ["sent"] * MESSAGES
    expected[PLACE - 1] = "failed"
    assert statuses(mail) == expected
    assert [message.data for message in smtp.messages if not message.rcpt_tos] == [b""]


@pytest.mark.parametrize("what", ["large", "to two", "to one twice"])
def test_a_message_of_another_kind_goes_out_in_step(
    mail: QueuedMailer, smtp: ScriptedServer, at_once: list[bytes], what: str
) -> None:
    send(mail, 2)
    if what == "large":
        mail.send("other@x.test", subject="large", body="line\n" * (smtp_series.LARGEST // 5))
    else:
        mail.send(["other@x.test", "another@x.test"], subject="to two", body="hello")
    if what == "to one twice":  # by whoever changed the database beside us
        mail.db(mail.db.mailqueue_recipient.address == "another@x.test").update(address="other@x.test")
    send(mail, 2)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * 5 and smtp.connections == 1
    assert {row["status"] for row in rows(mail, "recipient")} == {"sent"}
    assert not any(b"large" in whole or b"to two" in whole for whole in at_once) and len(at_once) >= 2


def test_where_the_lease_is_lost_right_before_the_dot_it_is_not_sent(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent_before: list[int] = []
    answered_and_dot = journal.Journal.answered_and_dot

    def lose(record: journal.Journal, *given: Any) -> None:
        answered_and_dot(record, *given)
        if len(smtp.messages) == PLACE - 1:
            sent_before.append(len(smtp.messages))
            monkeypatch.setattr(Shift, "is_fresh", lambda shift: bool(vars(shift).update(_lost=True)))

    monkeypatch.setattr(journal.Journal, "answered_and_dot", lose)
    send(mail)
    mail.process_queue()
    assert [len(smtp.messages)] == sent_before
    assert statuses(mail) == ["sent"] * (PLACE - 1) + ["queued"] * (MESSAGES - PLACE + 1)
    assert [row["attempts"] for row in rows(mail, "recipient")][PLACE - 1 :] == [0] * (MESSAGES - PLACE + 1)


def test_where_the_disk_takes_no_dot_none_is_sent_and_the_answer_before_it_counts(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = journal._write, []

    def fill_up(file: Any, lines: bytes) -> None:
        full.extend([True] if lines.count(b"\n") == 2 and len(smtp.messages) >= PLACE - 1 else [])
        if full:
            raise OSError(28, "No space left on device")
        write(file, lines)

    monkeypatch.setattr(journal, "_write", fill_up)
    send(mail)
    mail.process_queue()
    sent = statuses(mail).count("sent")
    assert sent == len(smtp.messages) < MESSAGES
    assert statuses(mail) == ["sent"] * sent + ["queued"] * (MESSAGES - sent)
    assert [row["attempts"] for row in rows(mail, "recipient")] == [1] * sent + [0] * (MESSAGES - sent)


@pytest.mark.parametrize(("where", "fate"), [("next", "deferred"), ("begin", "in_doubt")])
def test_an_exception_in_a_series_concerns_the_message_at_stake_alone(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch, where: str, fate: str
) -> None:
    original, calls = getattr(ClaimedSeries, where), []

    def breaking(series: ClaimedSeries, *given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise RuntimeError("something nobody thought of")
        return original(series, *given)

    monkeypatch.setattr(ClaimedSeries, where, breaking)
    send(mail)
    mail.process_queue()
    assert sorted(statuses(mail)) == sorted([fate] + ["sent"] * (MESSAGES - 1))
    assert len(smtp.messages) == MESSAGES - (fate == "deferred")


def test_a_series_ends_with_as_many_messages_as_a_connection_takes(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SmtpTransport] = []
    original: Callable[..., None] = SmtpTransport.__init__

    def make(transport: SmtpTransport, *given: Any, **options: Any) -> None:
        original(transport, *given, **options)
        transport._wear._most = 5
        made.append(transport)

    monkeypatch.setattr(SmtpTransport, "__init__", make)
    send(mail)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * MESSAGES
    assert [sum(one.connection == number for one in smtp.messages) for number in (1, 2, 3)] == [5, 5, 2]


def test_a_worker_that_is_told_to_stop_ends_the_series(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, begun = ClaimedSeries.begin, []

    def closing(series: ClaimedSeries, reply: str | None) -> bool:
        begun.append(reply)
        if len(begun) == PLACE:
            series._shift.closing.set()
        return begin(series, reply)

    monkeypatch.setattr(ClaimedSeries, "begin", closing)
    send(mail)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * PLACE + ["queued"] * (MESSAGES - PLACE)
    assert len(smtp.messages) == PLACE

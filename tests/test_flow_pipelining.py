"""A whole drain over a server that offers PIPELINING: what is announced early, and what becomes of it."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
from mailqueue import QueuedMailer, supply, words, worker
from mailqueue.kept import KeptTransports
from mailqueue.transports import smtp_dialogue
from support.kill_lane import wait_until
from support.mail import Clock, make_mail, rows, statuses, to_server
from support.smtp_faults import Fault, Hang, Reply, nth
from support.smtp_server import ScriptedServer
from support.smtp_session import Session


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer) -> QueuedMailer:
    mail = make_mail(tmp_path, clock=Clock(), connections=1)
    to_server(mail, smtp)
    return mail


def send(mail: QueuedMailer, *names: str, **options: int) -> None:
    for name in names:
        mail.send(f"{name}@x.test", subject=name, **options)
    mail.db.commit()


def read_on(session: Session) -> None:
    """Have the server read until the next message is announced."""
    while b"DATA\r\n" not in session._buffer:
        received = session.socket.recv(65536)
        assert received, "the next message is not announced"
        session._buffer += received


def taken(smtp: ScriptedServer) -> list[str]:
    return [message.rcpt_tos[0].partition("@")[0] for message in smtp.messages]


def test_each_message_goes_out_once_in_its_order_announced_with_the_one_before(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    announced = Counter[bool]()
    smtp.script["dot"] = lambda session, _line: announced.update([bool(session._buffer)])
    names = [f"user{number:02}" for number in range(40)]
    send(mail, *names)
    mail.process_queue()
    assert taken(smtp) == names
    assert [str(message.parsed()["Subject"]) for message in smtp.messages] == names
    assert announced[True] > 0
    assert statuses(mail) == ["sent"] * 40
    assert [row["attempts"] for row in rows(mail, "recipient")] == [1] * 40


def test_a_message_announced_behind_one_that_waits_goes_out_over_another_connection(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_dialogue, "PATIENCE", 0.05)
    mail.site.connections = 2
    smtp.script["dot"] = nth(Hang(), 1)
    send(mail, "slow", "ann", "bob")
    draining = threading.Thread(target=mail.process_queue)
    draining.start()
    smtp.wait_for(2)
    smtp.release()
    draining.join(20)
    assert not draining.is_alive()
    assert sorted(taken(smtp)) == ["ann", "bob", "slow"] and taken(smtp)[-1] == "slow"
    assert [row["attempts"] for row in rows(mail, "recipient")] == [1, 1, 1]


def test_a_message_that_is_announced_when_the_work_is_to_end_goes_back_as_it_was(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, closed = threading.Event(), threading.Event()
    close = worker._Drain._close
    monkeypatch.setattr(worker._Drain, "_close", lambda drain: (close(drain), closed.set()))

    def ending(session: Session, _line: str) -> Fault | None:
        read_on(session)
        stop.set()
        assert closed.wait(10)
        return None

    smtp.script["dot"] = ending
    send(mail, "ann", "bob")
    kept = KeptTransports()
    counts = worker.drain(mail.site, stop=stop, kept=kept)
    assert (counts["sent"], counts["queued"]) == (1, 1)
    assert statuses(mail) == ["sent", "queued"]
    assert [row["attempts"] for row in rows(mail, "recipient")] == [1, 0]
    wait_until(lambda: smtp.sessions[0].socket.fileno() < 0)  # it is not kept, since the server waits there
    assert "QUIT" not in smtp.commands and rows(mail, "worker") == []
    smtp.script.clear()
    mail.process_queue()
    assert taken(smtp) == ["ann", "bob"]


def test_a_message_that_is_announced_when_the_way_is_blocked_waits_for_the_repair(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    def blocking(session: Session, _line: str) -> Fault | None:
        read_on(session)
        return Reply(550, "5.7.26 this sender is not authenticated")

    smtp.script["dot"] = blocking
    send(mail, "ann", "bob")
    mail.process_queue()
    assert statuses(mail) == ["queued", "queued"]
    assert [row["attempts"] for row in rows(mail, "recipient")] == [0, 0]
    assert taken(smtp) == [] and rows(mail, "worker") == []


def test_a_large_message_is_not_announced_and_goes_out_in_its_turn(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailqueue.ahead.LARGEST_AHEAD", 10)
    buffers = []
    smtp.script["dot"] = lambda session, _line: buffers.append(bytes(session._buffer))
    send(mail, "ann", "bob", "carl")
    mail.process_queue()
    assert taken(smtp) == ["ann", "bob", "carl"]
    assert buffers == [b"", b"", b""]


def test_no_message_is_left_out_where_few_texts_may_lie_ready(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "AHEAD_OCTETS", 1)
    names = [f"user{number}" for number in range(10)]
    send(mail, *names)
    mail.process_queue()
    assert taken(smtp) == names


def test_urgent_mail_overtakes_what_lies_ready_for_a_fast_server(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "URGENT_SECONDS", 0.0)
    monkeypatch.setattr(supply, "AHEAD_SECONDS", 1000.0)  # everything lies ready after the first tenth
    monkeypatch.setattr(supply, "_WINDOW", 0.0)
    send(mail, *[f"bulk{number}" for number in range(60)], priority=words.BULK)
    smtp.script["rcpt"] = {"bulk20@x.test": Hang()}
    draining = threading.Thread(target=mail.process_queue)
    draining.start()
    smtp.wait_for_stage("rcpt", 21)
    send(mail, "ann", priority=words.URGENT)
    threading.Event().wait(2 * worker.GROUP_SECONDS)
    smtp.release()
    draining.join(20)
    assert len(taken(smtp)) == 61 and len(set(taken(smtp))) == 61
    assert taken(smtp).index("ann") <= 23

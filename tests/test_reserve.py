"""Further connections come near their server while the first one is opened, and show no login before it."""

from __future__ import annotations

import socket
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, delivery, outbox, reserve, route, words
from mailqueue.classify import DeliveryError
from mailqueue.limits import read_limits
from mailqueue.reserve import Reserve
from mailqueue.transports.base import Transport
from mailqueue.transports.capture import MemoryTransport
from mailqueue.transports.smtp import PLAIN, SmtpTransport
from support.kill_lane import wait_until
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.smtp_faults import Close, Fault, Hang, Late, Reply, nth
from support.smtp_server import ScriptedServer
from support.smtp_session import Session

CONNECTIONS = 4
ENOUGH = CONNECTIONS * 10  # messages
USER, PASSWORD = "site", "its password"


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer) -> QueuedMailer:
    smtp.auth, smtp.mechanisms = {USER: PASSWORD}, ("CRAM-MD5",)
    mail = make_mail(tmp_path, clock=Clock(), connections=CONNECTIONS, login=f"{USER}:{PASSWORD}")
    to_server(mail, smtp)
    return mail


def send(mail: QueuedMailer, number: int = ENOUGH) -> None:
    for each in range(number):
        mail.send(f"user{each:02}@x.test", subject="s")
    mail.db.commit()


def greet_when(smtp: ScriptedServer, connections: int) -> None:
    """Greet nobody before so many have come."""
    everybody = threading.Event()

    def banner(_session: Session, _line: str) -> Fault | None:
        if smtp.reached["banner"] >= connections:
            everybody.set()
        assert everybody.wait(10), "they do not come at the same time"
        return None

    smtp.script["banner"] = banner


def when_all_are_logged_in(session: Session, _line: str) -> Fault | None:
    session.server.wait_for_stage("auth", CONNECTIONS)
    return None


def wait_for_ends() -> None:
    """Let those end that were not taken."""
    for thread in threading.enumerate():
        if thread.name == "mailqueue approach":
            thread.join(10)
            assert not thread.is_alive()


def test_all_that_the_mail_is_worth_come_while_the_first_one_is_not_even_greeted(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    greet_when(smtp, CONNECTIONS)
    smtp.script["dot"] = when_all_are_logged_in
    send(mail)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * ENOUGH
    assert smtp.connections == CONNECTIONS  # those that came early, and no others


def test_those_that_come_later_than_the_first_one_are_waited_for(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.settings.login = smtp.auth = None
    smtp.script["banner"] = lambda session, _line: Late(0.05 if session.number == 1 else 0.3).play(session)
    smtp.script["dot"] = Late(0.02)
    send(mail, ENOUGH * 2)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * ENOUGH * 2
    assert smtp.connections == CONNECTIONS


def test_where_the_server_has_no_place_for_a_late_first_one_another_is_the_first(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.create_connection

    def first_late(*arguments: Any, **options: Any) -> socket.socket:
        if threading.current_thread().name == "mailqueue opening":
            threading.Event().wait(0.3)  # its SYN was lost, say
        return connect(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", first_late)
    full = Reply(421, "4.7.0 too many connections", then=Close())
    smtp.script["banner"] = lambda session, _line: full if session.number >= CONNECTIONS else None
    send(mail)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * ENOUGH and open_causes(mail) == []


def test_a_wrong_password_is_shown_once_and_all_say_goodbye(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.login = f"{USER}:another one"
    greet_when(smtp, CONNECTIONS)
    send(mail)
    mail.process_queue()
    wait_for_ends()
    smtp.wait_for_stage("quit", CONNECTIONS - 1)
    assert smtp.reached["auth"] == 1 and smtp.connections == CONNECTIONS
    assert statuses(mail) == ["queued"] * ENOUGH and open_causes(mail) == ["auth-rejected"]
    assert {row["attempts"] for row in rows(mail, "recipient")} == {0}


def test_a_server_that_is_probed_sees_one_connection(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.script["banner"] = Reply(554, "5.3.2 closed")
    send(mail)
    mail.process_queue()
    wait_for_ends()
    before = smtp.connections
    smtp.script["banner"] = lambda *_: threading.Event().wait(delivery.LATE * 5) and None
    smtp.script["auth"] = Reply(454, "4.7.0 not now")
    mail.site.clock.advance(3600)  # type: ignore[attr-defined]
    mail.process_queue()
    assert smtp.connections == before + 1


@pytest.mark.parametrize("messages", [9, 19, ENOUGH])
def test_no_more_come_than_the_mail_is_worth(mail: QueuedMailer, smtp: ScriptedServer, messages: int) -> None:
    assert refused_connections(mail, smtp, messages) == min(1 + messages // 10, CONNECTIONS)


def test_where_there_are_limits_one_comes(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.site.limits = read_limits({"slow.test": "1 connection"})
    assert refused_connections(mail, smtp, ENOUGH) == 1


def test_where_mail_may_go_several_ways_one_comes(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    """Nobody knows how much of the mail goes which way."""
    url = f"smtp://{USER}:wrong@127.0.0.1:{smtp.port}?tls=none"
    mail.settings.transports = [url]
    mail.settings.routes = [route("memory", category="news")]
    assert refused_connections(mail, smtp, ENOUGH) == 1


def refused_connections(mail: QueuedMailer, smtp: ScriptedServer, messages: int) -> int:
    """How many come to a server that lets them wait, and in the end rejects the login."""
    smtp.script["banner"] = lambda *_: threading.Event().wait(delivery.LATE * 5) and None
    smtp.script["auth"] = Reply(535, "5.7.8 no")
    send(mail, messages)
    mail.process_queue()
    wait_for_ends()
    return smtp.connections


def test_where_the_database_fails_meanwhile_the_first_one_says_goodbye_too(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock(*_: object) -> int:
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(outbox, "number_due", lock)
    smtp.script["banner"] = Late(delivery.LATE * 10)
    send(mail)
    with pytest.raises(sqlite3.OperationalError):
        mail.process_queue()
    smtp.wait_for_stage("quit")
    assert smtp.connections == 1


def smtp_transport(smtp: ScriptedServer) -> SmtpTransport:
    return SmtpTransport("127.0.0.1", smtp.port, security=PLAIN, login=(USER, PASSWORD))


def test_what_came_near_goes_on_where_it_is(smtp: ScriptedServer) -> None:
    smtp.auth, smtp.mechanisms = {USER: PASSWORD}, ("CRAM-MD5",)
    transport = smtp_transport(smtp)
    transport.approach()
    assert smtp.reached["ehlo"] == 1 and smtp.reached["auth"] == 0
    transport.open()
    transport.open()
    assert (smtp.connections, smtp.reached["ehlo"], smtp.reached["auth"]) == (1, 1, 1)
    transport.close()


def test_what_the_server_has_left_meanwhile_comes_anew(smtp: ScriptedServer) -> None:
    smtp.auth, smtp.mechanisms = {USER: PASSWORD}, ("CRAM-MD5",)
    transport = smtp_transport(smtp)
    transport.approach()
    smtp.sessions[0].cut()
    transport.open()
    assert (smtp.connections, smtp.reached["auth"]) == (2, 1)
    transport.close()


def called_up(smtp: ScriptedServer, number: int = 1) -> Reserve:
    made = Reserve()
    made.call_up(lambda: smtp_transport(smtp), number)
    smtp.wait_for_stage("ehlo", number)
    return made


def taken(from_where: Reserve) -> Transport:
    found: list[Transport] = []
    wait_until(lambda: bool((one := from_where.take()) and not found.append(one)))
    return found[0]


def test_each_is_taken_once(smtp: ScriptedServer) -> None:
    made = called_up(smtp, 2)
    one, another = taken(made), taken(made)
    assert one is not another and made.take() is None
    made.dismiss()
    wait_for_ends()
    assert smtp.reached["quit"] == 0  # whoever took it, has it
    one.close()
    another.close()


def test_what_nobody_takes_ends(smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reserve, "PATIENCE", 0.01)
    called_up(smtp)
    wait_for_ends()
    smtp.wait_for_stage("quit")


def test_what_is_dismissed_on_its_way_ends_when_it_is_there(smtp: ScriptedServer) -> None:
    smtp.script["ehlo"] = nth(Hang(), 1)
    made = called_up(smtp)
    made.dismiss()
    smtp.release()
    wait_for_ends()
    assert made.take() is None
    smtp.wait_for_stage("quit")


def test_after_a_login_that_is_rejected_another_connection_is_made(smtp: ScriptedServer) -> None:
    smtp.auth, smtp.mechanisms = {USER: "another one"}, ("CRAM-MD5",)
    transport = smtp_transport(smtp)
    for connections in (1, 2):
        with pytest.raises(DeliveryError) as rejected:
            transport.open()
        assert (rejected.value.failure.stage, smtp.connections) == (words.AUTH, connections)
    transport.close()


def test_one_that_fails_is_closed() -> None:
    closed = threading.Event()

    class Failing(MemoryTransport):
        def approach(self) -> None:
            raise OSError("no way")

        def close(self) -> None:
            closed.set()

    made = Reserve()
    made.call_up(lambda: Failing([]), 1)
    wait_for_ends()
    assert closed.is_set() and made.take() is None


def fail() -> Any:
    raise ValueError("the settings are spoilt")


@pytest.mark.parametrize("is_made", [True, False])
def test_one_that_does_not_come_is_a_line_in_the_log(
    smtp: ScriptedServer, caplog: pytest.LogCaptureFixture, is_made: bool
) -> None:
    caplog.set_level("INFO", "mailqueue")
    smtp.script["banner"] = Reply(421, "4.7.0 too many connections")
    made = Reserve()
    made.call_up((lambda: smtp_transport(smtp)) if is_made else fail, 1)
    wait_for_ends()
    assert made.take() is None
    assert ("too many connections" if is_made else "spoilt") in caplog.text

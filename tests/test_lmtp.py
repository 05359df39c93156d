"""LMTP (RFC 2033): one answer for each recipient, over TCP and over a socket of this host."""

from __future__ import annotations

from pathlib import Path

import pytest
from mailqueue.transports.lmtp import LmtpTransport
from mailqueue.transports.smtp import PLAIN
from support.mail import Clock, make_mail, open_causes, rows, statuses
from support.smtp_client import HASTY, PATIENT, attempt, attempt_in_turn, letter_to, outcomes
from support.smtp_faults import Close, Fault, Hang, Late, Raw, Reply
from support.smtp_server import ScriptedServer

A, B, C = "a@x.test", "b@x.test", "c@x.test"
EXTENSIONS = [("PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8"), ("8BITMIME",)]


def lmtp_to(server: ScriptedServer, timeouts=PATIENT) -> LmtpTransport:
    return LmtpTransport(server.host, server.port, security=PLAIN, timeouts=timeouts)


@pytest.mark.parametrize("extensions", EXTENSIONS, ids=["pipelined", "in step"])
def test_each_recipient_has_an_answer_of_its_own(extensions) -> None:
    with ScriptedServer(extensions=extensions) as server:
        server.script["rcpt"] = {B: Reply(550, "5.1.1 no such user")}
        server.script["dot"] = {C: Reply(452, "4.2.2 mailbox full")}
        transport = lmtp_to(server)
        found = outcomes(attempt(transport, A, B, C))
        assert found == {A: "sent", B: "unknown-address", C: "mailbox-full"}
        assert [one.rcpt_tos for one in server.messages] == [(A,)]
        server.script.clear()
        assert outcomes(attempt(transport, B, C)) == {B: "sent", C: "sent"}
        assert server.connections == 1
        assert transport.name == f"lmtp://127.0.0.1:{server.port}"
        assert server.commands[0].startswith("LHLO ")


def kinds_after(fault: Fault) -> list[str | None]:
    with ScriptedServer() as server:
        server.script["dot"] = {B: fault}
        answers = {one.recipient: one for one in attempt(lmtp_to(server, HASTY), A, B, C)}
        server.release()
    return [failure.kind if (failure := answers[one].failure) else None for one in (A, B, C)]


def test_answers_that_came_hold_and_only_the_others_are_in_doubt() -> None:
    assert kinds_after(Close()) == [None, "in_doubt", "in_doubt"]
    closing = "4.3.2 closing"
    assert kinds_after(Reply(421, closing, then=Late())) == [None, "transient", None], "the third comes later"
    assert kinds_after(Reply(421, closing, then=Close())) == [None, "transient", "in_doubt"]
    assert kinds_after(Raw(b"hello\r\n")) == [None, "in_doubt", "in_doubt"], "none behind it can be told"
    assert kinds_after(Hang()) == ["in_doubt"] * 3, "this server says nothing until it knows all"


def test_messages_follow_each_other(smtp: ScriptedServer) -> None:
    found = attempt_in_turn(lmtp_to(smtp), letter_to(A, B), letter_to(B), letter_to(C, A, B))
    assert [set(outcomes(answers).values()) for answers in found] == [{"sent"}] * 3
    assert [one.rcpt_tos for one in smtp.messages] == [(A, B), (B,), (C, A, B)]


def test_nobody_accepted_is_no_text(smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = Reply(550, "5.1.1 no such user")
    transport = lmtp_to(smtp)
    assert outcomes(attempt(transport, A, B)) == {A: "unknown-address", B: "unknown-address"}
    smtp.script.clear()
    assert outcomes(attempt(transport, A)) == {A: "sent"}


def test_a_server_of_smtp_is_told_apart(smtp: ScriptedServer) -> None:
    smtp.script["ehlo"] = Reply(500, "5.5.1 unknown command")
    assert outcomes(attempt(lmtp_to(smtp))) == {A: "ehlo-rejected"}


def test_mail_goes_out_over_a_socket_of_this_host(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp")
    mail = make_mail(tmp_path, clock=Clock(), transports=[f"lmtp://{path}"])
    mail.send(A)
    mail.process_queue()
    assert (statuses(mail), open_causes(mail)) == (["queued"], ["unreachable"])
    with ScriptedServer(path=path) as server:
        mail.site.clock.advance(31)
        assert mail.process_queue()["sent"] == 1
        assert [one.rcpt_tos for one in server.messages] == [(A,)]
    assert rows(mail, "recipient")[0]["transport"] == f"lmtp://{path}"
    assert open_causes(mail) == []

"""The SMTP transport with PIPELINING (RFC 2920): what goes out together, and whose each answer is."""

from __future__ import annotations

from typing import Any

import pytest
from mailqueue import words
from mailqueue.classify import DeliveryError
from mailqueue.transports import smtp_dialogue
from support.certificates import Certificates
from support.smtp_client import (
    MIME,
    SENDER,
    Behind,
    attempt,
    attempt_in_turn,
    letter_to,
    outcomes,
    smtp_to,
)
from support.smtp_faults import Late
from support.smtp_server import (
    EXTENSIONS,
    Close,
    Fault,
    Hang,
    Raw,
    Reply,
    Reset,
    ScriptedServer,
    Session,
    nth,
)

A, B, C = "a@x.test", "b@x.test", "c@x.test"
DEAD = Reply(550, "5.1.1 no such user")
LATER = Reply(451, "4.3.0 later")
CLOSING = Reply(421, "4.3.2 closing", then=Close())
CLOSE, RESET = Close(), Reset()


def read_on(session: Session, end: bytes) -> None:
    """Have the server read until the client has sent this much."""
    while end not in session._buffer:
        received = session.socket.recv(65536)
        assert received, f"the client hung up before it sent {end!r}"
        session._buffer += received


def taken_by(server: ScriptedServer) -> list[tuple[str, ...]]:
    return [message.rcpt_tos for message in server.messages]


def said(server: ScriptedServer, verb: str) -> int:
    return sum(line.startswith(verb) for line in server.commands)


# --- what goes out together ------------------------------------------------------------------
def test_the_commands_of_a_message_go_out_before_the_first_is_answered(smtp):
    smtp.script["mail"] = lambda session, _line: read_on(session, b"DATA\r\n")
    assert outcomes(attempt(smtp_to(smtp), A, B)) == {A: "sent", B: "sent"}
    assert smtp.pipelined == 3


def test_no_text_goes_out_before_data_is_answered(smtp):
    behind = []
    smtp.script["data"] = lambda session, _line: behind.append(bytes(session._buffer))
    answers = attempt_in_turn(smtp_to(smtp), letter_to(A), letter_to(B))
    assert [outcomes(answer) for answer in answers] == [{A: "sent"}, {B: "sent"}]
    assert behind == [b"", b""]


def test_the_commands_of_the_next_message_go_out_with_the_dot_and_no_text_with_them(smtp):
    smtp.script["dot"] = nth_call(1, lambda session: read_on(session, b"DATA\r\n"))
    first, second = attempt_in_turn(smtp_to(smtp), letter_to(A), letter_to(B, C))
    assert outcomes(first) == {A: "sent"} and outcomes(second) == {B: "sent", C: "sent"}
    assert taken_by(smtp) == [(A,), (B, C)] and smtp.connections == 1
    assert [message.data for message in smtp.messages] == [MIME, MIME]


def nth_call(number: int, act: Any) -> Any:
    """A step that does something at this occurrence of its stage, and is no fault."""
    calls = []

    def step(session: Session, _line: str) -> Fault | None:
        calls.append(session)
        if len(calls) == number:
            act(session)
        return None

    return step


def test_many_messages_take_one_round_trip_each(smtp):
    letters = [letter_to(f"u{number}@x.test") for number in range(20)]
    answers = attempt_in_turn(smtp_to(smtp), *letters)
    assert all(answer.failure is None for (answer,) in answers)
    assert taken_by(smtp) == [letter.recipients for letter in letters]
    assert said(smtp, "RSET") == 0 and smtp.connections == 1


def test_what_is_offered_before_tls_only_is_not_used_under_it(certificates: Certificates):
    def offer(session: Session, _line: str) -> Fault:
        return Reply(250, "scripted.test" if session.tls else "scripted.test\nSTARTTLS\nPIPELINING")

    with ScriptedServer(
        tls="starttls", certificate=certificates.server, script={"ehlo": offer}, extensions=()
    ) as server:
        transport = smtp_to(server, security="starttls", ca_file=str(certificates.ca_file))
        answers = attempt_in_turn(transport, letter_to(A), letter_to(B))
        assert [outcomes(one) for one in answers] == [{A: "sent"}, {B: "sent"}]
        assert server.pipelined == 0


def test_under_tls_commands_go_out_together_too(certificates: Certificates):
    with ScriptedServer(tls="implicit", certificate=certificates.server) as server:
        transport = smtp_to(server, security="implicit", ca_file=str(certificates.ca_file))
        answers = attempt_in_turn(transport, *[letter_to(one, mime=MIME * 5000) for one in (A, B, C)])
        assert [outcomes(one) for one in answers] == [{A: "sent"}, {B: "sent"}, {C: "sent"}]
        assert server.pipelined >= 6 and server.connections == 1


# --- whose each answer is --------------------------------------------------------------------
def test_each_answer_is_that_of_its_own_recipient(smtp):
    smtp.script["rcpt"] = {A: LATER, C: DEAD, "e@x.test": Reply(452, "4.2.2 full")}
    transport = smtp_to(smtp)
    first, second = attempt_in_turn(transport, letter_to(A, B, C), letter_to("d@x.test", "e@x.test", A))
    assert outcomes(first) == {A: "server-deferred", B: "sent", C: "unknown-address"}
    assert outcomes(second) == {"d@x.test": "sent", "e@x.test": "mailbox-full", A: "server-deferred"}
    assert taken_by(smtp) == [(B,), ("d@x.test",)] and smtp.connections == 1


def test_an_address_that_cannot_be_written_is_not_among_the_commands(smtp):
    bad = "\ud800@x.test"
    transport = smtp_to(smtp)
    transport.open()
    answers = transport.deliver(SENDER, [A, bad, B], MIME, smtputf8=False, before_dot=lambda accepted: None)
    assert outcomes(answers) == {A: "sent", bad: "recipient-not-ascii", B: "sent"}
    assert taken_by(smtp) == [(A, B)]


@pytest.mark.parametrize("place", [0, 1], ids=["first", "announced"])
def test_a_message_whose_recipients_are_all_refused_leaves_the_connection_to_the_next(smtp, place):
    letters = [letter_to(A), letter_to(C)]
    letters.insert(place, letter_to(B, "d@x.test"))
    smtp.script["rcpt"] = {B: DEAD, "d@x.test": LATER}
    answers = attempt_in_turn(smtp_to(smtp), *letters)
    assert outcomes(answers[place]) == {B: "unknown-address", "d@x.test": "server-deferred"}
    assert taken_by(smtp) == [(A,), (C,)]
    assert smtp.connections == 1 and said(smtp, "RSET") == 1


def test_the_text_for_nobody_is_a_lone_dot_whose_answer_means_nothing(smtp):
    smtp.script.update({"rcpt": {A: DEAD}, "data": nth(Reply(354, "go ahead, whoever it is for"), 1)})
    dots: list[list[str]] = []
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport, A, dots=dots)) == {A: "unknown-address"}
    assert outcomes(attempt(transport, B)) == {B: "sent"}
    assert [(message.rcpt_tos, message.data) for message in smtp.messages] == [((), b""), ((B,), MIME)]
    assert dots == [] and smtp.connections == 1 and said(smtp, "RSET") == 0


@pytest.mark.parametrize("place", [1, 2], ids=["first", "announced"])
def test_a_refused_sender_is_that_messages_own_and_the_connection_stays_in_step(smtp, place):
    smtp.script["mail"] = nth(Reply(550, "5.1.8 bad sender"), place)
    transport = smtp_to(smtp)
    results = []
    for letter, behind in ((letter_to(A), letter_to(B)), (letter_to(B), letter_to(C)), (letter_to(C), None)):
        transport.following = Behind(behind)
        transport.open()
        try:
            deliver(transport, letter)
            results.append("sent")
        except DeliveryError as error:
            results.append(error.failure.rule)
    expected = ["sent", "sent", "sent"]
    expected[place - 1] = "sender-rejected"
    assert results == expected and smtp.connections == 1 and len(smtp.messages) == 2


def deliver(transport: Any, letter: Any) -> Any:
    return transport.deliver(
        letter.sender, letter.recipients, letter.mime, smtputf8=letter.smtputf8, before_dot=lambda one: None
    )


def test_a_refused_sender_whom_the_server_takes_recipients_for_all_the_same_gets_no_text_through(smtp):
    smtp.script["mail"] = nth(Reply(550, "5.1.8 bad sender"), 1)
    smtp.script["rcpt"] = nth(Reply(250, "2.1.5 fine by me"), 1)
    smtp.script["data"] = nth(Reply(354, "go ahead"), 1)
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport, A)) == {A: "sender-rejected"}
    assert smtp.messages == []
    assert outcomes(attempt(transport, B)) == {B: "sent"}


@pytest.mark.parametrize("place", [1, 2], ids=["first", "announced"])
def test_refused_data_is_the_answer_for_those_accepted_and_the_next_message_goes_on(smtp, place):
    smtp.script["data"] = nth(Reply(451, "4.3.0 no room"), place)
    answers = attempt_in_turn(smtp_to(smtp), *[letter_to(one) for one in (A, B, C)])
    expected = [{A: "sent"}, {B: "sent"}, {C: "sent"}]
    expected[place - 1] = {[A, B][place - 1]: "server-deferred"}
    assert [outcomes(one) for one in answers] == expected
    assert smtp.connections == 1 and said(smtp, "RSET") == 1


@pytest.mark.parametrize("code", [250, 299, 399])
def test_a_yes_to_data_that_is_no_354_is_never_taken_for_a_success(smtp, code):
    smtp.script.update({"rcpt": {A: DEAD}, "data": nth(Reply(code, "2.0.0 fine"), 1)})
    transport = smtp_to(smtp)
    answers = attempt(transport, A, B)
    assert outcomes(answers) == {A: "senseless-reply", B: "senseless-reply"}
    assert all(answer.failure and answer.failure.kind == words.TRANSIENT for answer in answers)
    assert smtp.messages == []
    assert outcomes(attempt(transport, B)) == {B: "sent"}


def test_a_refused_text_needs_no_reset(smtp):
    smtp.script["dot"] = nth(Reply(554, "5.7.1 spam"), 1)
    first, second = attempt_in_turn(smtp_to(smtp), letter_to(A), letter_to(B))
    assert outcomes(first) == {A: "content-refused"} and outcomes(second) == {B: "sent"}
    assert said(smtp, "RSET") == 0 and smtp.connections == 1


# --- where the connection ends ---------------------------------------------------------------
ENDS = {
    "421": (CLOSING, "service-closing"),
    "closed": (CLOSE, "connection-lost"),
    "reset": (RESET, "connection-lost"),
}
PLACES = [(stage, number) for number in (1, 2) for stage in ("mail", "rcpt", "data", "dot")]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("stage", "number"), PLACES)
def test_wherever_the_connection_ends_each_message_has_its_own_fate(smtp, stage, number, end):
    fault, lost = ENDS[end]
    smtp.script[stage] = nth(fault, number)
    transport = smtp_to(smtp)
    answers = attempt_in_turn(transport, *[letter_to(one) for one in (A, B, C)])
    found = {one: rule for answer in answers for one, rule in outcomes(answer).items()}
    met = (A, B)[number - 1]
    doubt = stage == "dot" and end != "421"
    fates = {"no-reply-to-dot" if doubt else lost}
    if (stage, number) == ("mail", 2):
        fates = {"sent"}  # over a new connection: this one had served before
    elif number == 2 and end == "reset":
        fates |= {"sent"}  # the reset came before the first reply was read
    if number == 2 and end == "reset":  # and may have overtaken the answer to the dot before it
        assert found.pop(A) in ("sent", "no-reply-to-dot")
    assert found.pop(met) in fates
    assert set(found.values()) == {"sent"}
    assert not any(smtp.messages.count(message) > 1 for message in smtp.messages)


def test_what_was_answered_before_the_end_stays_answered(smtp):
    smtp.script.update({"rcpt": {A: DEAD}, "data": nth(CLOSING, 1)})
    answers = attempt(smtp_to(smtp), A, B)
    assert outcomes(answers) == {A: "unknown-address", B: "service-closing"}


def test_a_second_answer_to_the_dot_costs_the_next_message_nothing(smtp):
    smtp.script["dot"] = nth(Reply(250, "2.0.0 taken", times=2), 1)
    answers = attempt_in_turn(smtp_to(smtp), *[letter_to(one) for one in (A, B, C)])
    assert [outcomes(one) for one in answers] == [{A: "sent"}, {B: "sent"}, {C: "sent"}]
    assert taken_by(smtp) == [(A,), (B,), (C,)]


def test_a_senseless_answer_to_the_dot_is_doubt_of_that_message_alone(smtp):
    smtp.script["dot"] = nth(Raw(b"hello\r\n"), 1)
    first, second = attempt_in_turn(smtp_to(smtp), letter_to(A), letter_to(B))
    assert outcomes(first) == {A: "senseless-reply-to-dot"} and outcomes(second) == {B: "sent"}
    assert smtp.connections == 2


# --- the message behind ----------------------------------------------------------------------
def test_while_the_dot_is_not_answered_the_message_behind_goes_another_way(smtp, monkeypatch):
    monkeypatch.setattr(smtp_dialogue, "PATIENCE", 0.3)
    smtp.script["dot"] = nth(Hang(), 1)
    transport = smtp_to(smtp)

    class Other(Behind):
        def give_back(self) -> None:
            super().give_back()
            assert outcomes(attempt(smtp_to(smtp), B)) == {B: "sent"}
            smtp.release()

    transport.following = other = Other(letter_to(B))
    assert outcomes(attempt(transport, A)) == {A: "sent"}
    assert other.given_back == 1
    assert outcomes(attempt(transport, C)) == {C: "sent"}
    assert taken_by(smtp) == [(B,), (A,), (C,)]
    assert smtp.connections == 3, "the server waited for B's text on the first one"


def test_a_server_that_always_answers_late_does_not_cost_a_connection_each_time(smtp, monkeypatch):
    monkeypatch.setattr(smtp_dialogue, "PATIENCE", 0.3)
    late = Late(0.6)
    smtp.script["dot"] = lambda _session, _line: late if len(smtp.messages) < 4 else None
    letters = [letter_to(f"u{number}@x.test") for number in range(8)]
    answers = attempt_in_turn(smtp_to(smtp), *letters)
    assert all(answer.failure is None for (answer,) in answers)
    assert taken_by(smtp) == [letter.recipients for letter in letters]
    assert smtp.connections == 2
    # The one given back may be cut off before the server has read it: 8 texts are begun, or 9.
    assert smtp.reached["text"] <= 9, "only the first was announced in vain"


def test_a_message_that_was_announced_and_does_not_come_is_not_sent(smtp):
    transport = smtp_to(smtp)
    transport.following = Behind(letter_to(B))
    assert outcomes(attempt(transport, A)) == {A: "sent"}
    transport.following = None
    assert outcomes(attempt(transport, C)) == {C: "sent"}
    assert taken_by(smtp) == [(A,), (C,)]


def test_a_message_with_another_text_than_announced_is_sent_with_its_own(smtp):
    transport = smtp_to(smtp)
    transport.following = Behind(letter_to(B))
    attempt(transport, A)
    assert outcomes(attempt(transport, B, mime=MIME + b"more\r\n")) == {B: "sent"}
    assert [message.data for message in smtp.messages] == [MIME, MIME + b"more\r\n"]


def test_closing_says_nothing_where_the_server_waits_for_a_text(smtp):
    transport = smtp_to(smtp)
    transport.following = Behind(letter_to(B))
    attempt(transport, A)
    smtp.wait_for_stage("text", 2)
    transport.close()
    smtp.stop()
    assert b"QUIT" not in smtp.sessions[0]._buffer and taken_by(smtp) == [(A,)]


@pytest.mark.parametrize(
    ("letter", "rule"),
    [
        (letter_to(B, mime=MIME + b"x" * 1000), "too-big"),
        (letter_to("gr\u00fc\u00dfe@x.test", smtputf8=True), "smtputf8-not-offered"),
    ],
)
def test_what_cannot_be_sent_is_not_announced_and_shows_in_its_own_turn(letter, rule):
    extensions = tuple(name for name in EXTENSIONS if name != "SMTPUTF8")
    with ScriptedServer(size_limit=500, extensions=extensions) as server:
        transport = smtp_to(server)
        first, second = attempt_in_turn(transport, letter_to(A), letter)
        assert outcomes(first) == {A: "sent"} and set(outcomes(second).values()) == {rule}
        assert said(server, "MAIL") == 1


# --- a server that offers it and cannot ------------------------------------------------------
def test_a_server_that_refuses_what_it_offers_gets_one_command_after_the_other(smtp):
    smtp.extensions = ("SIZE",)
    smtp.script["ehlo"] = Reply(250, "scripted.test\nPIPELINING\nSIZE 10000000")
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport, A, B)) == {A: "sent", B: "sent"}
    assert (smtp.connections, smtp.pipelined) == (1, 3)
    transport.close()
    answers = attempt_in_turn(transport, letter_to(A), letter_to(B))  # it is remembered beyond the connection
    assert [outcomes(one) for one in answers] == [{A: "sent"}, {B: "sent"}]
    assert smtp.pipelined == 3


@pytest.mark.parametrize("stage", ["mail", "data"])
def test_a_503_to_the_announced_message_is_no_failure_of_it(smtp, stage):
    smtp.script[stage] = nth(Reply(503, "5.5.0 one at a time"), 2)
    answers = attempt_in_turn(smtp_to(smtp), *[letter_to(one) for one in (A, B, C)])
    assert [outcomes(one) for one in answers] == [{A: "sent"}, {B: "sent"}, {C: "sent"}]
    assert smtp.connections == 1


def test_a_size_that_is_refused_is_left_out_of_the_announced_message_too(smtp):
    smtp.script["mail"] = lambda _session, line: Reply(555, "5.5.4 what?") if "SIZE" in line else None
    answers = attempt_in_turn(smtp_to(smtp), *[letter_to(one) for one in (A, B, C)])
    assert [outcomes(one) for one in answers] == [{A: "sent"}, {B: "sent"}, {C: "sent"}]
    assert smtp.connections == 1 and said(smtp, "MAIL") == 4

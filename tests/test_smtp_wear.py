"""When an SMTP connection is worn out: by its age, by idling, by what the server allows."""

from __future__ import annotations

import pytest
from mailqueue.transports.smtp_wear import IDLE, OLDEST, PROMPT, Wear
from support.mail import Clock
from support.smtp_client import attempt, attempt_in_turn, letter_to, outcomes, smtp_to
from support.smtp_server import Close, Reply, ScriptedServer

A = "a@x.test"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wear(clock: Clock) -> Wear:
    return Wear(clock)


def serve(wear: Wear, messages: int) -> None:
    wear.renewed()
    for _ in range(messages):
        wear.used()


def test_a_connection_that_is_used_now_and_then_lasts_until_it_is_too_old(wear, clock):
    for _ in range(int(OLDEST / IDLE)):
        wear.used()
        clock.advance(IDLE)
        assert not wear.worn_out
    wear.used()
    clock.advance(1)
    assert wear.worn_out
    wear.renewed()
    assert not wear.worn_out


def test_one_that_was_idle_is_worn_out(wear, clock):
    wear.used()
    clock.advance(IDLE + 1)
    assert wear.worn_out


def test_one_that_has_served_nothing_yet_is_not(wear, clock):
    clock.advance(OLDEST + 1)
    assert not wear.worn_out


def test_a_server_that_hangs_up_twice_after_as_many_messages_allows_that_many(wear):
    for _ in range(2):
        serve(wear, 3)
        assert wear.takes_another and not wear.worn_out
        wear.ended()
    serve(wear, 1)
    assert wear.takes_another and not wear.worn_out
    wear.used()
    assert not wear.takes_another and not wear.worn_out  # the third is the last
    wear.used()
    assert wear.worn_out


def test_one_end_alone_tells_nothing_and_neither_do_two_at_different_times(wear):
    for messages in (3, 5, 3):
        serve(wear, messages)
        wear.ended()
    serve(wear, 10)
    assert wear.takes_another and not wear.worn_out


def test_an_end_long_after_a_message_has_nothing_to_do_with_their_number(wear, clock):
    for _ in range(2):
        serve(wear, 3)
        clock.advance(PROMPT + 1)
        wear.ended()
    serve(wear, 10)
    assert not wear.worn_out


def test_the_transport_renews_a_connection_in_good_order(smtp, clock):
    transport = smtp_to(smtp)
    transport._wear = Wear(clock)
    attempt(transport)
    clock.advance(IDLE + 1)
    assert outcomes(attempt(transport)) == {A: "sent"}
    assert smtp.connections == 2 and smtp.commands.count("QUIT") == 1


def test_a_server_that_takes_two_messages_a_connection_soon_gets_two_a_connection(smtp: ScriptedServer):
    served: dict[int, int] = {}

    def two(session, _line):
        served[session.number] = served.get(session.number, 0) + 1
        return Reply(421, "4.7.0 enough", then=Close()) if served[session.number] > 2 else None

    smtp.script["mail"] = two
    letters = [letter_to(f"u{number}@x.test") for number in range(10)]
    answers = attempt_in_turn(smtp_to(smtp), *letters)
    assert all(answer.failure is None for (answer,) in answers)
    assert [message.rcpt_tos for message in smtp.messages] == [letter.recipients for letter in letters]
    assert served == {1: 3, 2: 3, 3: 2, 4: 2, 5: 2}, "after two of them it was known"

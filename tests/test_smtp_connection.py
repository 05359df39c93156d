"""The SMTP transport's connection: kept, replaced, timed, closed; its name and settings."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from mailqueue.transports.smtp import IMPLICIT, STARTTLS, SmtpTransport, Timeouts
from support.smtp_client import HASTY, MIME, SENDER, Drip, attempt, outcomes, smtp_to
from support.smtp_server import Close, Hang, Raw, Reply, Reset, free_port, nth

A, B = "a@x.test", "b@x.test"
LATER = Reply(451, "4.3.0 later")
CLOSING = Reply(421, "4.3.2 closing", then=Close())
NONSENSE = Raw(b"hello, nice to meet you\r\n")
HANG, CLOSE, RESET = Hang(), Close(), Reset()


# --- a connection that is kept ---------------------------------------------------------------
def test_one_connection_serves_many_messages(smtp):
    transport = smtp_to(smtp)
    assert [outcomes(attempt(transport))[A] for _ in range(5)] == ["sent"] * 5
    assert smtp.connections == 1


@pytest.mark.parametrize(
    "goodbye", [CLOSE, RESET, Reply(421, "4.4.2 idle too long", then=Close())], ids=["close", "reset", "421"]
)
def test_a_kept_connection_that_the_server_ends_while_idle_costs_no_message_anything(smtp, goodbye):
    smtp.script["dot"] = nth(Reply(250, "2.0.0 taken", then=goodbye), 1)
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport, A)) == {A: "sent"}
    assert outcomes(attempt(transport, B)) == {B: "sent"}
    assert smtp.connections == 2


@pytest.mark.parametrize("goodbye", [CLOSE, RESET, CLOSING], ids=["close", "reset", "421"])
def test_a_kept_connection_that_ends_at_the_next_mail_command_is_replaced_at_once(smtp, goodbye):
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport, A)) == {A: "sent"}
    smtp.script["mail"] = nth(goodbye, 1)
    assert outcomes(attempt(transport, B)) == {B: "sent"}
    assert smtp.connections == 2


def test_a_new_connection_that_ends_at_its_first_mail_command_is_not_replaced_at_once(smtp):
    smtp.script["mail"] = nth(CLOSE, 1)
    assert outcomes(attempt(smtp_to(smtp))) == {A: "connection-lost"}
    assert smtp.connections == 1


def test_a_server_that_always_hangs_up_is_not_tried_for_ever(smtp):
    transport = smtp_to(smtp)
    attempt(transport)
    smtp.script["mail"] = CLOSE
    assert outcomes(attempt(transport)) == {A: "connection-lost"}
    assert smtp.connections == 2


def test_a_connection_on_which_the_server_speaks_unasked_is_not_opened_at_the_cost_of_a_message(smtp):
    smtp.script["ehlo"] = Reply(250, "scripted.test", times=2)
    transport = smtp_to(smtp)
    with pytest.raises(ConnectionAbortedError):
        transport.open()
    assert transport.stage == "ehlo"


# --- time-outs -------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt", "data"])
def test_a_server_that_drips_does_not_stretch_the_time(smtp, stage):
    smtp.script[stage] = Drip()
    begun = time.monotonic()
    (answer,) = attempt(
        smtp_to(smtp, timeouts=replace(HASTY, greeting=1.0))
    )  # a busy machine has come to EHLO
    assert answer.failure and (answer.failure.rule, answer.stage) == ("timed-out", stage)
    assert time.monotonic() - begun < 5


def test_the_sites_timeout_does_not_shorten_the_wait_for_the_answer_to_the_dot(smtp):
    assert Timeouts.of(None) == Timeouts() and Timeouts().dot >= 600
    assert Timeouts().greeting <= 60, "an administrator is to hear soon of a server that hangs"
    assert Timeouts.of(0.3) == Timeouts(
        connect=0.3, greeting=0.3, command=0.3, data=0.3, block=0.3, dot=Timeouts().dot
    )

    def slowly(session, _line):
        session.server._spawn(lambda: (time.sleep(0.5), session.server.release()))
        return Hang()

    smtp.script["dot"] = slowly
    assert outcomes(attempt(smtp_to(smtp, timeouts=Timeouts.of(0.3)))) == {A: "sent"}


# --- close, name, settings -------------------------------------------------------------------
@pytest.mark.parametrize("fault", [HANG, CLOSE, RESET, NONSENSE, Drip(), LATER], ids=repr)
def test_close_is_quick_and_quiet_whatever_the_server_does(smtp, fault):
    smtp.script["quit"] = fault
    transport = smtp_to(smtp, timeouts=HASTY)
    transport.open()
    begun = time.monotonic()
    transport.close()
    transport.close()
    assert time.monotonic() - begun < 3


def test_the_default_goodbye_takes_two_seconds_at_most():
    assert Timeouts().quit <= 2


def test_the_name_tells_the_way_and_no_secret():
    login = ("the-user", "the-password")
    names = [
        SmtpTransport("mail.x.test", 25, security=way, login=login).name
        for way in ("plain", STARTTLS, IMPLICIT)
    ]
    assert names == ["smtp://mail.x.test:25", "smtp+starttls://mail.x.test:25", "smtps://mail.x.test:25"]


def test_the_settings_change_with_each_setting():
    base = {"host": "a.test", "port": 25}
    changes = [
        {"host": "b.test"}, {"port": 26}, {"security": IMPLICIT}, {"login": ("u", "p")},
        {"login": ("u", "q")},
        {"ca_file": "/ca.pem"}, {"hostname": "h.test"}, {"timeouts": Timeouts(dot=601)},
    ]  # fmt: skip
    all_settings = {SmtpTransport(**{**base, **change}).settings() for change in [{}, *changes]}
    assert len(all_settings) == len(changes) + 1
    assert SmtpTransport(**base).settings() == SmtpTransport(**base).settings()


def test_a_transport_that_was_never_opened_says_so():
    with pytest.raises(ConnectionError):
        SmtpTransport("127.0.0.1", free_port()).deliver(SENDER, [A], MIME, smtputf8=False, before_dot=print)

"""Whatever a transport does, one answer for each recipient."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from mailqueue import delivery, words
from mailqueue.classify import DeliveryError, NotOffered, SiteFault, classify_exception, classify_reply
from mailqueue.compose import Envelope, compose
from mailqueue.delivery import NOT_WAITED_FOR, close, hand_over, opened
from mailqueue.transports.base import Answer, Transport
from mailqueue.transports.capture import Captured, MemoryTransport

A, B = "a@x.test", "b@x.test"
MIME = b"From: me@x.test\r\n\r\nhi\r\n"
TO_BOTH = Envelope("me@x.test", (("to", A), ("bcc", B)), False)
REFUSED = classify_reply("rcpt", 550, "5.1.1 no such user")


class PluginPanic(BaseException):
    """Not an exit, and yet no Exception: libraries written in other languages have such ones."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Plugin(Transport):
    """A transport that somebody else wrote: does what it is told, at a stage of its choice."""

    name = "plugin"

    def __init__(self, act: Callable[[Plugin, Any], Any], closing: BaseException | None = None):
        self.act, self.closing = act, closing
        self.closed = 0
        self.seen: list[tuple[str, list[str], bytes, bool]] = []

    def settings(self) -> tuple[object, ...]:
        return ()

    def open(self) -> None: ...

    def deliver(self, sender, recipients, mime, *, smtputf8, before_dot):
        self.seen.append((sender, list(recipients), mime, smtputf8))
        return self.act(self, before_dot)

    def close(self) -> None:
        self.closed += 1
        self.stage = words.QUIT
        if self.closing:
            raise self.closing


@pytest.mark.parametrize("is_open_first", [True, False])
def test_a_transport_that_opens_though_nobody_waits_any_more_closes_itself(is_open_first: bool) -> None:
    begun, going, stop = threading.Event(), threading.Event(), threading.Event()

    class Late(Plugin):
        def open(self) -> None:
            begun.set()
            assert going.wait(10)

    plugin = Late(lambda *_: [])
    stopping = threading.Thread(target=lambda: (begun.wait(10), (going if is_open_first else stop).set()))
    stopping.start()
    failure = opened(plugin, stop)
    stopping.join()
    assert (failure is NOT_WAITED_FOR) != is_open_first
    going.set()
    for thread in threading.enumerate():
        if thread.name == "mailqueue opening":
            thread.join(10)
    assert plugin.closed == (0 if is_open_first else 1)


@pytest.mark.parametrize("is_late", [True, False])
def test_what_is_to_be_done_meanwhile_is_done_only_where_it_takes_long(
    is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "LATE", 0.01 if is_late else 10.0)
    going = threading.Event()

    class Slow(Plugin):
        def open(self) -> None:
            assert not is_late or going.wait(10)

    assert opened(Slow(lambda *_: []), None, going.set) is None
    assert going.is_set() == is_late


def raising(error: BaseException, stage: str | None = None, dot: bool = False) -> Plugin:
    def act(plugin: Plugin, before_dot: Any) -> Any:
        if stage:
            plugin.stage = stage
        if dot:
            before_dot([A])
        raise error

    return Plugin(act)


def rules(answers: list[Answer]) -> list[str | None]:
    return [answer.failure.rule if answer.failure else None for answer in answers]


def yes(recipient: str) -> Answer:
    return Answer(recipient, None, 250)


# --- what is raised --------------------------------------------------------------------------
ANYTHING = [
    ValueError("bad"), OSError(5, "io"), TimeoutError(), MemoryError(), RecursionError(), StopIteration(),
    AssertionError(), PluginPanic("panic"), Unprintable(), BaseException(), NotOffered("SOMETHING"),
    UnicodeEncodeError("ascii", "\u00fc", 0, 1, "no"),
]  # fmt: skip


@pytest.mark.parametrize("stage", [None, *words.STAGES, "a stage of its own"])
@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_is_raised_at_whatever_stage_becomes_an_answer_for_each(error, stage):
    plugin = raising(error, stage)
    answers = hand_over(plugin, TO_BOTH, MIME, None)
    assert [answer.recipient for answer in answers] == [A, B]
    for answer in answers:
        assert answer.failure and answer.failure.kind in words.FAILURE_KINDS
        assert answer.failure.surely_not_sent is (stage != words.DOT)
    assert plugin.closed == 1


@pytest.mark.parametrize("error", [PluginPanic("panic"), Unprintable(), KeyError("x")])
def test_an_unknown_exception_is_tried_again_and_named(error):
    (answer, _) = hand_over(raising(error), TO_BOTH, MIME, None)
    assert answer.failure and answer.failure.rule == "unknown-exception"
    assert (answer.failure.kind, answer.failure.bounded) == (words.TRANSIENT, True)
    assert type(error).__name__ in answer.failure.text


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_exit_is_passed_on_and_the_transport_is_closed(end):
    plugin = raising(end())
    with pytest.raises(end):
        hand_over(plugin, TO_BOTH, MIME, None)
    assert plugin.closed == 1


def test_after_before_dot_an_exception_leaves_doubt_even_if_the_transport_keeps_no_stages():
    answers = hand_over(raising(RuntimeError("boom"), dot=True), TO_BOTH, MIME, None)
    assert rules(answers) == ["unknown-exception-after-dot"] * 2
    assert [answer.failure.kind for answer in answers if answer.failure] == [words.IN_DOUBT] * 2


def test_a_failure_that_a_transport_brings_itself_is_kept_with_its_stage():
    answers = hand_over(raising(DeliveryError(REFUSED), words.DATA), TO_BOTH, MIME, None)
    assert [answer.failure for answer in answers] == [REFUSED, REFUSED]
    assert (answers[0].stage, answers[0].code, answers[0].enhanced) == ("rcpt", 550, "5.1.1")


def test_a_fault_of_the_site_found_late_is_a_configuration_fault():
    answers = hand_over(raising(SiteFault("no-server", "gone")), TO_BOTH, MIME, None)
    assert [answer.failure.kind for answer in answers if answer.failure] == [words.CONFIGURATION] * 2


@pytest.mark.parametrize("closing", [RuntimeError("broken"), PluginPanic(), Unprintable()])
def test_a_transport_that_cannot_even_close_stops_nothing(closing, caplog):
    plugin = raising(ConnectionResetError(), words.DOT)
    plugin.closing = closing
    assert rules(hand_over(plugin, TO_BOTH, MIME, None)) == ["no-reply-to-dot"] * 2
    assert type(closing).__name__ in caplog.text


def test_an_exit_while_closing_is_passed_on():
    with pytest.raises(SystemExit):
        close(Plugin(lambda *_: [], closing=SystemExit()))


def test_what_before_dot_raises_is_an_answer_too():
    def full(_accepted: list[str]) -> None:
        raise OSError(28, "No space left on device")

    plugin = Plugin(lambda _plugin, before_dot: before_dot([A, B]))
    answers = hand_over(plugin, TO_BOTH, MIME, None, full)
    assert [answer.failure.surely_not_sent for answer in answers if answer.failure] == [True, True]


# --- what is answered ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([yes(A), yes(B)], [None, None]),
        ([yes(B), Answer.refused(A, REFUSED)], ["unknown-address", None]),
        ([yes(A), yes(B), yes("stranger@x.test")], [None, None]),
        ([yes(A), yes(A), yes(B)], [None, None]),
        ([yes(A)], [None, "unknown-exception"]),
        ([], ["unknown-exception", "unknown-exception"]),
        ([yes(A), Answer.refused(A, REFUSED), yes(B)], ["unknown-exception-after-dot", None]),
        ([Answer.refused(A, REFUSED), Answer.refused(A, REFUSED), yes(B)], ["unknown-address", None]),
    ],
)
def test_each_recipient_gets_one_answer_whatever_the_transport_answers(given, expected):
    for answers in (given, tuple(given), iter(given)):
        got = hand_over(Plugin(lambda *_, answers=answers: answers), TO_BOTH, MIME, None)
        assert [answer.recipient for answer in got] == [A, B]
        assert rules(got) == expected


def test_no_answer_after_the_dot_is_doubt_and_spares_those_who_have_one():
    def act(_plugin: Plugin, before_dot: Any) -> list[Answer]:
        before_dot([A, B])
        return [yes(A)]

    got = hand_over(Plugin(act), TO_BOTH, MIME, None)
    assert rules(got) == [None, "unknown-exception-after-dot"]
    assert got[1].failure and "no answer" in got[1].failure.text


@pytest.mark.parametrize("nonsense", [None, 250, "ok", [A, B], [None], object()])
def test_answers_that_are_none_are_a_failure_for_each(nonsense):
    got = hand_over(Plugin(lambda *_: nonsense), TO_BOTH, MIME, None)
    assert rules(got) == ["unknown-exception"] * 2


# --- the sender ------------------------------------------------------------------------------
def test_a_message_without_a_sender_goes_from_the_sites_own():
    kept: list[Captured] = []
    composed = compose(to=A, subject="x", text="x", html=None, domain="x.test", now=0.0)
    hand_over(MemoryTransport(kept), composed.envelope, composed.mime, "Site <site@x.test>")
    assert kept[0].sender == "site@x.test"
    assert kept[0].mime == b"From: Site <site@x.test>\r\n" + composed.mime


def test_a_message_with_a_sender_keeps_it():
    plugin = Plugin(lambda *_: [yes(A), yes(B)])
    hand_over(plugin, TO_BOTH, MIME, "site@x.test")
    assert plugin.seen == [("me@x.test", [A, B], MIME, False)]


@pytest.mark.parametrize(
    ("sender", "site", "needed", "expected"),
    [
        ("me@x.test", None, False, False),
        ("me@x.test", None, True, False),  # now that no address in To needs it any more
        ("ich.\u00fc@x.test", None, False, True),
        (None, "\u00fc@x.test", False, True),
        (None, "x@\u00fc.test", False, False),  # the domain goes out in its ASCII form
    ],
)
def test_an_international_sender_needs_smtputf8(sender, site, needed, expected):
    plugin = Plugin(lambda *_: [])
    hand_over(plugin, Envelope(sender, (("to", A),), needed), MIME, site)
    assert plugin.seen[0][3] is expected


def test_a_header_that_is_not_ascii_without_its_recipients_needs_smtputf8():
    plugin = Plugin(lambda *_: [])
    mime = "Reply-To: j\u00f6rg@x.test\r\n".encode() + MIME
    hand_over(plugin, Envelope("me@x.test", (("to", A),), True), mime, None)
    assert plugin.seen[0][3] is True


def test_a_sender_of_the_site_that_is_no_address_is_the_sites_fault_not_the_messages():
    plugin = Plugin(lambda *_: [yes(A), yes(B)])
    (answer, _) = hand_over(plugin, Envelope(None, TO_BOTH.recipients, False), MIME, "nobody")
    assert answer.failure
    assert (answer.failure.rule, answer.failure.kind) == ("bad-sender", words.CONFIGURATION)
    assert plugin.seen == []


def test_a_stored_message_that_cannot_be_read_fails_for_good():
    (answer, _) = hand_over(MemoryTransport([]), TO_BOTH, None, "site@x.test")  # type: ignore[arg-type]
    assert answer.failure
    assert (answer.failure.rule, answer.stage) == ("message-not-built", words.BUILD)


def test_an_exit_is_not_classified_and_anything_else_is():
    with pytest.raises(asyncio.CancelledError):
        classify_exception(words.DOT, asyncio.CancelledError())
    assert classify_exception(words.DOT, PluginPanic()).kind == words.IN_DOUBT
    assert classify_exception(words.BUILD, PluginPanic()).kind == words.MESSAGE

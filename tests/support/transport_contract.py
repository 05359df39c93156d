"""What every transport must keep to, as tests that anybody can run over a transport of their own.

Make a subclass in a test file and give it a fixture `way`:

    class TestMyTransport(TransportContract):
        @pytest.fixture
        def way(self):
            with my_fake_provider() as provider:
                yield Way(lambda: MyTransport(provider.url, key="top-secret"),
                          lambda: provider.messages, secrets=("top-secret",))
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from mailqueue import words
from mailqueue.classify import classify_exception
from mailqueue.compose import Envelope, compose
from mailqueue.delivery import hand_over
from mailqueue.transports.base import Answer, Transport

A, B, C = "a@x.test", "b@x.test", "c@x.test"
SENDER = "site@site.test"
Arrived = tuple[str, tuple[str, ...], bytes]  # sender, recipients, the message


@dataclass(frozen=True)
class Way:
    """A transport under test, and the other end of it.

    Attributes:
        make: a new transport, made of the same settings each time.
        arrived: what came out at the other end so far; None where that cannot be read back.
        secrets: texts that must not be shown.
        broken: a transport that cannot be opened, where there is such a thing.
        alike: whether what arrived is what was sent, where that is not the same bytes.
    """

    make: Callable[[], Transport]
    arrived: Callable[[], Sequence[Arrived]] | None = None
    secrets: tuple[str, ...] = ()
    broken: Callable[[], Transport] | None = None
    alike: Callable[[bytes, bytes], bool] = operator.eq


def message(text: str = "hello") -> bytes:
    return compose(to=A, sender=SENDER, subject="x", text=text, html=None, domain="site.test", now=0.0).mime


def deliver(
    transport: Transport,
    *recipients: str,
    mime: bytes | None = None,
    before_dot: Callable[[list[str]], None] = lambda accepted: None,
) -> list[Answer]:
    transport.open()
    return transport.deliver(
        SENDER, list(recipients), mime or message(), smtputf8=False, before_dot=before_dot
    )


class TransportContract:
    """Subclass it and give it a fixture `way`."""

    @pytest.fixture
    def way(self) -> Way:
        raise NotImplementedError("a subclass of TransportContract needs a fixture `way`")

    @pytest.fixture
    def transport(self, way: Way):
        with contextlib.closing(way.make()) as transport:
            yield transport

    # --- what it says of itself --------------------------------------------------------------
    def test_its_name_is_one_line_and_the_same_for_each_of_its_kind(self, way: Way):
        name = way.make().name
        assert name == way.make().name
        assert name.isprintable() and 0 < len(name) <= 255

    def test_nothing_shown_of_it_holds_a_secret(self, way: Way, transport: Transport):
        answers = deliver(transport, A)
        shown = [transport.name, repr(transport), str(transport), *map(repr, answers)]
        assert not any(secret in text for secret in way.secrets for text in shown)

    def test_its_settings_are_equal_where_they_are_the_same_and_hold_the_secrets(self, way: Way):
        settings = way.make().settings()
        assert settings == way.make().settings()
        hash(settings)
        assert all(secret in repr(settings) for secret in way.secrets)

    def test_its_stage_is_always_a_word(self, transport: Transport):
        stages = [transport.stage]
        transport.open()
        stages.append(transport.stage)
        deliver(transport, A, before_dot=lambda _accepted: stages.append(transport.stage))
        stages.append(transport.stage)
        transport.close()
        assert {*stages, transport.stage} <= set(words.STAGES)

    # --- deliver -----------------------------------------------------------------------------
    def test_each_recipient_gets_one_answer(self, way: Way, transport: Transport):
        answers = sorted(deliver(transport, A, B, C), key=lambda answer: answer.recipient)
        assert [(answer.recipient, answer.failure) for answer in answers] == [(A, None), (B, None), (C, None)]
        if way.arrived:
            assert sorted({one for _, recipients, _ in way.arrived() for one in recipients}) == [A, B, C]

    def test_a_message_arrives_as_it_is(self, way: Way, transport: Transport):
        mime = message(".\r\n..\r\n.one dot\r\n\x7f \u00fc \U0001f600 end")
        deliver(transport, A, mime=mime)
        if way.arrived:
            ((sender, recipients, received),) = way.arrived()
            assert (sender, recipients) == (SENDER, (A,)) and way.alike(received, mime)

    def test_many_messages_go_out_one_after_the_other_each_once(self, way: Way, transport: Transport):
        mimes = [message(f"number {number}") for number in range(5)]
        for mime in mimes:
            assert [answer.failure for answer in deliver(transport, A, mime=mime)] == [None]
        if way.arrived:
            received = [each for _, _, each in way.arrived()]
            assert len(received) == len(mimes) and all(map(way.alike, received, mimes))

    def test_before_dot_comes_once_at_most_with_those_who_are_accepted(self, transport: Transport):
        calls: list[list[str]] = []
        answers = deliver(transport, A, B, before_dot=calls.append)
        taken = [answer.recipient for answer in answers if answer.failure is None]
        assert calls == [taken] or (calls == [] and not transport.delivers)

    def test_nothing_is_sent_where_before_dot_fails(self, way: Way, transport: Transport):
        calls = []

        def fail(accepted: list[str]) -> None:
            calls.append(accepted)
            raise OSError(28, "No space left on device")

        transport.open()
        envelope = Envelope(SENDER, (("to", A),), False)
        (answer,) = hand_over(transport, envelope, message(), None, fail)
        assert answer.failure is None if not calls else answer.failure and answer.failure.surely_not_sent
        if way.arrived and calls:
            assert list(way.arrived()) == []
        assert deliver(transport, B)[0].failure is None  # and the next one goes out

    @pytest.mark.parametrize("bad", ["a@x.test\r\nRCPT TO:<evil@x.test>", "a\n@x.test", "a\0@x.test"])
    def test_an_address_with_a_control_character_is_not_sent_to(
        self, way: Way, transport: Transport, bad: str
    ):
        if not transport.delivers:
            pytest.skip("it sends to nobody")
        transport.open()
        envelope = Envelope(SENDER, (("to", A), ("to", bad)), False)
        answers = hand_over(transport, envelope, message(), None)
        assert answers[1].failure is not None
        if way.arrived:
            assert {one for _, recipients, _ in way.arrived() for one in recipients} <= {A}

    # --- open and close ----------------------------------------------------------------------
    def test_opening_what_is_open_does_nothing(self, transport: Transport):
        transport.open()
        transport.open()
        assert deliver(transport, A)[0].failure is None

    def test_closing_never_raises_whatever_state_it_is_in(self, way: Way):
        transport = way.make()
        transport.close()
        transport.open()
        transport.close()
        transport.close()

    def test_it_may_be_opened_again(self, transport: Transport):
        deliver(transport, A)
        transport.close()
        assert deliver(transport, A)[0].failure is None

    def test_where_it_cannot_be_opened_it_says_why_without_secrets_and_closes(self, way: Way):
        if way.broken is None:
            pytest.skip("it can always be opened")
        transport = way.broken()
        for _ in range(2):
            with pytest.raises(Exception) as raised:
                transport.open()
            failure = classify_exception(transport.stage, raised.value)
            assert failure.stage in words.TRANSPORT_STAGES and failure.surely_not_sent
            assert failure.text and not any(secret in failure.text for secret in way.secrets)
            transport.close()

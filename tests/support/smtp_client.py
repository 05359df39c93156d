"""The client's side of a test over a ScriptedServer: a transport, and one attempt as the worker makes it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailqueue.classify import classify_exception
from mailqueue.compose import Envelope
from mailqueue.delivery import hand_over
from mailqueue.transports.base import Answer, Following, Letter, Transport
from mailqueue.transports.smtp import PLAIN, SmtpTransport, Timeouts

from .smtp_faults import Fault

if TYPE_CHECKING:
    from .smtp_server import ScriptedServer
    from .smtp_session import Session

SENDER = "site@site.test"
MIME = b"From: site@site.test\r\nSubject: hello\r\n\r\nworld\r\n"
# Never reached where the server answers, however slow the machine is.
PATIENT = Timeouts(connect=20, greeting=20, command=20, data=20, block=20, dot=20, quit=20)
HASTY = Timeouts(connect=0.3, greeting=0.3, command=0.3, data=0.3, block=20, dot=0.3, quit=0.3)


def smtp_to(server: ScriptedServer, *, security: str = PLAIN, **options: Any) -> SmtpTransport:
    """A transport to the server, patient unless told otherwise."""
    options.setdefault("timeouts", PATIENT)
    return SmtpTransport(server.host, server.port, security=security, **options)


def attempt(
    transport: Transport,
    *recipients: str,
    mime: bytes = MIME,
    sender: str = SENDER,
    smtputf8: bool = False,
    dots: list[list[str]] | None = None,
) -> list[Answer]:
    """Open the transport and hand one message over, by default to a@x.test; `dots` notes before_dot."""
    addresses = recipients or ("a@x.test",)
    try:
        transport.open()
    except Exception as error:  # noqa: BLE001 - as the worker does
        failure = classify_exception(transport.stage, error)
        return [Answer.refused(address, failure) for address in addresses]
    envelope = Envelope(sender, tuple(("to", address) for address in addresses), smtputf8)
    return hand_over(transport, envelope, mime, None, (dots if dots is not None else []).append)


class Behind(Following):
    """A message that follows the one at hand.

    Attributes:
        letter: it; None: nothing follows, or it was given back.
        given_back: how often the transport gave back what follows.
    """

    def __init__(self, letter: Letter | None) -> None:
        self.letter = letter
        self.given_back = 0

    def next(self) -> Letter | None:
        return self.letter

    def give_back(self) -> None:
        self.letter = None
        self.given_back += 1


def letter_to(*recipients: str, mime: bytes = MIME, sender: str = SENDER, smtputf8: bool = False) -> Letter:
    return Letter(sender, recipients, mime, smtputf8)


def attempt_in_turn(transport: Transport, *letters: Letter) -> list[list[Answer]]:
    """Hand messages over one after the other, each announced with the one before."""
    found = []
    for letter, behind in zip(letters, [*letters[1:], None], strict=True):
        transport.following = Behind(behind)
        found.append(
            attempt(
                transport,
                *letter.recipients,
                mime=letter.mime,
                sender=letter.sender,
                smtputf8=letter.smtputf8,
            )
        )
    return found


def outcomes(answers: list[Answer]) -> dict[str, str]:
    """Address -> "sent", or the rule that decided."""
    return {answer.recipient: answer.failure.rule if answer.failure else "sent" for answer in answers}


@dataclass(frozen=True)
class Drip(Fault):
    """One octet every 20 ms, and never a line end, until the client has enough."""

    def play(self, session: Session) -> None:
        pause = threading.Event()
        while not pause.wait(0.02):
            session.send(b"2")

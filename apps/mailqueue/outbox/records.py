"""What outbox and worker tell each other of messages, recipients and what became of them.

What there is one of for each message is a NamedTuple: a third of the time to make.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import NamedTuple

from .. import words
from ..retry import RetryPolicy, is_finite


@dataclass(frozen=True)
class Retention:
    """How long things are kept after a message ended, in seconds.

    Args:
        sent_content: the text of a message that was sent; it may hold live links.
        other_content: the text of one that was not, so that it can be tried again.
        record: who, when, what the server said.

    Raises:
        ValueError: for a value that is no number of seconds; the text names it.
    """

    sent_content: float = 7 * 86400.0
    other_content: float = 30 * 86400.0
    record: float = 180 * 86400.0

    def __post_init__(self) -> None:
        """Refuse what would break when the first message ends."""
        for name, seconds in vars(self).items():
            if not (is_finite(seconds) and seconds >= 0):
                raise ValueError(f"{name} is {seconds!r}, expected a finite number of seconds, 0 or more")

    def content(self, status: str) -> float:
        """Seconds for which the content of a message that ended so is kept."""
        return self.sent_content if status == words.SENT else self.other_content


class Pending(NamedTuple):
    """A recipient that a worker is to try."""

    id: int
    address: str
    attempts: int


class Claimed(NamedTuple):
    """A message that a worker holds a claim on, with the recipients to try now.

    Attributes:
        byte_size: of its MIME text; None: its row is damaged.
        place: the transport, by its name, under whose limit it has a place; None: under any.
        next_transport: the transport to try first; None: none is preferred.
    """

    id: int
    token: str
    sender: str | None
    smtputf8: bool
    tried_on: float | None
    doubt: str | None
    priority: int
    expires_on: float | None
    recipients: tuple[Pending, ...]
    byte_size: int | None = None
    category: str | None = None
    place: str | None = None
    next_transport: str | None = None


@dataclass(frozen=True)
class HeldBack:
    """Recipients of one claimed message that have no place now.

    Args:
        until: when they may have one, epoch seconds.
        held_by: the transport or domain whose limit it is, as ledger.py calls it.
    """

    recipients: tuple[Pending, ...]
    until: float
    held_by: str


class Outcome(NamedTuple):
    """What became of one recipient in one attempt.

    Args:
        recipient_id: its row.
        status: its new status.
        due: when to try again, epoch seconds; None: not by itself.
        counts: whether this was an attempt, as against a try that cost nothing.
        provider_id: what a provider calls the message.
    """

    recipient_id: int
    status: str
    due: float | None = None
    counts: bool = True
    stage: str = words.DOT
    failure_kind: str | None = None
    cause: str | None = None
    code: int | None = None
    enhanced: str | None = None
    reply: str = ""
    provider_id: str | None = None


class Finished(NamedTuple):
    """What one hand-over of a message to a transport brought.

    Args:
        in_vain: hand-overs of it to other transports right before, which surely did not send it.
    """

    message_id: int
    token: str
    transport: str
    started_on: float
    duration: float
    outcomes: tuple[Outcome, ...]
    in_vain: tuple[Finished, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What a worker's journal tells after its death.

    Args:
        started: message -> recipients whose final dot was sent and not answered.
        answered: hand-overs that were answered and may not have been written down.
        complete: whether that is all; otherwise anything else it claimed may have been sent too.
        begun: messages that it had in hand, and of which nothing is known.
    """

    started: dict[int, list[int]]
    answered: list[Finished]
    complete: bool = True
    begun: frozenset[int] = frozenset()


NO_EVIDENCE = Evidence({}, [], complete=False)


@dataclass(frozen=True)
class Recovery:
    """How to treat what a dead worker leaves behind.

    Args:
        policy: when to try again.
        rng: where jitter comes from.
        doubt: terms.RESEND or terms.HOLD, for messages that do not say.
        retention: how long to keep what ends.
    """

    policy: RetryPolicy
    rng: random.Random
    doubt: str
    retention: Retention

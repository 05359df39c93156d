"""The story of one message, from enqueue to its last reply, and what happens next."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from . import audit, words
from .told import Told

_ENDS = {
    words.SENT: "Sent to everybody",
    words.FAILED: "Failed",
    words.CANCELLED: "Cancelled",
    words.EXPIRED: "Expired",
}


@dataclass(frozen=True)
class Event:
    """One thing that happened to a message.

    Attributes:
        moment: epoch seconds; None: not known.
        title: what it was.
        detail: more of it, or "".
        attempts: of a hand-over to a transport, the rows of its attempts.
    """

    moment: float | None
    title: str
    detail: str = ""
    attempts: tuple[dict[str, Any], ...] = ()


def timeline(message: dict[str, Any], actions: list[dict[str, Any]]) -> list[Event]:
    """What happened to a message, the first thing first.

    Args:
        message: what queries.message() returned.
        actions: what audit.of_message() returned.
    """
    begun = Event(message["created_on"], "Queued" if message["was_made"] else Told("It could not be made"))
    events = [begun, *_hand_overs(message["attempts_list"])]
    events += [
        Event(
            row["done_on"],
            Told("{action} by {who}", action=_label(row["action_name"]), who=row["who"]),
            row["detail"] or "",
        )
        for row in actions
    ]
    if message["finished_on"] is not None and message["was_made"]:
        events.append(Event(message["finished_on"], _ENDS.get(message["status"], "Ended")))
    return sorted(events, key=lambda event: event.moment or 0.0)


def _hand_overs(attempts: list[dict[str, Any]]) -> list[Event]:
    """The attempts, those of one hand-over together."""
    ordered = sorted(attempts, key=lambda row: (row["started_on"] or 0.0, row["id"]))
    return [
        Event(started_on, _over(transport), attempts=tuple(rows))
        for (started_on, transport), rows in groupby(
            ordered, key=lambda row: (row["started_on"], row["transport"])
        )
    ]


def _over(transport: str | None) -> str:
    return Told("Attempt over {transport}", transport=transport) if transport else "Attempt"


def _label(action: str | None) -> Told:
    return Told.plain(audit.LABELS.get(action or "", action or ""))


def next_step(message: dict[str, Any], held_up: bool, now: float) -> str:
    """What happens to a message next if nobody does anything, and what an administrator can do.

    Args:
        message: what queries.message() returned.
        held_up: whether there is no way out for it.
        now: epoch seconds.
    """
    if message["status"] in words.PENDING and message["due"] is not None:
        return _once_due(message, held_up, now)
    if not message["was_made"]:
        return Told("Nothing: there is nothing to send. Whoever needs this mail has to ask for it again.")
    if not message["has_content"] and message["status"] in _NEEDS_SOMEBODY:
        return "Nothing: its content is deleted, so it cannot be sent again."
    return _NEXT.get(message["status"], "")


def _once_due(message: dict[str, Any], held_up: bool, now: float) -> str:
    """What happens next to a message that waits."""
    if is_ahead_of_time(message, now):
        return Told("It is sent at the time that its send_at says.")
    if held_up:
        return "It goes out by itself once sending is no longer held up."
    if message["due"] <= now:
        return "It is the next to be sent."
    if is_over_a_limit(message, now):
        return Told("It is sent by itself once it has a place.")
    return "It is tried again by itself."


def is_ahead_of_time(message: dict[str, Any], now: float) -> bool:
    """Whether a message is to be sent later, and nothing but that is why it waits.

    Args:
        message: what queries.message() returned.
        now: epoch seconds.
    """
    touched = message["failure_kind"] or message["crashes"] or is_over_a_limit(message, now)
    return message["status"] == words.QUEUED and (message["due"] or 0.0) > now and not touched


def is_over_a_limit(message: dict[str, Any], now: float) -> bool:
    """Whether a message waits for a limit, or for a server that asked for less mail.

    Args:
        message: what queries.message() returned.
        now: epoch seconds.
    """
    waiting = [row for row in message["recipients_list"] if row["due"] is not None]
    first = min(waiting, key=lambda row: float(row["due"]), default=None)
    return first is not None and first["due"] > now and first["held_by"] is not None


_NEEDS_SOMEBODY = frozenset({words.FAILED, words.CANCELLED, words.EXPIRED})
_NEXT = {
    words.SENDING: "The answer of the mail server comes within minutes.",
    words.IN_DOUBT: "Nothing by itself: ask a recipient, then press “It arrived” or “Retry”.",
    words.SENT: "Nothing: a mail server took it. Whoever misses it looks into the spam folder.",
    words.FAILED: "Nothing by itself: correct the address or what the server complains of, and retry.",
    words.CANCELLED: "Nothing, unless you retry.",
    words.EXPIRED: "Nothing, unless you retry.",
}

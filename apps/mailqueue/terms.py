"""How a message is to be treated: how urgent, when, until when, once, and what a doubt means for it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from .errors import BadMessage
from .words import NORMAL, PRIORITIES

RESEND: Final = "resend"  # a message in doubt is sent again, at the risk of a duplicate
HOLD: Final = "hold"  # it waits for the administrator's decision
DOUBTS: Final = (RESEND, HOLD)

LONGEST_KEY: Final = 150  # characters of a dedupe key
LATEST: Final = 250_000_000_000.0  # epoch seconds: in the last years that a datetime can name
_DAY: Final = 86400.0


@dataclass(frozen=True)
class Terms:
    """The terms of one message; times are epoch seconds.

    Args:
        priority: one of words.PRIORITIES.
        category: a word for lists and rules, such as "auth".
        due: when it may be sent first.
        expires_on: when it is not to be sent any more; None: never.
        doubt: RESEND or HOLD; None: as the site does.
        dedupe: of several messages with the same key only the first is queued; a hash of it, since
            databases differ in which texts they take for the same. None: no key.
        dedupe_until: until when.
        wipe: whether its content is deleted as soon as it has ended, instead of being kept for a while.
    """

    due: float
    priority: int = NORMAL
    category: str = "site"
    expires_on: float | None = None
    doubt: str | None = None
    dedupe: str | None = None
    dedupe_until: float = 0.0
    wipe: bool = False


def terms(
    now: float,
    *,
    priority: int = NORMAL,
    category: str = "site",
    send_at: datetime | float | None = None,
    expires_after: timedelta | float | None = None,
    doubt: str | None = None,
    dedupe: str | None = None,
    dedupe_window: timedelta | float = _DAY,
    wipe: bool = False,
) -> Terms:
    """The terms of a message from the arguments of a send().

    Args:
        now: epoch seconds.
        priority, category, doubt, wipe: as in Terms.
        dedupe: the key as the host gives it.
        send_at: not before; a datetime without a time zone is the server's local time, a number
            epoch seconds.
        expires_after: how long after that, or after now, it is worth sending; a number is seconds.
        dedupe_window: how long a key holds; a number is seconds.

    Raises:
        BadMessage: a value that makes no sense; the text names the argument.
    """
    if isinstance(priority, bool) or priority not in PRIORITIES:
        raise BadMessage(f"priority is {priority!r}, expected one of {PRIORITIES}.")
    if doubt is not None and doubt not in DOUBTS:
        raise BadMessage(f"doubt is {doubt!r}, expected one of {DOUBTS}.")
    if dedupe is not None and not (isinstance(dedupe, str) and 0 < len(dedupe) <= LONGEST_KEY):
        raise BadMessage(f"dedupe: expected a text of 1 to {LONGEST_KEY} characters.")
    due = now if send_at is None else max(_moment(send_at), now)
    lasts = None if expires_after is None else span(expires_after, "expires_after")
    return Terms(
        due=due,
        priority=priority,
        category=category,
        expires_on=None if lasts is None else min(due + lasts, LATEST),
        doubt=doubt,
        dedupe=None if dedupe is None else _hash(dedupe),
        dedupe_until=now + span(dedupe_window, "dedupe_window"),
        wipe=wipe,
    )


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _moment(value: datetime | float) -> float:
    if isinstance(value, datetime):
        try:
            moment = value.timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise BadMessage(f"send_at: {error}.") from error
    else:
        moment = _number(value, "send_at", "a datetime or epoch seconds")
    if not -LATEST < moment < LATEST:
        raise BadMessage("send_at: expected a datetime or epoch seconds; this is out of all range.")
    return moment


def span(value: timedelta | float, argument: str) -> float:
    """A span of time in seconds.

    Args:
        value: a timedelta, or a number of seconds.
        argument: its name, for the error.

    Raises:
        BadMessage: it is none, or none that is more than 0.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    else:
        seconds = _number(value, argument, "a timedelta or a number of seconds")
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadMessage(f"{argument}: expected more than 0 seconds, and a finite number of them.")
    return seconds


def _number(value: object, argument: str, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadMessage(f"{argument}: expected {expected}, got {type(value).__name__}.")
    try:
        return float(value)
    except OverflowError as error:
        raise BadMessage(f"{argument}: {error}.") from error

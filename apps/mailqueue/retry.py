"""When to try again, and when to give up: pure functions, without a clock and without a database."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass

from .classify import Failure
from .words import (
    CONFIGURATION,
    DEFERRED,
    FAILED,
    IN_DOUBT,
    MESSAGE,
    QUEUED,
    RECIPIENT,
    TRANSPORT_STAGES,
)


@dataclass(frozen=True)
class RetryPolicy:
    """How patient the queue is; the delays grow as RFC 5321 section 4.5.4.1 recommends.

    Raises:
        ValueError: for a value that makes no sense; the text names it.
    """

    first_delay: float = 60.0  # seconds after the first attempt
    factor: float = 2.0  # each further delay is so many times the one before
    longest_delay: float = 4 * 3600.0  # seconds; where the delays stop growing
    jitter: float = 0.2  # the fraction by which a delay is shortened or lengthened at random
    give_up_after: float = 4 * 86400.0  # seconds since the message was queued
    # A full mailbox needs a person to tidy up: with the other defaults 14 attempts take one day.
    bounded_attempts: int = 14
    doubt_attempts: int = 4  # after so many attempts that ended in doubt an administrator must decide
    hold: float = 60.0  # seconds until a message is looked at again that a configuration fault stops

    def __post_init__(self) -> None:
        for name in ("first_delay", "factor", "longest_delay", "jitter", "give_up_after", "hold"):
            _require(is_finite(getattr(self, name)), f"{name} must be a finite number")
        for name in ("bounded_attempts", "doubt_attempts"):
            _require(is_whole(getattr(self, name)), f"{name} must be a whole number")
        _require(self.first_delay > 0, "first_delay must be more than 0 seconds")
        _require(self.factor >= 1, "factor must be at least 1")
        _require(self.longest_delay >= self.first_delay, "longest_delay must not be less than first_delay")
        _require(0 <= self.jitter < 1, "jitter must be at least 0 and less than 1")
        _require(self.give_up_after > 0, "give_up_after must be more than 0 seconds")
        _require(self.bounded_attempts >= 1, "bounded_attempts must be at least 1")
        _require(self.doubt_attempts >= 1, "doubt_attempts must be at least 1")
        _require(self.hold > 0, "hold must be more than 0 seconds")


def is_whole(value: object) -> bool:
    """Whether a setting is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a setting is a number that can be reckoned with."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


@dataclass(frozen=True)
class Decision:
    """What becomes of a recipient after a failed attempt."""

    status: str  # a recipient's status
    delay: float | None  # seconds until the next try; None: never by itself
    counts: bool  # whether this attempt is added to the recipient's attempts


def delay_before(attempt: int, policy: RetryPolicy, rng: random.Random, least: float = 0.0) -> float:
    """The seconds to wait after an attempt that failed.

    Args:
        attempt: the number of that attempt; 1 is the first.
        policy: how fast the delays grow.
        rng: where the jitter comes from. It is applied last, so that messages which have reached the
            longest delay do not all come back in the same second.
        least: seconds that an earlier try would be in vain for; no more than the longest delay counts.

    Returns:
        Seconds, between (1 - jitter) and (1 + jitter) times the grown delay.
    """
    try:
        grown = policy.first_delay * policy.factor ** max(attempt - 1, 0)
    except OverflowError:
        grown = policy.longest_delay
    grown = max(grown, least / (1 - policy.jitter))
    return min(grown, policy.longest_delay) * rng.uniform(1 - policy.jitter, 1 + policy.jitter)


def decide(
    failure: Failure,
    *,
    attempts: int,
    age: float,
    policy: RetryPolicy,
    rng: random.Random,
    resend_doubt: bool = True,
    split_helps: bool = True,
) -> Decision:
    """What becomes of a recipient after a failed attempt.

    Args:
        failure: why it failed.
        attempts: how many attempts there were, this one included.
        age: seconds since the message was queued, without the time its transport was paused.
        policy: how patient the queue is.
        rng: where the jitter comes from.
        resend_doubt: whether a message in doubt is sent again, at the risk of a duplicate.
        split_helps: whether the server took some other recipient of the same transaction. If not,
            a new transaction at once would meet the same answer, for ever.

    Returns:
        The decision. A failure of the way out, or of the site's configuration, costs no attempt.
    """
    if failure.kind == CONFIGURATION:
        return Decision(QUEUED, max(policy.hold, failure.least_delay), counts=False)
    if failure.kind in (RECIPIENT, MESSAGE):
        return Decision(FAILED, None, counts=True)
    if failure.split and split_helps:
        return Decision(QUEUED, 0.0, counts=False)
    bound = policy.doubt_attempts if failure.kind == IN_DOUBT else policy.bounded_attempts
    given_up = age >= policy.give_up_after or (failure.bounded and attempts >= bound)
    delay = None if given_up else delay_before(attempts, policy, rng, failure.least_delay)
    if failure.kind == IN_DOUBT:
        return Decision(IN_DOUBT, delay if resend_doubt else None, counts=True)
    if given_up:
        return Decision(FAILED, None, counts=True)
    # A bounded failure must count wherever it happens, or its bound would never be reached.
    return Decision(DEFERRED, delay, counts=failure.bounded or failure.stage not in TRANSPORT_STAGES)

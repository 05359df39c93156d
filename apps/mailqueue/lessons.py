"""What a server's replies teach about its pace: pure functions, without a clock and without a database.

A server that asks for less mail is left alone for a while, then sent to slowly, and twice as fast
with each minute that goes well, until nothing is left of the lesson. One refusal of one address is
no such wish (greylisting, above all); several in a row, with nobody taken in between, are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from . import words
from .classify import Failure
from .limits import Rate

FIRST_REST, LONGEST_REST = 60.0, 3600.0  # seconds: after the first wish, and at most
FIRST_PACE, FASTEST = 10, 640  # messages a minute: after the first rest, and where the lesson is forgotten
STEP: Final = 60.0  # seconds that must go well until it goes faster
MANY: Final = 3  # refusals of a domain that make a wish
TOGETHER: Final = 60.0  # seconds within which they must fall
MEMORY: Final = 86400.0  # seconds after its rest, without any mail, after which a lesson is forgotten

_GREYLISTING = re.compile(r"gr[ea]y-?\s?list", re.IGNORECASE)
_TOO_FAST = re.compile(
    r"\brate\b|too (many|much|fast|quick)|throttl|slow(er)? down|\bexceed|unusual|\blimit", re.IGNORECASE
)
_ONE_RECIPIENTS = frozenset({"mailbox-full", "storage-full", "too-many-recipients", "relay-denied-for-now"})


@dataclass(frozen=True)
class Wish:
    """That a server asks for less mail, or seems to.

    Args:
        of_transport: whether it speaks for all mail, as against mail to the recipient's domain.
        certain: whether it is one on its own, as against one that needs others beside it.
        rest: seconds that it asked for; None: it did not say.
        text: its own words.
    """

    of_transport: bool
    certain: bool
    rest: float | None
    text: str


def wish_in(failure: Failure) -> Wish | None:
    """What a failure says about the pace; None: nothing.

    A failure of the connection itself is not for here: that pauses the transport.
    """
    if failure.kind != words.TRANSIENT or failure.stage in words.TRANSPORT_STAGES:
        return None
    said = words.answer(failure.code, failure.enhanced, failure.text)
    if failure.retry_after is not None:
        return Wish(True, True, failure.retry_after, said)
    if failure.rule in _ONE_RECIPIENTS or failure.code is None or _GREYLISTING.search(failure.text):
        return None
    of_transport = failure.stage == words.MAIL or failure.rule == "sending-limit"
    return Wish(of_transport, _is_certain(failure), None, said)


def rest_asked(failure: Failure) -> float:
    """Seconds for which a server that cannot be used wants to be left alone, as far as it says so."""
    if failure.retry_after is not None:
        return min(failure.retry_after, LONGEST_REST)
    return FIRST_REST if failure.code in (421, 450) else 0.0


def _is_certain(failure: Failure) -> bool:
    throttled = (failure.enhanced or "").startswith("4.7.") and _TOO_FAST.search(failure.text)
    return failure.code in (421, 454) or failure.rule == "sending-limit" or bool(throttled)


@dataclass(frozen=True)
class Lesson:
    """What is known of the pace of a transport or a recipient domain.

    Args:
        strikes: wishes in a row; 0: none yet, there are only refusals that may come to one.
        rests_until: nothing is sent before, epoch seconds.
        pace: messages a minute after that.
        raised_on: since when this pace has gone well, epoch seconds.
        refusals: those since somebody was taken.
        refused_on: when the first of them was, epoch seconds.
        reason: the server's own words.
    """

    strikes: int = 0
    rests_until: float = 0.0
    pace: int = FIRST_PACE
    raised_on: float = 0.0
    refusals: int = 0
    refused_on: float = 0.0
    reason: str = ""

    @property
    def rate(self) -> Rate:
        """The pace as a limit."""
        return Rate(self.pace, 60.0)

    def rest_at(self, now: float) -> float:
        """Until when nothing is to be sent, epoch seconds; a clock set back makes it no longer."""
        return min(self.rests_until, now + LONGEST_REST)

    def is_forgotten(self, now: float) -> bool:
        """Whether so much time has passed that it says nothing any more."""
        known_until = self.rests_until + MEMORY if self.strikes else self.refused_on + TOGETHER
        return now >= known_until


def learn(lesson: Lesson | None, wishes: list[Wish], taken: int, now: float) -> Lesson | None:
    """A lesson after some more answers; None: there is nothing to remember.

    Args:
        lesson: what was known.
        wishes: those in the answers, for this domain or transport.
        taken: how many messages were taken among them.
        now: epoch seconds.
    """
    known = lesson or Lesson()
    certain = [wish for wish in wishes if wish.certain]
    if certain:
        return _slower(known, certain, now)
    if taken:
        return _faster(replace(known, refusals=0), now)
    if not wishes:
        return lesson
    recent = 0 <= now - known.refused_on < TOGETHER
    refusals = len(wishes) + (known.refusals if recent else 0)
    if refusals >= MANY:
        return _slower(known, wishes, now)
    return replace(known, refusals=refusals, refused_on=known.refused_on if recent else now)


def _slower(known: Lesson, wishes: list[Wish], now: float) -> Lesson:
    asked = max((wish.rest or 0.0 for wish in wishes), default=0.0)
    if known.strikes and now < known.rest_at(now):  # an answer to what was under way: the same wish
        return replace(known, rests_until=max(known.rest_at(now), now + min(asked, LONGEST_REST)))
    strikes = known.strikes + 1
    rest = min(asked or FIRST_REST * 2 ** min(strikes - 1, 16), LONGEST_REST)
    pace = max(known.pace // 2, 1) if known.strikes else FIRST_PACE
    return Lesson(strikes, now + rest, pace, now + rest, 0, 0.0, wishes[0].text)


def _faster(known: Lesson, now: float) -> Lesson | None:
    if not known.strikes:
        return None
    if now < known.rest_at(now) or 0 <= now - known.raised_on < STEP:
        return known
    pace = known.pace * 2
    if pace > FASTEST:
        return None
    return replace(known, pace=pace, raised_on=now, strikes=max(known.strikes - 1, 1))

"""The messages that one connection sends one behind the other, while the server says yes to everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from . import words
from .ahead import Job, LookAhead
from .outbox import Claimed, Finished, Outcome
from .shift import Shift
from .site import Site
from .transports.base import Letter, Series, split_enhanced
from .way import Way

TOGETHER = 100  # messages that are told of at once, at most
TOGETHER_SECONDS = 0.02  # and how long one of them waits for it, while others follow


@dataclass(frozen=True)
class Passed:
    """Messages that were handed over one behind the other, and taken; that is in the journal.

    Args:
        transport: the name of the one that took them.
    """

    transport: str
    claims: list[Claimed]
    finished: list[Finished]


class ClaimedSeries(Series):
    """The messages behind the one that a connection has just handed over.

    Args:
        site: whose mail it is.
        shift: the worker's.
        way: the way that they go.
        transport: the name of its transport.
        ahead: where they come from; the first was taken from it already.
        tell: is told of those that were taken.

    Attributes:
        dotted: the message whose dot was put on record last, if no answer to it is known.
        started_on, begun: when that was, on the site's clock and on the one that only grows.
    """

    def __init__(
        self,
        site: Site,
        shift: Shift,
        way: Way,
        transport: str,
        ahead: LookAhead,
        tell: Callable[[Passed], None],
    ):
        self._site, self._shift, self._way, self._transport = site, shift, way, transport
        self._ahead, self._tell = ahead, tell
        self._claims: list[Claimed] = []
        self._finished: list[Finished] = []
        self._told = time.monotonic()
        self.dotted: Job | None = None
        self.started_on = self.begun = 0.0

    def begin(self, reply: str | None) -> bool:
        """See Series.begin()."""
        answered = self._take(reply)
        job, journal = self._ahead.job, self._shift.journal
        if job is None or not self._may_go(job):
            if answered:
                journal.answered(answered)
            return False
        try:
            journal.answered_and_dot(answered, job.claimed.id, [job.claimed.recipients[0].id])
        except OSError:  # deliver() will meet it too, and say so
            return False
        if not self._shift.is_fresh():
            journal.released(job.claimed.id)
            return False
        self.dotted, self._ahead.job = job, None
        self.started_on, self.begun = self._site.clock(), time.monotonic()
        if len(self._claims) >= TOGETHER or self.begun - self._told > TOGETHER_SECONDS:
            self.waits()
        return True

    def _may_go(self, job: Job) -> bool:
        alone = len(job.claimed.recipients) == 1
        return alone and self._way.usable and not self._shift.closing.is_set()

    def next(self) -> Letter | None:
        """See Series.next()."""
        return self._ahead.next()

    def taken(self, reply: str) -> None:
        """See Series.taken()."""
        answered = self._take(reply)
        if answered:
            self._shift.journal.answered(answered)

    def waits(self) -> None:
        """Tell of those that were taken, at once."""
        if self._claims:
            self._tell(Passed(self._transport, self._claims, self._finished))
            self._claims, self._finished = [], []
        self._told = time.monotonic()

    def at_stake(self) -> str | None:
        """The address of the message whose dot was put on record last, if no answer to it is known."""
        return self.dotted.claimed.recipients[0].address if self.dotted else None

    def _take(self, reply: str | None) -> Finished | None:
        if reply is None or self.dotted is None:
            return None
        claimed, self.dotted = self.dotted.claimed, None
        enhanced, text = split_enhanced(reply.strip())
        outcome = Outcome(claimed.recipients[0].id, words.SENT, code=250, enhanced=enhanced, reply=text)
        took = time.monotonic() - self.begun
        finished = Finished(claimed.id, claimed.token, self._transport, self.started_on, took, (outcome,))
        self._claims.append(claimed)
        self._finished.append(finished)
        return finished

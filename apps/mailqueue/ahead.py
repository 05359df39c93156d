"""The message behind the one that a connection has at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .outbox import Claimed
from .transports.base import Following, Letter

LARGEST_AHEAD = 256 * 1024  # octets of a message that is announced before its turn


class Job(NamedTuple):
    """A claimed message with its text."""

    claimed: Claimed
    mime: bytes


class LookAhead(Following):
    """The message behind the one at hand, taken when the transport asks for it.

    Args:
        take: gives a job if there is one, without waiting.
        put_back: takes a job that another connection can have.
        letter_of: what the transport will be given.
    """

    def __init__(
        self,
        take: Callable[[], Job | None],
        put_back: Callable[[Job], None],
        letter_of: Callable[[Job], Letter | None],
    ):
        self._take, self._put_back, self._letter_of = take, put_back, letter_of
        self.job: Job | None = None

    def next(self) -> Letter | None:
        """See Following.next()."""
        self.job = self.job or self._take()
        if self.job is None or len(self.job.mime) > LARGEST_AHEAD:
            return None
        return self._letter_of(self.job)

    def give_back(self) -> None:
        """See Following.give_back()."""
        job, self.job = self.job, None
        if job:
            self._put_back(job)

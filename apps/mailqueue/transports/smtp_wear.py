"""When a connection is worn out: renewed before its server ends it, with a message on the way."""

from __future__ import annotations

import time
from collections.abc import Callable

OLDEST = 300.0  # seconds for which a connection is used
IDLE = 30.0  # seconds without a message after which a server may have forgotten it
PROMPT = 5.0  # seconds after a message within which a server that hangs up does so because of it


class Wear:
    """The wear of a transport's connections, one after the other.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._most: int | None = None
        self._ended_at = 0
        self.served = 0
        self.renewed()

    def renewed(self) -> None:
        """There is a new connection."""
        self.served = 0
        self._opened = self._used = self._clock()

    def used(self) -> None:
        """It has served a message."""
        self.served += 1
        self._used = self._clock()

    @property
    def takes_another(self) -> bool:
        """Whether it can be expected to serve one more message behind the one at hand."""
        return self._most is None or self.served + 1 < self._most

    @property
    def worn_out(self) -> bool:
        """Whether it has served enough, or is too old, or was idle for too long."""
        now = self._clock()
        enough = self._most is not None and self.served >= self._most
        return bool(self.served) and (enough or now - self._opened > OLDEST or now - self._used > IDLE)

    def ended(self) -> None:
        """The server has ended it.

        Twice in a row after as many messages: that is how many the server allows.
        """
        if not self.served or self._clock() - self._used > PROMPT:
            return
        if self.served == self._ended_at:
            self._most = self.served
        self._ended_at = self.served

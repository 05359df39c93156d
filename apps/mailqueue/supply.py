"""How much work lies ready for the connections of a drain, and whether more of them would help.

None of them is to wait for the database. Nor is there to be one that has nothing to wait for: where the
server answers sooner than this process asks, a further connection only takes the processor from the first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

AHEAD_SECONDS = 0.2  # for which there is to be work, at the rate of the moment
AHEAD_OCTETS = 4 * 1024 * 1024  # of text that may lie ready, at most
IN_HAND = 2  # messages of a connection: the one at hand and the one announced
FOR_EACH = 4  # and with those that lie ready for it meanwhile, however slow it is
WORTH_A_LOOK = 0.25  # of what is to lie ready: for less the texts are not read
AT_ONCE = 100  # messages whose texts are read together
MESSAGES_FOR_ANOTHER = 10  # messages waiting that are worth another connection
MOST_BATCHES = 10  # times the smallest batch that may be claimed at once
ABSENT_SECONDS = 0.25  # for which a priority is not asked for that there was no mail of, but of others
SLOW = 0.001  # seconds for a message from which on it is the server that is waited for
_STEADY = 20  # messages of which the usual time is the average, more or less
_WINDOW = 0.1  # seconds over which the rate is measured
_SHORTEST = 0.003  # seconds that are enough, where so many messages came back:
_ENOUGH = 8


class Supply:
    """The messages that are handed out and did not come back, and how fast they do.

    Args:
        clock: seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._sizes: dict[int, int] = {}
        self._octets = 0
        self._rate, self._back, self._since = 0.0, 0, clock()
        self._absent: dict[int, float] = {}  # priority -> until when it is not asked for
        self._usual = 0.0  # seconds that a message takes

    def handed_out(self, message_id: int, octets: int) -> None:
        """A message with a text of this size waits for a connection."""
        self._sizes[message_id] = octets
        self._octets += octets

    def came_back(self, message_id: int) -> None:
        """A message is done, or taken back."""
        self._octets -= self._sizes.pop(message_id, 0)
        self._back += 1

    def took(self, seconds: float) -> None:
        """So long took a message, from its beginning to the answer."""
        self._usual += (seconds - self._usual) / _STEADY

    def kept_waiting(self) -> None:
        """The server lets everybody wait."""
        self._usual = max(self._usual, SLOW)

    @property
    def is_server_slow(self) -> bool:
        """Whether messages take so long that others can be sent meanwhile."""
        return self._usual >= SLOW

    def lacking(self, connections: int) -> int:
        """How many messages to hand out now to so many connections."""
        self._measure()
        out = len(self._sizes)
        least = FOR_EACH * max(connections, 1)
        wanted = least if self._octets > AHEAD_OCTETS else max(least, int(self._rate * AHEAD_SECONDS))
        lacking = wanted - out
        return min(lacking, AT_ONCE) if lacking >= WORTH_A_LOOK * wanted else 0

    def is_deep(self, connections: int) -> bool:
        """Whether more is handed out than the connections have in hand."""
        return len(self._sizes) > IN_HAND * max(connections, 1)

    def _measure(self) -> None:
        passed = self._clock() - self._since
        if passed >= _WINDOW or (passed >= _SHORTEST and self._back >= _ENOUGH):
            self._rate, self._back, self._since = self._back / passed, 0, self._clock()

    def batch(self, smallest: int) -> int:
        """How many messages to claim at once: as many as the connections have to do meanwhile."""
        return min(max(smallest, len(self._sizes)), MOST_BATCHES * smallest)

    def to_ask_for(self, priorities: Sequence[int]) -> list[int]:
        """Those of which there may be mail: each that is asked for costs a statement."""
        now = self._clock()
        asked = [priority for priority in priorities if now >= self._absent.get(priority, now)]
        return asked or list(priorities)

    def found(self, asked: Sequence[int], present: Collection[int]) -> None:
        """Of these priorities there was mail; of the others that were asked for there was none."""
        until = self._clock() + ABSENT_SECONDS
        absent = {**self._absent, **dict.fromkeys(asked, until)} if present else {}
        self._absent = {priority: until for priority, until in absent.items() if priority not in present}

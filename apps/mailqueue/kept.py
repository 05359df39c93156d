"""Transports that stay open between two drains, so that the next mail need not wait for a connection."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence

from .delivery import close
from .transports.base import Transport

IDLE_SECONDS = 30.0  # for which a transport is kept open without work


class KeptTransports:
    """Transports that nobody uses at the moment. May be used from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._kept: list[tuple[float, Transport]] = []
        self._closed = False

    def take(self, settings: Sequence[object], beside: Collection[Sequence[object]] = ()) -> Transport | None:
        """The one that was used last, of those with these settings.

        Args:
            settings: of the transport that is wanted.
            beside: settings of others that are in use as well; those with still others are closed.

        Returns:
            None: there is none. One that its server has left meanwhile opens itself again.
        """
        with self._guard:
            fitting = [entry for entry in self._kept if entry[1].settings() == settings]
            taken = fitting[-1][1] if fitting else None
            rest = [entry for entry in self._kept if entry[1] is not taken]
            self._kept = [entry for entry in rest if entry[1].settings() in (settings, *beside)]
            others = [entry[1] for entry in rest if entry not in self._kept]
        _close_all(others)
        return taken

    def number(self, settings: Sequence[object]) -> int:
        """How many there are with these settings."""
        with self._guard:
            return sum(transport.settings() == settings for _, transport in self._kept)

    def put(self, transport: Transport, now: float) -> None:
        """Keep a transport that is in good order.

        Args:
            now: seconds on the clock that close_idle() gets its own time from.
        """
        with self._guard:
            if not self._closed:
                self._kept.append((now, transport))
                return
        close(transport)

    def close_idle(self, now: float) -> None:
        """End those that have been idle for too long, or since a time that is yet to come."""
        with self._guard:
            idle = [item for since, item in self._kept if not 0 <= now - since < IDLE_SECONDS]
            self._kept = [entry for entry in self._kept if 0 <= now - entry[0] < IDLE_SECONDS]
        _close_all(idle)

    def close(self) -> None:
        """End all of them, and whatever is still put back."""
        with self._guard:
            self._closed = True
            kept, self._kept = self._kept, []
        _close_all([transport for _, transport in kept])


def _close_all(transports: Sequence[Transport]) -> None:
    for transport in transports:
        close(transport)

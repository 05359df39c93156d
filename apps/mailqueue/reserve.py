"""Further connections, brought near their server while the first one shows that it can be used.

Far from the server that takes the first one a while. None of the others shows a login meanwhile: one that
is wrong, tried by all of them at once, would lock the site out.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from . import words
from .classify import classify_exception
from .delivery import close
from .transports.base import Transport

logger = logging.getLogger("mailqueue")

PATIENCE = 10.0  # seconds for which one waits to be taken


class Reserve:
    """Transports on their way. take() may be called from any thread."""

    def __init__(self) -> None:
        self._coming: list[_Approach] = []

    def call_up(self, make: Callable[[], Transport], number: int) -> None:
        """Have so many transports approach their server, each in a thread of its own."""
        for _ in range(number):
            one = _Approach(make)
            self._coming.append(one)
            one.start()

    @property
    def coming(self) -> int:
        """How many are on their way: nobody can take them yet, and the server has them already."""
        self._coming = [one for one in self._coming if one.is_left]
        return sum(not one.is_there for one in self._coming)

    def take(self) -> Transport | None:
        """One that is there, for open() to go on with; None: there is none."""
        there = (one.take() for one in self._coming)
        return next((transport for transport in there if transport), None)

    def dismiss(self) -> None:
        """Let go of those that were not taken: they end themselves, and nobody waits for it."""
        for one in self._coming:
            one.leave()


class _Approach(threading.Thread):
    """A transport that comes near its server, and ends unless it is taken."""

    def __init__(self, make: Callable[[], Transport]):
        super().__init__(name="mailqueue approach", daemon=True)
        self._make = make
        self._guard = threading.Lock()
        self._decided = threading.Event()
        self._arrived: Transport | None = None

    @property
    def is_left(self) -> bool:
        """Whether it is there, or may still be, and nobody has decided what becomes of it."""
        return self.is_alive() and not self._decided.is_set()

    @property
    def is_there(self) -> bool:
        """Whether it can be taken."""
        return self._arrived is not None

    def run(self) -> None:
        transport = self._there()
        if transport is None:
            return
        self._arrived = transport
        self._decided.wait(PATIENCE)
        if self.take():
            close(transport)

    def _there(self) -> Transport | None:
        transport: Transport | None = None
        try:
            transport = self._make()
            transport.approach()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the transport's
            stage = transport.stage if transport else words.CONFIG
            if transport:
                close(transport)
            failure = classify_exception(stage, error)
            logger.info("a further connection was not made in advance: %s", failure.text)
            return None
        return transport

    def take(self) -> Transport | None:
        """The transport, if it is there and nobody has it."""
        with self._guard:
            taken, self._arrived = self._arrived, None
        if taken:
            self._decided.set()
        return taken

    def leave(self) -> None:
        """Nobody will take it."""
        self._decided.set()

"""Waiting for work: what tells a worker that mail has come, without asking for it all the time.

A wake-up is only a hint, and may be lost: whoever waits looks for work again after some time
anyway. No hint is lost that comes between two waits.
"""

from __future__ import annotations

import logging
import selectors
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

from . import database

logger = logging.getLogger("mailqueue")

CHANNEL = "mailqueue"  # of PostgreSQL's NOTIFY

POLL = 1.0  # seconds between two looks for work, where nothing tells of it: in quiet times,
QUICK_POLL = 0.05  # and right after something was sent
GLANCE = 0.04  # seconds between two looks at SQLite's file
STOP_GLANCE = 0.2  # seconds for which a listener may not notice that it is to stop
RECONNECT = 10.0  # seconds between two tries to listen


def announce(db: Any) -> None:
    """Wake the workers when the caller's transaction commits, where the database can (PostgreSQL)."""
    if database.engine(db) == database.POSTGRES:
        db.executesql(f"NOTIFY {CHANNEL}")


def watch(db: Any, stop: threading.Event) -> Watch:
    """The best watch that there is for a database.

    Args:
        db: a DAL; the watch belongs to the thread that makes it, and uses its connection.
        stop: ends every wait.
    """
    kinds: dict[str, type[Watch]] = {database.SQLITE: FileWatch, database.POSTGRES: Listener}
    return kinds.get(database.engine(db), Polling)(db, stop)


class Watch(ABC):
    """Waits until there may be work."""

    def __init__(self, db: Any, stop: threading.Event):
        self._db, self._stop = db, stop

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Wait until something happens, at most so long, less if it is to stop; outside a transaction.

        Returns:
            Whether there may be work, so that it is worth a look.
        """

    def pause(self, seconds: float) -> None:
        """Wait so long whatever happens, less if it is to stop."""
        self._stop.wait(seconds)

    def sent(self) -> None:  # noqa: B027 - most do not care
        """Something was sent just now."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """End it, whatever state it is in."""


class Polling(Watch):
    """Looks by itself: often after something was sent, since more is likely to come, then less and less.

    The interval is a tenth of the quiet time before. So mail that comes after a longer quiet waits
    for a second at most, and an idle worker asks its database no more than once a second.
    """

    def __init__(self, db: Any, stop: threading.Event):
        super().__init__(db, stop)
        self._sent_on = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait until the next look is due."""
        self._stop.wait(min(seconds, interval(time.monotonic() - self._sent_on)))
        return True

    def sent(self) -> None:
        """Look more often for a while."""
        self._sent_on = time.monotonic()


def interval(quiet: float) -> float:
    """Seconds until the next look, after so many seconds in which nothing was sent."""
    return min(max(quiet / 10, QUICK_POLL), POLL)


class FileWatch(Watch):
    """Looks at SQLite's counter of what other connections have committed: a few bytes of its file.

    Source: https://www.sqlite.org/pragma.html#pragma_data_version
    """

    def __init__(self, db: Any, stop: threading.Event):
        super().__init__(db, stop)
        self._version = -1

    def wait(self, seconds: float) -> bool:
        """Wait until another connection has committed something, be it between this wait and the last."""
        deadline = time.monotonic() + seconds
        while not (changed := self._has_changed()) and not self._stop.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            time.sleep(min(left, GLANCE))  # half of what waiting for the event costs
        return changed

    def _has_changed(self) -> bool:
        before = self._version
        # Past pydal, which would take several times as long; and all of it, so that no lock stays.
        ((self._version,),) = self._db._adapter.connection.execute("PRAGMA data_version").fetchall()
        return self._version != before


class Listener(Polling):
    """Listens to PostgreSQL's NOTIFY, on a connection of its own.

    Where that is lost, or nothing can be heard on it, it polls until it can listen again. Nothing
    can be heard behind a pooler that shares connections, which shows in our own call not coming back.
    """

    def __init__(self, db: Any, stop: threading.Event):
        super().__init__(db, stop)
        self._link: Any = None
        self._hears = False
        self._next_try = 0.0
        self._said = False

    def wait(self, seconds: float) -> bool:
        """Wait for a call."""
        try:
            if self._link is None:
                return self._listen() or super().wait(seconds)
            if self._hears:
                return self._hear(seconds)
            self._hears = self._hear(min(seconds, POLL))
        except (database.faults(self._db), OSError) as error:
            self._lose(error)
            return super().wait(seconds)
        if not self._hears:
            self._say("its calls do not arrive, which is so behind a pooler that shares connections")
        return True

    def _listen(self) -> bool:
        """Try to, now and then. True: from now on calls are heard; what came before is to be looked for."""
        if time.monotonic() < self._next_try:
            return False
        self._next_try = time.monotonic() + RECONNECT
        self._link = self._db._adapter.connector()
        self._link.autocommit = True
        self._link.cursor().execute(f"LISTEN {CHANNEL}")
        self._hears = False
        announce(self._db)
        self._db.commit()
        return True

    def _hear(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._link, selectors.EVENT_READ)
            while not self._stop.is_set() and (left := deadline - time.monotonic()) > 0:
                if selector.select(min(left, STOP_GLANCE)) and self._has_call():
                    return True
        return False

    def _has_call(self) -> bool:
        self._link.poll()
        called = bool(self._link.notifies)
        self._link.notifies.clear()
        return called

    def _lose(self, error: Exception) -> None:
        self._say(" ".join(str(error).split()))
        self.close()

    def _say(self, why: str) -> None:
        if not self._said:
            logger.warning(
                "PostgreSQL does not tell the worker of new mail (%s). The worker looks for it by itself,"
                " at least once a second, until it does",
                why,
            )
        self._said = True

    def close(self) -> None:
        """Listen no more."""
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):  # the other side is gone already
                link.close()

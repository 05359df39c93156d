"""A worker's time at work: its row, its journal, the heartbeat that keeps its claims, and its end."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import database, journal, leases, words
from .classify import DeliveryError, Failure
from .site import Site

logger = logging.getLogger("mailqueue")


_CLOCK: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def elapsed() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps if there is one."""
    return time.clock_gettime(_CLOCK)


class JournalNotWritable(DeliveryError):
    """No message may be sent, since it could not be put on record: the site's fault, not a message's.

    Args:
        folder: where the journals lie.
        error: what the operating system said.
    """

    def __init__(self, folder: str, error: OSError):
        text = f"{folder}: {error.strerror or error}"
        super().__init__(Failure(words.CONFIGURATION, words.DATA, "journal-not-writable", text))


class Shift:
    """One worker at work, as a context manager.

    Attributes:
        worker_id: its row.
        journal: its record of stages.
        closing: set when no further message is to be begun.

    Raises:
        JournalNotWritable: there can be no journal.
    """

    def __init__(self, site: Site):
        self._site = site
        self._beaten = elapsed()  # before it is written: later, it would seem fresher than others see it
        token = journal.new_token()
        # Its row comes before the journal and goes after it: a file that no row names would stay for ever.
        self.worker_id = leases.register(
            site.db,
            token=token,
            host_name=socket.gethostname(),
            pid=os.getpid(),
            journal=journal.path_of(site.journals, token),
            now=site.clock(),
        )
        self.journal = self._make_journal(token)
        self.closing = threading.Event()
        self.complete = False
        self._lost = False
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="mailqueue heartbeat", daemon=True)

    def __enter__(self) -> Shift:
        self._heart.start()
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._heart.join()
        if self.complete or self._lost:
            self.journal.close()
            leases.retire(self._site.db, self.worker_id)
        else:
            if error is None:
                self.journal.ended()
            self.journal.abandon()

    def _make_journal(self, token: str) -> journal.Journal:
        try:
            return journal.Journal(self._site.journals, token)
        except OSError as error:
            leases.retire(self._site.db, self.worker_id)
            raise JournalNotWritable(self._site.journals, error) from error

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Write to the journal what must be on record before anything is sent.

        Raises:
            JournalNotWritable: it is not on record, so that it must not be sent.
        """
        try:
            yield
        except OSError as error:
            raise JournalNotWritable(self._site.journals, error) from error

    def may_begin(self) -> bool:
        """Whether another message may be begun: nobody can have taken this worker's claims over.

        A process that was stopped for a while finds out here, before it sends what others may have
        sent meanwhile. Asks no database, so that it may be called from any thread.
        """
        return not self.closing.is_set() and self.is_fresh()

    def is_fresh(self) -> bool:
        """Whether the lease was renewed so recently that it must still hold."""
        return not self._lost and elapsed() - self._beaten < leases.FRESH

    def renew(self) -> bool:
        """Renew the lease now. False: it is lost, and with it every claim."""
        begun = elapsed()
        if leases.beat(self._site.db, self.worker_id, self._site.clock()):
            self._beaten = begun
        else:
            self._lost = True
        return not self._lost

    def _beat_on(self) -> None:
        failing = False
        while not self._over.wait(leases.HEARTBEAT):
            try:
                with database.own_transaction(self._site.db):
                    self.renew()
                failing = False
            except Exception as error:  # noqa: BLE001 - the next one may succeed; the lease bears some
                if not failing:
                    logger.warning("a heartbeat could not be written: %r", error)
                failing = True

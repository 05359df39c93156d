"""A worker's time at work: its row, its journal, the heartbeat that keeps its claims, and its end."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time

from . import database, journal, leases
from .site import Site

logger = logging.getLogger("mailqueue")


def elapsed() -> float:
    """Seconds on a clock that nobody sets, and that goes on while the machine sleeps if there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Shift:
    """One worker at work, as a context manager.

    Attributes:
        worker_id: its row.
        journal: its record of stages.
        closing: set when no further message is to be begun.
    """

    def __init__(self, site: Site):
        self._site = site
        self.journal = journal.Journal(site.journals)
        self.worker_id = leases.register(
            site.db,
            token=self.journal.token,
            host_name=socket.gethostname(),
            pid=os.getpid(),
            journal=self.journal.path,
            now=site.clock(),
        )
        self.closing = threading.Event()
        self.complete = False
        self._lost = False
        self._beaten = elapsed()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="mailqueue heartbeat", daemon=True)

    def __enter__(self) -> Shift:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._heart.join()
        if self.complete and not self._lost:
            leases.retire(self._site.db, self.worker_id)
            self.journal.close()
        else:
            self.journal.abandon()

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
        while not self._over.wait(leases.HEARTBEAT):
            try:
                with database.own_transaction(self._site.db):
                    self.renew()
            except Exception:
                logger.warning("a heartbeat could not be written", exc_info=True)

"""Serving a site's queue for as long as its process lives: drain, wait for work, survive what fails.

A fault of the database ends a drain, never the service: it says so once, tries again less and less
often, each time over a fresh connection, and says once that it is over. Nothing is lost meanwhile:
what was answered is in the journal, and the first drain that succeeds takes it from there.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from contextlib import closing

from . import breaker, database, outbox, wakeup, words
from .kept import KeptTransports
from .site import Site
from .worker import drain

logger = logging.getLogger("mailqueue")

SWEEP = 10.0  # seconds until a drain looks for what no due message announces: claims of dead workers
TURN = 60.0  # a drain begins no further message after that, so that dead workers are looked for in it too
REPORT = 60.0  # seconds between two lines that say what was done
STUCK = 1.0  # seconds until the next drain where the last ones left what is due; doubled each time
FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0  # seconds until the next try after a fault: the first, the longest


def serve(site: Site, stop: threading.Event, *, watch: wakeup.Watch | None = None) -> None:
    """Send a site's mail, as it comes, until `stop` is set; then finish the messages at hand.

    Args:
        site: whose mail it is; its DAL gets a connection for this thread.
        stop: ends it.
        watch: what to wait with; by default the best one for the database.

    Raises:
        BaseException: an exit (classify.is_exit); nothing else.
    """
    with closing(KeptTransports()) as kept, closing(watch or wakeup.watch(site.db, stop)) as waiting:
        _Service(site, stop, waiting, kept).run()


class _Service:
    def __init__(self, site: Site, stop: threading.Event, watch: wakeup.Watch, kept: KeptTransports):
        self._site, self._stop, self._watch, self._kept = site, stop, watch, kept
        self._drained = site.clock()
        self._stuck_for = 0.0
        self._done: Counter[str] = Counter()
        self._reported = site.clock()
        self._fault = _Fault(site)

    def run(self) -> None:
        while not self._stop.is_set():
            try:
                with database.own_transaction(self._site.db):  # one connection, until it fails
                    while not self._stop.is_set():
                        self._turn()
            except Exception as error:  # noqa: BLE001 - whatever it is, the queue must not stall
                self._watch.pause(self._fault.met(error))
        self._report()

    def _turn(self) -> None:
        self._drained = self._site.clock()
        counts = drain(self._site, until=self._drained + TURN, stop=self._stop, kept=self._kept)
        self._fault.over()
        self._done.update(counts)
        if any(number for status, number in counts.items() if status != words.QUEUED):
            self._stuck_for = 0.0
            self._watch.sent()
        self._await_work()
        self._do_now_and_then()

    # --- waiting ---------------------------------------------------------------------------

    def _await_work(self) -> None:
        """Until a drain may find something to do."""
        due, probe = self._look()
        if due is not None and due <= self._site.clock():
            self._await_repair(probe)
            return
        self._stuck_for = 0.0
        while not self._stop.is_set():
            moments = [moment for moment in (due, probe) if moment is not None]
            now = self._site.clock()
            wait = min([self._drained + SWEEP, *moments]) - now
            if wait <= 0 or now < self._drained:  # a clock that was set back
                return
            if self._watch.wait(wait):
                due, probe = self._look()
            self._do_now_and_then()

    def _await_repair(self, probe: float | None) -> None:
        """Something is due although there was a drain just now.

        It may have come meanwhile. If another drain leaves it too, it waits for something else than
        time or another mail: a probe, a person.
        """
        if self._stuck_for:
            wait = self._stuck_for if probe is None else min(self._stuck_for, probe - self._site.clock())
            self._watch.pause(max(wait, STUCK))
        self._stuck_for = min(max(self._stuck_for * 2, STUCK), SWEEP)

    def _look(self) -> tuple[float | None, float | None]:
        """When the next message is due, and the next probe that the last drain did not see; epoch seconds."""
        due, probe = outbox.next_due(self._site.db), breaker.next_probe(self._site.db, self._drained)
        self._site.db.commit()
        return due, probe

    # --- saying what was done --------------------------------------------------------------

    def _do_now_and_then(self) -> None:
        self._kept.close_idle(self._site.clock())
        if self._site.clock() - self._reported >= REPORT:
            self._report()

    def _report(self) -> None:
        """One line, where anything was done."""
        self._reported = self._site.clock()
        if any(self._done.values()):
            logger.info(
                "%s", ", ".join(f"{number} {status}" for status, number in self._done.items() if number)
            )
        self._done.clear()


class _Fault:
    """What keeps drains from succeeding at the moment, if anything does."""

    def __init__(self, site: Site):
        self._site = site
        self._since = 0.0
        self._tries = 0
        self._said: set[bool] = set()

    def met(self, error: Exception) -> float:
        """Say what it is, unless it was said; the seconds until the next try."""
        if not self._tries:
            self._since = self._site.clock()
        self._tries += 1
        of_database = isinstance(error, database.faults(self._site.db))
        if of_database not in self._said:
            self._said.add(of_database)
            self._say(error, of_database)
        return float(min(FIRST_WAIT * 2 ** min(self._tries - 1, 16), LONGEST_WAIT))

    def _say(self, error: Exception, of_database: bool) -> None:
        if of_database:
            logger.error(
                "the database fails (%s). Mail waits, nothing is lost; the worker tries again in %g s,"
                " then less often, at least every %g s",
                " ".join(str(error).split()) or type(error).__name__,
                FIRST_WAIT,
                LONGEST_WAIT,
            )
        else:
            logger.error("the queue cannot be worked on; the worker tries again", exc_info=error)

    def over(self) -> None:
        """A drain succeeded: say so, if that is news."""
        if self._tries:
            logger.warning(
                "the worker goes on: the fault is over after %.0f s and %d tries",
                self._site.clock() - self._since,
                self._tries,
            )
        self._tries = 0
        self._said.clear()

"""Sending from pydal's Scheduler: a periodic task, woken by a row that commits with the mail.

Whatever happened to the periodic row or to the scheduler's thread, ensure() brings it back. One
thread for each process calls it once in a period.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from py4web.core import ICECUBE
from pydal._globals import GLOBAL_LOCKER
from pydal.connection import ConnectionPool
from pydal.tools.scheduler import Scheduler, delta
from pydal.tools.scheduler import now as scheduler_now
from threadsafevariable import ThreadSafeVariable

from .. import breaker, database, journal, leases, outbox
from ..mailer import MailQueue

logger = logging.getLogger("mailqueue")

TASK = "mailqueue_send"
WAKE_SECONDS = 1.0  # the scheduler looks for new runs so often
RUN_SECONDS = 300.0  # a run begins no further message after that, so that other tasks have their turn
STALE_SECONDS = 15.0  # a run that was assigned and has not begun by then never will
LOST_SECONDS = 3600.0  # a run that has not ended by then is lost
KEPT_RUNS = 20  # ended runs that stay in the table, for the administrator

END_SECONDS = 12.0  # how long a run whose server is gone has for the messages at hand
START_SECONDS = 2.0  # how long a step waits for the run that it forked to begin
QUIET_SECONDS = 2.0  # how long a fork waits for the transactions of the server's other threads

_forking = threading.RLock()  # one fork at a time, or the wait of one would be what another must wait for
_sqlite_files: set[str] = set()
_quiet_links: list[sqlite3.Connection] = []
_mysql_links: list[Any] = []


def _before_fork() -> None:
    """Have nothing inherited that only a thread of the parent could release.

    SQLite counts its locks in the process's memory: a child made amid a thread's transaction finds
    the database locked for ever, and while it waits to write locks out everybody else. So nobody is
    in a transaction while the process forks.
    """
    _forking.acquire()
    for path in _sqlite_files:
        with suppress(sqlite3.Error):
            link = sqlite3.connect(path, timeout=QUIET_SECONDS, isolation_level=None, check_same_thread=False)
            _quiet_links.append(link)
            link.execute("BEGIN EXCLUSIVE")
    GLOBAL_LOCKER.acquire()
    _mysql_links.extend(_links_of_mysqlclient())


def _after_fork_in_parent() -> None:
    _mysql_links.clear()
    GLOBAL_LOCKER.release()
    _end_quiet()
    _forking.release()


def _after_fork_in_child() -> None:
    _part_from_mysql()
    ConnectionPool.POOLS.clear()  # the sockets are the parent's
    GLOBAL_LOCKER.release()
    _end_quiet()
    _sqlite_files.clear()
    _forking.release()


def _end_quiet() -> None:
    while _quiet_links:
        _quiet_links.pop().close()


def _links_of_mysqlclient() -> list[Any]:
    """All of this process, those of other threads too: a child drops these before it can be asked."""
    mysqlclient = sys.modules.get("MySQLdb.connections")
    if mysqlclient is None:
        return []
    return [thing for thing in gc.get_objects() if isinstance(thing, mysqlclient.Connection)]


def _part_from_mysql() -> None:
    """Have a child that drops its copies of the parent's connections not say goodbye to the server.

    The other drivers see by themselves that a connection is not this process's; mysqlclient ends the
    parent's session, and with it the request of a visitor or the scheduler's thread.
    """
    nowhere = os.open(os.devnull, os.O_RDWR)
    for link in _mysql_links:
        with suppress(Exception):  # of one that is closed already
            os.dup2(nowhere, link.fileno())
    os.close(nowhere)
    _mysql_links.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
    )


def _mended(stock_step: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A step that ends its transaction, and of which one goes on at a time in a process.

    pydal's own leaves one open whenever somebody else took the run that it was about to take, and
    with it, on SQLite, the database locked as long as its loop sleeps. And a run whose end cannot be
    written down comes back out of it, in its own process: as a second scheduler, which counts as
    running and holds up all others until the run's time is over.
    """
    one_at_a_time = threading.Lock()

    def step(scheduler: Any) -> Any:
        with one_at_a_time:
            server = os.getpid()
            try:
                began = stock_step(scheduler)
                if os.getpid() != server:
                    os._exit(1)
                if began:
                    _await_start(scheduler)
                return began
            finally:
                scheduler.db.rollback()

    step.mailqueue_mended = True  # type: ignore[attr-defined]
    return step


def _await_start(scheduler: Any) -> None:
    """Until the run that was assigned has begun, the next step would not count it as running."""
    run = scheduler.db.task_run
    assigned = (run.worker == scheduler.worker) & (run.status == "assigned")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and not scheduler.db(assigned).isempty():
        scheduler.db.rollback()
        time.sleep(0.02)


# On the class, since a scheduler's loop runs before anybody tells us of the scheduler.
if not hasattr(Scheduler.step, "mailqueue_mended"):
    Scheduler.step = _mended(Scheduler.step)


class SendingTask:
    """The task that sends a mailer's queue.

    Args:
        mail: the mailer.
        scheduler: the host's scheduler, started or not.
        period: seconds between two runs while nothing wakes the task.
        app: the app's name: on a reload, the task of the same app's earlier load is retired.
    """

    def __init__(self, mail: MailQueue, scheduler: Any, period: int, app: str):
        self._mail, self._scheduler, self._period = mail, scheduler, period
        self._db = scheduler.db
        self._server = os.getpid()
        self._server_log = os.dup(2)
        self._retired = threading.Event()
        self._seen_abandoned: frozenset[str] = frozenset()
        if database.engine(self._db) == database.SQLITE and os.path.isfile(self._db._adapter.dbpath):
            _sqlite_files.add(self._db._adapter.dbpath)
        scheduler.register_task(TASK, self.run)
        asleep = scheduler.sleep_time if scheduler._looping else 0.0
        scheduler.sleep_time = min(scheduler.sleep_time, WAKE_SECONDS)
        name = f"mailqueue watch {app} {self._db._uri_hash}"
        _retire_earlier(name, scheduler)
        self._try_to_ensure()
        with _logged("the mail queue's task could not be woken"), database.own_transaction(self._db):
            # The site may have been started because its settings were repaired. Not before it is loaded.
            self._insert(period=None, after=WAKE_SECONDS)
        watch = threading.Thread(target=self._watch, args=(asleep,), name=name, daemon=True)
        watch.mailqueue_task = self  # type: ignore[attr-defined]  # what outlives a reload
        watch.start()

    # --- waking ----------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the task run now: a row in the caller's transaction, or committed at once.

        It is a hint that becomes visible together with the mail; the periodic run finds what no
        hint announced, so a hint that cannot be given is no reason to lose the mail.
        """
        joined = self._db is self._mail.db
        with _logged("the mail queue's task could not be woken"):
            self._revive()
            transaction = self._mail.transaction() if joined else database.own_transaction(self._db)
            with transaction, database.savepoint(self._db):
                self._hint()

    def _hint(self) -> None:
        # Each transaction gives its own: a run may spend another's before this one's mail is visible.
        self._insert(period=None)

    def _waiting_hints(self) -> Any:
        run = self._db.task_run
        due_and_free = (run.scheduled_for <= scheduler_now()) & (run.worker == None)  # noqa: E711
        return self._mine(status="queued", period=None) & due_and_free

    def _insert(self, *, period: int | None, after: float = 0.0) -> None:
        # Not enqueue_run(): that commits. Every field, since a forked run has no defaults.
        moment = scheduler_now()
        self._db.task_run.insert(
            name=TASK,
            description="sends the mail queue",
            inputs={},
            timeout=int(LOST_SECONDS),
            priority=0,
            period=period,
            scheduled_for=moment + delta(after),
            queued_on=moment,
            status="queued",
        )

    def _mine(self, *, status: str, period: int | None) -> Any:
        run = self._db.task_run
        periodic = run.period == None if period is None else run.period != None  # noqa: E711
        return (run.name == TASK) & (run.status == status) & periodic

    # --- running ---------------------------------------------------------------------------

    def run(self, **_: Any) -> dict[str, int]:
        """Send what is due, and what comes meanwhile. Called by the scheduler in a process of its own."""
        if os.getpid() != self._server:
            self._settle_in_fork()
        stop = threading.Event()
        threading.Thread(target=self._stop_without_server, args=(stop,), daemon=True).start()
        try:
            return self._send_all(stop)
        except (database.faults(self._mail.db), database.faults(self._db)) as error:
            said = " ".join(str(error).split())
            logger.warning("the database fails (%s). Mail waits, nothing is lost; a later run sends it", said)
            raise  # the scheduler notes that this run failed
        finally:
            stop.set()  # a thread that went on would keep the forked process alive

    def _send_all(self, stop: threading.Event) -> dict[str, int]:
        deadline = time.time() + RUN_SECONDS
        total: dict[str, int] = {}
        while True:
            self._forget_hints()
            counts = self._mail.process_queue(until=deadline, stop=stop)
            total = {status: total.get(status, 0) + number for status, number in counts.items()}
            if not any(counts.values()) or time.time() > deadline or stop.is_set():
                break
        self._plan_next()
        return total

    def _stop_without_server(self, stop: threading.Event) -> None:
        """A run that outlives its server would hold up those of the server that follows."""
        while not stop.wait(WAKE_SECONDS):
            try:
                os.kill(self._server, 0)
            except ProcessLookupError:
                stop.set()
                time.sleep(END_SECONDS)
                os._exit(1)  # a connection that still waits for an answer keeps a forked process alive

    def _settle_in_fork(self) -> None:
        """Make a forked run independent of the server, but for its log: there problems are looked for."""
        ThreadSafeVariable.restore(ICECUBE)
        if not self._retired.is_set():
            os.dup2(self._server_log, 2)
        _close_server_sockets()

    def _forget_hints(self) -> None:
        """What the hints announced is visible to the drain that follows, so they are spent."""
        with database.own_transaction(self._db):
            self._chosen(self._waiting_hints()).delete()

    def _chosen(self, query: Any) -> Any:
        # By their ids: otherwise MySQL waits for every row that some request has not committed yet.
        run = self._db.task_run
        return self._db(run.id.belongs([row.id for row in self._db(query).select(run.id)]) & query)

    def _plan_next(self) -> None:
        """Come back in time for the next message, probe or look at another worker."""
        with database.own_transaction(self._mail.db):
            db = self._mail.db
            moments = [outbox.next_due(db), breaker.next_probe(db, time.time()), leases.next_look(db)]
        # What is due already was not sent just now, so it waits for something else than time.
        waits = [moment - time.time() for moment in moments if moment is not None]
        after = min((wait for wait in waits if wait > 0), default=None)
        if after is None or after > self._period:
            return
        with database.own_transaction(self._db):
            if self._db(self._mine(status="queued", period=None)).isempty():
                self._insert(period=None, after=max(after, WAKE_SECONDS))

    # --- surviving -------------------------------------------------------------------------

    def ensure(self) -> None:
        """Bring back whatever the scheduler lost: its thread, the periodic run, a stale assignment.

        Idempotent; commits on the scheduler's database.
        """
        self._revive()
        with database.own_transaction(self._db):
            self._free_stale_runs()
            self._keep_one_periodic_run()
            self._prune()

    def _revive(self) -> None:
        """A database error in the scheduler's loop ends its thread for good."""
        scheduler = self._scheduler
        if scheduler._looping and scheduler._thread is not None and not scheduler._thread.is_alive():
            logger.warning("the scheduler's thread had died; it is started again")
            scheduler._thread, scheduler._looping = None, False
            scheduler.start()

    def _free_stale_runs(self) -> None:
        run = self._db.task_run
        stuck = (run.name == TASK) & run.status.belongs(["queued", "assigned"]) & (run.worker != None)  # noqa: E711
        long_ago = run.scheduled_for < scheduler_now() - delta(STALE_SECONDS)
        self._chosen(stuck & long_ago).update(worker=None, status="queued")

    def _keep_one_periodic_run(self) -> None:
        run = self._db.task_run
        self._chosen(self._mine(status="queued", period=self._period) & (run.period != self._period)).delete()
        waiting = self._db(self._mine(status="queued", period=self._period)).select(
            run.id, orderby=run.scheduled_for
        )
        for spare in waiting[1:]:
            self._db(run.id == spare.id).delete()
        recent = run.started_on > scheduler_now() - delta(LOST_SECONDS)
        underway = (self._mine(status="running", period=self._period) & recent) | self._mine(
            status="assigned", period=self._period
        )
        if not waiting and self._db(underway).isempty():
            # Not due at once: the hint of the start is, and two runs would get in each other's way.
            self._insert(period=self._period, after=self._period)

    def _prune(self) -> None:
        run = self._db.task_run
        ended = (run.name == TASK) & run.status.belongs(["completed", "failed", "dead", "timeout", "unknown"])
        last = self._db(ended).select(run.id, orderby=~run.id, limitby=(KEPT_RUNS, KEPT_RUNS + 1)).first()
        if last:
            self._db(ended & (run.id <= last.id)).delete()

    def _watch(self, asleep: float) -> None:
        """Ensure once in a period. At first, stand in for a loop that still sleeps its long sleep."""
        begun = ensured = time.monotonic()
        while not self._retired.wait(WAKE_SECONDS):
            now = time.monotonic()
            if now - begun < asleep:
                with _logged("the scheduler could not make a step"), database.own_transaction(self._db):
                    self._scheduler.step()
            self._wake_for_the_dead()
            if now - ensured >= self._period:
                ensured = now
                self._try_to_ensure()
                with _logged("whether anybody sends could not be told"):
                    self._look_for_silence()

    def _wake_for_the_dead(self) -> None:
        """A worker of this host that was killed leaves its journal behind, with nobody's lock on it."""
        with _logged("the journals could not be looked at"):
            left = journal.abandoned(self._mail.site.journals)
            if left - self._seen_abandoned:
                self.wake()
            self._seen_abandoned = left

    def _look_for_silence(self) -> None:
        with database.own_transaction(self._mail.db):
            self._mail.silence()

    def _try_to_ensure(self) -> None:
        with _logged("the mail queue's task could not be seen to"):
            self.ensure()

    def retire(self, successor: Any) -> None:
        """Leave the field to the task of a later load of the same app."""
        if self._retired.is_set():
            return
        self._retired.set()
        os.close(self._server_log)
        if self._scheduler is not successor:
            self._scheduler._looping = False


def _retire_earlier(name: str, scheduler: Any) -> None:
    for thread in threading.enumerate():
        if thread.name == name:
            thread.mailqueue_task.retire(scheduler)  # type: ignore[attr-defined]


@contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.warning(what, exc_info=True)


def _close_server_sockets() -> None:
    """Close what the server listens on, and the visitors' connections.

    Otherwise a server that is restarted while a run goes on finds its port in use, and a visitor
    whose page ends with the connection waits for the end of the run.
    """
    own = {descriptor: about for descriptor in _descriptors() if (about := _about_socket(descriptor))}
    served = {port for listening, port in own.values() if listening}
    for descriptor, (_, port) in own.items():
        if port in served:
            os.close(descriptor)


def _about_socket(descriptor: int) -> tuple[bool, Any] | None:
    """Whether it listens, and its own port (of a Unix socket, its path); None for what is no socket."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as inherited:
            listening = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            name = inherited.getsockname()
    except OSError:
        return None
    return bool(listening), name[1] if isinstance(name, tuple) else name or descriptor


def _descriptors() -> list[int]:
    folder = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"
    return [int(name) for name in os.listdir(folder)] if os.path.isdir(folder) else []

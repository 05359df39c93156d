"""Sending from Celery: a task on any number of machines, announced after commits and by beat.

What goes through the broker is a hint, the row in the database is the truth: a hint given twice finds
its message claimed or sent, and what no hint announced is found by the sweep.
"""

from __future__ import annotations

import logging
import mmap
import threading
import time
from collections.abc import Sequence
from typing import Any

from . import database, queries
from .errors import MissingExtra
from .mailer import MailQueue

logger = logging.getLogger("mailqueue")

TASK = "mailqueue.send"
SWEEP = 10.0  # seconds between two drains that beat asks for
TURN = 60.0  # seconds after which a task begins no further message, so that other tasks have their turn
CONNECT_SECONDS = 1.0  # how long a request may wait for a broker that does not answer
COMMIT_SECONDS = 1.0  # outside of a request nobody tells when a message is committed: usually by then
IMPATIENT = {"max_retries": 0, "socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": CONNECT_SECONDS}
HINTS = 10  # for one commit: each has a worker drain until nothing is due, so more bring nothing


def register(
    celery_app: Any, mail: MailQueue, *, sweep: float = SWEEP, queue: str | None = None, name: str = TASK
) -> Any:
    """Have a Celery app's workers send a mailer's queue.

    Call it where the app's tasks are defined, once for each mailer, so that both the site (to announce
    mail) and `celery worker` and `celery beat` (to send it) come by.

    Args:
        celery_app: the celery.Celery.
        mail: the mailer.
        sweep: seconds between two drains that beat asks for; they find what no hint announced, and
            what dead workers had claimed.
        queue: the Celery queue for the task; None: the app's default one.
        name: of the task; two mailers of one Celery app need two names.

    Returns:
        The task.

    Raises:
        MissingExtra: Celery is not installed.
    """
    try:
        from celery import signals
    except ImportError as error:
        raise MissingExtra("celery", "Sending from Celery") from error
    sending = _Sending(mail)
    options = {"acks_late": True, "reject_on_worker_lost": True, "ignore_result": True}

    def send(message_id: int | None = None) -> None:  # Celery takes no method for a task
        sending.run(message_id)

    # Not shared: an app made by a reload would get the task of the load before.
    task = celery_app.task(send, name=name, shared=False, **options)
    sending.hints = hints = _Hints(celery_app, task, queue, sweep)
    mail.wakers.append(_Waker(mail, hints).wake)

    def add_sweep(**_: Any) -> None:
        celery_app.add_periodic_task(sweep, task.s(), name=name, queue=queue, expires=sweep)

    # Not before the app's settings are complete: an assignment to conf.beat_schedule would undo it.
    celery_app.on_after_finalize.connect(add_sweep, weak=False)
    signals.worker_init.connect(sending.settle_before_fork, weak=False)
    signals.worker_shutting_down.connect(sending.stop, weak=False)
    return task


class _StopForAll(threading.Event):
    """An event that is set for this process and those forked from it, once and for good.

    Without a lock: a process that was killed while it held one would stop all the others. A wait() is
    not cut short.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shared = mmap.mmap(-1, 1)

    def set(self) -> None:
        self._shared[0] = 1

    def is_set(self) -> bool:
        return bool(self._shared[0])


class _Sending:
    """What the task does, in a worker."""

    hints: _Hints

    def __init__(self, mail: MailQueue):
        self._mail = mail
        self._stop = _StopForAll()

    def run(self, message_id: int | None = None) -> None:
        """Send what is due, unless the message that was announced is not due any more."""
        try:
            if message_id is None or self._is_due(message_id):
                self._drain()
        except database.faults(self._mail.db) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            logger.warning(
                "the database fails (%s). Mail waits, nothing is lost; a later sweep sends it", said
            )

    def _is_due(self, message_id: int) -> bool:
        with database.own_transaction(self._mail.db):
            return queries.is_due(self._mail.db, message_id, self._mail.site.clock())

    def _drain(self) -> None:
        until = self._mail.site.clock() + TURN
        self._mail.process_queue(until=until, stop=self._stop)
        if self._mail.site.clock() >= until and not self._stop.is_set():
            self.hints.give([None])  # the turn is over, not the work

    def settle_before_fork(self, **_: Any) -> None:
        """Leave no connection open from loading the app: all the children would speak over it."""
        self._mail.db.recycle_connection_in_pool_or_close("rollback")

    def stop(self, **_: Any) -> None:
        """Have the drains finish the messages at hand. Called in the worker's main process."""
        self._stop.set()


class _Waker:
    """Announces messages to the workers after their commit."""

    def __init__(self, mail: MailQueue, hints: _Hints):
        self._mail, self._hints = mail, hints

    def wake(self, message_id: int | None) -> None:
        """Announce a message that is being queued in this thread; None: whatever is due."""
        if not self._mail.after_request(self._hints.give, message_id):
            self._hints.give([message_id], after=COMMIT_SECONDS)


class _Hints:
    """Gives hints over the broker. Where that fails nobody is harmed: the sweep needs none."""

    def __init__(self, celery_app: Any, task: Any, queue: str | None, sweep: float):
        self._app, self._task = celery_app, task
        self._queue, self._sweep = queue, sweep
        self._silent_until = 0.0
        self._failing = False

    def give(self, message_ids: Sequence[int | None], after: float = 0.0) -> None:
        """Publish hints, HINTS at most; none for a while after the broker failed. Never raises.

        Args:
            message_ids: what to announce.
            after: seconds until a worker may act on them.
        """
        if time.monotonic() < self._silent_until:
            return
        try:
            self._publish(message_ids[:HINTS], after)
        except Exception as error:  # noqa: BLE001 - whatever the broker's driver raises, the mail is queued
            self._silent_until = time.monotonic() + self._sweep
            if not self._failing:
                logger.warning("the broker could not be told of new mail (%s); a later sweep sends it", error)
            self._failing = True
        else:
            self._failing = False

    def _publish(self, message_ids: Sequence[int | None], after: float) -> None:
        # A connection of its own: a kept one may have died unnoticed, and waits as long as the site says.
        with self._app.connection_for_write(
            connect_timeout=CONNECT_SECONDS, transport_options=IMPATIENT
        ) as connection:
            for message_id in message_ids:
                self._task.apply_async(
                    (message_id,),
                    connection=connection,
                    retry=False,
                    queue=self._queue,
                    countdown=after or None,
                    expires=after + self._sweep,
                )

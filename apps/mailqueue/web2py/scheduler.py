"""Sending from web2py's Scheduler: a periodic task that is there, whatever became of its row."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from gluon import current

from .. import database
from ..mailer import MailQueue
from .request import transaction

logger = logging.getLogger("mailqueue")

TASK = "mailqueue_send"
RUN_SECONDS = 300.0  # a run begins no further message after that, so that other tasks have their turn
TIMEOUT = 1800  # seconds; web2py kills a run that takes longer
ENSURE_SECONDS = 60.0  # a process looks so often whether the task's row is as it should be
ALIVE = ("QUEUED", "ASSIGNED", "RUNNING")

_ensured: dict[str, float] = {}  # uri and task -> when this process looked last, monotonic


class SendingTask:
    """The task that sends a mailer's queue.

    Args:
        mail: the mailer.
        scheduler: the site's gluon.scheduler.Scheduler.
        period: seconds between two runs.
    """

    def __init__(self, mail: MailQueue, scheduler: Any, period: int):
        self._mail, self._scheduler, self._period = mail, scheduler, period
        self._db = scheduler.db
        self._uuid = f"mailqueue-{current.request.application}"

    def enable(self) -> Callable[[], dict[str, int] | None]:
        """Make the task known, and see to its row; never an error of the visitor's.

        Returns:
            The task.
        """
        if self._scheduler.tasks:
            self._scheduler.tasks[TASK] = self.run
        key = f"{self._db._adapter.uri} {self._uuid} {self._period}"
        if time.monotonic() - _ensured.get(key, float("-inf")) > ENSURE_SECONDS:
            _ensured[key] = time.monotonic()
            self._try_to_ensure()
        return self.run

    def run(self) -> dict[str, int] | None:
        """Send what is due, over the mail server and not through the queue. Commits.

        Returns:
            How many messages came to which status; None, of which the scheduler keeps no record, where
            there was nothing to do.
        """
        counts = self._mail.process_queue(until=self._mail.site.clock() + RUN_SECONDS)
        return counts if any(counts.values()) else None

    def _try_to_ensure(self) -> None:
        try:
            with transaction(self._db), database.savepoint(self._db):
                self.ensure()
        except Exception:
            logger.warning("the mail queue's task could not be seen to", exc_info=True)

    def ensure(self) -> None:
        """Have the task's row be there, waiting or at work. In the caller's transaction; idempotent."""
        task = self._db.scheduler_task
        own = self._db(task.uuid == self._uuid)
        row = own.select(task.status, task.period, task.enabled).first()
        if row is None:
            task.insert(**self._wanted(), uuid=self._uuid)
        elif row.status not in ALIVE or row.period != self._period:
            own.update(**self._wanted())

    def _wanted(self) -> dict[str, Any]:
        scheduler = self._scheduler
        return {
            "application_name": current.request.application,
            "task_name": TASK,
            "function_name": TASK,
            "group_name": scheduler.group_names[0],
            "status": "QUEUED",
            "next_run_time": scheduler.now(),
            "start_time": scheduler.now(),
            "repeats": 0,
            "retry_failed": -1,  # otherwise one failure would end it for good
            "period": self._period,
            "timeout": TIMEOUT,
        }

"""django-celery-email over Redis, without a database: a task for each message, two worker processes.

The worker starts on a queue that was put aside, so that its start is not timed. Tasks are
acknowledged when they begin: the end is read from the sink's count.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import messages

from .base import Contender, sink_count
from .django_site import configure


def _application(contender: Contender) -> Any:
    configure(contender, ["djcelery_email"], EMAIL_BACKEND="djcelery_email.backends.CeleryEmailBackend")
    from celery import Celery

    application = Celery("bench", broker=os.environ["BENCH_REDIS"])
    application.conf.update(task_serializer="json", broker_connection_retry_on_startup=True)
    application.set_default()
    import djcelery_email.tasks  # noqa: F401 - it registers the task

    return application


class Adapter(Contender):
    """The broker has the only copy of a message."""

    def set_up(self) -> None:
        import redis

        self._redis = redis.Redis.from_url(os.environ["BENCH_REDIS"])
        self._redis.flushall()
        self._application = _application(self)

    def enqueue(self, n: int) -> None:
        from django.core.mail import EmailMultiAlternatives

        self._n = n
        for number in range(n):
            message = messages.make(number)
            mail = EmailMultiAlternatives(
                message["subject"], message["text"], message["sender"], [message["to"]]
            )
            mail.attach_alternative(message["html"], "text/html")
            mail.send()

    def get_ready(self) -> None:
        self._redis.rename("celery", "aside")
        command = [sys.executable, "-m", "celery", "-A", "adapters.celery_email:app", "worker"]
        lean = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair", "-c", "2"]
        sink = f"{self.host} {self.port}"
        with (self.folder / "celery.log").open("wb") as log:
            self._worker = subprocess.Popen(
                [*command, *lean], env={**os.environ, "BENCH_CELERY": sink}, stdout=log, stderr=log
            )
        for _ in range(100):
            if self._application.control.ping(timeout=0.5):
                return
        raise TimeoutError("Celery's worker does not answer")

    def drain(self) -> None:
        log = Path(os.environ["BENCH_SINK_LOG"])
        before = sink_count(log)
        self._redis.rename("aside", "celery")
        while sink_count(log) - before < self._n:
            time.sleep(0.005)

    def close(self) -> None:
        self._worker.terminate()
        self._worker.wait(20)


if "BENCH_CELERY" in os.environ:  # in the worker
    _host, _port = os.environ["BENCH_CELERY"].split()
    app = _application(Contender("", _host, int(_port), {}, Path()))

"""A site whose mail Celery sends: its tasks in a module of their own, and `celery worker` as a process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import redis
from celery import Celery
from mailqueue.celery import register

from .mail import SENDER, make_mail
from .services import needs

BROKERS = {"redis": "redis://127.0.0.1:6379/0", "rabbitmq": "amqp://guest:guest@127.0.0.1:5672//"}
SWEEP = 1.0  # seconds
TASKS = """
from celery import Celery
from mailqueue import QueuedMailer, RetryPolicy
from mailqueue.celery import register
from py4web import DAL

db = DAL({uri!r}, folder={folder!r}, pool_size=1)
mail = QueuedMailer(db, "127.0.0.1:{port}", {sender!r}, tls=False, retry=RetryPolicy(first_delay=0.5))
app = Celery("site", broker={broker!r})
app.conf.task_default_queue = {queue!r}
app.conf.broker_transport_options = {options!r}
app.conf.worker_prefetch_multiplier = 1
register(app, mail, sweep={sweep!r})
app.conf.beat_schedule = {{}}
"""


class CelerySite:
    """A site's tasks on a broker, with a queue of their own there.

    Args:
        folder: a temporary one.
        port: of the mail server.
        broker: "redis" or "rabbitmq".
        uri: the database.

    Attributes:
        mail: the site's mailer, registered with `app` as in a web server; it has no server.
        unannounced: a mailer on the same database that tells nobody of what it queues.
    """

    def __init__(self, folder: Path, port: int, broker: str, uri: str):
        self.folder, self.queue = folder, f"mailqueue_test_{uuid.uuid4().hex[:12]}"
        self._broker, self._prefix = broker, f"{self.queue}:"
        options = {"global_keyprefix": self._prefix} if broker == "redis" else {}
        databases = folder / "databases"
        databases.mkdir()
        self.mail = make_mail(databases, uri=uri, clock=time.time)
        self.unannounced = make_mail(databases, uri=uri, clock=time.time)
        self.app = Celery("site", broker=BROKERS[broker])
        self.app.conf.task_default_queue = self.queue
        self.app.conf.broker_transport_options = options
        self.task = register(self.app, self.mail, sweep=SWEEP)
        text = TASKS.format(
            uri=uri,
            folder=str(databases),
            port=port,
            sender=SENDER,
            broker=BROKERS[broker],
            queue=self.queue,
            options=options,
            sweep=SWEEP,
        )
        (folder / "site_tasks.py").write_text(text, encoding="utf-8")
        self._log_file = folder / "celery.log"
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def log(self) -> str:
        """All that the workers and beat printed so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def start_worker(self, *options: str) -> subprocess.Popen[bytes]:
        """A worker with two children."""
        quick = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        return self._start("worker", "--concurrency", "2", "--loglevel", "info", *quick, *options)

    def start_beat(self) -> subprocess.Popen[bytes]:
        schedule, pid_file = str(self.folder / "beat"), str(self.folder / "beat.pid")
        return self._start("beat", "--schedule", schedule, "--pidfile", pid_file, "--loglevel", "info")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log_file.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "site_tasks", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        """End every process, and leave nothing at the broker."""
        for process in self._processes:
            kill_all(process)
        if self._broker == "redis":
            client = redis.Redis.from_url(BROKERS["redis"])
            for key in client.scan_iter(f"{self._prefix}*"):
                client.delete(key)
        else:
            with self.app.connection_for_write() as connection:
                connection.default_channel.queue_delete(self.queue)


@contextlib.contextmanager
def celery_site(folder: Path, port: int, broker: str, uri: str) -> Iterator[CelerySite]:
    """A CelerySite that is closed afterwards; skips where the broker is absent."""
    needs(broker)
    site = CelerySite(folder, port, broker, uri)
    try:
        yield site
    finally:
        site.close()


def kill_all(worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a worker and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(10)


def kill_children(worker: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a worker's children, which it replaces."""
    children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text(encoding="ascii")
    for child in children.split():
        os.kill(int(child), signal.SIGKILL)

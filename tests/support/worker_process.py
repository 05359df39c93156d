"""`mailqueue worker` in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from .mail import SENDER, make_mail

COMMAND = [sys.executable, "-c", "from mailqueue.cli import main; main()", "worker"]
APP = """
import threading
from py4web import DAL
from mailqueue import QueuedMailer

db = DAL({uri!r}, folder={folder!r})
{mailers}
db.commit()
"""
MAILER = 'mail = QueuedMailer(db, "127.0.0.1:{port}", {sender!r}, tls=False)'


class Worker:
    """`mailqueue worker` as a process of its own, for one small app.

    Args:
        folder: a temporary one, for the app, its table files and the journals.
        port: of its mail server.
        mailers: what the app makes besides `db`.
        uri: its database; a fresh SQLite by default.

    Attributes:
        mail: a mailer on the same database, to queue with and to look; it has no server.
    """

    def __init__(self, folder: Path, port: int, mailers: str = MAILER, uri: str = "sqlite://storage.db"):
        self.apps = folder / "apps"
        self.databases = folder / "databases"
        (self.apps / "site").mkdir(parents=True)
        self.databases.mkdir()
        text = APP.format(
            uri=uri, folder=str(self.databases), mailers=mailers.format(port=port, sender=SENDER)
        )
        (self.apps / "site" / "__init__.py").write_text(text, encoding="utf-8")
        self.mail = make_mail(self.databases, uri=uri, clock=time.time)

    def start(self, *options: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [*COMMAND, str(self.apps), "site", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return self.process

    def end(self) -> None:
        if hasattr(self, "process"):
            self.process.kill()
            self.process.communicate()


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The first line it says that has this in it."""
    assert process.stdout
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(f"it ended, and never said {text!r}")

"""mailqueue, through its public interface alone, with its default safety.

Option: connections of the worker, where it is not the default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import messages
from mailqueue import QueuedMailer
from py4web.core import DAL

from .base import Contender


def open_dal(url: str, folder: Path, *, wal: bool) -> Any:
    """A DAL as a site has one."""
    if not url.startswith("sqlite:"):
        return DAL(url, folder=str(folder))
    return DAL(
        f"sqlite://{urlsplit(url).path}",
        folder=str(folder),
        after_connection=_use_wal if wal else None,
        driver_args={"timeout": 30},
    )


def _use_wal(adapter: Any) -> None:
    adapter.execute("PRAGMA journal_mode=WAL;")
    adapter.execute("PRAGMA synchronous=NORMAL;")


class Adapter(Contender):
    """What a site does: send(); its worker: process_queue()."""

    def set_up(self) -> None:
        given = {"connections": int(self.options["connections"])} if "connections" in self.options else {}
        self.db = open_dal(self.url, self.folder, wal=self.wal)
        server = f"{self.host}:{self.port}"
        self.mail = QueuedMailer(self.db, server=server, sender=messages.SENDER, tls=False, **given)
        self.db.commit()

    def enqueue(self, n: int) -> None:
        for number in range(n):
            self.send(number)

    def send(self, number: int) -> None:
        """Queue one message, in a transaction of its own."""
        message = messages.make(number)
        self.mail.send(message["to"], subject=message["subject"], body=(message["text"], message["html"]))
        self.db.commit()  # where send() found a transaction open, it has not

    def drain(self) -> None:
        self.mail.process_queue()

    def close(self) -> None:
        self.db.close()

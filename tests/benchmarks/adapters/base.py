"""What a contender must be able to do."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import messages


class Contender:
    """A contender, on an empty database of its own. Making it creates the tables and is not timed.

    Args:
        url: "sqlite:///absolute/path[?journal=wal]", "postgres://…", "mysql://…", or "" for none.
        host: of the SMTP sink.
        port: of the SMTP sink.
        options: of the contender.
        folder: for files of its own.
    """

    def __init__(self, url: str, host: str, port: int, options: dict[str, str], folder: Path):
        self.url, self.host, self.port, self.options, self.folder = url, host, port, options, folder
        self.set_up()

    def set_up(self) -> None:
        """Create the tables."""

    def enqueue(self, n: int) -> None:
        """Take messages.make(0) to messages.make(n - 1), in a transaction each. Timed."""
        raise NotImplementedError

    def get_ready(self) -> None:
        """Start what is to send. Not timed."""

    def drain(self) -> None:
        """Send them all, and return when they are sent. Timed."""
        raise NotImplementedError

    def close(self) -> None:
        """End what it started."""

    @property
    def wal(self) -> bool:
        """Whether SQLite is to use a write-ahead log."""
        return parse_qs(urlsplit(self.url).query).get("journal") == ["wal"]


class Raw(Contender):
    """One without a database: its messages are in memory, ready-made."""

    def enqueue(self, n: int) -> None:
        made = [messages.make(number) for number in range(n)]
        self.ready = [(message["to"], messages.ready_made(message)) for message in made]


def sink_count(log: Path) -> int:
    """Messages that the sink has counted so far, by the end of its log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 400))
        counted = re.findall(rb"mesg=(\d+)", file.read())
    return int(counted[-1]) if counted else 0

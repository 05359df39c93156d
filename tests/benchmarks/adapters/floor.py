"""One row inserted through the driver for each ready-made message: what a commit costs anybody."""

from __future__ import annotations

import sqlite3
from urllib.parse import urlsplit

from . import raw


class Adapter(raw.Adapter):
    """On SQLite. It sends from memory: only its enqueue is of interest."""

    def set_up(self) -> None:
        self.database = sqlite3.connect(urlsplit(self.url).path)
        self.database.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, address TEXT, mime TEXT)")
        self.database.commit()

    def enqueue(self, n: int) -> None:
        super().enqueue(n)
        for address, wire in self.ready:
            self.database.execute("INSERT INTO queue (address, mime) VALUES (?, ?)", (address, wire.decode()))
            self.database.commit()

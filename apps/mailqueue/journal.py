"""The worker's append-only record of stages: what was about to be sent, and what was answered.

One file for each worker, one line for each fact, written with one system call, so that it is
there after the process was killed at any point. It stands in for a database commit before and
after each message, which would cost many times the sending itself. The file is locked as long
as its worker lives: on the same host, a lock that can be had proves that the worker is gone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pydal.contrib import portalocker

from .outbox import Evidence, Finished, Outcome


class Journal:
    """The record of one worker.

    Args:
        folder: where the journals of this host lie; made if missing.

    Raises:
        OSError: the folder or the file cannot be written.
    """

    def __init__(self, folder: str):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.token = secrets.token_hex(16)
        self.path = os.path.join(folder, f"{self.token}.journal")
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - it lives as long as the worker
        portalocker.lock(self._file, portalocker.LOCK_EX | portalocker.LOCK_NB)

    def dot(self, message_id: int, recipient_ids: Iterable[int]) -> None:
        """Record that the final dot of a message to these recipients is about to be sent."""
        self._append({"dot": message_id, "recipients": list(recipient_ids)})

    def answered(self, result: Finished) -> None:
        """Record what a hand-over brought, before it is in the database."""
        self._append({"answered": asdict(result)})

    def committed(self) -> None:
        """Forget everything: the database has it."""
        self._file.truncate(0)

    def close(self) -> None:
        """Remove the record of a worker that ends in good order."""
        os.unlink(self.path)
        self._file.close()

    def abandon(self) -> None:
        """Let go of it without removing it: whoever recovers this worker's claims needs it."""
        self._file.close()

    def _append(self, fact: dict[str, Any]) -> None:
        self._file.write(json.dumps(fact, ensure_ascii=True).encode("ascii") + b"\n")


def owner_is_gone(path: str) -> bool:
    """Whether the worker of this journal is seen to be gone; False where that cannot be told."""
    if not os.path.exists(path):
        return False
    with open(path, "ab") as file:
        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except OSError:
            return False
        portalocker.unlock(file)
    return True


def read(path: str) -> Evidence | None:
    """What the journal of a dead worker tells; None where it is out of reach (another host)."""
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return None
    started: dict[int, list[int]] = {}
    answered: list[Finished] = []
    for line in filter(None, lines[:-1]):  # the last piece is empty, or cut off by the kill
        fact = json.loads(line)
        if "dot" in fact:
            started[fact["dot"]] = fact["recipients"]
        else:
            result = _finished(fact["answered"])
            started.pop(result.message_id, None)
            answered.append(result)
    return Evidence(started, answered)


def discard(path: str) -> None:
    """Remove the journal of a worker that was recovered."""
    if os.path.exists(path):
        os.unlink(path)


def _finished(stored: dict[str, Any]) -> Finished:
    outcomes = tuple(Outcome(**outcome) for outcome in stored.pop("outcomes"))
    return Finished(**stored, outcomes=outcomes)

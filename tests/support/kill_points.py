"""The points of a worker's work at which it can be struck: around each commit, SMTP stage, journal line.

The product knows nothing of them: they are put around its functions in the worker's own process.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from mailqueue import journal, worker
from mailqueue.transports.smtp_wire import Wire

_VERBS = ("EHLO", "MAIL", "RCPT", "DATA", "RSET", "QUIT")
_PACKAGE = worker.__name__.rpartition(".")[0]
_TRANSACTIONS = ("own_transaction", "begin")  # whose commits are named after those who asked for them
OPENING_TIME = 2.0  # seconds until the first message goes out although not all connections are open


class Points:
    """Counts the points as they are reached, and strikes at one of them.

    Args:
        strike: what to do there.
        label: which kind of point; None: none, they are only counted.
        occurrence: which one of its kind, from 1.
        connections: the first message goes out when so many are open, so that all have work.
    """

    def __init__(self, strike: Callable[[], None], label: str | None, occurrence: int, connections: int):
        self.reached = Counter[str]()
        self._strike, self._target = strike, (label, occurrence)
        self._connections = connections
        self._all_open = threading.Event()
        self._guard = threading.Lock()

    def watch(self, db: Any) -> None:
        """Put the points around what a worker does on this DAL."""
        self._around(db._adapter, "commit", lambda: f"commit in {_committer()}")
        self._around(journal, "_open_locked", lambda path: f"making a {path.rpartition('.')[2]} file")
        self._around(journal, "discard", lambda _: "discarding a journal")
        for fact in ("begun", "dot", "answered", "released"):
            self._around(journal.Journal, fact, lambda *_, fact=fact: f"journal {fact}")
        self._around(journal.Journal, "answered_and_dot", lambda *_: "journal answered and dot")
        self._around(journal.Journal, "_rewrite", lambda _: "rewriting the journal")
        self._around(journal.Journal, "close", lambda _: "removing the journal")
        self._around(Wire, "__init__", lambda _, host, port, timeout, source: "connect")
        self._around(Wire, "send", _verb)
        self._around(Wire, "send_some", _dot_behind_text)
        self._after(Wire, "read_reply", _answered)
        self._after_steps(Wire, "lines_within", "answers in a series")
        self._around(Wire, "skip", _skipped)

    def _around(self, owner: Any, name: str, label_of: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def between(*args: Any, **options: Any) -> Any:
            label = label_of(*args, **options)
            self._reach(f"before {label}")
            result = original(*args, **options)
            self._reach(f"after {label}")
            return result

        setattr(owner, name, between)

    def _after(self, owner: Any, name: str, label_of: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def followed(*args: Any, **options: Any) -> Any:
            result = original(*args, **options)
            self._reach(f"after {label_of(*args, **options)}")
            return result

        setattr(owner, name, followed)

    def _after_steps(self, owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def followed(*args: Any, **options: Any) -> Any:
            result = yield from original(*args, **options)
            self._reach(f"after {label}")
            return result

        setattr(owner, name, followed)

    def _reach(self, label: str) -> None:
        if label == "before MAIL":
            self._all_open.wait(OPENING_TIME)
        with self._guard:
            self.reached[label] += 1
            struck = (label, self.reached[label]) == self._target
        if struck or self.reached["after answer to EHLO"] == self._connections:
            self._all_open.set()
        if struck:
            self._strike()


def _verb(wire: Wire, data: bytes | memoryview, _timeout: float) -> str:
    """What is sent, after its first command; notes what will be answered, in its order."""
    lines = [line[:4].decode("ascii", "replace") for line in bytes(data).split(b"\r\n")]
    if lines[0] not in (*_VERBS, "."):
        return "text"
    said = ["dot" if line == "." else line for line in lines if line]
    vars(wire).setdefault("awaited", deque()).extend(said)
    return said[0]


def _dot_behind_text(wire: Wire, data: bytes) -> str:
    """What a series sends in one write: a text, its dot, and the commands of the message behind."""
    return _verb(wire, data[data.rindex(b"\r\n.\r\n") + 2 :], 0.0)


def _skipped(wire: Wire, octets: int) -> str:
    for _ in range(wire._buffer.count(b"\n", 0, octets)):
        vars(wire)["awaited"].popleft()
    return "the end of answers in a series"


def _answered(wire: Wire, _timeout: float) -> str:
    awaited = vars(wire).get("awaited")
    return f"answer to {awaited.popleft() if awaited else 'connect'}"


def _committer() -> str:
    frame = sys._getframe()
    while frame.f_back:
        frame = frame.f_back
        module = str(frame.f_globals.get("__name__"))
        if module.startswith(f"{_PACKAGE}.") and frame.f_code.co_name not in _TRANSACTIONS:
            return frame.f_code.co_name.strip("_")
    raise AssertionError("nobody of the package has asked for this commit")

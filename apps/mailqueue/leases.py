"""Who is at work: a worker's row, its heartbeat, and when it counts as dead.

A worker renews its lease by a heartbeat. Nobody trusts a clock alone: a worker whose last heartbeat
looks old is suspected first, and dead only if it has not beaten for CONFIRM seconds after that.
A worker stops beginning messages FRESH seconds after the last heartbeat that it managed to write,
by a clock of its own that cannot be set. As long as FRESH is less than CONFIRM, nobody takes over a
worker that still sends, whatever one machine's clock does.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from .database import SQLITE, engine
from .tables import WORKER

HEARTBEAT = 4.0  # seconds between two heartbeats
FRESH = 12.0  # for so long after a heartbeat a worker may act on its claims
CONFIRM = 15.0  # seconds between suspecting a worker and taking its claims over
LEASE = 20.0  # seconds without a heartbeat after which a worker is suspected


def this_machine() -> str:
    """Which start of which machine this is: the same in all of its containers, another after a crash."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()[:64]
    except OSError:  # not Linux
        return socket.gethostname()[:64]


def register(
    db: Any, *, token: str, host_name: str, pid: int, journal: str, now: float, machine: str | None = None
) -> int:
    """Make a worker known, so that its claims can be told to be dead or alive. Commits.

    Args:
        machine: where it runs; here by default.
    """
    worker_id = db[WORKER].insert(
        token=token,
        host_name=host_name[:255],
        machine=machine or this_machine(),
        pid=pid,
        journal=journal,
        started_on=now,
        beat_on=now,
    )
    db.commit()
    return int(worker_id)


def beat(db: Any, worker_id: int, now: float) -> bool:
    """Renew a worker's lease. Commits. False: it was declared dead, its claims are gone."""
    own = db((db[WORKER].id == worker_id) & (db[WORKER].beat_on > 0))  # take_over() makes it less
    own.update(beat_on=now, suspected_on=None)  # its count would be 0 on MySQL if nothing changed
    db.commit()
    alive = not own.isempty()
    db.commit()
    return alive


def retire(db: Any, worker_id: int) -> None:
    """Forget a worker that holds no claims. Commits."""
    db(db[WORKER].id == worker_id).delete()
    db.commit()


def dead(db: Any, now: float, is_gone: Callable[[Any], bool]) -> list[Any]:
    """The rows of workers that are dead; suspects those that look so. Commits.

    Args:
        now: epoch seconds.
        is_gone: tells of a worker's row whether its process is seen to be gone; that needs no
            second look.
    """
    found = [row for row in db(db[WORKER].id > 0).select() if is_gone(row) or _is_dead(db, row, now)]
    db.commit()
    return found


def _is_dead(db: Any, row: Any, now: float) -> bool:
    if abs(now - row.beat_on) < LEASE:
        return False
    waited = None if row.suspected_on is None else now - row.suspected_on
    if waited is not None and waited >= CONFIRM:
        return True
    if waited is None or waited < 0:  # a clock was set back
        unchanged = (db[WORKER].id == row.id) & (db[WORKER].beat_on == row.beat_on)
        db(unchanged).update(suspected_on=now)
    return False


def hold(db: Any, worker_id: int) -> bool:
    """Keep a worker from being taken over until the caller's transaction ends. False: it was."""
    worker = db[WORKER]
    own = db((worker.id == worker_id) & (worker.beat_on > 0))
    # On SQLite the transaction, which has written by now, keeps everybody else from writing.
    return bool(own.select(worker.id, for_update=engine(db) != SQLITE))


def place_among(db: Any, worker_id: int, now: float) -> tuple[int, int]:
    """How many workers are at work, and which of them this one is, from 0.

    Args:
        now: epoch seconds; whoever has not beaten for LEASE seconds does not count.
    """
    worker = db[WORKER]
    at_work = (worker.beat_on > now - LEASE) | (worker.id == worker_id)
    ids = [row.id for row in db(at_work).select(worker.id, orderby=worker.id)]
    return max(len(ids), 1), ids.index(worker_id) if worker_id in ids else 0


def next_look(db: Any) -> float | None:
    """When to look again for dead workers, epoch seconds; None: nobody is at work."""
    worker = db[WORKER]
    moments = [
        row.beat_on + LEASE if row.suspected_on is None else row.suspected_on + CONFIRM
        for row in db(worker.id > 0).select(worker.beat_on, worker.suspected_on)
    ]
    return min(moments, default=None)


def take_over(db: Any, row: Any) -> bool:
    """Lay hands on a dead worker's claims, in the caller's transaction; its row stays until retire().

    Returns:
        False where somebody else did just now, or it lives.
    """
    as_seen = (db[WORKER].id == row.id) & (db[WORKER].beat_on == row.beat_on)
    # No later heartbeat may bring it back; a further taker needs a mark that differs from this one.
    return bool(db(as_seen).update(beat_on=min(row.beat_on, 0.0) - 1.0) == 1)

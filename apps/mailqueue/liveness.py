"""Whether anybody sends: when a worker was seen last, and what to say where none is while mail is due."""

from __future__ import annotations

from typing import Any

from . import outbox
from .database import savepoint
from .tables import PULSE

PULSE_SECONDS = 10.0  # a worker notes that it was here so often at most
SILENCE = 300.0  # seconds without any worker, while mail is due, that are reported

_HERE = "worker"


def seen(db: Any, now: float) -> None:
    """Note that a worker was here. Commits if there is something to write."""
    table = db[PULSE]
    row = db(table.name == _HERE).select(table.seen_on).first()
    if row is not None and 0 <= now - row.seen_on < PULSE_SECONDS:
        return
    if row is None:
        _first(db, now)
    else:
        db(table.name == _HERE).update(seen_on=now)
    db.commit()


def _first(db: Any, now: float) -> None:
    table = db[PULSE]
    try:
        with savepoint(db):
            table.insert(name=_HERE, seen_on=now)
    except Exception:
        if db(table.name == _HERE).isempty():
            raise  # it was not another worker's row that stood in the way


def last_seen(db: Any) -> float | None:
    """When a worker was here last, epoch seconds; None: never."""
    table = db[PULSE]
    row = db(table.name == _HERE).select(table.seen_on).first()
    return None if row is None else float(row.seen_on)


def silence(db: Any, now: float, limit: float) -> float | None:
    """For how long mail has been due without a worker.

    Cheap at any number of messages: the claim's index and one row.

    Args:
        now: epoch seconds.
        limit: seconds that are all right.

    Returns:
        Seconds, or None where mail waits for no worker, or a worker was here within `limit`.
    """
    due = outbox.next_due(db)
    if due is None or now - due <= limit:
        return None
    last = last_seen(db)
    waited = now - (due if last is None else max(due, last))
    return waited if waited > limit else None


def told(seconds: float) -> str:
    """A silence in plain words."""
    return f"No worker was seen for {seconds / 60:.0f} minutes while mail is due."

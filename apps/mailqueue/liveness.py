"""Whether anybody sends: when a worker was seen last, and what to say where none is while mail is due."""

from __future__ import annotations

from typing import Any

from . import database, outbox, sql
from .tables import PULSE
from .told import Told

PULSE_SECONDS = 10.0  # a worker notes that it was here so often at most
SILENCE = 300.0  # seconds without any worker, while mail is due, that are reported
SILENT = "No worker was seen for {n} minutes while mail is due."

_HERE = "worker"


def seen(db: Any, now: float) -> None:
    """Note that a worker was here. Commits if there is something to write."""
    last = last_seen(db)
    if last is not None and 0 <= now - last < PULSE_SECONDS:
        return
    # In one statement: what another worker inserted just now, MySQL would not show us.
    known = "ON CONFLICT (name) DO UPDATE SET seen_on = excluded.seen_on"
    if database.engine(db) == database.MYSQL:
        known = "ON DUPLICATE KEY UPDATE seen_on = VALUES(seen_on)"
    sql.change(db, f"INSERT INTO {PULSE} (name, seen_on) VALUES (%s, %s) {known}", _HERE, now)
    db.commit()


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


def health(silent: float | None) -> dict[str, str]:
    """What monitoring is told: that all is well, or why not.

    Args:
        silent: seconds of silence; None: there is none.
    """
    return {"status": "ok"} if silent is None else {"status": "failing", "reason": told(silent)}


def told(seconds: float) -> str:
    """A silence in plain words."""
    return Told(SILENT, n=round(seconds / 60))

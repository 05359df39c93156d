"""Bringing messages in line with their recipients: the status of a message is the summary of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import database, sql, words
from ..sql import Row
from ..tables import RECIPIENT
from . import rows, texts
from .records import Retention

Dues = dict[str, float | None]  # statuses of a message's recipients: the earliest time one of them is due

_UNKNOWN_STATUS = "The stored status of this recipient is damaged; whether it was reached is not known."
_NO_RECIPIENTS = "The stored recipients of this message are gone; nobody is left to send it to."


def settle(db: Any, held: Sequence[Row], now: float, retention: Retention) -> list[str]:
    """End the claims on messages whose rows are held, and store the rows in line with their recipients.

    Args:
        held: the rows, with whatever else is to be changed in them.

    Returns:
        The new statuses.
    """
    dues = earliest_dues(db, [row["id"] for row in held])
    damaged = [row for row in held if _is_damaged(dues[row["id"]])]
    for row in damaged:
        row.update(_mend(db, row["id"], now))
    dues.update(earliest_dues(db, [row["id"] for row in damaged]))
    for row in held:
        row.update(_summary(dues[row["id"]], now, retention))
        if row.pop("spent", False) and (row["due"] is None or row["due"] > now):
            row["next_transport"] = None
        if row["status"] == words.SENT:
            row.update(failure_kind=None, error=None)
        if row["due"] is None:
            row["expires_on"] = None  # what an administrator retries is to be sent, however late
    _wipe(db, held, now, retention)
    rows.store(db, held)
    return [row["status"] for row in held]


def _wipe(db: Any, held: Sequence[Row], now: float, retention: Retention) -> None:
    """Delete the texts that are not to be kept for a while, of messages that have ended."""
    ended = [row for row in held if row["wipe"] == "T" and row["finished_on"] is not None]
    for row in ended:
        row["purge_on"] = now + retention.record
    texts.wipe(db, [row["id"] for row in ended])


def earliest_dues(db: Any, ids: Sequence[int]) -> dict[int, Dues]:
    """Of each of these messages the statuses of its recipients, with the earliest time one of them is due."""
    found: dict[int, Dues] = {message_id: {} for message_id in ids}
    table, exact, locking = RECIPIENT, "status", ""
    if database.engine(db) == database.MYSQL:
        # It shows the caller's transaction an older state than it changes, unless it is to lock it;
        # it would rather read all of a small table; and to it "SENT" and "sent" are the same.
        table, locking = f"{RECIPIENT} FORCE INDEX (mailqueue_recipient_message_idx)", "FOR UPDATE"
        exact = "CAST(status AS BINARY)"
    for some in sql.portions(list(ids)):
        grouped = f"message_ref IN ({sql.signs(some)}) GROUP BY message_ref, {exact}"
        asked = f"SELECT message_ref, MIN(status), MIN(due) FROM {table} WHERE {grouped} {locking}"
        for message_id, status, due in sql.fetch(db, asked, *some):
            found[message_id][status] = due
    return found


def waiting(dues: Dues) -> Row:
    """The status of a message, and when it is to be claimed next; nobody holds a claim on it."""
    moments = [due for status, due in dues.items() if status in words.PENDING and due is not None]
    return {
        "status": words.summarize(dues) if dues else words.FAILED,
        "due": min(moments, default=None),
        "worker": None,
        "claim": None,
        "claimed_on": None,
    }


def _summary(dues: Dues, now: float, retention: Retention) -> Row:
    found = waiting(dues)
    if words.PENDING.isdisjoint(dues):
        return {**found, "finished_on": now, "purge_on": now + retention.content(found["status"])}
    return {**found, "finished_on": None, "purge_on": None}


def _is_damaged(dues: Dues) -> bool:
    unknown = set(dues).difference(words.RECIPIENT_STATUSES)
    never = [status for status in (words.QUEUED, words.DEFERRED) if dues.get(status, 0.0) is None]
    return bool(unknown or never or not dues)


def _mend(db: Any, message_id: int, now: float) -> Row:
    """Put right what nothing here ever writes, so that the message comes to an end that is seen.

    Returns:
        What the message's own row is to say of it.
    """
    index = "mailqueue_recipient_message_idx"
    found = sql.lock(db, RECIPIENT, ("id", "status", "due"), "message_ref = %s", message_id, index=index)
    unknown = [row for row in found if row["status"] not in words.RECIPIENT_STATUSES]
    never = [row for row in found if row["status"] in (words.QUEUED, words.DEFERRED) and row["due"] is None]
    sql.update(db, RECIPIENT, [{"id": row["id"], "due": now} for row in never])
    failed = {
        "status": words.FAILED,
        "due": None,
        "failure_kind": words.MESSAGE,
        "reply": _UNKNOWN_STATUS,
        "changed_on": now,
    }
    sql.update(db, RECIPIENT, [{"id": row["id"], **failed} for row in unknown])
    reason = _UNKNOWN_STATUS if unknown else None if found else _NO_RECIPIENTS
    return {"failure_kind": words.MESSAGE, "error": reason} if reason else {}

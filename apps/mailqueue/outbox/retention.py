"""What is over: messages that are not worth sending any more, and the rows of those that ended long ago."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import database, sql, words
from ..tables import ATTEMPT, CONTENT, DEDUPE, MESSAGE, RECIPIENT
from . import rows
from .records import Retention
from .settling import settle
from .texts import stored

_ROWS_AT_ONCE = 2000  # deleted in one transaction, so that nobody waits long for it


def expire(db: Any, *, now: float, retention: Retention, limit: int = 200) -> int:
    """End what waits and is not worth sending any more. Commits.

    What is in doubt stays so, and waits for an administrator.

    Args:
        now: epoch seconds.
        limit: the largest number of messages touched in one call.

    Returns:
        The number of messages ended.
    """
    over = f"SELECT id FROM {MESSAGE} WHERE expires_on <= %s AND due IS NOT NULL LIMIT {limit}"
    ids = [message_id for (message_id,) in sql.fetch(db, over, now)]
    held = []
    if ids:
        database.begin(db)
        held = [row for row in rows.hold_free(db, ids) if row["due"] is not None]
        for some in sql.portions([row["id"] for row in held]):
            own = f"message_ref IN ({sql.signs(some)}) AND status"
            doubtful = f"UPDATE {RECIPIENT} SET due = NULL WHERE {own} = %s"
            sql.change(db, doubtful, *some, words.IN_DOUBT)
            untried = (
                f"UPDATE {RECIPIENT} SET status = %s, due = NULL, changed_on = %s WHERE {own} IN (%s, %s)"
            )
            sql.change(db, untried, words.EXPIRED, now, *some, words.QUEUED, words.DEFERRED)
        settle(db, held, now, retention)
    db.commit()
    return len(held)


def purge(db: Any, *, now: float, retention: Retention, limit: int = 200) -> int:
    """Delete the content, and later the whole record, of messages that ended long ago. Commits.

    Args:
        now: epoch seconds.
        limit: the largest number of messages touched in one call, so that sending never waits.

    Returns:
        The number of messages whose content or record was deleted.
    """
    over = f"SELECT id FROM {MESSAGE} WHERE purge_on <= %s LIMIT {limit}"
    ids = [message_id for (message_id,) in sql.fetch(db, over, now)]
    purged = 0
    if ids:
        database.begin(db)
        # Nobody is retrying them just now.
        held = {row["id"]: row for row in rows.hold(db, ids).values() if _is_over(row, now)}
        full = stored(db, list(held))
        for row in (held[message_id] for message_id in full):
            row["purge_on"] = max((row["finished_on"] or now) + retention.record, now + 1.0)
        _delete(db, CONTENT, "message_ref", full)
        rows.store(db, [held[message_id] for message_id in full])
        purged = len(full) + _purge_records(db, sorted(set(held).difference(full)))
    _purge_keys(db, now, limit)
    db.commit()
    return purged


def delete_all(db: Any, ids: Sequence[int]) -> list[int]:
    """Delete messages that have ended, with all that belongs to them, in the caller's transaction.

    Returns:
        The ids of those that had ended.
    """
    over = [row["id"] for row in rows.hold_free(db, ids) if row["finished_on"] is not None]
    for table in (CONTENT, ATTEMPT, RECIPIENT):
        _delete(db, table, "message_ref", over)
    _delete(db, MESSAGE, "id", over)
    return over


def _is_over(row: sql.Row, now: float) -> bool:
    return row["purge_on"] is not None and row["purge_on"] <= now


def _purge_records(db: Any, ids: Sequence[int]) -> int:
    """Delete these messages with all that belongs to them; the rest of them next time, if it is very much."""
    left = _ROWS_AT_ONCE
    for table in (ATTEMPT, RECIPIENT):
        for some in sql.portions(ids):
            chosen = f"message_ref IN ({sql.signs(some)}) LIMIT {left}"
            parts = [own_id for (own_id,) in sql.fetch(db, f"SELECT id FROM {table} WHERE {chosen}", *some)]
            _delete(db, table, "id", parts)
            left -= len(parts)
            if left == 0:
                return 0
    _delete(db, MESSAGE, "id", ids)
    return len(ids)


def _purge_keys(db: Any, now: float, limit: int) -> None:
    found = sql.fetch(db, f"SELECT id FROM {DEDUPE} WHERE until_on <= %s LIMIT {limit}", now)
    for some in sql.portions([own_id for (own_id,) in found]):
        over = f"id IN ({sql.signs(some)}) AND until_on <= %s"
        sql.change(db, f"DELETE FROM {DEDUPE} WHERE {over}", *some, now)


def _delete(db: Any, table: str, column: str, ids: Sequence[int]) -> None:
    for some in sql.portions(ids):
        sql.change(db, f"DELETE FROM {table} WHERE {column} IN ({sql.signs(some)})", *some)

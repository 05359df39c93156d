"""What an administrator does to messages, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import sql, words
from ..tables import RECIPIENT
from . import rows
from .finishing import SOURCES
from .records import Retention
from .settling import settle
from .texts import has_content, stored

# Recipients whose address may be corrected; one in doubt may have it already.
CORRECTABLE = (words.DEFERRED, words.FAILED, words.SUPPRESSED, words.CANCELLED, words.EXPIRED)


def retry(db: Any, message_id: int, now: float, over: str | None = None) -> bool:
    """Put every recipient that was not reached back into the queue, due at once.

    Args:
        over: the name of the transport that the next attempt tries first; None: none is preferred.

    Returns:
        False where there is nothing to retry: sent to all, being sent, or its content is gone.
    """
    return bool(retry_all(db, [message_id], now, over))


def retry_all(db: Any, ids: Sequence[int], now: float, over: str | None = None) -> list[int]:
    """Like retry(), for many messages; the ids of those where there was something to retry."""
    held = {row["id"]: row for row in rows.hold_free(db, ids)}
    moved = _move(db, stored(db, list(held)), SOURCES[words.QUEUED], words.QUEUED, now, due=now)
    for message_id in moved:
        held[message_id].update(crashes=None, next_transport=over)
    settle(db, [held[message_id] for message_id in moved], now, Retention())
    return moved


def settle_doubt(db: Any, message_id: int, now: float, retention: Retention) -> bool:
    """Take what is in doubt for sent: an administrator knows that it arrived.

    Returns:
        False where nothing is in doubt, or a worker is sending the message at this moment.
    """
    return bool(_end(db, [message_id], [words.IN_DOUBT], words.SENT, now, retention))


def cancel(db: Any, message_id: int, now: float, retention: Retention) -> bool:
    """Stop trying every recipient that is still waiting.

    Returns:
        False where none was waiting, or a worker is sending the message at this moment.
    """
    return bool(cancel_all(db, [message_id], now, retention))


def cancel_all(db: Any, ids: Sequence[int], now: float, retention: Retention) -> list[int]:
    """Like cancel(), for many messages; the ids of those of which some recipient was waiting."""
    return _end(db, ids, SOURCES[words.CANCELLED], words.CANCELLED, now, retention)


def correct(db: Any, message_id: int, recipient_id: int, address: str, now: float) -> str | None:
    """Give a recipient that was not reached another address, and put it back into the queue, due at once.

    The text stays as it is, and with it what stands in its To field.

    Args:
        address: one that compose.parse_address() has read, in its form for RCPT TO.

    Returns:
        The address so far; None where nothing was changed: it was reached, it is being sent to, the content
        is gone, or another recipient has this address.
    """
    held = rows.hold_free(db, [message_id])
    if not held or not has_content(db, message_id) or _has_recipient(db, message_id, address):
        return None
    own = f"id = %s AND message_ref = %s AND status IN ({sql.signs(CORRECTABLE)})"
    found = sql.fetch(
        db, f"SELECT address FROM {RECIPIENT} WHERE {own}", recipient_id, message_id, *CORRECTABLE
    )
    if not found:
        return None
    # What was said of the other address says nothing of this one.
    blank = "attempts = 0, failure_kind = NULL, code = NULL, enhanced = NULL, reply = NULL, held_by = NULL"
    change = (
        f"UPDATE {RECIPIENT} SET address = %s, status = %s, due = %s, changed_on = %s, {blank} WHERE id = %s"
    )
    sql.change(db, change, address, words.QUEUED, now, now, recipient_id)
    held[0]["crashes"] = None
    settle(db, held, now, Retention())
    return str(found[0][0] or "")


def _has_recipient(db: Any, message_id: int, address: str) -> bool:
    own = f"SELECT 1 FROM {RECIPIENT} WHERE message_ref = %s AND address = %s LIMIT 1"
    return bool(sql.fetch(db, own, message_id, address))


def _end(
    db: Any, ids: Sequence[int], sources: Sequence[str], target: str, now: float, retention: Retention
) -> list[int]:
    """Move every recipient of these statuses to its end. Which messages had any, and nobody at them."""
    held = {row["id"]: row for row in rows.hold_free(db, ids)}
    moved = _move(db, list(held), sources, target, now)
    settle(db, [held[message_id] for message_id in moved], now, retention)
    return moved


def _move(
    db: Any, ids: Sequence[int], sources: Sequence[str], target: str, now: float, due: float | None = None
) -> list[int]:
    """Move the recipients of messages whose rows are held; the ids of the messages that had any."""
    moved: set[int] = set()
    for some in sql.portions(ids):
        own = f"message_ref IN ({sql.signs(some)}) AND status IN ({sql.signs(sources)})"
        index, columns = "mailqueue_recipient_message_idx", ("id", "message_ref")
        found = sql.lock(db, RECIPIENT, columns, own, *some, *sources, index=index)
        moved.update(row["message_ref"] for row in found)
        for theirs in sql.portions([row["id"] for row in found]):
            change = f"UPDATE {RECIPIENT} SET status = %s, due = %s, changed_on = %s, held_by = NULL"
            of_those = f"id IN ({sql.signs(theirs)})"
            sql.change(db, f"{change} WHERE {of_those}", target, due, now, *theirs)
    return sorted(moved)

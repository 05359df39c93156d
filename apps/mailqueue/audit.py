"""What administrators did: who, when, what, to which message. Only what changed or showed something.

Nothing here commits: an entry is there if and only if what it tells of is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import sql
from .outbox import fitting
from .tables import AUDIT

RETRY = "retry"
CANCEL = "cancel"
ARRIVED = "arrived"
CORRECT = "correct"
COPY = "copy"
SHOW = "show"
FORGET = "forget"
DELETE = "delete"
EXPORT = "export"
TEST = "test"
ACKNOWLEDGE = "acknowledge"
RESOLVE = "resolve"
APPROVE = "approve"
DECLINE = "decline"
ADD_RULE = "add-rule"
REMOVE_RULE = "remove-rule"

LABELS = {
    RETRY: "Retried",
    CANCEL: "Cancelled",
    ARRIVED: "Marked as arrived",
    CORRECT: "Address corrected",
    COPY: "A copy was sent",
    SHOW: "Content shown",
    FORGET: "Sent to at full speed again",
    DELETE: "Deleted",
    EXPORT: "Exported as CSV",
    ACKNOWLEDGE: "Problem acknowledged",
    RESOLVE: "Problem resolved",
    TEST: "Connection tested",
    APPROVE: "Account approved",
    DECLINE: "Account declined",
    ADD_RULE: "Rule for replies added",
    REMOVE_RULE: "Rule for replies removed",
}

KEPT = 400 * 86400.0  # seconds: longer than any record of a message


def record(
    db: Any, who: str, action: str, now: float, message_id: int | None = None, detail: str = ""
) -> None:
    """Write down what an administrator does, in the caller's transaction. Drops what is older than KEPT.

    Args:
        who: the administrator's address.
        action: one of the names above.
        now: epoch seconds.
        message_id: which message it was done to; None: to none, or to many.
        detail: in words.
    """
    entry = fitting(AUDIT, done_on=now, who=who, action_name=action, message_ref=message_id, detail=detail)
    sql.insert(db, AUDIT, [entry])
    sql.change(db, f"DELETE FROM {AUDIT} WHERE done_on < %s", now - KEPT)


def record_each(db: Any, who: str, action: str, now: float, message_ids: Sequence[int], detail: str) -> None:
    """Write down what an administrator does to many messages at once, an entry for each; see record()."""
    common = {"done_on": now, "who": who, "action_name": action, "detail": detail}
    sql.insert(db, AUDIT, [fitting(AUDIT, message_ref=number, **common) for number in message_ids])


def latest(db: Any, before: int | None, limit: int) -> list[dict[str, Any]]:
    """The latest entries, the latest of them first.

    Args:
        before: only those with a smaller id; None: all.
    """
    table = db[AUDIT]
    wanted = table.id > 0 if before is None else table.id < before
    rows: list[dict[str, Any]] = db(wanted).select(orderby=~table.id, limitby=(0, limit)).as_list()
    return rows


def of_message(db: Any, message_id: int) -> list[dict[str, Any]]:
    """What was done to a message, the latest 200, the first of them first."""
    table = db[AUDIT]
    own = db(table.message_ref == message_id)
    rows: list[dict[str, Any]] = own.select(orderby=~table.id, limitby=(0, 200)).as_list()
    return rows[::-1]

"""Claiming due messages for a worker."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from .. import database, leases, sql, words
from ..tables import MESSAGE, RECIPIENT
from .records import Claimed, Pending

# Recipients handed over in one SMTP transaction: what every server must take (RFC 5321, 4.5.3.1.8).
RECIPIENTS_AT_ONCE = 100
# Of the places in a claim, one in so many is for less urgent mail, however much urgent mail there is.
SHARE = 10

_COLUMNS = (
    "id",
    "sender",
    "smtputf8",
    "tried_on",
    "doubt",
    "priority",
    "expires_on",
    "byte_size",
    "category",
    "next_transport",
)


def next_due(db: Any) -> float | None:
    """When the earliest waiting message is due, epoch seconds; None: nothing waits."""
    earliest = f"SELECT MIN(due) FROM {MESSAGE} WHERE priority = %s AND due IS NOT NULL"
    each = " UNION ALL ".join([earliest] * len(words.PRIORITIES))
    dues = [due for (due,) in sql.fetch(db, each, *words.PRIORITIES)]
    return min((due for due in dues if due is not None), default=None)


def number_due(db: Any, now: float, most: int) -> int:
    """How many messages are due; `most` where there are so many or more."""
    found = 0
    for priority in words.PRIORITIES:
        due = f"SELECT id FROM {MESSAGE} WHERE priority = %s AND due <= %s LIMIT {most - found}"
        found += len(sql.fetch(db, due, priority, now))
    return found


def claim(
    db: Any, worker_id: int, *, limit: int, now: float, priorities: Sequence[int] = words.PRIORITIES
) -> list[Claimed]:
    """Claim up to `limit` due messages of these priorities for a worker, the most urgent first. Commits.

    What is not worth sending any more is left to expire().

    Workers that claim at the same moment get different messages, and wait neither for each other
    nor for anybody else who has a message's row locked: that message is passed over.

    Returns:
        The messages; none where none is due and free, or the worker was declared dead.
    """
    database.begin(db)
    rows = _due(db, limit, now, priorities)
    if rows and not leases.hold(db, worker_id):  # whoever took this worker over would not see these claims
        db.rollback()
        return []
    claimed = _take(db, worker_id, rows, now) if rows else []
    db.commit()
    return claimed


def _due(db: Any, limit: int, now: float, priorities: Sequence[int]) -> list[tuple[Any, ...]]:
    """Urgent mail first, but never all of the places for it while others wait."""
    first, rest = priorities[0], priorities[1:]
    worth_it = "(expires_on IS NULL OR expires_on > %s)"
    due = f"priority = %s AND due <= %s AND {worth_it} ORDER BY due, id LIMIT {limit}"
    own = sql.lock_free(db, MESSAGE, _COLUMNS, due, first, now, now, index="mailqueue_message_due_idx")
    others = _due(db, max(limit - len(own), limit // SHARE), now, rest) if rest else []
    return [*own[: limit - len(others)], *others]


def _take(db: Any, worker_id: int, rows: Sequence[tuple[Any, ...]], now: float) -> list[Claimed]:
    ids, token = [row[0] for row in rows], secrets.token_hex(16)
    for some in sql.portions(ids):
        sql.change(
            db,
            f"UPDATE {MESSAGE} SET status = %s, due = NULL, worker = %s, claim = %s, claimed_on = %s"
            f" WHERE id IN ({sql.signs(some)})",
            words.SENDING, worker_id, token, now, *some,
        )  # fmt: skip
    recipients = to_try(db, ids, now)
    return [_claimed(row, token, recipients[row[0]]) for row in rows]


def _claimed(row: tuple[Any, ...], token: str, recipients: Sequence[Pending]) -> Claimed:
    own_id, sender, smtputf8, *others, size, category, transport = row
    to, needs_unicode = tuple(recipients), smtputf8 == "T"
    return Claimed._make((own_id, token, sender, needs_unicode, *others, to, size, category, None, transport))


def to_try(db: Any, ids: Sequence[int], claimed_on: float) -> dict[int, list[Pending]]:
    """The recipients of each of these messages that a claim made at this moment is for."""
    found: dict[int, list[Pending]] = {message_id: [] for message_id in ids}
    place = "ROW_NUMBER() OVER (PARTITION BY message_ref ORDER BY id) AS place"
    for some in sql.portions(ids):
        waiting = (
            f"SELECT id, message_ref, address, attempts, status, {place} FROM {RECIPIENT}"
            f" WHERE message_ref IN ({sql.signs(some)}) AND due <= %s"
            f" AND status IN ({sql.signs(words.PENDING)})"
        )
        asked = (
            f"SELECT id, message_ref, address, attempts, status FROM ({waiting}) AS waiting"
            f" WHERE place <= {RECIPIENTS_AT_ONCE} ORDER BY id"
        )
        for own_id, message_id, address, attempts, status in sql.fetch(
            db, asked, *some, claimed_on, *words.PENDING
        ):
            if status in words.PENDING:  # to MySQL "SENT" and "sent" are the same
                found[message_id].append(Pending(own_id, address or "", attempts or 0))
    return found

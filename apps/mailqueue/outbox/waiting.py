"""Recipients that wait: for a place under a limit, for a repair, or without a time at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import database, sql, words
from ..tables import MESSAGE, RECIPIENT
from . import rows
from .claiming import next_due
from .records import Claimed, HeldBack, Retention
from .settling import earliest_dues, settle, waiting


def hold_back(db: Any, held: Iterable[HeldBack], gone: Iterable[Claimed]) -> None:
    """Put recipients off that have no place now; that is no attempt. In the caller's transaction.

    Args:
        held: who is put off, until when, and for what.
        gone: claimed messages of which nobody may be tried now: their claims end.
    """
    own = rows.hold_own(db, {claimed.id: claimed.token for claimed in gone})
    put_off = [
        {"id": pending.id, "due": one.until, "held_by": one.held_by}
        for one in held
        for pending in one.recipients
    ]
    sql.update(db, RECIPIENT, put_off)
    for message_id, dues in earliest_dues(db, list(own)).items():
        own[message_id].update(waiting({s: due for s, due in dues.items() if s in words.PENDING}))
    rows.store(db, list(own.values()))


def let_through(db: Any, held_by: str, now: float, limit: int = 1000) -> int:
    """Make due at once what was held back for this transport or domain. In the caller's transaction.

    Args:
        limit: how many recipients at most; the others come at their times.

    Returns:
        How many recipients.
    """
    held = f"held_by = %s AND due > %s ORDER BY due LIMIT {limit}"
    found = sql.fetch(db, f"SELECT id, message_ref FROM {RECIPIENT} WHERE {held}", held_by, now)
    _make_due(db, MESSAGE, [message_id for _, message_id in found], now)
    _make_due(db, RECIPIENT, [own_id for own_id, _ in found], now)
    return len(found)


def wake_held(db: Any, now: float) -> None:
    """Make due at once what waits because of a configuration fault. In the caller's transaction."""
    found = _waiting(db, "r.id, r.message_ref", "r.failure_kind = %s", words.CONFIGURATION)
    _make_due(db, MESSAGE, [message_id for _, message_id in found], now)
    _make_due(db, RECIPIENT, [own_id for own_id, _ in found], now)


def _make_due(db: Any, table: str, ids: Iterable[int], now: float) -> None:
    for some in sql.portions(sorted(set(ids))):
        late = f"id IN ({sql.signs(some)}) AND due > %s"
        sql.change(db, f"UPDATE {table} SET due = %s WHERE {late}", now, *some, now)


def kinds_waited_for(db: Any) -> set[str]:
    """The failure kinds because of which recipients wait. Looks at waiting messages only."""
    return {kind for (kind,) in _waiting(db, "DISTINCT r.failure_kind", "r.failure_kind IS NOT NULL")}


def _waiting(db: Any, columns: str, condition: str, *values: object) -> list[tuple[Any, ...]]:
    """What the rows `r` of recipients say that wait in messages which wait."""
    # The priorities make the index with the times due better than reading all there is.
    return sql.fetch(
        db,
        f"SELECT {columns} FROM {MESSAGE} m JOIN {RECIPIENT} r ON r.message_ref = m.id"
        f" WHERE m.due IS NOT NULL AND m.priority IN ({sql.signs(words.PRIORITIES)})"
        f" AND r.status IN ({sql.signs(words.PENDING)}) AND {condition}",
        *words.PRIORITIES, *words.PENDING, *values,
    )  # fmt: skip


def mend_waiting(db: Any, now: float) -> None:
    """Have what waits without a time, or with a priority that is none, be claimed after all. Commits.

    Nothing here leaves a row like that. Looks at all that waits, so only where nothing is due.
    """
    due = next_due(db)
    if due is not None and due <= now:
        return
    never = _ids_of_free(db, "due IS NULL")
    known = ", ".join(map(str, words.PRIORITIES))
    unknown = _ids_of_free(db, f"(priority IS NULL OR priority NOT IN ({known}))")
    if never or unknown:
        database.begin(db)
        settle(db, rows.hold_free(db, never), now, Retention())
        usual = [{"id": row["id"], "priority": words.NORMAL} for row in rows.hold_free(db, unknown)]
        sql.update(db, MESSAGE, usual)
    db.commit()


def _ids_of_free(db: Any, condition: str) -> list[int]:
    free = f"status IN (%s, %s) AND claim IS NULL AND {condition}"
    found = sql.fetch(db, f"SELECT id FROM {MESSAGE} WHERE {free}", words.QUEUED, words.DEFERRED)
    return [message_id for (message_id,) in found]

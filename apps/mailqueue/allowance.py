"""How many mails somebody may cause in which time: counted in the caller's transaction, one row a count.

Who or what is counted is stored as a hash only. Counting goes on beyond what is allowed, so that a
count also tells how much was too much.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import database, sql
from .limits import Rate
from .tables import ALLOWANCE
from .tokens import hashed


def count(db: Any, who: str, rates: Iterable[Rate], now: float) -> Rate | None:
    """Count one mail against every rate, in the caller's transaction.

    A window begins with its first mail. Two requests that count for the same one take turns until
    the first of them has committed.

    Args:
        who: whom it is counted for.
        rates: what is allowed.
        now: epoch seconds.

    Returns:
        The first rate that this mail is too much for; None: it is allowed.
    """
    exceeded = [rate for rate in rates if _count(db, _window(who, rate), rate, now)]
    return exceeded[0] if exceeded else None


def is_used_up(db: Any, who: str, rates: Iterable[Rate], now: float) -> bool:
    """Whether one mail more would be too much; nothing is counted.

    Args: as count() has them.
    """
    most = {_window(who, rate): rate.messages for rate in rates}
    table = db[ALLOWANCE]
    running = db(table.name.belongs(list(most)) & (table.over_on > now)).select(table.name, table.taken)
    return any(row.taken >= most[row.name] for row in running)


def _window(who: str, rate: Rate) -> str:
    return hashed(f"{rate.seconds:g}|{who}")


def _count(db: Any, name: str, rate: Rate, now: float) -> bool:
    """Count one mail in one window. Whether it is too much."""
    known = "ON CONFLICT (name) DO UPDATE SET"
    if database.engine(db) == database.MYSQL:
        known = "ON DUPLICATE KEY UPDATE"
    over = f"{ALLOWANCE}.over_on <= %s"  # `taken` first: MySQL goes by what stands to the left
    sql.change(
        db,
        f"INSERT INTO {ALLOWANCE} (name, taken, over_on) VALUES (%s, 1, %s) {known}"
        f" taken = CASE WHEN {over} THEN 1 ELSE {ALLOWANCE}.taken + 1 END,"
        f" over_on = CASE WHEN {over} THEN %s ELSE {ALLOWANCE}.over_on END",
        *(name, now + rate.seconds, now, now, now + rate.seconds),
    )
    row = db(db[ALLOWANCE].name == name).select(db[ALLOWANCE].taken, for_update=_must_lock(db)).first()
    return bool(row.taken > rate.messages)


def _must_lock(db: Any) -> bool:
    # MySQL shows the caller's transaction an older state than it changes, unless it is to lock it.
    return database.engine(db) == database.MYSQL


def tidy(db: Any, now: float, limit: int = 1000) -> None:
    """Delete windows that are over. In the caller's transaction.

    Args:
        limit: how many at most, so that sending never waits.
    """
    table = db[ALLOWANCE]
    ids = [row.id for row in db(table.over_on <= now).select(table.id, limitby=(0, limit))]
    if ids:
        db(table.id.belongs(ids) & (table.over_on <= now)).delete()

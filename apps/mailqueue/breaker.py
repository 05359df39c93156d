"""Pausing a transport that does not work, probing it, and letting the mail flow again.

The state lies in the database, one row for each transport, so that all workers share it. A
pause costs no message an attempt. It ends when a probe succeeds, or at once when the settings
have changed since it began.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from .database import MYSQL, engine
from .sql import change
from .tables import TRANSPORT

FLOWING = "flowing"  # send as much as there is
PROBE = "probe"  # send one message, to see whether it works again
PAUSED = "paused"  # do not touch it

CONNECTED_SECONDS = 60.0  # that a transport connects is noted so often at most
# Seconds between probes: the first, and the longest.
FIRST_PROBE = 30.0
LONGEST_PROBE = 300.0
LONGEST_PAUSE = 3600.0  # where the server itself asks for a longer one


def state(db: Any, name: str) -> Any:
    """The row of a transport, made if there is none. In the caller's transaction."""
    table = db[TRANSPORT]
    row = db(table.name == name).select().first()
    if row is None:
        _make(db, name)
        # MySQL shows the caller's transaction an older state than there is, unless it is to lock it.
        row = db(table.name == name).select(for_update=engine(db) == MYSQL).first()
    return row


def _make(db: Any, name: str) -> None:
    """Insert the row unless another worker has just done so.

    In one statement: after an insert that failed, two that go on to lock the row are a deadlock on MySQL.
    """
    known = "ON DUPLICATE KEY UPDATE name = VALUES(name)" if engine(db) == MYSQL else "ON CONFLICT DO NOTHING"
    insert = f"INSERT INTO {TRANSPORT} (name, salt, failures) VALUES (%s, %s, 0)"
    change(db, f"{insert} {known}", name, secrets.token_hex(16))


def admit(db: Any, name: str, settings: Sequence[object], now: float) -> str:
    """Whether a worker may use a transport now: FLOWING, PROBE or PAUSED. Commits.

    Of several workers that ask while a probe is due, one gets it.

    Args:
        name: the transport's name.
        settings: everything configured of it; kept only as a salted hash.
        now: epoch seconds.
    """
    row = state(db, name)
    answer = FLOWING if row.paused_on is None else _admit_paused(db, row, settings, now)
    db.commit()
    return answer


def _admit_paused(db: Any, row: Any, settings: Sequence[object], now: float) -> str:
    table = db[TRANSPORT]
    print_now = fingerprint(settings, row.salt)
    changed = print_now != row.fingerprint
    # A probe that is further away than any can be was set by a clock that was wrong.
    if not changed and now < row.next_probe <= now + LONGEST_PAUSE:
        return PAUSED
    failures = 0 if changed else row.failures
    booked = db((table.id == row.id) & (table.next_probe == row.next_probe)).update(
        next_probe=now + probe_delay(failures + 1), fingerprint=print_now, failures=failures
    )
    return PROBE if booked == 1 else PAUSED


def settings_changed(db: Any, name: str, settings: Sequence[object]) -> bool:
    """Whether the settings of a transport differ from those noted last; notes them.

    In the caller's transaction. False for a transport that was never used.
    """
    row = state(db, name)
    print_now = fingerprint(settings, row.salt)
    if print_now == row.fingerprint:
        return False
    if row.paused_on is None:  # a pause notes them itself, when it lets a probe through
        row.update_record(fingerprint=print_now)
    return row.fingerprint is not None


def probe_delay(failures: int) -> float:
    """Seconds until the next probe after so many failures in a row."""
    return float(min(FIRST_PROBE * 2 ** min(max(failures - 1, 0), 16), LONGEST_PROBE))


def next_probe(db: Any, after: float) -> float | None:
    """When the next probe of a paused transport is due, epoch seconds; None: none is.

    Args:
        after: only what is due later: one that was not made when it was due is of a transport that
            is not configured any more.
    """
    table = db[TRANSPORT]
    coming = (table.paused_on != None) & (table.next_probe > after)  # noqa: E711
    row = db(coming).select(table.next_probe.min()).first()
    earliest: float | None = row[table.next_probe.min()]
    return earliest


def probe_now(db: Any, name: str, now: float) -> None:
    """Have the next probe of a transport made at once, if it is paused. In the caller's transaction."""
    table = db[TRANSPORT]
    db((table.name == name) & (table.paused_on != None)).update(next_probe=now)  # noqa: E711


def pause(
    db: Any,
    name: str,
    settings: Sequence[object],
    *,
    stage: str,
    reason: str,
    now: float,
    rest: float = 0.0,
) -> int:
    """Stop using a transport until a probe is due. In the caller's transaction.

    Args:
        rest: seconds for which the server wants to be left alone; LONGEST_PAUSE at most.

    Returns:
        How often in a row it has failed now.
    """
    row = state(db, name)
    failures = int(row.failures or 0) + 1
    row.update_record(
        fingerprint=fingerprint(settings, row.salt),
        paused_on=row.paused_on if row.paused_on is not None else now,
        next_probe=now + max(probe_delay(failures), min(rest, LONGEST_PAUSE)),
        failures=failures,
        stage=stage[: db[TRANSPORT].stage.length],  # other people's may be long
        reason=reason,
    )
    return failures


def proved(db: Any, name: str, now: float) -> bool:
    """A transport worked: it has connected, and any pause is over. In the caller's transaction.

    Returns:
        Whether there was one.
    """
    row = state(db, name)
    was_paused = row.paused_on is not None
    if not was_paused and row.connected_on and 0 <= now - row.connected_on < CONNECTED_SECONDS:
        return False
    row.update_record(connected_on=now, paused_on=None, next_probe=None, failures=0, stage=None, reason=None)
    return was_paused


def is_paused(db: Any, name: str, settings: Sequence[object], now: float) -> bool:
    """Whether a transport is not to be used at the moment. Changes nothing, books no probe."""
    row = db(db[TRANSPORT].name == name).select().first()
    if row is None or row.paused_on is None or not now < row.next_probe <= now + LONGEST_PAUSE:
        return False
    return bool(fingerprint(settings, row.salt) == row.fingerprint)


def fingerprint(settings: Sequence[object], salt: str) -> str:
    """A slow salted hash, since it covers a password: enough to see a change, not to guess it."""
    return hashlib.pbkdf2_hmac("sha256", repr(settings).encode("utf-8"), salt.encode("ascii"), 50_000).hex()

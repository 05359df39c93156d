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

from .database import MYSQL, engine, savepoint
from .tables import TRANSPORT

FLOWING = "flowing"  # send as much as there is
PROBE = "probe"  # send one message, to see whether it works again
PAUSED = "paused"  # do not touch it

CONNECTED_SECONDS = 60.0  # that a transport connects is noted so often at most
# Seconds between probes: the first, and the longest.
FIRST_PROBE = 30.0
LONGEST_PROBE = 300.0


def state(db: Any, name: str) -> Any:
    """The row of a transport, made if there is none. In the caller's transaction."""
    table = db[TRANSPORT]
    row = db(table.name == name).select().first()
    if row is None:
        try:
            with savepoint(db):
                table.insert(name=name, salt=secrets.token_hex(16), failures=0)
        except Exception:
            if _made_just_now(db, name) is None:
                raise  # it was not another worker's row that stood in the way
        row = _made_just_now(db, name)
    return row


def _made_just_now(db: Any, name: str) -> Any:
    # MySQL shows the caller's transaction an older state than there is, unless it is to lock it.
    return db(db[TRANSPORT].name == name).select(for_update=engine(db) == MYSQL).first()


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
    if not changed and now < row.next_probe <= now + LONGEST_PROBE:
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


def pause(db: Any, name: str, settings: Sequence[object], *, stage: str, reason: str, now: float) -> int:
    """Stop using a transport until a probe is due. In the caller's transaction.

    Returns:
        How often in a row it has failed now.
    """
    row = state(db, name)
    failures = int(row.failures or 0) + 1
    row.update_record(
        fingerprint=fingerprint(settings, row.salt),
        paused_on=row.paused_on if row.paused_on is not None else now,
        next_probe=now + probe_delay(failures),
        failures=failures,
        stage=stage[: db[TRANSPORT].stage.length],  # other people's may be long
        reason=reason,
    )
    return failures


def proved(db: Any, name: str, now: float) -> None:
    """A transport worked: it has connected, and any pause is over. In the caller's transaction."""
    row = state(db, name)
    if row.paused_on is None and row.connected_on and 0 <= now - row.connected_on < CONNECTED_SECONDS:
        return
    row.update_record(connected_on=now, paused_on=None, next_probe=None, failures=0, stage=None, reason=None)


def fingerprint(settings: Sequence[object], salt: str) -> str:
    """A slow salted hash, since it covers a password: enough to see a change, not to guess it."""
    return hashlib.pbkdf2_hmac("sha256", repr(settings).encode("utf-8"), salt.encode("ascii"), 50_000).hex()

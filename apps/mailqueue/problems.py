"""The site-admin log: one entry for each cause, reported once, counted, and resolved.

Nothing here commits: an entry becomes real with the transaction around it, and only then is to
be announced.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import words
from .classify import Failure
from .database import savepoint
from .remedies import advice
from .tables import PROBLEM

OPEN = "open"
RESOLVED = "resolved"
IN_VIEW = 86400.0  # seconds for which an entry of a mail that was given up stays open


@dataclass(frozen=True)
class Problem:
    """An entry as it is announced to the administrator."""

    cause: str
    summary: str
    remedy: str
    detail: str
    transport: str

    def __str__(self) -> str:
        where = f" [{self.transport}]" if self.transport else ""
        said = f" ({self.detail})" if self.detail else ""
        return f"{self.summary}{where}{said} {self.remedy}"


def report(db: Any, failure: Failure, transport: str, now: float) -> Problem | None:
    """Enter a failure in the log, or count it where it is there already.

    Args:
        failure: what went wrong.
        transport: the transport's name; "" where none could be made.
        now: epoch seconds.

    Returns:
        The entry if it is a new one, to be announced after the commit; None if it was open already.
    """
    cause = cause_of(failure, transport)
    if _count(db, cause, failure, now):
        return None
    summary, remedy = advice(failure)
    try:
        with savepoint(db):
            db[PROBLEM].insert(
                cause=cause,
                open_key=cause,
                status=OPEN,
                failure_kind=failure.kind,
                stage=failure.stage[: db[PROBLEM].stage.length],  # other people's may be long
                transport=transport,
                summary=summary,
                remedy=remedy,
                detail=_detail(failure),
                seen=1,
                first_seen=now,
                last_seen=now,
            )
    except Exception:
        if not _count(db, cause, failure, now):
            raise  # it was not another worker's entry that stood in the way
        return None
    return Problem(cause, summary, remedy, _detail(failure), transport)


def cause_of(failure: Failure, transport: str) -> str:
    """The name under which a failure is one entry."""
    return f"{failure.rule}@{transport}"[:190]


def _detail(failure: Failure) -> str:
    return f"{failure.code} {failure.text}" if failure.code else failure.text


def _count(db: Any, cause: str, failure: Failure, now: float) -> bool:
    table = db[PROBLEM]
    counted = db(table.open_key == cause).update(seen=table.seen + 1, last_seen=now, detail=_detail(failure))
    return bool(counted)


def any_open(db: Any) -> bool:
    """Whether there is an open entry at all; cheap."""
    return not db(db[PROBLEM].status == OPEN).isempty()


def resolve_rule(db: Any, rule: str, now: float) -> None:
    """What this rule speaks of is over, whatever transport it was said of."""
    _resolve(db, db[PROBLEM].cause.startswith(f"{rule}@"), now)


def resolve_settings(db: Any, now: float) -> None:
    """The settings can be used now: resolve what was found in them before any transport was made."""
    _resolve(db, db[PROBLEM].stage == words.CONFIG, now)


def resolve_way(db: Any, transport: str, now: float, *, but: str = "") -> None:
    """The way to this transport works, or fails in another way now.

    Args:
        but: the cause that stays open.
    """
    table = db[PROBLEM]
    way = (table.transport == transport) & table.stage.belongs(words.TRANSPORT_STAGES)
    _resolve(db, way & (table.cause != but), now)


def resolve_others(db: Any, transport: str, now: float) -> None:
    """This is the only way out now: resolve what was said of others that were configured before."""
    _resolve(db, ~db[PROBLEM].transport.belongs(["", transport]), now)


def resolve_unless(db: Any, transport: str, kinds: Collection[str], now: float) -> None:
    """Mail went out over this transport: resolve what was said of it, and of no transport.

    Args:
        kinds: the failure kinds for which messages still wait; their entries stay open.
    """
    table = db[PROBLEM]
    gone = table.transport.belongs(["", transport]) & ~table.failure_kind.belongs(list(kinds))
    # A mail that was given up does not come back with the next one that is sent.
    over = (table.stage != words.BUILD) | (table.last_seen < now - IN_VIEW)
    _resolve(db, gone & over, now)


def _resolve(db: Any, which: Any, now: float) -> None:
    table = db[PROBLEM]
    db(which & (table.status == OPEN)).update(status=RESOLVED, open_key=None, resolved_on=now)

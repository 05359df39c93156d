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


def report(db: Any, failure: Failure, transport: str, now: float, place: str = "") -> Problem | None:
    """Enter a failure in the log, or count it where it is there already.

    Args:
        failure: what went wrong.
        transport: the transport's name; "" where none could be made.
        now: epoch seconds.
        place: as for remedies.advice().

    Returns:
        The entry if it is a new one, to be announced after the commit; None if it was open already.
    """
    cause = cause_of(failure, transport)
    if _count(db, cause, failure, now):
        return None
    summary, remedy = advice(failure, transport, place)
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
    return words.answer(failure.code, failure.enhanced, failure.text)


def _count(db: Any, cause: str, failure: Failure, now: float) -> bool:
    table = db[PROBLEM]
    counted = db(table.open_key == cause).update(seen=table.seen + 1, last_seen=now, detail=_detail(failure))
    return bool(counted)


def acknowledge(db: Any, problem_id: int, who: str, now: float) -> str | None:
    """Note that somebody sees to an open entry. In the caller's transaction.

    Returns:
        Its summary; None where it is not open, or somebody sees to it already.
    """
    table = db[PROBLEM]
    untold = (table.id == problem_id) & (table.status == OPEN) & (table.acknowledged_on == None)  # noqa: E711
    if not db(untold).update(acknowledged_on=now, acknowledged_by=who):
        return None
    return str(table(problem_id).summary)


def resolve_one(db: Any, problem_id: int, now: float) -> str | None:
    """An administrator says that an entry is over; if it is not, it comes back as a new one.

    Returns:
        Its summary; None where it is not open.
    """
    table = db[PROBLEM]
    found = db((table.id == problem_id) & (table.status == OPEN)).select(table.summary).first()
    if found is None:
        return None
    _resolve(db, table.id == problem_id, now)
    return str(found.summary)


def any_open(db: Any) -> bool:
    """Whether there is an open entry at all; cheap."""
    return not db(db[PROBLEM].status == OPEN).isempty()


def resolve_rule(db: Any, rule: str, now: float) -> None:
    """What this rule speaks of is over, whatever transport it was said of."""
    _resolve(db, db[PROBLEM].cause.startswith(f"{rule}@"), now)


def resolve_settings(db: Any, now: float) -> None:
    """The settings can be used now: resolve what was found in them before any transport was made.

    What was said of a transport, such as that a file of it cannot be read, shows when it is opened.
    """
    _resolve(db, (db[PROBLEM].stage == words.CONFIG) & (db[PROBLEM].transport == ""), now)


def resolve_way(db: Any, transport: str, now: float, *, but: str = "") -> None:
    """The way to this transport works, or fails in another way now.

    Args:
        but: the cause that stays open.
    """
    table = db[PROBLEM]
    way = (table.transport == transport) & table.stage.belongs(words.TRANSPORT_STAGES)
    _resolve(db, way & (table.cause != but), now)


def resolve_others(db: Any, transports: Collection[str], now: float) -> None:
    """These are the ways out now: resolve what was said of others that were configured before."""
    _resolve(db, ~db[PROBLEM].transport.belongs(["", *transports]), now)


def is_open(db: Any, rules: Collection[str]) -> bool:
    """Whether there is an open entry of one of these rules that is of no transport."""
    return not db(db[PROBLEM].open_key.belongs([f"{rule}@" for rule in rules])).isempty()


def resolve_unless(
    db: Any,
    transport: str,
    kinds: Collection[str],
    now: float,
    *,
    besides: Collection[str] = ("",),
    lasting: Collection[str] = (),
) -> None:
    """Mail went out over this transport: resolve what was said of it, and of no transport.

    Args:
        kinds: the failure kinds for which messages still wait; their entries stay open.
        besides: further names for which the same holds; () where some transport cannot even be made.
        lasting: rules whose entries stay open where they are of no transport.
    """
    table = db[PROBLEM]
    gone = table.transport.belongs([transport, *besides]) & ~table.failure_kind.belongs(list(kinds))
    # A mail that was given up does not come back with the next one that is sent.
    given_up = (table.stage == words.BUILD) & (table.failure_kind != words.CONFIGURATION)
    over = ~given_up | (table.last_seen < now - IN_VIEW)
    lasts = table.cause.belongs([f"{rule}@" for rule in lasting])
    _resolve(db, gone & over & ~lasts, now)


def _resolve(db: Any, which: Any, now: float) -> None:
    table = db[PROBLEM]
    db(which & (table.status == OPEN)).update(status=RESOLVED, open_key=None, resolved_on=now)

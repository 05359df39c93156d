"""What all workers share of limits and lessons: the places taken, and what servers have taught.

Whoever changes either passes a gate first, one row that the transaction locks, so that workers take
turns and none gives away what another has taken. All in the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from . import database, limits, sql
from .lessons import Lesson
from .limits import Limit, Rate, Window
from .tables import LESSON, RECIPIENT, WINDOW

LONGEST_NAME = 180  # characters of a domain's or transport's own name that are kept, the last ones

_GATE = "gate"
_LEARNED = "learned"


def name_of_domain(domain: str) -> str:
    """What a recipient domain is called in the tables."""
    return f"domain:{domain[-LONGEST_NAME:]}"


def name_of_transport(transport: str) -> str:
    """What a transport is called in the tables."""
    return f"transport:{transport[-LONGEST_NAME:]}"


def pass_gate(db: Any) -> None:
    """Wait for whoever is changing places or lessons; keep others waiting until the transaction ends.

    To be the first statement of a transaction: MySQL would show what it read before as it was then.
    """
    known = "ON CONFLICT (name) DO UPDATE SET"
    if database.engine(db) == database.MYSQL:
        known = "ON DUPLICATE KEY UPDATE"
    # A value that differs each time, since MySQL locks no row that it need not change.
    sql.change(
        db, f"INSERT INTO {WINDOW} (name, taken) VALUES (%s, 0) {known} taken = 1 - {WINDOW}.taken", _GATE
    )


# --- lessons -------------------------------------------------------------------------------


def lessons(db: Any, names: Collection[str] | None = None) -> dict[str, Lesson]:
    """What servers have taught, by the name of transport or domain.

    Args:
        names: only of these; None: all, which are few: servers that asked for less mail.
    """
    table = db[LESSON]
    wanted = table.id > 0 if names is None else table.name.belongs(names)
    return {row.name: _lesson(row) for row in db(wanted).select()}


def _lesson(row: Any) -> Lesson:
    return Lesson(
        strikes=row.strikes or 0,
        rests_until=row.rests_until or 0.0,
        pace=max(row.pace or 1, 1),
        raised_on=row.raised_on or 0.0,
        refusals=row.refusals or 0,
        refused_on=row.refused_on or 0.0,
        reason=row.reason or "",
    )


def note_lessons(db: Any, changed: Mapping[str, Lesson | None]) -> None:
    """Store lessons; None: it is forgotten."""
    known = [{"name": name, **asdict(lesson)} for name, lesson in changed.items() if lesson]
    sql.put(db, LESSON, "name", known)
    forgotten = [name for name, lesson in changed.items() if lesson is None]
    if forgotten:
        db(db[LESSON].name.belongs(forgotten)).delete()
        db(db[WINDOW].name.belongs([_key(_LEARNED, name) for name in forgotten])).delete()


def forget(db: Any, lesson_id: int) -> str | None:
    """Forget one lesson.

    Returns:
        The name of its transport or domain; None where it was forgotten already.
    """
    pass_gate(db)
    row = db[LESSON](lesson_id)
    if row is None:
        return None
    note_lessons(db, {row.name: None})
    return str(row.name)


def tidy(db: Any, now: float) -> None:
    """Delete the windows that are over, and the lessons that say nothing any more."""
    old = [name for name, lesson in lessons(db).items() if lesson.is_forgotten(now)]
    over = db[WINDOW].over_on <= now
    if old or not db(over).isempty():
        db.commit()
        pass_gate(db)
        note_lessons(db, dict.fromkeys(old))
        db(over).delete()


# --- places --------------------------------------------------------------------------------


class Ledger:
    """The places of some domains and transports, for one claim; reads them all at once.

    Args:
        db: the site's DAL; pass_gate() was called in its transaction.
        bounds: what is limited, by name: the site's limit, and what was learned, if anything.
        now: epoch seconds.
    """

    def __init__(self, db: Any, bounds: Mapping[str, tuple[Limit, Lesson | None]], now: float):
        self._db, self._now = db, now
        self._rates = {name: _rates(limit, lesson) for name, (limit, lesson) in bounds.items()}
        table = db[WINDOW]
        keys = [_key(kind, name) for name, rates in self._rates.items() for kind in rates]
        rows = db(table.name.belongs(keys)).select()
        stored = {row.name: Window(row.opened_on or now, row.taken or 0, row.line or 0) for row in rows}
        self._windows = {name: self._present(name, stored) for name in self._rates}
        for name, (_, lesson) in bounds.items():
            if lesson and now < (rest := lesson.rest_at(now)):
                before = stored.get(_key(_LEARNED, name))
                self._windows[name][_LEARNED] = _until(rest, lesson.rate, before)
        self._changed: set[str] = set()

    def _present(self, name: str, stored: Mapping[str, Window]) -> dict[str, Window]:
        """The windows of one name, by the kind of their rate."""
        rates = self._rates[name]
        found = {
            kind: limits.present(stored.get(_key(kind, name)), rate, self._now)
            for kind, rate in rates.items()
        }
        if not any(window.line for window in found.values()):
            return found
        last = self._last_in_line(name)
        return {kind: limits.without_the_gone(window, rates[kind], last) for kind, window in found.items()}

    def _last_in_line(self, name: str) -> float | None:
        """When the last who waits for this name has a place; an index answers. None: nobody waits."""
        last = f"SELECT MAX(due) FROM {RECIPIENT} WHERE held_by = %s AND due IS NOT NULL"
        ((moment,),) = sql.fetch(self._db, last, name)
        return None if moment is None else float(moment)

    def next_place(self, name: str, *, jumps_line: bool) -> float:
        """When the next message has a place, epoch seconds; `now` where it has one at once."""
        rates = self._rates.get(name, {})
        return max(
            (
                limits.next_place(self._windows[name][kind], rate, self._now, jumps_line=jumps_line)
                for kind, rate in rates.items()
            ),
            default=self._now,
        )

    def take(self, name: str) -> None:
        """Take a place that is there."""
        for kind, window in self._windows.get(name, {}).items():
            self._windows[name][kind] = limits.take(window)
            self._changed.add(name)

    def put_off(self, name: str) -> None:
        """Note that a message waits for a place."""
        for kind, window in self._windows[name].items():
            if window.taken >= self._rates[name][kind].messages:
                self._windows[name][kind] = limits.put_off(window)
                self._changed.add(name)

    def store(self) -> None:
        """Write down what was taken."""
        rows = [
            {
                "name": _key(kind, name),
                "held_by": name,
                "allowance": str(self._rates[name][kind]),
                **asdict(window),
                "over_on": limits.over_on(window, self._rates[name][kind]),
            }
            for name in sorted(self._changed)
            for kind, window in self._windows[name].items()
        ]
        sql.put(self._db, WINDOW, "name", rows)


def _key(kind: str, name: str) -> str:
    return f"{kind}|{name}"


def _rates(limit: Limit, lesson: Lesson | None) -> dict[str, Rate]:
    found = {f"{rate.seconds:g}": rate for rate in limit.rates}
    if limit.connections is not None:
        found["connections"] = limits.places_for(limit.connections)
    if lesson and lesson.strikes:
        found[_LEARNED] = lesson.rate
    return found


def _until(rest: float, rate: Rate, before: Window | None) -> Window:
    """A full window that ends with the rest."""
    opened_on = rest - rate.seconds
    line = before.line if before and before.opened_on == opened_on else 0
    return Window(opened_on, rate.messages, line)

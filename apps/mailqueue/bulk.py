"""One verb for many messages, in bites: how many it is for, beginning it, and going on with it.

What was begun is a row that says how far it came. Each bite and the note of it are one transaction, so
that nothing is done twice or left out, whoever goes on: the request that began it, or a worker between its
messages. What was queued after the administrator saw how many there are, is not meant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from . import audit, database, outbox, sql, words
from .finding import Search
from .selection import Selection
from .site import Site
from .tables import BULK
from .told import Told

MOST_COUNTED = 10_000  # beyond that, how many makes no difference
COUNTING = 0.03  # seconds after which no further messages are counted
COUNTED_AT_ONCE = 1000
BITE = 200  # messages in one transaction
AT_ONCE = 1.0  # seconds for which the request goes on with what it began

RUNNING, DONE, STOPPED = "running", "done", "stopped"

# What the record of administrators' actions says of it.
BEGUN_TOLD = "many at once, begun: {which}"
DONE_TOLD = "many at once ({number}): {which}"
STOPPED_TOLD = "many at once ({number}, stopped by {who}): {which}"

# Each verb, and the statuses of the messages that it is for.
VERBS = {
    audit.RETRY: words.RETRYABLE,
    audit.CANCEL: words.PENDING,
    audit.DELETE: frozenset({words.SENT, words.FAILED, words.CANCELLED, words.EXPIRED}),
}
_COLUMNS = ("id", "action_name", "chosen", "who", "next_below", "changed")


@dataclass(frozen=True)
class Count:
    """How many messages a verb is for.

    Attributes:
        number: of messages that were counted.
        complete: whether that is all of them.
    """

    number: int
    complete: bool


def count(db: Any, verb: str, selection: Selection, below: int) -> Count:
    """How many messages a verb is for, as far as that is soon counted.

    Args:
        below: only those with a smaller id.
    """
    number, end = 0, time.monotonic() + COUNTING
    for found in Search(db, selection, VERBS[verb]).steps(limit=COUNTED_AT_ONCE, before=below):
        number += len(found.ids)
        if number > MOST_COUNTED:
            return Count(MOST_COUNTED, complete=False)
        if found.beyond is not None and time.monotonic() > end:
            return Count(number, complete=False)
    return Count(number, complete=True)


def begin(site: Site, verb: str, selection: Selection, below: int, who: str) -> int:
    """Write down what is to be done, and by whom, and do as much of it as AT_ONCE allows. Commits.

    Args:
        verb: one of VERBS.
        selection: which messages.
        below: only those with a smaller id.
        who: the administrator's address.

    Returns:
        The number of the row.
    """
    counted, now = count(site.db, verb, selection, below), site.clock()
    row = outbox.fitting(
        BULK,
        action_name=verb,
        chosen=urlencode(selection.query()),
        who=who,
        status=RUNNING,
        first_below=below,
        next_below=below,
        expected=counted.number if counted.complete else None,
        changed=0,
        begun_on=now,
        changed_on=now,
    )
    number = sql.insert_one(site.db, BULK, row)
    audit.record(site.db, who, verb, now, detail=Told(BEGUN_TOLD, which=selection))
    site.db.commit()
    end = time.monotonic() + AT_ONCE
    while _bite(site, "id = %s", number) and time.monotonic() < end:
        pass
    return number


def go_on(site: Site) -> bool:
    """Take one bite of the oldest that is running; other workers do not wait for it. Commits.

    Returns:
        Whether there may be more to do.
    """
    if not sql.fetch(site.db, f"SELECT 1 FROM {BULK} WHERE status = %s LIMIT 1", RUNNING):
        site.db.commit()
        return False
    return _bite(site, f"action_name IN ({sql.signs(VERBS)})", *VERBS)


def stop(site: Site, number: int, who: str) -> bool:
    """Do no more of it. In the caller's transaction.

    Returns:
        False where it has ended already.
    """
    held = sql.lock(site.db, BULK, _COLUMNS, "id = %s AND status = %s", number, RUNNING)
    for row in held:
        told = Told(STOPPED_TOLD, number=row["changed"], who=who, which=_selection(row))
        _end(site, row, STOPPED, told)
    return bool(held)


def found(db: Any, number: int) -> dict[str, Any] | None:
    """The row with this number, with its "selection"; None: there is none."""
    row = db[BULK](number)
    return None if row is None else _told(row.as_dict())


def latest(db: Any, limit: int = 10) -> list[dict[str, Any]]:
    """The latest rows, as of found()."""
    table = db[BULK]
    return [_told(row) for row in db(table.id > 0).select(orderby=~table.id, limitby=(0, limit)).as_list()]


def tidy(site: Site) -> None:
    """Forget what ended longer ago than records of administrators are kept. Commits."""
    over = site.clock() - audit.KEPT
    sql.change(site.db, f"DELETE FROM {BULK} WHERE ended_on < %s", over)
    site.db.commit()


def _told(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "selection": _selection(row)}


def _selection(row: dict[str, Any]) -> Selection:
    return Selection.of(dict(parse_qsl(row["chosen"] or "")))


def _bite(site: Site, which: str, *values: object) -> bool:
    """Change some messages, note how far it came, and commit. Whether there may be more to do."""
    database.begin(site.db)
    running = f"status = %s AND {which} ORDER BY id LIMIT 1"
    held = sql.lock_free(site.db, BULK, _COLUMNS, running, RUNNING, *values, index="PRIMARY")
    for found in held:
        row = dict(zip(_COLUMNS, found, strict=True))
        step = Search(site.db, _selection(row), VERBS[row["action_name"]]).step(
            limit=BITE, before=row["next_below"]
        )
        row["changed"] += len(_DO[row["action_name"]](site, step.ids))
        if step.beyond is None:
            _end(site, row, DONE, Told(DONE_TOLD, number=row["changed"], which=_selection(row)))
        else:
            _note(site, row, next_below=step.beyond)
    site.db.commit()
    return bool(held)


def _end(site: Site, row: dict[str, Any], status: str, told: str) -> None:
    now = site.clock()
    _note(site, row, status=status, ended_on=now)
    audit.record(site.db, row["who"], row["action_name"], now, detail=told)


def _note(site: Site, row: dict[str, Any], **changes: object) -> None:
    noted = {"id": row["id"], "changed": row["changed"], "changed_on": site.clock(), **changes}
    sql.update(site.db, BULK, [noted])


def _retry(site: Site, ids: Sequence[int]) -> list[int]:
    return outbox.retry_all(site.db, ids, site.clock())


def _cancel(site: Site, ids: Sequence[int]) -> list[int]:
    return outbox.cancel_all(site.db, ids, site.clock(), site.retention)


def _delete(site: Site, ids: Sequence[int]) -> list[int]:
    return outbox.delete_all(site.db, ids)


_DO: dict[str, Callable[[Site, Sequence[int]], list[int]]] = {
    audit.RETRY: _retry,
    audit.CANCEL: _cancel,
    audit.DELETE: _delete,
}

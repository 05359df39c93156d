"""What pages, counts and commands ask of the tables. Nothing here writes."""

from __future__ import annotations

from typing import Any

from . import database, words
from .problems import OPEN
from .tables import ATTEMPT, CONTENT, LESSON, MESSAGE, PROBLEM, RECIPIENT, TRANSPORT, WINDOW

MOST_COUNTED = 1000  # recipients that wait for one limit; beyond that, how many makes no difference


def counts(db: Any) -> dict[str, int]:
    """How many messages there are in each status; every status is there."""
    message = db[MESSAGE]
    number = message.id.count()
    rows = db(message.id > 0).select(message.status, number, groupby=message.status)
    found = {row[message.status]: row[number] for row in rows}
    return {status: found.get(status, 0) for status in words.MESSAGE_STATUSES}


def is_due(db: Any, message_id: int, now: float) -> bool:
    """Whether a message waits to be sent at this moment."""
    message = db[MESSAGE]
    return not db((message.id == message_id) & (message.due <= now)).isempty()


def messages(
    db: Any,
    *,
    status: str | None = None,
    search: str = "",
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Messages, the newest first.

    Args:
        status: only those.
        search: part of a recipient's address, or of the subject; upper and lower case alike.
        before: only those with a smaller id: the page after the one that ended there.
        after: only the next ones with a greater id: the page before the one that began there.
        limit: how many at most.

    Returns:
        The rows of the message table, each with "addresses", its first recipients, and
        "has_content", whether its text is still stored.
    """
    table = db[MESSAGE]
    wanted = _wanted(db, status, search)
    if before is not None:
        wanted &= table.id < before
    if after is not None:
        wanted &= table.id > after
    order = ~table.id if after is None else table.id
    rows: list[dict[str, Any]] = db(wanted).select(orderby=order, limitby=(0, limit)).as_list()
    rows.sort(key=lambda row: int(row["id"]), reverse=True)
    stored = _with_content(db, [row["id"] for row in rows])
    for row in rows:
        row["addresses"] = _first_addresses(db, row["id"])
        row["recipients"] = row["recipients"] or len(row["addresses"])  # NULL in a damaged row
        row["has_content"] = row["id"] in stored
    return rows


def _wanted(db: Any, status: str | None, search: str) -> Any:
    table, recipient = db[MESSAGE], db[RECIPIENT]
    wanted = table.id > 0
    if status:
        wanted &= table.status == status
    if search:
        to_them = db(recipient.address.contains(search))._select(recipient.message_ref)
        wanted &= table.subject.contains(search) | table.id.belongs(to_them)
    return wanted


def _with_content(db: Any, ids: list[int]) -> set[int]:
    content = db[CONTENT]
    first_chunks = content.message_ref.belongs(ids) & (content.chunk_no == 0)
    return {row.message_ref for row in db(first_chunks).select(content.message_ref)}


def _first_addresses(db: Any, message_id: int) -> list[str]:
    recipient = db[RECIPIENT]
    own = db(recipient.message_ref == message_id)
    return [row.address or "" for row in own.select(recipient.address, orderby=recipient.id, limitby=(0, 3))]


def message(db: Any, message_id: int) -> dict[str, Any] | None:
    """One message, or None.

    Returns:
        Its row, with "recipients_list" and "attempts_list" (the latest first), the first 1000 of
        each, and "has_content".
    """
    row = db[MESSAGE](message_id)
    if row is None:
        return None
    recipient, attempt = db[RECIPIENT], db[ATTEMPT]
    found: dict[str, Any] = row.as_dict()
    recipients = db(recipient.message_ref == message_id).select(orderby=recipient.id, limitby=(0, 1000))
    addresses = {person.id: person.address for person in recipients}
    attempts = db(attempt.message_ref == message_id).select(orderby=~attempt.id, limitby=(0, 1000)).as_list()
    for made in attempts:
        made["address"] = addresses.get(made["recipient_ref"], "")
    return {
        **found,
        "recipients": found["recipients"] or len(recipients),  # NULL in a damaged row
        "recipients_list": recipients.as_list(),
        "attempts_list": attempts,
        "has_content": bool(_with_content(db, [message_id])),
    }


def problems(db: Any, *, open_only: bool = False, limit: int = 100) -> list[dict[str, Any]]:
    """The site-admin log: open entries first, then the latest."""
    table = db[PROBLEM]
    wanted = table.status == OPEN if open_only else table.id > 0
    rows: list[dict[str, Any]] = (
        db(wanted).select(orderby=table.status | ~table.last_seen, limitby=(0, limit)).as_list()
    )
    return rows


def paused_transports(db: Any) -> list[dict[str, Any]]:
    """The transports that are paused, with reason, since when, and the next probe."""
    table = db[TRANSPORT]
    rows: list[dict[str, Any]] = db(table.paused_on != None).select().as_list()  # noqa: E711
    return rows


def stoppages(db: Any) -> list[dict[str, Any]]:
    """What keeps all mail waiting now, the latest of each transport: for a banner.

    Returns:
        Open entries of the problem log, each with "paused_on" and "next_probe": those of a paused
        transport, or None where the settings are such that there is no transport at all.
    """
    table = db[PROBLEM]
    paused = {row["name"]: row for row in paused_transports(db)}
    found: dict[str, dict[str, Any]] = {}
    for row in db(table.status == OPEN).select(orderby=table.last_seen).as_list():
        if row["transport"] in paused or row["stage"] == words.CONFIG:
            transport = paused.get(row["transport"], {})
            row["paused_on"], row["next_probe"] = transport.get("paused_on"), transport.get("next_probe")
            found[row["transport"]] = row
    return list(found.values())


def open_problems(db: Any) -> int:
    """How many entries of the problem log are open."""
    return int(db(db[PROBLEM].status == OPEN).count())


def held_back(db: Any, now: float, limit: int = 50) -> list[dict[str, Any]]:
    """The transports and domains for whose limits, or for whose servers' wishes, mail waits.

    Args:
        now: epoch seconds.
        limit: how many at most.

    Returns:
        For each its "name"; "waiting", the recipients that wait, MOST_COUNTED + 1 for more than that;
        "until", when the next of them may go, None where none waits; "allowances", the configured
        limits; "lesson", the row of what was learned, or None.
    """
    window, lesson = db[WINDOW], db[LESSON]
    lines = db((window.line > 0) & (window.over_on > now)).select(
        window.held_by, window.name, window.allowance, orderby=~window.line, limitby=(0, 4 * limit)
    )
    learned = db(lesson.strikes > 0).select(orderby=~lesson.rests_until, limitby=(0, limit)).as_list()
    found: dict[str, dict[str, Any]] = {
        row["name"]: {"name": row["name"], "allowances": [], "lesson": row} for row in learned
    }
    for row in lines:
        entry = found.setdefault(row.held_by, {"name": row.held_by, "allowances": [], "lesson": None})
        if not row.name.startswith("learned"):
            entry["allowances"].append(row.allowance)
    return [{**entry, **_waiting(db, name)} for name, entry in list(found.items())[:limit]]


def any_held_back(db: Any, now: float) -> bool:
    """Whether held_back() has anything to show."""
    window = db[WINDOW]
    in_line = (window.line > 0) & (window.over_on > now)
    return not (db(in_line).isempty() and db(db[LESSON].strikes > 0).isempty())


def _waiting(db: Any, name: str) -> dict[str, Any]:
    """How many recipients wait for this limit, and until when the first; reads an index, never all of it."""
    sign = "?" if database.engine(db) == database.SQLITE else "%s"
    waiting = f"FROM {RECIPIENT} WHERE held_by = {sign} AND due IS NOT NULL"
    some = f"SELECT COUNT(*) FROM (SELECT 1 {waiting} LIMIT {MOST_COUNTED + 1}) some"
    ((number,),) = db.executesql(some, (name,))
    ((until,),) = db.executesql(f"SELECT MIN(due) {waiting}", (name,))
    return {"waiting": number, "until": until}

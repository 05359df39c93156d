"""What pages, counts and commands ask of the tables. Nothing here writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import database, sql, words
from .finding import Search
from .masking import masked
from .problems import OPEN
from .selection import Selection
from .tables import ATTEMPT, CONTENT, LESSON, MESSAGE, PROBLEM, RECIPIENT, TRANSPORT, WINDOW

MOST_LISTED = 10_000  # messages of one status that a page counts
MOST_COUNTED = 1000  # recipients that wait for one limit; beyond that, how many makes no difference


def counts(db: Any) -> dict[str, int]:
    """How many messages there are in each status; every status is there."""
    message = db[MESSAGE]
    number = message.id.count()
    rows = db(message.id > 0).select(message.status, number, groupby=message.status)
    found = {row[message.status]: row[number] for row in rows}
    return {status: found.get(status, 0) for status in words.MESSAGE_STATUSES}


def counts_up_to_a_bound(db: Any) -> dict[str, int]:
    """How many messages there are in each status, MOST_LISTED + 1 for more than that."""
    some = f"SELECT 1 FROM {MESSAGE} WHERE status = %s LIMIT {MOST_LISTED + 1}"
    counted = f"SELECT COUNT(*) FROM ({some}) AS part"
    return {status: sql.fetch(db, counted, status)[0][0] for status in words.MESSAGE_STATUSES}


def is_due(db: Any, message_id: int, now: float) -> bool:
    """Whether a message waits to be sent at this moment."""
    message = db[MESSAGE]
    return not db((message.id == message_id) & (message.due <= now)).isempty()


def messages(
    db: Any, *, before: int | None = None, limit: int = 50, **chosen: str | None
) -> list[dict[str, Any]]:
    """Messages, the newest first, however many others have to be looked at; rows as of listed().

    Args:
        before: only those with a smaller id: the page after the one that ended there.
        limit: how many at most.
        chosen: which ones, as the fields of a selection.Selection.
    """
    ids: list[int] = []
    for found in Search(db, Selection(**chosen)).steps(limit=limit, before=before):
        ids += found.ids
        if len(ids) >= limit:
            break
    return listed(db, ids[:limit])


def listed(db: Any, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Messages as a list shows them, the newest first.

    Returns:
        The rows of the message table, keys in their subjects hidden, each with "addresses", its first
        recipients, and "has_content", whether its text is still stored.
    """
    if not ids:
        return []
    table = db[MESSAGE]
    rows: list[dict[str, Any]] = db(table.id.belongs(list(ids))).select(orderby=~table.id).as_list()
    stored, addresses = _with_content(db, ids), _first_addresses(db, ids)
    for row in rows:
        row["subject"] = masked(row["subject"] or "", row["category"])
        row["addresses"] = addresses[row["id"]]
        row["recipients"] = row["recipients"] or len(row["addresses"])  # NULL in a damaged row
        row["has_content"] = row["id"] in stored
    return rows


def _with_content(db: Any, ids: Sequence[int]) -> set[int]:
    content = db[CONTENT]
    first_chunks = content.message_ref.belongs(list(ids)) & (content.chunk_no == 0)
    return {row.message_ref for row in db(first_chunks).select(content.message_ref)}


def _first_addresses(db: Any, ids: Sequence[int]) -> dict[int, list[str]]:
    """Of each message the first three."""
    found: dict[int, list[str]] = {message_id: [] for message_id in ids}
    hint = "FORCE INDEX (mailqueue_recipient_message_idx)" if database.engine(db) == database.MYSQL else ""
    first = (
        f"SELECT id, message_ref, address FROM {RECIPIENT} {hint} WHERE message_ref = %s ORDER BY id LIMIT 3"
    )
    for some in sql.portions(list(ids), 100):
        each = " UNION ALL ".join(f"SELECT * FROM ({first}) AS part_{place}" for place in range(len(some)))
        for _, message_id, address in sorted(sql.fetch(db, each, *some)):
            found[message_id].append(address or "")
    return found


def recipients(db: Any, message_ids: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """The recipients of some messages, by the messages' ids."""
    recipient = db[RECIPIENT]
    found: dict[int, list[dict[str, Any]]] = {}
    for row in db(recipient.message_ref.belongs(list(message_ids))).select(orderby=recipient.id).as_list():
        found.setdefault(row["message_ref"], []).append(row)
    return found


def message(db: Any, message_id: int) -> dict[str, Any] | None:
    """One message, or None.

    Returns:
        Its row, keys in its subject hidden, with "recipients_list" and "attempts_list" (the latest
        first), the first 1000 of each, "has_content", and "was_made": what outbox.refuse() entered never was.
    """
    row = db[MESSAGE](message_id)
    if row is None:
        return None
    recipient, attempt = db[RECIPIENT], db[ATTEMPT]
    found: dict[str, Any] = row.as_dict()
    recipients = db(recipient.message_ref == message_id).select(orderby=recipient.id, limitby=(0, 1000))
    people = {person.id: person for person in recipients}
    attempts = db(attempt.message_ref == message_id).select(orderby=~attempt.id, limitby=(0, 1000)).as_list()
    for made in attempts:
        person = people.get(made["recipient_ref"])
        made["address"] = person.address if person else ""
        made["provider_id"] = person.provider_id if person and made["outcome"] == words.SENT else None
    return {
        **found,
        "subject": masked(found["subject"] or "", found["category"]),
        "recipients": found["recipients"] or len(recipients),  # NULL in a damaged row
        "recipients_list": recipients.as_list(),
        "attempts_list": attempts,
        "has_content": bool(_with_content(db, [message_id])),
        "was_made": found["message_uid"] is not None,
    }


def problems(db: Any, *, open_only: bool = False, limit: int = 100) -> list[dict[str, Any]]:
    """The site-admin log: open entries first, then the latest."""
    table = db[PROBLEM]
    wanted = table.status == OPEN if open_only else table.id > 0
    rows: list[dict[str, Any]] = (
        db(wanted).select(orderby=table.status | ~table.last_seen, limitby=(0, limit)).as_list()
    )
    return rows


def transports(db: Any) -> list[str]:
    """The names of all transports that were ever used."""
    table = db[TRANSPORT]
    return [row.name for row in db(table.id > 0).select(table.name, orderby=table.name)]


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
    paused = paused_transports(db)
    found: dict[str, dict[str, Any]] = {}
    for row in db(table.status == OPEN).select(orderby=table.last_seen).as_list():
        transport = next((one for one in paused if _is_why(row, one)), None)
        if transport or (row["stage"] == words.CONFIG and not row["transport"]):
            known = transport or {}
            row["paused_on"], row["next_probe"] = known.get("paused_on"), known.get("next_probe")
            found[row["transport"]] = row
    return list(found.values())


def _is_why(problem: dict[str, Any], paused: dict[str, Any]) -> bool:
    """Whether a transport may be paused because of a problem; that of a key is of no transport."""
    if problem["transport"] == paused["name"]:
        return True
    of_keys = problem["stage"] == words.BUILD and problem["failure_kind"] == words.CONFIGURATION
    return of_keys and not problem["transport"] and bool(paused["stage"] == words.BUILD)


def open_problems(db: Any) -> int:
    """How many entries of the problem log are open, and nobody has said that they see to them."""
    table = db[PROBLEM]
    return int(db((table.status == OPEN) & (table.acknowledged_on == None)).count())  # noqa: E711


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
    waiting = f"FROM {RECIPIENT} WHERE held_by = %s AND due IS NOT NULL"
    some = f"SELECT COUNT(*) FROM (SELECT 1 {waiting} LIMIT {MOST_COUNTED + 1}) AS part"
    ((number,),) = sql.fetch(db, some, name)
    ((until,),) = sql.fetch(db, f"SELECT MIN(due) {waiting}", name)
    return {"waiting": number, "until": until}

"""What pages, counts and commands ask of the tables. Nothing here writes."""

from __future__ import annotations

from typing import Any

from . import words
from .problems import OPEN
from .tables import ATTEMPT, MESSAGE, PROBLEM, RECIPIENT, TRANSPORT


def counts(db: Any) -> dict[str, int]:
    """How many messages there are in each status; every status is there."""
    message = db[MESSAGE]
    number = message.id.count()
    rows = db(message.id > 0).select(message.status, number, groupby=message.status)
    found = {row[message.status]: row[number] for row in rows}
    return {status: found.get(status, 0) for status in words.MESSAGE_STATUSES}


def messages(
    db: Any, *, status: str | None = None, search: str = "", before: int | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """Messages, the newest first.

    Args:
        status: only those.
        search: part of a recipient's address, or of the subject.
        before: only those with a smaller id: the page after the one that ended there.
        limit: how many at most.

    Returns:
        The rows of the message table, each with "addresses": its first recipients.
    """
    message, recipient = db[MESSAGE], db[RECIPIENT]
    wanted = message.id > 0
    if status:
        wanted &= message.status == status
    if before:
        wanted &= message.id < before
    if search:
        to_them = db(recipient.address.contains(search))._select(recipient.message_ref)
        wanted &= message.subject.contains(search) | message.id.belongs(to_them)
    rows: list[dict[str, Any]] = db(wanted).select(orderby=~message.id, limitby=(0, limit)).as_list()
    for row in rows:
        own = db(recipient.message_ref == row["id"])
        first = own.select(recipient.address, orderby=recipient.id, limitby=(0, 3))
        row["addresses"] = [person.address for person in first]
    return rows


def message(db: Any, message_id: int) -> dict[str, Any] | None:
    """One message with its "recipients" and "attempts", or None."""
    row = db[MESSAGE](message_id)
    if row is None:
        return None
    recipient, attempt = db[RECIPIENT], db[ATTEMPT]
    found: dict[str, Any] = row.as_dict()
    recipients = db(recipient.message_ref == message_id).select(orderby=recipient.id, limitby=(0, 1000))
    addresses = {person.id: person.address for person in recipients}
    attempts = db(attempt.message_ref == message_id).select(orderby=~attempt.id, limitby=(0, 1000)).as_list()
    for row in attempts:
        row["address"] = addresses.get(row["recipient_ref"], "")
    return {**found, "recipients_list": recipients.as_list(), "attempts_list": attempts}


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

"""Inserting messages, in the transaction of the request that sends them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .. import database, sql, wakeup, words
from ..compose import Composed
from ..sql import Row
from ..tables import CONTENT, DEDUPE, MESSAGE, RECIPIENT
from ..terms import Terms
from .records import Retention
from .rows import fitting
from .texts import chunks

_WITH_THE_MESSAGE = 100  # recipients that are inserted in the statement that inserts their message


def enqueue(db: Any, composed: Composed, terms: Terms, *, now: float) -> int | None:
    """Insert a message in the caller's transaction. On PostgreSQL its commit wakes the workers.

    Args:
        db: the host's DAL.
        composed: envelope and MIME text.
        terms: how it is to be treated.
        now: epoch seconds.

    Returns:
        The message's id; None where its dedupe key was used already, and nothing is written.
    """
    if terms.dedupe is not None and not _is_first(db, terms.dedupe, terms.dedupe_until, now):
        return None
    message, texts = _message(composed, terms, now), chunks(composed.mime)
    recipients = composed.envelope.recipients
    if database.engine(db) == database.POSTGRES:
        message_id = _insert_at_once(db, message, texts[0], recipients[:_WITH_THE_MESSAGE])
        begun, recipients = 1, recipients[_WITH_THE_MESSAGE:]
    else:
        message_id, begun = sql.insert_one(db, MESSAGE, message), 0
    for number, text in enumerate(texts[begun:], begun):
        # One at a time: servers limit the size of a statement.
        sql.insert(db, CONTENT, [{"message_ref": message_id, "chunk_no": number, "mime": text}])
    sql.insert(db, RECIPIENT, [_recipient(message_id, message, *recipient) for recipient in recipients])
    return message_id


def _message(composed: Composed, terms: Terms, now: float) -> Row:
    envelope = composed.envelope
    optional = {
        "expires_on": terms.expires_on,
        "doubt": terms.doubt,
        "wipe": "T" if terms.wipe else None,  # as pydal stores it
        "sender": envelope.sender,
    }
    return fitting(
        MESSAGE,
        status=words.QUEUED,
        priority=terms.priority,
        due=terms.due,
        category=terms.category,
        subject=composed.subject,
        message_uid=composed.message_id,
        smtputf8="T" if envelope.smtputf8 else "F",
        byte_size=len(composed.mime),
        recipients=len(envelope.recipients),
        attempts=0,
        created_on=now,
        # Each value has its price, and most of these are not there.
        **{name: value for name, value in optional.items() if value is not None},
    )


def _recipient(message_id: int, message: Row, kind: str, address: str) -> Row:
    return {
        "message_ref": message_id,
        "address": address,
        "kind": kind,
        "status": message["status"],
        "due": message["due"],
        "attempts": message["attempts"],
        "changed_on": message["created_on"],
    }


def _insert_at_once(db: Any, message: Row, text: str, recipients: Sequence[tuple[str, str]]) -> int:
    """All that fits into one statement, since each is a way to the server and back; the hint too."""
    statement = _everything(tuple(message), len(recipients))
    people = [value for recipient in recipients for value in recipient]
    ((message_id, _),) = sql.fetch(db, statement, *message.values(), text, *people)
    return int(message_id)


@lru_cache(maxsize=256)
def _everything(columns: tuple[str, ...], recipients: int) -> str:
    people = ", ".join(["(%s, %s)"] * recipients)
    return (
        f"WITH message AS (INSERT INTO {MESSAGE} ({', '.join(columns)}) VALUES ({sql.signs(columns)})"
        " RETURNING id, status, due, attempts, created_on),"
        f" content AS (INSERT INTO {CONTENT} (message_ref, chunk_no, mime) SELECT id, 0, %s FROM message),"
        f" people AS (INSERT INTO {RECIPIENT} (message_ref, kind, address, status, due, attempts, changed_on)"
        " SELECT id, kind, address, status, due, attempts, created_on"
        f" FROM message, (VALUES {people}) AS person (kind, address))"
        f" SELECT id, pg_notify('{wakeup.CHANNEL}', '') FROM message"
    )


def _is_first(db: Any, key: str, until: float, now: float) -> bool:
    """Whether no other message holds this key; books it. Two transactions at once take turns.

    In one statement: a look first and an insert then would be a deadlock between two on MySQL.
    """
    booked = f"INSERT INTO {DEDUPE} (dedupe_key, until_on) VALUES (%s, %s)"
    if database.engine(db) == database.MYSQL:
        where_over = "ON DUPLICATE KEY UPDATE until_on = IF(until_on <= %s, VALUES(until_on), until_on)"
    else:
        update = "ON CONFLICT (dedupe_key) DO UPDATE SET until_on = excluded.until_on"
        where_over = f"{update} WHERE {DEDUPE}.until_on <= %s"
    return sql.change(db, f"{booked} {where_over}", key, until, now) > 0


def refuse(
    db: Any, *, address: str, subject: str, reason: str, category: str, now: float, retention: Retention
) -> int:
    """Insert a message that could not be made, as failed, so that it is not lost from sight.

    In the caller's transaction. It has no text, so it cannot be retried.

    Args:
        address: whom it was for, as it was given.
        reason: why it could not be made.

    Returns:
        The message's id.
    """
    message = fitting(
        MESSAGE,
        status=words.FAILED,
        priority=words.NORMAL,
        category=category,
        subject=subject,
        byte_size=0,
        recipients=1,
        attempts=0,
        created_on=now,
        finished_on=now,
        purge_on=now + retention.record,
        failure_kind=words.MESSAGE,
        error=reason,
    )
    message_id = sql.insert_one(db, MESSAGE, message)
    recipient = fitting(
        RECIPIENT,
        message_ref=message_id,
        address=address,
        kind=words.TO,
        status=words.FAILED,
        attempts=0,
        failure_kind=words.MESSAGE,
        reply=reason,
        changed_on=now,
    )
    sql.insert(db, RECIPIENT, [recipient])
    return message_id

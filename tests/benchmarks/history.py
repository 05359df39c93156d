"""A queue with a long history, made by set-wise SQL: messages with two recipients and two attempts each."""

from __future__ import annotations

import time
from typing import Any

from mailqueue.tables import ATTEMPT, CONTENT, MESSAGE, RECIPIENT

DAYS = 90.0  # that the history goes back
AT_ONCE = 100_000  # messages made in one statement
WAITING = 500  # the newest messages
WITH_TEXT = 50_000  # of the newest messages the text is still there
PEOPLE = 100_000  # that are written to; every other message also goes to ARCHIVE
ARCHIVE = "archive@site.test"
PERSON = "user77@example.test"

_DIGITS = "SELECT 0 AS n" + "".join(f" UNION ALL SELECT {digit}" for digit in range(1, 10))


def fill(db: Any, size: int) -> None:
    """Make the rows of so many messages in empty tables. Commits.

    Args:
        size: a multiple of 1000.
    """
    if db._adapter.dbengine == "mysql":
        db.executesql("SET SESSION sql_mode = CONCAT(@@sql_mode, ',PIPES_AS_CONCAT')")
    for begin in range(0, size, AT_ONCE):
        numbers = _numbers(begin, min(AT_ONCE, size - begin))
        for table, columns in _columns(size, time.time()).items():
            for row in columns:
                chosen = f"SELECT {', '.join(row.values())} FROM ({numbers}) AS numbers"
                left = f"{chosen} WHERE g > {size - WITH_TEXT}" if table == CONTENT else chosen
                db.executesql(f"INSERT INTO {table} ({', '.join(row)}) {left} ORDER BY g")
        db.commit()
    if db._adapter.dbengine == "postgres":
        for table in (MESSAGE, CONTENT, RECIPIENT, ATTEMPT):
            db.executesql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {3 * size})")
    db.commit()


def _numbers(begin: int, many: int) -> str:
    places = range(len(str(many - 1)))
    sum_of = " + ".join(f"d{place}.n * {10**place}" for place in places)
    tables = ", ".join(f"({_DIGITS}) AS d{place}" for place in places)
    return f"SELECT {begin} + 1 + {sum_of} AS g FROM {tables} WHERE {sum_of} < {many}"


def _columns(size: int, now: float) -> dict[str, list[dict[str, str]]]:
    """Of each table the rows that each message has: columns, and expressions over its number g."""
    chance, waits = "(g % 1000 * 919 % 1000)", f"g > {size - WAITING}"
    created = f"({now:.3f} - ({size} - g) * {DAYS * 86400 / size:.6f})"
    status = (
        f"CASE WHEN {waits} THEN 'queued' WHEN g > {size - 4 * WAITING} AND {chance} < 300 THEN 'deferred'"
        f" WHEN g % 50000 = 7 THEN 'in_doubt' WHEN {chance} < 30 THEN 'failed'"
        f" WHEN {chance} < 40 THEN 'cancelled' WHEN {chance} < 50 THEN 'expired' ELSE 'sent' END"
    )
    over = f"{status} IN ('sent', 'failed', 'cancelled', 'expired')"
    kind = f"CASE {status} WHEN 'failed' THEN 'recipient' WHEN 'deferred' THEN 'transient' END"
    error = (
        f"CASE {status} WHEN 'failed' THEN '5.1.1 <user' || g || '@example.test> is unknown to ' || (g % 7)"
        " WHEN 'deferred' THEN '4.2.1 busy' END"
    )
    way = "CASE WHEN g <= 10 THEN 'smtp://old' WHEN g % 10 = 0 THEN 'smtp://b' ELSE 'smtp://a' END"
    subject = "CASE WHEN g <= 10 THEN 'A needle' ELSE 'Order ' || g || ' is on its way' END"
    category = (
        "CASE WHEN g <= 10 THEN 'rare' WHEN g * 31 % 100 < 60 THEN 'site'"
        " WHEN g * 31 % 100 < 95 THEN 'auth' ELSE 'news' END"
    )
    message = {
        "id": "g",
        "status": status,
        "priority": "0",
        "due": f"CASE WHEN {waits} THEN {now} WHEN {status} = 'deferred' THEN {now + 3600} END",
        "category": category,
        "subject": subject,
        "message_uid": "'<' || g || '@site.test>'",
        "smtputf8": "'F'",
        "byte_size": "2000",
        "recipients": "2",
        "attempts": f"CASE WHEN {waits} THEN 0 ELSE 1 END",
        "created_on": created,
        "finished_on": f"CASE WHEN {over} THEN {created} + 3 END",
        "purge_on": f"CASE WHEN {over} THEN {created} + 31536000 END",
        "failure_kind": kind,
        "error": error,
        "transport": way,
    }
    content = {"message_ref": "g", "chunk_no": "0", "mime": "'Subject: an order'"}
    people = (
        f"'user' || (g % {PEOPLE}) || '@example.test'",
        f"CASE WHEN g % 2 = 0 THEN '{ARCHIVE}' ELSE 'user' || (g * 31 % {PEOPLE}) || '@example.test' END",
    )
    recipients = [
        {
            "id": f"2 * g - {1 - number}",
            "message_ref": "g",
            "address": address,
            "kind": "'to'",
            "status": status,
            "attempts": message["attempts"],
            "failure_kind": kind,
            "reply": error,
            "transport": way,
            "changed_on": f"{created} + 3",
        }
        for number, address in enumerate(people)
    ]
    attempts = [
        {
            "message_ref": "g",
            "recipient_ref": f"2 * g - {1 - number}",
            "transport": way,
            "stage": "'rcpt'",
            "outcome": status,
            "failure_kind": kind,
            "reply": error,
            "started_on": f"{created} + 2",
            "duration": "0.1",
        }
        for number in range(2)
    ]
    return {MESSAGE: [message], CONTENT: [content], RECIPIENT: recipients, ATTEMPT: attempts}

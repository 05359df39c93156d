"""Messages and their recipients as CSV, for a spreadsheet."""

from __future__ import annotations

import csv
import io
from typing import Any

from . import queries
from .selection import Selection
from .tables import local_time

MOST = 20_000  # messages in one file
_AT_ONCE = 500

HEADS = (
    "message",
    "created",
    "message status",
    "subject",
    "category",
    "address",
    "status",
    "attempts",
    "code",
    "reply",
    "transport",
    "changed",
)
# With these a cell begins that spreadsheets take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(db: Any, selection: Selection) -> str:
    """The messages, the newest first, a line for each recipient; the last line says so if there are more.

    Subjects are without their keys. No cell is a formula to a spreadsheet.
    """
    written = io.StringIO()
    lines = csv.writer(written)
    lines.writerow(HEADS)
    before, left = None, MOST
    chosen: dict[str, Any] = dict(selection.query())
    while rows := queries.messages(db, **chosen, before=before, limit=min(_AT_ONCE, left + 1)):
        if left == 0:
            lines.writerow(["more", f"only the newest {MOST} messages are in this file"])
            break
        people = queries.recipients(db, [row["id"] for row in rows])
        for row in rows[:left]:
            for person in people.get(row["id"]) or [{}]:
                lines.writerow([_harmless(cell) for cell in _line(row, person)])
        left -= len(rows[:left])
        before = rows[-1]["id"]
    return written.getvalue()


def _line(row: dict[str, Any], person: dict[str, Any]) -> tuple[Any, ...]:
    return (
        row["id"],
        local_time(row["created_on"]),
        row["status"],
        row["subject"],
        row["category"],
        person.get("address"),
        person.get("status"),
        person.get("attempts"),
        person.get("code"),
        person.get("reply"),
        person.get("transport"),
        local_time(person.get("changed_on")),
    )


def _harmless(cell: Any) -> str:
    text = "" if cell is None else str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text

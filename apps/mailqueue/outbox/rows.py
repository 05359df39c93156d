"""The rows of messages, read under a lock, and the values that a column takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import sql
from ..sql import Row
from ..tables import MESSAGE, lengths

# What changes in the life of a message, the id apart.
_LIFE = (
    "status",
    "due",
    "expires_on",
    "attempts",
    "tried_on",
    "finished_on",
    "purge_on",
    "worker",
    "claim",
    "claimed_on",
    "crashes",
    "failure_kind",
    "error",
    "transport",
    "next_transport",
)
_COLUMNS = ("id", *_LIFE, "doubt", "wipe")


def hold(db: Any, ids: Sequence[int], columns: Sequence[str] = _COLUMNS) -> dict[int, Row]:
    """The rows of these messages, as far as they are there, locked until the transaction ends."""
    return {
        row["id"]: row
        for some in sql.portions(sorted(ids))
        for row in sql.lock(db, MESSAGE, columns, f"id IN ({sql.signs(some)}) ORDER BY id", *some)
    }


def hold_free(db: Any, ids: Sequence[int]) -> list[Row]:
    """The rows of these messages that no worker holds a claim on, locked until the transaction ends."""
    return [row for row in hold(db, ids).values() if row["claim"] is None]


def hold_own(db: Any, tokens: Mapping[int, str]) -> dict[int, Row]:
    """The rows of these messages whose claim is still this one, locked until the transaction ends."""
    return {
        message_id: row
        for message_id, row in hold(db, list(tokens)).items()
        if row["claim"] == tokens[message_id]
    }


def store(db: Any, rows: Sequence[Row]) -> None:
    """Write back rows that are held."""
    sql.update(db, MESSAGE, [{name: row[name] for name in ("id", *_LIFE)} for row in rows])


def fitting(table: str, **values: Any) -> Row:
    """The values, texts cut to the length of their columns and without what a database refuses.

    PostgreSQL refuses a text that is too long, NUL and lone surrogates, and with them the whole
    transaction. What a server or somebody else's transport says must not have that power.
    """
    longest = lengths(table)
    return {
        name: storable(value)[: longest[name]] if isinstance(value, str) else value
        for name, value in values.items()
    }


def fit(table: str, column: str, text: str | None) -> str | None:
    """The same for one text."""
    return text and storable(text)[: lengths(table)[column]]


def storable(text: str) -> str:
    """A text without what a database refuses."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")

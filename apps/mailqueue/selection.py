"""Which messages somebody asks for: by status, address, subject, category, transport, failure and time."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import unquote

from . import database, sql, words
from .compose import parse_address
from .errors import BadAddress
from .tables import MESSAGE, RECIPIENT

LONGEST = 200  # characters of a text that is asked for
_DAY = 86400.0
_MAILBOX = re.compile("[^<>]*<([^<>]+@[^<>]+)>")  # as mail clients show an address
_LINK = re.compile("mailto:([^?]+@[^?]+).*", re.IGNORECASE)
_OUT_OF_ORDER = 3600.0  # seconds: by so much the order of ids may differ from that of the times


@dataclass(frozen=True)
class Selection:
    """What is asked for, as it stands in the URL of a page; None: anything.

    Args:
        status: of the message.
        search: part of an address or of the subject; upper and lower case alike.
        address: a recipient's whole address.
        category: the message's.
        transport: the last one that was tried.
        failure: a failure kind.
        error: part of the last error.
        since, until: days, such as "2026-11-28", in the server's time zone; both are included.
    """

    status: str | None = None
    search: str | None = None
    address: str | None = None
    category: str | None = None
    transport: str | None = None
    failure: str | None = None
    error: str | None = None
    since: str | None = None
    until: str | None = None

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Selection:
        """What the variables of a URL ask for; what makes no sense is ignored, see misread()."""
        given = {name: _readable(asked.get(name)) for name in cls.__dataclass_fields__}
        if given["status"] not in words.MESSAGE_STATUSES:
            given["status"] = None
        if given["failure"] not in words.FAILURE_KINDS:
            given["failure"] = None
        for name in ("since", "until"):
            if _start(given[name]) is None:
                given[name] = None
        return cls(**given)

    @classmethod
    def misread(cls, asked: Mapping[str, str], besides: Collection[str] = ()) -> list[str]:
        """What of these variables makes no sense, such as "status=bogus": without it, more is meant.

        Args:
            besides: names of variables that are no part of a selection.
        """
        understood = cls.of(asked).query()
        return [
            f"{name}={value}"[:LONGEST]
            for name, value in asked.items()
            if value and name not in besides and name not in understood
        ]

    def query(self) -> dict[str, str]:
        """The variables of a URL that asks for this."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def is_looked_for(self) -> bool:
        """Whether messages have to be looked at that are not meant: no index finds just these."""
        return bool(set(self.query()) - {"status"})

    @property
    def spellings(self) -> list[str]:
        """The address, as it was given and as it is written otherwise."""
        if self.address is None:
            return []
        stored = _as_stored(self.address)
        return sorted({self.address, self.address.lower(), stored, stored.lower()})

    def __str__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.query().items()) or "all messages"


def sharpened(db: Any, selection: Selection) -> Selection:
    """A search for a whole address as what an index finds, if that address was ever written to."""
    search = selection.search
    if search is None or selection.address is not None or "@" not in search or " " in search.strip():
        return selection  # with a name before the address it may be a subject as well
    whole = replace(selection, search=None, address=_as_stored(search))
    known = f"SELECT 1 FROM {RECIPIENT} WHERE address = %s LIMIT 1"
    return whole if any(sql.fetch(db, known, address) for address in whole.spellings) else selection


def condition(db: Any, selection: Selection) -> tuple[str, list[object]]:
    """What of a selection has to be looked up in each message: SQL, with %s for each value, and the values.

    That is all but status and address.
    """
    exact = {
        "category": selection.category,
        "transport": selection.transport,
        "failure_kind": selection.failure,
    }
    parts: list[tuple[str, list[object]]] = [
        (f"{column} = %s", [value]) for column, value in exact.items() if value is not None
    ]
    if selection.error is not None:
        parts.append(_contains(db, "error", selection.error))
    if selection.search is not None:
        parts.append(_in_subject_or_address(db, selection.search))
    since, until = _start(selection.since), _start(selection.until)
    if since is not None:
        parts.append(("created_on >= %s", [since]))
    if until is not None:
        parts.append(("created_on < %s", [until + _DAY]))
    return " AND ".join(part for part, _ in parts), [value for _, values in parts for value in values]


def _in_subject_or_address(db: Any, text: str) -> tuple[str, list[object]]:
    subject, values = _contains(db, "subject", text)
    address, parts = _has_address(db, text)
    # A value, not EXISTS: for that PostgreSQL would rather read all the recipients there are.
    own = f"SELECT 1 FROM {RECIPIENT} WHERE message_ref = {MESSAGE}.id AND {address} LIMIT 1"
    return f"({subject} OR ({own}) = 1)", [*values, *parts]


def with_address_like(db: Any, ids: Sequence[int], text: str) -> set[int]:
    """Those of these messages that go to an address with this part."""
    address, values = _has_address(db, text)
    asked = f"SELECT message_ref FROM {RECIPIENT} WHERE message_ref IN ({sql.signs(ids)}) AND {address}"
    return {message_id for (message_id,) in sql.fetch(db, asked, *ids, *values)}


def _has_address(db: Any, text: str) -> tuple[str, list[object]]:
    parts = [_contains(db, "address", one) for one in sorted({text, _as_stored(text)})]
    return f"({' OR '.join(part for part, _ in parts)})", [value for _, values in parts for value in values]


def _as_stored(text: str) -> str:
    """An address or part of one as it is stored: nothing around it, the domain in its ASCII form (IDNA)."""
    mailbox = _MAILBOX.fullmatch(text)
    link = _LINK.fullmatch(text)
    bare = mailbox[1] if mailbox else _readable(unquote(link[1])) or text if link else text
    local, at, domain = bare.rpartition("@")
    try:
        return bare if domain.isascii() else local + at + parse_address(f"x@{domain}").spec[2:]
    except BadAddress:  # part of a subject, for one
        return bare


def _contains(db: Any, column: str, text: str) -> tuple[str, list[object]]:
    """Upper and lower case alike, as each database does of itself."""
    like = "ILIKE" if database.engine(db) == database.POSTGRES else "LIKE"
    plain = re.sub("([!%_])", r"!\1", text)
    return f"{column} {like} %s ESCAPE '!'", [f"%{plain}%"]


def between(db: Any, selection: Selection) -> tuple[int | None, int | None]:
    """What all ids of a selection lie between, by its days; None: anything."""
    since, until = _start(selection.since), _start(selection.until)
    return (
        None if since is None else id_at(db, since - _OUT_OF_ORDER) - 1,
        None if until is None else id_at(db, until + _DAY + _OUT_OF_ORDER),
    )


def id_at(db: Any, moment: float) -> int:
    """The id from which on messages were created at this time or later, found in some twenty steps.

    Args:
        moment: epoch seconds.
    """
    # Each by itself: for both at once SQLite reads all there is.
    ends = f"SELECT (SELECT MIN(id) FROM {MESSAGE}), (SELECT MAX(id) FROM {MESSAGE})"
    ((low, high),) = sql.fetch(db, ends)
    low, high = low or 0, (high or 0) + 1
    while low < high:
        middle = (low + high) // 2
        near = f"SELECT id, created_on FROM {MESSAGE} WHERE id >= %s ORDER BY id LIMIT 1"
        found = sql.fetch(db, near, middle)
        if found and (found[0][1] or 0.0) < moment:
            low = found[0][0] + 1
        else:
            high = middle
    return int(low)


def _start(day: str | None) -> float | None:
    """When a day begins, epoch seconds; None: it is no day."""
    if day is None:
        return None
    try:
        return datetime.datetime.strptime(day, "%Y-%m-%d").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _readable(text: str | None) -> str | None:
    shown = "".join(letter for letter in text or "" if letter.isprintable()).strip()
    return shown[:LONGEST] or None

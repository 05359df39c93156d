"""Figures of the last hour, day and week, and how things stand now. Nothing here writes.

Everything is bounded: a page costs the same however much history there is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import database, sql, words
from .selection import LONGEST
from .tables import ATTEMPT, CONTENT, MESSAGE, TRANSPORT, WORKER

MOST_ATTEMPTS = 50_000  # that are counted, the latest ones
MOST_FAILURES = 2000  # messages that are grouped by their errors
MOST_GROUPS = 20
MOST_LATENCIES = 500  # messages that the latency is taken from

_CODES = re.compile(r"\d{3}( \d\.\d+\.\d+)?\W*")
_ADDRESS = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?")

SHOWN = (words.SENT, words.DEFERRED, words.FAILED, words.IN_DOUBT)


@dataclass(frozen=True)
class Span:
    """A stretch of time up to now, in parts of equal length.

    Args:
        name: for people.
        part: seconds.
        parts: how many.
    """

    name: str
    part: float
    parts: int

    @property
    def length(self) -> float:
        """Seconds."""
        return self.part * self.parts


SPANS = (Span("hour", 300.0, 12), Span("day", 3600.0, 24), Span("week", 86400.0, 7))


@dataclass(frozen=True)
class Counts:
    """The outcomes of attempts in a span.

    Attributes:
        span: which.
        parts: for each part, the first first, how many attempts ended in which status.
        complete: False where there were more than could be counted, so that the first parts lack some.
    """

    span: Span
    parts: tuple[dict[str, int], ...]
    complete: bool

    def total(self, status: str) -> int:
        """How many attempts ended in a status."""
        return sum(part.get(status, 0) for part in self.parts)


def counts(db: Any, now: float, spans: Sequence[Span] = SPANS) -> list[Counts]:
    """How many attempts ended how, a recipient each, in each part of these spans.

    All are read once, in the parts of the first span: those of the others are multiples of them.
    """
    ((newest,),) = sql.fetch(db, f"SELECT MAX(id) FROM {ATTEMPT}")
    begin, oldest = now - max(span.length for span in spans), (newest or 0) - MOST_ATTEMPTS
    place = f"(started_on - %s) / {spans[0].part}"
    # To a whole number: a cast rounds on some databases, and some releases of SQLite have no FLOOR.
    place = f"CAST({place} AS INTEGER)" if database.engine(db) == database.SQLITE else f"FLOOR({place})"
    asked = f"SELECT {place} AS place, outcome, COUNT(*) FROM {ATTEMPT} WHERE id > %s AND started_on >= %s"
    found = sql.fetch(db, f"{asked} GROUP BY place, outcome", begin, oldest, begin)
    return [
        Counts(
            span,
            _parts(span, begin, now, spans[0].part, found),
            _reaches_back(db, oldest, now - span.length),
        )
        for span in spans
    ]


def _parts(
    span: Span, begin: float, now: float, width: float, found: Sequence[tuple[Any, ...]]
) -> tuple[dict[str, int], ...]:
    """What was found in places of this width, from `begin` on, put together to the parts of a span."""
    parts: tuple[dict[str, int], ...] = tuple({} for _ in range(span.parts))
    before = round((now - span.length - begin) / width)
    for where, outcome, number in found:
        place = int((int(where) - before) // (span.part / width))
        if place >= 0:
            part = parts[min(place, span.parts - 1)]  # a clock may be ahead
            part[outcome] = part.get(outcome, 0) + number
    return parts


def _reaches_back(db: Any, oldest: int, begin: float) -> bool:
    """Whether the attempts up to this id were made before the span began."""
    near = f"SELECT started_on FROM {ATTEMPT} WHERE id <= %s ORDER BY id DESC LIMIT 1"
    found = sql.fetch(db, near, oldest)
    return not found or (found[0][0] or 0.0) < begin


def latencies(db: Any) -> tuple[float, float] | None:
    """Of the last messages that were sent, after how many seconds half of them, and 95 of 100, were.

    Returns:
        None where none was sent.
    """
    latest = f"status = %s ORDER BY id DESC LIMIT {MOST_LATENCIES}"
    asked = f"SELECT created_on, finished_on FROM {MESSAGE} WHERE {latest}"
    taken = sorted(
        finished_on - created_on
        for created_on, finished_on in sql.fetch(db, asked, words.SENT)
        if created_on is not None and finished_on is not None
    )
    if not taken:
        return None
    return taken[(len(taken) - 1) // 2], taken[(len(taken) - 1) * 95 // 100]


@dataclass(frozen=True)
class Failures:
    """Messages that failed with the same error.

    Attributes:
        error: the server's words, with "…" for addresses.
        part: of the error, as it stands in every one of them; for a Selection.
        number: how many.
        has_content: whether any of them can be sent again.
    """

    error: str
    part: str
    number: int
    has_content: bool


def failures(db: Any) -> list[Failures]:
    """The last messages that failed, by their errors, the most frequent first."""
    content = f"EXISTS (SELECT 1 FROM {CONTENT} c WHERE c.message_ref = m.id)"
    latest = f"m.status = %s ORDER BY m.id DESC LIMIT {MOST_FAILURES}"
    rows = sql.fetch(db, f"SELECT m.error, {content} FROM {MESSAGE} m WHERE {latest}", words.FAILED)
    told = [(_ADDRESS.sub("…", error).strip(), has_content) for error, has_content in rows if error]
    alike = Counter(error for error, _ in told)
    with_content = {error for error, has_content in told if has_content}
    return [
        Failures(error, _part_of(error), number, error in with_content)
        for error, number in alike.most_common(MOST_GROUPS)
    ]


def _part_of(error: str) -> str:
    """The piece of an error that tells most: of its codes alone there are too many others."""
    pieces = [piece.strip() for piece in error.split("…")]
    telling = [piece for piece in pieces if piece and not _CODES.fullmatch(piece)]
    return max(telling or pieces, key=len)[:LONGEST]


def workers(db: Any) -> list[dict[str, Any]]:
    """Who is at work: the rows of the workers, the latest first."""
    table = db[WORKER]
    rows: list[dict[str, Any]] = db(table.id > 0).select(orderby=~table.id, limitby=(0, 50)).as_list()
    return rows


def transports(db: Any) -> list[dict[str, Any]]:
    """Every way out that was used: the rows of the transports, paused ones first."""
    table = db[TRANSPORT]
    rows: list[dict[str, Any]] = db(table.id > 0).select(orderby=table.name, limitby=(0, 50)).as_list()
    return sorted(rows, key=lambda row: row["paused_on"] is None)

"""One page of a list of messages, whose cost does not grow with the history.

Pages begin where others ended, by id. Where many messages have to be looked at, a page is what was found
until PATIENCE is over: it may be empty while older ones are not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from . import queries
from .finding import Search
from .selection import Selection

PATIENCE = 0.04  # seconds after which no further step is taken


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        rows: of queries.listed(), the newest first.
        newer: the id that the page of newer messages comes after; None: there is none.
        older: the id that the page of older messages comes before; None: there is none.
    """

    rows: list[dict[str, Any]]
    newer: int | None
    older: int | None


def page(db: Any, selection: Selection, *, before: int | None, after: int | None, size: int) -> Page:
    """The page of messages older than `before`, or of those next newer than `after`; or the newest ones.

    Args:
        size: how many rows at most.
    """
    search, ids, further = Search(db, selection), list[int](), before
    end = time.monotonic() + PATIENCE
    for found in search.steps(limit=size + 1, before=before, after=after):
        ids, further = ids + found.ids, found.beyond
        if len(ids) > size or time.monotonic() > end:
            break
    rows = queries.listed(db, ids[:size])
    further = ids[size - 1] if len(ids) > size else further
    if after is not None:
        return Page(rows, further, rows[-1]["id"] if rows else after + 1)
    back = None if before is None else rows[0]["id"] if rows else before - 1
    return Page(rows, back, further)

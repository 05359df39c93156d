"""The page of the messages, the newest first, by whatever somebody looks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import paging, queries, words
from ..selection import Selection, sharpened
from ..told import Told
from .buttons import buttons
from .parts import Parts, number

ROWS = 50  # messages on one page
OTHER_VARIABLES = frozenset({"before", "after"})


class Messages:
    """The list of messages.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts = parts

    def page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """The messages that the variables of the URL ask for, the newest first."""
        db = self._parts.mail.db
        chosen = sharpened(db, Selection.of(asked))
        before, after = (number(asked.get(name)) for name in ("before", "after"))
        page = paging.page(db, chosen, before=before, after=after, size=ROWS)
        here = {**chosen.query(), "before": before, "after": after}
        return {
            "export": self._export(chosen),
            "transports": queries.transports(db),
            "kinds": words.FAILURE_KINDS,
            "chosen": chosen,
            "counts": queries.counts_up_to_a_bound(db),
            "rows": [{**row, "buttons": buttons(self._parts, row, back="list", **here)} for row in page.rows],
            "newer": page.newer,
            "older": page.older,
        }

    def misread(self, asked: Mapping[str, str]) -> str:
        """What to tell of variables that are left out; "" where all are understood."""
        misread = Selection.misread(asked, OTHER_VARIABLES)
        told = Told("This filter is not understood, and left out: {parts}", parts=", ".join(misread))
        return self._parts.say(told) if misread else ""

    def _export(self, chosen: Selection) -> Any:
        url = self._parts.signed("export", **chosen.query())
        return self._parts.button("Export as CSV", "Export these messages as CSV", url)


def way_back(parts: Parts, asked: Mapping[str, str]) -> str:
    """The URL of the list that a button was pressed on, as its own URL says."""
    places = {name: asked.get(name) or None for name in ("before", "after")}
    return parts.link(**Selection.of(asked).query(), **places)

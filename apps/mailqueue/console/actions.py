"""The page of what administrators did."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .. import audit
from ..administration import STORED
from ..replies import MEANINGS
from ..selection import Selection
from ..told import Told
from .parts import Parts, number

ROWS = 100  # entries on one page
# Between two filters of a selection in words; what somebody looked for may hold a comma itself.
_BETWEEN = re.compile(f", (?=(?:{'|'.join(Selection.__dataclass_fields__)}): )")


class Actions:
    """Who did what, and when.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts = parts

    def page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """The latest entries first, or those before the one that the variables of the URL name."""
        before = number(asked.get("before"))
        rows = audit.latest(self._parts.mail.db, before, ROWS + 1)
        return {
            "rows": [{**row, "detail": self._detail(row)} for row in rows[:ROWS]],
            "labels": audit.LABELS,
            "older": rows[ROWS - 1]["id"] if len(rows) > ROWS else None,
            "newest": before is None,
        }

    def _detail(self, row: dict[str, Any]) -> str:
        """What is recorded besides, in the language of this request."""
        say, detail = self._parts.say, row["detail"] or ""
        if row["action_name"] in (audit.ADD_RULE, audit.REMOVE_RULE):
            looked_for, _, meaning = detail.rpartition(" → ")
            return f"{looked_for} → {say(MEANINGS.get(meaning, meaning))}"
        if row["action_name"] == audit.EXPORT:
            return self._which(detail)
        told = Told.read(detail, STORED)
        if isinstance(told, Told) and "which" in told.values:
            return say(told, which=self._which(told.values["which"]))
        return say(told)

    def _which(self, selection: str) -> str:
        """A selection that was stored in words."""
        if selection == str(Selection()):
            return self._parts.say(selection)
        asked = dict(part.partition(": ")[::2] for part in _BETWEEN.split(selection))
        return ", ".join(f"{name}: {value}" for name, value in self._parts.filters(asked))

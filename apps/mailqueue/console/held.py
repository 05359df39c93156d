"""The page of what is held back for a limit, or because a server asked for less mail."""

from __future__ import annotations

from typing import Any

from .. import administration, queries
from ..told import Told
from .parts import Parts


class Held:
    """What is held back.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts = parts

    def page(self) -> dict[str, Any]:
        """What is held back, and why."""
        rows = queries.held_back(self._parts.mail.db, self._parts.now())
        return {"rows": [{**row, "button": self._button(row)} for row in rows]}

    def forget(self, lesson_id: int) -> tuple[bool, str]:
        """Forget what a server's replies taught. Whether there was anything, and what to tell."""
        return administration.forget(self._parts.mail, lesson_id, self._parts.whose())

    def _button(self, row: dict[str, Any]) -> Any:
        """What forgets the lesson of a row; "" where there is none."""
        if not row["lesson"]:
            return ""
        name = Told("Forget what {name} taught", name=administration.held_name(row["name"]))
        url = self._parts.signed("held", row["lesson"]["id"], "forget")
        return self._parts.button("Forget", name, url)

"""The page of what is held back for a limit, or because a server asked for less mail."""

from __future__ import annotations

from typing import Any

from ... import administration, queries
from ...told import Told
from .frame import Console

PAGES = {"held": "/held"}
FORGET = "/held/<lesson_id:int>/forget"


class HeldPage:
    """What is held back.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console

    def mount(self) -> None:
        """Bind the page and its verb in the app that is being loaded."""
        self._console.mount_page(PAGES["held"], self.held, "held.html", "held")
        self._console.mount_verb(FORGET, self.forget, lambda lesson_id: self._console.link("held"))

    def held(self) -> dict[str, Any]:
        """What is held back, and why."""
        rows = queries.held_back(self._console.mail.db, self._console.now())
        return {"rows": [{**row, "button": self._button(row)} for row in rows]}

    def forget(self, lesson_id: int) -> tuple[bool, str]:
        """Forget what a server's replies taught. Whether there was anything, and what to tell."""
        return administration.forget(self._console.mail, lesson_id, self._console.whose())

    def _button(self, row: dict[str, Any]) -> Any:
        """What forgets the lesson of a row; "" where there is none."""
        if not row["lesson"]:
            return ""
        name = Told("Forget what {name} taught", name=administration.held_name(row["name"]))
        url = self._console.signed("held", row["lesson"]["id"], "forget")
        return self._console.button("Forget", name, url)

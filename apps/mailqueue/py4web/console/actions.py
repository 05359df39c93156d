"""The page of what administrators did, mounted."""

from __future__ import annotations

from typing import Any

from py4web import request

from ...console.actions import Actions
from .frame import Console

PAGES = {"actions": "/actions"}


class ActionsPage:
    """Who did what, and when.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._actions = Actions(console)

    def mount(self) -> None:
        """Bind the page in the app that is being loaded."""
        self._console.mount_page(PAGES["actions"], self.actions, "actions.html", "actions")

    def actions(self) -> dict[str, Any]:
        """The latest entries first."""
        return self._actions.page(request.query)

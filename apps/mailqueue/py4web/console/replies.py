"""The page of what replies mean, mounted."""

from __future__ import annotations

from typing import Any

from py4web import request

from ...console.replies import Replies
from .frame import Console

PAGES = {"replies": "/replies"}
TRY = "/replies/try"
ADD = "/replies/add"
REMOVE = "/replies/<rule_id:int>/remove"


class RepliesPage:
    """What replies mean.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._replies = Replies(console)

    def mount(self) -> None:
        """Bind the page and its verbs in the app that is being loaded."""
        mount, back = self._console.mount_verb, self._way_back
        self._console.mount_page(PAGES["replies"], self._replies.page, "replies.html", "replies")
        self._console.mount_asked(TRY, self.tried, "replies.html", "replies")
        self._console.mount_refusal(TRY, back)
        mount(ADD, self.add, back)
        mount(REMOVE, self._replies.remove, back)

    def _way_back(self, *_numbers: int) -> str:
        return self._console.link("replies")

    def tried(self) -> dict[str, Any]:
        """The page, with what came of trying a reply."""
        return self._replies.tried(request.forms)

    def add(self) -> tuple[bool, str]:
        """Add a rule. Whether it changed anything, and what to tell."""
        return self._replies.add(request.forms)

"""The page of the messages, mounted."""

from __future__ import annotations

from typing import Any

from py4web import request

from ...console.messages import Messages
from .frame import Console

PAGES = {"messages": ""}


class MessagesPage:
    """The list of messages.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._messages = Messages(console)

    def mount(self) -> None:
        """Bind the page in the app that is being loaded."""
        self._console.mount_page(PAGES["messages"], self.messages, "messages.html", "messages")

    def messages(self) -> dict[str, Any]:
        """The messages by whatever is asked for, the newest first."""
        if misread := self._messages.misread(request.query):
            self._console.flash(misread, False)
        return self._messages.page(request.query)

"""The pages of one message, mounted; and its content."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from py4web import redirect, request

from ...console.content import Content
from ...console.message import VERBS, Message
from .frame import Console

PAGES = {"message": "/message/<message_id:int>", "content": "/message/<message_id:int>/content"}
CORRECT = "/message/<message_id:int>/recipient/<recipient_id:int>/correct"


class MessagePages:
    """One message, and its content.

    Args:
        console: what they are mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._message, self._content = Message(console), Content(console)

    def mount(self) -> None:
        """Bind the pages and their verbs in the app that is being loaded."""
        self._console.mount_page(PAGES["message"], self._message.page, "message.html", "messages")
        self._console.mount_acting_page(PAGES["content"], self._content.page, "content.html", "messages")
        self._console.mount_asked(PAGES["content"], self.content_asked_for, "content.html", "messages")
        self._console.mount_asked(CORRECT, self.correct, "message.html", "messages")
        self._console.mount_refusal(CORRECT, lambda message_id, recipient_id: self._way_back(message_id))
        for verb in VERBS:
            self._console.mount_verb(f"{PAGES['message']}/{verb}", self._doing(verb), self._way_back)

    def _doing(self, verb: str) -> Callable[[int], tuple[bool, str]]:
        return lambda message_id: self._message.do(verb, message_id, request.forms)

    def _way_back(self, message_id: int) -> str:
        return self._message.way_back(message_id, request.query)

    def correct(self, message_id: int, recipient_id: int) -> dict[str, Any]:
        """Give a recipient another address, and send to it; the page with what was typed, if it cannot be."""
        shown = self._message.correct(message_id, recipient_id, request.forms)
        return shown or redirect(self._way_back(message_id))

    def content_asked_for(self, message_id: int) -> dict[str, Any]:
        """The text of one message, for whoever asked for it; that is recorded."""
        self._console.shows_mail()
        return self._content.asked_for(message_id)

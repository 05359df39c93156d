"""The pages of one message, mounted; and its content."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from py4web import redirect, request

from ... import administration
from ...console.message import VERBS, Message
from ...told import Told
from .frame import Console

PAGES = {"message": "/message/<message_id:int>", "content": "/message/<message_id:int>/content"}
CONTENT_TITLE = "Content of message {number}: {subject}"
CORRECT = "/message/<message_id:int>/recipient/<recipient_id:int>/correct"


class MessagePages:
    """One message, and its content.

    Args:
        console: what they are mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._mail = console.mail
        self._message = Message(console)

    def mount(self) -> None:
        """Bind the pages and their verbs in the app that is being loaded."""
        self._console.mount_page(PAGES["message"], self.message, "message.html", "messages")
        self._console.mount_acting_page(PAGES["content"], self.content, "content.html", "messages")
        self._console.mount_asked(PAGES["content"], self.content_asked_for, "content.html", "messages")
        self._console.mount_asked(CORRECT, self.correct, "message.html", "messages")
        self._console.mount_refusal(CORRECT, lambda message_id, recipient_id: self._way_back(message_id))
        for verb in VERBS:
            self._console.mount_verb(f"{PAGES['message']}/{verb}", self._doing(verb), self._way_back)

    def _doing(self, verb: str) -> Callable[[int], tuple[bool, str]]:
        return lambda message_id: self._message.do(verb, message_id, request.forms)

    def _way_back(self, message_id: int) -> str:
        return self._message.way_back(message_id, request.query)

    # --- pages -----------------------------------------------------------------------------

    def message(self, message_id: int) -> dict[str, Any]:
        """One message with its recipients and attempts, without its text."""
        return self._with_content(self._message.page(message_id))

    def _with_content(self, page: dict[str, Any]) -> dict[str, Any]:
        """The page with the button that asks for the content, where there is one."""
        show = self._show_button(page["message"])
        return {**page, "further": [show, *page["further"]] if show else page["further"]}

    def correct(self, message_id: int, recipient_id: int) -> dict[str, Any]:
        """Give a recipient another address, and send to it; the page with what was typed, if it cannot be."""
        shown = self._message.correct(message_id, recipient_id, request.forms)
        return self._with_content(shown) if shown else redirect(self._way_back(message_id))

    def content(self, message_id: int) -> dict[str, Any]:
        """Where the text of one message can be asked for."""
        message = self._message.found(message_id)
        title = self._message.title(CONTENT_TITLE, message)
        return {"title": title, "message": message, "content": None, "button": self._show_button(message)}

    def content_asked_for(self, message_id: int) -> dict[str, Any]:
        """The text of one message, for whoever asked for it; that is recorded."""
        message = self._message.found(message_id)
        self._console.shows_mail()
        mime = administration.show_content(self._mail, message_id, self._console.whose())
        content = _readable(mime) if mime is not None else None
        return {
            "title": self._message.title(CONTENT_TITLE, message),
            "message": message,
            "content": content,
            "button": "",
        }

    def _show_button(self, message: dict[str, Any]) -> Any:
        """What asks for the content; "" where there is none any more."""
        if not message["has_content"]:
            return ""
        url = self._console.signed("message", message["id"], "content")
        return self._console.button(
            "Show content", Told("Show the content of message {number}", number=message["id"]), url
        )


def _readable(mime: bytes) -> dict[str, Any]:
    """The decoded headers and parts of a mail."""
    mail = message_from_bytes(mime, _class=EmailMessage, policy=policy.default)
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    return {
        "headers": [(name, str(value)) for name, value in mail.items()],
        "text": text.get_content() if text else None,
        "html": html.get_content() if html else None,
        "attachments": [
            (part.get_filename() or "?", part.get_content_type()) for part in mail.iter_attachments()
        ],
    }

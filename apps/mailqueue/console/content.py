"""The page of what one message says: shown to whoever asks for it, and that is recorded."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from .. import administration
from .buttons import content_button
from .message import Message
from .parts import Parts

TITLE = "Content of message {number}: {subject}"


class Content:
    """What a message says.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts, self._message = parts, Message(parts)

    def page(self, message_id: int) -> dict[str, Any]:
        """Where it can be asked for.

        Raises:
            Exception: Parts.refusal(): there is no such message.
        """
        message = self._message.found(message_id)
        return self._page(message, None, content_button(self._parts, message))

    def asked_for(self, message_id: int) -> dict[str, Any]:
        """What the message says, for whoever asked for it; that is recorded.

        Raises:
            Exception: Parts.refusal(): there is no such message.
        """
        message = self._message.found(message_id)
        mime = administration.show_content(self._parts.mail, message_id, self._parts.whose())
        return self._page(message, _readable(mime) if mime is not None else None, "")

    def _page(self, message: dict[str, Any], content: dict[str, Any] | None, button: Any) -> dict[str, Any]:
        title = self._message.title(TITLE, message)
        return {"title": title, "message": message, "content": content, "button": button}


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

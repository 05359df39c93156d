"""The buttons of a message, on whichever page it is."""

from __future__ import annotations

from typing import Any

from ..administration import verbs_for
from ..told import Told
from .parts import Parts

# What a button does, for those who do not see what stands around it.
MESSAGE_BUTTONS = {
    "retry": "Retry message {number}",
    "arrived": "It arrived: message {number}",
    "cancel": "Cancel message {number}",
}


def buttons(parts: Parts, message: dict[str, Any], **query: Any) -> list[Any]:
    """What can be done with a message now; `query` goes with the signed URL."""
    return [
        parts.button(
            label,
            Told(MESSAGE_BUTTONS[verb], number=message["id"]),
            parts.signed("message", message["id"], verb, **query),
            verb,
        )
        for verb, label in verbs_for(message)
    ]


def content_button(parts: Parts, message: dict[str, Any]) -> Any:
    """What asks for the content of a message; "" where there is none any more."""
    if not message["has_content"]:
        return ""
    name = Told("Show the content of message {number}", number=message["id"])
    return parts.button("Show content", name, parts.signed("message", message["id"], "content"))

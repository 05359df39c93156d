"""The page of one message: what became of it, and what can be done with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yatl.helpers import INPUT, OPTION, SELECT, P

from .. import administration, audit, outbox, queries, words
from ..stoppages import is_held_up
from ..timeline import next_step, timeline
from ..told import Told
from .buttons import buttons, content_button
from .messages import way_back
from .parts import Parts, posted
from .refusals import NO_ACTION, Refusal

TITLE = "Message {number}: {subject}"
# Each is a POST below a message's page.
VERBS = ("retry", "cancel", "arrived", "copy", "over")
LONGEST_ADDRESS = 320  # characters
_DO = {
    "retry": administration.retry,
    "cancel": administration.cancel,
    "arrived": administration.arrived,
    "copy": administration.send_copy,
}
_NO_MESSAGE = Refusal(
    404,
    "There is no message with this number, or not any more.",
    "Messages are deleted when their time is over. Look for it by its recipient or its subject.",
)
_COMPLAINT = "mq-complaint"  # the id of what is said of a mistyped address
_MISTYPED = {"_aria-invalid": "true", "_aria-describedby": _COMPLAINT, "_autofocus": True}


class Message:
    """One message.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts, self._mail = parts, parts.mail

    def page(self, message_id: int) -> dict[str, Any]:
        """One message with its recipients and attempts, without its text.

        Raises:
            Exception: Parts.refusal(): there is none.
        """
        message, now = self.found(message_id), self._parts.now()
        held_up = is_held_up(self._mail, message)
        return {
            "title": self.title(TITLE, message),
            "message": message,
            "meaning": administration.meaning(message, held_up, now),
            "buttons": buttons(self._parts, message),
            "further": self._further(message),
            "corrections": self._corrections(message),
            "mistyped": None,
            "events": timeline(message, audit.of_message(self._mail.db, message_id)),
            "next_step": next_step(message, held_up, now),
        }

    def found(self, message_id: int) -> dict[str, Any]:
        """The message of this number.

        Raises:
            Exception: Parts.refusal(): there is none.
        """
        message: dict[str, Any] | None = queries.message(self._mail.db, message_id)
        if message is None:
            raise self._parts.refusal(_NO_MESSAGE)
        return message

    def title(self, text: str, message: dict[str, Any]) -> Told:
        """What a page of a message is called, by its stored subject, in which codes are hidden."""
        subject = message["subject"] or Told("(no subject)")
        return Told(text, number=message["id"], subject=subject)

    def way_back(self, message_id: int, asked: Mapping[str, str]) -> str:
        """Where to go from a verb, as the variables of its URL say: to the list, or the message's page."""
        if asked.get("back") == "list":
            return way_back(self._parts, asked)
        return self._parts.link("message", message_id)

    # --- what can be done ------------------------------------------------------------------

    def _further(self, message: dict[str, Any]) -> list[Any]:
        """The buttons that are on the page of one message only."""
        if not message["has_content"]:
            return []
        name = Told("Send a copy of message {number} to me", number=message["id"])
        copy = self._parts.button(
            "Send me a copy", name, self._parts.signed("message", message["id"], "copy")
        )
        return [content_button(self._parts, message), copy, *self._over_another(message)]

    def _over_another(self, message: dict[str, Any]) -> list[Any]:
        """The form that retries over a transport of one's choice, where there are several."""
        names = self._mail.transport_names()
        if len(names) < 2 or message["status"] not in words.RETRYABLE or not self._parts.may_act():
            return []
        label = self._parts.say("Transport for the next attempt")
        others = sorted(names, key=lambda name: name == message["transport"])  # the last one at the end
        choice = SELECT(*[OPTION(name) for name in others], _name="over", **{"_aria-label": label})
        url = self._parts.signed("message", message["id"], "over")
        name = Told("Retry message {number} over the chosen transport", number=message["id"])
        return [self._parts.button("Retry over", name, url, "over", choice)]

    def _corrections(self, message: dict[str, Any]) -> dict[int, Any]:
        """Of each recipient whose address may be corrected, the form that does it."""
        if not message["has_content"] or not self._parts.may_act():
            return {}
        return {
            row["id"]: self._correction(message["id"], row, row["address"])
            for row in message["recipients_list"]
            if row["status"] in outbox.CORRECTABLE
        }

    def _correction(
        self, message_id: int, row: dict[str, Any], typed: str, *before: Any, **attributes: Any
    ) -> Any:
        """The form that gives a recipient another address.

        Args:
            message_id: the message.
            row: the recipient.
            typed: the address as it stands in the field.
            before: what stands before the field.
            attributes: further ones of the field.
        """
        url = self._parts.signed("message", message_id, "recipient", row["id"], "correct")
        name = self._parts.say("Another address for {address}", address=row["address"])
        told = {"_aria-label": name, "_maxlength": LONGEST_ADDRESS, **attributes}
        field = INPUT(_name="address", _value=typed, _class="mq-field", _required=True, **told)
        return self._parts.button(
            "Correct and retry",
            Told("Correct {address} and retry", address=row["address"]),
            url,
            "",
            *before,
            field,
        )

    # --- verbs -----------------------------------------------------------------------------

    def do(self, verb: str, message_id: int, given: Mapping[str, Any]) -> tuple[bool, str]:
        """What a button asks for. Whether it changed anything, and what to tell.

        Args:
            verb: one of VERBS.
            message_id: the message.
            given: what was posted; for "over", the name of a transport under "over".

        Raises:
            Exception: Parts.refusal(): there is no such verb.
        """
        if verb not in VERBS:
            raise self._parts.refusal(NO_ACTION)
        if verb == "over":
            chosen = posted(given, "over")
            return administration.retry_over(self._mail, message_id, chosen, self._parts.whose())
        return _DO[verb](self._mail, message_id, self._parts.whose())

    def correct(self, message_id: int, recipient_id: int, given: Mapping[str, Any]) -> dict[str, Any] | None:
        """Give a recipient another address, and send to it.

        Args:
            message_id: the message.
            recipient_id: of it.
            given: what was posted, with the address under "address".

        Returns:
            The page with what was typed, where that is no address; None: the next page tells what was done.
        """
        typed = posted(given, "address").strip()
        changed, told = administration.correct(
            self._mail, message_id, recipient_id, typed, self._parts.whose()
        )
        shown = self.page(message_id)
        if changed or recipient_id not in shown["corrections"]:
            self._parts.flash(told, changed)
            return None
        row = next(one for one in shown["message"]["recipients_list"] if one["id"] == recipient_id)
        complaint = P(self._parts.say(told), _id=_COMPLAINT, _class="mq-note", _role="alert")
        form = self._correction(message_id, row, typed[:LONGEST_ADDRESS], complaint, **_MISTYPED)
        return {**shown, "corrections": {**shown["corrections"], recipient_id: form}, "mistyped": row["id"]}

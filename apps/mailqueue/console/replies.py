"""The page of what replies mean: trying one, the site's own rules, and the replies that no rule knew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import own_rules, pasted, replies, rulebook, words
from ..told import Told
from .parts import Parts, posted

STAGES = {
    words.CONNECT: "connecting",
    words.BANNER: "the greeting",
    words.EHLO: "EHLO",
    words.STARTTLS: "STARTTLS",
    words.TLS: "encryption",
    words.AUTH: "the login",
    words.MAIL: "MAIL FROM",
    words.RCPT: "RCPT TO",
    words.DATA: "DATA and the text",
    words.DOT: "the end of the text",
}
_OF_A_RULE = ("stage", "code", "enhanced", "text", "meaning")  # fields of its form


class Replies:
    """What replies mean.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts, self._mail = parts, parts.mail

    def page(self) -> dict[str, Any]:
        """The form to try a reply, the rules, and what no rule knew."""
        db = self._mail.db
        return {
            "stages": STAGES,
            "stage": words.RCPT,
            "pasted": "",
            "longest": pasted.LONGEST,
            "yes": False,
            "verdict": None,
            "meanings": replies.MEANINGS,
            "offered": own_rules.MEANINGS,
            "try_url": self._parts.signed("replies", "try"),
            "add_url": self._parts.signed("replies", "add"),
            "rules": [{**row, "button": self._remove_button(row)} for row in rulebook.rows(db)],
            "unknown": rulebook.unknown(db),
        }

    def tried(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The same, with what came of trying a reply.

        Args:
            given: "stage" and "text", as they were posted.
        """
        stage, text = posted(given, "stage"), posted(given, "text")
        yes = pasted.is_yes(stage, text)
        verdict = replies.try_out(self._mail, stage, text) if text.strip() and not yes else None
        shown = text[: pasted.LONGEST]
        return {**self.page(), "stage": stage, "pasted": shown, "yes": yes, "verdict": verdict}

    def _remove_button(self, row: dict[str, Any]) -> Any:
        name = Told("Remove the rule for {words}", words=row["reply_text"] or "")
        return self._parts.button("Remove", name, self._parts.signed("replies", row["id"], "remove"))

    # --- verbs -----------------------------------------------------------------------------

    def add(self, given: Mapping[str, Any]) -> tuple[bool, str]:
        """Add a rule. Whether it changed anything, and what to tell.

        Args:
            given: its fields, as they were posted.
        """
        fields = {name: posted(given, name) for name in _OF_A_RULE}
        return replies.add_rule(self._mail, fields, self._parts.whose())

    def remove(self, rule_id: int) -> tuple[bool, str]:
        """Remove a rule. Whether it changed anything, and what to tell."""
        return replies.remove_rule(self._mail, rule_id, self._parts.whose())

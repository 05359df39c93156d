"""The page of the accounts that wait for approval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yatl.helpers import INPUT

from ..pending_accounts import PendingAccounts
from ..told import Told
from .parts import Parts, posted

LONGEST_NOTE = 1000  # characters
_NOTHING = "Nothing was changed: this account waits for no decision any more."


class Accounts:
    """Pending accounts.

    Args:
        parts: what the page is put together from.
        approval: what is decided on it.
    """

    def __init__(self, parts: Parts, approval: PendingAccounts):
        self._parts, self._approval = parts, approval

    def page(self) -> dict[str, Any]:
        """The accounts that wait for approval, the oldest first."""
        return {"rows": [{**row, "buttons": self._buttons(row)} for row in self._approval.pending()]}

    def approve(self, account: int) -> tuple[bool, str]:
        """Let somebody in. Whether it changed anything, and what to tell."""
        if not self._approval.approve(account, self._parts.whose()):
            return False, _NOTHING
        return True, "The account is approved; its owner is told by mail."

    def decline(self, account: int, given: Mapping[str, Any]) -> tuple[bool, str]:
        """Decline somebody. Whether it changed anything, and what to tell.

        Args:
            account: its row.
            given: what was posted, with a note to them under "note".
        """
        if not self._approval.decline(account, self._parts.whose(), note(given)):
            return False, _NOTHING
        return True, "The account is declined and blocked; its owner is told by mail."

    def _buttons(self, row: dict[str, Any]) -> list[Any]:
        """The two buttons of a pending account."""
        say = self._parts.say
        told = {"_aria-label": say("A note to {email}", email=row["email"]), "_maxlength": LONGEST_NOTE}
        field = INPUT(_name="note", _class="mq-field", _placeholder=say("a note, if you like"), **told)
        return [self._button(row, "approve", "Approve"), self._button(row, "decline", "Decline", field)]

    def _button(self, row: dict[str, Any], verb: str, label: str, *more: Any) -> Any:
        name = Told(f"{label} {{email}}", email=row["email"])
        url = self._parts.signed("accounts", row["id"], verb)
        return self._parts.button(label, name, url, verb, *more)


def note(given: Mapping[str, Any]) -> str:
    """The note of a form to decline somebody."""
    return posted(given, "note").strip()[:LONGEST_NOTE]

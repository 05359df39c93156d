"""The pages on which accounts are approved: those of the links in mails, and the administrator's list.

Mail scanners open links, so a link only shows who and what; the button on its page acts. No login is needed
there: the token in the link is the right to decide.
"""

from __future__ import annotations

from typing import Any

from gluon import current, redirect
from gluon.html import BR, BUTTON, DIV, FORM, H2, LABEL, TEXTAREA, URL, P

from ..console.accounts import LONGEST_NOTE, Accounts, note
from ..console.parts import number
from ..console.refusals import NO_ACTION
from ..pending_accounts import (
    APPROVE,
    BUTTONS,
    DECLINE,
    EFFECTS,
    NOTE,
    PRIVATE,
    QUESTIONS,
    Standing,
    heading,
    name_of,
    page_status,
    told,
)
from .approval import Approval
from .console import Console


class ApprovalPages:
    """The pages of one application, in one request.

    Args:
        approval: what is decided on them.
        console: the frame of the administrator's pages.
    """

    def __init__(self, approval: Approval, console: Console):
        self._approval, self.console = approval, console

    # --- behind the links ------------------------------------------------------------------

    def approve(self) -> dict[str, Any]:
        """Where the link to approve leads."""
        return self._decide(APPROVE)

    def decline(self) -> dict[str, Any]:
        """Where the link to decline leads."""
        label = self.console.say(NOTE)
        field = LABEL(label, BR(), TEXTAREA(_name="note", _rows="4", _maxlength=LONGEST_NOTE))
        return self._decide(DECLINE, P(field))

    def _decide(self, verb: str, *more: Any) -> dict[str, Any]:
        say = self.console.say
        standing = self._approval.standing(current.request.args(0) or "")
        current.response.headers.update({**PRIVATE, "Content-Language": self.console.language_tag})
        current.response.view = "plugin_mailqueue/page.html"
        if standing.obstacle:
            current.response.status = page_status(standing)
            told_what = DIV(H2(say(heading(standing))), P(say(told(standing))), _class="plugin-mailqueue")
            return {"page": told_what}
        form = FORM(P(say(EFFECTS[verb])), *more, BUTTON(say(BUTTONS[verb]), _type="submit"))
        if form.process(formname="mailqueue_decision", message_onsuccess="").accepted:
            self._act(verb, standing)
            redirect(URL(args=current.request.args))  # which says what came of it
        who = f"{name_of(standing.applicant)} <{standing.applicant.email}>"
        return {"page": DIV(H2(say(QUESTIONS[verb])), P(who), form, _class="plugin-mailqueue")}

    def _act(self, verb: str, standing: Standing) -> None:
        asked = standing.asked
        if asked is None:
            return
        if verb == APPROVE:
            self._approval.approve(asked.account, asked.approver)
        else:
            self._approval.decline(asked.account, asked.approver, note(current.request.post_vars))

    # --- the list --------------------------------------------------------------------------

    def accounts(self) -> dict[str, Any]:
        """The accounts that wait for approval, the oldest first."""
        self.console.admit()
        content, args = Accounts(self.console, self._approval), current.request.args
        if not args:
            return self.console.page("accounts", "accounts", content.page())
        self.console.hold_to_buttons()
        account = number(args(0)) or 0
        match args(1):
            case "approve":
                done = content.approve(account)
            case "decline":
                done = content.decline(account, current.request.post_vars)
            case _:
                raise self.console.refusal(NO_ACTION)
        raise self.console.done(done, self.console.link("accounts"))

"""The pages on which accounts are approved: those of the links in mails, and the administrator's list.

Mail scanners open links, so a link only shows who and what; the button on its page acts. No login is
needed there: the token in the link is the right to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from py4web import URL, action, redirect, request, response
from py4web.core import Translator

from ..console.accounts import LONGEST_NOTE, Accounts, note
from ..console.speech import Speech
from ..languages import Language
from ..pending_accounts import (
    APPROVE,
    BUTTONS,
    DECLINE,
    EFFECTS,
    INSTEAD,
    NOTE,
    PRIVATE,
    QUESTIONS,
    USED,
    Standing,
    heading,
    page_status,
    told,
)
from ..version import __version__
from .approval import Approval
from .console.frame import Console, app_folder, static, template
from .request import accepted_languages

ACCOUNTS = "/accounts"


class LinkPages(Speech):
    """The pages behind the links in approvers' mails. In the template it is `links`."""

    def __init__(self, mail: Any, auth: Any, uses: Sequence[Any], approval: Approval):
        super().__init__([app_folder() / "translations"])
        self._approval, self._route = approval, approval.route
        self._translator = next((fixture for fixture in uses if isinstance(fixture, Translator)), None)
        self._uses = [*uses, mail.db, auth]

    def mount(self) -> None:
        """Bind the pages in the app that is being loaded."""
        for verb, decide in ((APPROVE, self._approve), (DECLINE, self._decline)):
            self._mount(verb, decide)
        action(f"{self._route}/static/<fp:path>", method="GET")(static)

    def language(self) -> Language:
        """The one that whoever opens the link likes best."""
        return self.best_language(accepted_languages())

    def _mount(self, verb: str, decide: Callable[[Standing], Any]) -> None:
        def shown(token: str) -> dict[str, Any]:
            standing = self._approval.standing(token)
            # The language before the host's Translator says its own.
            for name, value in {**PRIVATE, "Content-Language": self.language_tag}.items():
                response.headers[name] = value
            response.status = page_status(standing)
            page = SimpleNamespace(
                verb=verb,
                standing=standing,
                heading=heading(standing) if standing.obstacle else QUESTIONS[verb],
                told=told(standing) or EFFECTS[verb],
                decided_here=standing.obstacle == USED,
                button=BUTTONS[verb],
                note=(NOTE, LONGEST_NOTE) if verb == DECLINE else None,
                instead=INSTEAD[verb],
                other=URL(self._route, DECLINE if verb == APPROVE else APPROVE, token),
            )
            title = self.say("Pending accounts")
            return {"links": self, "page": page, "title": title, "T": self._translator or str}

        def done(token: str) -> None:
            standing = self._approval.standing(token)
            if not standing.obstacle:
                decide(standing)
            redirect(URL(self._route, verb, token))  # which says what came of it

        path = f"{self._route}/{verb}/<token>"
        action(path, method="GET")(action.uses(template("approval/decide.html"), *self._uses)(shown))
        action(path, method="POST")(action.uses(*self._uses)(done))

    def _approve(self, standing: Standing) -> None:
        assert standing.asked  # noqa: S101 - there is no obstacle
        self._approval.approve(standing.asked.account, standing.asked.approver)

    def _decline(self, standing: Standing) -> None:
        assert standing.asked  # noqa: S101 - there is no obstacle
        self._approval.decline(standing.asked.account, standing.asked.approver, note(request.forms))

    @property
    def stylesheet(self) -> str:
        """The URL of the pages' own style sheet, a new one for every version."""
        return str(URL(self._route, "static", "admin.css", vars={"v": __version__}))

    @property
    def layout_stylesheet(self) -> str:
        """The URL of the style sheet of our own layout."""
        return str(URL(self._route, "static", "layout.css", vars={"v": __version__}))


class PendingPages:
    """The administrator's list of pending accounts, beside the other pages.

    Args:
        console: the pages that it belongs to.
        approval: what is decided on it.
    """

    def __init__(self, console: Console, approval: Approval):
        self._console = console
        self._accounts = Accounts(console, approval)

    def mount(self) -> None:
        """Bind the list and its buttons in the app that is being loaded."""
        self._console.has_accounts = True
        self._console.mount_page(ACCOUNTS, self._accounts.page, "accounts.html", "accounts")
        for verb in (self._accounts.approve, self.decline):
            path = f"{ACCOUNTS}/<account:int>/{verb.__name__}"
            self._console.mount_verb(path, verb, lambda account: self._console.link("accounts"))

    def decline(self, account: int) -> tuple[bool, str]:
        """Decline somebody. Whether it changed anything, and what to tell."""
        return self._accounts.decline(account, request.forms)

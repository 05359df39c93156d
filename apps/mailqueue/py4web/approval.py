"""Approval of accounts in py4web: how its Auth marks them, and where the links lead."""

from __future__ import annotations

from typing import Any

from .. import words
from ..pending_accounts import Approvers, PendingAccounts, name_of
from ..rendering import plain_name
from .account_mail import AccountMail
from .accounts import BLOCKED, PENDING_APPROVAL
from .links import NoBaseUrl


class Approval(PendingAccounts):
    """Approvals of the accounts of one Auth.

    Args:
        mail: the QueuedMailer.
        auth: the host's Auth, with its tables.
        mails: how its mails are sent.
        approvers: addresses, a function that returns them, or "group:NAME".
        expires_after: seconds for which the links hold.
        route: the path of the links' pages below the app's own.

    Raises:
        ValueError: approvers are not of this kind, or one is no address.
    """

    state, waiting, blocked, admitted = "action_token", PENDING_APPROVAL, BLOCKED, None

    def __init__(
        self, mail: Any, auth: Any, mails: AccountMail, approvers: Approvers, expires_after: float, route: str
    ):
        super().__init__(mail, auth.db.auth_user, approvers, expires_after)
        self._auth, self._mails = auth, mails
        self.route = route.strip("/")

    def may_ask(self) -> bool:
        """Whether this visitor has not caused too many questions already."""
        # Where an address was verified first, that mail was counted.
        return bool(self._auth.param.registration_requires_confirmation or self._mails.allows())

    def visitors_language(self) -> str:
        """The language in which this request's visitor gets mails."""
        return str(self._mail.language_of_visitor())

    def send_request(self, approver: str, token: str, applicant: Any) -> None:
        """Send an approver a mail with links of their own. Never raises."""
        try:
            approve, deny = (self._mails.link(self.route, verb, token) for verb in ("approve", "decline"))
        except NoBaseUrl as error:
            self._mails.not_made(approver, "approval_request", error)
            return
        self._mails.send_to(
            approver,
            "approval_request",
            "",
            {"priority": words.NORMAL, "language": self._mail.settings.language},
            applicant=plain_name(name_of(applicant)) or applicant.email,
            email=applicant.email,
            approve=approve,
            deny=deny,
            expires=self._expires_after,
        )

    def tell(self, applicant: Any, template: str, language: str | None, **variables: Any) -> None:
        """Send an applicant a mail. Never raises."""
        options = {"language": language} if language else {}
        self._mails.send_to(applicant.email, template, name_of(applicant), options, **variables)

    def login_link(self) -> str | None:
        """Where an account that was approved can be used; None: that is not known."""
        try:
            return self._mails.link(self._auth.route, "login")
        except NoBaseUrl:
            return None

    def members(self, group: str) -> list[str]:
        """The addresses of the active members of a group, as Tags(db.auth_user, "groups") keeps it."""
        table = f"{self._users}_tag_groups"
        if table not in self._db.tables:
            return []
        tag, user = self._db[table], self._users
        members = self._db((tag.record_id == user.id) & (tag.tagpath == f"/{group}/"))
        rows = members.select(user.email, user.action_token, orderby=user.id)
        return [row.email for row in rows if row.email and not _is_barred(row.action_token)]


def _is_barred(action_token: str | None) -> bool:
    """Whether an account cannot log in."""
    return bool(action_token) and not str(action_token).startswith("reset-password-request:")

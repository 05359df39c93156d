"""Approval of accounts in web2py: how its Auth marks them, and where the links lead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gluon import current

from .. import allowance, words
from ..base_url import read_base_url
from ..classify import Failure
from ..limits import read_rates
from ..pending_accounts import Approvers, PendingAccounts, name_of
from ..rendering import plain_name
from ..visitors import network_of

CONTROLLER = "plugin_mailqueue"


class Approval(PendingAccounts):
    """Approvals of the accounts of one Auth.

    Args:
        mail: the QueuedMail.
        auth: the application's Auth, with its tables.
        approvers: addresses, a function that returns them, or "group:NAME".
        base_url: the address of the application, such as "https://your-domain.org/yourapp".
        expires_after: seconds for which the links hold.
        per_client: how many approvals one visitor's network address may ask for; None: any number.

    Raises:
        ValueError: approvers are not of this kind, one is no address, base_url is no address, per_client
            makes no sense, or the Auth has no tables yet.
    """

    state, waiting, blocked, admitted = "registration_key", "pending", "blocked", ""

    def __init__(
        self,
        mail: Any,
        auth: Any,
        approvers: Approvers,
        base_url: str,
        expires_after: float,
        per_client: str | None,
    ):
        if auth.settings.table_user_name not in auth.db.tables:
            raise ValueError("mail.enable_approval(auth, …) must stand below auth.define_tables()")
        self._auth = auth
        self._base_url = read_base_url(base_url)
        self._rates = read_rates("per_client", per_client) if per_client else ()
        super().__init__(mail, auth.table_user(), approvers, expires_after)

    def _after_update(self, chosen: Any, fields: Any) -> None:
        # web2py marks whom it has just registered by an update, verified or not.
        if vars(chosen).get("_mailqueue_applicants") and self.may_ask():
            super()._after_update(chosen, fields)

    def may_ask(self) -> bool:
        """Whether this visitor has not caused too many questions already."""
        asking = current.request.env  # its client is whatever X-Forwarded-For claims first
        visitor = network_of(asking.remote_addr, asking.http_x_forwarded_for, None)
        if not visitor:
            return True
        exceeded = allowance.count(self._db, f"visitor {visitor}", self._rates, self._mail.site.clock())
        if exceeded:
            told = f"The last one was over {exceeded} for the visitor {visitor}."
            self._mail.note_problem(Failure(words.MESSAGE, words.BUILD, "too-many-account-mails", told), "")
        return exceeded is None

    def visitors_language(self) -> str:
        """The language in which this request's visitor gets mails."""
        mail = self._mail
        return str(mail.templates.best_language(mail.visitor_languages(), str(mail.settings.language or "")))

    def send_request(self, approver: str, token: str, applicant: Any) -> None:
        """Send an approver a mail with links of their own. Never raises."""
        variables = {
            "applicant": plain_name(name_of(applicant)) or applicant.email,
            "email": applicant.email,
            "approve": f"{self._base_url}/{CONTROLLER}/approve/{token}",
            "deny": f"{self._base_url}/{CONTROLLER}/decline/{token}",
            "expires": self._expires_after,
        }
        on_terms = {"priority": words.NORMAL, "expires_after": self._expires_after}
        self._queue(approver, "approval_request", self._mail.settings.language, variables, on_terms)

    def tell(self, applicant: Any, template: str, language: str | None, **variables: Any) -> None:
        """Send an applicant a mail. Never raises."""
        given = {"name": name_of(applicant), **variables}
        self._queue(applicant.email, template, language, given, {"expires_after": None})

    def _queue(
        self,
        to: str,
        template: str,
        language: str | None,
        variables: Mapping[str, Any],
        on_terms: Mapping[str, Any],
    ) -> None:
        def make() -> dict[str, Any]:
            mail = self._mail.rendered(template, language, variables)
            return {"to": to, "subject": mail.subject, "message": (mail.text, mail.html)}

        self._mail.queue_for_auth(make, on_terms, to)

    def login_link(self) -> str | None:
        """Where an account that was approved can be used."""
        settings = self._auth.settings
        return f"{self._base_url}/{settings.controller}/{settings.function}/login"

    def members(self, group: str) -> list[str]:
        """The addresses of the active members of a group."""
        users, groups, membership = self._users, self._auth.table_group(), self._auth.table_membership()
        in_group = (groups.role == group) & (membership.group_id == groups.id)
        members = self._db(in_group & (membership.user_id == users.id))
        rows = members.select(users.email, users.registration_key, orderby=users.id)
        return [row.email for row in rows if row.email and not row.registration_key]

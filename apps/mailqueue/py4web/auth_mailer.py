"""What a py4web mailer does for the host's Auth, and the pages that belong to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from .. import words
from ..base_url import read_base_url
from ..limits import read_rates
from ..pending_accounts import EXPIRES_AFTER as APPROVAL_EXPIRES_AFTER
from ..pending_accounts import Approvers, name_of
from ..rendering import Rendered, Templates
from ..site import Site
from ..terms import RESEND, span
from . import accounts, console
from .account_mail import AccountMail, Bounds
from .accounts import RESET_EXPIRES_AFTER, VERIFY_EXPIRES_AFTER, Accounts, Lifetimes
from .approval import Approval
from .approval_pages import LinkPages, PendingPages
from .console.frame import Console
from .two_factor import CODE_EXPIRES_AFTER


class AuthMailer:
    """The calls by which a host completes its Auth, for a class that also is a MailQueue."""

    settings: Any
    templates: Templates
    rendered: Callable[[str, str | None, Mapping[str, Any]], Rendered]
    visitor_languages: Callable[[], str]
    queue_for_auth: Callable[..., None]
    _admin: Console | None = None
    _approval: Approval | None = None
    _accounts: Accounts | None = None
    site: Site

    def enable_auth(
        self,
        auth: Any,
        base_url: str | None = None,
        *,
        verify_expires_after: timedelta | float = VERIFY_EXPIRES_AFTER,
        reset_expires_after: timedelta | float = RESET_EXPIRES_AFTER,
        mails_per_address: str | None = "5/hour",
        mails_per_client: str | None = "20/hour",
        proxies: int | None = None,
    ) -> None:
        """Have Auth's mails sent by this mailer, in full: see accounts.enable().

        Args:
            auth: the host's Auth, with its tables defined.
            base_url: the address of the app, such as "https://your-domain.org/yourapp", that links in
                mails begin with; None: `settings.base_url`.
            verify_expires_after: seconds (or a timedelta) for which a link to verify an address holds.
            reset_expires_after: seconds for which a link to set another password holds.
            mails_per_address: how many mails strangers may have sent to one address, such as "5/hour,
                20/day"; None: any number.
            mails_per_client: how many one visitor's network address may cause.
            proxies: how many proxies of the site's own stand before it; None: it is guessed, see
                client.client().

        Raises:
            ValueError: auth has no tables yet, base_url is no address, or a time or limit makes no sense.
        """
        _check_tables(auth)
        lifetimes = Lifetimes(
            span(verify_expires_after, "verify_expires_after"),
            span(reset_expires_after, "reset_expires_after"),
        )
        if proxies is not None and (not isinstance(proxies, int) or proxies < 0):
            raise ValueError(f"proxies is {proxies!r}, expected something like 1")
        if base_url is not None:
            self.settings.base_url = read_base_url(base_url)
        per_address = read_rates("mails_per_address", mails_per_address) if mails_per_address else ()
        per_client = read_rates("mails_per_client", mails_per_client) if mails_per_client else ()
        self._accounts = accounts.enable(self, auth, lifetimes, Bounds(per_address, per_client, proxies))

    def _enable_auth_unless_done(self, auth: Any) -> None:
        """What the host's pages rest on, unless it has said more about it, or mails in another way."""
        if accounts.of(auth) is None and auth.sender in (None, self):
            self.enable_auth(auth)

    def enable_admin(
        self,
        auth: Any,
        uses: Sequence[Any] = (),
        route: str = "mailqueue",
        role: str = "admin",
        *,
        readers: str | None = None,
    ) -> None:
        """Mount the administrator's pages in the app that is being loaded; see console.enable().

        Args:
            auth: the host's Auth.
            uses: the host's fixtures, as for auth.enable(): (session, T, db).
            route: the path below the app's own.
            role: the group (Tags(db.auth_user, "groups")) whose members may see the pages, and act.
            readers: the group whose members may see them, but neither act nor see contents.
        """
        self._enable_auth_unless_done(auth)
        self._admin = console.enable(self, auth, uses, route, role, readers)
        self._mount_pending_accounts()

    def enable_approval(
        self,
        auth: Any,
        approvers: Approvers,
        expires_after: timedelta | float = APPROVAL_EXPIRES_AFTER,
        *,
        uses: Sequence[Any] = (),
        route: str = "mailqueue/approval",
    ) -> None:
        """Ask approvers by mail about accounts that wait for approval; see approval.Approval.

        Args:
            auth: the host's Auth, with its tables defined.
            approvers: addresses, a function without arguments that returns some, or "group:NAME", the
                members of a group (Tags(db.auth_user, "groups")).
            expires_after: seconds (or a timedelta) for which the links in their mails hold.
            uses: the host's fixtures for the pages of the links, as for auth.enable().
            route: their path below the app's own.

        Raises:
            ValueError: auth has no tables yet, approvers are not of this kind, one is no address, or
                expires_after makes no sense.
        """
        _check_tables(auth)
        lasts = span(expires_after, "expires_after")
        self._enable_auth_unless_done(auth)
        enabled = accounts.of(auth)
        mails = enabled.mails if enabled else AccountMail(self, auth, Bounds((), ()))
        self._approval = Approval(self, auth, mails, approvers, lasts, route)
        LinkPages(self, auth, uses, self._approval).mount()
        self._mount_pending_accounts()

    def _mount_pending_accounts(self) -> None:
        """Mount the list once both the pages and approval are enabled."""
        if self._admin and self._approval:
            PendingPages(self._admin, self._approval).mount()

    def check_base_url(self, auth: Any) -> None:
        """See whether links can be made, for the administrator's pages; where not, that is a problem."""
        enabled = accounts.of(auth)
        if enabled:
            enabled.mails.address_is_known()

    def two_factor_send(
        self, user: Any, code: str, expires_after: timedelta | float = CODE_EXPIRES_AFTER
    ) -> str:
        """Send the code for a second factor, ahead of all other mail; for auth.param.two_factor_send.

        Its text is deleted in the transaction that notes that it was sent, or that it expired.

        Args:
            user: the account's row.
            code: what Auth has made up.
            expires_after: seconds (or a timedelta) for which the mail, and with enable_auth the code
                itself, is good.

        Returns:
            The code, as Auth wants it.
        """
        lasts = span(expires_after, "expires_after")
        if self._accounts:
            self._accounts.two_factor.note(self.site.clock() + lasts)
        variables = {"name": name_of(user), "code": code, "expires": lasts}
        # In doubt it is sent again, so that it comes to an end and is deleted.
        on_terms = {
            "priority": words.INSTANT,
            "expires_after": lasts,
            "doubt": RESEND,
            "wipe": True,
        }
        self.queue_rendered(user["email"], "two_factor", None, variables, on_terms)
        return code

    def language_of_visitor(self) -> str:
        """The language in which this request's visitor gets mails."""
        return self.templates.best_language(self.visitor_languages(), str(self.settings.language or ""))

    def queue_rendered(
        self,
        to: str,
        template: str,
        language: str | None,
        variables: Mapping[str, Any],
        on_terms: Mapping[str, Any],
    ) -> None:
        """Queue a mail about an account from a template, as Auth's are: it never raises."""

        def make() -> dict[str, Any]:
            made = self.rendered(template, language, variables)
            return {"to": to, "subject": made.subject, "body": (made.text, made.html)}

        self.queue_for_auth(make, on_terms, to)


def _check_tables(auth: Any) -> None:
    if "auth_user" not in (getattr(auth, "db", None) or {}):
        raise ValueError("auth has no table auth_user yet, expected this call below auth.define_tables()")

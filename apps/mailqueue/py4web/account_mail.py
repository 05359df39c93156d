"""The mails about accounts: their texts, their links, and how many of them anybody may cause.

Nothing here raises into the request of a visitor: what keeps a mail from being made is told to the
administrator.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from py4web.utils.auth import Auth

from .. import allowance, outbox, problems, words
from ..classify import Failure
from ..database import has_undone_all, savepoint
from ..limits import Rate
from ..pending_accounts import name_of
from ..terms import terms
from . import links
from .client import client
from .links import NoBaseUrl

logger = logging.getLogger("mailqueue")

NO_BASE_URL = "no-base-url"
TOO_MANY = "too-many-account-mails"
CATEGORY = "auth"

# Whom the mails would be for that are undone.
_NOBODY = "nobody@example.org"


@dataclass(frozen=True)
class Bounds:
    """How many account mails strangers may cause.

    Args:
        per_address: to one address.
        per_client: by one visitor's network address.
        proxies: see client.client().
    """

    per_address: tuple[Rate, ...]
    per_client: tuple[Rate, ...]
    proxies: int | None = None


class _Undone(Exception):
    """Ends a savepoint whose work was only to take its time."""


class AccountMail:
    """Makes and queues the mails about the accounts of one Auth.

    Args:
        mail: the QueuedMailer.
        auth: the host's Auth.
        bounds: how many mails strangers may cause.
    """

    def __init__(self, mail: Any, auth: Any, bounds: Bounds):
        self._mail, self._auth = mail, auth
        self.bounds = bounds

    # --- links -----------------------------------------------------------------------------

    def link(self, *parts: str, **query: str) -> str:
        """The full URL of one of the app's pages.

        Raises:
            NoBaseUrl: the site's address is not known.
        """
        use_appname = self._auth.param.use_appname_in_redirects
        return links.link(self._mail.settings.base_url, *parts, use_appname=use_appname, **query)

    # --- how many --------------------------------------------------------------------------

    def allows(self, address: str | None = None) -> bool:
        """Count a mail that the visitor of this request causes; whether it is within the bounds.

        Args:
            address: whom it is for; None: it is counted for the visitor only.
        """
        return self._within(self._counted(address))

    def would_allow(self, address: str) -> bool:
        """Whether a mail to this address would be within the bounds; nothing is counted."""
        now = self._mail.site.clock()
        return not any(
            allowance.is_used_up(self._mail.db, who, rates, now) for who, rates in self._counted(address)
        )

    def _counted(self, address: str | None) -> list[tuple[str, tuple[Rate, ...]]]:
        """For whom a mail to this address is counted, and what each may cause."""
        visitor = client(self.bounds.proxies)
        counted = [(f"address {address}", self.bounds.per_address)] if address else []
        if visitor is not None:
            counted.append((f"visitor {visitor}", self.bounds.per_client))
        return counted

    def allows_notice(self, name: str, account: int) -> bool:
        """Count a notice to the owner of an account; whether it is within the bounds.

        Notices are counted apart from all else: a flood of other mails must not keep one from its owner.

        Args:
            name: of its template.
            account: the row that was changed.
        """
        return self._within([(f"{name} of account {account}", self.bounds.per_address)])

    def _within(self, counted: Iterable[tuple[str, tuple[Rate, ...]]]) -> bool:
        now = self._mail.site.clock()
        found = [(who, allowance.count(self._mail.db, who, rates, now)) for who, rates in counted]
        exceeded = [f"The last one was over {rate} for the {who}." for who, rate in found if rate]
        if exceeded:
            self._mail.note_problem(Failure(words.MESSAGE, words.BUILD, TOO_MANY, exceeded[0]), "")
        return not exceeded

    # --- sending ---------------------------------------------------------------------------

    def send(self, name: str, user: Mapping[str, Any], /, **variables: Any) -> None:
        """Queue one of the shipped mails. What goes wrong is entered in the problem log.

        Args:
            name: of its template.
            user: whom it is for; "email" and names.
            variables: what the template asks for besides; `expires` (seconds) also ends the mail.
        """
        self.send_to(str(user["email"] or ""), name, name_of(user), **variables)

    def send_to(
        self,
        address: str,
        template: str,
        name: str = "",
        options: Mapping[str, Any] = {},
        /,
        **variables: Any,
    ) -> None:
        """Queue one of the shipped mails to an address. What goes wrong is entered in the problem log.

        Args:
            address: whom it is for.
            template: its name.
            name: the person's.
            options: `language`, and terms of send() in place of the usual ones.
            variables: what the template asks for besides; `expires` (seconds) also ends the mail.
        """
        on_terms = {key: value for key, value in options.items() if key != "language"}
        on_terms.setdefault("expires_after", variables.get("expires"))  # a notice is worth sending late
        given = {"site": self.site_name(), "name": name, **variables}
        self._mail.queue_rendered(address, template, options.get("language"), given, on_terms)

    def host_has_own_text(self, name: str) -> bool:
        """Whether the host changed Auth's own text of a mail, or it is a mail that we have no text of."""
        stock, present = Auth.MESSAGES.get(name), self._auth.param.messages[name]
        return stock is None or any(_source(present[part]) != stock[part] for part in ("subject", "body"))

    def own_text_holds(self, name: str, values: Mapping[str, Any]) -> bool:
        """Whether the host's own text can be filled in; where not, that is in the problem log."""
        present = self._auth.param.messages[name]
        bodies = present["body"] if isinstance(present["body"], (list, tuple)) else (present["body"],)
        try:
            for text in (present["subject"], *bodies):
                text.format(**values)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            told = f"auth.param.messages[{name!r}]: {type(error).__name__}: {error}"[:500]
            self._mail.note_problem(Failure(words.MESSAGE, words.BUILD, "template-broken", told), "")
            return False
        return True

    def site_name(self) -> str:
        """What mails call the site."""
        return str(self._mail.site_name())

    def to_nobody(self, name: str, /, **variables: Any) -> None:
        """Do all the work of a mail and undo it, so that its absence cannot be told by the time it takes."""
        mail = self._mail
        given = {"site": self.site_name(), "name": "Nobody", **variables}
        try:
            with suppress(_Undone), savepoint(mail.db):
                rendered = mail.rendered(name, None, given)
                body = {"subject": rendered.subject, "text": rendered.text, "html": rendered.html}
                composed = mail.compose({"to": _NOBODY, "sender": None, **body})
                now = mail.site.clock()
                outbox.enqueue(mail.db, composed, terms(now, expires_after=60.0), now=now)
                raise _Undone
            mail.wake()
        except Exception as error:
            if has_undone_all(mail.db, error):
                raise  # what the request wrote before is gone, as it would be for a mail
            logger.warning("a mail to nobody could not be made", exc_info=True)

    def not_made(self, address: str, subject: str, error: NoBaseUrl) -> None:
        """Tell the administrator that a mail was not made, since its links would lead nowhere."""
        failure = Failure(words.MESSAGE, words.BUILD, NO_BASE_URL, str(error))
        self._mail.note_problem(failure, "")
        self._mail.note_refused(address, subject, "base_url is not configured.", CATEGORY)

    def address_is_known(self) -> bool:
        """Whether links can be made in this request; where not, that is in the problem log."""
        mail = self._mail
        try:
            self.link("")
        except NoBaseUrl as error:
            mail.note_problem(Failure(words.MESSAGE, words.BUILD, NO_BASE_URL, str(error)), "")
            return False
        if problems.any_open(mail.db):
            problems.resolve_rule(mail.db, NO_BASE_URL, mail.site.clock())
        return True


def _source(text: Any) -> Any:
    """A text before its translation."""
    return getattr(text, "text", text)

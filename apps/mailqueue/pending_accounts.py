"""Accounts that wait for approval, in either framework: who is asked, and what comes of the answer.

Auth only writes into the account that it waits. That is noticed here wherever it is written: by Auth's
pages, when an address is verified, or by the host's own code.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import approvals, audit, words
from .approvals import APPROVED, DECLINED, Asked
from .classify import Failure
from .compose import parse_address
from .errors import BadAddress
from .tables import local_time
from .told import Told

logger = logging.getLogger("mailqueue")

EXPIRES_AFTER = 7 * 86400.0  # seconds
MOST_SHOWN = 200  # pending accounts on one page

GROUP = "group:"
Approvers = str | Iterable[str] | Callable[[], str | Iterable[str]]

# What a link can say instead of acting.
UNKNOWN = "unknown"
USED = "used"
DECIDED = "decided"
DECIDED_ELSEWHERE = "decided elsewhere"
GONE = "gone"
EXPIRED = "expired"

# The address of a link's page is a secret, and nobody may put the page into one of their own.
PRIVATE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
    "Content-Security-Policy": "frame-ancestors 'none'",
}

# What the pages of the links say, by what a link is for.
APPROVE, DECLINE = "approve", "decline"
QUESTIONS = {APPROVE: "Approve this account?", DECLINE: "Decline this account?"}
EFFECTS = {
    APPROVE: "The applicant can log in from then on, and is told by mail.",
    DECLINE: "The account is blocked, and the applicant is told by mail.",
}
BUTTONS = {APPROVE: "Approve", DECLINE: "Decline"}
INSTEAD = {APPROVE: "Decline instead", DECLINE: "Approve instead"}
NOTE = "A note to the applicant, if you like:"
THANKS, NO_QUESTION = "Thank you", "An account"
# And by why it cannot act, and what was decided.
OBSTACLES = {
    (UNKNOWN, None): (
        "This link is not valid. Perhaps the mail program cut it off: it must be opened as a whole."
    ),
    (USED, APPROVED): "You have approved this account, on {when}.",
    (USED, DECLINED): "You have declined this account, on {when}.",
    (DECIDED, APPROVED): "There is nothing left to decide: {who} has approved this account, on {when}.",
    (DECIDED, DECLINED): "There is nothing left to decide: {who} has declined this account, on {when}.",
    (DECIDED_ELSEWHERE, None): (
        "There is nothing left to decide: this account does not wait for approval any more."
    ),
    (GONE, None): "This account does not exist any more.",
    (EXPIRED, None): (
        "This link expired on {until}. The account still waits: an administrator of the site can decide."
    ),
}


@dataclass(frozen=True)
class Standing:
    """How things stand with an approver's link.

    Args:
        asked: what it asks; None: no such link.
        applicant: the account's row; None: there is none any more.
        obstacle: why it cannot act; None: it can.
    """

    asked: Asked | None
    applicant: Any
    obstacle: str | None


class PendingAccounts(ABC):
    """The accounts of one Auth that wait for approval, for a class that knows the framework's Auth.

    Args:
        mail: the mailer.
        users: the table of accounts.
        approvers: addresses, a function that returns them, or "group:NAME".
        expires_after: seconds for which the links hold.

    Attributes:
        state: the column that says whether an account waits.
        waiting, blocked, admitted: what is in it then.

    Raises:
        ValueError: approvers are not of this kind, or one is no address.
    """

    state: str
    waiting: str
    blocked: str
    admitted: str | None

    def __init__(self, mail: Any, users: Any, approvers: Approvers, expires_after: float):
        self._mail, self._db, self._users = mail, users._db, users
        self._approvers = _read_approvers(approvers)
        self._expires_after = expires_after
        self._users._after_insert.append(self._after_insert)
        self._users._before_update.append(self._before_update)
        self._users._after_update.append(self._after_update)

    # --- what the framework's Auth has its own way for -------------------------------------

    def may_ask(self) -> bool:
        """Whether this visitor has not caused too many questions already."""
        return True

    @abstractmethod
    def visitors_language(self) -> str:
        """The language in which this request's visitor gets mails."""

    @abstractmethod
    def send_request(self, approver: str, token: str, applicant: Any) -> None:
        """Send an approver a mail with links of their own. Never raises."""

    @abstractmethod
    def tell(self, applicant: Any, template: str, language: str | None, **variables: Any) -> None:
        """Send an applicant a mail. Never raises."""

    @abstractmethod
    def login_link(self) -> str | None:
        """Where an account that was approved can be used; None: that is not known."""

    @abstractmethod
    def members(self, group: str) -> list[str]:
        """The addresses of the active members of a group."""

    # --- noticing --------------------------------------------------------------------------

    def _after_insert(self, fields: Any, account: int) -> None:
        if fields.get(self.state) != self.waiting:
            return
        if self.may_ask():
            self._ask(account)

    def _before_update(self, chosen: Any, fields: Any) -> None:
        if fields.get(self.state) == self.waiting:
            rows = chosen.select(self._users.id, self._users[self.state])
            chosen._mailqueue_applicants = [row.id for row in rows if row[self.state] != self.waiting]

    def _after_update(self, chosen: Any, fields: Any) -> None:
        for account in vars(chosen).pop("_mailqueue_applicants", ()):
            self._ask(account)

    # --- asking ----------------------------------------------------------------------------

    def _ask(self, account: int) -> None:
        """Send each approver a mail with links of their own."""
        approvers = self._addresses()
        if not approvers:
            return
        now, applicant = self._mail.site.clock(), self._users(account)
        expires_on = now + self._expires_after
        language = self.visitors_language()
        tokens = approvals.ask(
            self._db, account, approvers, language=language, now=now, expires_on=expires_on
        )
        for approver, token in tokens.items():
            self.send_request(approver, token, applicant)

    def _addresses(self) -> list[str]:
        """Whom to ask now; where it is nobody, that is in the problem log."""
        told = "No address was found."
        try:
            found = self._found_addresses()
            addresses = self._checked([found] if isinstance(found, str) else found)
        except Exception as error:
            logger.exception("the approvers could not be found out")
            addresses, told = [], f"{type(error).__name__}: {error}"[:500]
        if not addresses:
            self._note("no-approvers", told)
        return addresses

    def _checked(self, found: Iterable[object]) -> list[str]:
        """Each address once, however it is written; what is none is in the problem log."""
        addresses: dict[str, str] = {}
        for one in found:
            try:
                spec = parse_address(one).spec
            except BadAddress as error:
                self._note("bad-approver", str(error))
            else:
                addresses.setdefault(spec.lower(), spec)
        return list(addresses.values())

    def _note(self, rule: str, told: str) -> None:
        self._mail.note_problem(Failure(words.MESSAGE, words.BUILD, rule, told), "")

    def _found_addresses(self) -> str | Iterable[str]:
        if callable(self._approvers):
            return self._approvers()
        if isinstance(self._approvers, str):
            return self.members(self._approvers)
        return self._approvers

    # --- deciding --------------------------------------------------------------------------

    def approve(self, account: int, by: str) -> bool:
        """Let an applicant in and tell them; False: the account waits for no decision any more.

        Args:
            account: its row.
            by: who decides.
        """
        if not self._move(account, self.admitted, APPROVED, by):
            return False
        link = self.login_link()
        self._tell(self._users(account), "approved", **({"link": link} if link else {}))
        return True

    def decline(self, account: int, by: str, note: str = "") -> bool:
        """Block an applicant's account and tell them; False: it waits for no decision any more.

        Args:
            account: its row.
            by: who decides.
            note: what to tell the applicant besides.
        """
        if not self._move(account, self.blocked, DECLINED, by):
            return False
        self._tell(self._users(account), "declined", note=note)
        return True

    def _move(self, account: int, state: str | None, decision: str, by: str) -> bool:
        waiting = (self._users.id == account) & (self._users[self.state] == self.waiting)
        if not self._db(waiting).update(**{self.state: state}):
            return False
        now = self._mail.site.clock()
        approvals.decide(self._db, account, decision, by, now)
        action = audit.APPROVE if decision == APPROVED else audit.DECLINE
        audit.record(self._db, by, action, now, detail=str(self._users(account).email))
        return True

    def _tell(self, applicant: Any, template: str, **variables: Any) -> None:
        self.tell(applicant, template, approvals.language_of(self._db, applicant.id), **variables)

    # --- reading ---------------------------------------------------------------------------

    def standing(self, token: str) -> Standing:
        """What an approver's link can do now."""
        asked = approvals.find(self._db, token)
        if asked is None:
            return Standing(None, None, UNKNOWN)
        applicant = self._users(asked.account)
        return Standing(asked, applicant, self._obstacle(asked, applicant))

    def _obstacle(self, asked: Asked, applicant: Any) -> str | None:
        if asked.decision:
            return USED if asked.decided_by == asked.approver else DECIDED
        if applicant is None:
            return GONE
        if applicant[self.state] != self.waiting:
            return DECIDED_ELSEWHERE
        return EXPIRED if asked.expires_on <= self._mail.site.clock() else None

    def pending(self) -> list[dict[str, Any]]:
        """The accounts that wait, the oldest first: "id", "name", "email", "asked_on"."""
        waiting = self._db(self._users[self.state] == self.waiting)
        rows = waiting.select(orderby=self._users.id, limitby=(0, MOST_SHOWN))
        asked = approvals.asked_on(self._db, [row.id for row in rows])
        return [
            {"id": row.id, "name": name_of(row), "email": row.email, "asked_on": asked.get(row.id)}
            for row in rows
        ]


def _read_approvers(given: Approvers) -> str | list[str] | Callable[[], str | Iterable[str]]:
    """A group's name, checked addresses, or a function."""
    if callable(given):
        return given
    if isinstance(given, str) and given.startswith(GROUP):
        return given.removeprefix(GROUP).strip("/")
    addresses = [given] if isinstance(given, str) else list(given)
    if not addresses:
        raise ValueError("approvers is empty, expected addresses, a function or 'group:NAME'")
    return [parse_address(address).spec for address in addresses]


def page_status(standing: Standing) -> int:
    """The HTTP status of the page of a link: 200 where it can act or has acted, else 404 or 410."""
    return {None: 200, USED: 200, UNKNOWN: 404}.get(standing.obstacle, 410)


def heading(standing: Standing) -> str:
    """What stands above why a link cannot act."""
    return THANKS if standing.obstacle == USED else NO_QUESTION


def told(standing: Standing) -> str:
    """Why a link cannot act, in plain words; "" where it can."""
    asked = standing.asked
    if standing.obstacle is None:
        return ""
    if asked is None:
        return Told(OBSTACLES[UNKNOWN, None])
    return Told(
        OBSTACLES[standing.obstacle, asked.decision],
        who=asked.decided_by,
        when=local_time(asked.decided_on),
        until=local_time(asked.expires_on),
    )


def name_of(user: Mapping[str, Any]) -> str:
    """A person's name, as far as the account has one."""
    return " ".join(str(user.get(part) or "") for part in ("first_name", "last_name")).strip()

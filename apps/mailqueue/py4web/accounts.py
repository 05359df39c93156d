"""py4web's Auth made complete: links that end and work once, and no way in past a verification.

The methods of the host's Auth object are replaced one by one by those of Accounts, which call what was
there before wherever that is right. Its class stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeGuard

from py4web import URL, redirect, request
from py4web.utils.auth import Auth, b16e, prevent_open_redirect
from pydal.validators import IS_NOT_IN_DB, Validator

from .. import tokens
from ..database import MYSQL, begin_writing, engine, faults, has_undone_all, savepoint
from .account_mail import AccountMail, Bounds
from .links import NoBaseUrl
from .notices import RESET, Notices
from .two_factor import TwoFactor

_ATTRIBUTE = "_mailqueue_accounts"
_REGISTERING = "mailqueue.registering"  # in the environ of a request: the address that Auth registers
_KEPT_NAME = "mailqueue.kept_name"  # the user name of the unverified account of that address that stays
_INSERTS_NOTHING = "mailqueue.inserts_nothing"

PENDING_REGISTRATION = "pending-registration:"
PENDING_APPROVAL = "pending-approval"
BLOCKED = "account-blocked"

VERIFY_EXPIRES_AFTER = 3 * 86400.0  # seconds
RESET_EXPIRES_AFTER = 3600.0

_REPLACED = (
    "send",
    "register",
    "verify_email",
    "request_reset_password",
    "reset_password",
    "change_password",
    "get_or_delete_existing_unverified_account",
    "get_or_register_user",
    "_query_from_token",
)


@dataclass(frozen=True)
class Lifetimes:
    """How long links hold, in seconds."""

    verify: float = VERIFY_EXPIRES_AFTER
    reset: float = RESET_EXPIRES_AFTER


def of(auth: Any) -> Accounts | None:
    """What enable() made of this Auth; None: nothing yet."""
    found: Accounts | None = vars(auth).get(_ATTRIBUTE)
    return found


def enable(mail: Any, auth: Any, lifetimes: Lifetimes, bounds: Bounds) -> Accounts:
    """Complete a host's Auth; a second call only changes lifetimes and bounds."""
    auth.sender = mail
    accounts = of(auth)
    if accounts is None:
        accounts = Accounts(mail, auth, lifetimes, bounds)
        setattr(auth, _ATTRIBUTE, accounts)
    accounts.lifetimes, accounts.mails.bounds = lifetimes, bounds
    return accounts


class Accounts:
    """Stands in for methods of one Auth; each has Auth's own arguments and answers.

    Args:
        mail: the QueuedMailer.
        auth: the host's Auth, with its tables.
        lifetimes: how long links hold.
        bounds: how many mails strangers may cause.
    """

    def __init__(self, mail: Any, auth: Any, lifetimes: Lifetimes, bounds: Bounds):
        self._mail, self._auth, self._db = mail, auth, auth.db
        self.lifetimes = lifetimes
        self.mails = AccountMail(mail, auth, bounds)
        self.notices = Notices(auth, self.mails)
        self.two_factor = TwoFactor(mail, auth)
        self._stock = SimpleNamespace(**{name: getattr(auth, name) for name in _REPLACED})
        for name in _REPLACED:
            setattr(auth, name, getattr(self, name))
        if type(auth).send is not Auth.send:
            auth.send = self._stock.send  # the host sends in a way of its own
        self._allow_registering_twice()

    # --- sending ---------------------------------------------------------------------------

    def send(self, name: str, user: Mapping[str, Any], **attrs: Any) -> bool:
        """Send one of Auth's mails, from our template or with the host's own text."""
        if self.mails.host_has_own_text(name) and self.mails.own_text_holds(name, {**user, **attrs}):
            return bool(self._stock.send(name, user, **attrs))
        lasts = {"verify_email": self.lifetimes.verify, "reset_password": self.lifetimes.reset}
        expires = {"expires": lasts[name]} if name in lasts else {}
        self.mails.send(name, user, **{**expires, **attrs})
        return True

    def _send_link(self, name: str, user: Mapping[str, Any], token: str, route: str | None) -> None:
        """Send Auth's mail with a link to the page of the same name."""
        try:
            link = self.mails.link(route or self._auth.route, name, token=token)
        except NoBaseUrl as error:
            self.mails.not_made(str(user["email"]), name, error)
            return
        self._auth._link = link  # as stock Auth does, for tests of hosts
        self._auth.send(name, user, link=link)

    # --- registration ----------------------------------------------------------------------

    def get_or_delete_existing_unverified_account(self, email: Any) -> Any:
        """Delete an unverified account of this address. Auth's form and API begin a registration with it.

        It stays where no mail could be sent for the new one: the link that it was sent would be dead.
        """
        address = _lower(email)
        if request.environ is not None and self._auth.param.registration_requires_confirmation:
            request.environ[_REGISTERING] = address
            if address and not self.mails.would_allow(address):
                kept = self._db(self._db.auth_user.email == address).select().first()
                request.environ[_KEPT_NAME] = _lower((kept or {}).get("username"))
                return kept
        return self._stock.get_or_delete_existing_unverified_account(address)

    def get_or_register_user(self, user: Any) -> Any:
        """Log in whom another service vouches for; no mail is sent, and an unverified account goes."""
        if not user.get("sso_id") and user.get("email"):
            self._stock.get_or_delete_existing_unverified_account(_lower(user["email"]))
        return self._stock.get_or_register_user(user)

    def register(
        self,
        fields: Any,
        send: bool = True,
        next: str = "",
        validate: bool = True,
        route: str | None = None,
    ) -> dict[str, Any]:
        """Register somebody; where the address is to be verified, a taken one is answered like a new one."""
        next_page = next if _is_local(next) else ""
        if not self._auth.param.registration_requires_confirmation:
            result: dict[str, Any] = self._stock.register(fields, send, next_page, validate, route)
            return result
        fields["email"] = address = _lower(fields.get("email"))
        by_visitor = bool(address) and _noted(_REGISTERING) == address
        begin_writing(self._db)
        owner = self._db(self._db.auth_user.email == address).select().first() if by_visitor else None
        try:
            with savepoint(self._db), _inserting_nothing(bool(owner)):
                result = self._stock.register(fields, False, next_page, validate, route)
        except faults(self._db) as error:
            if not by_visitor or has_undone_all(self._db, error) or not self._is_taken(address):
                raise
            return {"errors": {}, "success": True}  # another request was first: as for a taken one
        if result.get("errors"):
            return result
        if owner:
            self._tell_owner(owner)
        else:
            self._ask_to_verify(result["id"], fields, send, route)
        # The number of the account would tell which it was; with Auth's form nobody looks at it.
        return {"errors": {}, "success": True} if by_visitor else result

    def _is_taken(self, address: str) -> bool:
        users, must_lock = self._db.auth_user, engine(self._db) == MYSQL  # to see what is new
        return bool(self._db(users.email == address).select(users.id, for_update=must_lock))

    def _ask_to_verify(self, account: int, fields: Mapping[str, Any], send: bool, route: str | None) -> None:
        user = self._db.auth_user(account)
        stock_token = user.action_token.removeprefix(PENDING_REGISTRATION)
        token = tokens.ending(stock_token, self._mail.site.clock() + self.lifetimes.verify)
        user.update_record(action_token=PENDING_REGISTRATION + token)
        if send and self.mails.allows(fields["email"]):
            self._send_link("verify_email", fields, token, route)

    def _tell_owner(self, owner: Any) -> None:
        """Somebody registers with the address of an account; only its owner is told."""
        if not self.mails.allows(owner.email):
            return
        try:
            link = self.mails.link(self._auth.route, "login")
        except NoBaseUrl as error:
            self.mails.not_made(owner.email, "already_registered", error)
            return
        if owner.action_token == BLOCKED or (owner.action_token or "").startswith(PENDING_REGISTRATION):
            self.mails.to_nobody("already_registered", link=link)
        else:
            self.mails.send("already_registered", owner, link=link)

    def _allow_registering_twice(self) -> None:
        """Have what is taken pass the validation of a registration, which would tell that it is taken."""
        table = self._db.auth_user
        for name, noted in (("email", _REGISTERING), ("username", _KEPT_NAME)):
            if name not in table.fields:
                continue
            requires = table[name].requires
            several = list(requires) if isinstance(requires, (list, tuple)) else [requires]
            table[name].requires = [
                _NotTaken(validator, noted) if isinstance(validator, IS_NOT_IN_DB) else validator
                for validator in several
                if validator
            ]
        table._before_insert.insert(0, lambda row: bool(_noted(_INSERTS_NOTHING)))

    def verify_email(self, token: str | None) -> bool:
        """Verify the address of the account that was given this token; False: it is none, or has ended."""
        ends = tokens.end(token) if _is_plain(token) else 0.0
        if ends is not None and ends <= self._mail.site.clock():  # stock Auth's own have no end
            return False
        next_state = PENDING_APPROVAL if self._auth.param.registration_requires_approval else None
        waiting = self._db.auth_user.action_token == f"{PENDING_REGISTRATION}{token}"
        return bool(self._db(waiting).update(action_token=next_state))

    # --- passwords -------------------------------------------------------------------------

    def request_reset_password(
        self,
        /,
        email: Any = "",
        send: bool = True,
        next: Any = "",
        route: str | None = None,
        **_unknown: Any,
    ) -> str:
        """Send a link to set another password, to active accounts only.

        Returns:
            A token in any case; it is good for nothing where there is no such account, it is not
            active, or it was sent too many mails. The API's answers are alike by that.
        """
        if self._is_page("api/request_reset_password"):
            send, next, route = True, "", None
        told = f"/{b16e(next)}" if _is_local(next) else ""
        token = tokens.issue(self._mail.site.clock() + self.lifetimes.reset, told)
        user = self._user_called(_lower(email))
        if send and not self.mails.allows(user.email if user else _lower(email)):
            return token
        if user and _is_active(user):
            user.update_record(action_token=RESET + token)
            if send:
                self._send_link("reset_password", user, token, route)
        elif send:
            self._pretend_to_send(token)
        return token

    def _pretend_to_send(self, token: str) -> None:
        """Take the time that a reset takes."""
        self._db(self._db.auth_user.id == 0).update(action_token=RESET + token)
        with suppress(NoBaseUrl):
            link = self.mails.link(self._auth.route, "reset_password", token=token)
            self.mails.to_nobody("reset_password", link=link, expires=self.lifetimes.reset)

    def _user_called(self, name: str) -> Any:
        users = self._db.auth_user
        by_name = self._auth.use_username and "@" not in name
        return self._db((users.username if by_name else users.email) == name).select().first()

    def _is_page(self, name: str) -> bool:
        return request.environ is not None and request.path.endswith(f"/{self._auth.route}/{name}")

    def _query_from_token(self, token: str | None) -> Any:
        """The account whose password may be reset with this token; Auth's page says where there is none."""
        ends = tokens.end(token) if _is_plain(token) else None
        users = self._db.auth_user
        holds = ends is not None and ends > self._mail.site.clock()
        found = users.action_token == f"{RESET}{token}" if holds else users.id == 0
        if self._is_page("reset_password") and self._db(found).isempty():
            self._offer_another_link()
        return found

    def _offer_another_link(self) -> None:
        """Lead who follows a link too late, or twice, to where to ask for another one, in the host's layout.

        Stock Auth shows an empty page.
        """
        self._auth.flash.set(self._auth.param.messages["flash"]["link-expired"])
        page = "request_reset_password" if self._auth.allows("request_reset_password") else "login"
        redirect(URL(self._auth.route, page, use_appname=self._auth.param.use_appname_in_redirects))

    def reset_password(self, token: str | None, new_password: Any, new_password2: Any) -> dict[str, Any]:
        """Set another password with a token, once."""
        errors = self._auth.param.messages["errors"]
        user = self._db(self._query_from_token(token)).select().first()
        if not user:
            return {"errors": {"token": errors.get("invalid_token")}}
        if new_password != new_password2:
            return {"errors": {"new_password2": errors.get("password_doesnt_match")}}
        result = self._auth.change_password(user, new_password, check_old_password=False)
        return {"errors": result["errors"]} if result.get("errors") else {}

    def change_password(
        self,
        user: Any,
        new_password: Any,
        old_password: Any = None,
        check: bool = True,
        check_old_password: bool = True,
    ) -> dict[str, Any]:
        """Change a password, end a link to reset it, and tell its owner."""
        try:
            with savepoint(self._db):
                self._spend_reset(user)
                result: dict[str, Any] = self._stock.change_password(
                    user, new_password, old_password, check, check_old_password
                )
                if result.get("errors"):
                    raise _Refused(result)
        except _Refused as refused:
            return refused.result
        self.notices.password_changed(user)
        return result

    def _spend_reset(self, user: Any) -> None:
        token = user.get("action_token") or ""
        if not token.startswith(RESET):
            return
        users = self._db.auth_user
        mine = (users.id == user.get("id")) & (users.action_token == token)
        if not self._db(mine).update(action_token=None):
            told = self._auth.param.messages["errors"].get("invalid_token")
            raise _Refused({"errors": {"new_password": told}})


class _Refused(Exception):
    """A change of a password that is to leave nothing behind."""

    def __init__(self, result: dict[str, Any]):
        self.result = result


class _NotTaken(Validator):  # type: ignore[misc]  # pydal has no type hints
    """Auth's own check that a value is not taken, except by whom a visitor registers again.

    Args:
        stock: Auth's validator.
        noted: what that value is noted as in the request.
    """

    def __init__(self, stock: Any, noted: str):
        self._stock, self._noted_as = stock, noted

    def validate(self, value: Any, record_id: Any = None) -> Any:
        """The value; ValidationError where it is taken."""
        if not record_id and value and _lower(value) == _noted(self._noted_as):
            return value
        return self._stock.validate(value, record_id)


def _noted(key: str) -> Any:
    """What was noted in this request."""
    return None if request.environ is None else request.environ.get(key)


@contextmanager
def _inserting_nothing(really: bool) -> Iterator[None]:
    """Have no account inserted meanwhile, while all else goes as usual."""
    if request.environ is not None:
        request.environ[_INSERTS_NOTHING] = really
    try:
        yield
    finally:
        if request.environ is not None:
            request.environ[_INSERTS_NOTHING] = False


def _is_active(user: Any) -> bool:
    """Whether an account waits for nothing and is not barred."""
    return not user.action_token or user.action_token.startswith(RESET)


def _is_local(page: Any) -> bool:
    """Whether a page to go to afterwards is on this site; browsers take a backslash for a slash."""
    return isinstance(page, str) and "\\" not in page and bool(prevent_open_redirect(page))


def _lower(text: Any) -> str:
    return text.lower() if _is_plain(text) else ""


def _is_plain(text: Any) -> TypeGuard[str]:
    """Whether this is a text without what no database takes: NUL, or half a character."""
    return isinstance(text, str) and text.isprintable()

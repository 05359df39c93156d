"""What an account's owner is told when somebody changes it: password, address, erasure."""

from __future__ import annotations

import hashlib
from typing import Any

from py4web import HTTP, request

from .account_mail import AccountMail
from .links import NoBaseUrl

RESET = "reset-password-request:"  # Auth's own words
_ANONYMOUS = "anonymous"
ERASED = "gdpr-unsubscribed"
_VISITOR = "mailqueue.visitor"  # in the environ of a request: whose it is


class Notices:
    """Watches the accounts of one Auth.

    Args:
        auth: the host's Auth, with its tables.
        mails: how its mails are sent.
    """

    def __init__(self, auth: Any, mails: AccountMail):
        self._auth, self._mails, self._db = auth, mails, auth.db
        self._stock_on_request = auth.on_request
        for name in ("on_request", "gdpr_unsubscribe", "is_gdpr_unsubscribed"):
            setattr(auth, name, getattr(self, name))
        self._db.auth_user._before_update.append(self._before_update)
        self._db.auth_user._after_update.append(self._after_update)

    def password_changed(self, user: Any) -> None:
        """Tell somebody that their password is another one now."""
        if user.get("email") and self._mails.allows_notice("password_changed", user["id"]):
            self._mails.send("password_changed", user, **self._link("request_reset_password"))

    def _link(self, page: str) -> dict[str, str]:
        """A link to one of Auth's pages, which a mail is worth sending without."""
        try:
            return {"link": self._mails.link(self._auth.route, page)}
        except NoBaseUrl:
            return {}

    # --- addresses -------------------------------------------------------------------------

    def _before_update(self, chosen: Any, fields: Any) -> None:
        """Note who has another address than the one that is about to be written."""
        new = fields.get("email")
        if isinstance(new, str) and fields.get("action_token") != ERASED:
            chosen._mailqueue_moved = [
                row for row in chosen.select() if row.email and row.email.lower() != new.lower()
            ]

    def _after_update(self, chosen: Any, fields: Any) -> None:
        """Tell them at the old address, where a link to reset the password ends."""
        users = self._db.auth_user
        for user in vars(chosen).pop("_mailqueue_moved", ()):
            mine = (users.id == user.id) & (users.action_token == user.action_token)
            if (user.action_token or "").startswith(RESET):
                self._db(mine).update(action_token=None)
            if self._mails.allows_notice("email_changed", user.id):
                self._mails.send("email_changed", user, new_email=fields["email"])

    # --- erasure ---------------------------------------------------------------------------

    def on_request(self, context: Any) -> None:
        """Begin a request as Auth does, and note whose it is: its API forgets before it erases.

        Raises:
            HTTP: the API is asked to erase somebody by a mere link, which anybody can have them open.
        """
        if request.path.endswith(f"/{self._auth.route}/api/unsubscribe") and request.method != "POST":
            raise HTTP(405, self._auth._error("only by POST", 405), {"Allow": "POST"})
        self._stock_on_request(context)
        request.environ[_VISITOR] = self._auth.user_id

    def gdpr_unsubscribe(self, user: Any, send: bool = True) -> None:
        """Erase a person from their account, keep a hash of the address, and tell them.

        Auth's own cannot: its API ends the session before it asks whose it is, and it hashes text, not bytes.

        Args:
            user: the account's row; empty where Auth's API calls this.
            send: whether to tell them.
        """
        users = self._db.auth_user
        visitor = (request.environ or {}).get(_VISITOR)
        user = user or users(visitor)
        before = dict(user.as_dict() if hasattr(user, "as_dict") else user)
        self._db(users.id == before["id"]).update(
            email=_erased(before["email"]),
            password=None,
            first_name=_ANONYMOUS,
            last_name=_ANONYMOUS,
            sso_id=None,
            action_token=ERASED,
        )
        if visitor == before["id"]:
            self._auth.session.clear()  # Auth's API leaves a session whose next request fails
        if send:
            self._auth.send("unsubscribe", before)

    def is_gdpr_unsubscribed(self, email: str) -> bool:
        """Whether whoever had this address was erased."""
        return not self._db(self._db.auth_user.email == _erased(email)).isempty()


def _erased(email: str) -> str:
    """What stands in the place of an erased address, as in Auth."""
    return f"{hashlib.sha1(email.lower().encode(), usedforsecurity=False).hexdigest()}@example.com"

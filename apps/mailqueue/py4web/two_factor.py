"""The life of a code for Auth's second factor: Auth itself takes one for as long as the session lasts."""

from __future__ import annotations

from typing import Any

CODE_EXPIRES_AFTER = 600.0  # seconds

_CODE = "auth.2fa_code"  # Auth's own key
_UNTIL = "mailqueue.2fa_until"


class TwoFactor:
    """Ends codes in the sessions of one Auth.

    Args:
        mail: the QueuedMailer, whose clock holds.
        auth: the host's Auth.
    """

    def __init__(self, mail: Any, auth: Any):
        self._mail, self._session = mail, auth.session
        self._stock_on_request = auth.on_request
        auth.on_request = self.on_request

    def on_request(self, context: Any) -> None:
        """Begin a request as Auth does, and forget a code that has ended, so that Auth sends another one."""
        self._stock_on_request(context)
        until = self._session.get(_UNTIL)
        if until is not None and until <= self._mail.site.clock():
            self._session[_CODE] = self._session[_UNTIL] = None

    def note(self, until: float) -> None:
        """Note when the code ends that is sent in this request, epoch seconds."""
        self._session[_UNTIL] = until

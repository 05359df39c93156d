"""Logging in to an SMTP server (RFC 4954): the mechanisms, and which one to take."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import TypeAlias

from ..classify import NotOffered
from .smtp_wire import Reply

# A user, and the password, or a function that gives a token of today's (OAuth 2.0).
Login: TypeAlias = "tuple[str, str] | tuple[str, Callable[[], str]]"


def log_in(command: Callable[[str], Reply], login: Login, *, offered: str, secure: bool) -> Reply:
    """Log in by the best mechanism that is offered.

    Args:
        command: sends a line and gives its reply.
        login: user and password, or user and a function: then by XOAUTH2.
        offered: the mechanisms, as EHLO lists them.
        secure: whether the connection is under TLS; where it is not, the password is not shown if
            that can be helped.

    Returns:
        The server's last word.

    Raises:
        NotOffered: none of the mechanisms is known.
        OSError: the connection is lost.
        Exception: whatever the function raises.
    """
    user, password = login
    if callable(password):
        if "XOAUTH2" not in offered.upper().split():
            raise NotOffered("AUTH")
        return _xoauth2(command, user, password())
    preferred = ["PLAIN", "LOGIN"] if secure else ["CRAM-MD5", "PLAIN", "LOGIN"]
    names = offered.upper().split()
    mechanism = next((name for name in [*preferred, "CRAM-MD5"] if name in names), None)
    if mechanism is None:
        raise NotOffered("AUTH")
    steps = {"PLAIN": _plain, "LOGIN": _login, "CRAM-MD5": _cram_md5}[mechanism]
    return steps(command, user, password)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _plain(command: Callable[[str], Reply], user: str, password: str) -> Reply:
    return command("AUTH PLAIN " + _encode(f"\0{user}\0{password}"))  # RFC 4616


def _login(command: Callable[[str], Reply], user: str, password: str) -> Reply:
    reply = command("AUTH LOGIN " + _encode(user))
    return command(_encode(password)) if reply.code == 334 else reply


def _xoauth2(command: Callable[[str], Reply], user: str, token: str) -> Reply:
    """As Google and Microsoft document it; after 334, which says what is wrong, an empty line is due."""
    reply = command("AUTH XOAUTH2 " + _encode(f"user={user}\x01auth=Bearer {token}\x01\x01"))
    return command("") if reply.code == 334 else reply


def _cram_md5(command: Callable[[str], Reply], user: str, password: str) -> Reply:
    reply = command("AUTH CRAM-MD5")  # RFC 2195
    if reply.code != 334:
        return reply
    try:
        challenge = base64.b64decode(reply.text, validate=True)
    except ValueError:
        return Reply(0, reply.lines)
    digest = hmac.new(password.encode("utf-8"), challenge, "md5").hexdigest()
    return command(_encode(f"{user} {digest}"))

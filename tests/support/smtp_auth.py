"""The server's side of AUTH PLAIN, LOGIN, CRAM-MD5 (RFC 4616, RFC 2195) and XOAUTH2."""

from __future__ import annotations

import base64
import hmac
import uuid
from collections.abc import Callable, Mapping

Ask = Callable[[bytes], str]  # sends a challenge, returns the answer, still in base64
Claim = tuple[str, Callable[[str], bool]]  # who it is said to be, and whether this password proves it


def authenticate(line: str, ask: Ask, passwords: Mapping[str, str], offered: tuple[str, ...]) -> str | None:
    """The user who proves to be one by this AUTH command, or None."""
    _verb, mechanism, initial = (*line.split(" "), "", "")[:3]
    exchanges = {"PLAIN": _plain, "LOGIN": _login, "CRAM-MD5": _cram_md5, "XOAUTH2": _xoauth2}
    if mechanism.upper() not in offered:
        return None
    try:
        user, is_proved_by = exchanges[mechanism.upper()](initial, ask)
    except ValueError:  # not base64, or not of the right parts
        return None
    return user if user in passwords and is_proved_by(passwords[user]) else None


def _plain(initial: str, ask: Ask) -> Claim:
    _authorize, user, password = _decode(initial or ask(b"")).split("\0")
    return user, lambda right: right == password


def _login(initial: str, ask: Ask) -> Claim:
    user = _decode(initial or ask(b"Username:"))
    password = _decode(ask(b"Password:"))
    return user, lambda right: right == password


def _cram_md5(_initial: str, ask: Ask) -> Claim:
    challenge = f"<{uuid.uuid4()}@scripted.test>".encode()
    user, digest = _decode(ask(challenge)).rsplit(" ", 1)
    return user, lambda right: hmac.new(right.encode(), challenge, "md5").hexdigest() == digest


def _xoauth2(initial: str, ask: Ask) -> Claim:
    user, bearer, _end, _end = _decode(initial).split("\x01")

    def is_proved_by(right: str) -> bool:
        # Whoever sends a wrong token is told what is wrong, and has to answer with an empty line.
        return bearer == f"auth=Bearer {right}" or ask(b'{"status":"401"}') != ""

    return user.removeprefix("user="), is_proved_by


def _decode(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()

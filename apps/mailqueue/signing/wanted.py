"""What a message asks for: to be signed, encrypted, or both; noted in front of its stored text.

The note is a line of JSON. It stands in the text itself, so that no way leads past it: whatever is done
to a stored message, only `unmarked()` gives it without the note, to who signs and encrypts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from ..errors import BadMessage

GPG, X509 = "gpg", "x509"
CIPHERS = (GPG, X509)

_MARK = b"Mailqueue-Protection: "
_SWITCHES = ("sign", "encrypt", "x509_nocerts")
_FILES = ("x509_sign_keyfile", "x509_sign_certfile", "x509_sign_chainfile")
_SECRETS = ("sign_passphrase", "x509_sign_keyfile")
_OPTIONAL = "optional"  # in a note: without a cipher_type the message goes as it is
UNASKED: Mapping[str, Any] = {_OPTIONAL: True}  # what a message without a note asks for


def wanted(given: Mapping[str, Any], settings: Any) -> dict[str, Any] | None:
    """What the arguments of a send() ask for, as it is to be stored: only what they say themselves.

    Args:
        given: the stock mailers' arguments: cipher_type, sign, sign_passphrase, encrypt and x509_…
        settings: the mailer's.

    Returns:
        None: they say nothing, and the settings want nothing.

    Raises:
        BadMessage: they make no sense, or hold a secret, which is not for the database.
    """
    cipher = given.get("cipher_type")
    if cipher and cipher not in CIPHERS:
        raise BadMessage(f"cipher_type: expected one of {CIPHERS}, got {str(cipher)[:40]!r}.")
    if not settings.cipher_type and all(value is None for value in given.values()):
        return None
    for name in _SECRETS:
        _refuse_secret(name, given.get(name), getattr(settings, name))
    asked = _said(given, settings)
    if (cipher or settings.cipher_type) and _is_declined(asked):
        raise BadMessage("cipher_type: neither sign nor encrypt is wanted.")
    if settings.cipher_type or any(given.values()):
        return asked
    return {**asked, _OPTIONAL: True}


def _said(given: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"cipher_type": str(given["cipher_type"])} if given.get("cipher_type") else {}
    asked |= {name: bool(given[name]) for name in _SWITCHES if given.get(name) is not None}
    asked |= {name: _text(name, given[name]) for name in _FILES if given.get(name)}
    if given.get("x509_crypt_certfiles"):
        asked["x509_crypt_certfiles"] = _texts("x509_crypt_certfiles", given["x509_crypt_certfiles"])
    if asked.get("x509_sign_keyfile") == settings.x509_sign_keyfile:
        asked.pop("x509_sign_keyfile", None)  # it may be the key itself
    return asked


def is_to_be_protected(asked: Mapping[str, Any], settings: Any) -> bool:
    """Whether a message is to be signed or encrypted when it leaves.

    Args:
        asked: what wanted() gave.
        settings: the mailer's, as they are then.
    """
    if _is_declined(asked):
        return False
    return bool(getattr(settings, "cipher_type", None)) or not asked.get(_OPTIONAL)


def _is_declined(asked: Mapping[str, Any]) -> bool:
    return asked.get("sign") is False and asked.get("encrypt") is False


def _refuse_secret(name: str, value: Any, configured: Any) -> None:
    is_secret = bool(value) and (name == "sign_passphrase" or "-----BEGIN" in _text(name, value))
    if is_secret and value != configured:
        raise BadMessage(
            f"{name}: a secret is not stored with a message; set it once, as mail.settings.{name}"
            + (", or give the path of its file." if name != "sign_passphrase" else ".")
        )


def _text(name: str, value: Any) -> str:
    try:
        return value.decode("ascii") if isinstance(value, bytes) else str(value)
    except UnicodeError:
        raise BadMessage(f"{name}: expected the path of a file, or its content in PEM format.") from None


def _texts(name: str, value: Any) -> list[str]:
    return [_text(name, one) for one in (value if isinstance(value, (list, tuple)) else [value])]


def marked(mime: bytes, asked: Mapping[str, Any]) -> bytes:
    """The text of a message with the note of what it asks for."""
    note = json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()
    return _MARK + base64.urlsafe_b64encode(note) + b"\r\n" + mime


def is_marked(mime: bytes) -> bool:
    """Whether a stored text has such a note."""
    return mime.startswith(_MARK)


def unmarked(mime: bytes) -> tuple[dict[str, Any], bytes]:
    """What a stored text asks for, and the text itself.

    Raises:
        ValueError: the note is damaged.
    """
    note, _, rest = mime.removeprefix(_MARK).partition(b"\r\n")
    try:
        asked = json.loads(base64.b64decode(note, altchars=b"-_", validate=True))
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise ValueError("the stored note, how the message is to be signed or encrypted, is damaged")
    return asked, rest

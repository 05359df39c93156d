"""What makes a stored message the one that leaves: its sender, S/MIME or OpenPGP, and DKIM over all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..classify import DeliveryError
from ..compose import with_sender
from . import dkim, smime
from .faults import key_fault
from .pgp import PgpKeys
from .wanted import GPG, UNASKED, X509, is_marked, is_to_be_protected, unmarked

_SWITCHES = ("sign", "encrypt", "x509_nocerts")
_OTHERS = (
    "cipher_type",
    "sign_passphrase",
    "x509_sign_keyfile",
    "x509_sign_certfile",
    "x509_sign_chainfile",
    "x509_crypt_certfiles",
)


class Seal:
    """Finishes the messages of a site.

    Args:
        settings: gives the mailer's, as they are at that moment; None: it has none.
    """

    def __init__(self, settings: Callable[[], Any] = lambda: None):
        self._settings = settings

    def finished(self, mime: bytes, site_sender: str | None, recipients: Sequence[str]) -> bytes:
        """A stored message as it leaves.

        Args:
            mime: as it is stored.
            site_sender: for the From of a message that brings none.
            recipients: the addresses that it goes to now.

        Raises:
            DeliveryError: it cannot be signed or encrypted as configured; says why, without secrets.
            BadAddress: the sender is not one address.
            ValueError: the stored message is damaged in what it asks for.
        """
        settings = self._settings()
        asked, mime = unmarked(mime) if is_marked(mime) else (UNASKED, mime)
        if site_sender:
            mime = with_sender(mime, site_sender)
        if is_to_be_protected(asked, settings):
            mime = _protected(mime, chosen(asked, settings), settings, recipients)
        keys = getattr(settings, "dkim", None)
        return dkim.signed(mime, keys) if keys else mime

    def is_ready_ahead(self, mime: bytes) -> bool:
        """Whether a stored message can be finished ahead of its turn.

        What is encrypted differs each time, and a function that gives a key may take long.
        """
        settings = self._settings()
        is_protected = is_marked(mime) or is_to_be_protected(UNASKED, settings)
        return not (is_protected or _asks_for_keys(settings))

    @property
    def settings(self) -> Any:
        """The mailer's settings, as they are now; None: it has none."""
        return self._settings()

    def dkim_keys(self) -> list[dkim.DkimKey]:
        """The keys that are configured for DKIM.

        Raises:
            DeliveryError: the setting holds something else.
        """
        keys = getattr(self._settings(), "dkim", None)
        return dkim.checked_keys(keys) if keys else []


def _asks_for_keys(settings: Any) -> bool:
    """Whether a function gives a key of DKIM, perhaps from over a network."""
    keys = getattr(settings, "dkim", None)
    several = keys if isinstance(keys, (list, tuple)) else [keys]
    return bool(keys) and any(callable(getattr(key, "key", None)) for key in several)


def has_own_from(mime: bytes) -> bool:
    """Whether a stored message brings its own From, whose domain's keys sign it, instead of the site's."""
    start = mime.find(b"\n") + 1 if is_marked(mime) else 0
    return mime.startswith(b"From:", start)


def chosen(asked: Mapping[str, Any], settings: Any) -> dict[str, Any]:
    """What holds for a message: what it asks for itself, else the settings.

    Args:
        asked: what wanted() gave.
    """
    switches = {name: asked.get(name, getattr(settings, name, None)) for name in _SWITCHES}
    others = {name: asked.get(name) or getattr(settings, name, None) for name in _OTHERS}
    return {**others, **{name: bool(value) for name, value in switches.items()}}


def _protected(mime: bytes, chosen: Mapping[str, Any], settings: Any, recipients: Sequence[str]) -> bytes:
    sign, encrypt = require_sense(chosen)
    try:
        if chosen["cipher_type"] == X509:
            return smime.protected(mime, smime.SmimeKeys.of(chosen), sign=sign, encrypt=encrypt)
        keys = PgpKeys(settings.gpg_home, chosen["sign_passphrase"])
        return keys.protected(mime, recipients, sign=sign, encrypt=encrypt)
    except DeliveryError:
        raise
    except Exception as error:
        # Whatever it is: nobody may take it for the message's own fault, or send it as it is.
        rule = "smime-key" if chosen["cipher_type"] == X509 else "pgp-key"
        raise key_fault(rule, f"{type(error).__name__} while signing or encrypting") from error


def require_sense(chosen: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether to sign and whether to encrypt.

    Raises:
        DeliveryError: neither, or by a method that there is not.
    """
    cipher, sign, encrypt = chosen["cipher_type"], chosen["sign"], chosen["encrypt"]
    if cipher not in (GPG, X509):
        raise key_fault("cipher-settings", f"cipher_type is {str(cipher)[:40]!r}, expected 'gpg' or 'x509'")
    if not (sign or encrypt):
        raise key_fault("cipher-settings", f"cipher_type is {cipher!r}, and neither sign nor encrypt is set")
    return sign, encrypt

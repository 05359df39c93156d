"""DKIM signatures (RFC 6376): who the site is, for the servers that its mail comes to.

    mail.settings.dkim = [
        dkim_key(domain="your-domain.org", selector="2026", key="/etc/dkim/2026.pem"),
        dkim_key(domain="your-domain.org", selector="ed2026", key=read_from_the_vault),
    ]

A message is signed with every key of the domain in its From; of another domain, with none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import pem
from .entity import addresses_in, fields_of
from .faults import key_fault

RSA, ED25519 = b"rsa-sha256", b"ed25519-sha256"
SHORTEST_RSA = 1024  # bits, RFC 8301 section 3.2
# Date and Message-ID are not among them: Amazon SES and others set their own.
SIGNED = frozenset(
    [
        "from", "sender", "reply-to", "subject", "to", "cc", "in-reply-to", "references", "auto-submitted",
        "list-id", "list-unsubscribe", "list-unsubscribe-post", "resent-from", "resent-to", "resent-date",
        "mime-version", "content-type", "content-transfer-encoding",
    ]
)  # fmt: skip
# Named once more than they are there, so that nobody can add one (RFC 6376 section 8.15).
OVERSIGNED = ("from", "reply-to", "subject", "to", "cc", "content-type")

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)
_BARE_ED25519 = re.compile(rb"\s*([A-Za-z0-9+/]{43}=)\s*")  # as dknewkey writes it
_ED25519_DER = bytes.fromhex("302e020100300506032b657004220420")  # RFC 8410 section 7, before the 32 octets
_REMEMBERED = 64  # signatures: a message that is announced ahead of its turn is asked for more than once


@dataclass(frozen=True)
class DkimKey:
    """A key to sign with; made by dkim_key(). The stock mailers' objects with key and selector do as well.

    Args:
        selector: names the key in the DNS, at <selector>._domainkey.<domain>.
        key: the path of its file in PEM format, its content, or a function that gives the content.
        domain: of the senders whose mail is signed with it; None: of any.
    """

    selector: str
    key: Any = field(repr=False)
    domain: str | None = None


def dkim_key(*, domain: str, selector: str, key: str | bytes | Callable[[], str | bytes]) -> DkimKey:
    """A key to sign the mail of a domain's senders with.

    Args:
        domain: the one in the From of the mail.
        selector: names the key in the DNS, at <selector>._domainkey.<domain>.
        key: RSA or Ed25519, without a password: the path of its file in PEM format, its content, or a
            function that gives the content, which is called for each message.
    """
    return DkimKey(selector, key, domain)


def signed(mime: bytes, keys: Any) -> bytes:
    """A message with a DKIM-Signature in front for each key of its sender's domain.

    Args:
        mime: the message as it leaves, lines ended by CRLF.
        keys: the setting `dkim`: a key, or several.

    Raises:
        DeliveryError: a key cannot be used; says why, without secrets.
    """
    domain = next((one.rpartition("@")[2].lower() for one in addresses_in(mime, "from")), "")
    signatures = [
        _signature(mime, str(key.selector), domain, _material(key, domain))
        for key in checked_keys(keys)
        if domain and (key.domain or domain).lower() == domain
    ]
    return b"".join([*signatures, mime])


def checked_keys(keys: Any) -> list[DkimKey]:
    """The keys of the setting `dkim`.

    Raises:
        DeliveryError: it holds something else.
    """
    several = keys if isinstance(keys, (list, tuple)) else [keys]
    return [_checked(key) for key in several]


def is_selector(text: object) -> bool:
    """Whether a key can be called so in the DNS (RFC 6376 section 3.1), "_" being taken for a letter too."""
    return isinstance(text, str) and bool(_NAME.fullmatch(text)) and len(text) <= 253


def _checked(given: Any) -> DkimKey:
    selector, domain = getattr(given, "selector", None), getattr(given, "domain", None)
    if not selector or not hasattr(given, "key"):
        raise key_fault("dkim-key", f"dkim holds {type(given).__name__}, expected dkim_key(…)")
    for what, name in (("selector", selector), ("domain", domain or "any.test")):
        if not is_selector(name):  # a domain is written alike
            raise key_fault("dkim-key", f"the {what} of a key, {str(name)[:100]!r}, is no name for the DNS")
    return DkimKey(selector, given.key, domain)


def check(key: DkimKey) -> None:
    """Whether a key can be used, by signing something with it.

    Raises:
        DeliveryError: it cannot; says why, without secrets.
    """
    domain = key.domain or "any.test"
    _signature(b"From: a@any.test\r\n\r\n", key.selector, domain, _material(key, domain))


def public_key(key: DkimKey, domain: str) -> str:
    """What "p=" of the key's record in the DNS is to say (RFC 6376 section 3.6.1, RFC 8463 section 4).

    Args:
        domain: of the sender.

    Raises:
        DeliveryError: the key cannot be used; says why, without secrets.
    """
    material = _material(key, domain)
    _library()
    if material.algorithm == ED25519:
        from nacl.signing import SigningKey

        return base64.b64encode(bytes(SigningKey(base64.b64decode(material.secret)).verify_key)).decode()
    from cryptography.hazmat.primitives import serialization

    try:
        private = serialization.load_pem_private_key(material.secret, None)
    except ValueError:
        where = f"{key.selector}._domainkey.{domain}"
        raise key_fault("dkim-key", f"{where}: it is no RSA or Ed25519 key") from None
    der = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(der).decode()


@dataclass(frozen=True)
class _Material:
    """What dkimpy takes for a key."""

    algorithm: bytes
    secret: bytes = field(repr=False)


def _material(key: DkimKey, domain: str) -> _Material:
    where = f"{key.selector}._domainkey.{domain}"
    try:
        given = key.key() if callable(key.key) else key.key
    except Exception as error:  # noqa: BLE001 - its text may hold anything, such as a vault's answer
        raise key_fault("dkim-key", f"{where}: the function raised {type(error).__name__}") from None
    try:
        return _read(given)
    except (OSError, ValueError) as error:
        raise key_fault("dkim-key", f"{where}: {pem.why_unreadable(error)}") from None


def _read(given: Any) -> _Material:
    as_it_is = given.encode() if isinstance(given, str) else given
    is_bare = isinstance(as_it_is, bytes) and _BARE_ED25519.fullmatch(as_it_is)
    content = as_it_is if is_bare else pem.content_of(given)
    if bare := _BARE_ED25519.fullmatch(content):
        return _Material(ED25519, bare[1])
    found = pem.blocks(content, "PRIVATE KEY")
    if not found:
        raise ValueError("there is no private key in PEM format in it")
    text = found[0]
    if b"ENCRYPTED" in text:
        raise ValueError("the private key has a password, and must have none")
    try:
        der = base64.b64decode(b"".join(text.split(b"\n")[1:-2]), validate=True)
    except binascii.Error:
        raise ValueError("the private key is damaged") from None
    if der.startswith(_ED25519_DER):
        return _Material(ED25519, base64.b64encode(der[len(_ED25519_DER) :][:32]))
    return _Material(RSA, text)


# --- signing -------------------------------------------------------------------------------


class _Remembered:
    """The last signatures: the same message, asked for again, has the same one."""

    def __init__(self) -> None:
        self._kept: OrderedDict[object, bytes] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, key: object, make: Callable[[], bytes]) -> bytes:
        with self._guard:
            found = self._kept.get(key)
        if found is None:
            found = make()
            with self._guard:
                self._kept[key] = found
                while len(self._kept) > _REMEMBERED:
                    self._kept.popitem(last=False)
        return found


_remembered = _Remembered()


def _signature(mime: bytes, selector: str, domain: str, material: _Material) -> bytes:
    key = (hashlib.sha256(mime).digest(), selector, domain, material)
    return _remembered.get(key, lambda: _made(mime, selector, domain, material))


def _made(mime: bytes, selector: str, domain: str, material: _Material) -> bytes:
    library = _library()
    names = [name for name, _ in fields_of(mime)]
    where = f"{selector}._domainkey.{domain}"
    try:
        made: bytes = library.DKIM(mime).sign(
            selector.encode(),
            domain.encode(),
            material.secret,
            signature_algorithm=material.algorithm,
            canonicalize=(b"relaxed", b"relaxed"),
            include_headers=_signed_names(names),
        )
        bits = _bits(library, material)
    except Exception as error:  # noqa: BLE001 - dkimpy lets a broken key show as almost anything
        kind = type(error).__name__
        raise key_fault("dkim-key", f"{where}: it is no RSA or Ed25519 key ({kind})") from None
    if bits < SHORTEST_RSA:
        raise key_fault("dkim-key", f"{where}: {bits} bits are too few, nobody accepts less than 1024")
    return made


def _bits(library: Any, material: _Material) -> int:
    if material.algorithm != RSA:
        return SHORTEST_RSA
    return int(library.parse_pem_private_key(material.secret)["modulus"].bit_length())


def _library() -> Any:
    try:
        import dkim
        import nacl.signing  # noqa: F401 - dkimpy does without it, but for Ed25519
    except ImportError:
        raise key_fault("dkim-extra", "DKIM: pip install 'mailqueue[dkim]'") from None
    return dkim


def _signed_names(present: Iterable[str]) -> list[bytes]:
    there = [name for name in present if name in SIGNED]
    return [name.encode() for name in (*there, *OVERSIGNED)]

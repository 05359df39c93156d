"""TLS of an SMTP session: which server to trust, and what to show it."""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
from dataclasses import dataclass

from ..classify import SiteFault

_PIN = re.compile(r"(?:sha256:)?((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})")


@dataclass(frozen=True)
class Trust:
    """Whom to trust, and who we are.

    Args:
        ca_file: path of the certificates to trust (PEM), instead of the system's.
        pin: SHA-256 of the server's own certificate (DER) in hexadecimal digits, in place of any authority;
            see read_pin().
        cert_file: path of a client certificate (PEM), with its chain and perhaps its key.
        key_file: path of its key.
    """

    ca_file: str | None = None
    pin: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


def read_pin(text: str) -> str:
    """A fingerprint as `openssl x509 -fingerprint -sha256` writes it, or without colons, as Trust wants it.

    Raises:
        ValueError: it is no SHA-256.
    """
    found = _PIN.fullmatch(text.lower())
    if not found:
        raise ValueError("expected the SHA-256 of a certificate, 64 hexadecimal digits")
    return found[1].replace(":", "")


def context_of(trust: Trust, *, verified: bool) -> ssl.SSLContext:
    """What to make a handshake with; TLS 1.2 or later.

    Args:
        verified: whether the server's certificate must be a good one. A pinned one need not be: expect_pin()
            is to be called then.

    Raises:
        SiteFault: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=trust.ca_file)
    except OSError as error:
        raise SiteFault("bad-ca-file", f"ca_file {_shown(trust.ca_file)} cannot be used: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if trust.pin or not verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if trust.cert_file:
        _load(context, trust.cert_file, trust.key_file)
    return context


def _load(context: ssl.SSLContext, cert_file: str, key_file: str | None) -> None:
    try:
        # Without an answer of ours OpenSSL would ask on the terminal for the password of a key.
        context.load_cert_chain(cert_file, key_file, password=lambda: b"")
    except OSError as error:
        text = f"the client certificate {_shown(cert_file)} cannot be used: {error}"
        raise SiteFault("bad-client-certificate", text) from error


def _shown(path: str | None) -> str:
    """The path of a file; not what somebody has put in its place, which may be a key."""
    text = str(path)
    return "(expected a path, not what the file holds)" if "-----BEGIN" in text or "\n" in text else text


def expect_pin(certificate: bytes | None, pin: str) -> None:
    """See that the server has shown the certificate that is pinned.

    Args:
        certificate: what it has shown, in DER.

    Raises:
        ssl.SSLCertVerificationError: it is another one; says which, for whoever is to pin it.
    """
    shown = hashlib.sha256(certificate or b"").hexdigest()
    if not hmac.compare_digest(shown, pin):
        raise ssl.SSLCertVerificationError(
            f"the server's certificate is not the pinned one but sha256:{shown}"
        )

"""S/MIME (RFC 8551): signed, encrypted, or signed and then encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

from . import pem
from .entity import leaf, multipart, parted
from .faults import key_fault

_SIGNATURE = 'application/pkcs7-signature; name="smime.p7s"'
_ENVELOPE = 'application/pkcs7-mime; smime-type=enveloped-data; name="smime.p7m"'
_SIGNED = 'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256'


@dataclass(frozen=True)
class SmimeKeys:
    """What settings and arguments name; each the path of a file or its content, in PEM format.

    Args:
        key, certificate: of the signer.
        chain: certificates to send along.
        recipients: certificates of those who are to read it.
        passphrase: of the key.
        without_certificates: whether none are sent along with a signature.
    """

    key: Any = field(repr=False)
    certificate: Any
    chain: Any
    recipients: tuple[Any, ...]
    passphrase: Any = field(repr=False)
    without_certificates: bool

    @classmethod
    def of(cls, chosen: Mapping[str, Any]) -> SmimeKeys:
        """The keys that the stock mailers' settings x509_… and sign_passphrase name."""
        several = chosen["x509_crypt_certfiles"] or ()
        return cls(
            key=chosen["x509_sign_keyfile"],
            certificate=chosen["x509_sign_certfile"] or chosen["x509_sign_keyfile"],
            chain=chosen["x509_sign_chainfile"],
            recipients=tuple(several) if isinstance(several, (list, tuple)) else (several,),
            passphrase=chosen["sign_passphrase"],
            without_certificates=bool(chosen["x509_nocerts"]),
        )


def protected(mime: bytes, keys: SmimeKeys, *, sign: bool, encrypt: bool) -> bytes:
    """A message signed, encrypted, or both: what is encrypted is the signed message then.

    Raises:
        DeliveryError: the keys cannot be used; says why, without secrets.
    """
    header, entity = parted(mime)
    if sign:
        entity = _signed(entity, keys)
    if encrypt:
        entity = _encrypted(entity, keys)
    return header + entity


def expiries(keys: SmimeKeys, *, sign: bool, encrypt: bool) -> list[tuple[str, datetime]]:
    """Whose certificates end when: the subject of each.

    Raises:
        DeliveryError: they cannot be read.
    """
    given = [keys.certificate] if sign else []
    given += keys.recipients if encrypt else ()
    found = [_certificates(one, "a certificate")[0] for one in given]
    return [(one.subject.rfc4514_string(), one.not_valid_after_utc) for one in found]


def _signed(entity: bytes, keys: SmimeKeys) -> bytes:
    library = _library()
    key = _private_key(keys)
    certificate = _certificates(keys.certificate, "x509_sign_certfile")[0]
    if key.public_key() != certificate.public_key():
        raise key_fault("smime-key", "x509_sign_certfile is not the certificate of x509_sign_keyfile")
    options = [library.PKCS7Options.DetachedSignature, library.PKCS7Options.Binary]
    if keys.without_certificates:
        options.append(library.PKCS7Options.NoCerts)
    try:
        builder = library.PKCS7SignatureBuilder().set_data(entity)
        builder = builder.add_signer(certificate, key, library.hashes.SHA256())
        for one in _chain(keys):
            builder = builder.add_certificate(one)
        signature = builder.sign(library.serialization.Encoding.DER, options)
    except Exception as error:  # noqa: BLE001 - nobody may take it for the message's fault
        raise key_fault("smime-key", f"signing: {type(error).__name__}: {str(error)[:200]}") from None
    disposition = 'Content-Disposition: attachment; filename="smime.p7s"'
    return multipart(_SIGNED, entity, leaf(_SIGNATURE, signature, disposition))


def _encrypted(entity: bytes, keys: SmimeKeys) -> bytes:
    library = _library()
    certificates = [one for given in keys.recipients for one in _certificates(given, "x509_crypt_certfiles")]
    if not certificates:
        raise key_fault("smime-key", "x509_crypt_certfiles is not set")
    try:
        builder = library.PKCS7EnvelopeBuilder().set_data(entity)
        builder = builder.set_content_encryption_algorithm(library.algorithms.AES256)
        for one in certificates:
            builder = builder.add_recipient(one)
        sealed = builder.encrypt(library.serialization.Encoding.DER, [library.PKCS7Options.Binary])
    except Exception as error:  # noqa: BLE001 - nobody may take it for the message's fault
        raise key_fault("smime-key", f"encrypting: {type(error).__name__}: {str(error)[:200]}") from None
    return leaf(_ENVELOPE, sealed, 'Content-Disposition: attachment; filename="smime.p7m"')


def _private_key(keys: SmimeKeys) -> Any:
    found = pem.blocks(_content(keys.key, "x509_sign_keyfile"), "PRIVATE KEY")
    if not found:
        raise key_fault("smime-key", "x509_sign_keyfile holds no private key in PEM format")
    locked = b"ENCRYPTED" in found[0]
    if locked and not keys.passphrase:
        raise key_fault("smime-key", "x509_sign_keyfile has a password, and sign_passphrase is not set")
    passphrase = str(keys.passphrase).encode() if locked else None
    try:
        return _loaded(found[0], passphrase)
    except Exception:  # noqa: BLE001 - what is said about a key that cannot be read is not for a log
        wrong = "sign_passphrase is wrong, or " if locked else ""
        raise key_fault("smime-key", f"x509_sign_keyfile: {wrong}the private key is damaged") from None


@lru_cache(maxsize=8)  # loading one proves it to be sound, which takes a hundred times as long as signing
def _loaded(key: bytes, passphrase: bytes | None) -> Any:
    return _library().serialization.load_pem_private_key(key, passphrase)


def _chain(keys: SmimeKeys) -> list[Any]:
    if not keys.chain or keys.without_certificates:
        return []
    return _certificates(keys.chain, "x509_sign_chainfile")


def _certificates(given: Any, what: str) -> list[Any]:
    found = pem.blocks(_content(given, what), "CERTIFICATE")
    if not found:
        raise key_fault("smime-key", f"{what} holds no certificate in PEM format")
    try:
        return [_library().load_pem_x509_certificate(one) for one in found]
    except ValueError:
        raise key_fault("smime-key", f"{what}: the certificate is damaged") from None


def _content(given: Any, what: str) -> bytes:
    if not given:
        raise key_fault("smime-key", f"{what} is not set")
    try:
        return pem.content_of(given)
    except (OSError, ValueError) as error:
        raise key_fault("smime-key", f"{what}: {pem.why_unreadable(error)}") from None


class _Library:
    """What is used of cryptography."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.ciphers import algorithms
        from cryptography.hazmat.primitives.serialization import pkcs7
        from cryptography.x509 import load_pem_x509_certificate

        self.hashes, self.serialization, self.algorithms = hashes, serialization, algorithms
        self.load_pem_x509_certificate = load_pem_x509_certificate
        self.PKCS7Options = pkcs7.PKCS7Options
        self.PKCS7SignatureBuilder = pkcs7.PKCS7SignatureBuilder
        self.PKCS7EnvelopeBuilder = pkcs7.PKCS7EnvelopeBuilder


def _library() -> _Library:
    try:
        return _Library()
    except (ImportError, AttributeError):
        raise key_fault("cipher-extra", "S/MIME: pip install 'mailqueue[smime]'") from None


def is_over(end: datetime, now: float) -> bool:
    """Whether a certificate that ends then has ended, at `now` in epoch seconds."""
    return end < datetime.fromtimestamp(now, timezone.utc)

"""Keys to sign and encrypt with, and programs that are not ours to verify and decrypt."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM
_DKIM_VERIFY = Path(__file__).parent / "dkim_verify.pl"
_PRIVATE = serialization.PrivateFormat
_PUBLIC = serialization.PublicFormat


# --- DKIM ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Published:
    """A private key, and the record of its public one."""

    pem: str
    record: str


def dkim_rsa(bits: int = 2048) -> Published:
    key = rsa.generate_private_key(65537, bits)
    der = key.public_key().public_bytes(serialization.Encoding.DER, _PUBLIC.SubjectPublicKeyInfo)
    pem = key.private_bytes(PEM, _PRIVATE.TraditionalOpenSSL, serialization.NoEncryption()).decode()
    return Published(pem, f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}")


def dkim_ed25519() -> Published:
    key = ed25519.Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, _PUBLIC.Raw)
    pem = key.private_bytes(PEM, _PRIVATE.PKCS8, serialization.NoEncryption()).decode()
    return Published(pem, f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}")


def verified_by_perl(data: bytes, published: Mapping[str, str]) -> dict[str, str]:
    """What Mail::DKIM says of each signature, by its selector.

    Args:
        published: name in the DNS -> record.
    """
    done = subprocess.run(
        ["perl", str(_DKIM_VERIFY), *[f"{name}={record}" for name, record in published.items()]],
        input=data,
        capture_output=True,
        check=True,
    )
    lines = (line.partition(" ") for line in done.stdout.decode().splitlines())
    return {selector: result for selector, _, result in lines}


def dkim_tags(data: bytes) -> list[dict[str, str]]:
    """The tags of each DKIM-Signature, in their order."""
    header = data.partition(b"\r\n\r\n")[0].decode()
    fields = re.findall(r"^DKIM-Signature:((?:[^\r\n]|\r\n[ \t])*)", header, re.MULTILINE)
    pairs = [re.findall(r"\s*([a-z]+)\s*=\s*([^;]*)", re.sub(r"\r\n", "", field)) for field in fields]
    return [{name: re.sub(r"\s", "", value) for name, value in found} for found in pairs]


def ed25519_verifies(data: bytes, record: str) -> bool:
    """Whether the only signature, ed25519-sha256 and relaxed/relaxed, fits; by RFC 6376, written out here."""
    (tags,) = dkim_tags(data)
    header, _, body = data.partition(b"\r\n\r\n")
    lines = [re.sub(rb"[ \t]+", b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    canonical = b"\r\n".join(lines).rstrip(b"\r\n") + b"\r\n"
    if tags["bh"] != base64.b64encode(hashlib.sha256(canonical).digest()).decode():
        return False
    fields = [_relaxed(field) for field in re.split(rb"\r\n(?![ \t])", header)]
    taken: list[bytes] = []
    for name in tags["h"].split(":"):
        left = [field for field in fields if field.startswith(name.encode() + b":") and field not in taken]
        taken += left[-1:]
    own = next(field for field in fields if field.startswith(b"dkim-signature:"))
    signed = b"".join(field + b"\r\n" for field in taken) + re.sub(rb"(;\s*b=).*", rb"\1", own)
    public = base64.b64decode(record.rpartition("p=")[2])
    verifier = ed25519.Ed25519PublicKey.from_public_bytes(public)
    try:
        verifier.verify(base64.b64decode(tags["b"]), hashlib.sha256(signed).digest())
    except InvalidSignature:
        return False
    return tags["a"] == "ed25519-sha256" and tags["c"] == "relaxed/relaxed"


def _relaxed(field: bytes) -> bytes:
    name, _, value = field.partition(b":")
    return name.strip().lower() + b":" + re.sub(rb"[ \t\r\n]+", b" ", value).strip()


# --- S/MIME ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Person:
    """A certificate and its key, in PEM files."""

    cert_file: Path
    key_file: Path


def make_person(
    folder: Path, name: str, *, curve: bool = False, password: bytes | None = None, days: int = 30
) -> Person:
    """A self-signed certificate for S/MIME."""
    key = ec.generate_private_key(ec.SECP256R1()) if curve else rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(f"{name}@site.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    person = Person(folder / f"{name}.crt", folder / f"{name}.key")
    person.cert_file.write_bytes(certificate.public_bytes(PEM))
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    person.key_file.write_bytes(key.private_bytes(PEM, _PRIVATE.PKCS8, lock))
    return person


def openssl(*arguments: object, data: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["openssl", *map(str, arguments)], input=data, capture_output=True, check=False)


def smime_verified(data: bytes, signer: Person, *more: object) -> bytes | None:
    """The entity that `openssl cms -verify` finds well signed; None: it is not."""
    done = openssl("cms", "-verify", "-CAfile", signer.cert_file, *more, data=data)
    return done.stdout if done.returncode == 0 else None


def smime_decrypted(data: bytes, reader: Person) -> bytes | None:
    """The entity that `openssl cms -decrypt` finds; None: it is not for this reader."""
    done = openssl("cms", "-decrypt", "-recip", reader.cert_file, "-inkey", reader.key_file, data=data)
    return done.stdout if done.returncode == 0 else None


# --- OpenPGP ---------------------------------------------------------------------------------
@dataclass(frozen=True)
class Keyring:
    """A folder of gpg's."""

    home: Path

    def gpg(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--status-fd", "2", *arguments],
            input=data,
            capture_output=True,
            check=False,
        )

    def make(self, address: str, passphrase: str = "") -> None:
        done = self.gpg(
            "--pinentry-mode", "loopback", "--passphrase", passphrase,
            "--quick-generate-key", f"<{address}>", "future-default", "default", "never",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def give(self, address: str, other: Keyring) -> None:
        """Let another keyring have the public key of somebody."""
        public = self.gpg("--armor", "--export", f"<{address}>").stdout
        assert other.gpg("--import", data=public).returncode == 0

    def forget_passphrases(self) -> None:
        """Have the agent ask again."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--reload", "gpg-agent"], check=True)

    def forget(self, address: str) -> None:
        self.gpg("--yes", "--delete-keys", f"<{address}>")


@contextlib.contextmanager
def fresh_keyring(folder: Path) -> Iterator[Keyring]:
    """An empty keyring, whose agent is ended afterwards. The path must be short: sockets lie there."""
    folder.mkdir(mode=0o700)
    (folder / "gpg-agent.conf").write_text("s2k-count 65536\n")  # or it measures for seconds what is slow
    try:
        yield Keyring(folder)
    finally:
        subprocess.run(
            ["gpgconf", "--homedir", str(folder), "--kill", "all"], check=False, capture_output=True
        )

"""Certificates for the scripted server: good ones and every bad one a site meets."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, in PEM files."""

    cert_file: Path
    key_file: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context


@dataclass(frozen=True)
class Certificates:
    """A certification authority and what it signed, for "localhost" and 127.0.0.1.

    Attributes:
        ca_file: trust this one; also fit for the environment variable SSL_CERT_FILE.
        server: good. self_signed: signed by nobody. wrong_host: for another host. expired: too old.
    """

    ca_file: Path
    server: Certificate
    self_signed: Certificate
    wrong_host: Certificate
    expired: Certificate

    def client_context(self) -> ssl.SSLContext:
        """Verifies strictly and trusts our authority only."""
        return ssl.create_default_context(cafile=str(self.ca_file))


@dataclass(frozen=True)
class _Issuer:
    name: x509.Name
    key: ec.EllipticCurvePrivateKey


def make_certificates(folder: Path) -> Certificates:
    """Make them all, as files in `folder`."""
    authority = _Issuer(_name("Authority of the tests"), ec.generate_private_key(ec.SECP256R1()))
    root = _sign(_builder(authority.name, authority.key, authority), authority, ca=True)
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(root.public_bytes(serialization.Encoding.PEM))
    return Certificates(
        ca_file=ca_file,
        server=_make(folder, "server", authority),
        self_signed=_make(folder, "self_signed", None),
        wrong_host=_make(folder, "wrong_host", authority, hosts=("elsewhere.test",)),
        expired=_make(folder, "expired", authority, days=-1),
    )


def _make(
    folder: Path, name: str, issuer: _Issuer | None, hosts: tuple[str, ...] = ("localhost",), days: int = 30
) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(hosts[0])
    issuer = issuer or _Issuer(subject, key)
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    if "localhost" in hosts:
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    builder = _builder(subject, key, issuer, days).add_extension(
        x509.SubjectAlternativeName(names), critical=False
    )
    certificate = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
    certificate.cert_file.write_bytes(
        _sign(builder, issuer, ca=False).public_bytes(serialization.Encoding.PEM)
    )
    certificate.key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, issuer: _Issuer, days: int = 30
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 10 * DAY)
        .not_valid_after(now + days * DAY)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(issuer_key, critical=False)
    )


def _sign(builder: x509.CertificateBuilder, issuer: _Issuer, *, ca: bool) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    if not ca:
        both_ends = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(both_ends, critical=False)
    return builder.sign(issuer.key, hashes.SHA256())

"""Pinned and client certificates, opportunistic TLS, tokens, and this end's address."""

from __future__ import annotations

import hashlib
import ssl
from typing import Any

import pytest
from mailqueue import words
from mailqueue.transports.smtp import IMPLICIT, OPPORTUNISTIC, PLAIN, STARTTLS, SmtpTransport
from mailqueue.transports.smtp_tls import read_pin
from support.certificates import Certificate, Certificates
from support.smtp_client import HASTY, attempt, outcomes, smtp_to
from support.smtp_server import Close, Reply, ScriptedServer

SENT = {"a@x.test": "sent"}


def pin_of(certificate: Certificate) -> str:
    der = ssl.PEM_cert_to_DER_cert(certificate.cert_file.read_text())
    return hashlib.sha256(der).hexdigest()


# --- a pinned certificate --------------------------------------------------------------------
@pytest.mark.parametrize("name", ["self_signed", "wrong_host", "expired", "server"])
def test_a_pinned_certificate_is_trusted_whoever_signed_it(certificates: Certificates, name: str) -> None:
    certificate = getattr(certificates, name)
    with ScriptedServer(tls="starttls", certificate=certificate, auth={"me": "pw"}) as server:
        transport = smtp_to(server, security=STARTTLS, pin=pin_of(certificate), login=("me", "pw"))
        assert outcomes(attempt(transport)) == SENT
        assert server.messages[0].tls


@pytest.mark.parametrize("security", [STARTTLS, IMPLICIT])
def test_another_certificate_than_the_pinned_one_stops_everything(
    certificates: Certificates, security: str
) -> None:
    with ScriptedServer(tls=security, certificate=certificates.server, auth={"me": "pw"}) as server:
        pin = pin_of(certificates.self_signed)
        ca_file = str(certificates.ca_file)
        transport = smtp_to(server, security=security, pin=pin, ca_file=ca_file, login=("me", "pw"))
        failure = attempt(transport)[0].failure
        assert failure and (failure.rule, failure.kind) == ("certificate", words.CONFIGURATION)
        assert pin_of(certificates.server) in failure.text, "for whoever is to pin it"
        assert not any(line.startswith(("AUTH", "MAIL")) for line in server.commands)


def test_a_pin_may_be_written_as_openssl_does() -> None:
    digits = hashlib.sha256(b"x").hexdigest()
    colons = ":".join(digits[place : place + 2] for place in range(0, 64, 2)).upper()
    assert {read_pin(one) for one in (digits, digits.upper(), colons, f"sha256:{digits}")} == {digits}
    for wrong in ("", "sha256:", digits[:-1], digits + "0", "sha1:" + digits[:40], "g" * 64):
        with pytest.raises(ValueError, match="64 hexadecimal"):
            read_pin(wrong)


# --- a client certificate --------------------------------------------------------------------
def test_a_server_that_wants_a_client_certificate_gets_it(certificates: Certificates) -> None:
    own = certificates.server
    with ScriptedServer(tls="implicit", certificate=certificates.server) as server:
        assert server.context
        server.context.verify_mode = ssl.CERT_REQUIRED
        server.context.load_verify_locations(certificates.ca_file)
        usual: dict[str, Any] = {"security": IMPLICIT, "ca_file": str(certificates.ca_file)}
        shown = smtp_to(server, **usual, cert_file=str(own.cert_file), key_file=str(own.key_file))
        assert outcomes(attempt(shown)) == SENT
        assert outcomes(attempt(smtp_to(server, **usual))) != SENT


def test_a_client_certificate_that_cannot_be_read_is_the_sites_fault(
    certificates: Certificates, smtp: ScriptedServer
) -> None:
    with ScriptedServer(tls="implicit", certificate=certificates.server) as server:
        for cert_file in ("/no/such.pem", str(certificates.server.key_file)):
            transport = smtp_to(server, security=IMPLICIT, cert_file=cert_file)
            failure = attempt(transport)[0].failure
            assert failure and (failure.rule, failure.kind) == ("bad-client-certificate", words.CONFIGURATION)
            assert cert_file in failure.text


# --- opportunistic TLS -----------------------------------------------------------------------
@pytest.mark.parametrize("certificate", ["server", "self_signed"])
def test_opportunistic_tls_is_used_where_it_is_offered(certificates: Certificates, certificate: str) -> None:
    with ScriptedServer(tls="starttls", certificate=getattr(certificates, certificate)) as server:
        assert outcomes(attempt(smtp_to(server, security=OPPORTUNISTIC))) == SENT
        assert server.messages[0].tls


def test_opportunistic_tls_is_done_without_where_it_is_not_offered(smtp: ScriptedServer) -> None:
    transport = smtp_to(smtp, security=OPPORTUNISTIC)
    assert transport.name == f"smtp+opportunistic://127.0.0.1:{smtp.port}"
    assert outcomes(attempt(transport)) == SENT
    assert not smtp.messages[0].tls


def test_opportunistic_tls_never_carries_a_login() -> None:
    with pytest.raises(ValueError, match="opportunistic"):
        SmtpTransport("h.test", 25, security=OPPORTUNISTIC, login=("me", "pw"))


@pytest.mark.parametrize("fault", [Close(), Reply(454, "4.7.0 not now")])
def test_required_tls_is_never_left_out(certificates: Certificates, fault: Any) -> None:
    script = {"starttls": fault}
    with ScriptedServer(tls="starttls", certificate=certificates.server, script=script) as server:
        assert outcomes(attempt(smtp_to(server, security=STARTTLS))) != SENT
        assert not any(line.startswith("MAIL") for line in server.commands)


# --- tokens ----------------------------------------------------------------------------------
def test_a_token_is_asked_for_at_each_login(certificates: Certificates) -> None:
    tokens = iter(["old", "new"])

    def token() -> str:
        return next(tokens)

    options: dict[str, Any] = {"certificate": certificates.server, "mechanisms": ("PLAIN", "XOAUTH2")}
    with ScriptedServer(tls="starttls", auth={"me@x.test": "new"}, **options) as server:
        transport = smtp_to(
            server,
            security=STARTTLS,
            ca_file=str(certificates.ca_file),
            login=("me@x.test", token),
            timeouts=HASTY,
        )
        first = attempt(transport)[0].failure
        assert first and (first.rule, first.kind) == ("auth-rejected", words.CONFIGURATION)
        assert outcomes(attempt(transport)) == SENT
        assert server.messages[0].user == "me@x.test"
        assert hash(transport.settings()) and "token" in repr(transport.settings())
        assert "0x" not in repr(transport.settings()), "the same in every process"


def test_a_server_without_xoauth2_is_a_configuration_fault(smtp: ScriptedServer) -> None:
    smtp.auth = {"me": "pw"}
    failure = attempt(smtp_to(smtp, security=PLAIN, login=("me", lambda: "token")))[0].failure
    assert failure and failure.rule == "auth-not-offered"


def test_a_function_that_gives_no_token_costs_no_message_an_attempt(smtp: ScriptedServer) -> None:
    def token() -> str:
        raise PermissionError("refresh token expired")

    smtp.auth, smtp.mechanisms = {"me": "pw"}, ("XOAUTH2",)
    failure = attempt(smtp_to(smtp, security=PLAIN, login=("me", token)))[0].failure
    assert failure and failure.stage in words.TRANSPORT_STAGES and "refresh token expired" in failure.text


# --- this end's address ----------------------------------------------------------------------
def test_the_server_sees_the_address_that_is_wanted(smtp: ScriptedServer) -> None:
    seen = []

    def look(session: Any, _line: str) -> None:
        seen.append(session.socket.getpeername()[0])

    smtp.script["banner"] = look
    assert outcomes(attempt(smtp_to(smtp, source="127.0.0.2"))) == SENT
    assert seen == ["127.0.0.2"]


def test_an_address_that_this_host_has_not_is_told(smtp: ScriptedServer) -> None:
    failure = attempt(smtp_to(smtp, source="192.0.2.1"))[0].failure
    assert failure and failure.stage == words.CONNECT and failure.surely_not_sent

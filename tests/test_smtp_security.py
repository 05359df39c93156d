"""The SMTP transport's TLS and login, over real sockets with real certificates."""

from __future__ import annotations

import contextlib
import ssl

import pytest
from mailqueue import words
from mailqueue.transports.smtp import IMPLICIT, PLAIN, STARTTLS
from support.smtp_client import HASTY, attempt, outcomes, smtp_to
from support.smtp_server import Close, Hang, Raw, Reply, Reset, ScriptedServer

SENT = {"a@x.test": "sent"}
WAYS = [(STARTTLS, "starttls"), (IMPLICIT, "implicit")]
LOGIN = ("me", "pass word:with \u00fcml\u00e4ut")


@contextlib.contextmanager
def served(certificates, tls, certificate="server", **options):
    with ScriptedServer(tls=tls, certificate=getattr(certificates, certificate), **options) as server:
        yield server


def failure_of(answers):
    (answer,) = answers
    assert answer.failure is not None
    return answer.failure


# --- TLS -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("security", "tls"), WAYS)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_mail_goes_out_under_tls_to_a_server_whose_certificate_holds(certificates, security, tls, host):
    with served(certificates, tls) as server:
        server.host = host
        transport = smtp_to(server, security=security, ca_file=str(certificates.ca_file))
        assert outcomes(attempt(transport)) == outcomes(attempt(transport)) == SENT
        assert [message.tls for message in server.messages] == [True, True]
        assert server.connections == 1


@pytest.mark.parametrize(("security", "tls"), WAYS)
@pytest.mark.parametrize(
    ("certificate", "trusted"),
    [("wrong_host", True), ("expired", True), ("self_signed", True), ("server", False)],
)
def test_a_certificate_that_does_not_hold_stops_everything(certificates, security, tls, certificate, trusted):
    with served(certificates, tls, certificate, auth=dict([LOGIN])) as server:
        ca_file = str(certificates.ca_file) if trusted else None
        failure = failure_of(attempt(smtp_to(server, security=security, ca_file=ca_file, login=LOGIN)))
        assert (failure.rule, failure.kind, failure.stage) == ("certificate", words.CONFIGURATION, words.TLS)
        assert not any(line.startswith(("AUTH", "MAIL")) for line in server.commands)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("security", "tls"), WAYS)
def test_tls_older_than_1_2_is_not_spoken(certificates, security, tls):
    with served(certificates, tls) as server:
        assert server.context
        server.context.set_ciphers("ALL:@SECLEVEL=0")
        server.context.minimum_version = ssl.TLSVersion.TLSv1
        server.context.maximum_version = ssl.TLSVersion.TLSv1_1
        failure = failure_of(attempt(smtp_to(server, security=security, ca_file=str(certificates.ca_file))))
        assert failure.stage == words.TLS and server.messages == []


@pytest.mark.parametrize("missing", [True, False], ids=["missing", "no certificate"])
def test_a_ca_file_that_cannot_be_read_is_the_sites_fault(certificates, tmp_path, missing):
    ca_file = tmp_path / "ca.pem"
    if not missing:
        ca_file.write_text("this is no certificate")
    with served(certificates, "implicit") as server:
        failure = failure_of(attempt(smtp_to(server, security=IMPLICIT, ca_file=str(ca_file))))
    assert (failure.rule, failure.kind) == ("bad-ca-file", words.CONFIGURATION)
    assert str(ca_file) in failure.text


def test_tls_to_a_server_without_it_is_a_configuration_fault(smtp):
    failure = failure_of(attempt(smtp_to(smtp, security=IMPLICIT)))
    assert (failure.rule, failure.stage) == ("not-tls", words.TLS)


@pytest.mark.parametrize("security", [PLAIN, STARTTLS])
def test_no_tls_to_a_server_that_waits_for_it_ends_in_time(certificates, security):
    with served(certificates, "implicit") as server:
        failure = failure_of(attempt(smtp_to(server, security=security, timeouts=HASTY)))
        assert (failure.rule, failure.stage, failure.kind) == ("timed-out", "banner", words.TRANSIENT)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        (Reply(454, "4.7.0 TLS not available"), "server-deferred"),
        (Reply(501, "5.5.4 what?"), "starttls-refused"),
        (Close(), "connection-lost"),
        (Reset(), "connection-lost"),
        (Raw(b"nonsense\r\n"), "senseless-reply"),
        (Hang(), "timed-out"),
    ],
)
def test_a_server_that_offers_starttls_and_then_refuses_gets_nothing_in_the_clear(certificates, fault, rule):
    with served(certificates, "starttls", script={"starttls": fault}, auth=dict([LOGIN])) as server:
        options = {"timeouts": HASTY} if fault == Hang() else {}
        transport = smtp_to(
            server, security=STARTTLS, ca_file=str(certificates.ca_file), login=LOGIN, **options
        )
        failure = failure_of(attempt(transport))
        assert (failure.rule, failure.stage) == (rule, words.STARTTLS)
        assert [line.split()[0] for line in server.commands] == ["EHLO", "STARTTLS"]


def test_starttls_that_is_stripped_from_the_offers_stops_everything(certificates):
    stripped = Reply(250, "scripted.test\nSIZE 1000\nAUTH PLAIN LOGIN")
    with served(certificates, "starttls", script={"ehlo": stripped}, auth=dict([LOGIN])) as server:
        failure = failure_of(attempt(smtp_to(server, security=STARTTLS, login=LOGIN)))
        assert (failure.rule, failure.kind) == ("starttls-not-offered", words.CONFIGURATION)
        assert [line.split()[0] for line in server.commands] == ["EHLO"]


def test_what_is_injected_ahead_of_the_handshake_does_not_count(certificates):
    injected = Raw(b"220 go ahead\r\n250-evil.test\r\n250 AUTH LOGIN\r\n", taken=True)
    with served(certificates, "starttls", script={"starttls": injected}) as server:
        transport = smtp_to(server, security=STARTTLS, ca_file=str(certificates.ca_file))
        assert outcomes(attempt(transport)) == SENT
        assert server.messages[0].tls and server.messages[0].mail_parameters


def test_what_was_offered_before_the_handshake_is_forgotten(certificates):
    def evil_in_the_clear(session, _line):
        return None if session.tls else Reply(250, "scripted.test\nSTARTTLS\nAUTH PLAIN\nSIZE 1")

    with served(certificates, "starttls", script={"ehlo": evil_in_the_clear}) as server:
        transport = smtp_to(server, security=STARTTLS, ca_file=str(certificates.ca_file))
        assert outcomes(attempt(transport)) == SENT


@pytest.mark.parametrize(("security", "tls"), WAYS)
@pytest.mark.parametrize(
    ("fault", "rules"),
    [
        (Close(), {"tls-error", "connection-lost"}),
        (Reset(), {"connection-lost"}),
        (Hang(), {"timed-out"}),
        (Raw(b"nonsense is no handshake\r\n"), {"not-tls", "tls-error"}),
    ],
)
def test_a_handshake_that_fails_is_told_from_a_bad_certificate(certificates, security, tls, fault, rules):
    with served(certificates, tls, script={"tls": fault}) as server:
        options = {"timeouts": HASTY} if fault == Hang() else {}
        transport = smtp_to(server, security=security, ca_file=str(certificates.ca_file), **options)
        failure = failure_of(attempt(transport))
        assert failure.rule in rules and failure.stage == words.TLS
        server.script.clear()
        server.release()
        repaired = smtp_to(server, security=security, ca_file=str(certificates.ca_file))
        assert outcomes(attempt(repaired)) == SENT


@pytest.mark.parametrize("goodbye", [Close(), Reset()], ids=["close", "reset"])
def test_a_kept_tls_connection_that_the_server_ends_costs_no_message_anything(certificates, goodbye):
    with served(certificates, "implicit") as server:
        transport = smtp_to(server, security=IMPLICIT, ca_file=str(certificates.ca_file))
        server.script["dot"] = Reply(250, "2.0.0 taken", then=goodbye)
        assert outcomes(attempt(transport)) == outcomes(attempt(transport)) == SENT
        assert server.connections == 2


# --- login -----------------------------------------------------------------------------------
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
@pytest.mark.parametrize("security", [PLAIN, STARTTLS])
def test_each_mechanism_logs_in(certificates, mechanism, security):
    tls = "starttls" if security == STARTTLS else "none"
    with served(certificates, tls, auth=dict([LOGIN]), mechanisms=(mechanism,)) as server:
        transport = smtp_to(server, security=security, ca_file=str(certificates.ca_file), login=LOGIN)
        assert outcomes(attempt(transport)) == SENT
        assert server.messages[0].user == "me"


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_wrong_password_is_a_configuration_fault_and_stays_out_of_the_text(mechanism):
    with ScriptedServer(auth={"me": "right"}, mechanisms=(mechanism,)) as server:
        failure = failure_of(attempt(smtp_to(server, login=("me", "wrong-password"))))
        assert (failure.rule, failure.kind, failure.code) == ("auth-rejected", words.CONFIGURATION, 535)
        assert "wrong-password" not in repr(failure)


def test_a_server_that_repeats_the_login_does_not_get_it_into_the_text():
    with ScriptedServer(auth={"me": "right"}, mechanisms=("PLAIN",)) as server:
        server.script["auth"] = lambda _session, line: Reply(535, f"5.7.8 what is {line}?")
        failure = failure_of(attempt(smtp_to(server, login=("me", "wrong-password"))))
    assert server.commands[-1].split()[-1] not in failure.text


def test_without_tls_the_password_is_not_sent_in_the_clear_where_there_is_a_choice():
    with ScriptedServer(auth={"me": "secret"}) as server:
        assert outcomes(attempt(smtp_to(server, login=("me", "secret")))) == SENT
        assert "AUTH CRAM-MD5" in server.commands


@pytest.mark.parametrize(
    ("auth", "mechanisms"),
    [(None, ()), ({"me": "secret"}, ("XOAUTH2", "GSSAPI"))],
    ids=["no AUTH", "no common one"],
)
def test_a_server_that_offers_no_login_we_know_is_a_configuration_fault(auth, mechanisms):
    with ScriptedServer(auth=auth, mechanisms=mechanisms) as server:
        failure = failure_of(attempt(smtp_to(server, login=("me", "secret"))))
        assert (failure.rule, failure.kind) == ("auth-not-offered", words.CONFIGURATION)
        assert not any(line.startswith(("AUTH", "MAIL")) for line in server.commands)


def test_a_mechanism_offered_in_small_letters_is_offered():
    offer = Reply(250, "scripted.test\nauth plain")
    with ScriptedServer(auth={"me": "secret"}, script={"ehlo": offer}) as server:
        assert outcomes(attempt(smtp_to(server, login=("me", "secret")))) == SENT


def test_a_missing_login_shows_at_mail_as_a_configuration_fault():
    with ScriptedServer(auth={"me": "secret"}) as server:
        failure = failure_of(attempt(smtp_to(server)))
        assert (failure.rule, failure.kind, failure.stage) == ("auth-required", words.CONFIGURATION, "mail")

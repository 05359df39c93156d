"""From a URL to a transport, and what is wrong with it."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mailqueue.classify import SiteFault, classify_exception
from mailqueue.errors import MissingExtra
from mailqueue.remedies import advice
from mailqueue.transports.capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from mailqueue.transports.configured import transport_of
from mailqueue.transports.smtp import SmtpTransport, Timeouts
from mailqueue.transports.urls import PROVIDERS
from support.certificates import Certificates
from support.smtp_client import attempt, outcomes
from support.smtp_server import ScriptedServer


def settings(**changed: Any) -> SimpleNamespace:
    usual = {
        "sender": "Site <noreply@site.test>",
        "timeout": None,
        "hostname": None,
        "ca_file": None,
        "logger": logging.getLogger("site"),
    }
    return SimpleNamespace(**{**usual, **changed})


def made(spec: Any, **changed: Any) -> Any:
    return transport_of(spec, settings(**changed), [])


def fault_of(spec: Any, **changed: Any) -> SiteFault:
    with pytest.raises(SiteFault) as raised:
        made(spec, **changed)
    failure = classify_exception("config", raised.value)
    assert (failure.kind, failure.stage) == ("configuration", "config")
    assert advice(failure).remedy
    return raised.value


@pytest.mark.parametrize(
    ("url", "name", "login"),
    [
        ("smtp://mail.site.test", "smtp+starttls://mail.site.test:587", None),
        ("smtp://mail.site.test/", "smtp+starttls://mail.site.test:587", None),
        ("SMTP://me:secret@mail.site.test:2525", "smtp+starttls://mail.site.test:2525", ("me", "secret")),
        ("smtp://me:pw@h.test?tls=required", "smtp+starttls://h.test:587", ("me", "pw")),
        ("smtp://[::1]?tls=none", "smtp://[::1]:25", None),
        ("smtp://mail.site.test?tls=implicit", "smtps://mail.site.test:465", None),
        ("lmtp://h.test", "lmtp://h.test:24", None),
        ("lmtp://me:pw@h.test:25?tls=required", "lmtp+starttls://h.test:25", ("me", "pw")),
        ("lmtp:///run/dove%20cot/lmtp", "lmtp:///run/dove cot/lmtp", None),
        ("smtp://h.test?tls=opportunistic", "smtp+opportunistic://h.test:25", None),
        ("smtps://mail.site.test", "smtps://mail.site.test:465", None),
        (
            "smtps://me%40x.test:a%2Fb%3Fc%23d%40e%3Af%25@h.test",
            "smtps://h.test:465",
            ("me@x.test", "a/b?c#d@e:f%"),
        ),
        ("smtp://me@x.test:secret@h.test", "smtp+starttls://h.test:587", ("me@x.test", "secret")),
        ("smtp://h.test?name=bulk", "smtp+starttls://h.test:587#bulk", None),
        ("smtp://me:@h.test", "smtp+starttls://h.test:587", ("me", "")),
        ("sendgrid+smtp://SG.a-b_c", "smtp+starttls://smtp.sendgrid.net:587", ("apikey", "SG.a-b_c")),
        ("postmark+smtp://a-token", "smtp+starttls://smtp.postmarkapp.com:587", ("a-token", "a-token")),
        ("mailgun+smtp://me@x.test:pw", "smtp+starttls://smtp.mailgun.org:587", ("me@x.test", "pw")),
        ("mailgun+smtp://me:pw?region=eu", "smtp+starttls://smtp.eu.mailgun.org:587", ("me", "pw")),
        (
            "ses+smtp://AKIA:pw%2F1?region=eu-west-1",
            "smtp+starttls://email-smtp.eu-west-1.amazonaws.com:587",
            ("AKIA", "pw/1"),
        ),
    ],
)  # fmt: skip
def test_a_url_becomes_a_transport(url: str, name: str, login: tuple[str, str] | None) -> None:
    transport = made(url)
    assert isinstance(transport, SmtpTransport)
    assert (transport.name, transport.settings()[1]) == (name, login)


@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_every_provider_s_server_is_reached_under_tls(provider: str) -> None:
    login = "KEY" if PROVIDERS[provider].user else "me:KEY"
    name = made(
        f"{provider}+smtp://{login}{'?region=eu' if '{region}' in PROVIDERS[provider].host else ''}"
    ).name
    assert name.startswith("smtp+starttls://") and name.endswith(":587")
    assert "KEY" not in name and "{" not in name


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("smtp://mail.site.test?tls=perhaps", "tls must be one of required, implicit, o"),
        ("lmtp:///", "not host:port"),
        ("lmtp://h.test?tls=perhaps", "tls must be one of"),
        ("lmtp://h.test/run/lmtp", "something behind the server"),
        ("smtps://mail.site.test?tls=none", "takes no option tls"),
        ("smtp://mail.site.test?tsl=none", "option tsl is unknown; there are ca_file, "),
        ("smtp://mail.site.test?timeout=soon", "timeout must be a number of seconds"),
        ("smtp://mail.site.test?name=a b", "name must be up to 40 letters"),
        ("smtp://mail.site.test?pin=abc", "expected the SHA-256"),
        ("smtp://mail.site.test?source=web", "source must be an IP address"),
        ("smtp://me:pw@mail.site.test?tls=opportunistic", "with opportunistic TLS a login could be read"),
        ("smtps://mail.site.test?key_file=/k.pem", "cert_file is missing"),
        ("smtp://mail.site.test?timeout=0", "timeout must be a number of seconds"),
        ("smtp://me@mail.site.test", "the login is not user:password"),
        ("smtp://", "not host:port"),
        ("smtp://mail.site.test:99999", "not host:port"),
        ("smtp://mail.site.test/inbox", "something behind the server"),
        ("sendgrid+smtp://", "the key is expected"),
        ("sendgrid+smtp://apikey:KEY", "the key is expected"),
        ("mailgun+smtp://KEY", "the login is not user:password"),
        ("mailgun+smtp://me:KEY?region=moon", "region must be one of us, eu"),
        ("ses+smtp://me:KEY", "region is missing"),
        ("ses+smtp://me:KEY?region=evil.test/", "region is missing or none"),
        ("gopher://mail.site.test", "gopher://… is of no kind that is known: smtp, smtps, "),
        ("nobody+smtp://KEY", "is of no kind that is known"),
        ("mail.site.test:587", "is not a URL"),
        ("smtp:mail.site.test", "is not a URL"),
        ("", "is not a URL"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_url_is_said(url: str, said: str) -> None:
    fault = fault_of(url)
    assert fault.rule == "bad-transport" and said in fault.text


@pytest.mark.parametrize(
    "password",
    [
        "to/psecret", "to?psecret", "to#psecret", "to:psecret", "to@psecret", "to?psecret=1", "25?psecret=1",
        "to@psecret:x", "to/psecret?x=y",
    ],
)  # fmt: skip
@pytest.mark.parametrize("scheme", ["smtp", "smtps", "mailgun+smtp", "gopher", "sendgrid+smtp"])
def test_a_password_that_is_not_escaped_is_not_shown(scheme: str, password: str) -> None:
    with pytest.raises(SiteFault) as raised:
        made(f"{scheme}://me:{password}@mail.site.test:587")
    assert "secret" not in raised.value.text


def test_the_options_of_a_url_go_before_the_mailer_s_settings() -> None:
    usual = made("smtp://h.test", timeout=7, hostname="web.test", ca_file="/ca.pem").settings()
    assert usual[2:5] == ("/ca.pem", "web.test", 7)
    own = made("smtp://h.test?timeout=3.5&hostname=other.test&ca_file=/own.pem", timeout=7).settings()
    assert own[2:] == ("/own.pem", "other.test", *[3.5] * 5, Timeouts().dot, Timeouts().quit)


def test_the_rarer_options_of_a_url_reach_the_transport() -> None:
    pin = "ab" * 32
    url = f"smtps://h.test?pin={pin}&cert_file=/c.pem&key_file=/k.pem&source=127.0.0.2"
    assert made(url).settings()[-4:] == (pin, "/c.pem", "/k.pem", "127.0.0.2")


def test_mail_goes_out_over_what_a_url_describes(certificates: Certificates) -> None:
    with ScriptedServer(tls="starttls", certificate=certificates.server, auth={"me@x.test": "a/b"}) as server:
        login = f"me@x.test:a%2Fb@{server.host}:{server.port}"
        assert outcomes(attempt(made(f"smtp://{login}?ca_file={certificates.ca_file}"))) == {
            "a@x.test": "sent"
        }
        assert (server.messages[0].tls, server.messages[0].user) == (True, "me@x.test")
        wrong = attempt(
            made(f"smtp://me:top-secret@{server.host}:{server.port}?ca_file={certificates.ca_file}")
        )
        assert outcomes(wrong) == {"a@x.test": "auth-rejected"} and "top-secret" not in repr(wrong)


def test_the_capturing_transports_have_urls_too(tmp_path: Any) -> None:
    kept: list[Captured] = []
    kinds = {
        "logging": LoggingTransport, "logging:": LoggingTransport, f"logging:{tmp_path}/log": FileTransport,
        "memory": MemoryTransport, "memory:": MemoryTransport,
    }  # fmt: skip
    for url, kind in kinds.items():
        transport = transport_of(url, settings(sender=None), kept)
        assert type(transport) is kind
        assert attempt(transport)[0].failure is None
    assert len(kept) == 2


def test_a_function_that_makes_a_transport_is_taken_as_well() -> None:
    assert made(lambda: SmtpTransport("h.test", 26)).name == "smtp+starttls://h.test:26"
    assert "int is no" not in fault_of(lambda: 5).text and "made int" in fault_of(lambda: 5).text
    for spec in (5, None, SmtpTransport("h.test", 26)):
        assert "neither a URL nor a function" in fault_of(spec).text


@pytest.mark.parametrize("sender", [None, "you@example.com", "nobody"])
def test_whoever_really_sends_needs_a_sender(sender: str | None) -> None:
    for spec in ("smtp://h.test", lambda: SmtpTransport("h.test", 26)):
        assert fault_of(spec, sender=sender).rule in ("no-sender", "example-sender", "bad-sender")


def test_a_missing_extra_is_the_site_s_fault_and_named() -> None:
    def make() -> Any:
        raise MissingExtra("ses", "Amazon SES")

    with pytest.raises(MissingExtra) as raised:
        made(make)
    failure = classify_exception("config", raised.value)
    assert (failure.kind, failure.rule) == ("configuration", "missing-extra")
    assert "pip install 'mailqueue[ses]'" in failure.text
    assert "Install it" in advice(failure).remedy

"""From a mailer's settings to a transport, and what is wrong with them."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from mailqueue.classify import SiteFault, classify_exception
from mailqueue.remedies import advice
from mailqueue.transports.capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from mailqueue.transports.configured import check_sender, transport_for
from mailqueue.transports.ses import SesTransport
from mailqueue.transports.smtp import SmtpTransport, Timeouts
from support.smtp_client import attempt


def settings(**changed: Any) -> SimpleNamespace:
    usual = {
        "server": "mail.site.test",
        "sender": "Site <noreply@site.test>",
        "login": None,
        "tls": False,
        "ssl": False,
        "timeout": None,
        "hostname": None,
        "ca_file": None,
        "logger": logging.getLogger("site"),
    }
    return SimpleNamespace(**{**usual, **changed})


def made(**changed: Any):
    return transport_for(settings(**changed), [])


def fault_of(**changed: Any) -> SiteFault:
    with pytest.raises(SiteFault) as raised:
        made(**changed)
    failure = classify_exception("config", raised.value)
    assert (failure.kind, failure.stage) == ("configuration", "config")
    assert advice(failure).remedy
    return raised.value


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "smtp://mail.site.test:25"),
        ({"server": "mail.site.test:587"}, "smtp://mail.site.test:587"),
        ({"server": "mail.site.test:"}, "smtp://mail.site.test:25"),
        ({"server": "localhost"}, "smtp://localhost:25"),
        ({"server": "192.0.2.1:2525"}, "smtp://192.0.2.1:2525"),
        ({"server": "[::1]"}, "smtp://[::1]:25"),
        ({"server": "[2001:db8::1]:587"}, "smtp://[2001:db8::1]:587"),
        ({"server": "[::ffff:192.0.2.1]:65535"}, "smtp://[::ffff:192.0.2.1]:65535"),
        ({"server": "m\u00fcller.test:1"}, "smtp://m\u00fcller.test:1"),
        ({"tls": True}, "smtp+starttls://mail.site.test:25"),
        ({"ssl": True}, "smtps://mail.site.test:465"),
        ({"ssl": True, "tls": True, "server": "mail.site.test:4650"}, "smtps://mail.site.test:4650"),
    ],
)
def test_a_server_string_becomes_a_transport(changed, name):
    transport = made(**changed)
    assert isinstance(transport, SmtpTransport)
    assert (transport.name, transport.delivers) == (name, True)


@pytest.mark.parametrize(
    "server",
    [
        ":25", "mail.site.test:0", "mail.site.test:65536", "mail.site.test:-1", "mail.site.test:smtp",
        "mail.site.test:25:26", "mail.site.test:99999999999999999999", "mail.site.test:\u0662\u0665",
        "::1", "fe80::1:25", "[::1", "::1]", "[::1]25", "[::1]:x", "[]:25", "[mail.site.test]:25",
        "smtp://mail.site.test:25", "mail.site.test/x", " ", "mail site.test", "mail.site.test:25 ",
        "mail.site.test\r\n:25", "mail\0.site.test", "logging:", 25, b"mail.site.test:25", ["mail.site.test"],
    ],
)  # fmt: skip
def test_a_server_that_is_no_address_is_a_configuration_fault(server):
    assert fault_of(server=server).rule == "bad-server-address"


def test_a_login_that_stands_in_the_server_is_not_shown():
    fault = fault_of(server="smtp://me:top-secret@mail.site.test:587")
    assert fault.rule == "bad-server-address"
    assert "mail.site.test" in fault.text and "top-secret" not in fault.text


@pytest.mark.parametrize("server", [None, "", 0, False])
def test_no_server_is_a_configuration_fault(server):
    assert fault_of(server=server).rule == "no-server"


def test_a_server_of_the_frameworks_that_we_do_not_have_is_named():
    fault = fault_of(server="gae")
    assert fault.rule == "unknown-server" and "gae" in fault.text


def test_aws_is_amazon_ses_with_what_boto3_finds():
    transport = made(server="aws", login="is:not looked at")
    assert isinstance(transport, SesTransport)
    assert (transport.name, "not looked at" in repr(transport.settings())) == ("ses://default", False)
    assert fault_of(server="aws", sender=None).rule == "no-sender"


def test_the_capturing_servers_take_any_sender(tmp_path):
    kept: list[Captured] = []
    path = str(tmp_path / "mail.log")
    for server, kind in [
        ("logging", LoggingTransport),
        (f"logging:{path}", FileTransport),
        ("memory", MemoryTransport),
    ]:
        transport = transport_for(settings(server=server, sender=None), kept)
        assert type(transport) is kind
        assert attempt(transport)[0].failure is None
    assert len(kept) == 1
    assert "a@x.test" in (tmp_path / "mail.log").read_text()


# --- login -----------------------------------------------------------------------------------
@pytest.mark.parametrize("login", [None, "", "me:secret", "me:", "me:a:b:c"])
def test_a_login_is_optional_and_its_password_may_hold_colons(login):
    assert made(login=login).settings()[1] == {
        "me:secret": ("me", "secret"), "me:": ("me", ""), "me:a:b:c": ("me", "a:b:c")
    }.get(login or "")  # fmt: skip


@pytest.mark.parametrize("login", ["me", ":top-secret", "top-secret", ("me", "top-secret")])
def test_a_login_that_is_none_is_a_configuration_fault_that_does_not_show_it(login):
    fault = fault_of(login=login)
    assert fault.rule == "bad-login" and "secret" not in fault.text


# --- sender ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "sender",
    [
        "noreply@site.test", "Site <noreply@site.test>", "root@localhost", "me@my-example.com",
        "me@example.com.site.test", "me@example.de",
        "you@gmail.test", "other@gmail.com", "thank.you@gmail.com",
        "post@m\u00fcller.test", "gr\u00fc\u00dfe@site.test", "example.com@site.test",
    ],
)  # fmt: skip
def test_a_sender_of_ones_own_is_fine(sender):
    check_sender(sender)
    assert made(sender=sender)


@pytest.mark.parametrize(
    "sender",
    [
        "me@example.com", "me@example.net", "me@example.org", "Me <me@example.com>", "ME@EXAMPLE.COM",
        "me@mail.example.com", "me@a.b.Example.Org", "me@m\u00fcller.example.net",
        "me@\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45.com", "you@gmail.com", "You <You@Gmail.com>",
    ],
)  # fmt: skip
def test_a_sender_that_was_never_edited_is_a_configuration_fault(sender):
    assert fault_of(sender=sender).rule == "example-sender"


@pytest.mark.parametrize("sender", [None, "", False])
def test_no_sender_is_a_configuration_fault(sender):
    assert fault_of(sender=sender).rule == "no-sender"


@pytest.mark.parametrize(
    "sender",
    [
        "nobody", "a@x.test, b@x.test", "a@x.test\r\nBcc: b@x.test", "@x.test", "a@", " ", "a\0@x.test",
        b"\xff@x.test", 42, ("Site", "a@x.test"), "\ud800@x.test", "a" * 5000 + "@x.test",
    ],
)  # fmt: skip
def test_a_sender_that_is_no_address_is_a_configuration_fault(sender):
    fault = fault_of(sender=sender)
    assert fault.rule == "bad-sender"
    assert "list" not in fault.text, "there is one sender"


# --- the rest --------------------------------------------------------------------------------
def test_every_setting_reaches_the_transport():
    changes: list[dict[str, Any]] = [
        {}, {"server": "other.test"}, {"server": "mail.site.test:26"}, {"tls": True}, {"ssl": True},
        {"login": "me:one"}, {"login": "me:two"}, {"ca_file": "/ca.pem"}, {"hostname": "web.test"},
        {"timeout": 7},
    ]  # fmt: skip
    assert len({made(**change).settings() for change in changes}) == len(changes)


def test_the_timeout_of_the_site_is_not_the_one_for_the_dot():
    assert made(timeout=7).settings()[4:] == (7, 7, 7, 7, 7, Timeouts().dot, Timeouts().quit)

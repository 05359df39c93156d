"""Rules that an administrator adds for replies: what they decide, and what they never may."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, audit, pasted, replies, rulebook, words
from mailqueue.classify import RULES, Failure, NotOffered, classify_exception, classify_reply
from mailqueue.own_rules import GENERAL, MEANINGS, OwnRule, judged
from mailqueue.remedies import advice
from py4web.core import DAL
from support.smtp_faults import nth
from support.smtp_server import Reply, ScriptedServer

SAID = "Computer says no, ticket 4711"
RULE = OwnRule(words.RCPT, 550, "", "computer says NO", "server-deferred")
GIVEN = {
    "stage": "rcpt",
    "code": "550",
    "enhanced": "",
    "text": "Computer says no",
    "meaning": "mailbox-full",
}

TRACEBACK = """Traceback (most recent call last):
  File "/usr/lib/python3.11/smtplib.py", line 555, in sendmail
    raise SMTPRecipientsRefused({"a@x.test": (550, b'5.1.1 no')})
"""
UNVERIFIED = "certificate verify failed: unable to get local issuer certificate (_ssl.c:1006)"
NO_TLS = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)")
NO_TLS.reason = "WRONG_VERSION_NUMBER"


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer) -> Iterator[QueuedMailer]:
    db = DAL("sqlite://storage.db", folder=str(tmp_path))
    yield QueuedMailer(db, server=f"127.0.0.1:{smtp.port}", sender="site@example.test", tls=False)
    db.close()


def refused(text: str = SAID, code: int = 550, stage: str = words.RCPT) -> Failure:
    return classify_reply(stage, code, text)


def test_a_rule_decides_a_reply_that_was_known_by_its_number_only() -> None:
    failure = judged(refused(), [RULE])
    assert (failure.rule, failure.kind) == ("server-deferred", words.TRANSIENT)
    assert (failure.text, failure.code) == (SAID, 550)


@pytest.mark.parametrize(
    "failure",
    [
        refused("Something else"),
        refused(code=551),
        refused(stage=words.DATA),
        refused("5.1.1 Computer says no"),  # a shipped rule knows it
        refused('Sorry, <"computer says no"@example.test>'),  # a visitor's words
        refused("Sorry: another server said: computer says no"),
    ],
)
def test_what_a_rule_does_not_speak_of_stays_as_it_is(failure: Failure) -> None:
    assert judged(failure, [RULE]) is failure


def test_no_rule_ends_a_doubt() -> None:
    doubts = [
        classify_exception(words.DOT, TimeoutError("computer says no")),
        classify_reply(words.DOT, 0, "computer says no"),
    ]
    rules = [OwnRule(words.DOT, 550, "", "computer says no", one) for one in MEANINGS[words.DOT]]
    for doubt in doubts:
        assert judged(doubt, rules) is doubt
    reply = Failure(words.TRANSIENT, words.DOT, "deferred-after-dot", "computer says no", 550, None, False)
    assert judged(reply, rules) is reply, "the server may have taken it"


def test_no_rule_declares_a_doubt_nor_condemns_an_address_for_its_message() -> None:
    for stage, meanings in MEANINGS.items():
        for meaning in meanings:
            assert RULES[meaning].kind != words.IN_DOUBT
            assert stage == words.RCPT or not RULES[meaning].suppress
    assert all(RULES[rule].kind != words.IN_DOUBT for rule in GENERAL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stage": words.AUTH},
        {"code": 250},
        {"code": 0},
        {"text": "no"},
        {"text": "   "},
        {"text": "x" * 201},
        {"meaning": "no-reply-to-dot"},
        {"meaning": "content-refused"},
        {"meaning": ""},
    ],
)
def test_a_rule_that_is_not_safe_cannot_be_made(wrong: dict[str, Any]) -> None:
    whole = {"stage": words.RCPT, "code": 550, "enhanced": "", "text": "computer", "meaning": "mailbox-full"}
    with pytest.raises(ValueError, match=r"stage|code|words|mean"):
        OwnRule(**{**whole, **wrong})


def test_workers_go_by_a_rule_from_the_next_drain_on(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = Reply(550, SAID)
    mail.send("ann@example.test", subject="One", body="x")
    mail.db.commit()
    assert mail.process_queue()["failed"] == 1
    changed, told = replies.add_rule(mail, GIVEN, "admin@example.test")
    assert changed, told
    mail.send("bob@example.test", subject="Two", body="x")
    mail.db.commit()
    assert mail.process_queue()["deferred"] == 1
    row = mail.db(mail.db.mailqueue_attempt.id > 0).select().last()
    assert (row.cause, row.failure_kind, row.reply) == ("mailbox-full", words.TRANSIENT, SAID)
    entries = audit.latest(mail.db, None, 10)
    assert [(entry["action_name"], entry["who"]) for entry in entries] == [("add-rule", "admin@example.test")]


def test_a_rule_decides_for_a_message_that_goes_out_right_behind_others_too(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    meaning = next(one for one in MEANINGS[words.DOT] if RULES[one].kind == words.TRANSIENT)
    assert rulebook.add(mail.db, OwnRule(words.DOT, 550, "", "computer", meaning), "admin@example.test", 0.0)
    mail.site.connections = 1
    smtp.script["dot"] = nth(Reply(550, SAID), 3)
    for number in range(3):
        mail.send(f"user{number}@example.test", subject="x", body="x")
    mail.db.commit()
    counts = mail.process_queue()
    assert (counts["sent"], counts["deferred"]) == (2, 1)


def test_a_message_that_was_taken_stays_sent_whatever_the_rules_say(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    rules = [OwnRule(words.DOT, 550, "", "queued", one) for one in MEANINGS[words.DOT]]
    for rule in rules:
        assert rulebook.add(mail.db, rule, "admin@example.test", 0.0)
    mail.send("ann@example.test", subject="One", body="x")
    mail.db.commit()
    assert mail.process_queue()["sent"] == 1


def test_replies_that_no_rule_knew_are_collected_by_their_shape(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    said = {"ann": SAID, "bob": "Computer says no, ticket 4712", "dora": "5.1.1 User unknown"}
    for name in said:
        smtp.script["rcpt"] = Reply(550, said[name])
        mail.send(f"{name}@example.test", subject="Hello", body="x")
        mail.db.commit()
        mail.process_queue()
    [one] = rulebook.unknown(mail.db)
    assert (one.number, one.failure.stage, one.failure.code) == (2, words.RCPT, 550)
    assert rulebook.constant_part(one.failure.text) == "Computer says no, ticket"
    replies.add_rule(mail, GIVEN, "admin@example.test")
    assert rulebook.unknown(mail.db) == [], "it is known from now on"
    [row] = rulebook.rows(mail.db)
    replies.remove_rule(mail, row["id"], "admin@example.test")
    assert len(rulebook.unknown(mail.db)) == 1
    assert [entry["action_name"] for entry in audit.latest(mail.db, None, 10)] == ["remove-rule", "add-rule"]
    assert replies.remove_rule(mail, row["id"], "admin@example.test")[0] is False


def test_a_damaged_rule_is_left_out_and_stops_nothing(mail: QueuedMailer) -> None:
    mail.db.mailqueue_rule.insert(stage=None, code=None, reply_text=None, meaning="nonsense")
    assert rulebook.add(mail.db, RULE, "admin@example.test", 0.0)
    assert not rulebook.add(mail.db, RULE, "admin@example.test", 0.0), "it is there already"
    mail.db.commit()
    assert rulebook.rules(mail.db) == [RULE]
    mail.send("ann@example.test", subject="One", body="x")
    mail.db.commit()
    assert mail.process_queue()["sent"] == 1


@pytest.mark.parametrize("code", ["", "abc", "²50", "5500", "250"])
def test_what_is_no_code_adds_no_rule(mail: QueuedMailer, code: str) -> None:
    changed, told = replies.add_rule(mail, {**GIVEN, "code": code}, "admin@example.test")
    assert not changed
    assert "400 to 599" in told
    assert rulebook.rules(mail.db) == []


# --- trying one ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "text", "rule"),
    [
        ("rcpt", "550 5.1.1 User unknown", "unknown-address"),
        ("rcpt", "550-5.1.1 The email account\n550-5.1.1 does not exist\n550 5.1.1 Bye", "unknown-address"),
        ("auth", "(535, b'5.7.8 Error: authentication failed')", "auth-rejected"),
        ("auth", "smtplib.SMTPAuthenticationError: (535, b'5.7.8 no')", "auth-rejected"),
        ("dot", "452 4.2.2 Mailbox full", "mailbox-full"),
        ("rcpt", "450 4.2.0 Greylisted for 300 seconds", "greylisted"),
        ("connect", "ConnectionRefusedError: [Errno 111] Connection refused", "connect-refused"),
        ("connect", "Traceback (most recent call last):\n  …\nTimeoutError: timed out", "connect-timeout"),
        ("connect", "socket.gaierror: [Errno -2] Name or service not known", "name-not-known"),
        ("tls", "ssl.SSLError: [SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "not-tls"),
        ("tls", "ssl.SSLCertVerificationError: certificate verify failed", "certificate"),
        ("dot", "TimeoutError: timed out", "no-reply-to-dot"),
        ("rcpt", "__import__('os').system: ('boom')", "unknown-exception"),
        ("rcpt", "SMTPServerDisconnected('Connection unexpectedly closed')", "connection-lost"),
        ("dot", "smtplib.SMTPServerDisconnected('Connection unexpectedly closed')", "no-reply-to-dot"),
        ("dot", "SMTPDataError(554, b'5.7.1 looks like spam')", "content-refused"),
        ("data", "smtplib.SMTPDataError: (554, b'5.6.0 bad\\n5.6.0 MIME')", "content-refused"),
        ("mail", "SMTPSenderRefused(553, b'5.7.1 not yours', 'me@x.test')", "sender-rejected"),
        ("mail", "smtplib.SMTPSenderRefused: (553, b'5.7.1 not yours', 'me@x.test')", "sender-rejected"),
        ("data", "SMTPRecipientsRefused({'a@x.test': (550, b'5.1.1 User unknown')})", "unknown-address"),
        (
            "dot",
            "smtplib.SMTPRecipientsRefused: {'a@x.test': (550, b'5.1.1'), 'b@x.test': (452, b'4.2.2')}",
            "mailbox-full",
        ),
        ("connect", "ConnectionRefusedError(111, 'Connection refused')", "connect-refused"),
        (
            "connect",
            "ERROR:mail:not sent: ConnectionRefusedError(111, 'Connection refused')",
            "connect-refused",
        ),
        ("connect", "gaierror(-3, 'Temporary failure in name resolution')", "name-lookup-failed"),
        ("connect", "timeout('timed out')", "connect-timeout"),
        ("connect", "OSError(113, 'No route to host')", "unreachable"),
        ("tls", "SSLError(1, '[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)')", "not-tls"),
        ("connect", f"{TRACEBACK}ConnectionRefusedError: [Errno 111] Connection refused", "connect-refused"),
        ("auth", f"{TRACEBACK}smtplib.SMTPAuthenticationError: (535, b'5.7.8 no')", "auth-rejected"),
        ("rcpt", f"{TRACEBACK}SMTPServerDisconnected('Connection unexpectedly closed')", "connection-lost"),
        ("rcpt", "SMTPDataError()", "unknown-exception"),
        ("connect", "sending failed: [Errno 111] Connection refused", "connect-refused"),
        ("tls", "UNEXPECTED [SSL] record layer failure (_ssl.c:1006)", "tls-error"),
        ("connect", "[Errno] timed", "unknown-exception"),
        ("rcpt", f"SMTPDataError({'(' * 1000}", "unknown-exception"),
        ("rcpt", "SMTPRecipientsRefused('x')", "unknown-exception"),
        ("rcpt", "550 5.1.1 no such user: SMTPDataError(451, b'later')", "unknown-address"),
        ("nonsense", "550 5.1.1 User unknown", "unknown-address"),
        ("rcpt", "550 " + "x" * 100_000, "recipient-refused"),
        ("rcpt", "999 what", "senseless-reply"),
    ],
)
def test_a_pasted_reply_or_exception_is_read_as_a_worker_would(
    mail: QueuedMailer, stage: str, text: str, rule: str
) -> None:
    verdict = replies.try_out(mail, stage, text)
    assert verdict.failure.rule == rule
    assert verdict.advice == advice(verdict.failure)


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        ("connect", ConnectionRefusedError(111, "Connection refused")),
        ("connect", OSError(113, "No route to host")),
        ("connect", TimeoutError(110, "Connection timed out")),
        ("connect", TimeoutError("timed out")),
        ("connect", socket.gaierror(-2, "Name or service not known")),
        ("connect", socket.gaierror(-3, "Temporary failure in name resolution")),
        ("banner", ConnectionResetError(104, "Connection reset by peer")),
        ("banner", ConnectionResetError("the server closed the connection")),
        ("starttls", NotOffered("STARTTLS")),
        ("starttls", smtplib.SMTPNotSupportedError("STARTTLS extension not supported by server.")),
        ("tls", TimeoutError("_ssl.c:1011: The handshake operation timed out")),
        ("tls", ssl.SSLCertVerificationError(1, f"[SSL: CERTIFICATE_VERIFY_FAILED] {UNVERIFIED}")),
        ("tls", NO_TLS),
        ("tls", ssl.SSLEOFError(8, "EOF occurred in violation of protocol (_ssl.c:1006)")),
        ("tls", ssl.SSLCertVerificationError("the server's certificate is not the pinned one but sha256:0f")),
        ("auth", TimeoutError("timed out")),
        ("auth", TimeoutError("no answer within 20 seconds")),
        ("auth", NotOffered("AUTH")),
        ("auth", smtplib.SMTPException("No suitable authentication method found.")),
        ("auth", UnicodeEncodeError("ascii", "\xe4", 0, 1, "ordinal not in range(128)")),
        ("rcpt", smtplib.SMTPServerDisconnected("Connection unexpectedly closed: timed out")),
        ("rcpt", NotOffered("SMTPUTF8")),
        ("dot", BrokenPipeError(32, "Broken pipe")),
    ],
)  # fmt: skip
def test_what_the_pages_show_of_an_exception_is_judged_as_the_exception(
    mail: QueuedMailer, stage: str, error: Exception
) -> None:
    raised = classify_exception(stage, error)
    assert replies.try_out(mail, stage, raised.text).failure.rule == raised.rule
    assert not raised.rule.startswith("unknown-exception")


@pytest.mark.parametrize(
    ("stage", "text", "yes"),
    [
        ("rcpt", "250 OK", True),
        ("ehlo", "250-mail.test\n250 SIZE 1000", True),
        ("dot", "  250 2.0.0 Ok: queued as 4711", True),
        ("mail", "(250, b'2.1.0 Ok')", True),
        ("auth", "235 2.7.0 Authentication successful", True),
        ("data", "354 End data with <CR><LF>.<CR><LF>", True),
        ("data", "250 OK", False),
        ("dot", "354 go on", False),
        ("rcpt", "250-yes\n550 5.7.1 no", False),
        ("rcpt", "550 5.1.1 no", False),
        ("rcpt", "what\n250 OK", False),
        ("rcpt", "timed out", False),
        ("rcpt", "", False),
    ],
)
def test_a_yes_is_known_as_one(stage: str, text: str, yes: bool) -> None:
    assert pasted.is_yes(stage, text) is yes


def test_a_verdict_says_who_decided_and_what_follows(mail: QueuedMailer) -> None:
    unknown = replies.try_out(mail, "rcpt", f"550 {SAID}")
    assert (unknown.known, unknown.own) == (False, False)
    assert "given up" in unknown.follows
    replies.add_rule(mail, GIVEN, "admin@example.test")
    ours = replies.try_out(mail, "rcpt", f"550 {SAID}")
    assert (ours.known, ours.own, ours.failure.rule) == (True, True, "mailbox-full")
    assert "tried again by itself" in ours.follows
    assert "in doubt" in replies.try_out(mail, "dot", "TimeoutError: timed out").follows
    assert "No attempt is spent" in replies.try_out(mail, "auth", "535 5.7.8 no").follows

from __future__ import annotations

import base64
import errno
import pickle
import smtplib
import socket
import ssl
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailqueue.classify import (
    EXCEPTION_ROWS,
    EXITS,
    LONGEST_TEXT,
    REPLY_ROWS,
    RULES,
    DeliveryError,
    Failure,
    NotOffered,
    SiteFault,
    classify_exception,
    classify_reply,
)
from mailqueue.words import (
    AUTH,
    BANNER,
    BUILD,
    CONFIG,
    CONFIGURATION,
    CONNECT,
    DATA,
    DOT,
    EHLO,
    FAILURE_KINDS,
    IN_DOUBT,
    MAIL,
    MESSAGE,
    QUIT,
    RCPT,
    RECIPIENT,
    RSET,
    STAGES,
    STARTTLS,
    TLS,
    TRANSIENT,
)

BEFORE_THE_DOT = [stage for stage in STAGES if stage not in (DOT, BUILD, CONFIG)]
DEAD, ALIVE = True, False  # whether the address is suppressed

# stage, code, text -> kind, rule
REPLIES = [
    # 421 says "I am closing", whatever else it says
    (BANNER, 421, "4.3.2 too many connections", TRANSIENT, "service-closing"),
    (AUTH, 421, "4.7.0 try again later", TRANSIENT, "service-closing"),
    (MAIL, 421, "4.7.0 closing", TRANSIENT, "service-closing"),
    (RCPT, 421, "5.1.1 closing", TRANSIENT, "service-closing"),
    (DOT, 421, "4.7.26 unauthenticated, slow down", TRANSIENT, "service-closing"),
    # banner, EHLO, STARTTLS
    (BANNER, 450, "busy", TRANSIENT, "server-deferred"),
    (BANNER, 554, "no SMTP service here", TRANSIENT, "banner-refused"),
    (BANNER, 554, "5.7.1 your address is blocked", TRANSIENT, "banner-refused"),
    (EHLO, 451, "try later", TRANSIENT, "server-deferred"),
    (EHLO, 501, "syntactically invalid EHLO argument", CONFIGURATION, "ehlo-rejected"),
    (EHLO, 550, "who are you", CONFIGURATION, "ehlo-rejected"),
    (STARTTLS, 454, "TLS not available due to temporary reason", TRANSIENT, "server-deferred"),
    (STARTTLS, 502, "not implemented", CONFIGURATION, "starttls-refused"),
    # AUTH
    (AUTH, 530, "5.7.0 Must issue a STARTTLS command first", CONFIGURATION, "tls-required"),
    (AUTH, 530, "5.7.0 no", CONFIGURATION, "auth-rejected"),
    (AUTH, 534, "5.7.9 mechanism too weak", CONFIGURATION, "auth-rejected"),
    (AUTH, 535, "5.7.8 authentication failed", CONFIGURATION, "auth-rejected"),
    (AUTH, 535, "authentication failed", CONFIGURATION, "auth-rejected"),
    (AUTH, 538, "5.7.11 needs a stronger connection", CONFIGURATION, "tls-required"),
    (AUTH, 504, "unrecognized type", CONFIGURATION, "auth-rejected"),
    (AUTH, 538, "needs a stronger connection", CONFIGURATION, "tls-required"),
    (AUTH, 535, "5.7.11 needs a stronger connection", CONFIGURATION, "tls-required"),
    (AUTH, 454, "4.7.12 a password transition is needed", CONFIGURATION, "password-transition"),
    (AUTH, 432, "4.7.12 a password transition is needed", CONFIGURATION, "password-transition"),
    (AUTH, 432, "a password transition is needed", CONFIGURATION, "password-transition"),
    (AUTH, 454, "4.7.0 temporary authentication failure", TRANSIENT, "server-deferred"),
    # MAIL
    (MAIL, 450, "not now", TRANSIENT, "server-deferred"),
    (MAIL, 451, "4.3.0 not now", TRANSIENT, "server-deferred"),
    (MAIL, 452, "4.3.1 insufficient system storage", TRANSIENT, "server-deferred"),
    (MAIL, 530, "5.7.0 Authentication required", CONFIGURATION, "auth-required"),
    (MAIL, 530, "5.7.0 Must issue a STARTTLS command first", CONFIGURATION, "tls-required"),
    (MAIL, 550, "5.7.1 you may not send", CONFIGURATION, "sender-rejected"),
    (MAIL, 550, "go away", CONFIGURATION, "sender-rejected"),
    (MAIL, 553, "not your address", CONFIGURATION, "sender-rejected"),
    (MAIL, 501, "5.1.7 bad sender address syntax", CONFIGURATION, "sender-rejected"),
    (MAIL, 550, "5.1.8 domain of sender does not resolve", CONFIGURATION, "sender-rejected"),
    (MAIL, 552, "5.3.4 message size exceeds fixed limit", MESSAGE, "too-big"),
    (MAIL, 552, "more than I take", MESSAGE, "too-big"),
    (MAIL, 552, "5.2.2 your own mailbox is full", CONFIGURATION, "sender-rejected"),
    (MAIL, 535, "5.7.8 log in first", CONFIGURATION, "auth-required"),
    (MAIL, 452, "4.3.4 more than I take", MESSAGE, "too-big"),
    (MAIL, 452, "message too big for now", MESSAGE, "too-big"),
    (MAIL, 550, "5.6.7 no SMTPUTF8", MESSAGE, "content-refused"),
    (MAIL, 555, "5.5.4 unsupported option", MESSAGE, "message-refused"),
    (MAIL, 503, "5.5.1 nested MAIL command", TRANSIENT, "bad-sequence"),
    (MAIL, 550, "5.4.5 daily sending quota exceeded", TRANSIENT, "sending-limit"),
    (DOT, 554, "5.7.0 hourly sending limit reached", TRANSIENT, "sending-limit"),
    # RCPT: who we are
    (RCPT, 554, "5.7.1 <a@example.net>: Relay access denied", CONFIGURATION, "relay-denied"),
    (RCPT, 550, "5.7.1 Unable to relay", CONFIGURATION, "relay-denied"),
    (RCPT, 550, "5.7.1 Relaying denied. Proper authentication required.", CONFIGURATION, "auth-required"),
    (RCPT, 550, "relay not permitted", CONFIGURATION, "relay-denied"),
    (RCPT, 551, "we do not relay", CONFIGURATION, "relay-denied"),
    (RCPT, 553, "that domain isn't in my list of allowed rcpthosts (#5.7.1)", CONFIGURATION, "relay-denied"),
    (RCPT, 554, "5.7.1 <unknown[192.0.2.1]>: Client host rejected: no", CONFIGURATION, "relay-denied"),
    (RCPT, 454, "4.7.1 <a@example.net>: Relay access denied", TRANSIENT, "relay-denied-for-now"),
    # RCPT and MAIL: the machine that sends
    (RCPT, 554, "5.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.spamhaus.org; "
     "https://www.spamhaus.org/query/ip/203.0.113.7", CONFIGURATION, "host-blocked"),
    (MAIL, 554, "5.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.spamhaus.org",
     CONFIGURATION, "host-blocked"),
    (DATA, 554, "5.7.1 Service unavailable; Client host [2001:db8::7] blocked using zen.spamhaus.org",
     CONFIGURATION, "host-blocked"),
    (RCPT, 550, "5.7.1 Client host [203.0.113.7] blocked using b.barracudacentral.org", CONFIGURATION,
     "host-blocked"),
    (RCPT, 554, "Service unavailable; Client host [203.0.113.7] blocked by bl.spamcop.net", CONFIGURATION,
     "host-blocked"),
    (RCPT, 550, "5.7.606 Access denied, banned sending IP [203.0.113.7]. To request removal from this list "
     "please visit https://sender.office.com/", CONFIGURATION, "host-blocked"),
    (RCPT, 550, "5.7.649 Access denied", CONFIGURATION, "host-blocked"),
    (RCPT, 550, "5.7.511 Access denied, banned sender[203.0.113.7]. To request removal from this list please "
     "forward this message to delist@messaging.microsoft.com.", CONFIGURATION, "host-blocked"),
    (MAIL, 550, "5.7.1 Unfortunately, messages from [203.0.113.7] weren't sent. Please contact your Internet "
     "service provider since part of their network is on our block list (S3140).", CONFIGURATION,
     "host-blocked"),
    (RCPT, 550, "rejected because 203.0.113.7 is in a black list at zen.spamhaus.org", CONFIGURATION,
     "host-blocked"),  # Exim
    (RCPT, 550, '"JunkMail rejected - mail.example.org [203.0.113.7]:40312 is in an RBL: '
     'https://www.spamhaus.org/query/ip/203.0.113.7"', CONFIGURATION, "host-blocked"),  # cPanel
    (RCPT, 550, "5.7.1 Mail from 203.0.113.7 refused by blackhole site zen.spamhaus.org", CONFIGURATION,
     "host-blocked"),  # Sendmail
    (MAIL, 550, "5.7.1 Rejected: 203.0.113.7 listed at zen.spamhaus.org", CONFIGURATION, "host-blocked"),
    (RCPT, 550, "5.7.1 [2001:db8:0:1::7] is listed by bl.example.net", CONFIGURATION, "host-blocked"),
    (RCPT, 553, "your host is listed at bl.example.net", CONFIGURATION, "host-blocked"),
    (RCPT, 550, "Your IP 203.0.113.7 has been blacklisted", CONFIGURATION, "host-blocked"),
    (MAIL, 554, "5.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=203.0.113.7", CONFIGURATION,
     "host-blocked"),
    (RCPT, 550, "5.7.1 [203.0.113.7] The IP you're using to send mail is not authorized to\n5.7.1 send email "
     "directly to our servers.", CONFIGURATION, "host-blocked"),
    (RCPT, 450, "4.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.spamhaus.org",
     TRANSIENT, "server-deferred"),
    (BANNER, 554, "5.7.1 Service unavailable; Client host [203.0.113.7] blocked using zen.spamhaus.org",
     CONFIGURATION, "host-blocked"),
    (BANNER, 554, "gmx.net (mxgmx101) Nemesis ESMTP Service not available\nNo SMTP service\nIP address is "
     "block listed.\nFor explanation visit https://www.gmx.net/mail/senderguidelines", CONFIGURATION,
     "host-blocked"),
    (EHLO, 550, "Your IP address 203.0.113.7 is blacklisted", CONFIGURATION, "host-blocked"),
    (DOT, 554, "5.7.1 Client host [203.0.113.7] blocked using zen.spamhaus.org", MESSAGE, "content-refused"),
    # another thing than the machine is on a list, or another server says so
    (RCPT, 554, "5.7.1 Listed domain in a link", RECIPIENT, "recipient-policy"),
    (RCPT, 550, "5.7.1 the link http://192.0.2.7 is listed on SURBL", RECIPIENT, "recipient-policy"),
    (RCPT, 550, "5.7.1 Sender's MX 192.0.2.7 is listed in zen.spamhaus.org", RECIPIENT, "recipient-policy"),
    (RCPT, 550, "5.7.1 Rejected at 12:34:56 blacklisted sender", RECIPIENT, "recipient-policy"),
    (RCPT, 554, "5.7.1 Service unavailable; Sender address [me@x.example] blocked using dbl.spamhaus.org",
     RECIPIENT, "recipient-policy"),
    (DATA, 554, "5.7.1 a link to 192.0.2.1.example is on a block list", MESSAGE, "content-refused"),
    (RCPT, 550, "5.7.1 <a@x.example>: Recipient address rejected: undeliverable address: host "
     "mx.x.example[192.0.2.9] said: 554 5.7.1 Client host [203.0.113.7] blocked using zen.spamhaus.org",
     RECIPIENT, "recipient-policy"),
    (RCPT, 530, "log in first", CONFIGURATION, "auth-required"),
    (RCPT, 550, "5.7.1 Authentication required", CONFIGURATION, "auth-required"),
    (RCPT, 535, "5.7.8 credentials invalid", CONFIGURATION, "auth-required"),
    (RCPT, 534, "5.7.9 mechanism too weak", CONFIGURATION, "auth-required"),
    (DOT, 535, "5.7.8 credentials invalid", CONFIGURATION, "auth-required"),
    (RCPT, 550, "5.1.8 <me@example.org>: Domain not found", CONFIGURATION, "sender-rejected"),
    (RCPT, 553, "5.7.1 <me@x.example>: Sender address rejected: not owned", CONFIGURATION, "sender-rejected"),
    (RCPT, 504, "5.5.2 <web>: Helo command rejected: need full name", CONFIGURATION, "ehlo-rejected"),
    # RCPT: not now
    (RCPT, 450, "4.2.0 greylisted", TRANSIENT, "greylisted"),
    (RCPT, 450, "4.2.0 <a@b.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/"
     "help/b.test.html", TRANSIENT, "greylisted"),
    (RCPT, 450, "4.7.1 <a@b.test>: Recipient address rejected: Greylisted for 5 minutes", TRANSIENT,
     "greylisted"),  # SQLgrey
    (RCPT, 451, "4.7.1 Greylisting in action, please come back later", TRANSIENT, "greylisted"),
    (MAIL, 451, "This server employs greylisting, please resend shortly", TRANSIENT, "greylisted"),
    (DATA, 451, "grey-listed: come again", TRANSIENT, "greylisted"),
    (RCPT, 451, "You are on the Grey List", TRANSIENT, "greylisted"),
    (DOT, 451, "4.7.1 Try again later", TRANSIENT, "greylisted"),  # Rspamd
    (DOT, 451, "4.7.1 Service unavailable - try again later", TRANSIENT, "deferred-after-dot"),  # any milter
    (RCPT, 451, "4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", TRANSIENT,
     "greylisted"),
    (RCPT, 451, "4.7.550 Access denied, please try again later.", TRANSIENT, "greylisted"),
    (RCPT, 451, "4.7.650 The mail server [192.0.2.1] has been temporarily rate limited", TRANSIENT,
     "sending-limit"),
    (RCPT, 450, "<greylisted@b.test>: not now", TRANSIENT, "server-deferred"),  # a visitor's words
    (RCPT, 450, "4.2.2 greylisted, and the mailbox is full", TRANSIENT, "mailbox-full"),
    (RCPT, 550, "5.7.1 greylisted for ever", RECIPIENT, "recipient-policy"),
    (RCPT, 451, "local error", TRANSIENT, "server-deferred"),
    (RCPT, 450, "4.7.1 try again in 5 minutes", TRANSIENT, "server-deferred"),
    (RCPT, 550, "4.7.1 the enhanced code counts", TRANSIENT, "server-deferred"),
    (RCPT, 452, "4.5.3 too many recipients", TRANSIENT, "too-many-recipients"),
    (RCPT, 452, "Too many recipients", TRANSIENT, "too-many-recipients"),
    (RCPT, 552, "too many recipients", TRANSIENT, "too-many-recipients"),
    (RCPT, 451, "4.5.3 enough", TRANSIENT, "too-many-recipients"),
    (RCPT, 452, "4.3.1 insufficient storage", TRANSIENT, "server-deferred"),
    (RCPT, 552, "5.2.2 mailbox full", TRANSIENT, "mailbox-full"),
    (RCPT, 550, "5.2.2 over quota", TRANSIENT, "mailbox-full"),
    (RCPT, 452, "4.2.2 over quota", TRANSIENT, "mailbox-full"),
    (RCPT, 550, "mailbox is full", TRANSIENT, "mailbox-full"),
    (RCPT, 552, "exceeded storage allocation", TRANSIENT, "storage-full"),
    (RCPT, 550, "5.3.1 system full", TRANSIENT, "storage-full"),
    (RCPT, 503, "5.5.1 MAIL first", TRANSIENT, "bad-sequence"),
    (RCPT, 452, "4.3.4 message too big", MESSAGE, "too-big"),
    # DATA
    (DATA, 451, "not now", TRANSIENT, "server-deferred"),
    (DATA, 503, "no valid recipients", MESSAGE, "message-refused"),
    (DATA, 554, "no valid recipients", MESSAGE, "message-refused"),
    # after the dot
    (DOT, 450, "not now", TRANSIENT, "deferred-after-dot"),
    (DOT, 451, "4.3.0 not now", TRANSIENT, "deferred-after-dot"),
    (DOT, 452, "4.3.4 too big", MESSAGE, "too-big"),
    (DOT, 550, "5.7.1 looks like spam", MESSAGE, "content-refused"),
    (DOT, 550, "5.7.0 content refused", MESSAGE, "content-refused"),
    (DOT, 552, "5.3.4 too big", MESSAGE, "too-big"),
    (DOT, 552, "5.2.3 too long for the mailbox", MESSAGE, "too-big"),
    (DOT, 552, "too long", MESSAGE, "too-big"),
    (DOT, 554, "5.6.0 bad MIME", MESSAGE, "content-refused"),
    (DOT, 554, "transaction failed", MESSAGE, "message-refused"),
    (DOT, 552, "5.2.2 mailbox full", TRANSIENT, "mailbox-full"),
    (DOT, 554, "Message rejected: Email address is not verified.", CONFIGURATION, "sender-rejected"),
    # reverse name, SPF, DKIM: at any stage
    (MAIL, 550, "5.7.25 no PTR", CONFIGURATION, "sender-not-authenticated"),
    (RCPT, 550, "5.7.25 no PTR", CONFIGURATION, "sender-not-authenticated"),
    (RCPT, 550, "5.7.26 no SPF or DKIM", CONFIGURATION, "sender-not-authenticated"),
    (DOT, 550, "5.7.26 no SPF or DKIM", CONFIGURATION, "sender-not-authenticated"),
    # senseless
    (RCPT, 0, "hello", TRANSIENT, "senseless-reply"),
    (DATA, 250, "OK", TRANSIENT, "senseless-reply"),
    (MAIL, 354, "go on", TRANSIENT, "senseless-reply"),
    (RCPT, 777, "5.1.1 user unknown", TRANSIENT, "senseless-reply"),
    (DOT, 0, "5.7.1 hello", IN_DOUBT, "senseless-reply-to-dot"),
    (DOT, 354, "go on", IN_DOUBT, "senseless-reply-to-dot"),
    (DOT, 600, "what", IN_DOUBT, "senseless-reply-to-dot"),
    # where nobody expects a refusal
    (RSET, 502, "what", TRANSIENT, "unexpected-reply"),
    (QUIT, 451, "what", TRANSIENT, "server-deferred"),
]  # fmt: skip

# code, text -> is the address dead (all at RCPT, all for good)
REFUSED_RECIPIENTS = [
    (550, "5.1.1 user unknown", DEAD, "unknown-address"),
    (550, "5.1.2 no such domain", DEAD, "unknown-address"),
    (550, "5.1.6 has moved", DEAD, "unknown-address"),
    (556, "5.1.10 null MX", DEAD, "unknown-address"),
    (550, "5.2.1 mailbox disabled", DEAD, "unknown-address"),
    (550, "5.2.1 mailbox disabled; mail from 192.0.2.1 refused", DEAD, "unknown-address"),
    (450, "5.1.1 the enhanced code counts", DEAD, "unknown-address"),
    (550, "#5.1.0 Address rejected.", DEAD, "unknown-address"),
    (550, "5.0.0 user unknown", DEAD, "unknown-address"),
    (551, "user not local", DEAD, "unknown-address"),
    (553, "mailbox name not allowed", DEAD, "unknown-address"),
    (556, "domain does not accept mail", DEAD, "unknown-address"),
    (550, "User unknown", DEAD, "unknown-address"),
    (550, "No such user here", DEAD, "unknown-address"),
    (550, "Requested action not taken: mailbox unavailable", DEAD, "unknown-address"),
    (550, "that account does not exist", DEAD, "unknown-address"),
    (550, "Recipient address rejected", DEAD, "unknown-address"),
    (554, "This user doesn't exist", DEAD, "unknown-address"),
    (550, "5.7.1 not wanted", ALIVE, "recipient-policy"),
    (550, "5.7.1 user unknown", ALIVE, "recipient-policy"),
    (553, "5.7.1 not wanted", ALIVE, "recipient-policy"),
    (550, "blocked using zen.spamhaus.org", ALIVE, "recipient-policy"),
    (550, "user unknown, or you are on our blacklist", ALIVE, "recipient-policy"),
    (550, "recipient rejected due to local policy", ALIVE, "recipient-policy"),
    (550, "the sender's domain does not exist", ALIVE, "recipient-policy"),
    (550, "no", ALIVE, "recipient-refused"),
    (550, "192.0.2.1 5.1.1 is no enhanced code here", ALIVE, "recipient-refused"),
    (550, "5.1.1.2 is an address of the internet", ALIVE, "recipient-refused"),
    (550, "5.2.3 too long for this mailbox", ALIVE, "recipient-refused"),
    (550, "5.4.1 no route", ALIVE, "recipient-refused"),
    (554, "transaction failed", ALIVE, "recipient-refused"),
    (501, "syntax error", ALIVE, "recipient-refused"),
]


def _not_ascii() -> UnicodeEncodeError:
    return UnicodeEncodeError("ascii", "geh\xe4im", 3, 4, "ordinal not in range(128)")


def _tls_on_a_plain_port() -> ssl.SSLError:
    incoming = ssl.MemoryBIO()
    incoming.write(b"220 mail.example.net ESMTP\r\n")
    connection = ssl.create_default_context().wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="localhost")
    with pytest.raises(ssl.SSLError) as caught:
        connection.do_handshake()
    return caught.value


# stage, exception -> kind, rule
EXCEPTIONS = [
    (CONNECT, socket.gaierror(socket.EAI_AGAIN, "try again"), TRANSIENT, "name-lookup-failed"),
    (CONNECT, socket.gaierror(socket.EAI_NONAME, "not known"), TRANSIENT, "name-not-known"),
    (CONNECT, ConnectionRefusedError(errno.ECONNREFUSED, "refused"), TRANSIENT, "connect-refused"),
    (CONNECT, TimeoutError("timed out"), TRANSIENT, "connect-timeout"),
    (CONNECT, OSError(errno.ENETUNREACH, "unreachable"), TRANSIENT, "unreachable"),
    (CONNECT, OSError(errno.EHOSTUNREACH, "unreachable"), TRANSIENT, "unreachable"),
    (CONNECT, PermissionError(errno.EACCES, "denied"), TRANSIENT, "unreachable"),
    (CONNECT, UnicodeError("label empty or too long"), CONFIGURATION, "bad-server-address"),
    (CONNECT, OverflowError("port must be 0-65535."), CONFIGURATION, "bad-server-address"),
    (TLS, ssl.SSLCertVerificationError(1, "certificate verify failed"), CONFIGURATION, "certificate"),
    (STARTTLS, ssl.SSLCertVerificationError(1, "certificate verify failed"), CONFIGURATION, "certificate"),
    (TLS, _tls_on_a_plain_port(), CONFIGURATION, "not-tls"),
    (TLS, ssl.SSLError(1, "sslv3 alert handshake failure"), TRANSIENT, "tls-error"),
    (TLS, ssl.SSLError("without a reason"), TRANSIENT, "tls-error"),
    (TLS, ssl.SSLEOFError(8, "EOF occurred"), TRANSIENT, "tls-error"),
    (STARTTLS, NotOffered("STARTTLS"), CONFIGURATION, "starttls-not-offered"),
    (EHLO, NotOffered("AUTH"), CONFIGURATION, "auth-not-offered"),
    (MAIL, NotOffered("SMTPUTF8"), RECIPIENT, "smtputf8-not-offered"),
    (STARTTLS, smtplib.SMTPNotSupportedError("STARTTLS"), CONFIGURATION, "starttls-not-offered"),
    (AUTH, smtplib.SMTPNotSupportedError("SMTP AUTH"), CONFIGURATION, "auth-not-offered"),
    (AUTH, smtplib.SMTPException("No suitable authentication method"), CONFIGURATION, "auth-not-offered"),
    (MAIL, smtplib.SMTPNotSupportedError("SMTPUTF8"), RECIPIENT, "smtputf8-not-offered"),
    (AUTH, _not_ascii(), CONFIGURATION, "login-not-ascii"),
    (MAIL, _not_ascii(), CONFIGURATION, "sender-not-ascii"),
    (RCPT, _not_ascii(), RECIPIENT, "recipient-not-ascii"),
    (DATA, _not_ascii(), MESSAGE, "message-not-encodable"),
    (BUILD, _not_ascii(), MESSAGE, "message-not-encodable"),
    (BUILD, ValueError("no such header"), MESSAGE, "message-not-built"),
    (BUILD, KeyError("attachment"), MESSAGE, "message-not-built"),
    (BUILD, FileNotFoundError(2, "no such file"), MESSAGE, "message-not-built"),
    (RCPT, ValueError("command contains a line break"), MESSAGE, "message-not-built"),
    (RCPT, smtplib.SMTPException("something else"), TRANSIENT, "unknown-exception"),
    (RCPT, RuntimeError("a bug"), TRANSIENT, "unknown-exception"),
    (CONNECT, smtplib.SMTPException("something else"), TRANSIENT, "unknown-exception"),
    (RCPT, OSError(errno.EHOSTUNREACH, "unreachable"), TRANSIENT, "unreachable"),
    (EHLO, FileNotFoundError(2, "no such file"), TRANSIENT, "unknown-exception"),
    (DOT, RuntimeError("a bug"), IN_DOUBT, "unknown-exception-after-dot"),
    (DOT, ValueError("a bug"), IN_DOUBT, "unknown-exception-after-dot"),
    (DOT, smtplib.SMTPServerDisconnected("closed"), IN_DOUBT, "no-reply-to-dot"),
    (DOT, ConnectionResetError(104, "reset"), IN_DOUBT, "no-reply-to-dot"),
    (DOT, TimeoutError(), IN_DOUBT, "no-reply-to-dot"),
    (DOT, ssl.SSLEOFError(8, "EOF occurred"), IN_DOUBT, "no-reply-to-dot"),
    (DOT, EOFError(), IN_DOUBT, "no-reply-to-dot"),
]  # fmt: skip


@pytest.mark.parametrize(("stage", "code", "text", "kind", "rule"), REPLIES)
def test_a_reply_is_classified_as_the_table_says(stage, code, text, kind, rule):
    failure = classify_reply(stage, code, text)
    assert (failure.kind, failure.rule, failure.stage) == (kind, rule, stage)
    assert not failure.suppress
    assert failure.surely_not_sent == (kind != IN_DOUBT)


@pytest.mark.parametrize(("code", "text", "dead", "rule"), REFUSED_RECIPIENTS)
def test_a_refused_recipient_is_suppressed_only_if_the_address_is_dead(code, text, dead, rule):
    failure = classify_reply(RCPT, code, text)
    assert (failure.kind, failure.rule, failure.suppress) == (RECIPIENT, rule, dead)


@pytest.mark.parametrize(("stage", "error", "kind", "rule"), EXCEPTIONS)
def test_an_exception_is_classified_as_the_table_says(stage, error, kind, rule):
    failure = classify_exception(stage, error)
    assert (failure.kind, failure.rule, failure.stage) == (kind, rule, stage)
    assert not failure.suppress
    assert failure.surely_not_sent == (kind != IN_DOUBT)
    assert failure.text


@pytest.mark.parametrize("stage", BEFORE_THE_DOT)
@pytest.mark.parametrize(
    "error", [smtplib.SMTPServerDisconnected("closed"), ConnectionResetError(), BrokenPipeError(), EOFError()]
)
def test_a_connection_lost_before_the_dot_is_transient(stage, error):
    failure = classify_exception(stage, error)
    assert (failure.kind, failure.rule, failure.surely_not_sent) == (TRANSIENT, "connection-lost", True)


@pytest.mark.parametrize("stage", [stage for stage in BEFORE_THE_DOT if stage != CONNECT])
def test_a_time_out_before_the_dot_is_transient(stage):
    assert classify_exception(stage, TimeoutError()).rule == "timed-out"


# --- the derived facts ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("fact", "rules"),
    [
        ("suppress", {"unknown-address"}),
        ("split", {"too-many-recipients"}),
        ("persistent", {"name-not-known", "banner-refused", "relay-denied-for-now"}),
        ("unproven", {"connect-refused", "connect-timeout", "unreachable"}),
        ("slow_down", {"deferred-after-dot", "sending-limit"}),
        (
            "bounded",
            {
                "mailbox-full", "storage-full", "bad-sequence", "unexpected-reply", "unknown-exception",
                "no-reply-to-dot", "senseless-reply-to-dot", "unknown-exception-after-dot",
                "worker-died", "already-given", "nothing-said",
            },
        ),
    ],
)  # fmt: skip
def test_a_derived_fact_holds_for_its_rules_alone(fact, rules):
    failures = [Failure(RULES[rule].kind, RCPT, rule, "") for rule in RULES]
    assert {failure.rule for failure in failures if getattr(failure, fact)} == rules


def test_a_rule_of_another_transport_has_no_derived_facts():
    failure = Failure(TRANSIENT, RCPT, "a-provider's-own", "slow down")
    assert not any(
        (
            failure.suppress,
            failure.split,
            failure.bounded,
            failure.persistent,
            failure.unproven,
            failure.slow_down,
        )
    )


def test_every_row_names_a_rule_and_every_rule_has_a_kind():
    assert {row.rule for row in (*REPLY_ROWS, *EXCEPTION_ROWS)} <= RULES.keys()
    assert {rule.kind for rule in RULES.values()} == set(FAILURE_KINDS)


def test_only_an_address_at_rcpt_can_be_suppressed():
    rows = [row for row in (*REPLY_ROWS, *EXCEPTION_ROWS) if RULES[row.rule].suppress]
    assert rows
    assert all(row.stages == {RCPT} for row in rows)


# --- codes and texts -----------------------------------------------------------------------
def test_the_codes_are_kept():
    failure = classify_reply(RCPT, 550, "5.1.1 user unknown")
    assert (failure.code, failure.enhanced, failure.text) == (550, "5.1.1", "5.1.1 user unknown")


def test_a_reply_without_codes_has_none():
    failure = classify_reply(RCPT, 0, "garbage")
    assert (failure.code, failure.enhanced) == (None, None)


def test_the_enhanced_code_is_found_on_a_later_line():
    assert classify_reply(RCPT, 550, "Sorry.\n5.1.1 user unknown").enhanced == "5.1.1"


def test_line_breaks_and_control_characters_leave_the_text():
    failure = classify_reply(RCPT, 550, "5.1.1 one\r\ntwo\x00\x1b[31m\u202e three\u2028four\udc80")
    assert failure.text == "5.1.1 one two[31m three four"


def test_a_long_text_is_cut():
    assert classify_reply(RCPT, 550, "x" * 10_000).text == "x" * LONGEST_TEXT


def test_the_character_of_a_password_that_would_not_go_is_not_shown():
    text = classify_exception(AUTH, _not_ascii()).text
    assert "\\xe4" not in text
    assert "\xe4" not in text
    assert "position" not in text


@pytest.mark.parametrize(
    "login",
    [
        "\0joe\0secret",
        "secret",
        "abc",
        "joe 5d41402abc4b2a76b9719d911017c592",
        "user=joe\1auth=Bearer ya29\1\1",
    ],
)
def test_a_login_that_the_server_repeats_is_hidden(login):
    sent = base64.b64encode(login.encode()).decode()
    failure = classify_reply(AUTH, 500, f"5.5.1 Command unrecognized: '{sent}'")
    assert failure.text == "5.5.1 Command unrecognized: '***'"


def test_the_words_of_a_refused_login_stay():
    words = "5.7.8 Username and Password not accepted. Error: authentication failed"
    assert classify_reply(AUTH, 535, words).text == words


def test_an_unknown_exception_is_named_in_the_text():
    assert classify_exception(RCPT, KeyError("x")).text == "KeyError: 'x'"
    assert classify_exception(RCPT, RuntimeError()).text == "RuntimeError"


# --- an attacker's address -----------------------------------------------------------------
@pytest.mark.parametrize(
    "echo",
    [
        '<"relay access denied"@evil.example>',
        '<"a>relay access denied"@evil.example>',
        '"relay access denied"@evil.example',
        '"client host [1.2.3.4] blocked using x"@evil.example',
        "<authentication-required@evil.example>",
        "<#5.7.26@evil.example>",
        "x#5.7.26@evil.example",
        "<x@evil.example>: host mx.evil.example[192.0.2.9] said: 550 5.7.26 relay access denied",
    ],
)
def test_an_address_in_the_reply_cannot_pause_the_transport(echo):
    failure = classify_reply(RCPT, 550, f"rejected: {echo}")
    assert (failure.kind, failure.rule) == (RECIPIENT, "recipient-refused")


# --- exceptions that carry an answer -------------------------------------------------------
def test_an_exception_with_a_code_goes_by_its_code():
    error = smtplib.SMTPSenderRefused(550, b"5.7.1 not yours", "me@example.org")
    assert classify_exception(MAIL, error) == classify_reply(MAIL, 550, "5.7.1 not yours")
    assert classify_exception(DOT, smtplib.SMTPDataError(554, b"no")).rule == "message-refused"
    assert classify_exception(AUTH, smtplib.SMTPAuthenticationError(535, b"5.7.8 no")).rule == "auth-rejected"


def test_a_code_that_smtplib_could_not_read_is_senseless():
    assert classify_exception(RCPT, smtplib.SMTPResponseException(-1, b"\xff")).code is None
    assert classify_exception(DOT, smtplib.SMTPResponseException(-1, b"")).kind == IN_DOUBT


def test_one_refused_recipient_goes_by_its_reply():
    error = smtplib.SMTPRecipientsRefused({"a@example.net": (550, b"5.1.1 user unknown")})
    assert classify_exception(DATA, error) == classify_reply(RCPT, 550, "5.1.1 user unknown")


def test_several_refused_recipients_go_by_the_mildest_reply():
    dead, policy, later = (550, b"5.1.1 unknown"), (550, b"5.7.1 spam"), (450, b"later")
    refused = smtplib.SMTPRecipientsRefused({"a@example.net": dead, "b@example.net": later})
    assert classify_exception(RCPT, refused).rule == "server-deferred"
    refused = smtplib.SMTPRecipientsRefused({"a@example.net": dead, "b@example.net": policy})
    assert not classify_exception(RCPT, refused).suppress


def test_a_delivery_error_brings_its_own_failure():
    failure = Failure(MESSAGE, DOT, "provider-said-no", "too pink")
    error = DeliveryError(failure)
    assert classify_exception(CONNECT, error) is failure
    assert str(error) == "too pink"


@pytest.mark.parametrize(
    "rule", ["no-server", "no-sender", "example-sender", "bad-server-address", "unknown-server"]
)
def test_a_site_fault_is_a_configuration_failure_of_its_own_rule(rule):
    failure = classify_exception(MAIL, SiteFault(rule, "settings:\nwrong"))
    assert failure == Failure(CONFIGURATION, CONFIG, rule, "settings: wrong")
    assert RULES[rule].kind == CONFIGURATION


@pytest.mark.parametrize(
    "error",
    [
        DeliveryError(Failure(MESSAGE, DOT, "x", "text")),
        NotOffered("AUTH"),
        SiteFault("no-server", "no server is set"),
    ],
)
def test_the_exceptions_survive_the_way_to_another_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


@pytest.mark.parametrize("end", EXITS)
def test_the_end_of_the_process_is_not_classified(end):
    with pytest.raises(end):
        classify_exception(DOT, end())


@pytest.mark.parametrize("end", EXITS)
def test_what_ends_nothing_but_a_thread_is_an_error_like_any_other(end):
    with ThreadPoolExecutor(1) as elsewhere:
        failure = elsewhere.submit(classify_exception, DATA, end("no licence")).result()
    assert (failure.kind, failure.rule, failure.bounded) == (TRANSIENT, "unknown-exception", True)
    assert failure.text == f"{end.__name__}: no licence"


# --- whatever comes ------------------------------------------------------------------------
texts = st.one_of(
    st.text(),
    st.builds(
        "{}.{}.{} {}".format, st.integers(0, 9), st.integers(0, 99), st.integers(0, 99), st.text(max_size=40)
    ),
    st.lists(
        st.sampled_from(
            ["relay denied", "user unknown", '"', "<", ">", "a@b", "#5.1.1", "\n", "spam", "said:", "full"]
        )
    ).map(" ".join),
)


@given(stage=st.sampled_from(STAGES), code=st.integers(-1, 1000), text=texts)
def test_every_reply_has_a_failure_of_one_clean_line(stage, code, text):
    failure = classify_reply(stage, code, text)
    assert failure.kind in FAILURE_KINDS
    assert len(failure.text) <= LONGEST_TEXT
    assert not any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in failure.text
    )
    assert failure.surely_not_sent == (failure.kind != IN_DOUBT)


@given(stage=st.sampled_from(STAGES), code=st.integers(400, 599), text=texts)
def test_a_refusal_is_never_in_doubt(stage, code, text):
    assert classify_reply(stage, code, text).kind != IN_DOUBT


@given(code=st.one_of(st.integers(-1, 399), st.integers(600, 1000)), text=texts)
def test_anything_but_a_refusal_of_the_dot_is_in_doubt(code, text):
    assert classify_reply(DOT, code, text).kind == IN_DOUBT


@given(
    stage=st.sampled_from(STAGES),
    error=st.builds(
        lambda make, text: make(text),
        st.sampled_from(
            [ValueError, OSError, RuntimeError, smtplib.SMTPException, ssl.SSLError, socket.gaierror]
        ),
        st.text(),
    ),
)
def test_an_exception_is_in_doubt_exactly_at_the_dot(stage, error):
    failure = classify_exception(stage, error)
    assert (failure.kind == IN_DOUBT) == (stage == DOT)
    assert "\n" not in failure.text

"""A server's reply, or an exception, together with the stage it came at -> a Failure.

RULES says what a failure means for the queue, by its short name. REPLY_ROWS and EXCEPTION_ROWS say
how it is recognised: they are read from top to bottom and the first row that fits decides.

The stage is what makes the difference. Before the final dot a lost connection is harmless, after it
the server may have taken the message; an answer, even a refusal, always ends the doubt.
"""

from __future__ import annotations

import base64
import binascii
import errno
import math
import re
import smtplib
import socket
import ssl
import threading
import unicodedata
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

from .errors import MailQueueError, MissingExtra
from .masking import without_keys
from .words import (
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
    RCPT,
    RECIPIENT,
    STARTTLS,
    TLS,
    TRANSIENT,
)

LONGEST_TEXT: Final = 500  # characters of a failure's text that are kept
_LONGEST_READ: Final = 2000  # characters of a reply that are looked at, so that no reply costs much time


# For how long most servers that greylist turn away whom they do not know, Postgrey's default: whoever comes
# earlier has come in vain.
GREYLISTED_FOR: Final = 300.0  # seconds
BLOCKED_FOR: Final = 3600.0  # seconds; who keeps asking stays on the list


# --- what a failure means ------------------------------------------------------------------
@dataclass(frozen=True)
class Rule:
    """What one kind of failure means for the queue."""

    kind: str  # one of words.FAILURE_KINDS
    suppress: bool = False  # the address is dead: do not write to it again
    split: bool = False  # too many recipients at once: go on with the rest in a new transaction, now
    bounded: bool = False  # given up after RetryPolicy.bounded_attempts, long before the message is old
    persistent: bool = False  # is the site's fault after all if it does not go away
    unproven: bool = False  # is the site's fault while the transport has never once connected
    slow_down: bool = False  # the server asks for fewer messages
    least_delay: float = 0.0  # seconds until the next try, at least


RULES: Final[dict[str, Rule]] = {
    # found before anything was sent
    "no-server": Rule(CONFIGURATION),
    "no-sender": Rule(CONFIGURATION),
    "example-sender": Rule(CONFIGURATION),
    "unknown-server": Rule(CONFIGURATION),
    "bad-server-address": Rule(CONFIGURATION),
    "bad-transport": Rule(CONFIGURATION),
    "missing-extra": Rule(CONFIGURATION),
    "bad-login": Rule(CONFIGURATION),
    "bad-sender": Rule(CONFIGURATION),
    "bad-ca-file": Rule(CONFIGURATION),
    "bad-client-certificate": Rule(CONFIGURATION),
    # the site's keys
    "dkim-key": Rule(CONFIGURATION),
    "dkim-extra": Rule(CONFIGURATION),
    "cipher-settings": Rule(CONFIGURATION),
    "cipher-extra": Rule(CONFIGURATION),
    "smime-key": Rule(CONFIGURATION),
    "pgp-key": Rule(CONFIGURATION),
    # the worker's own disk
    "journal-not-writable": Rule(CONFIGURATION),
    # the way to the server
    "name-lookup-failed": Rule(TRANSIENT),
    "name-not-known": Rule(TRANSIENT, persistent=True),
    "connect-refused": Rule(TRANSIENT, unproven=True),
    "connect-timeout": Rule(TRANSIENT, unproven=True),
    "unreachable": Rule(TRANSIENT, unproven=True),
    "certificate": Rule(CONFIGURATION),
    "not-tls": Rule(CONFIGURATION),
    "tls-error": Rule(TRANSIENT),
    "connection-lost": Rule(TRANSIENT),
    "timed-out": Rule(TRANSIENT),
    # the server's greeting
    "banner-refused": Rule(TRANSIENT, persistent=True),
    "ehlo-rejected": Rule(CONFIGURATION),
    "starttls-refused": Rule(CONFIGURATION),
    "starttls-not-offered": Rule(CONFIGURATION),
    "tls-required": Rule(CONFIGURATION),
    # the login
    "auth-not-offered": Rule(CONFIGURATION),
    "auth-rejected": Rule(CONFIGURATION),
    "password-transition": Rule(CONFIGURATION),
    "auth-required": Rule(CONFIGURATION),
    "login-not-ascii": Rule(CONFIGURATION),
    # the sending machine
    "host-blocked": Rule(CONFIGURATION, least_delay=BLOCKED_FOR),
    # the sender
    "relay-denied": Rule(CONFIGURATION),
    "relay-denied-for-now": Rule(TRANSIENT, persistent=True),
    "sender-rejected": Rule(CONFIGURATION),
    "sending-paused": Rule(CONFIGURATION),
    "sender-not-ascii": Rule(CONFIGURATION),
    "sender-not-authenticated": Rule(CONFIGURATION),
    "sending-limit": Rule(TRANSIENT, slow_down=True),
    # the recipient
    "unknown-address": Rule(RECIPIENT, suppress=True),
    "recipient-policy": Rule(RECIPIENT),
    "recipient-refused": Rule(RECIPIENT),
    "recipient-not-ascii": Rule(RECIPIENT),
    "smtputf8-not-offered": Rule(RECIPIENT),
    "mailbox-full": Rule(TRANSIENT, bounded=True),
    "storage-full": Rule(TRANSIENT, bounded=True),
    "too-many-recipients": Rule(TRANSIENT, split=True),
    # the message
    "too-big": Rule(MESSAGE),
    "content-refused": Rule(MESSAGE),
    "attachment-refused": Rule(MESSAGE),
    "message-refused": Rule(MESSAGE),
    "message-not-encodable": Rule(MESSAGE),
    "message-not-built": Rule(MESSAGE),
    "not-supported": Rule(MESSAGE),
    # anything else
    "service-closing": Rule(TRANSIENT),
    "greylisted": Rule(TRANSIENT, least_delay=GREYLISTED_FOR),
    "server-deferred": Rule(TRANSIENT),
    "deferred-after-dot": Rule(TRANSIENT, slow_down=True),
    "bad-sequence": Rule(TRANSIENT, bounded=True),
    "senseless-reply": Rule(TRANSIENT),
    "unexpected-reply": Rule(TRANSIENT, bounded=True),
    "unknown-exception": Rule(TRANSIENT, bounded=True),
    # the final dot is out and nobody knows: bounded, because every further try may be a duplicate
    "no-reply-to-dot": Rule(IN_DOUBT, bounded=True),
    "senseless-reply-to-dot": Rule(IN_DOUBT, bounded=True),
    "unknown-exception-after-dot": Rule(IN_DOUBT, bounded=True),
    "worker-died": Rule(IN_DOUBT, bounded=True),
    "already-given": Rule(IN_DOUBT, bounded=True),
    "nothing-said": Rule(IN_DOUBT, bounded=True),
    # nobody is there to send
    "no-worker": Rule(CONFIGURATION),
}


@dataclass(frozen=True)
class Failure:
    """Why a message, or one recipient of it, was not delivered in this attempt.

    A transport of another make may use rule names of its own; they have none of the derived facts.
    """

    kind: str  # one of words.FAILURE_KINDS
    stage: str  # one of words.STAGES
    rule: str  # the name of the rule that decided
    text: str  # the server's own words or the exception's: one line, no control characters
    code: int | None = None  # the reply's three digits
    enhanced: str | None = None  # RFC 3463, "5.1.1"
    surely_not_sent: bool = True  # False only where the server may have taken the message
    retry_after: float | None = None  # seconds for which a provider asks to be left alone (RFC 9110)

    def __post_init__(self) -> None:
        """Refuse what no table could hold, while it is still the mistake of whoever made it.

        Raises:
            TypeError: a field is not of its type, or no table can hold it.
        """
        if self.kind not in FAILURE_KINDS:
            raise TypeError(f"a failure of the kind {self.kind!r}, which is none of {FAILURE_KINDS}")
        check_reply(self.stage, self.code, self.enhanced, self.text)
        if self.retry_after is not None and not 0 <= self.retry_after < math.inf:
            raise TypeError(f"a failure that is to be retried after {self.retry_after!r} seconds")
        object.__setattr__(self, "stage", _one_line(self.stage))
        object.__setattr__(self, "rule", _one_line(self.rule))
        object.__setattr__(self, "text", _one_line(self.text))

    @property
    def suppress(self) -> bool:
        """The address is dead and is not to be written to again."""
        return self._meaning.suppress

    @property
    def split(self) -> bool:
        """Too many recipients in one transaction: the rest goes on at once in a new one."""
        return self._meaning.split

    @property
    def bounded(self) -> bool:
        """Is given up after a number of attempts, not only when the message is too old."""
        return self._meaning.bounded

    @property
    def persistent(self) -> bool:
        """Becomes a configuration fault if it does not go away."""
        return self._meaning.persistent

    @property
    def unproven(self) -> bool:
        """Is a configuration fault while the transport has never once connected."""
        return self._meaning.unproven

    @property
    def slow_down(self) -> bool:
        """The server wants fewer messages in the same time."""
        return self._meaning.slow_down

    @property
    def least_delay(self) -> float:
        """Seconds until the next try, at least: before that it would be in vain."""
        return self._meaning.least_delay

    @property
    def _meaning(self) -> Rule:
        return RULES.get(self.rule) or Rule(self.kind)


# --- the exceptions that carry a failure ---------------------------------------------------
class DeliveryError(MailQueueError):
    """A failure on its way out of a transport.

    Args:
        failure: what went wrong.
    """

    def __init__(self, failure: Failure):
        super().__init__(failure)
        self.failure = failure

    def __str__(self) -> str:
        return self.failure.text


class NotOffered(MailQueueError):
    """The server does not offer an SMTP extension that is needed.

    Args:
        extension: its keyword: "STARTTLS", "AUTH" or "SMTPUTF8".
    """

    def __init__(self, extension: str):
        super().__init__(extension)
        self.extension = extension

    def __str__(self) -> str:
        return f"the server does not offer {self.extension}"


class SiteFault(MailQueueError):
    """A configuration fault that was found before anything was sent.

    Args:
        rule: what is wrong: "no-server", "bad-server-address", "no-sender", "bad-ca-file" and so on.
        text: what is wrong, without secrets.
    """

    def __init__(self, rule: str, text: str):
        super().__init__(rule, text)
        self.rule = rule
        self.text = text

    def __str__(self) -> str:
        return self.text


# --- how a reply is recognised -------------------------------------------------------------
def _any_of(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases), re.IGNORECASE)


_TLS_REQUIRED = _any_of(r"must issue a starttls", r"\b(starttls|tls|encryption) (is )?required")
_AUTH_REQUIRED = _any_of(
    r"authentication (is )?(required|needed)",
    r"\bauth (is )?required",
    r"(must|need to|please) (first )?(authenticate|log ?in)\b",
    r"\bnot (been )?authenticated",
)
_RELAY_DENIED = _any_of(
    r"\brelay(ing)?\b[^.\n]{0,40}\b(denied|prohibited|disallowed|disabled|refused|rejected)",
    r"\brelay(ing)?\b[^.\n]{0,20}\bnot (permitted|allowed|authorized|authorised)",
    r"\bnot (permitted|allowed|authorized|authorised) to relay",
    r"\b(unable to|cannot|can't|do not|don't|does not|won't|will not|refuse to) relay",
    r"credentials for relay",
    r"allowed rcpthosts",
    r"client host rejected",
)
# Neither part of a URL or a name, nor of a server that the sender's domain names, nor a time of day.
_IP: Final = (
    r"(?<![\w.:/@-])(?<!mx )(?<!ns )(?!\d\d:\d\d:\d\d\b)"
    r"\[?((\d{1,3}\.){3}\d{1,3}|[0-9a-f]{1,4}(:[0-9a-f]{0,4}){2,7})\]?(:\d+)?"
)
# Only what names the machine that connects: a sender, a link in the text or a recipient may be on a list too.
_HOST_BLOCKED = _any_of(
    r"\bclient( host)? \[[^]\n]*\]\W{0,3}(is )?blocked\b",  # Postfix
    r"\bbanned send(ing ip|er ?\[)",  # Exchange Online
    r"\bnetwork is on our block ?list",  # Outlook.com
    rf"\b((your|sending|client) (host|server|mta)|ip( address)?) ({_IP} )?(is |was |has been )"
    r"(currently )?((black|block)[ -]?)?(listed|blocked|banned)\b",
    rf"{_IP} (is |was |has been )?(currently )?((black|block)[ -]?)?listed\b",
    rf"{_IP} is (currently )?(in|on) an? (rbl|dns[bw]l|black ?list|block ?list)\b",  # Exim, cPanel
    rf"\bmail from {_IP} refused\b",  # Sendmail
    r"\bblocked - see https?://\S*\bip=",  # Proofpoint
    r"\bthe ip you're using to send mail is not authorized",  # Gmail
)
_SENDER_REJECTED = _any_of(
    r"\bsender (address |domain )?(rejected|does not exist|not found|unknown|invalid|not owned)",
    r"\bsender verify failed",
    r"\binvalid sender",
    r"\bnot owned by user",
    r"\bsend ?as ?denied",
    r"(permissions?|allowed|authorized|authorised) to send as\b",
    r"\b(address|domain) is not verified",
)
_HELO_REJECTED = _any_of(r"\b(helo|ehlo) command rejected", r"\binvalid (helo|ehlo)\b")
_SENDING_LIMIT = _any_of(
    r"\bsending (limit|quota)",
    r"\b(daily|hourly|monthly)\b.{0,30}\b(limit|quota)",
    r"\brate limit",
    r"too many messages",
    r"\b(messaging|message) (limit|quota)",
    r"\b(maximum )?credits? (exceeded|exhausted|used up)",
    r"\b(exceeded|out of) (your )?credits?\b",
)
# Of a sender before any recipient is named: whose quota else could it be.
_QUOTA = _any_of(r"\bquota\b")
_ATTACHMENT = _any_of(
    r"\battach(ment|ed file)s?\b",
    r"\b(file ?type|file ?name|file extension|executable)s?\b[^.\n]{0,40}"
    r"\b(not (allowed|permitted|accepted)|blocked|prohibited|forbidden|refused|rejected)",
)
_MALWARE = _any_of(r"\b(virus|malware|trojan|phish)", r"\binfected")
_TOO_MANY_RECIPIENTS = _any_of(r"too many (recipients|rcpts?)\b")
_TOO_BIG = _any_of(
    r"message (is |was )?too (big|large)",
    r"message (size|length) exceeds",
    r"message exceed(s|ed) .{0,40}\b(size|limit)",
    r"\bsize (exceeds|larger than)\b.{0,30}\b(maximum|message|limit)",
)
_MAILBOX_FULL = _any_of(
    r"\b(mail)?box (is |was )?full",
    r"\bover ?quota",
    r"quota (is |was |has been )?exceeded",
    r"exceed.{0,20}\bquota",
)
# "sender" is here because it speaks of the other end: the address itself may be alive.
_POLICY = _any_of(
    r"\bblock",
    r"\bblack ?list",
    r"\b(dns[bw]l|rbl)\b",
    r"\blisted (at|in|by|on)\b",
    r"\bspam",
    r"\bpolicy\b",
    r"\breputation",
    r"\b(dmarc|spf)\b",
    r"rejected due to",
    r"access denied",
    r"\bsender\b",
)
_GREYLISTED = _any_of(
    r"\bgr[ae]y[ -]?list",
    r"^\W*4\.7\.1 try again later\W*$",  # Rspamd
)
_UNKNOWN_ADDRESS = _any_of(
    r"\bunknown (local )?(user|recipient|address|mailbox|account)",
    r"\b(user|recipient|address|mailbox|account)\b[^.\n]{0,20}\b(unknown|not found|disabled|closed|inactive)",
    r"\bno such (local )?(user|person|recipient|address|mailbox|account)",
    r"\bno mailbox\b",
    r"\bmailbox (is )?(unavailable|not available)",
    r"\b(does not|doesn't|do not|not) exist",
    r"\brecipient (address )?rejected",
    r"\b(invalid|not a valid) (recipient|mailbox|address|user)",
)

_SENDER_STAGES: Final = frozenset({MAIL, RCPT, DATA, DOT})
_COMMAND_STAGES: Final = frozenset({MAIL, RCPT, DATA})
_TEXT_STAGES: Final = frozenset({DATA, DOT})
_NO_ENHANCED: Final = r"(5\.0\.0)?"  # RFC 3463: X.0.0 says no more than the three digits do


@dataclass(frozen=True)
class ReplyRow:
    """How a reply is recognised; a field that is not given fits every reply.

    `family` is the reply's class after RFC 5248: "4" or "5", of the enhanced code if there is one,
    else of the three digits; "?" for a reply that is neither. `code` and `enhanced` are regular
    expressions for the whole of it, `words` is searched for in what the server says itself.
    """

    rule: str
    stages: frozenset[str] | None = None
    family: str = "45"
    code: str = ".*"
    enhanced: str = ".*"
    words: re.Pattern[str] | None = None

    def fits(self, stage: str, reply: _Reply) -> bool:
        """Whether this row speaks of such a reply at such a stage."""
        return (
            (self.stages is None or stage in self.stages)
            and reply.family in self.family
            and re.fullmatch(self.code, str(reply.code)) is not None
            and re.fullmatch(self.enhanced, reply.enhanced) is not None
            and (self.words is None or self.words.search(reply.words) is not None)
        )


REPLY_ROWS: Final = (
    ReplyRow("senseless-reply-to-dot", frozenset({DOT}), "?"),
    ReplyRow("senseless-reply", family="?"),
    ReplyRow("service-closing", code="421"),
    # RFC 7372, RFC 7505: SPF, DKIM, reverse name, sender's domain. The site's DNS, wherever it shows.
    ReplyRow("sender-not-authenticated", family="5", enhanced=r"5\.7\.2[0-7]"),
    # RFC 3207 section 4, RFC 4954 section 6
    ReplyRow("tls-required", family="5", code="53[08]", words=_TLS_REQUIRED),
    ReplyRow("tls-required", family="5", code="538"),
    ReplyRow("tls-required", family="5", enhanced=r"5\.7\.1[01]"),
    ReplyRow("password-transition", frozenset({AUTH}), code="432"),
    ReplyRow("password-transition", frozenset({AUTH}), enhanced=r"4\.7\.12"),
    ReplyRow("sending-limit", frozenset({AUTH}), words=_SENDING_LIMIT),
    ReplyRow("auth-rejected", frozenset({AUTH}), "5"),
    ReplyRow("auth-required", family="5", code="530"),
    ReplyRow("auth-required", _SENDER_STAGES, "5", "53[45]"),  # RFC 4954 section 6: of a login only
    ReplyRow("host-blocked", frozenset({CONNECT, BANNER, EHLO}), "5", words=_HOST_BLOCKED),
    ReplyRow("banner-refused", frozenset({CONNECT, BANNER}), "5"),
    ReplyRow("ehlo-rejected", frozenset({EHLO}), "5"),
    ReplyRow("starttls-refused", frozenset({STARTTLS, TLS}), "5"),
    # RCPT as well as MAIL: many servers keep what they think of the sender until they see a recipient.
    ReplyRow("auth-required", _COMMAND_STAGES, "5", words=_AUTH_REQUIRED),
    ReplyRow("relay-denied", frozenset({RCPT}), "5", words=_RELAY_DENIED),
    ReplyRow("relay-denied-for-now", frozenset({RCPT}), "4", words=_RELAY_DENIED),
    # Exchange Online: 5.7.606 to 5.7.649 are for banned addresses of the internet
    ReplyRow("host-blocked", _COMMAND_STAGES, "5", enhanced=r"5\.7\.6(0[6-9]|[1-4]\d)"),
    ReplyRow("host-blocked", _COMMAND_STAGES, "5", enhanced=r"((?!5\.[12]\.).*)?", words=_HOST_BLOCKED),
    ReplyRow("ehlo-rejected", frozenset({MAIL, RCPT}), "5", words=_HELO_REJECTED),
    ReplyRow("sending-limit", _SENDER_STAGES, enhanced=r"[45]\.4\.5"),
    ReplyRow("sending-limit", _SENDER_STAGES, enhanced=r"([45]\.[07]\..*)?", words=_SENDING_LIMIT),
    ReplyRow("sending-limit", _SENDER_STAGES, code="452", enhanced=r"4\.5\.4"),  # so some providers say
    ReplyRow("sending-limit", frozenset({MAIL}), "4", words=_QUOTA),
    ReplyRow("sender-rejected", _SENDER_STAGES, "5", enhanced=r"5\.1\.[78]|5\.7\.60"),
    ReplyRow("sender-rejected", _SENDER_STAGES, "5", words=_SENDER_REJECTED),
    ReplyRow("mailbox-full", frozenset({RCPT, DATA, DOT}), enhanced=r"[45]\.2\.2"),
    # RFC 3463: X.3.4 too big for the system
    ReplyRow("too-big", _SENDER_STAGES, enhanced=r"[45]\.3\.4"),
    ReplyRow("too-big", _SENDER_STAGES, "4", words=_TOO_BIG),
    # MAIL
    ReplyRow("content-refused", frozenset({MAIL}), "5", enhanced=r"5\.6\..*"),
    # RFC 1870 section 6.1; 5.2.2 is the sender's own mailbox, full: every message would be given up
    ReplyRow("sender-rejected", frozenset({MAIL}), "5", enhanced=r"5\.2\.2"),
    ReplyRow("too-big", frozenset({MAIL}), "5", "552"),
    ReplyRow("bad-sequence", frozenset({MAIL, RCPT}), "5", "50[023]"),
    ReplyRow("message-refused", frozenset({MAIL}), "5", "504|555"),  # this message asks for too much
    ReplyRow("sender-rejected", frozenset({MAIL}), "5"),
    # RCPT: the enhanced code first
    ReplyRow("too-many-recipients", frozenset({RCPT}), enhanced=r"[45]\.5\.3"),
    ReplyRow("too-many-recipients", frozenset({RCPT}), code="[45]52", words=_TOO_MANY_RECIPIENTS),
    ReplyRow("unknown-address", frozenset({RCPT}), "5", enhanced=r"5\.1\..*|5\.2\.1"),
    ReplyRow("recipient-policy", frozenset({RCPT}), "5", enhanced=r"5\.7\..*"),
    ReplyRow("storage-full", frozenset({RCPT}), "5", enhanced=r"5\.3\.1"),
    # RCPT: the three digits and the words
    ReplyRow("mailbox-full", frozenset({RCPT}), enhanced=r"([45]\.0\.0)?", words=_MAILBOX_FULL),
    ReplyRow("recipient-policy", frozenset({RCPT}), "5", enhanced=_NO_ENHANCED, words=_POLICY),
    ReplyRow("storage-full", frozenset({RCPT}), "5", "552", _NO_ENHANCED),  # RFC 5321 section 4.5.3.1.10
    ReplyRow("unknown-address", frozenset({RCPT}), "5", "55[136]", _NO_ENHANCED),
    ReplyRow("unknown-address", frozenset({RCPT}), "5", "55[04]", _NO_ENHANCED, _UNKNOWN_ADDRESS),
    ReplyRow("recipient-refused", frozenset({RCPT}), "5"),
    # DATA and the dot: one answer for all recipients, so it never condemns an address
    ReplyRow("too-big", _TEXT_STAGES, "5", enhanced=r"5\.2\.3"),
    ReplyRow("too-big", _TEXT_STAGES, "5", "552", _NO_ENHANCED),
    ReplyRow("content-refused", _TEXT_STAGES, "5", words=_MALWARE),
    ReplyRow("attachment-refused", _TEXT_STAGES, "5", words=_ATTACHMENT),
    ReplyRow("content-refused", _TEXT_STAGES, "5", enhanced=r"5\.[67]\..*"),
    ReplyRow("message-refused", _TEXT_STAGES, "5"),
    ReplyRow("greylisted", _SENDER_STAGES, "4", words=_GREYLISTED),
    # Exchange Online, of a network that it does not know yet: "Server busy", "Access denied, try again later"
    ReplyRow("greylisted", _SENDER_STAGES, "4", enhanced=r"4\.7\.[56]\d\d"),
    ReplyRow("deferred-after-dot", frozenset({DOT}), "4"),
    ReplyRow("server-deferred", family="4"),
    ReplyRow("unexpected-reply"),
)


@dataclass(frozen=True)
class _Reply:
    family: str
    code: int
    enhanced: str  # "" for none
    words: str


_QUOTED_ADDRESS = re.compile(r'"(?:\\.|[^"\\\n])*"@\S*')
_IN_BRACKETS = re.compile(r"<[^<>\n]*>")
_ADDRESS = re.compile(r"\S+@\S+")
_ANOTHER_SERVER = re.compile(r"\b(?:said|was):", re.IGNORECASE)
# At the start of a line (RFC 2034), or anywhere after "#", as qmail and others write it. An address
# of the internet, "5.1.1.2", is no enhanced code.
_ENHANCED = re.compile(r"(?:^|#)[ \t]*([45]\.\d{1,3}\.\d{1,3})(?!\.?\d)", re.MULTILINE)


def own_words(text: str) -> str:
    """The reply without the parts that others can write into it.

    Args:
        text: of a reply.

    A server repeats the address it was given, and quotes the server it asked about it. Whoever
    registers as "relay denied"@example.com must not be able to pause the site's transport.
    """
    text = _ANOTHER_SERVER.split(text, maxsplit=1)[0]
    for foreign in (_QUOTED_ADDRESS, _IN_BRACKETS, _ADDRESS):
        text = foreign.sub(" ", text)
    return text


def _read_reply(code: int, text: str) -> _Reply:
    words = own_words(text[:_LONGEST_READ])
    if not 400 <= code <= 599:
        return _Reply("?", code, "", words)
    found = _ENHANCED.search(words)
    enhanced = found[1] if found else ""
    return _Reply((enhanced or str(code))[0], code, enhanced, words)


def classify_reply(stage: str, code: int, text: str) -> Failure:
    """What a reply means that is not the one hoped for (RFC 5321, RFC 3463, RFC 5248).

    Args:
        stage: one of words.STAGES, the command the reply answers.
        code: the three digits; 0 if there were none. Anything but 4xx and 5xx counts as senseless:
            at the dot the server may then have taken the message.
        text: the reply without its codes of three digits, its lines parted by line breaks.

    Returns:
        The failure. For 4xx and 5xx it is never in doubt: the server has not taken the message.
    """
    reply = _read_reply(code, text)
    rule = next(row.rule for row in REPLY_ROWS if row.fits(stage, reply))
    return _failure(rule, stage, text, code if code > 0 else None, reply.enhanced or None)


# --- how an exception is recognised --------------------------------------------------------
@dataclass(frozen=True)
class ExceptionRow:
    """How an exception is recognised: by its type, the stage, and a look at it if needed."""

    rule: str
    types: tuple[type[BaseException], ...]
    stages: frozenset[str] | None = None
    when: Callable[[Any], bool] | None = None

    def fits(self, stage: str, error: BaseException) -> bool:
        """Whether this row speaks of such an exception at such a stage."""
        return (
            isinstance(error, self.types)
            and (self.stages is None or stage in self.stages)
            and (self.when is None or self.when(error))
        )


_UNREACHABLE: Final = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETRESET, errno.EHOSTDOWN, errno.ENOTCONN}
)
_LOST: Final = (ConnectionError, EOFError, smtplib.SMTPServerDisconnected)
_WAY: Final = frozenset({CONFIG, CONNECT})

# smtplib's exceptions are OSErrors, and SSLCertVerificationError is a ValueError too: the order matters.
EXCEPTION_ROWS: Final = (
    ExceptionRow("no-reply-to-dot", (OSError, EOFError), frozenset({DOT})),
    ExceptionRow("unknown-exception-after-dot", (BaseException,), frozenset({DOT})),
    ExceptionRow("missing-extra", (MissingExtra,)),
    ExceptionRow("starttls-not-offered", (NotOffered,), when=lambda error: error.extension == "STARTTLS"),
    ExceptionRow("auth-not-offered", (NotOffered,), when=lambda error: error.extension == "AUTH"),
    ExceptionRow("smtputf8-not-offered", (NotOffered,), when=lambda error: error.extension == "SMTPUTF8"),
    ExceptionRow("starttls-not-offered", (smtplib.SMTPNotSupportedError,), frozenset({STARTTLS})),
    ExceptionRow("auth-not-offered", (smtplib.SMTPNotSupportedError,), frozenset({AUTH})),
    ExceptionRow("smtputf8-not-offered", (smtplib.SMTPNotSupportedError,), _COMMAND_STAGES),
    # smtplib raises the bare SMTPException where no method of login suits both sides
    ExceptionRow(
        "auth-not-offered",
        (smtplib.SMTPException,),
        frozenset({AUTH}),
        lambda error: type(error) is smtplib.SMTPException,
    ),
    ExceptionRow("message-not-encodable", (UnicodeError,), frozenset({BUILD, DATA})),
    ExceptionRow("message-not-built", (BaseException,), frozenset({BUILD})),
    ExceptionRow("certificate", (ssl.SSLCertVerificationError,)),
    ExceptionRow(
        "not-tls", (ssl.SSLError,), when=lambda error: getattr(error, "reason", "") == "WRONG_VERSION_NUMBER"
    ),
    ExceptionRow("tls-error", (ssl.SSLError,)),
    ExceptionRow(
        "name-lookup-failed", (socket.gaierror,), when=lambda error: error.errno == socket.EAI_AGAIN
    ),
    ExceptionRow("name-not-known", (socket.gaierror,)),
    ExceptionRow("connect-refused", (ConnectionRefusedError,)),
    ExceptionRow("connect-timeout", (TimeoutError,), frozenset({CONNECT})),
    ExceptionRow("timed-out", (TimeoutError,)),
    ExceptionRow("connection-lost", _LOST),
    ExceptionRow("unreachable", (OSError,), when=lambda error: error.errno in _UNREACHABLE),
    ExceptionRow("unknown-exception", (smtplib.SMTPException,)),
    ExceptionRow("unreachable", (OSError,), frozenset({CONNECT})),
    # a name that IDNA cannot write, a port that is none
    ExceptionRow("bad-server-address", (ValueError, OverflowError), _WAY),
    ExceptionRow("login-not-ascii", (UnicodeError,), frozenset({AUTH})),
    ExceptionRow("sender-not-ascii", (UnicodeError,), frozenset({MAIL})),
    ExceptionRow("recipient-not-ascii", (UnicodeError,), frozenset({RCPT})),
    ExceptionRow("message-not-built", (ValueError,), _COMMAND_STAGES),
    ExceptionRow("unknown-exception", (BaseException,)),
)

# The process, the thread or the task is to end. Any other BaseException is just a library's odd taste.
EXITS: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, CancelledError)


def is_exit(error: BaseException) -> bool:
    """Whether the work is to end, and nobody may stop that.

    Signals are handled in the main thread only: in any other, one of EXITS is the doing of what was called,
    such as a library's sys.exit(), and an error like any other.
    """
    return isinstance(error, EXITS) and threading.current_thread() is threading.main_thread()


def classify_exception(stage: str, error: BaseException) -> Failure:
    """What an exception means that ended an attempt.

    Args:
        stage: one of words.STAGES, what was being done when it was raised; what is not even text
            counts as the wait for the answer to the final dot.
        error: anything. The host's own database errors are not for here: nothing was sent.

    Returns:
        The failure. A DeliveryError brings its own; an exception of smtplib that holds the server's
        reply is what the reply is.

    Raises:
        BaseException: `error` itself, if it is an exit; see is_exit().
    """
    if is_exit(error):
        raise error
    if not isinstance(stage, str):
        stage = DOT  # a transport that says so cannot be trusted to have sent nothing
    try:
        return _classified(stage, error)
    except BaseException as another:  # an exception whose own text or attributes fail
        if is_exit(another):
            raise
        rule = "unknown-exception-after-dot" if stage == DOT else "unknown-exception"
        return _failure(rule, stage, type(error).__name__)


def _classified(stage: str, error: BaseException) -> Failure:
    if isinstance(error, DeliveryError):
        return error.failure
    if isinstance(error, SiteFault):
        return Failure(CONFIGURATION, CONFIG, error.rule, _one_line(error.text))
    if isinstance(error, smtplib.SMTPResponseException):
        return classify_reply(stage, error.smtp_code, _decoded(error.smtp_error))
    if isinstance(error, smtplib.SMTPRecipientsRefused) and error.recipients:
        return _of_all_recipients(error)
    rule = next(row.rule for row in EXCEPTION_ROWS if row.fits(stage, error))
    return _failure(rule, stage, _words_of(rule, error))


def _of_all_recipients(error: smtplib.SMTPRecipientsRefused) -> Failure:
    """One failure for several refusals: the mildest, because it will hold for each of them."""
    failures = [classify_reply(RCPT, code, _decoded(text)) for code, text in error.recipients.values()]
    mildest_first = (TRANSIENT, CONFIGURATION, MESSAGE, RECIPIENT)
    return min(failures, key=lambda failure: (mildest_first.index(failure.kind), failure.suppress))


def check_reply(stage: str, code: int | None, enhanced: str | None, text: str) -> None:
    """Whether these can be what a transport was told.

    Raises:
        TypeError: one of them is not of its type, or too large for a table.
    """
    if not isinstance(stage, str) or not isinstance(text, str) or not isinstance(enhanced, (str, NoneType)):
        raise TypeError(f"a reply of {text!r} and {enhanced!r} at {stage!r} is not text")
    if code is not None and not (isinstance(code, int) and abs(code) < 2**31):
        raise TypeError(f"a reply code of {code!r} is no number that a table can hold")


# --- texts ---------------------------------------------------------------------------------
def _failure(
    rule: str, stage: str, text: str, code: int | None = None, enhanced: str | None = None
) -> Failure:
    kind = RULES[rule].kind
    shown = without_keys(_one_line(_without_login(text) if stage == AUTH else text))
    return Failure(kind, stage, rule, shown, code, enhanced, surely_not_sent=kind != IN_DOUBT)


def _decoded(text: bytes | str) -> str:
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else text


def _words_of(rule: str, error: BaseException) -> str:
    # str() of a UnicodeError shows the character that would not go: one of the password's, at AUTH
    if isinstance(error, UnicodeError):
        return f"{type(error).__name__}: a character that cannot be written here"
    text = str(error)
    known = not rule.startswith("unknown-exception") and text
    return text if known else f"{type(error).__name__}: {text}".removesuffix(": ")


def _one_line(text: str) -> str:
    """The text on one line, without control, format and surrogate characters (Unicode class C)."""
    kept = (
        " " if character.isspace() else character
        for character in text[:_LONGEST_READ]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    return " ".join("".join(kept).split())[:LONGEST_TEXT].rstrip()


def _without_login(text: str) -> str:
    """Some servers repeat the line they did not like; at AUTH it holds the login in base64."""
    return re.sub(r"[A-Za-z0-9+/]{4,}={0,2}", lambda token: "***" if _is_login(token[0]) else token[0], text)


def _is_login(token: str) -> bool:
    """Whether base64 makes something readable of it; NUL and SOH part the fields (RFC 4616, XOAUTH2)."""
    try:
        plain = base64.b64decode(token, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return plain.replace("\0", "").replace("\1", "").isprintable()

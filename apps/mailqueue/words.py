"""Every status, failure kind and stage, the legal moves between statuses, summarize() and answer().

The words are those of the tables, the pages and the documentation. A message has no status of
its own: it is always `summarize()` of its recipients, except while a worker holds a claim on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# --- statuses ------------------------------------------------------------------------------
QUEUED: Final = "queued"  # waiting for its first attempt, or to be tried again at no cost
SENDING: Final = "sending"  # a worker holds a claim on the message (never a recipient's status)
DEFERRED: Final = "deferred"  # tried in vain; will be tried again at a known time
SENT: Final = "sent"  # a server took the responsibility for it
FAILED: Final = "failed"  # will never be delivered
IN_DOUBT: Final = "in_doubt"  # the final dot was sent and never answered
SUPPRESSED: Final = "suppressed"  # the address is known to be dead, so it was not tried
CANCELLED: Final = "cancelled"  # an administrator stopped it
EXPIRED: Final = "expired"  # its time was over before it could be sent

# What an attempt came to that is no status of anybody: another transport took the message over.
PASSED_ON: Final = "passed_on"

RECIPIENT_STATUSES: Final = (QUEUED, DEFERRED, SENT, FAILED, IN_DOUBT, SUPPRESSED, CANCELLED, EXPIRED)
MESSAGE_STATUSES: Final = (QUEUED, SENDING, DEFERRED, SENT, FAILED, IN_DOUBT, CANCELLED, EXPIRED)

# Statuses from which a worker may still try the recipient.
PENDING: Final = frozenset({QUEUED, DEFERRED, IN_DOUBT})

# Statuses of messages that an administrator may have sent again.
RETRYABLE: Final = frozenset({DEFERRED, FAILED, IN_DOUBT, CANCELLED, EXPIRED})

# What a recipient may become. An administrator's retry is the only way back from an end.
RECIPIENT_MOVES: Final[dict[str, frozenset[str]]] = {
    QUEUED: frozenset({QUEUED, DEFERRED, SENT, FAILED, IN_DOUBT, SUPPRESSED, CANCELLED, EXPIRED}),
    DEFERRED: frozenset({QUEUED, DEFERRED, SENT, FAILED, IN_DOUBT, SUPPRESSED, CANCELLED, EXPIRED}),
    IN_DOUBT: frozenset({QUEUED, DEFERRED, SENT, FAILED, IN_DOUBT, CANCELLED, EXPIRED}),
    SENT: frozenset(),
    FAILED: frozenset({QUEUED}),
    SUPPRESSED: frozenset({QUEUED}),
    CANCELLED: frozenset({QUEUED}),
    EXPIRED: frozenset({QUEUED}),
}

# --- failure kinds -------------------------------------------------------------------------
CONFIGURATION: Final = "configuration"  # the site's fault: no attempt is spent
TRANSIENT: Final = "transient"  # back off and try again
RECIPIENT: Final = "recipient"  # permanent, for this address
MESSAGE: Final = "message"  # permanent, for the whole message
# IN_DOUBT is a failure kind as well as a status.
FAILURE_KINDS: Final = (CONFIGURATION, TRANSIENT, RECIPIENT, MESSAGE, IN_DOUBT)

# --- stages of an attempt, in their order --------------------------------------------------
CONFIG: Final = "config"  # settings are read, nothing was sent
CONNECT: Final = "connect"
BANNER: Final = "banner"
EHLO: Final = "ehlo"
STARTTLS: Final = "starttls"
TLS: Final = "tls"
AUTH: Final = "auth"
BUILD: Final = "build"  # the stored message is read and made ready
MAIL: Final = "mail"
RCPT: Final = "rcpt"
DATA: Final = "data"  # the DATA command and the text, up to the final dot
DOT: Final = "dot"  # the final dot is out, its answer is awaited
RSET: Final = "rset"
QUIT: Final = "quit"
STAGES: Final = (CONFIG, CONNECT, BANNER, EHLO, STARTTLS, TLS, AUTH, BUILD, MAIL, RCPT, DATA, DOT, RSET, QUIT)

# Stages that concern the way out, not one message: a failure there costs no message an attempt.
TRANSPORT_STAGES: Final = frozenset({CONFIG, CONNECT, BANNER, EHLO, STARTTLS, TLS, AUTH})

# --- kinds of recipients --------------------------------------------------------------------
TO: Final = "to"
CC: Final = "cc"
BCC: Final = "bcc"

# --- priorities: the smaller, the sooner ---------------------------------------------------
INSTANT: Final = -1  # a code that somebody is about to type in
URGENT: Final = 0  # somebody waits in front of a screen: Auth's mails
NORMAL: Final = 1
BULK: Final = 2
PRIORITIES: Final = (INSTANT, URGENT, NORMAL, BULK)

_STRONGEST_FIRST: Final = (QUEUED, DEFERRED, IN_DOUBT, FAILED, SUPPRESSED, EXPIRED, CANCELLED, SENT)


def summarize(statuses: Iterable[str]) -> str:
    """The status of a message, from the statuses of its recipients.

    What is still to be done comes first, then doubt, then the worst end: a message is `sent`
    only when every recipient is. A suppressed recipient makes the message `failed`.

    Args:
        statuses: recipient statuses, at least one.

    Returns:
        A message status other than `sending`.

    Raises:
        ValueError: for no status at all, or an unknown one.
    """
    present = set(statuses)
    unknown = present.difference(RECIPIENT_STATUSES)
    if unknown or not present:
        raise ValueError(f"not the statuses of a message's recipients: {sorted(present)}")
    strongest = next(status for status in _STRONGEST_FIRST if status in present)
    return FAILED if strongest == SUPPRESSED else strongest


def answer(code: int | None, enhanced: str | None, reply: str | None) -> str:
    """What a mail server said: its code, the enhanced one unless its words begin with it, and its words."""
    said, known = reply or "", enhanced or ""
    return " ".join(str(part) for part in (code, "" if said.startswith(known) else known, said) if part)

"""What an administrator reads and does, on the pages of either framework."""

from __future__ import annotations

import math
from typing import Any

from . import audit, bulk, compose, ledger, liveness, outbox, problems, queries, timeline, words
from .errors import BadAddress
from .export import as_csv
from .mailer import MailQueue
from .resending import resent
from .selection import Selection
from .terms import terms
from .told import Told
from .transports import configured

LABELS = {
    words.QUEUED: "queued",
    words.SENDING: "sending",
    words.DEFERRED: "deferred",
    words.SENT: "sent",
    words.FAILED: "failed",
    words.IN_DOUBT: "in doubt",
    words.SUPPRESSED: "suppressed",
    words.CANCELLED: "cancelled",
    words.EXPIRED: "expired",
    words.PASSED_ON: "passed on",
}

MEANINGS = {
    words.QUEUED: "It waits for a worker.",
    words.SENDING: "A worker is sending it at this moment.",
    words.DEFERRED: "It could not be delivered to everybody yet and is tried again by itself.",
    words.SENT: "A mail server took it for every recipient.",
    words.FAILED: "Somebody will not get it unless you retry.",
    words.IN_DOUBT: "It was sent, but the server's answer never came. Ask a recipient whether it arrived:"
    " retrying may deliver it twice.",
    words.CANCELLED: "It was stopped before everybody had it.",
    words.EXPIRED: "Its time was over before it could be delivered.",
}

_NOT_MADE = Told("It could not be made: nobody was sent anything.")
_LOST = Told("Somebody did not get it.")
_AHEAD_OF_TIME = Told("It is to be sent later.")
_HELD_UP = Told("It waits: sending is held up.")
_OVER_A_LIMIT = Told("It waits for its place: a limit, or its server, lets no more mail through now.")

OVER = "over {transport}"
# Sentences that are stored with their values in them; see Told.read.
STORED = (
    liveness.SILENT,
    bulk.BEGUN_TOLD,
    bulk.STOPPED_TOLD,
    bulk.DONE_TOLD,
    OVER,
    configured.NO_SERVER,
    configured.NO_SENDER,
)


def verbs_for(message: dict[str, Any]) -> list[tuple[str, str]]:
    """What can be done with a message now, each with its label.

    Args:
        message: a row of queries.message() or queries.messages().
    """
    verbs = []
    if message["status"] in words.RETRYABLE and message["has_content"]:
        verbs.append(("retry", "Retry"))
    if message["status"] == words.IN_DOUBT:
        verbs.append(("arrived", "It arrived"))
    if message["status"] in words.PENDING:
        verbs.append(("cancel", "Cancel"))
    return verbs


def retry(mail: MailQueue, message_id: int, who: str, over: str | None = None) -> tuple[bool, str]:
    """Send again to whom it was not sent. Whether it changed anything, and what to tell.

    Args:
        over: the name of the transport that the next attempt tries first; None: none is preferred.
    """
    if not outbox.retry(mail.db, message_id, mail.site.clock(), over):
        return False, "Nothing was changed: the message is sent, on its way, or its text is deleted."
    _record(mail, who, audit.RETRY, message_id, Told(OVER, transport=over) if over else "")
    mail.wake()
    if over:
        return True, Told(
            "Message {number} is back in the queue, to be tried over {transport}.",
            number=message_id,
            transport=over,
        )
    return True, Told("Message {number} is back in the queue.", number=message_id)


def retry_over(mail: MailQueue, message_id: int, over: str, who: str) -> tuple[bool, str]:
    """Send again over a transport of the site's choice. Whether it changed anything, and what to tell."""
    if over not in mail.transport_names():
        return False, "Nothing was changed: no such transport is configured."
    return retry(mail, message_id, who, over)


def cancel(mail: MailQueue, message_id: int, who: str) -> tuple[bool, str]:
    """Stop what is still waiting. Whether it changed anything, and what to tell."""
    site = mail.site
    if not outbox.cancel(mail.db, message_id, site.clock(), site.retention):
        return False, "Nothing was changed: the message is being sent, or not waiting any more."
    _record(mail, who, audit.CANCEL, message_id)
    return True, Told("Message {number} is cancelled.", number=message_id)


def arrived(mail: MailQueue, message_id: int, who: str) -> tuple[bool, str]:
    """Take what is in doubt for sent. Whether it changed anything, and what to tell."""
    site = mail.site
    if not outbox.settle_doubt(mail.db, message_id, site.clock(), site.retention):
        return False, "Nothing was changed: nothing of this message is in doubt, or it is being sent."
    _record(mail, who, audit.ARRIVED, message_id)
    return True, Told("Message {number} is marked as arrived.", number=message_id)


def correct(mail: MailQueue, message_id: int, recipient_id: int, given: str, who: str) -> tuple[bool, str]:
    """Give a recipient that was not reached another address, and send to it. Whether, and what to tell."""
    try:
        address = compose.parse_address(given).spec
    except BadAddress:
        return False, Told("Nothing was changed: “{typed}” is not one e-mail address.", typed=given)
    before = outbox.correct(mail.db, message_id, recipient_id, address, mail.site.clock())
    if before is None:
        return False, (
            "Nothing was changed: the recipient was reached or is being sent to, the text is deleted,"
            " or another recipient has this address."
        )
    _record(mail, who, audit.CORRECT, message_id, f"{before} → {address}")
    mail.wake()
    return True, Told("Message {number} is in the queue for {address}.", number=message_id, address=address)


def send_copy(mail: MailQueue, message_id: int, who: str) -> tuple[bool, str]:
    """Send the administrator a copy, marked as resent. Whether it is queued, and what to tell."""
    found, mime = queries.message(mail.db, message_id), _stored(mail, message_id)
    if found is None or mime is None:
        return False, "Nothing was sent: the text is deleted or damaged."
    now = mail.site.clock()
    smtputf8, domain = bool(found["smtputf8"]), mail.own_domain()
    try:
        copy = resent(mime, found["subject"], to=who, smtputf8=smtputf8, domain=domain, now=now)
    except BadAddress:
        return False, "Nothing was sent: your account has no e-mail address."
    mail.queue(copy, terms(now, category="copy", wipe=True))
    _record(mail, who, audit.COPY, message_id)
    return True, Told("A copy of message {number} is on its way to {who}.", number=message_id, who=who)


def export(mail: MailQueue, selection: Selection, who: str) -> str:
    """The messages of a selection as CSV; that somebody took it away is recorded."""
    _record(mail, who, audit.EXPORT, None, str(selection))
    return as_csv(mail.db, selection)


def begin_bulk(mail: MailQueue, verb: str, selection: Selection, below: int, who: str) -> dict[str, Any]:
    """Do something to many messages: as many as there is time for, then workers go on. Commits.

    Returns:
        What bulk.found() says of it.
    """
    number = bulk.begin(mail.site, verb, selection, below, who)
    mail.wake()
    return bulk.found(mail.db, number) or {}


def stop_bulk(mail: MailQueue, number: int, who: str) -> tuple[bool, str]:
    """Do no more of what was begun. Whether it changed anything, and what to tell."""
    if not bulk.stop(mail.site, number, who):
        return False, Told("Nothing was changed: it has ended already.")
    return True, Told("It is stopped. What was done stays done.")


def show_content(mail: MailQueue, message_id: int, who: str) -> bytes | None:
    """The MIME text of a message for an administrator who asked for it; None: it is deleted or damaged."""
    mime = _stored(mail, message_id)
    if mime is not None:
        _record(mail, who, audit.SHOW, message_id)
    return mime


def _stored(mail: MailQueue, message_id: int) -> bytes | None:
    try:
        return outbox.content(mail.db, message_id)
    except ValueError:
        return None  # purged, or damaged


def _record(mail: MailQueue, who: str, action: str, message_id: int | None, detail: str = "") -> None:
    audit.record(mail.db, who, action, mail.site.clock(), message_id, detail)


def acknowledge(mail: MailQueue, problem_id: int, who: str) -> tuple[bool, str]:
    """Say that somebody sees to a problem. Whether it changed anything, and what to tell."""
    summary = problems.acknowledge(mail.db, problem_id, who, mail.site.clock())
    if summary is None:
        return False, "Nothing was changed: it is resolved, or acknowledged already."
    _record(mail, who, audit.ACKNOWLEDGE, None, summary)
    return True, Told("Acknowledged: {summary}", summary=Told.plain(summary))


def resolve(mail: MailQueue, problem_id: int, who: str) -> tuple[bool, str]:
    """Say that a problem is over. Whether it changed anything, and what to tell."""
    summary = problems.resolve_one(mail.db, problem_id, mail.site.clock())
    if summary is None:
        return False, "Nothing was changed: it is resolved already."
    _record(mail, who, audit.RESOLVE, None, summary)
    return True, Told("Resolved: {summary}", summary=Told.plain(summary))


def forget(mail: MailQueue, lesson_id: int, who: str) -> tuple[bool, str]:
    """Forget what a server's replies taught. Whether there was anything, and what to tell."""
    name = ledger.forget(mail.db, lesson_id)
    if name is None:
        return False, "Nothing was changed: it was forgotten already."
    outbox.let_through(mail.db, name, mail.site.clock())
    _record(mail, who, audit.FORGET, None, held_name(name))
    mail.wake()
    return True, Told("{name} is sent to at full speed again.", name=held_name(name))


def held_name(name: str) -> str:
    """A transport or domain of a limit as people read it."""
    return name.partition(":")[2]


def said(row: dict[str, Any]) -> str:
    """What the mail server said of a recipient: code, enhanced code, its own words, a provider's id."""
    answer = words.answer(row["code"], row["enhanced"], row["reply"])
    told = f"(its id there: {row['provider_id']})" if row.get("provider_id") else ""
    return f"{answer} {told}".strip()


def meaning(message: dict[str, Any], held_up: bool, now: float) -> str:
    """What the status of a message means for those who wait for it.

    Args:
        message: what queries.message() returned.
        held_up: whether there is no way out for it.
        now: epoch seconds.
    """
    if timeline.is_ahead_of_time(message, now):
        return _AHEAD_OF_TIME
    if message["status"] == words.QUEUED and held_up:
        return _HELD_UP
    if message["status"] == words.QUEUED and timeline.is_over_a_limit(message, now):
        return _OVER_A_LIMIT
    if not message["was_made"]:
        return _NOT_MADE
    if message["status"] == words.FAILED and not message["has_content"]:
        return _LOST  # no retry brings it
    return MEANINGS.get(message["status"], "Its stored status is damaged.")


def relative(seconds: float) -> Told:
    """A span of time in words, such as "3 min ago" or "in 2 h".

    What is ahead is rounded to the nearest: what was set for two hours a moment ago comes in two hours.

    Args:
        seconds: from now; negative in the past.
    """
    for size, finer, ahead, past in _SPANS:
        if -seconds >= size:
            return Told(past, number=int(-seconds // size))
        if _nearest(seconds, finer) * finer >= size:
            return Told(ahead, number=_nearest(seconds, size))
    return Told("in a moment" if seconds > 0 else "just now")


def _nearest(seconds: float, size: int) -> int:
    return math.floor(seconds / size + 0.5)


_SPANS = (
    (86400, 3600, "in {number} d", "{number} d ago"),
    (3600, 60, "in {number} h", "{number} h ago"),
    (60, 60, "in {number} min", "{number} min ago"),
)

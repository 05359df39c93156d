"""What an administrator does about replies: try what one means, and add rules for those that no rule knew."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from . import audit, pasted, rulebook, words
from .classify import Failure
from .mailer import MailQueue
from .own_rules import GENERAL, OwnRule, judged
from .remedies import Advice, advice
from .retry import decide
from .told import Told

# What a reply can be declared to mean, for people.
MEANINGS = {
    "server-deferred": "Not now: try it again later",
    "sending-limit": "The server asks for less mail: send more slowly",
    "sender-rejected": "The site's own fault: stop, and tell the administrator",
    "unknown-address": "There is no such address",
    "recipient-policy": "This recipient is refused",
    "mailbox-full": "The mailbox is full: try it again for a day",
    "content-refused": "The content is refused",
    "message-refused": "This message is refused",
    "too-big": "The message is too big",
}
_DOUBT = "It counts as in doubt: nobody knows whether the server took it."
_PAUSED = "No attempt is spent: the mail waits, and the administrator is told."
_GIVEN_UP = "It is given up at once and counts as failed; you can retry it."
_AGAIN = "It is tried again by itself, for the first time after about {number} min."


@dataclass(frozen=True)
class Verdict:
    """What a reply means.

    Attributes:
        failure: as the queue sees it.
        own: whether a rule of this site decided.
        known: whether a rule knew it by more than its number.
        advice: in plain words.
        follows: what happens to the message.
    """

    failure: Failure
    own: bool
    known: bool
    advice: Advice
    follows: str


def try_out(mail: MailQueue, stage: str, text: str) -> Verdict:
    """What would happen if a server said this, or this were raised.

    Args:
        stage: one of words.STAGES; anything else counts as the answer to RCPT.
        text: as somebody copied it.
    """
    read = pasted.read(stage if stage in words.STAGES else words.RCPT, text)
    failure = judged(read, rulebook.rules(mail.db))
    own = failure is not read
    return Verdict(
        failure=failure,
        own=own,
        known=own or not (read.rule in GENERAL or read.rule.startswith("unknown-exception")),
        advice=advice(failure),
        follows=_follows(mail, failure),
    )


def _follows(mail: MailQueue, failure: Failure) -> str:
    if failure.kind == words.IN_DOUBT:
        return _DOUBT
    if failure.kind == words.CONFIGURATION:
        return _PAUSED
    unhurried = random.Random(0)  # noqa: S311 - jitter, nothing secret
    decision = decide(failure, attempts=1, age=0.0, policy=mail.site.policy, rng=unhurried)
    if decision.delay is None:
        return _GIVEN_UP
    return Told(_AGAIN, number=max(1, round(decision.delay / 60)))


def add_rule(mail: MailQueue, given: Mapping[str, str], who: str) -> tuple[bool, str]:
    """Have replies mean something from now on. Whether it changed anything, and what to tell.

    Args:
        given: "stage", "code", "enhanced", "text" and "meaning" of an OwnRule, as they were typed.
    """
    code, text = given["code"], " ".join(given["text"].split())
    try:
        number = int(code) if code.isascii() and code.isdigit() and len(code) == 3 else 0
        rule = OwnRule(given["stage"], number, given["enhanced"].strip(), text, given["meaning"])
    except ValueError as error:
        return False, Told("Nothing was changed: {reason}", reason=Told.plain(str(error)))
    if not rulebook.add(mail.db, rule, who, mail.site.clock()):
        return False, "Nothing was changed: there is such a rule already, or there are too many."
    detail = rulebook.told({**vars(rule), "reply_text": rule.text})
    audit.record(mail.db, who, audit.ADD_RULE, mail.site.clock(), None, detail)
    return True, "The rule is added. Workers go by it from the next time they begin to send."


def remove_rule(mail: MailQueue, rule_id: int, who: str) -> tuple[bool, str]:
    """Remove a rule. Whether it changed anything, and what to tell."""
    told = rulebook.remove(mail.db, rule_id)
    if told is None:
        return False, "Nothing was changed: the rule is removed already."
    audit.record(mail.db, who, audit.REMOVE_RULE, mail.site.clock(), None, told)
    return True, "The rule is removed."

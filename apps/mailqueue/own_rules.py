"""Rules that a site's administrator adds for replies that classify.py knows by their number only.

A rule is a plain comparison, and it decides among meanings that are safe at its stage: it speaks only of
what a server surely refused or put off, so it can neither end a doubt nor undo a success.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from .classify import RULES, Failure, own_words
from .words import DATA, DOT, MAIL, RCPT

# Rules of classify.py that go by the stage and the class of the number alone: nobody knew the reply.
GENERAL: Final = frozenset(
    {"recipient-refused", "message-refused", "server-deferred", "deferred-after-dot", "unexpected-reply"}
)
# What a reply may be declared to mean, at each of the stages that a message goes through.
_OF_ANY_STAGE: Final = ("server-deferred", "sending-limit", "sender-rejected")
MEANINGS: Final = {
    MAIL: (*_OF_ANY_STAGE, "message-refused"),
    RCPT: (*_OF_ANY_STAGE, "unknown-address", "recipient-policy", "mailbox-full"),
    DATA: (*_OF_ANY_STAGE, "content-refused", "too-big"),
    DOT: (*_OF_ANY_STAGE, "content-refused", "too-big"),
}
SHORTEST, LONGEST = 4, 200  # characters of the words that a rule looks for


@dataclass(frozen=True)
class OwnRule:
    """A rule: the replies that all its fields fit mean what `meaning` says.

    Args:
        stage: one of MEANINGS.
        code: the reply's three digits, 400 to 599.
        enhanced: its enhanced code (RFC 3463), such as "5.7.1"; "": any, or none.
        text: part of what the server says itself; upper and lower case alike.
        meaning: a name of classify.RULES, out of MEANINGS of the stage.

    Raises:
        ValueError: one of them is not like that.
    """

    stage: str
    code: int
    enhanced: str
    text: str
    meaning: str

    def __post_init__(self) -> None:
        """Refuse what would decide more than somebody means, or what is not safe to decide."""
        if self.stage not in MEANINGS:
            raise ValueError("A rule is for one of the stages mail, rcpt, data and dot.")
        if not 400 <= self.code <= 599:
            raise ValueError("The code of a reply that refuses is a number from 400 to 599.")
        if not SHORTEST <= len(self.text.strip()) <= LONGEST:
            raise ValueError("The words to look for are 4 to 200 characters long.")
        if self.meaning not in MEANINGS[self.stage]:
            raise ValueError("At this stage a reply cannot be declared to mean that.")

    def fits(self, failure: Failure) -> bool:
        """Whether this rule speaks of such a failure."""
        return (
            failure.surely_not_sent
            and failure.rule in GENERAL
            and failure.stage == self.stage
            and failure.code == self.code
            and self.enhanced in ("", failure.enhanced or "")
            and self.text.strip().casefold() in own_words(failure.text).casefold()
        )


def judged(failure: Failure, rules: Sequence[OwnRule]) -> Failure:
    """A failure as the first rule that fits it sees it; itself where none does."""
    rule = next((one for one in rules if one.fits(failure)), None)
    return failure if rule is None else replace(failure, rule=rule.meaning, kind=RULES[rule.meaning].kind)

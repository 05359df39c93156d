"""Messages one behind the other over one session, for as long as the server says yes to everything.

Near a server the worker's own steps take longer than the way to it and back, and nearly all messages take
the same ones: 250 to the dot of the message before, to MAIL and to RCPT, 354 to DATA, a line each and
nothing behind them. Where exactly that has come, it is answered here in one write: the text, its dot and
the commands of the message behind. Whatever else comes is left as it came to smtp_dialogue.py, which
knows what each answer means.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .. import words
from ..classify import classify_exception
from ..rounds import Steps
from .base import Answer, Following, Letter, Series
from .smtp_dialogue import Dialogue
from .smtp_message import Prepared, prepared_ahead, stuffed
from .smtp_session import Session
from .smtp_wear import Wear

LARGEST = 64 * 1024  # octets of a text that goes out with its dot: a larger one may be refused halfway
LULL = 0.1  # seconds after which what has not come is waited for in step

_YES = re.compile(rb"250 ([ -~]*)\r\n")
_ENVELOPE = re.compile(rb"250[ -~]*\r\n250[ -~]*\r\n354[ -~]*\r\n")  # MAIL, RCPT, DATA
_ENVELOPE_LINES = 3


class SmtpSeries:
    """A series over one session.

    Args:
        session: the message at hand is announced: session.ahead.
        wear: of the connection.
        series: the messages.
        following: the same messages, for what happens in step.
        at: is told each stage as it is reached.

    Attributes:
        was_late: as of the Dialogue.
    """

    def __init__(
        self,
        session: Session,
        wear: Wear,
        series: Series,
        following: Following | None,
        at: Callable[[str], None],
    ):
        self._session, self._wear, self._series, self._following = session, wear, series, following
        self._at = at
        self._dotted: Prepared | None = None  # its dot is out, and not answered
        self._failed: list[Answer] = []
        self.was_late = False

    def steps(self) -> Steps[None]:
        """Send messages until there is none behind, or something else than a yes."""
        while not self._failed and (at_hand := self._session.ahead):
            said = yield from self._heard(_ENVELOPE_LINES + (self._dotted is not None))
            yes = _YES.match(said) if self._dotted else None
            if self._dotted and yes is None:
                return
            reply, read = (yes[1].decode("ascii"), yes.end()) if yes else (None, 0)
            plain = _goes_at_once(at_hand) and _ENVELOPE.fullmatch(said, read) is not None
            if not plain or not self._series.begin(reply):
                self._leave(None if plain else reply, read)
                return
            self._session.heard(said)
            yield from self._sending(at_hand)

    def _heard(self, lines: int) -> Steps[bytes]:
        said = yield from self._session.wire.lines_within(lines, LULL)
        if said.count(b"\n") < lines:
            self._series.waits()
        return said

    def _leave(self, reply: str | None, read: int) -> None:
        """Leave the message at hand to smtp_dialogue.py, with all that was answered to it."""
        self._session.wire.skip(read)
        self._dotted = None
        if reply is not None:
            self._series.taken(reply)

    def _sending(self, at_hand: Prepared) -> Steps[None]:
        """The text, its dot, and the commands of the message behind."""
        session, stage = self._session, words.DATA
        self._at(stage)
        behind = self._prepared(self._series.next() if self._wear.takes_another else None)
        self._dotted = at_hand
        try:
            whole = stuffed(at_hand.text) + session.dot(behind)
            sent = session.wire.send_some(whole)
            stage = words.DOT
            self._at(stage)
            if sent < len(whole):
                yield from session.wire.rest_within(memoryview(whole)[sent:], session.timeouts.block)
        except OSError as error:
            session.cut()
            self._failed = [Answer.refused(at_hand.letter.recipients[0], classify_exception(stage, error))]
        else:
            self._wear.used()

    def _prepared(self, letter: Letter | None) -> Prepared | None:
        """The message behind; None where its own turn must show."""
        return prepared_ahead(letter, self._session.extensions) if letter else None

    def conclude(self) -> list[Answer]:
        """Wait for what the steps did not wait for.

        Returns:
            The answers for the message whose dot went out last; none where the series has taken them.
        """
        if self._failed or self._dotted is None:
            return self._failed
        dialogue = Dialogue(self._session, self._dotted, self._at)
        answers = dialogue.conclude(self._following)
        self.was_late = dialogue.was_late
        return answers


def _goes_at_once(prepared: Prepared) -> bool:
    (_, command), *others = prepared.recipients
    return not others and isinstance(command, bytes) and len(prepared.text) <= LARGEST

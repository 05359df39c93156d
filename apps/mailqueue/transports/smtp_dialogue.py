"""One message over one SMTP session: MAIL, RCPT, DATA, the text, the dot, and what each answer means.

Every command goes through Session.ask(), which sends it or, with PIPELINING, reads the reply to what
went out before. So the dialogue is the same with and without; what differs is how it is broken off.
"""

from __future__ import annotations

from collections.abc import Callable

from .. import words
from ..classify import DeliveryError, Failure, classify_exception, classify_reply
from .base import Answer, Following, split_enhanced
from .smtp_message import DATA, Prepared, prepared_ahead, stuffed
from .smtp_session import Session
from .smtp_wire import Reply

_BLOCK = 64 * 1024
PATIENCE = 2.0  # seconds without an answer to the dot, after which the next message need not wait


class OnceMore(Exception):
    """Nothing of the message was taken, for a reason that is none of its own: try again at once."""


class Dialogue:
    """One message on its way.

    Args:
        session: open, and in the middle of no message but perhaps of this one.
        prepared: the message.
        at: is told each stage as it is reached.

    Attributes:
        was_late: whether the answer to the dot took so long that the next message could not wait for it.
    """

    def __init__(self, session: Session, prepared: Prepared, at: Callable[[str], None]):
        self._session, self._prepared, self._report = session, prepared, at
        self._was_ahead = session.ahead is prepared
        self._was_used, session.used = session.used, True
        self._stage = words.MAIL
        self.was_late = False
        self._refused: list[Answer] = []
        self._accepted: list[str] = []

    def run(self, before_dot: Callable[[list[str]], None], following: Following | None) -> list[Answer]:
        """Hand the message over; see Transport.deliver().

        Raises:
            OnceMore: it is to be tried again, on this session or, where that is over, on another.
        """
        self._session.ahead = None
        self._at(words.MAIL)
        self._mail_from()
        self._rcpt_to()
        if self._accepted:
            self._data(before_dot, following)
        elif not self._session.is_over:
            self._send_nobody()
        return self._refused

    def conclude(self, following: Following | None) -> list[Answer]:
        """Read the answer to the dot of the message, which is out already with all that is ahead of it."""
        self._accepted = [recipient for recipient, _ in self._prepared.recipients]
        self._at(words.DOT)
        try:
            reply = self._answer_to_dot(following)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is an answer for them
            self._fail(error)
        else:
            self._judge(reply, self._accepted)
        return self._refused

    def _at(self, stage: str) -> None:
        self._stage = stage
        self._report(stage)

    # --- the envelope ----------------------------------------------------------------------

    def _mail_from(self) -> None:
        session = self._session
        try:
            if session.pipelines and not self._was_ahead:
                session.send_ahead(self._prepared.commands)
            reply = session.ask(self._prepared.mail, session.timeouts.command)
        except ConnectionError as error:
            session.cut()
            if self._was_used:  # the server closed what had served before: no fault of this message
                raise OnceMore from error
            raise
        if reply.positive:
            return
        if reply.code == 421 and self._was_used:
            raise OnceMore
        if reply.code in (504, 555) and "SIZE" in session.extensions:
            self._once_more_without("SIZE")
        if reply.code == 503 and session.pipelines:
            self._once_more_without("PIPELINING")
        self._withdraw()
        raise DeliveryError(classify_reply(words.MAIL, reply.code, reply.text))

    def _rcpt_to(self) -> None:
        self._at(words.RCPT)
        for place, (recipient, command) in enumerate(self._prepared.recipients):
            failure = self._name(command)
            if failure is None:
                self._accepted.append(recipient)
                continue
            self._refuse([recipient], failure)
            if self._session.is_over:
                unfinished = [other for other, _ in self._prepared.recipients[place + 1 :]]
                self._refuse([*self._accepted, *unfinished], failure)
                self._accepted.clear()
                return

    def _name(self, command: bytes | Failure) -> Failure | None:
        """RCPT for one; None: accepted. Whatever goes wrong, those refused before keep their answer."""
        if isinstance(command, Failure):  # an address that cannot be written; nothing was sent
            return command
        try:
            reply = self._session.ask(command, self._session.timeouts.command)
        except OSError as error:
            self._session.cut()
            return classify_exception(words.RCPT, error)
        return None if reply.positive else classify_reply(words.RCPT, reply.code, reply.text)

    def _refuse(self, recipients: list[str], failure: Failure) -> None:
        self._refused += [Answer.refused(recipient, failure) for recipient in recipients]

    # --- the text --------------------------------------------------------------------------

    def _data(self, before_dot: Callable[[list[str]], None], following: Following | None) -> None:
        """DATA and the message. What goes wrong here is the answer for those who were accepted."""
        try:
            self._at(words.DATA)
            reply = self._session.ask(DATA, self._session.timeouts.data)
            if reply.code == 354:
                reply = self._text(before_dot, following)
            else:
                self._expect_refusal(reply)
        except OnceMore:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, those refused keep their own answer
            self._fail(error)
            return
        if self._stage == words.DOT and self._session.answers_each:
            self._judge_each(reply)
        else:
            self._judge(reply, self._accepted)

    def _fail(self, error: Exception) -> None:
        failure = classify_exception(self._stage, error)
        self._session.cut()
        self._refuse(self._accepted, failure)

    def _text(self, before_dot: Callable[[list[str]], None], following: Following | None) -> Reply:
        session, wire = self._session, self._session.wire
        self._send_text()
        if wire.has_unread():  # a verdict on half a message: without the dot it is never a yes
            reply = wire.read_reply(session.timeouts.data)
            session.cut()
            return reply
        ahead = self._prepare_next(following)
        before_dot(self._accepted)
        self._at(words.DOT)
        session.send_dot(ahead)
        return self._answer_to_dot(following)

    def _answer_to_dot(self, following: Following | None) -> Reply:
        session, wire = self._session, self._session.wire
        self.was_late = not wire.hears_within(min(PATIENCE, session.timeouts.dot))
        if self.was_late and following:
            following.give_back()
        reply = session.answer_to_dot()
        if self.was_late and session.awaits_replies:
            session.cut()  # the server waits for a text that comes another way
        return reply

    def _send_text(self) -> None:
        view = memoryview(stuffed(self._prepared.text))
        for start in range(0, len(view), _BLOCK):
            self._session.wire.send(view[start : start + _BLOCK], self._session.timeouts.block)

    def _prepare_next(self, following: Following | None) -> Prepared | None:
        """The message whose commands can go out with the dot; None where its own turn must show."""
        letter = following.next() if following and self._session.pipelines else None
        return prepared_ahead(letter, self._session.extensions) if letter else None

    def _judge_each(self, first: Reply) -> None:
        """What the replies to the dot mean, of which the first has come; they are in the order of the RCPTs.

        Where one does not come, or is none, those behind are in doubt too. A server that will close says
        so to one of them (421) and still has answers for those behind, so that all are read first.
        """
        replies, lacking = self._replies_to_dot(first)
        for recipient, reply in zip(self._accepted, replies, strict=False):
            self._judge(reply, [recipient])
        if lacking:
            self._session.cut()
            self._refuse(self._accepted[len(replies) :], lacking)

    def _replies_to_dot(self, first: Reply) -> tuple[list[Reply], Failure | None]:
        """The replies, and why there are no more, if that is known."""
        replies = [first]
        try:
            while replies[-1].code and len(replies) < len(self._accepted):
                replies.append(self._session.answer_to_dot())
        except OSError as error:
            return replies, classify_exception(words.DOT, error)
        last = replies[-1]
        return replies, None if last.code else classify_reply(words.DOT, last.code, last.text)

    def _judge(self, reply: Reply, recipients: list[str]) -> None:
        """What a reply to DATA or to the dot means for these recipients, who were accepted."""
        self._session.heed(reply)
        if self._stage == words.DOT and reply.positive:
            enhanced, text = split_enhanced(reply.text)
            self._refused += [Answer(one, None, reply.code, enhanced, text) for one in recipients]
            return
        self._refuse(recipients, classify_reply(self._stage, reply.code, reply.text))
        if not _is_refusal(reply):
            self._session.cut()
        elif self._stage == words.DATA:
            self._session.reset()  # the dot would have ended the transaction, whatever its answer

    # --- breaking off ----------------------------------------------------------------------

    def _expect_refusal(self, reply: Reply) -> None:
        """See whether what is no 354 to DATA is at least a refusal, where it may be another's reply.

        With PIPELINING a yes means that some reply came twice, so that all behind it are out of step:
        no recipient can be said to be refused.

        Raises:
            OnceMore: the fault may be that of the message before, or of PIPELINING.
        """
        if not self._session.pipelines or reply.code in (0, 421):
            return
        if reply.code == 503 and self._accepted:
            self._once_more_without("PIPELINING")
        if not _is_refusal(reply):
            self._session.cut()
            if self._was_used:
                raise OnceMore
            self._refused, self._accepted = [], [one for one, _ in self._prepared.recipients]

    def _send_nobody(self) -> None:
        """No recipient was accepted: end the transaction without the text."""
        session = self._session
        if not session.awaits_replies:
            session.reset()
            return
        self._at(words.DATA)
        try:
            reply = session.ask(DATA, session.timeouts.data)
            if reply.code == 354:
                self._send_lone_dot()
                return
            self._expect_refusal(reply)
        except OSError:
            session.cut()
            return
        self._judge(reply, self._accepted)

    def _send_lone_dot(self) -> None:
        """The end of a text for nobody (RFC 2920 section 3.1), whose answer means nothing.

        Raises:
            OSError: the connection is lost.
        """
        self._session.send_dot(None)
        self._session.heed(self._session.answer_to_dot())

    def _withdraw(self) -> None:
        """Break off before the text: read the answers that are on their way."""
        session = self._session
        somebody = bool(self._accepted)
        reply = Reply(503, ())
        try:
            while session.awaits_replies and not session.is_over:
                somebody = somebody or reply.positive
                reply = session.ask(b"", session.timeouts.command)
            if reply.code == 354 and not somebody:
                self._send_lone_dot()
            elif not _is_refusal(reply):
                session.cut()
            elif self._accepted:
                session.reset()
        except OSError:
            session.cut()

    def _once_more_without(self, keyword: str) -> None:
        self._withdraw()
        self._session.distrust(keyword)
        raise OnceMore


def _is_refusal(reply: Reply) -> bool:
    return 400 <= reply.code < 600

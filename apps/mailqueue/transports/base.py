"""The contract of a transport: open, deliver, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import NamedTuple, TypeAlias

from .. import words
from ..classify import DeliveryError, Failure, check_reply
from ..rounds import Steps


@dataclass(frozen=True)
class Answer:
    """What became of one recipient.

    Args:
        recipient: the address.
        failure: None: the transport took the responsibility for the message.
        code: the reply code that decided, where there is one.
        enhanced: its enhanced status code (RFC 3463), such as "2.0.0".
        text: the server's own words.
        stage: the stage that decided.
        provider_id: what a provider calls the message in what it tells of it later.
    """

    recipient: str
    failure: Failure | None
    code: int | None = None
    enhanced: str | None = None
    text: str = ""
    stage: str = words.DOT
    provider_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no table could hold, while it is still the transport's own mistake.

        Raises:
            TypeError: a field is not of its type, or no table can hold it.
        """
        if not isinstance(self.recipient, str) or not isinstance(self.failure, (Failure, NoneType)):
            raise TypeError(f"an answer for {self.recipient!r} with the failure {self.failure!r}")
        if not isinstance(self.provider_id, (str, NoneType)):
            raise TypeError(f"a provider's id of {self.provider_id!r} is not text")
        check_reply(self.stage, self.code, self.enhanced, self.text)

    @classmethod
    def refused(cls, recipient: str, failure: Failure) -> Answer:
        """The answer for a recipient whom a failure met."""
        return cls(recipient, failure, failure.code, failure.enhanced, failure.text, failure.stage)


def split_enhanced(text: str) -> tuple[str | None, str]:
    """The enhanced status code (RFC 3463) that a server's words begin with, if they do, and the words."""
    first, _, rest = text.partition(" ")
    parts = first.split(".")
    return (first, rest) if len(parts) == 3 and all(map(str.isdigit, parts)) else (None, text)


def with_later(
    send: Callable[[], Iterable[Answer]], now: Iterable[str], later: Collection[str], why: str
) -> list[Answer]:
    """The answers for recipients of one request, and for those to be tried again at once in a further one.

    Args:
        send: sends to those of the request.
        now: they.
        later: the others.
        why: they had no place in it.

    Raises:
        DeliveryError: of send(), where there are no others, or all can be tried again.
    """
    try:
        answers = list(send())
    except DeliveryError as error:
        if not later or error.failure.surely_not_sent:
            raise
        answers = [Answer.refused(address, error.failure) for address in now]
    rest = Failure(words.TRANSIENT, words.RCPT, "too-many-recipients", why)
    return [*answers, *(Answer.refused(address, rest) for address in later)]


class Letter(NamedTuple):
    """A message as deliver() is given it."""

    sender: str
    recipients: tuple[str, ...]
    mime: bytes
    smtputf8: bool


class Following(ABC):
    """What comes after the message that is being delivered, for a transport that can make use of it."""

    @abstractmethod
    def next(self) -> Letter | None:
        """The message that this transport is to be given next, the same at each call; None: not known."""

    @abstractmethod
    def give_back(self) -> None:
        """Leave the message that comes next to another transport, since this one may wait for long."""


Rest: TypeAlias = Callable[[], list[Answer]]  # see Transport.go_on()


class Series(ABC):
    """Messages that go out one behind the other, for as long as the server says yes to everything.

    The message at hand is the one that Following.next() gave last.
    """

    @abstractmethod
    def begin(self, reply: str | None) -> bool:
        """Put on record that the dot of the message at hand is about to be sent.

        Args:
            reply: the words of the 250 to the dot of the message before it; None: there was none.

        Returns:
            False: it must not be sent, and nothing of this message counts.
        """

    @abstractmethod
    def next(self) -> Letter | None:
        """The message behind the one at hand, which is at hand from then on; as Following.next()."""

    @abstractmethod
    def taken(self, reply: str) -> None:
        """The dot was answered by a 250 with these words, and the series ends behind it."""

    @abstractmethod
    def waits(self) -> None:
        """The server lets the message wait."""


class Transport(ABC):
    """A way out. One object serves one thread at a time.

    Attributes:
        stage: where it is at this moment (words.STAGES), so that whatever exception leaves it can
            be classified.
        delivers: whether mail really leaves; a transport that captures is content with any sender.
        opening_proves: whether open() shows that it works; if not, only a message does.
        place: set by whoever makes it: the setting of the mailer that describes it, such as "routes="; "" is
            the single server.
        following: set by whoever delivers, where more is known to follow. A transport may prepare it,
            and even announce it to the server, but must not do what cannot be undone; it may as well
            take no notice.
    """

    stage: str = words.CONFIG
    delivers: bool = True
    opening_proves: bool = True
    place: str = ""
    following: Following | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is, for people and for the tables: without secrets, the same in every process."""

    @abstractmethod
    def settings(self) -> tuple[object, ...]:
        """Everything that was configured, secrets included: when it changes, a pause is over."""

    def check_files(self) -> None:
        """See whether the files that it was configured with can be used; connects to nothing.

        A transport may as well let that show when it is opened.

        Raises:
            SiteFault: one cannot.
        """
        return

    def approach(self) -> None:
        """Come as near to ready as can be done without showing a login; open() goes on from there.

        A transport may as well leave all of it to open().

        Raises:
            Exception: whatever went wrong; classified by `stage`.
        """
        return

    @abstractmethod
    def open(self) -> None:
        """Make it ready to deliver; does nothing where it is.

        Raises:
            Exception: whatever went wrong; classified by `stage`.
        """

    @abstractmethod
    def deliver(
        self,
        sender: str,
        recipients: Sequence[str],
        mime: bytes,
        *,
        smtputf8: bool,
        before_dot: Callable[[list[str]], None],
    ) -> list[Answer]:
        """Hand one message over.

        Args:
            sender: the envelope sender's address.
            recipients: the envelope recipients' addresses.
            mime: the message (RFC 5322), lines ended by CRLF.
            smtputf8: whether it needs SMTPUTF8 (RFC 6531).
            before_dot: to be called, with the recipients accepted, right before the point after
                which the message may have been taken though no answer came.

        Returns:
            One answer for each recipient, in any order.

        Raises:
            Exception: whatever met the whole message; classified by `stage`.
        """

    def go_on(self, series: Series) -> Steps[Rest]:
        """Hand over the messages behind the one that was just delivered, for as long as all goes well.

        It does so in steps, none of which waits: it says what for, and other connections have their turn
        meanwhile. A transport may as well leave each message to deliver().

        Args:
            series: the messages; the first is the one that `following` gave last.

        Returns:
            What is left to be done, which may wait: it returns the answers for the message whose dot was
            sent last; none where the series has taken them.

        Raises:
            Exception: whatever met that message; classified by `stage`.
        """
        yield from ()
        return list

    @abstractmethod
    def close(self) -> None:
        """End in good order; never raises, whatever state it is in."""

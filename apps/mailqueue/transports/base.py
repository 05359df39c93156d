"""The contract of a transport: open, deliver, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import NoneType

from .. import words
from ..classify import Failure, check_reply


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
    """

    recipient: str
    failure: Failure | None
    code: int | None = None
    enhanced: str | None = None
    text: str = ""
    stage: str = words.DOT

    def __post_init__(self) -> None:
        """Refuse what no table could hold, while it is still the transport's own mistake.

        Raises:
            TypeError: a field is not of its type, or no table can hold it.
        """
        if not isinstance(self.recipient, str) or not isinstance(self.failure, (Failure, NoneType)):
            raise TypeError(f"an answer for {self.recipient!r} with the failure {self.failure!r}")
        check_reply(self.stage, self.code, self.enhanced, self.text)

    @classmethod
    def refused(cls, recipient: str, failure: Failure) -> Answer:
        """The answer for a recipient whom a failure met."""
        return cls(recipient, failure, failure.code, failure.enhanced, failure.text, failure.stage)


class Transport(ABC):
    """A way out. One object serves one thread at a time.

    Attributes:
        stage: where it is at this moment (words.STAGES), so that whatever exception leaves it can
            be classified.
        delivers: whether mail really leaves; a transport that captures is content with any sender.
    """

    stage: str = words.CONFIG
    delivers: bool = True

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is, for people and for the tables: without secrets, the same in every process."""

    @abstractmethod
    def settings(self) -> tuple[object, ...]:
        """Everything that was configured, secrets included: when it changes, a pause is over."""

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

    @abstractmethod
    def close(self) -> None:
        """End in good order; never raises, whatever state it is in."""

"""What the scripted server can do instead of its usual answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

if TYPE_CHECKING:
    from .smtp_session import Session


@dataclass(frozen=True, kw_only=True)
class Fault(ABC):
    """What the server does instead of its usual answer.

    `taken` matters at the final dot: True means that the server keeps the message although it does not
    say so, which is the duplicate a careless client makes.
    """

    taken: bool = False

    @property
    def accepts(self) -> bool:
        return self.taken

    @abstractmethod
    def play(self, session: Session) -> None:
        """Do it."""


@dataclass(frozen=True)
class Reply(Fault):
    """Answer `code` and `text`, one line of the reply for each line of the text, `times` times.

    With `then`, that fault follows at once: `Reply(421, "4.3.2 closing", then=Close())`.
    """

    code: int
    text: str | bytes = ""
    times: int = 1
    then: Fault | None = None

    @property
    def accepts(self) -> bool:
        return self.taken or self.code < 400

    def play(self, session: Session) -> None:
        text = self.text.encode() if isinstance(self.text, str) else self.text
        *first, last = text.split(b"\n")
        lines = [b"%d-%s\r\n" % (self.code, line) for line in first]
        session.send((b"".join(lines) + b"%d %s\r\n" % (self.code, last)) * self.times)
        if self.then:
            self.then.play(session)


@dataclass(frozen=True)
class Raw(Fault):
    """Send these very bytes, whatever they are."""

    data: bytes
    then: Fault | None = None

    def play(self, session: Session) -> None:
        session.send(self.data)
        if self.then:
            self.then.play(session)


@dataclass(frozen=True)
class Hang(Fault):
    """Say nothing until the server is told to `release()`, then go on as usual."""

    def play(self, session: Session) -> None:
        session.server.hang()
        Reply(250, "2.0.0 at last").play(session)


@dataclass(frozen=True)
class Late(Fault):
    """Let `seconds` go by, then go on as usual."""

    seconds: float = 0.05

    def play(self, session: Session) -> None:
        threading.Event().wait(self.seconds)


_READS = 16  # before an orderly close: all of what a client says in a dialogue, but no long text to its end


@dataclass(frozen=True)
class Close(Fault):
    """Close the connection in an orderly way."""

    def play(self, session: Session) -> None:
        session.socket.setblocking(False)
        with contextlib.suppress(OSError):  # unread bytes would make the close a reset
            for _ in range(_READS):
                if not session.socket.recv(65536):
                    break
        raise ConnectionAbortedError


@dataclass(frozen=True)
class Reset(Fault):
    """Break the connection: the client gets a TCP reset."""

    def play(self, session: Session) -> None:
        session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionAbortedError


Step = Union[Fault, Mapping[str, Fault], Callable[["Session", str], "Fault | None"], None]  # noqa: UP007


def nth(fault: Fault, *numbers: int) -> Callable[[Session, str], Fault | None]:
    """`fault` at these occurrences of the stage, 1 being the first after this call."""
    seen = Counter[str]()

    def step(_session: Session, _line: str) -> Fault | None:
        seen["times"] += 1
        return fault if seen["times"] in numbers else None

    return step

"""A session with an SMTP server: opened, secured, logged in; its commands and their replies in step.

With PIPELINING (RFC 2920) commands go out before the ones ahead of them are answered. The replies
come in the same order, so that each is read where its command would have been sent otherwise.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, MutableSet, Sequence
from dataclasses import dataclass

from .. import words
from ..classify import DeliveryError, NotOffered, classify_reply
from .smtp_auth import Login, log_in
from .smtp_message import Prepared
from .smtp_tls import Trust, context_of, expect_pin
from .smtp_wire import Reply, Wire

PLAIN = "plain"  # no TLS
STARTTLS = "starttls"  # TLS after STARTTLS (RFC 3207), never without
OPPORTUNISTIC = "opportunistic"  # TLS after STARTTLS if it is offered, whoever the server is (RFC 7435)
IMPLICIT = "implicit"  # TLS from the first octet on (RFC 8314)


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait at each stage: the least that RFC 5321 section 4.5.3.2 asks for.

    But for the greeting, where it asks for five minutes: no message is at risk there, a paused
    transport is probed again, and an administrator is to hear soon of a server that hangs.
    """

    connect: float = 30.0
    greeting: float = 60.0  # banner, EHLO, STARTTLS, login: until the first message
    command: float = 300.0
    data: float = 120.0
    block: float = 180.0
    dot: float = 600.0
    quit: float = 2.0

    @classmethod
    def of(cls, seconds: float | None) -> Timeouts:
        """The defaults, or `seconds` for all but the wait for the answer to the final dot.

        That one stays at ten minutes: whoever gives up earlier sends the message twice.
        """
        if seconds is None:
            return cls()
        return cls(connect=seconds, greeting=seconds, command=seconds, data=seconds, block=seconds)


@dataclass(frozen=True)
class Server:
    """A server, and how to come to it; see SmtpTransport."""

    host: str
    port: int
    security: str
    login: Login | None
    trust: Trust
    hostname: str | None
    source: str | None
    hello: str = "EHLO"  # "LHLO": it speaks LMTP (RFC 2033)


class Session:
    """A session that is ready for messages, once it is logged in.

    Args:
        server: whom to connect to.
        timeouts: seconds for each stage.
        at: is told each stage as it is reached.
        distrusted: extensions that are not used even if they are offered; distrust() adds to it.

    Attributes:
        extensions: what the server offers, by keyword.
        ahead: the message whose commands went out with the final dot of the one before.
        used: whether it has served a message.
        is_over: whether nothing can be said any more.

    Raises:
        Exception: whatever went wrong, to be classified by the stage.
    """

    def __init__(
        self,
        server: Server,
        timeouts: Timeouts,
        at: Callable[[str], None],
        distrusted: MutableSet[str],
    ):
        self._server, self.timeouts, self._at = server, timeouts, at
        self.extensions: dict[str, str] = {}
        self.ahead: Prepared | None = None
        self.used = self.is_over = False
        self._awaited, self._distrusted = 0, distrusted
        self._is_ready = False
        self.wire = Wire(server.host, server.port, timeout=timeouts.connect, source=server.source)
        try:
            self._greet()
        except BaseException:
            self.cut()
            raise
        for keyword in distrusted:
            self.extensions.pop(keyword, None)

    # --- greeting --------------------------------------------------------------------------

    def _greet(self) -> None:
        server, wire, patience = self._server, self.wire, self.timeouts.greeting
        if server.security == IMPLICIT:
            self._secure()
        self._at(words.BANNER)
        _expect(words.BANNER, wire.read_reply(patience))
        self._hello()
        has_tls = "STARTTLS" in self.extensions
        if server.security == STARTTLS or (server.security == OPPORTUNISTIC and has_tls):
            self._at(words.STARTTLS)
            if not has_tls:
                raise NotOffered("STARTTLS")
            _expect(words.STARTTLS, wire.command("STARTTLS", patience))
            self._secure()
            self._hello()

    def log_in(self) -> None:
        """Make the session ready; does nothing where it is.

        Raises:
            Exception: whatever went wrong, to be classified by the stage; the session is over.
        """
        if self._is_ready:
            return
        try:
            if self._server.login:
                self._at(words.AUTH)
                self._show(self._server.login)
            self.wire.expect_silence()  # else the first message would pay for it
        except BaseException:
            self.cut()
            raise
        self._is_ready = True

    def _show(self, login: Login) -> None:
        wire, patience = self.wire, self.timeouts.greeting
        offered = self.extensions.get("AUTH", "")
        reply = log_in(lambda line: wire.command(line, patience), login, offered=offered, secure=wire.secure)
        _expect(words.AUTH, reply)

    def _secure(self) -> None:
        self._at(words.TLS)
        trust = self._server.trust
        context = context_of(trust, verified=self._server.security != OPPORTUNISTIC)
        self.wire.start_tls(context, self.timeouts.connect)
        if trust.pin:
            expect_pin(self.wire.peer_certificate, trust.pin)

    def _hello(self) -> None:
        self._at(words.EHLO)
        wire, patience = self.wire, self.timeouts.greeting
        name = self._server.hostname or _fully_qualified(socket.gethostname()) or wire.local_address
        reply = wire.command(f"{self._server.hello} {name}", patience)
        if (
            reply.code in (500, 502) and not self.answers_each
        ):  # RFC 5321 section 3.2: an old server may not know EHLO
            reply = wire.command(f"HELO {name}", patience)
        _expect(words.EHLO, reply)
        keywords = (line.partition(" ") for line in reply.lines[1:])
        self.extensions = {word.upper(): rest for word, _, rest in keywords}

    # --- commands --------------------------------------------------------------------------

    @property
    def answers_each(self) -> bool:
        """Whether the dot is answered for each recipient that was accepted (RFC 2033 section 4.2)."""
        return self._server.hello == "LHLO"

    @property
    def pipelines(self) -> bool:
        """Whether commands may go out before those ahead of them are answered."""
        return "PIPELINING" in self.extensions

    @property
    def awaits_replies(self) -> bool:
        """Whether commands are out that were not answered yet."""
        return self._awaited > 0

    def distrust(self, keyword: str) -> None:
        """Do without an extension that is offered and does not work."""
        self._distrusted.add(keyword)
        self.extensions.pop(keyword, None)

    def send_ahead(self, commands: Sequence[bytes]) -> None:
        """Send commands whose replies ask() will read.

        Raises:
            OSError: the connection is lost, or the server had spoken before it was asked.
        """
        self.wire.expect_silence()
        self._awaited = len(commands)
        self.wire.send(b"".join(commands), self.timeouts.block)

    def send_dot(self, ahead: Prepared | None) -> None:
        """Send the final dot, and with it the commands of the message that comes next, if one does.

        Raises:
            OSError: the connection is lost.
        """
        self.wire.send(self.dot(ahead), self.timeouts.block)

    def dot(self, ahead: Prepared | None) -> bytes:
        """What send_dot() sends, for whoever sends it with the text."""
        self.ahead = ahead
        commands = ahead.commands if ahead else ()
        self._awaited = len(commands)
        return b"".join((b".\r\n", *commands))

    def heard(self, replies: bytes) -> None:
        """All that was awaited has come, and with it nothing else than these replies."""
        self.wire.skip(len(replies))
        self._awaited = 0

    def answer_to_dot(self) -> Reply:
        """The server's word on the whole message, or on one recipient where it answers each: see heed().

        Raises:
            OSError: the connection is lost, or the time is over.
        """
        return self.wire.read_reply(self.timeouts.dot)

    def ask(self, command: bytes, timeout: float) -> Reply:
        """The reply to a command, which is sent now if it is not out already; it is heeded.

        Raises:
            OSError: the connection is lost, or the time is over, or the server had spoken unasked.
        """
        if self._awaited:
            self._awaited -= 1
            reply = self.wire.read_reply(timeout)
        else:
            reply = self.wire.exchange(command, timeout)
        self.heed(reply)
        return reply

    def heed(self, reply: Reply) -> None:
        """End the session after 421 (RFC 5321 section 3.8), and after what is no reply."""
        if reply.code in (0, 421):
            self.cut()

    def reset(self) -> None:
        """Forget the message at hand, or end the session where that does not work."""
        if self.is_over:
            return
        try:
            if not self.ask(b"RSET\r\n", self.timeouts.command).positive:
                self.cut()
        except OSError:
            self.cut()

    # --- end -------------------------------------------------------------------------------

    def quit(self) -> None:
        """Say goodbye, unless the server is in the middle of a message, and close the connection."""
        if not self.is_over and not self._awaited:
            with contextlib.suppress(OSError):
                self.wire.command("QUIT", self.timeouts.quit)
        self.cut()

    def cut(self) -> None:
        """Close the connection at once."""
        self.is_over = True
        self.wire.close()


def _fully_qualified(name: str) -> str | None:
    return name if "." in name.strip(".") else None


def _expect(stage: str, reply: Reply) -> None:
    if not reply.positive:
        raise DeliveryError(classify_reply(stage, reply.code, reply.text))

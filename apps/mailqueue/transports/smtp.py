"""Delivery over SMTP (RFC 5321): one dialogue, its stages, and one answer for each recipient."""

from __future__ import annotations

import base64
import contextlib
import hmac
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from .. import words
from ..classify import DeliveryError, Failure, NotOffered, SiteFault, classify_exception, classify_reply
from ..errors import MailQueueError
from .base import Answer, Transport
from .smtp_wire import Reply, Wire

PLAIN = "plain"  # no TLS
STARTTLS = "starttls"  # TLS after STARTTLS (RFC 3207), never without
IMPLICIT = "implicit"  # TLS from the first octet on (RFC 8314)

_SCHEMES = {PLAIN: "smtp", STARTTLS: "smtp+starttls", IMPLICIT: "smtps"}
_BLOCK = 64 * 1024


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


class SmtpTransport(Transport):
    """One SMTP server, over one connection that is kept between messages.

    Args:
        host: its name or address.
        port: its port.
        security: PLAIN, STARTTLS or IMPLICIT. With TLS the certificate is verified, always.
        login: user and password, or None.
        ca_file: path of the certificates to trust (PEM), instead of the system's.
        hostname: what to say in EHLO; by default this host's name, or its address.
        timeouts: seconds for each stage.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        security: str = STARTTLS,
        login: tuple[str, str] | None = None,
        ca_file: str | None = None,
        hostname: str | None = None,
        timeouts: Timeouts | None = None,
    ):
        self._host, self._port, self._security = host, port, security
        self._login, self._ca_file, self._hostname = login, ca_file, hostname
        self._timeouts = timeouts or Timeouts()
        self._wire: Wire | None = None
        self._extensions: dict[str, str] = {}
        self._used = False

    @property
    def name(self) -> str:
        """Scheme, host and port. Not the user: some providers' user names are secrets."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{_SCHEMES[self._security]}://{host}:{self._port}"

    def settings(self) -> tuple[object, ...]:
        """Everything that was configured, the password included."""
        return (self.name, self._login, self._ca_file, self._hostname, *astuple(self._timeouts))

    # --- open ------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect, secure the connection, log in; or find the kept connection still alive."""
        self.stage = words.CONNECT
        if self._wire is not None and not self._wire.has_unread():
            return
        self._drop()
        self._wire = Wire(self._host, self._port, timeout=self._timeouts.connect)
        self._used = False
        try:
            self._greet()
        except BaseException:
            self._drop()
            raise

    def _greet(self) -> None:
        wire = self._connected()
        if self._security == IMPLICIT:
            self._secure(wire)
        self.stage = words.BANNER
        self._expect(wire.read_reply(self._timeouts.greeting))
        self._hello()
        if self._security == STARTTLS:
            self.stage = words.STARTTLS
            if "STARTTLS" not in self._extensions:
                raise NotOffered("STARTTLS")
            self._expect(wire.command("STARTTLS", self._timeouts.greeting))
            self._secure(wire)
            self._hello()
        if self._login:
            self.stage = words.AUTH
            self._log_in(*self._login)
        if wire.has_unread():  # else the first message would pay for it
            raise ConnectionAbortedError("the server spoke or closed before it was asked")

    def _secure(self, wire: Wire) -> None:
        self.stage = words.TLS
        try:
            context = ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:
            raise SiteFault("bad-ca-file", f"ca_file {self._ca_file} cannot be used: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        wire.start_tls(context, self._timeouts.connect)

    def _hello(self) -> None:
        self.stage = words.EHLO
        wire = self._connected()
        name = self._hostname or _fully_qualified(socket.gethostname()) or wire.local_address
        reply = wire.command(f"EHLO {name}", self._timeouts.greeting)
        if reply.code in (500, 502):  # RFC 5321 section 3.2: an old server may not know EHLO
            reply = wire.command(f"HELO {name}", self._timeouts.greeting)
        self._expect(reply)
        keywords = (line.partition(" ") for line in reply.lines[1:])
        self._extensions = {word.upper(): rest for word, _, rest in keywords}

    def _log_in(self, user: str, password: str) -> None:
        offered = self._extensions.get("AUTH", "").upper().split()
        preferred = ["PLAIN", "LOGIN"] if self._connected().secure else ["CRAM-MD5", "PLAIN", "LOGIN"]
        mechanism = next((name for name in [*preferred, "CRAM-MD5"] if name in offered), None)
        if mechanism is None:
            raise NotOffered("AUTH")
        steps = {"PLAIN": _auth_plain, "LOGIN": _auth_login, "CRAM-MD5": _auth_cram_md5}[mechanism]
        self._expect(
            steps(lambda line: self._connected().command(line, self._timeouts.greeting), user, password)
        )

    # --- deliver ---------------------------------------------------------------------------

    def deliver(
        self,
        sender: str,
        recipients: Sequence[str],
        mime: bytes,
        *,
        smtputf8: bool,
        before_dot: Callable[[list[str]], None],
    ) -> list[Answer]:
        """Hand one message over; see Transport.deliver()."""
        try:
            return self._dialogue(sender, recipients, _with_line_ends(mime), smtputf8, before_dot)
        except MailQueueError:
            raise
        except BaseException:
            self._drop()  # in the middle of a dialogue; nothing more may be said on this connection
            raise

    def _dialogue(
        self,
        sender: str,
        recipients: Sequence[str],
        mime: bytes,
        smtputf8: bool,
        before_dot: Callable[[list[str]], None],
    ) -> list[Answer]:
        used, self._used = self._used, True
        try:
            self._mail_from(sender, len(mime), smtputf8)
        except (OSError, DeliveryError) as error:
            if not (used and _connection_is_over(error)):
                raise
            # The server closed a connection that had served before: no fault of this message.
            self._drop()
            self.open()
            self._mail_from(sender, len(mime), smtputf8)
        answers, accepted = self._rcpt_to(recipients)
        if accepted:
            answers += self._text(accepted, mime, before_dot)
        elif self._wire:
            self._reset()
        return answers

    def _mail_from(self, sender: str, size: int, smtputf8: bool) -> None:
        self.stage = words.MAIL
        options = ""
        if "SIZE" in self._extensions:
            limit = self._extensions["SIZE"]
            if limit.isdigit() and 0 < int(limit) < size:
                text = f"5.3.4 the message has {size} octets, the server takes {limit}"
                raise DeliveryError(classify_reply(words.MAIL, 552, text))
            options += f" SIZE={size}"
        if smtputf8:
            if "SMTPUTF8" not in self._extensions:
                raise NotOffered("SMTPUTF8")
            options += " BODY=8BITMIME SMTPUTF8" if "8BITMIME" in self._extensions else " SMTPUTF8"
        reply = self._connected().command(f"MAIL FROM:<{sender}>{options}", self._timeouts.command)
        if reply.code in (504, 555) and self._extensions.pop("SIZE", None) is not None:
            self._mail_from(sender, size, smtputf8)  # offered and then refused: it can be left out
            return
        self._closed_by(reply)
        if not reply.positive:
            self._reset()
            self._expect(reply, stage=words.MAIL)

    def _rcpt_to(self, recipients: Sequence[str]) -> tuple[list[Answer], list[str]]:
        self.stage = words.RCPT
        refused: list[Answer] = []
        accepted: list[str] = []
        for place, recipient in enumerate(recipients):
            failure = self._name_recipient(recipient)
            if failure is None:
                accepted.append(recipient)
                continue
            refused.append(Answer.refused(recipient, failure))
            if self._wire is None:
                unfinished = [*accepted, *recipients[place + 1 :]]
                return refused + [Answer.refused(other, failure) for other in unfinished], []
        return refused, accepted

    def _name_recipient(self, recipient: str) -> Failure | None:
        """RCPT for one; None: accepted. Whatever goes wrong, those refused before keep their answer."""
        try:
            reply = self._connected().command(f"RCPT TO:<{recipient}>", self._timeouts.command)
        except (OSError, ValueError) as error:
            if not isinstance(error, ValueError):  # of an address that cannot be written nothing was sent
                self._drop()
            return classify_exception(words.RCPT, error)
        self._closed_by(reply)
        return None if reply.positive else classify_reply(words.RCPT, reply.code, reply.text)

    def _text(
        self, accepted: list[str], mime: bytes, before_dot: Callable[[list[str]], None]
    ) -> list[Answer]:
        """DATA and the message. What goes wrong here is the answer for those who were accepted."""
        try:
            self.stage = words.DATA
            wire = self._connected()
            reply = wire.command("DATA", self._timeouts.data)
            if reply.code == 354:
                self._send_text(wire, mime)
                if wire.has_unread():  # a verdict on half a message: without the dot it is never a yes
                    return self._verdict_ahead_of_dot(accepted, wire.read_reply(self._timeouts.data))
                before_dot(accepted)
                self.stage = words.DOT
                wire.send(b".\r\n", self._timeouts.block)
                reply = wire.read_reply(self._timeouts.dot)
        except Exception as error:  # noqa: BLE001 - whatever it is, those refused keep their own answer
            failure = classify_exception(self.stage, error)
            self._drop()
            return [Answer.refused(recipient, failure) for recipient in accepted]
        return self._answers_to_text(accepted, reply)

    def _verdict_ahead_of_dot(self, accepted: list[str], reply: Reply) -> list[Answer]:
        self._drop()
        failure = classify_reply(words.DATA, reply.code, reply.text)
        return [Answer.refused(recipient, failure) for recipient in accepted]

    def _answers_to_text(self, accepted: list[str], reply: Reply) -> list[Answer]:
        if self.stage == words.DOT and reply.positive:
            enhanced, text = _split_enhanced(reply.text)
            return [Answer(recipient, None, reply.code, enhanced, text) for recipient in accepted]
        failure = classify_reply(self.stage, reply.code, reply.text)
        if not self._closed_by(reply):
            self._reset()
        return [Answer.refused(recipient, failure) for recipient in accepted]

    def _send_text(self, wire: Wire, mime: bytes) -> None:
        stuffed = mime.replace(b"\r\n.", b"\r\n..")
        if stuffed.startswith(b"."):
            stuffed = b"." + stuffed
        for start in range(0, len(stuffed), _BLOCK):
            wire.send(stuffed[start : start + _BLOCK], self._timeouts.block)

    # --- end -------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye and close the connection."""
        if self._wire is not None:
            self.stage = words.QUIT
            with contextlib.suppress(OSError):
                self._wire.command("QUIT", self._timeouts.quit)
        self._drop()

    def _connected(self) -> Wire:
        if self._wire is None:
            raise ConnectionResetError("the connection is closed")
        return self._wire

    def _expect(self, reply: Reply, *, stage: str | None = None) -> None:
        if not reply.positive:
            raise DeliveryError(classify_reply(stage or self.stage, reply.code, reply.text))

    def _closed_by(self, reply: Reply) -> bool:
        """Whether the dialogue is over: after 421 (RFC 5321 section 3.8), and after what was no reply."""
        if reply.code in (0, 421):
            self._drop()
            return True
        return False

    def _reset(self) -> None:
        """Make the connection ready for the next message, or close it."""
        if self._wire is None:
            return
        try:
            if not self._wire.command("RSET", self._timeouts.command).positive:
                self._drop()
        except OSError:
            self._drop()

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


def _with_line_ends(mime: bytes) -> bytes:
    """The message with every line ended by CRLF, the last one too.

    A bare CR or LF is what hides a second message in the first (RFC 5321 section 2.3.8): some servers
    take LF, dot, LF for the end.
    """
    pairs = mime.count(b"\r\n")
    if mime.count(b"\r") != pairs or mime.count(b"\n") != pairs:
        mime = re.sub(rb"\r\n|\r|\n", b"\r\n", mime)
    return mime if mime.endswith(b"\r\n") else mime + b"\r\n"


def _fully_qualified(name: str) -> str | None:
    return name if "." in name.strip(".") else None


def _connection_is_over(error: BaseException) -> bool:
    if isinstance(error, DeliveryError):
        return error.failure.code == 421
    return isinstance(error, ConnectionError)


def _split_enhanced(text: str) -> tuple[str | None, str]:
    first, _, rest = text.partition(" ")
    parts = first.split(".")
    return (first, rest) if len(parts) == 3 and all(part.isdigit() for part in parts) else (None, text)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode("utf-8")).decode("ascii")


def _auth_plain(command: Callable[[str], Reply], user: str, password: str) -> Reply:
    return command("AUTH PLAIN " + _encode(f"\0{user}\0{password}"))  # RFC 4616


def _auth_login(command: Callable[[str], Reply], user: str, password: str) -> Reply:
    reply = command("AUTH LOGIN " + _encode(user))
    return command(_encode(password)) if reply.code == 334 else reply


def _auth_cram_md5(command: Callable[[str], Reply], user: str, password: str) -> Reply:
    reply = command("AUTH CRAM-MD5")  # RFC 2195
    if reply.code != 334:
        return reply
    try:
        challenge = base64.b64decode(reply.text, validate=True)
    except ValueError:
        return Reply(0, reply.lines)
    digest = hmac.new(password.encode("utf-8"), challenge, "md5").hexdigest()
    return command(_encode(f"{user} {digest}"))

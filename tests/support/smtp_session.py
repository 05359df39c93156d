"""One connection to the scripted server."""

from __future__ import annotations

import base64
import contextlib
import re
import socket
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .smtp_auth import authenticate
from .smtp_faults import Fault, Hang, Late, Reply

if TYPE_CHECKING:
    from .smtp_server import ScriptedServer

MAIL_LINE = re.compile(r"MAIL FROM:<(.*)>(.*)$", re.I)
RCPT_LINE = re.compile(r"RCPT TO:<(.*)>", re.I)
NEEDED_EXTENSION = {"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8"}


class Session:
    """One connection, in a thread of its own.

    Attributes:
        number: 1 for the server's first connection.
        tls: whether TLS is on; user: who logged in; mail_from, rcpt_tos: the envelope so far.
    """

    mail_from: str | None
    mail_parameters: tuple[str, ...]
    rcpt_tos: list[str]

    def __init__(self, server: ScriptedServer, connection: socket.socket, number: int) -> None:
        self.server, self.socket, self.number = server, connection, number
        self.tls = False
        self.user: str | None = None
        self._answers_each = False  # LMTP (RFC 2033)
        self._buffer = bytearray()
        self._closing = threading.Lock()
        self._forget_mail()

    def run(self) -> None:
        try:
            with contextlib.suppress(OSError):
                self._converse()
        finally:
            with self._closing:
                self.socket.close()

    def _converse(self) -> None:
        if self.server.tls == "implicit":
            self._handshake()
        self._perform("banner", "", Reply(220, "scripted.test ESMTP"))
        while True:
            self._obey(self._read_command())

    def cut(self) -> None:
        """Wake a read or write of this session, from another thread."""
        with self._closing, contextlib.suppress(OSError):
            socket.socket.shutdown(self.socket, socket.SHUT_RDWR)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _read_until(self, end: bytes) -> bytes:
        searched = 0
        while (found := self._buffer.find(end, searched)) < 0:
            searched = max(0, len(self._buffer) - len(end))
            chunk = self.socket.recv(65536)
            if not chunk:
                raise ConnectionAbortedError
            self._buffer += chunk
        data = bytes(self._buffer[:found])
        del self._buffer[: found + len(end)]
        return data

    def _read_line(self) -> str:
        return self._read_until(b"\r\n").decode("utf-8", "surrogateescape")

    def _read_command(self) -> str:
        line = self._read_line()
        self.server.note(command=line, pipelined=bool(self._buffer))
        return line

    def _read_text(self) -> bytes:
        """The text up to the final dot, its dots unstuffed (RFC 5321 section 4.5.2)."""
        self._buffer[:0] = b"\r\n"
        stuffed = self._read_until(b"\r\n.\r\n") + b"\r\n"
        return stuffed.replace(b"\r\n..", b"\r\n.")[2:]

    def _handshake(self) -> None:
        fault = self._fault("tls", "")
        if fault:
            self.socket.recv(65536)  # an end with something unread would be a reset
            fault.play(self)
            raise ConnectionAbortedError
        assert self.server.context
        self._buffer.clear()  # what was sent in the clear must not count as sent under TLS (RFC 3207)
        with self._closing:
            plain = self.socket
            self.socket = self.server.context.wrap_socket(
                plain, server_side=True, do_handshake_on_connect=False
            )
        self.socket.do_handshake()
        self.tls = True

    # --- the script ------------------------------------------------------------------------
    def _fault(self, stage: str, line: str) -> Fault | None:
        self.server.note(stage=stage)
        step = self.server.script.get(stage)
        if isinstance(step, Mapping):
            address = re.search(r"<(.*)>", line)
            step = step.get(address[1] if address else "")
        elif callable(step):
            step = step(self, line)
        if isinstance(step, Hang) and not step.taken:
            self.server.hang()
            return None
        if isinstance(step, Late):
            step.play(self)
            return None
        return step

    def _perform(self, stage: str, line: str, usual: Reply) -> Fault:
        action = self._fault(stage, line) or usual
        action.play(self)
        return action

    def _obey(self, line: str) -> None:
        verb = line.split(" ", 1)[0].lower()
        command = getattr(self, f"_do_{verb}", None)
        if self._buffer and "PIPELINING" not in self.server.extensions:
            Reply(503, "5.5.0 PIPELINING was not offered").play(self)
        elif command is None:
            Reply(500, "5.5.2 unknown command").play(self)
        else:
            command(line)

    def _do_ehlo(self, line: str) -> None:
        self._forget_mail()
        self._perform("ehlo", line, Reply(250, "\n".join(["scripted.test", *self._offers()])))

    def _do_lhlo(self, line: str) -> None:
        self._answers_each = True
        self._do_ehlo(line)

    def _do_helo(self, line: str) -> None:
        self._forget_mail()
        self._perform("ehlo", line, Reply(250, "scripted.test"))

    def _offers(self) -> list[str]:
        server = self.server
        offers = [f"SIZE {server.size_limit}" if name == "SIZE" else name for name in server.extensions]
        if server.tls == "starttls" and not self.tls:
            offers.append("STARTTLS")
        elif server.auth:
            offers.append("AUTH " + " ".join(server.mechanisms))
        return offers

    def _do_starttls(self, line: str) -> None:
        if self.server.tls != "starttls" or self.tls:
            Reply(502, "5.5.1 not offered").play(self)
        elif self._perform("starttls", line, Reply(220, "2.0.0 go ahead")).accepts:
            self._handshake()

    def _do_auth(self, line: str) -> None:
        fault = self._fault("auth", line)
        if fault:
            if fault.accepts:
                self.user = next(iter(self.server.auth or {}), None)
            fault.play(self)
            return
        offered = self.server.mechanisms if self.server.auth else ()
        self.user = authenticate(line, self._ask, self.server.auth or {}, offered)
        granted = Reply(235, "2.7.0 welcome")
        (granted if self.user else Reply(535, "5.7.8 credentials invalid")).play(self)

    def _ask(self, challenge: bytes) -> str:
        Reply(334, base64.b64encode(challenge)).play(self)
        return self._read_line()

    def _do_mail(self, line: str) -> None:
        usual = self._judge_mail(line)
        action = self._fault("mail", line) or usual
        if action.accepts:
            found = MAIL_LINE.match(line)
            self.mail_from, self.mail_parameters = (found[1], tuple(found[2].split())) if found else ("", ())
        action.play(self)

    def _judge_mail(self, line: str) -> Reply:
        found = MAIL_LINE.match(line)
        if not found:
            return Reply(501, "5.5.4 MAIL FROM:<address>")
        if self.server.auth and not self.user:
            return Reply(530, "5.7.0 authentication required")
        if self.mail_from is not None:
            return Reply(503, "5.5.1 nested MAIL command")
        parameters = dict(word.upper().partition("=")[::2] for word in found[2].split())
        if any(NEEDED_EXTENSION.get(name) not in self.server.extensions for name in parameters):
            return Reply(555, "5.5.4 parameter not offered")
        if int(parameters.get("SIZE") or 0) > self.server.size_limit:
            return Reply(552, "5.3.4 message too big")
        if not line.isascii() and "SMTPUTF8" not in parameters:
            return Reply(553, "5.6.7 needs SMTPUTF8")
        return Reply(250, "2.1.0 sender ok")

    def _do_rcpt(self, line: str) -> None:
        found = RCPT_LINE.match(line)
        usual = Reply(250, "2.1.5 recipient ok") if found else Reply(501, "5.5.4 RCPT TO:<address>")
        if self.mail_from is None:
            usual = Reply(503, "5.5.1 MAIL first")
        action = self._fault("rcpt", line) or usual
        if action.accepts and found:
            self.rcpt_tos.append(found[1])
        action.play(self)

    def _do_data(self, line: str) -> None:
        usual = Reply(354, "go ahead") if self.rcpt_tos else Reply(503, "5.5.1 no recipients")
        action = self._perform("data", line, usual)
        if not isinstance(action, Reply) or action.code != 354:
            return
        fault = self._fault("text", "")
        if fault:
            fault.play(self)
        self._finish(self._read_text())

    def _finish(self, data: bytes) -> None:
        if self._answers_each:
            self._finish_for_each(data)
            return
        too_big = len(data) > self.server.size_limit
        usual = Reply(552, "5.3.4 message too big") if too_big else Reply(250, "2.0.0 taken")
        action = self._fault("dot", "") or usual
        if action.accepts:
            self.server.note(message={**self._envelope(), "data": data})
        self._forget_mail()
        action.play(self)

    def _finish_for_each(self, data: bytes) -> None:
        answers = [
            (one, self._fault("dot", f"<{one}>") or Reply(250, "2.0.0 taken")) for one in self.rcpt_tos
        ]
        taken = tuple(one for one, action in answers if action.accepts)
        if taken:
            self.server.note(message={**self._envelope(), "rcpt_tos": taken, "data": data})
        self._forget_mail()
        for _, action in answers:
            action.play(self)

    def _envelope(self) -> dict[str, object]:
        return {
            "mail_from": self.mail_from,
            "rcpt_tos": tuple(self.rcpt_tos),
            "mail_parameters": self.mail_parameters,
            "tls": self.tls,
            "user": self.user,
            "connection": self.number,
        }

    def _forget_mail(self) -> None:
        self.mail_from = None
        self.mail_parameters = ()
        self.rcpt_tos = []

    def _do_rset(self, line: str) -> None:
        action = self._fault("rset", line) or Reply(250, "2.0.0 forgotten")
        if action.accepts:
            self._forget_mail()
        action.play(self)

    def _do_noop(self, _line: str) -> None:
        Reply(250, "2.0.0 here").play(self)

    def _do_quit(self, line: str) -> None:
        self._perform("quit", line, Reply(221, "2.0.0 bye"))
        raise ConnectionAbortedError

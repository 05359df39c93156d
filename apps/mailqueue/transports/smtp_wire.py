"""The lines of an SMTP dialogue: a socket, commands, replies, deadlines.

What the replies mean is none of its business. A reply that is not one (RFC 5321 section 4.2)
comes back with code 0, so that it can be classified like any other answer.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import time
from dataclasses import dataclass

from ..rounds import Steps, Waiting

# A reply line has 512 octets (RFC 5321 section 4.5.3.1.5); some servers write more.
LONGEST_LINE = 8192
MOST_LINES = 200

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])([ -]?)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Reply:
    """An answer of the server: its code, 0 where it has none, and its lines without the code."""

    code: int
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The server's words, their lines parted by line breaks."""
        return "\n".join(self.lines)

    @property
    def positive(self) -> bool:
        """Whether it says yes (2xx)."""
        return 200 <= self.code < 300


def in_octets(line: str) -> bytes:
    """A command as it goes over the wire.

    Raises:
        ValueError: it holds a line break or another control character, or half a character.
    """
    if not (line.isascii() and line.isprintable()) and _CONTROL_CHARACTER.search(line):
        raise ValueError("an SMTP command cannot contain a line break or control character")
    return line.encode("utf-8") + b"\r\n"


class Wire:
    """A connection that speaks in SMTP lines.

    Args:
        host: name or address of the server, or the path of a socket on this host.
        port: its port; of no meaning for a path.
        timeout: seconds for making the connection.
        source: this end's address, where it matters which one the server sees.

    Raises:
        OSError: the connection failed.
    """

    def __init__(self, host: str, port: int, *, timeout: float, source: str | None = None):
        local = host.startswith("/")
        self._socket = _on_this_host(host, timeout) if local else _over_tcp(host, port, timeout, source)
        self._host = host
        self._buffer = b""
        self._event = select.POLLIN  # what is waited for
        self._do_not_block()

    def _do_not_block(self) -> None:
        # Python would set a time-out with one more system call at each step, and let go of its lock.
        self._socket.setblocking(False)
        self._polls = {event: select.poll() for event in (select.POLLIN, select.POLLOUT)}
        for event, poll in self._polls.items():
            poll.register(self._socket, event)

    @property
    def secure(self) -> bool:
        """Whether the connection is under TLS."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def peer_certificate(self) -> bytes | None:
        """The certificate that the server has shown, in DER."""
        return self._socket.getpeercert(binary_form=True) if isinstance(self._socket, ssl.SSLSocket) else None

    @property
    def local_address(self) -> str:
        """This end's address as a literal for EHLO (RFC 5321 section 4.1.3)."""
        if self._socket.family == socket.AF_UNIX:
            return "localhost"
        address = str(self._socket.getsockname()[0])
        return f"[IPv6:{address}]" if ":" in address else f"[{address}]"

    def start_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """Continue under TLS. What the server sent ahead of it is dropped (RFC 3207 section 4.2).

        Raises:
            OSError: the handshake failed; ssl.SSLError where TLS itself is at fault.
        """
        self._buffer = b""
        self._socket.settimeout(timeout)
        self._socket = context.wrap_socket(self._socket, server_hostname=self._host)
        self._do_not_block()

    def send(self, data: bytes | memoryview, timeout: float) -> None:
        """Send octets as they are.

        Raises:
            OSError: the connection is lost, or `timeout` seconds went by.
        """
        deadline = time.monotonic() + timeout
        rest = memoryview(data)
        while rest:
            sent = self._send_now(rest)
            if not sent:
                self._wait(deadline)
            rest = rest[sent:]

    def send_some(self, data: bytes) -> int:
        """Send as much as can be sent at once.

        Returns:
            How many octets that were.

        Raises:
            OSError: the connection is lost; nothing was sent.
        """
        return self._send_now(data)

    def _send_now(self, data: bytes | memoryview) -> int:
        try:
            return self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._event = select.POLLOUT
        except ssl.SSLWantReadError:
            self._event = select.POLLIN
        return 0

    def rest_within(self, data: memoryview, seconds: float) -> Steps[None]:
        """Send octets of which some may have been sent already, in steps.

        Raises:
            OSError: the connection is lost, or the time is over.
        """
        until = time.monotonic() + seconds
        while data:
            sent = self._send_now(data)
            if not sent:
                if time.monotonic() >= until:
                    raise TimeoutError("timed out")
                yield Waiting(self._socket.fileno(), self._event, until)
            data = data[sent:]

    def command(self, line: str, timeout: float) -> Reply:
        """Send one command, given without its line end, and read its reply; see exchange().

        Raises:
            ValueError: the command holds a line break or another control character; nothing was sent.
        """
        return self.exchange(in_octets(line), timeout)

    def exchange(self, command: bytes, timeout: float) -> Reply:
        """Send one command and read its reply.

        Args:
            command: as it goes over the wire.
            timeout: seconds until the whole reply must be here.

        Raises:
            OSError: the connection is lost, or the time is over, or the server had said something
                already, which would be taken for the reply to this command.
        """
        self.expect_silence()
        self.send(command, timeout)
        return self.read_reply(timeout)

    def expect_silence(self) -> None:
        """Make sure that the server has said nothing which would be taken for a later reply.

        Raises:
            ConnectionAbortedError: it has, or it closed the connection.
        """
        if self.has_unread():
            said = self._buffer[:200].decode("utf-8", "replace")
            raise ConnectionAbortedError(f"the server spoke or closed before it was asked: {said}")

    def read_reply(self, timeout: float) -> Reply:
        """Read one reply, of one or several lines.

        Args:
            timeout: seconds until the whole of it must be here.

        Raises:
            TimeoutError: it was not.
            ConnectionError: the server closed the connection.
        """
        deadline = time.monotonic() + timeout
        lines: list[str] = []
        classes: set[bytes] = set()
        while True:
            raw = self._read_line(deadline)
            match = _REPLY_LINE.fullmatch(raw)
            classes.update([match[1][:1]] if match else [])
            # Lines of which one says yes and another no are no reply (RFC 5321 section 4.2.1).
            if match is None or len(classes) > 1 or len(lines) >= MOST_LINES:
                return Reply(0, (*lines, raw[:500].decode("utf-8", "replace")))
            lines.append(match[3].decode("utf-8", "replace").strip())
            if match[2] != b"-":
                return Reply(int(match[1]), tuple(lines))

    def _read_line(self, deadline: float) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > LONGEST_LINE:
                line, self._buffer = self._buffer, b""
                return line
            if time.monotonic() >= deadline:  # even if the server never stops talking
                raise TimeoutError("timed out")
            received = self._receive(deadline)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def has_unread(self) -> bool:
        """Whether the server said something nobody asked for, or closed the connection."""
        return self.hears_within(0.0)

    def hears_within(self, seconds: float) -> bool:
        """Wait until the server says something, or closes the connection, but not for longer than this."""
        if self._buffer:
            return True
        try:
            self._buffer = self._receive(time.monotonic() + seconds)
        except TimeoutError:
            return False
        except OSError:  # reset by the server
            return True
        return True

    def lines_within(self, number: int, seconds: float) -> Steps[bytes]:
        """What the server has said and nobody has read, when it is so many lines or the time is over.

        In steps. It stays unread; see skip(). That the connection was lost, whoever reads it finds out.
        """
        until = time.monotonic() + seconds
        self._event = select.POLLIN
        waits = not self.secure  # what TLS has read ahead, nobody would be told of
        while self._buffer.count(b"\n") < number and len(self._buffer) < number * LONGEST_LINE:
            if waits:
                yield Waiting(self._socket.fileno(), self._event, until)
            try:
                received = self._receive_now()
            except OSError:
                break
            self._buffer += received or b""
            if received == b"" or time.monotonic() >= until:
                break
            waits = received is None or not self.secure
        return self._buffer

    def skip(self, octets: int) -> None:
        """So much of what the server has said is read."""
        self._buffer = self._buffer[octets:]

    def _receive(self, deadline: float) -> bytes:
        """What has come; b"" at the end of the connection."""
        while (received := self._receive_now()) is None:
            self._wait(deadline)
        return received

    def _receive_now(self) -> bytes | None:
        """The same without waiting; None: nothing has come yet."""
        try:
            return self._socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            self._event = select.POLLIN
        except ssl.SSLWantWriteError:
            self._event = select.POLLOUT
        return None

    def _wait(self, deadline: float) -> None:
        """Wait for what the last step could not do without."""
        left = deadline - time.monotonic()
        if left <= 0 or not self._polls[self._event].poll(left * 1000):
            raise TimeoutError("timed out")

    def close(self) -> None:
        """Close the connection at once."""
        self._socket.close()


def _over_tcp(host: str, port: int, timeout: float, source: str | None) -> socket.socket:
    own_end = (source, 0) if source else None
    made = socket.create_connection((host, port), timeout, own_end)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def _on_this_host(path: str, timeout: float) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(timeout)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made

"""The lines of an SMTP dialogue: a socket, commands, replies, deadlines.

What the replies mean is none of its business. A reply that is not one (RFC 5321 section 4.2)
comes back with code 0, so that it can be classified like any other answer.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from dataclasses import dataclass

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


class Wire:
    """A connection that speaks in SMTP lines.

    Args:
        host: name or address of the server.
        port: its port.
        timeout: seconds for making the connection.

    Raises:
        OSError: the connection failed.
    """

    def __init__(self, host: str, port: int, *, timeout: float):
        self._socket: socket.socket = socket.create_connection((host, port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = host
        self._buffer = b""

    @property
    def secure(self) -> bool:
        """Whether the connection is under TLS."""
        return isinstance(self._socket, ssl.SSLSocket)

    @property
    def local_address(self) -> str:
        """This end's address as a literal for EHLO (RFC 5321 section 4.1.3)."""
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

    def send(self, data: bytes, timeout: float) -> None:
        """Send octets as they are.

        Raises:
            OSError: the connection is lost, or `timeout` seconds went by.
        """
        self._socket.settimeout(timeout)
        self._socket.sendall(data)

    def command(self, line: str, timeout: float) -> Reply:
        """Send one command and read its reply.

        Args:
            line: the command, without its line end. Must not contain one.
            timeout: seconds until the whole reply must be here.

        Raises:
            OSError: the connection is lost, or the time is over, or the server had said something
                already, which would be taken for the reply to this command.
            ValueError: the command holds a line break or another control character; nothing was sent.
        """
        if _CONTROL_CHARACTER.search(line):
            raise ValueError("an SMTP command cannot contain a line break or control character")
        octets = line.encode("utf-8") + b"\r\n"
        if self.has_unread():
            said = self._buffer[:200].decode("utf-8", "replace")
            raise ConnectionAbortedError(f"the server spoke or closed before it was asked: {said}")
        self.send(octets, timeout)
        return self.read_reply(timeout)

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
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left)
            received = self._socket.recv(65536)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.rstrip(b"\r")

    def has_unread(self) -> bool:
        """Whether the server said something nobody asked for, or closed the connection."""
        if self._buffer:
            return True
        self._socket.settimeout(0)
        try:
            self._buffer = self._socket.recv(65536)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:  # reset by the server
            return True
        return True

    def close(self) -> None:
        """Close the connection at once."""
        self._socket.close()

"""A minimal client that pipelines as far as RFC 2920 allows: one round trip for each message.

The text of a message and the next one's MAIL, RCPT and DATA go out in one write. Every reply is
read and looked at; there is no TLS, no login and no second try.
Option: connections.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterable, Iterator

import messages

from .base import Raw

Ready = tuple[str, bytes]


class Adapter(Raw):
    """The limit of what several connections can do."""

    def drain(self) -> None:
        waiting: queue.SimpleQueue[Ready] = queue.SimpleQueue()
        for one in self.ready:
            waiting.put(one)
        failures: list[Exception] = []
        threads = [
            threading.Thread(target=self._work, args=(waiting, failures))
            for _ in range(int(self.options["connections"]))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _work(self, waiting: queue.SimpleQueue[Ready], failures: list[Exception]) -> None:
        try:
            Connection(self.host, self.port).send(_taken(waiting))
        except Exception as error:  # noqa: BLE001 - drain() raises it
            failures.append(error)


def _taken(waiting: queue.SimpleQueue[Ready]) -> Iterator[Ready]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return


class Connection:
    """One connection to the server."""

    def __init__(self, host: str, port: int):
        self._socket = socket.create_connection((host, port), 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._expect(b"2")
        self._socket.sendall(b"EHLO bench.test\r\n")
        self._expect(b"2")

    def send(self, ready: Iterable[Ready]) -> None:
        """Send the messages, then say goodbye."""
        under_way = b""
        for address, wire in ready:
            self._socket.sendall(under_way + _envelope(address))
            if under_way:
                self._expect(b"2")
            for first in (b"2", b"2", b"3"):
                self._expect(first)
            under_way = _stuffed(wire)
        self._socket.sendall(under_way + b"QUIT\r\n")
        for _ in range(2 if under_way else 1):
            self._expect(b"2")
        self._lines.close()
        self._socket.close()

    def _expect(self, first: bytes) -> None:
        line = self._lines.readline()
        while line[3:4] == b"-":
            line = self._lines.readline()
        if line[:1] != first:
            raise ConnectionError(f"expected a reply {first.decode()}xx, got {line!r}")


def _envelope(address: str) -> bytes:
    return f"MAIL FROM:<{messages.SENDER_ADDRESS}>\r\nRCPT TO:<{address}>\r\nDATA\r\n".encode()


def _stuffed(wire: bytes) -> bytes:
    """With dots doubled and the final one; the lines end in CR LF."""
    return wire.replace(b"\r\n.", b"\r\n..") + b".\r\n"

"""A real SMTP server on 127.0.0.1 that does, at any stage, whatever a test asks of it.

    with ScriptedServer() as server:
        server.script["rcpt"] = {"bad@x.test": Reply(550, "5.1.1 no such user")}
        ...                                      # talk to server.host, server.port
        server.script.clear()                    # repaired
        server.wait_for(1)

A stage of the script holds a fault, a mapping from address to fault (`mail` and `rcpt`), or a function
`(session, line) -> fault or None`; `nth()` makes one. Without a fault the server is a decent one: strict
line ends (RFC 5321 section 2.3.8), PIPELINING, SIZE, SMTPUTF8, STARTTLS, AUTH.
"""

from __future__ import annotations

import contextlib
import email
import email.policy
import itertools
import os
import random
import socket
import ssl
import threading
from collections import Counter, UserDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

from .certificates import Certificate
from .smtp_faults import Close, Fault, Hang, Raw, Reply, Reset, Step, nth
from .smtp_session import Session

__all__ = [
    "Close",
    "Fault",
    "Hang",
    "Raw",
    "Received",
    "Reply",
    "Reset",
    "ScriptedServer",
    "Session",
    "free_port",
    "nth",
    "refused_port",
]

STAGES = ("banner", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "text", "dot", "rset", "quit")
EXTENSIONS = ("PIPELINING", "8BITMIME", "SIZE", "SMTPUTF8", "ENHANCEDSTATUSCODES")


@dataclass(frozen=True)
class Received:
    """A message the server took the responsibility for; `data` is without dot-stuffing."""

    mail_from: str
    rcpt_tos: tuple[str, ...]
    data: bytes
    tls: bool
    user: str | None
    mail_parameters: tuple[str, ...] = ()
    connection: int = 1

    def parsed(self) -> EmailMessage:
        return email.message_from_bytes(self.data, policy=email.policy.default)


class Script(UserDict[str, Step]):
    """Stage -> fault; a stage that does not exist is a mistake in the test."""

    def __setitem__(self, stage: str, step: Step) -> None:
        if stage not in STAGES:
            raise KeyError(f"no such stage: {stage!r}; there are {STAGES}")
        super().__setitem__(stage, step)


class ScriptedServer:
    """The server, from `start()` to `stop()`, or as a context manager; may start again on its port.

    Args:
        tls: "none", "starttls" or "implicit".
        certificate: shown in the handshake; needed unless tls is "none".
        auth: the password of each user who may log in; None means that AUTH is not offered. With
            "starttls" AUTH is offered behind TLS only.
        mechanisms: the AUTH mechanisms offered.
        extensions: the EHLO keywords offered, out of EXTENSIONS; by default `offered`, which is all.
        size_limit: bytes, for SIZE.
        port: 0 for any free one.
        path: of a socket on this host, to listen on instead of a port.
        script: the faults to start with, by stage.
    """

    host = "127.0.0.1"
    offered = EXTENSIONS

    def __init__(
        self,
        *,
        tls: str = "none",
        certificate: Certificate | None = None,
        auth: Mapping[str, str] | None = None,
        mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5"),
        extensions: tuple[str, ...] | None = None,
        size_limit: int = 10_000_000,
        port: int = 0,
        path: str | None = None,
        script: Mapping[str, Step] | None = None,
    ) -> None:
        if tls not in ("none", "starttls", "implicit") or (tls != "none" and certificate is None):
            raise ValueError(f"tls={tls!r} with certificate={certificate!r}")
        self.tls, self.auth, self.mechanisms = tls, auth, mechanisms
        self.extensions = self.offered if extensions is None else extensions
        self.size_limit, self.port, self.path = size_limit, port, path
        self.context: ssl.SSLContext | None = certificate.server_context() if certificate else None
        self.script = Script(script or {})
        self.messages: list[Received] = []
        self.sessions: list[Session] = []
        self.commands: list[str] = []
        self.reached = Counter[str]()  # how often each stage was reached
        self.pipelined = 0  # how many commands had more behind them before they were answered
        self._changed = threading.Condition()
        self._gate = threading.Event()
        self._running = False
        self._threads: list[threading.Thread] = []

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return len(self.sessions)

    def __enter__(self) -> ScriptedServer:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        self._listener = self._listen()
        self._running = True
        self._spawn(self._accept)

    def _listen(self) -> socket.socket:
        if self.path:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.path)
            listener.listen()
            return listener
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.create_server((self.host, self.port), family=family)
        self.port = listener.getsockname()[1]
        return listener

    def _knock(self) -> None:
        if self.path:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(self.path)
        else:
            socket.create_connection((self.host, self.port), timeout=5).close()

    def stop(self) -> None:
        """Close the port and every connection; wait until all threads are gone."""
        if not self._running:
            return
        self._running = False
        self.release()
        with contextlib.suppress(OSError):  # wakes accept(), which would not notice a close
            self._knock()
        self._threads[0].join(timeout=5)
        for session in self.sessions:
            session.cut()
        for thread in self._threads:
            thread.join(timeout=5)
            assert not thread.is_alive(), "a session of the scripted server does not end"
        self._threads.clear()

    def release(self) -> None:
        """Let every session that hangs now go on as if there had been no fault."""
        with self._changed:
            gate, self._gate = self._gate, threading.Event()
        gate.set()

    def wait_for(self, count: int, timeout: float = 10.0) -> list[Received]:
        """The messages, as soon as there are `count` of them; `timeout` in seconds."""
        self._wait(lambda: len(self.messages) >= count, f"{count} messages", timeout)
        return list(self.messages)

    def wait_for_stage(self, stage: str, count: int = 1, timeout: float = 10.0) -> None:
        """Return as soon as `stage` was reached `count` times; `timeout` in seconds."""
        self._wait(lambda: self.reached[stage] >= count, f"{stage} {count} times", timeout)

    def _wait(self, condition: Callable[[], bool], wanted: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                seen = f"{len(self.messages)} messages, {self.connections} connections, {self.commands}"
                raise AssertionError(f"waited {timeout} s for {wanted}; seen: {seen}")

    # --- what the sessions call ------------------------------------------------------------
    def note(self, **happened: Any) -> None:
        """Put on record a message, a command, a stage; wake whoever waits for it."""
        with self._changed:
            if "message" in happened:
                self.messages.append(Received(**happened["message"]))
            if "command" in happened:
                self.commands.append(happened["command"])
                self.pipelined += happened["pipelined"]
            self.reached.update([happened["stage"]] if "stage" in happened else [])
            self._changed.notify_all()

    def hang(self) -> None:
        """Block until `release()`; ConnectionAbortedError if it came from `stop()`."""
        with self._changed:
            gate = self._gate
        if self._running:
            gate.wait()
        if not self._running:
            raise ConnectionAbortedError("the server stops")

    # --- threads ---------------------------------------------------------------------------
    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=f"smtp-{self.port}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while True:
                connection, _address = self._listener.accept()
                if connection.family != socket.AF_UNIX:  # or short replies wait 40 ms for the client's ACK
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if not self._running:
                    connection.close()
                    return
                session = Session(self, connection, self.connections + 1)
                self.sessions.append(session)
                self._spawn(session.run)


_PORTS = 4000  # of each process of pytest-xdist
_ports = itertools.count(random.randrange(_PORTS))


def free_port() -> int:
    """A free port that nobody takes before the caller does.

    It is below those that the system gives out by itself, and in a range of this test process's own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    lowest = 12_000 + _PORTS * (worker % 5)
    while True:
        port = lowest + next(_ports) % _PORTS
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield int(bound.getsockname()[1])

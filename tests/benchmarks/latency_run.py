"""Times messages from commit to DATA: python latency_run.py SPEC.json.

A server of its own notes when it is told DATA; a worker serves the queue in a process of its own;
messages are sent one by one, at odd moments, so that each one finds the worker idle.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import messages
from adapters.ours import Adapter

AT_MOST = 20.0  # seconds for one message


class NotingServer:
    """An SMTP server, in a thread, that notes when DATA came for which recipient."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._news = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def when(self, recipient: str) -> float:
        """When DATA came for it, by time.monotonic(); waits for it.

        Raises:
            TimeoutError: it does not come.
        """
        with self._news:
            if not self._news.wait_for(lambda: recipient in self._seen, AT_MOST):
                raise TimeoutError(f"the message to {recipient} did not come")
            return self._seen[recipient]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 noting\r\n")
        recipient = ""
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"RCPT":
                recipient = line.decode().partition("<")[2].partition(">")[0]
            if verb == b"DATA":
                self._note(recipient)
                writer.write(b"354 go on\r\n")
                while await reader.readline() != b".\r\n":
                    pass
            writer.write(b"250-noting\r\n250 PIPELINING\r\n" if verb == b"EHLO" else b"250 fine\r\n")
            await writer.drain()
        writer.close()

    def _note(self, recipient: str) -> None:
        now = time.monotonic()
        with self._news:
            self._seen[recipient] = now
            self._news.notify_all()


def latencies(adapter: Adapter, server: NotingServer, n: int) -> list[float]:
    """Milliseconds from the commit's return to DATA, for each message."""
    rng = random.Random(1)
    found = []
    for number in range(n):
        adapter.send(number)  # commits
        committed = time.monotonic()
        found.append((server.when(messages.make(number)["to"]) - committed) * 1000)
        time.sleep(rng.uniform(0.1, 0.5))
    return found


def idle_cpu(pid: int, seconds: float) -> float:
    """What a process uses of one CPU, in percent."""
    before = _cpu_seconds(pid)
    time.sleep(seconds)
    return (_cpu_seconds(pid) - before) / seconds * 100


def _cpu_seconds(pid: int) -> float:
    numbers = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, numbers[11:13])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure what the specification says."""
    spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    server = NotingServer()
    adapter = Adapter(spec["url"], "127.0.0.1", server.port, {}, Path(spec["folder"]))
    worker = subprocess.Popen([sys.executable, "serve.py", spec["url"], str(server.port), spec["folder"]])
    try:
        latencies(adapter, server, 1)  # not counted: the worker is only starting
        figures = {
            "latencies": latencies(adapter, server, spec["n"]),
            "idle_cpu": idle_cpu(worker.pid, spec["idle"]),
        }
    finally:
        worker.send_signal(signal.SIGTERM)
        code = worker.wait(30)
    if code:
        raise RuntimeError(f"the worker ended with exit code {code}")
    Path(spec["out"]).write_text(json.dumps(figures), encoding="utf-8")


main()

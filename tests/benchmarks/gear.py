"""What stands ready while the benchmark measures: sinks, networks, databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import services
from contenders import NO_DATABASE


@dataclass
class Gear:
    """All of it.

    Args:
        folder: of the benchmark.
        sink: the one that everybody sends to.
        ways: round-trip time, ms -> the port that leads to the sink.
        databases: name -> server.
        redis: for Celery.
    """

    folder: Path
    sink: services.Sink
    ways: dict[int, int]
    databases: dict[str, services.Database]
    redis: services.Redis

    @contextmanager
    def database(self, kind: str, name: str) -> Iterator[str]:
        """The URL of an empty database that is gone afterwards; "" for NO_DATABASE."""
        if kind == NO_DATABASE:
            yield ""
            return
        try:
            yield self.databases[kind].fresh(name)
        finally:
            self.databases[kind].drop(name)

    def database_cpu(self, kind: str) -> float:
        """Seconds of CPU time that the database server has used so far."""
        return self.databases[kind].cpu_seconds() if kind != NO_DATABASE else 0.0


@contextmanager
def gear(folder: Path, databases: tuple[str, ...], rtts: tuple[int, ...]) -> Iterator[Gear]:
    """Start everything, and end it.

    Args:
        folder: of the benchmark.
        databases: names of those wanted.
        rtts: milliseconds; 0 is always there.

    Raises:
        lab.Missing: something is not on this machine.
    """
    with ExitStack() as stack:
        sink = stack.enter_context(closing(services.Sink(folder)))
        ways = {0: sink.port}
        for rtt in filter(None, rtts):
            ways[rtt] = stack.enter_context(closing(services.FarSink(sink, rtt))).port
        servers = {name: stack.enter_context(closing(services.DATABASES[name](folder))) for name in databases}
        redis = stack.enter_context(closing(services.Redis(folder)))
        yield Gear(folder, sink, ways, servers, redis)

"""Enqueueing and draining, contender beside contender: the same cells again and again, shuffled."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass

import services
from children import Child, Failed
from contenders import Cell, cells
from gear import Gear
from options import Plan

TIMEOUT = 900.0  # seconds for one cell


@dataclass(frozen=True)
class Measured:
    """What one cell brought in one round; times in milliseconds for each message.

    Args:
        rate: messages for each second of the drain.
        connections: to the sink, during the drain.
        database_cpu: of the database server, during the drain.
        error: why the rest is not to be used; "" where it is.
    """

    contender: str
    database: str
    rtt: int
    round: int
    n: int
    rate: float = 0.0
    enqueue: float = 0.0
    enqueue_cpu: float = 0.0
    drain_cpu: float = 0.0
    sink_cpu: float = 0.0
    database_cpu: float = 0.0
    connections: int = 0
    memory_mb: float = 0.0
    error: str = ""


def measure(gear: Gear, plan: Plan, databases: tuple[str, ...]) -> list[Measured]:
    """Measure every cell in every round, in an order that is different each time."""
    rng, begun = random.Random(1), time.monotonic()
    found = []
    for turn in range(plan.reps):
        todo = cells(plan, databases)
        rng.shuffle(todo)
        for place, cell in enumerate(todo, 1):
            measured = one(gear, cell, turn)
            found.append(measured)
            done = f"[{time.monotonic() - begun:5.0f} s] round {turn + 1}, {place}/{len(todo)}"
            _tell(done, measured)
    return found


def _tell(done: str, measured: Measured) -> None:
    brought = measured.error or f"{measured.rate:8.1f} msg/s, enqueue {measured.enqueue:.2f} ms"
    where = f"{measured.contender:40} {measured.database:10} RTT {measured.rtt:<2}"
    print(f"{done:30} {where} {brought}", file=sys.stderr, flush=True)


def one(gear: Gear, cell: Cell, turn: int) -> Measured:
    """Measure a cell once."""
    place = {"contender": cell.contender.name, "database": cell.database, "rtt": cell.rtt}
    try:
        return Measured(**place, round=turn, n=cell.n, **_figures(gear, cell))
    except Failed as error:
        return Measured(**place, round=turn, n=cell.n, error=str(error))


def _figures(gear: Gear, cell: Cell) -> dict[str, float]:
    with gear.database(cell.database, "bench") as url, _child(gear, cell, url) as child:
        mark = child.folder / "mark"
        child.wait_for(mark.exists, TIMEOUT)
        before, sink_cpu = gear.sink.counts(), services.cpu_seconds(gear.sink.pid)
        database_cpu = gear.database_cpu(cell.database)
        mark.unlink()
        told = child.figures(TIMEOUT)
        connections, sent = _counted(gear.sink, before, cell.n)
        if sent != cell.n:
            raise Failed(f"the sink got {sent} messages of {cell.n}")
        milliseconds = 1000.0 / cell.n
        return {
            "rate": cell.n / told["drain"],
            "enqueue": told["enqueue"] * milliseconds,
            "enqueue_cpu": told["enqueue_cpu"] * milliseconds,
            "drain_cpu": told["drain_cpu"] * milliseconds,
            "sink_cpu": (services.cpu_seconds(gear.sink.pid) - sink_cpu) * milliseconds,
            "database_cpu": (gear.database_cpu(cell.database) - database_cpu) * milliseconds,
            "connections": connections,
            "memory_mb": told["memory"] / 1e6,
        }


def _child(gear: Gear, cell: Cell, url: str) -> Child:
    spec = {
        "adapter": cell.contender.adapter,
        "options": cell.contender.options,
        "url": url,
        "port": gear.ways[cell.rtt],
        "n": cell.n,
    }
    variables = {"BENCH_SINK_LOG": str(gear.sink.log), "BENCH_REDIS": gear.redis.url}
    return Child(gear.folder, cell.contender.environment, "cell.py", spec, **variables)


def _counted(sink: services.Sink, before: tuple[int, int], n: int) -> tuple[int, int]:
    """Connections and messages since; the sink may be a little behind with its counting."""
    for _ in range(100):
        connections, sent = sink.counts()
        if sent - before[1] >= n:
            break
        time.sleep(0.02)
    return connections - before[0], sent - before[1]

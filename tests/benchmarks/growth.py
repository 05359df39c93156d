"""What a claim costs as history and backlog grow, and how much memory a worker needs for a long queue."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from typing import Any

import children
from gear import Gear

HISTORY, BACKLOG = "history", "backlog"


@dataclass(frozen=True)
class Growth:
    """What was found on one database.

    Args:
        kind: what there was much of, HISTORY or BACKLOG.
        sizes: the few and the many.
        small: milliseconds for a claim among the few.
        large: among the many.
        ratio: the median of the ratios of one claim among the many to the one beside it.
        memory_mb: the worker's peak in the first seconds of draining the many; of a BACKLOG alone.
        bite: milliseconds that retention took for one bite of the many, the median; of HISTORY alone.
        longest_bite: and the longest.
        queueing: milliseconds for an enqueue, p95, beside a worker that finds nothing to delete.
        queueing_beside: and beside one that finds much.
        error: why the rest is not to be used.
    """

    database: str
    kind: str
    sizes: tuple[int, int]
    small: float = 0.0
    large: float = 0.0
    ratio: float = 0.0
    memory_mb: float | None = None
    bite: float | None = None
    longest_bite: float | None = None
    queueing: float | None = None
    queueing_beside: float | None = None
    error: str = ""


def measure(gear: Gear, sizes: tuple[int, int]) -> list[Growth]:
    """Measure on every database, with much of either."""
    found = []
    for database in gear.databases:
        for kind in (HISTORY, BACKLOG):
            try:
                found.append(_one(gear, database, kind, sizes))
            except children.Failed as error:
                found.append(Growth(database, kind, sizes, error=str(error)))
            print(found[-1], file=sys.stderr, flush=True)
    return found


def _one(gear: Gear, database: str, kind: str, sizes: tuple[int, int]) -> Growth:
    server = gear.databases[database]
    with gear.database(database, "few") as few, gear.database(database, "many") as many:
        spec = {"port": gear.ways[0], "kind": kind, "urls": [few, many]}
        for url, size in zip((few, many), sizes, strict=True):
            children.figures(gear.folder, "growth_run.py", {**spec, "do": "fill", "url": url, "size": size})
        server.settle("few")
        server.settle("many")
        claims = children.figures(gear.folder, "growth_run.py", {**spec, "do": "claim"})["claims"]
        further = _of_backlog if kind == BACKLOG else _of_history
        found = further(gear, {**spec, "url": many})
    return Growth(
        database,
        kind,
        sizes,
        small=statistics.median(small for small, _ in claims),
        large=statistics.median(large for _, large in claims),
        ratio=statistics.median(large / small for small, large in claims),
        **found,
    )


def _of_backlog(gear: Gear, spec: dict[str, Any]) -> dict[str, float]:
    drained = children.figures(gear.folder, "growth_run.py", {**spec, "do": "drain"})
    return {"memory_mb": drained["memory"] / 1e6}


def _of_history(gear: Gear, spec: dict[str, Any]) -> dict[str, float]:
    purged = children.figures(gear.folder, "growth_run.py", {**spec, "do": "retention"})
    return {
        "bite": statistics.median(purged["bites"]),
        "longest_bite": max(purged["bites"]),
        "queueing": statistics.quantiles(purged["without"], n=20)[-1],
        "queueing_beside": statistics.quantiles(purged["beside"], n=20)[-1],
    }

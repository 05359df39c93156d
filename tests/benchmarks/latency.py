"""How long it takes from a commit until the mail server is told DATA, and what an idle worker costs."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass

import children
from gear import Gear
from options import Plan


@dataclass(frozen=True)
class Latency:
    """What was found on one database.

    Args:
        p50: milliseconds.
        p95: milliseconds.
        idle_cpu: of a worker with nothing to do, in percent of one CPU.
        error: why the rest is not to be used.
    """

    database: str
    p50: float = 0.0
    p95: float = 0.0
    idle_cpu: float = 0.0
    error: str = ""


def measure(gear: Gear, plan: Plan) -> list[Latency]:
    """Measure on every database."""
    found = []
    for database in gear.databases:
        try:
            found.append(_one(gear, database, plan))
        except children.Failed as error:
            found.append(Latency(database, error=str(error)))
        print(found[-1], file=sys.stderr, flush=True)
    return found


def _one(gear: Gear, database: str, plan: Plan) -> Latency:
    with gear.database(database, "latency") as url:
        spec = {"url": url, "n": plan.latencies, "idle": plan.idle}
        told = children.figures(gear.folder, "latency_run.py", spec)
    hundredths = statistics.quantiles(told["latencies"], n=100, method="inclusive")
    return Latency(database, p50=hundredths[49], p95=hundredths[94], idle_cpu=told["idle_cpu"])

"""What can be asked of the benchmark, and how much of it a short and a full run do."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

SQLITE, SQLITE_WAL, POSTGRES, MARIADB = "sqlite", "sqlite-wal", "postgres", "mariadb"
DATABASES = (SQLITE, SQLITE_WAL, POSTGRES, MARIADB)
PARTS = ("verify", "composing", "latency", "growth", "drains")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        n: messages of a drain at RTT 0.
        reps: times that every cell is measured.
        rtts: network round-trip times, milliseconds.
        sizes: rows of history or backlog between which the cost of a claim is compared.
        latencies: messages timed from commit to DATA.
        idle: seconds for which an idle worker is watched.
    """

    n: int
    reps: int
    rtts: tuple[int, ...]
    sizes: tuple[int, int]
    latencies: int
    idle: float


QUICK = Plan(n=500, reps=3, rtts=(0,), sizes=(10_000, 100_000), latencies=30, idle=5.0)
FULL = Plan(n=2000, reps=5, rtts=(0, 10, 50), sizes=(10_000, 1_000_000), latencies=200, idle=30.0)


def _words(allowed: tuple[str, ...]) -> type:
    def parse(text: str) -> tuple[str, ...]:
        words = tuple(text.split(","))
        for word in words:
            if word not in allowed:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(allowed)}")
        return words

    return parse  # type: ignore[return-value]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, with `plan` among them."""
    parser = argparse.ArgumentParser(description="Measure mailqueue and its peers side by side.")
    parser.add_argument("--quick", action="store_true", help="a short run: fewer messages, RTT 0, 3 rounds")
    parser.add_argument(
        "--databases", type=_words(DATABASES), default=DATABASES, help="comma list of " + ", ".join(DATABASES)
    )
    parser.add_argument(
        "--parts", type=_words(PARTS), default=PARTS, help="comma list of " + ", ".join(PARTS)
    )
    parser.add_argument("--spin", action="store_true", help="keep idle CPUs busy; see README.md")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(
            os.environ.get("MAILQUEUE_BENCHMARK", Path(tempfile.gettempdir(), "mailqueue-benchmark"))
        ),
        help="where environments, databases and results go; $MAILQUEUE_BENCHMARK (%(default)s)",
    )
    options = parser.parse_args(arguments)
    options.folder = options.folder.absolute()
    options.plan = QUICK if options.quick else FULL
    return options

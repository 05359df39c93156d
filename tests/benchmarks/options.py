"""What can be asked of the benchmark, and how much of it a short and a full run do."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

SQLITE, SQLITE_WAL, POSTGRES, MARIADB = "sqlite", "sqlite-wal", "postgres", "mariadb"
DATABASES = (SQLITE, SQLITE_WAL, POSTGRES, MARIADB)
MOST_SEEDED = 1000  # messages that growth queues and sends the proper way before it copies them
PARTS = ("verify", "composing", "latency", "growth", "console", "drains")


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Args:
        n: messages of a drain at RTT 0.
        reps: times that every cell is measured.
        rtts: network round-trip times, milliseconds.
        sizes: rows of history or backlog between which the cost of a claim, and of a page, is compared.
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


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no comma list of numbers") from None
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError("a round-trip time is not negative")
    return numbers


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def _sizes(text: str) -> tuple[int, int]:
    try:
        few, many = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not FEW,MANY") from None
    if not MOST_SEEDED <= few < many:
        raise argparse.ArgumentTypeError(f"expected {MOST_SEEDED} <= FEW < MANY")
    return few, many


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
    parser.add_argument("--rounds", type=_rounds, help="how often every cell of the drains is measured")
    parser.add_argument("--rtts", type=_numbers, metavar="MS,…", help="round-trip times of the drains, ms")
    parser.add_argument(
        "--sizes", type=_sizes, metavar="FEW,MANY", help="rows for growth, such as 10000,10000000"
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
    plan = QUICK if options.quick else FULL
    wanted = {"reps": options.rounds, "rtts": options.rtts, "sizes": options.sizes}
    options.plan = replace(plan, **{name: value for name, value in wanted.items() if value})
    return options

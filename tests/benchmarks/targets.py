"""The targets, and whether what was measured meets them. Ratios are medians over the rounds.

A ratio compares two contenders within the same round, so that what the machine does meanwhile
meets both.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from console import Page
from contenders import (
    DJANGO_MAILER,
    FLOOR,
    NO_DATABASE,
    OURS,
    OURS_10,
    OURS_50,
    POST_OFFICE,
    RAW,
    THREADS_10,
    THREADS_50,
    TUNED,
)
from drains import Measured
from growth import Growth
from latency import Latency
from options import POSTGRES, SQLITE, SQLITE_WAL

LARGEST_COMPOSING = 0.3  # milliseconds
LARGEST_GROWTH = 1.2
LARGEST_MEMORY = 100.0  # MB
LARGEST_PAGE = 200.0  # milliseconds
LARGEST_LATENCY = 100.0  # milliseconds
LARGEST_IDLE = 1.0  # percent of one CPU
LARGEST_ENQUEUE = 0.6
# SQLite's default journal: how much longer than a single insert's an enqueue may wait for the disk.
LARGEST_WAIT = 1.2

# at RTT 0, and over a far network: ours, the other, at least so many times as fast
_NEAR = ((OURS, RAW, 2.5), (OURS, TUNED, 10.0), (OURS, DJANGO_MAILER, 25.0))
_FAR = ((OURS_10, THREADS_10, 4.0), (OURS_10, DJANGO_MAILER, 60.0), (OURS_50, THREADS_50, 6.0))


@dataclass(frozen=True)
class Verdict:
    """One target: what it is about, the bound, what was measured.

    Args:
        values: what was measured, in each round; none where it could not be, which does not meet it.
        at_most: whether the bound is an upper one.
    """

    what: str
    values: tuple[float, ...]
    bound: float
    unit: str
    at_most: bool

    @property
    def measured(self) -> float | None:
        """The median, which is judged."""
        return statistics.median(self.values) if self.values else None

    @property
    def met(self) -> bool:
        """Whether it is met."""
        if self.measured is None:
            return False
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


def ratios(
    rows: Sequence[Measured],
    ours: str,
    other: str,
    figure: Callable[[Measured], float],
    *,
    database: str,
    rtt: int,
) -> tuple[float, ...]:
    """Our figure divided by the other's, in each round that has both."""
    good = [row for row in rows if row.rtt == rtt and not row.error]
    by_round = {
        row.round: figure(row)
        for row in good
        if row.contender == other and row.database in (database, NO_DATABASE)
    }
    return tuple(
        figure(row) / by_round[row.round]
        for row in good
        if row.contender == ours and row.database == database and by_round.get(row.round)
    )


def of_drains(rows: Sequence[Measured]) -> Iterator[Verdict]:
    """The targets of draining and enqueueing, on what was measured of them."""
    for rtt, database in sorted({(row.rtt, row.database) for row in rows if row.database != NO_DATABASE}):
        for ours, other, bound in _FAR if rtt else _NEAR:
            found = ratios(rows, ours, other, lambda row: row.rate, database=database, rtt=rtt)
            yield Verdict(f"drain, RTT {rtt}, {database}: {ours} / {other}", found, bound, "x", False)
    databases = {row.database for row in rows if row.rtt == 0}
    for database, (what, other, figure, bound) in _ENQUEUE.items():
        if database in databases:
            found = ratios(rows, OURS, other, figure, database=database, rtt=0)
            yield Verdict(f"enqueue, {database}: {what} / {other}", found, bound, "x", True)


def _waiting(row: Measured) -> float:
    return row.enqueue - row.enqueue_cpu


_ENQUEUE: dict[str, tuple[str, str, Callable[[Measured], float], float]] = {
    SQLITE: ("waiting for the disk", FLOOR, _waiting, LARGEST_WAIT),
    SQLITE_WAL: ("time", POST_OFFICE, lambda row: row.enqueue, LARGEST_ENQUEUE),
    POSTGRES: ("client CPU", POST_OFFICE, lambda row: row.enqueue_cpu, LARGEST_ENQUEUE),
}


def of_composing(figures: dict[str, float]) -> Iterator[Verdict]:
    """The target of composing alone."""
    yield Verdict("composing a message", (figures["mailqueue"],), LARGEST_COMPOSING, " ms", True)


def of_growth(rows: Sequence[Growth]) -> Iterator[Verdict]:
    """The targets of growth."""
    for row in rows:
        few, many = (f"{size:,}" for size in row.sizes)
        ratio = () if row.error else (row.ratio,)
        yield Verdict(
            f"claim, {row.database}: {row.kind} of {many} / {few}", ratio, LARGEST_GROWTH, "x", True
        )
        if row.memory_mb is not None:
            what = f"worker memory, {row.database}: {many} due"
            yield Verdict(what, (row.memory_mb,), LARGEST_MEMORY, " MB", True)


def of_console(rows: Sequence[Page]) -> Iterator[Verdict]:
    """The targets of the administrator's pages on a long history."""
    for row in rows:
        taken = () if row.error else (row.large,)
        what = f"page, {row.database}: {row.name}, {row.sizes[1]:,} messages"
        yield Verdict(what, taken, LARGEST_PAGE, " ms", True)


def of_latency(rows: Sequence[Latency]) -> Iterator[Verdict]:
    """The targets of a worker that waits for work."""
    for row in rows:
        p95, idle = ((), ()) if row.error else ((row.p95,), (row.idle_cpu,))
        yield Verdict(f"commit to DATA, p95, {row.database}", p95, LARGEST_LATENCY, " ms", True)
        yield Verdict(f"worker's CPU while idle, {row.database}", idle, LARGEST_IDLE, " %", True)

"""The tables that people read."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from drains import Measured
from targets import Verdict

_COLUMNS: tuple[tuple[str, Callable[[Measured], float]], ...] = (
    ("enqueue ms", lambda row: row.enqueue),
    ("its CPU", lambda row: row.enqueue_cpu),
    ("msg/s", lambda row: row.rate),
    ("CPU ms", lambda row: row.drain_cpu),
    ("database ms", lambda row: row.database_cpu),
    ("sink ms", lambda row: row.sink_cpu),
    ("connections", lambda row: row.connections),
    ("memory MB", lambda row: row.memory_mb),
)


def of_drains(rows: Sequence[Measured]) -> Iterator[str]:
    """The medians of every cell: times of the enqueue and CPU times of the drain for each message."""
    for rtt, database in sorted({(row.rtt, row.database) for row in rows}):
        here = [row for row in rows if (row.rtt, row.database) == (rtt, database)]
        names = "".join(f"{name:>12}" for name, _ in _COLUMNS)
        yield f"\nRTT {rtt} ms, database {database}\n{'':40}{'n':>6}{names}  [slowest..fastest]"
        yield from (_line(name, here) for name in dict.fromkeys(row.contender for row in here))


def _line(name: str, rows: Sequence[Measured]) -> str:
    own = [row for row in rows if row.contender == name]
    good = [row for row in own if not row.error]
    failed = f"  {len(own) - len(good)} of {len(own)} failed" if len(good) < len(own) else ""
    if not good:
        return f"{name:40}{failed}"
    medians = "".join(f"{statistics.median(map(figure, good)):12.3f}" for _, figure in _COLUMNS)
    rates = sorted(row.rate for row in good)
    return f"{name:40}{good[0].n:6}{medians}  [{rates[0]:.0f}..{rates[-1]:.0f}]{failed}"


def of_others(results: dict[str, Any]) -> Iterator[str]:
    """What was found besides the drains, one line each."""
    for part in ("composing", "latency", "growth", "console"):
        found = results.get(part, [])
        for one in found if isinstance(found, list) else [found]:
            figures = ", ".join(
                f"{name} {_shown(value)}" for name, value in one.items() if value not in (None, "")
            )
            yield f"{part}: {figures}"


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def of_verdicts(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """A line for each target."""
    yield f"\n{'target':80}{'bound':>10}{'measured':>12}  met [lowest..highest round]"
    for verdict in verdicts:
        bound = f"{'<=' if verdict.at_most else '>='} {verdict.bound:g}{verdict.unit}"
        measured = "-" if verdict.measured is None else f"{verdict.measured:.3g}{verdict.unit}"
        several = len(verdict.values) > 1
        spread = f"[{min(verdict.values):.3g}..{max(verdict.values):.3g}]" if several else ""
        yield f"{verdict.what:80}{bound:>10}{measured:>12}  {'yes' if verdict.met else 'NO ':3} {spread}"
    met = sum(verdict.met for verdict in verdicts)
    yield f"{met} of {len(verdicts)} targets are met"

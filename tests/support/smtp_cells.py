"""The cells of the fault matrix: the words its data is written in, and what each row of it stands for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

AT_ONCE = "at once"
IF_IT_LASTS = "if it lasts"  # at the third failure in a row
NEVER = "no"


@dataclass(frozen=True)
class Fate:
    """What follows from a fault.

    Args:
        met: what becomes of the recipients whom the fault meets: "sent", "waits", "again", "failed" or
            "in doubt".
        attempts: what it costs each of them.
        paused: whether the transport is paused, so that the next message goes out after the repair only.
        entry: when the problem log gets an entry.
        all_met: whether the fault meets every recipient that has no answer yet, accepted ones too.
        dead: whether the address is known to be dead from now on.
    """

    met: str
    attempts: int
    paused: bool
    entry: str
    all_met: bool = False
    dead: bool = False


@dataclass(frozen=True)
class Row:
    """Cells that behave alike.

    Args:
        stages: names of stages, parted by " | ".
        kind: C, T, R, M or D; "" where nothing goes wrong.
        rule: the rule of classify.py that decides; "" where nothing goes wrong.
        fate: what follows.
        faults: names of faults, parted by " | ". OTHER_4XX, OTHER_5XX and ANY_OTHER stand for those that
            no other row of the stage names.
    """

    stages: str
    kind: str
    rule: str
    fate: Fate
    faults: str

    @property
    def stage_names(self) -> list[str]:
        return self.stages.split(" | ")

    @property
    def fault_names(self) -> list[str]:
        return self.faults.split(" | ")


@dataclass(frozen=True)
class Situation:
    """What is wrong with a server for other reasons than one answer; `kind`, `rule`, `fate` as in Row."""

    kind: str
    rule: str
    fate: Fate
    what: str


OTHER_4XX, OTHER_5XX, ANY_OTHER = "any other 4xx", "any other 5xx", "anything else"
GROUPS = (OTHER_4XX, OTHER_5XX, ANY_OTHER)


def group_of(fault: str) -> str:
    """Which group a fault belongs to; the enhanced code overrides the three digits (RFC 5248)."""
    decides = re.search(r"\b([45])\.\d+\.\d+\b", fault) or re.search(r"\b([45])\d\d\b", fault)
    return {"4": OTHER_4XX, "5": OTHER_5XX}[decides[1]] if decides else ANY_OTHER


def rows_of(rows: Iterable[Row], stage: str, fault: str) -> list[Row]:
    """The rows that speak of a cell: exactly one if the matrix is right."""
    here = [row for row in rows if stage in row.stage_names]
    for token in (fault, group_of(fault), ANY_OTHER):
        found = [row for row in here if token in row.fault_names]
        if found:
            return found
    return []


def covered_by(row: Row, token: str, rows: Collection[Row], faults: Iterable[str]) -> list[tuple[str, str]]:
    """The cells for which this row decides because of this name of a fault or a group."""
    fitting = [fault for fault in faults if token in (fault, group_of(fault), ANY_OTHER)]
    cells = [(stage, fault) for stage in row.stage_names for fault in fitting]
    return [cell for cell in cells if rows_of(rows, *cell) == [row]]

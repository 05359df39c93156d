"""What was found when something was looked at, and how it is told: to people, and to monitoring."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

OK: Final = "ok"
NOTE: Final = "note"  # nothing is wrong, but it may matter, or could not be looked at
PROBLEM: Final = "problem"

ALL_WELL, SOMETHING_WRONG = 0, 1  # exit codes


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        level: OK, NOTE or PROBLEM.
        said: what it is, or what is wrong with it.
        remedy: what to do; "" where nothing is.
    """

    level: str
    said: str
    remedy: str = ""

    def __str__(self) -> str:
        shown = self.level.upper() if self.level == PROBLEM else self.level
        return f"{shown:7} {self.said}" + (f"\n        {self.remedy}" if self.remedy else "")


def exit_code(findings: Iterable[Finding]) -> int:
    """ALL_WELL, or SOMETHING_WRONG where there is a problem."""
    return SOMETHING_WRONG if any(one.level == PROBLEM for one in findings) else ALL_WELL


def as_text(findings: Sequence[Finding], *, problems_only: bool = False) -> str:
    """For people, a line or two each."""
    return "\n".join(str(one) for one in findings if one.level == PROBLEM or not problems_only)


def as_json(findings: Sequence[Finding]) -> str:
    """For monitoring: one object, with "status" and "findings"."""
    status = OK if exit_code(findings) == ALL_WELL else PROBLEM
    return json.dumps({"status": status, "findings": [asdict(one) for one in findings]})


def error_as_json(error: object) -> str:
    """For monitoring, where nothing could be looked at: one object, with "error"."""
    return json.dumps({"error": str(error)})

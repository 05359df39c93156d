"""The figures of all kills of a test run, for its summary."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .kill_lane import Verdict


class Figures:
    """Counts over all cases.

    Attributes:
        seed: of the random kills; None while there were none.
    """

    def __init__(self) -> None:
        self.seed: int | None = None
        self._counts = Counter[str]()
        self._signals = Counter[str]()
        self._guard = threading.Lock()

    def add(self, verdict: Verdict) -> None:
        """Count one case."""
        with self._guard:
            self._signals[verdict.case.signal] += 1
            self._counts.update(
                cells=1,
                lost=verdict.lost,
                duplicates=verdict.duplicates,
                miscounted=verdict.miscounted,
                in_doubt=verdict.doubts,
                twice=verdict.repeated,
                held=verdict.held,
                bad=bool(verdict.complaints),
            )

    def told(self) -> dict[str, Any]:
        """All of it in plain types, for merge() in another process."""
        return {"seed": self.seed, "counts": dict(self._counts), "signals": dict(self._signals)}

    def merge(self, told: dict[str, Any]) -> None:
        """Count what another process has told()."""
        self._counts.update(told["counts"])
        self._signals.update(told["signals"])
        self.seed = told["seed"] if self.seed is None else self.seed

    def lines(self) -> Iterator[str]:
        """What is to be said of them; nothing where nobody was killed."""
        count = self._counts
        if not count["cells"]:
            return
        kills = ", ".join(f"{number} {name}" for name, number in sorted(self._signals.items()))
        yield f"{count['cells']} cells: {kills}; {count['bad']} with complaints"
        yield (
            f"lost {count['lost']}, duplicates that no doubt explains {count['duplicates']},"
            f" attempts miscounted {count['miscounted']}"
        )
        yield f"messages in doubt {count['in_doubt']}, of which arrived twice {count['twice']}"
        yield f"stopped workers that held a lock meanwhile {count['held']}"
        if self.seed is not None:
            yield f"random kills: MAILQUEUE_KILL_SEED={self.seed}"


FIGURES = Figures()

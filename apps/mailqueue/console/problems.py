"""The page of the problem log, and of what failed by the errors that it failed with."""

from __future__ import annotations

from typing import Any

from .. import administration, problems, queries, statistics, words
from ..told import Told
from .parts import Parts

ACKNOWLEDGED = "acknowledged"  # a state of an open entry, for people


class Problems:
    """The problem log.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts = parts

    def page(self) -> dict[str, Any]:
        """The problem log, open entries first; failures, the most frequent first."""
        db = self._parts.mail.db
        rows = [
            {**row, "state": _state(row), "affected": self._affected(row), "buttons": self._buttons(row)}
            for row in queries.problems(db)
        ]
        return {
            "rows": rows,
            "all_well": not any(row["status"] == problems.OPEN for row in rows),
            "failures": statistics.failures(db),
        }

    def _affected(self, row: dict[str, Any]) -> str:
        """The URL of the list of those messages that an entry is about."""
        if row["stage"] in words.TRANSPORT_STAGES:
            return self._parts.link(status=words.QUEUED)  # everything waits
        return self._parts.link(failure=row["failure_kind"], transport=row["transport"] or None)

    def _buttons(self, row: dict[str, Any]) -> list[Any]:
        if row["status"] != problems.OPEN:
            return []
        verbs = [("acknowledge", "Acknowledge")] if row["acknowledged_on"] is None else []
        return [
            self._parts.button(
                label,
                Told(
                    "{action}: {summary}", action=Told.plain(label), summary=Told.plain(row["summary"] or "")
                ),
                self._parts.signed("problems", row["id"], verb),
            )
            for verb, label in [*verbs, ("resolve", "It is resolved")]
        ]

    def acknowledge(self, problem_id: int) -> tuple[bool, str]:
        """Say that one sees to it. Whether it changed anything, and what to tell."""
        return administration.acknowledge(self._parts.mail, problem_id, self._parts.whose())

    def resolve(self, problem_id: int) -> tuple[bool, str]:
        """Say that it is over. Whether it changed anything, and what to tell."""
        return administration.resolve(self._parts.mail, problem_id, self._parts.whose())


def _state(row: dict[str, Any]) -> str:
    acknowledged = row["status"] == problems.OPEN and row["acknowledged_on"] is not None
    return ACKNOWLEDGED if acknowledged else str(row["status"])

"""The page that says at one look whether mail goes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import audit, liveness, outbox, queries, statistics, trial
from ..administration import LABELS
from .charts import Chart, highest
from .parts import SPANS, Parts

TEST_TITLE = "Test of the connection to the mail server"
REFRESHED = 30  # seconds


class Overview:
    """How things stand.

    Args:
        parts: what the page is put together from.
    """

    def __init__(self, parts: Parts):
        self._parts, self._mail = parts, parts.mail

    def page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Transports, workers, the queue, and the figures of the last hour, day and week.

        Args:
            asked: the variables of the URL; with refresh=off the page does not come anew by itself.
        """
        db, now = self._mail.db, self._parts.now()
        figures = statistics.counts(db, now)
        return {
            "transports": statistics.transports(db),
            "workers": statistics.workers(db),
            "last_seen": liveness.last_seen(db),
            "oldest_due": outbox.next_due(db),
            "counts": queries.counts_up_to_a_bound(db),
            "latencies": statistics.latencies(db),
            "charts": [Chart(counts, self._in_words(counts)) for counts in figures],
            "outcomes": statistics.SHOWN,
            "problems": queries.problems(db, open_only=True, limit=10),
            "test": self._test_button(),
            "refreshed": None if asked.get("refresh") == "off" else REFRESHED,
        }

    def _in_words(self, counts: statistics.Counts) -> str:
        say, span = self._parts.say, counts.span
        numbers = ", ".join(f"{counts.total(status)} {say(LABELS[status])}" for status in statistics.SHOWN)
        most = say("at most {number} in {span}", number=highest(counts), span=self._parts.span(span.part))
        return f"{say(SPANS[span.name])}: {numbers}; {most}"

    def test(self) -> dict[str, Any]:
        """What came of trying the ways out, and the keys; that is recorded."""
        audit.record(self._mail.db, self._parts.whose(), audit.TEST, self._parts.now())
        tried = trial.try_transports(self._mail)
        return {
            "title": TEST_TITLE,
            "trials": tried,
            "keys": trial.try_keys(self._mail),
            "again": self._test_button(),
        }

    def _test_button(self) -> Any:
        url = self._parts.signed("test")
        return self._parts.button("Test the connection", "Test the connection to the mail server", url)

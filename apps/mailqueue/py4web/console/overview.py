"""The page that says at one look whether mail goes out."""

from __future__ import annotations

from typing import Any

from py4web import request

from ... import audit, liveness, outbox, queries, statistics, trial
from ...administration import LABELS
from ...console.parts import SPANS
from .charts import Chart, highest
from .frame import Console

PAGES = {"overview": "/overview"}
TEST = "/test"
TEST_TITLE = "Test of the connection to the mail server"
REFRESHED = 30  # seconds


class OverviewPage:
    """How things stand.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._mail = console.mail

    def mount(self) -> None:
        """Bind the page and the trial in the app that is being loaded."""
        self._console.mount_page(PAGES["overview"], self.overview, "overview.html", "overview")
        self._console.mount_asked(TEST, self.test, "test.html", "overview")
        self._console.mount_refusal(TEST, lambda: self._console.link("overview"))

    def overview(self) -> dict[str, Any]:
        """Transports, workers, the queue, and the figures of the last hour, day and week."""
        db, now = self._mail.db, self._console.now()
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
            "refreshed": None if request.query.get("refresh") == "off" else REFRESHED,
        }

    def _in_words(self, counts: statistics.Counts) -> str:
        say, span = self._console.say, counts.span
        numbers = ", ".join(f"{counts.total(status)} {say(LABELS[status])}" for status in statistics.SHOWN)
        most = say("at most {number} in {span}", number=highest(counts), span=self._console.span(span.part))
        return f"{say(SPANS[span.name])}: {numbers}; {most}"

    def test(self) -> dict[str, Any]:
        """What came of trying the ways out, and the keys."""
        audit.record(self._mail.db, self._console.whose(), audit.TEST, self._console.now())
        tried = trial.try_transports(self._mail)
        return {
            "title": TEST_TITLE,
            "trials": tried,
            "keys": trial.try_keys(self._mail),
            "again": self._test_button(),
        }

    def _test_button(self) -> Any:
        url = self._console.signed("test")
        return self._console.button("Test the connection", "Test the connection to the mail server", url)

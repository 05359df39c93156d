"""The page that says at one look whether mail goes out, mounted."""

from __future__ import annotations

from typing import Any

from py4web import request

from ...console.overview import Overview
from .frame import Console

PAGES = {"overview": "/overview"}
TEST = "/test"


class OverviewPage:
    """How things stand.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._overview = Overview(console)

    def mount(self) -> None:
        """Bind the page and the trial in the app that is being loaded."""
        self._console.mount_page(PAGES["overview"], self.overview, "overview.html", "overview")
        self._console.mount_asked(TEST, self._overview.test, "test.html", "overview")
        self._console.mount_refusal(TEST, lambda: self._console.link("overview"))

    def overview(self) -> dict[str, Any]:
        """Transports, workers, the queue, and the figures of the last hour, day and week."""
        return self._overview.page(request.query)

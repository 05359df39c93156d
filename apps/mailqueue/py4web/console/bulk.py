"""The pages on which one verb is done to many messages, mounted; and the messages of a selection as CSV."""

from __future__ import annotations

from typing import Any

from py4web import redirect, request, response

from ... import administration
from ...console.bulk import REFRESHED, Bulk
from ...selection import Selection
from .frame import Console

PAGES = {"bulk": "/bulk", "progress": "/progress/<bulk_id:int>"}
EXPORT = "/export"


class BulkPage:
    """Many messages at once.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._bulk = Bulk(console)

    def mount(self) -> None:
        """Bind the page and its verbs in the app that is being loaded."""
        self._console.mount_acting_page(PAGES["bulk"], self.bulk, "bulk.html", "messages")
        self._console.mount_acting_page(PAGES["progress"], self.progress, "progress.html", "messages")
        self._console.mount_post(
            f"{PAGES['bulk']}/<verb>", self.done, lambda verb: self._of_selection("bulk")
        )
        self._console.mount_verb(f"{PAGES['progress']}/stop", self._bulk.stop, self._way_back)
        self._console.mount_post(EXPORT, self.export, self._of_selection)

    def _way_back(self, bulk_id: int) -> str:
        return self._console.link("progress", bulk_id)

    def _of_selection(self, *parts: str) -> str:
        """A page with the selection of this request's URL."""
        return self._console.link(*parts, **Selection.of(request.query).query())

    def bulk(self) -> dict[str, Any]:
        """What can be done to the messages of a selection, and to how many of them."""
        return self._bulk.page(request.query)

    def done(self, verb: str) -> None:
        """Begin it, and go where it is seen."""
        redirect(self._bulk.begin(verb, request.query))

    def progress(self, bulk_id: int) -> dict[str, Any]:
        """How far one of them came."""
        found = self._bulk.progress(bulk_id)
        if found["running"]:
            response.headers["Refresh"] = str(REFRESHED)
        return found

    def export(self) -> str:
        """The messages of a selection as CSV."""
        response.headers["Content-Type"] = "text/csv; charset=utf-8"
        response.headers["Content-Disposition"] = 'attachment; filename="mails.csv"'
        response.headers["Cache-Control"] = "no-store"
        chosen = self._bulk.chosen(request.query)
        return administration.export(self._console.mail, chosen, self._console.whose())

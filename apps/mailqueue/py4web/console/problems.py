"""The page of the problem log, mounted."""

from __future__ import annotations

from ...console.problems import Problems
from .frame import Console

PAGES = {"problems": "/problems"}


class ProblemsPage:
    """The problem log.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._problems = Problems(console)

    def mount(self) -> None:
        """Bind the page and its verbs in the app that is being loaded."""
        self._console.mount_page(PAGES["problems"], self._problems.page, "problems.html", "problems")
        for verb in (self._problems.acknowledge, self._problems.resolve):
            path = f"{PAGES['problems']}/<problem_id:int>/{verb.__name__}"
            self._console.mount_verb(path, verb, lambda problem_id: self._console.link("problems"))

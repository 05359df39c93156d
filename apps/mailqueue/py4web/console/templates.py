"""The pages of the mail templates, mounted."""

from __future__ import annotations

from typing import Any

from ...console.templates import Templates
from .frame import Console

PAGES = {"templates": "/templates", "template": "/template/<name>/<language>"}


class TemplatePages:
    """The pages over a site's templates.

    Args:
        console: what they are mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._templates = Templates(console)

    def mount(self) -> None:
        """Bind the pages in the app that is being loaded."""
        mount = self._console.mount_page
        mount(PAGES["templates"], self._templates.page, "templates.html", "templates")
        mount(PAGES["template"], self.template, "template.html", "templates")

    def template(self, name: str, language: str) -> dict[str, Any]:
        """One mail in one language, with made-up variables."""
        self._console.shows_mail()
        return self._templates.one(name, language)

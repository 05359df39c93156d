"""The administrator's pages of the mail templates: a list, and each mail in each language."""

from __future__ import annotations

from typing import Any

from ... import preview
from ...console.refusals import Refusal
from ...errors import BadTemplate
from ...told import Told
from .frame import Console

PAGES = {"templates": "/templates", "template": "/template/<name>/<language>"}
_NO_TEMPLATE = Refusal(
    404, "There is no such template, or not in this language.", back=("Back to the list", ("templates",))
)


class TemplatePages:
    """The pages over a site's templates.

    Args:
        console: what they are mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._templates = console.mail.templates

    def mount(self) -> None:
        """Bind the pages in the app that is being loaded."""
        for name, path in PAGES.items():
            self._console.mount_page(path, getattr(self, name), f"{name}.html", "templates")

    def templates(self) -> dict[str, Any]:
        """Which there are, and in which languages."""
        return {"names": self._templates.names(), "languages": self._templates.languages()}

    def template(self, name: str, language: str) -> dict[str, Any]:
        """One mail in one language, with made-up variables."""
        self._console.shows_mail()
        if name not in self._templates.names() or language not in self._templates.languages():
            raise self._console.refusal(_NO_TEMPLATE)
        title = Told("Template {template} in {language}", template=name, language=language)
        filled_in = self._filled_in(name, language)
        return {**self.templates(), "title": title, "name": name, "language": language, **filled_in}

    def _filled_in(self, name: str, language: str) -> dict[str, Any]:
        try:
            mail = preview.preview(self._templates, name, language)
        except BadTemplate as error:
            return {"mail": None, "fault": str(error)}
        return {"mail": mail, "fault": mail.fault}

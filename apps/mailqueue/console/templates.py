"""The pages of the mail templates: a list, and each mail in each language."""

from __future__ import annotations

from typing import Any

from .. import preview
from ..errors import BadTemplate
from ..told import Told
from .parts import Parts
from .refusals import Refusal

_NO_TEMPLATE = Refusal(
    404, "There is no such template, or not in this language.", back=("Back to the list", ("templates",))
)


class Templates:
    """A site's templates.

    Args:
        parts: what the pages are put together from.
    """

    def __init__(self, parts: Parts):
        self._parts = parts
        self._templates = parts.mail.templates

    def page(self) -> dict[str, Any]:
        """Which there are, and in which languages."""
        return {"names": self._templates.names(), "languages": self._templates.languages()}

    def one(self, name: str, language: str) -> dict[str, Any]:
        """One mail in one language, with made-up variables.

        Raises:
            Exception: Parts.refusal(): there is none.
        """
        if name not in self._templates.names() or language not in self._templates.languages():
            raise self._parts.refusal(_NO_TEMPLATE)
        title = Told("Template {template} in {language}", template=name, language=language)
        filled_in = self._filled_in(name, language)
        return {**self.page(), "title": title, "name": name, "language": language, **filled_in}

    def _filled_in(self, name: str, language: str) -> dict[str, Any]:
        try:
            mail = preview.preview(self._templates, name, language)
        except BadTemplate as error:
            return {"mail": None, "fault": str(error)}
        return {"mail": mail, "fault": mail.fault}

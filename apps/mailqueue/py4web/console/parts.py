"""What the templates are put together from, in py4web; there it is `mq`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from py4web import URL, request
from py4web.utils.url_signer import URLSigner
from yatl.helpers import TITLE

from ...console import parts as shared
from ...console.parts import TEMPLATES
from ...languages import Language
from ...version import __version__
from ..request import accepted_languages
from .access import may_act

_LANGUAGE = "mailqueue.language"  # in the environment of a request


class Parts(shared.Parts):
    """Links, the language and the files of the pages.

    Args:
        mail: the QueuedMailer.
        route: the path of the first page, without a slash at its end.
        signer: signs the URLs of verbs.
        translations: folders with the site's own translations.
    """

    def __init__(self, mail: Any, route: str, signer: URLSigner, translations: Sequence[Path]):
        super().__init__(mail, translations)
        self.route, self.signer = route, signer

    def language(self) -> Language:
        """The language of this request."""
        if _LANGUAGE not in request.environ:
            request.environ[_LANGUAGE] = self.best_language(accepted_languages())
        found: Language = request.environ[_LANGUAGE]
        return found

    def may_act(self) -> bool:
        """Whether whoever makes this request may press buttons and see contents."""
        return may_act()

    def head(self, page: Any) -> Any:
        """What a page puts into the head of the layout around it: its title, which not every layout has."""
        return TITLE(self.say(page.title))

    # --- where to go -----------------------------------------------------------------------

    def link(self, *parts: Any, **query: Any) -> str:
        """The absolute URL of a page; a layout may have a <base>. What is None is left out."""
        return str(URL(self.route, *parts, vars=query))

    def signed(self, *parts: Any, **query: Any) -> str:
        """The absolute URL of a verb; it holds for this visitor, for SIGNATURE_LIFESPAN."""
        return str(URL(self.route, *parts, vars=query, signer=self.signer))

    def part(self, name: str) -> str:
        """The path of a template that others include, whosever layout they are in."""
        return str(TEMPLATES / "admin" / f"_{name}.html")

    @property
    def stylesheet(self) -> str:
        """The URL of the pages' own style sheet, a new one for every version."""
        return self.link("static", "admin.css", v=__version__)

    @property
    def layout_stylesheet(self) -> str:
        """The URL of the style sheet of our own layout."""
        return self.link("static", "layout.css", v=__version__)

    @property
    def script(self) -> str:
        """The URL of the script that brings the overview anew."""
        return self.link("static", "refresh.js", v=__version__)

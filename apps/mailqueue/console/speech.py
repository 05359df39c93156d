"""The language of the administrator's pages: the one that whoever makes the request likes best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import BadTemplate
from ..languages import Language, Languages
from ..rendering import TRANSLATIONS
from ..told import Told

PAGES_TRANSLATIONS = TRANSLATIONS / "console"


class Speech(ABC):
    """Translates the texts of the pages, for a class that knows the request at hand.

    Args:
        folders: where files of translations are that go before ours.
    """

    def __init__(self, folders: Sequence[Path]):
        self._languages = Languages([*folders, PAGES_TRANSLATIONS])

    @abstractmethod
    def language(self) -> Language:
        """The language of this request."""

    def best_language(self, wanted: str) -> Language:
        """The language that suits best; a shipped one where a file of the site's own is broken.

        Args:
            wanted: what the request says in Accept-Language.
        """
        try:
            return self._languages[self._languages.best(wanted)]
        except BadTemplate:  # one of the site's own files is broken
            shipped = Languages([PAGES_TRANSLATIONS])
            return shipped[shipped.best(wanted)]

    @property
    def language_tag(self) -> str:
        """Of the language of this request, such as "de"."""
        return self.language().tag

    def say(self, text: str, **values: Any) -> str:
        """A text in the language of this request; in English where its translation is wrong.

        Args:
            text: English, or Told; what has no translation stays as it is.
            values: of its {names}.
        """
        if isinstance(text, Told):
            values = {**text.values, **values}
            text = text.text
        language = self.language()
        if text not in language and not values:
            return text  # somebody else's words, braces and all
        given = {name: self._of_value(value) for name, value in values.items()}
        try:
            return str(language(text).format(**given))
        except BadTemplate:
            return text.format(**given)

    def _of_value(self, value: Any) -> Any:
        return self.say(value) if isinstance(value, Told) else value

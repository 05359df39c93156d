"""The texts of mails in several languages: which there are, which one a person reads, translating.

The files are those of pluralize, LANGUAGE.json: {text: {number from which it holds: translation}}. Its own
Translator keeps the language of a thread, and reads braces in values; here each mail has a translator of its
own, so that mails in different languages can be made at the same time, and nothing is ever written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import BadTemplate

ENGLISH = "en"
_FILE = re.compile(r"([a-z]{2}(?:-[a-z0-9]+)*)\.json", re.IGNORECASE)
_DAY, _HOUR = 1440, 60  # minutes

Texts = dict[str, dict[str, str]]


class Phrase:
    """A text to be translated. It is no HTML, so that yatl escapes it together with its values.

    Args:
        text: as it stands in the template.
        forms: its translation: each form by the number from which it holds.
        values: of its {names}.
    """

    def __init__(self, text: str, forms: Mapping[str, str], values: Mapping[str, Any] | None = None):
        self._text, self._forms, self._values = text, forms, values or {}

    def format(self, **values: Any) -> Phrase:
        """The phrase with values in the place of its {names}; the number `n` chooses the plural."""
        return Phrase(self._text, self._forms, {**self._values, **values})

    def __str__(self) -> str:
        try:
            # Once, unlike pluralize: braces in a value are somebody's name, not for us to read.
            return self._form().format(**self._values)
        except (LookupError, ValueError, AttributeError) as error:
            raise BadTemplate(f"a {{name}} in {self._text!r}, or in its translation, is wrong") from error

    def _form(self) -> str:
        number = self._values.get("n", 1)
        return self._forms[str(max(begin for begin in map(int, self._forms) if begin <= number))]


class Language:
    """Translates into one language; this is the `T` of the templates.

    Args:
        tag: such as "de".
        texts: the translations into it.
    """

    def __init__(self, tag: str, texts: Texts):
        self.tag = tag
        self._texts = texts

    def __call__(self, text: str) -> Phrase:
        """The text in this language; itself where it is not translated."""
        return Phrase(text, self._texts.get(text) or {"0": text})

    def __contains__(self, text: str) -> bool:
        """Whether a text is translated."""
        return text in self._texts

    def __iter__(self) -> Iterator[str]:
        """The texts that are translated."""
        return iter(self._texts)

    def forms(self, text: str) -> Mapping[str, str]:
        """Each form of a text that is translated, by the number from which it holds."""
        return self._texts[text]

    def span(self, seconds: float) -> Phrase:
        """How long something holds, as in "valid for 24 hours". Rounded down, but to a minute at least."""
        minutes = max(1, round(seconds / 60))
        if minutes >= 2 * _DAY:
            return self("{n} days").format(n=minutes // _DAY)
        if minutes >= 2 * _HOUR or minutes == _HOUR:
            return self("{n} hours").format(n=minutes // _HOUR)
        return self("{n} minutes").format(n=minutes)


class Languages:
    """The languages that mails can be written in.

    Args:
        folders: where the files are. Of the same text in several folders the first one's translation wins.
            The last folder decides which texts there are: a language of the others counts where it
            translates most of them, so that a site translated for its pages alone gets no mixed mails.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = folders

    @cached_property
    def _texts(self) -> dict[str, Texts]:
        *others, own = [_read(folder) for folder in self._folders]
        texts = own.get(ENGLISH, {})
        found = {tag: dict(translated) for tag, translated in own.items()}
        for folder in reversed(others):
            for tag, translated in folder.items():
                found.setdefault(tag, {}).update(translated)
        return {
            tag: translated
            for tag, translated in found.items()
            if tag in own or 2 * len(texts.keys() & translated.keys()) > len(texts)
        }

    def tags(self) -> list[str]:
        """What there is, such as ["cs", "de", "en"].

        Raises:
            BadTemplate: a file cannot be read.
        """
        return sorted(self._texts)

    def __getitem__(self, tag: str) -> Language:
        if tag not in self._texts:
            raise BadTemplate(f"mails cannot be written in the language {tag!r}")
        return Language(tag, self._texts[tag])

    def best(self, *wanted: str) -> str:
        """The language that suits best.

        Args:
            wanted: each a tag ("de-AT"), a list as in Accept-Language (RFC 9110 section 12.5.4) or "";
                an earlier argument goes before a later one.

        Returns:
            A tag that there is; "en" where nothing suits.
        """
        for accepted in wanted:
            for tag in _by_preference(accepted):
                if found := _closest(tag, self._texts):
                    return found
        return ENGLISH


def _closest(tag: str, there_are: Collection[str]) -> str | None:
    """The tag itself, or what is left of it without its last parts (RFC 4647 section 3.4)."""
    while tag and tag not in there_are:
        tag = tag.rpartition("-")[0]
    return tag or None


def _by_preference(accepted: str) -> list[str]:
    """The tags of an Accept-Language field, those liked best first."""
    weighed = [(_weight(parameters), tag.strip()) for tag, _, parameters in _parts(accepted)]
    liked = [(weight, tag) for weight, tag in weighed if weight > 0]
    return [tag for _weight, tag in sorted(liked, key=lambda one: -one[0])]


def _parts(accepted: str) -> Iterator[tuple[str, str, str]]:
    for part in accepted[:1000].lower().replace("_", "-").split(","):
        yield part.partition(";")


def _weight(parameters: str) -> float:
    _, _, value = parameters.partition("q=")
    try:
        return float(value) if value else 1.0
    except ValueError:
        return 0.0


def _read(folder: Path) -> dict[str, Texts]:
    """The translations in a folder, by language; none where there is no folder.

    Raises:
        BadTemplate: a file cannot be read.
    """
    found = {}
    for path in sorted(folder.glob("*.json")):
        if named := _FILE.fullmatch(path.name):
            found[named[1].lower()] = _texts_in(path)
    return found


def _texts_in(path: Path) -> Texts:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {text: _forms(translated) for text, translated in content.items() if translated}
    except (OSError, ValueError, AttributeError) as error:
        raise BadTemplate(f"{path} cannot be read as translations: {error}") from error


def _forms(translated: str | dict[str, str]) -> dict[str, str]:
    """Each form by the number from which it holds; a plain text holds for every number."""
    if isinstance(translated, str):
        return {"0": translated}
    return {str(int(number)): form for number, form in translated.items()}

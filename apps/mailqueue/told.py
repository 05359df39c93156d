"""A sentence for people that remembers what it was made of, so that a page can translate it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

_NUMBER, _ANYTHING = r"\d+", ".*?"


class Told(str):
    """A text with its values in it, in English.

    Args:
        text: with {names}; the key under which its translations are found.
        values: of the names; the number `n` chooses the plural. What is Told itself is translated too.
    """

    text: str
    values: dict[str, Any]

    def __new__(cls, text: str, **values: Any) -> Told:
        """Put the values in."""
        told = super().__new__(cls, text.format(**values))
        told.text, told.values = text, values
        return told

    @classmethod
    def plain(cls, text: str) -> Told:
        """A text without values, whose braces are its own."""
        told = super().__new__(cls, text)
        told.text, told.values = text, {}
        return told

    @classmethod
    def read(cls, stored: str, texts: Iterable[str]) -> str:
        """A sentence that was stored with its values in it, as it was told; itself where no text fits.

        Args:
            stored: the sentence.
            texts: those that it may have been made of; the first that fits counts.
        """
        for text in texts:
            if found := _shape(text).fullmatch(stored):
                values = found.groupdict()
                return cls(text, **{**values, **({"n": int(values["n"])} if "n" in values else {})})
        return stored


@lru_cache
def _shape(text: str) -> re.Pattern[str]:
    """What sentences look like that are made of a text."""
    return re.compile(re.sub(r"\\{(\w+)\\}", _value, re.escape(text)), re.DOTALL)


def _value(name: re.Match[str]) -> str:
    return f"(?P<{name[1]}>{_NUMBER if name[1] == 'n' else _ANYTHING})"

"""Hiding what may be a key: in the subjects of mails, and in links that servers quote."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "••••"

# A run as long as tokens are, of letters and digits; not a long word, and not a long number.
_TOKEN: Final = re.compile(r"(?=[\w-]*\d)(?=[\w-]*[A-Za-z])[\w-]{16,}")
_CODE: Final = re.compile(r"(?<!\w)\d(?:[ -]?\d){3,9}(?!\w)")

_VALUE: Final = re.compile(r"([?&;#][\w.-]*=)(?=[^&;#]*\d|[^&;#]{16})[^&;#]{6,}")
_LINK: Final = re.compile(r"(?<=://)(?P<host>[^\s/?#]*)(?P<rest>[/?#][^\s<>\"']*)")


def without_keys(text: str) -> str:
    """A server's words with the keys hidden that stand in links: some quote what they refuse."""
    return _LINK.sub(_hide_rest, text)


def _hide_rest(link: re.Match[str]) -> str:
    rest = _TOKEN.sub(HIDDEN, link["rest"])
    return link["host"] + _VALUE.sub(rf"\1{HIDDEN}", rest)


def masked(subject: str, category: str | None) -> str:
    """A subject with its keys hidden.

    Args:
        subject: as it was sent.
        category: the message's; in Auth's mails short numbers are codes too.
    """
    hidden = _TOKEN.sub(HIDDEN, subject)
    return _CODE.sub(HIDDEN, hidden) if category == "auth" else hidden

"""Keys and certificates as settings name them: the path of a file, its content, or what gives it."""

from __future__ import annotations

import os
import re
from typing import Any

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_LIKE_A_PATH = re.compile(r"(?:/|[A-Za-z]:).{1,250}|.{1,250}\.[A-Za-z0-9]{1,8}")


def content_of(given: Any) -> bytes:
    """What is in it.

    Args:
        given: the path of a file, or the text of one in PEM format.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is neither.
    """
    if isinstance(given, str) and "-----BEGIN" in given:
        return given.encode("ascii")
    if isinstance(given, bytes) and b"-----BEGIN" in given:
        return given
    if not given or not isinstance(given, (str, os.PathLike)):
        raise ValueError(f"{type(given).__name__} is neither the path of a file nor text in PEM format")
    with open(given, "rb") as file:
        return file.read()


def blocks(pem: bytes, label: str) -> list[bytes]:
    """The blocks of text in PEM format whose label ends so, such as "CERTIFICATE" or "PRIVATE KEY"."""
    ended = label.encode()
    found = [(block[1], block[0]) for block in _BLOCK.finditer(pem.replace(b"\r\n", b"\n"))]
    return [text + b"\n" for name, text in found if name.endswith(ended)]


def why_unreadable(error: Exception) -> str:
    """Why content_of() failed, for people to read; never what the file holds."""
    if not isinstance(error, OSError):
        return str(error)
    name = str(error.filename or "")
    # Somebody may have given the key itself, in a format that does not look like one.
    shown = name if _LIKE_A_PATH.fullmatch(name) else "the file (its name is not shown: it may be a key)"
    return f"{shown}: {error.strerror}"

"""A finished message taken apart: its header, and the MIME entity that is signed or encrypted."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from email.utils import getaddresses
from secrets import token_hex

_NEXT_FIELD = re.compile(rb"\r\n(?![ \t])")


def fields_of(mime: bytes) -> Iterator[tuple[str, bytes]]:
    """The header fields of a message: each its name in lower case, and all of it with its last line end."""
    block = mime.partition(b"\r\n\r\n")[0]
    for field in _NEXT_FIELD.split(block):
        yield field.partition(b":")[0].strip().lower().decode("latin-1"), field + b"\r\n"


def addresses_in(mime: bytes, *names: str) -> list[str]:
    """The addresses in these fields of a message, without their names.

    Args:
        names: of the fields, in lower case.
    """
    texts = [
        field.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "replace")
        for name, field in fields_of(mime)
        if name in names
    ]
    return [address for _, address in getaddresses(texts) if address]


def parted(mime: bytes) -> tuple[bytes, bytes]:
    """A message as its header without what describes the body, and the body with what describes it.

    The second is an entity of its own (RFC 2045 section 2.4), ready to be a part of another message.
    """
    outer: list[bytes] = []
    inner: list[bytes] = []
    for name, field in fields_of(mime):
        (inner if name.startswith("content-") else outer).append(field)
    return b"".join(outer), b"".join([*inner, b"\r\n", mime.partition(b"\r\n\r\n")[2]])


def leaf(content_type: str, content: bytes, *further: str) -> bytes:
    """An entity that is a file, in base64.

    Args:
        content_type: with its parameters.
        further: header fields.
    """
    head = [f"Content-Type: {content_type}", "Content-Transfer-Encoding: base64", *further, "", ""]
    return "\r\n".join(head).encode() + base64.encodebytes(content).replace(b"\n", b"\r\n")


def multipart(content_type: str, *parts: bytes) -> bytes:
    """An entity of several, each of them byte for byte (RFC 1847 section 2.1).

    Args:
        content_type: with its parameters, but for the boundary.
    """
    boundary = f"=_{token_hex(16)}"
    pieces = [f'Content-Type: {content_type};\r\n boundary="{boundary}"\r\n'.encode()]
    for part in parts:
        pieces += [f"\r\n--{boundary}\r\n".encode(), part]
    return b"".join([*pieces, f"\r\n--{boundary}--\r\n".encode()])

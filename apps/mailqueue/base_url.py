"""The address of a site that its administrator configured, with which links in mails begin."""

from __future__ import annotations

from urllib.parse import urlsplit


def read_base_url(given: str) -> str:
    """A configured address of the app, without a slash at its end.

    Args:
        given: such as "https://your-domain.org/yourapp", or without a path where the app is at the top.

    Raises:
        ValueError: it is no such address.
    """
    expected = f"base_url is {given!r}, expected something like 'https://your-domain.org/yourapp'"
    if not isinstance(given, str) or any(letter <= " " or letter == "\\" for letter in given):
        raise ValueError(expected)
    parts = urlsplit(given)
    whole = parts.scheme in ("http", "https") and parts.hostname
    if not whole or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(expected)
    return given.rstrip("/")

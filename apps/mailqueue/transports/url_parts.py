"""The parts of a transport's URL, and what is wrong with them.

What is wrong is said without showing any of it but the scheme: where a character of a password is not
escaped, any part of it may be the password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from urllib.parse import parse_qsl, unquote, urlsplit

from ..classify import SiteFault

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?")
ESCAPE = " (in a user name or password write / ? # @ : and % as %2F %3F %23 %40 %3A and %25)"


@dataclass(frozen=True)
class Url:
    """A URL in its parts, still escaped but for the options."""

    scheme: str
    authority: str
    path: str
    options: Mapping[str, str]


class Wrong(Exception):
    """What is wrong with a URL, without showing it."""


def parts_of(url: str) -> Url:
    """A URL in its parts.

    Raises:
        SiteFault: it is none.
    """
    parts = _URL.fullmatch(url)
    if not parts:
        scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)", url)
        shown = f"{scheme[0]}:…" if scheme else "a text without a scheme"
        raise SiteFault("bad-transport", f"{shown} is not a URL such as smtp://user:password@host:587")
    options = dict(parse_qsl(parts[4] or "", keep_blank_values=True))
    return Url(parts[1].lower(), parts[2], parts[3], options)


def user_and_password(login: str) -> tuple[str, str]:
    """A login in its parts, as they are.

    Raises:
        Wrong: it is not user:password.
    """
    user, colon, password = login.partition(":")
    if not colon or not user or "@" in password or ":" in password:
        raise Wrong(f"the login is not user:password{ESCAPE}")
    return unquote(user), unquote(password)


def key_of(url: Url) -> str:
    """The key that a URL has instead of a login.

    Raises:
        Wrong: there is none, or more.
    """
    key = unquote(url.authority)
    if not key or ":" in url.authority:
        raise Wrong(f"the key is expected, and nothing else: {url.scheme}://KEY")
    return key


def fit_for_http(key: str) -> str:
    """A key as a field of an HTTP request can hold it (RFC 9110 section 5.5).

    Raises:
        Wrong: it cannot; what is wrong is often a line's end, of the file that the key was read from.
    """
    if key != key.strip():
        raise Wrong("a key has white space or a line's end before or behind it")
    if any(ord(character) < 32 or ord(character) == 127 for character in key):
        raise Wrong("a key has a control character in it")
    if not key.isascii():
        raise Wrong("a key has a character beyond ASCII in it")
    return key


def expect_no_path(url: Url) -> None:
    """Refuse what stands behind the server.

    Raises:
        Wrong: there is something.
    """
    if url.path not in ("", "/"):
        raise Wrong(f"there is something behind the server{ESCAPE}")


def expect_options(url: Url, *known: str) -> None:
    """Refuse options that are not among these.

    Raises:
        Wrong: there is one.
    """
    unknown = [name for name in url.options if name not in known]
    if unknown:
        # Only what looks like a misspelt option is surely no part of a password.
        misspelt = unknown[0] if get_close_matches(unknown[0], known) else "…"
        raise Wrong(f"the option {misspelt} is unknown; there are {', '.join(known)}")


def address(text: str | None) -> str | None:
    """The option `source`.

    Raises:
        Wrong: it is no IP address.
    """
    try:
        return None if text is None else str(ip_address(text))
    except ValueError:
        raise Wrong("source must be an IP address of this host") from None


def label(name: str | None) -> str | None:
    """The option `name`.

    Raises:
        Wrong: it cannot be part of a name.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", name):
        raise Wrong("name must be up to 40 letters, digits, and the signs _ . -")
    return name


def seconds(text: str) -> float:
    """The option `timeout`.

    Raises:
        Wrong: it is no number of seconds.
    """
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", text) or not float(text):
        raise Wrong("timeout must be a number of seconds")
    return float(text)


def region(text: str | None) -> str | None:
    """The option `region`, which becomes part of a host's name.

    Raises:
        Wrong: it cannot.
    """
    if text is not None and not re.fullmatch(r"[a-z0-9-]{1,40}", text):
        raise Wrong("region must be a name such as eu-west-1")
    return text


def web_address(option: str, text: str | None) -> str | None:
    """An option that holds the address of an API; a key is sent there.

    Raises:
        Wrong: it is none, or others on the way could read along.
    """
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.username is not None or not text.isprintable() or " " in text:
        raise Wrong(f"{option} must be an address such as https://api.your-provider.org")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in ("127.0.0.1", "::1", "localhost")):
        raise Wrong(f"{option} must begin with https:// unless it is on this very host")
    return text

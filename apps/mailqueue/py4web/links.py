"""The addresses of links in mails: from what the site configured, never from what a visitor claims.

py4web builds links from the headers of the request, which anybody can forge: whoever asks for a reset
of somebody else's password would choose the host that the token goes to.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from py4web import request

from ..base_url import read_base_url


class NoBaseUrl(Exception):
    """The site's address is not known: base_url is not configured, and the request's host proves nothing."""


def link(base_url: str | None, *parts: str, use_appname: bool | None = None, **query: str) -> str:
    """The full URL of one of the app's pages.

    Args:
        base_url: the address of the app; None: that of this request, where it can be trusted.
        parts: of the path below the app's own.
        use_appname: whether the app's name is in its paths, as for py4web's URL(); for None only.
        query: what follows the question mark.

    Raises:
        NoBaseUrl: base_url is no address, or there is none and the request does not help.
    """
    try:
        root = read_base_url(base_url) if base_url else f"{_site()}{_app_path(use_appname)}"
    except ValueError as error:
        raise NoBaseUrl(str(error)) from error
    path = "/".join(quote(part, safe="/") for part in parts)
    return f"{root}/{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else "")


def host(base_url: str | None) -> str:
    """The host of link()'s addresses, if it is one that a Message-ID can hold; else "".

    Args:
        base_url: as for link().
    """
    try:
        found = urlsplit(read_base_url(base_url) if base_url else _site()).hostname or ""
    except (ValueError, NoBaseUrl):
        return ""
    return found if re.fullmatch(r"[a-z0-9.-]+", found) else ""


def _site() -> str:
    """Scheme and host of this request.

    Raises:
        NoBaseUrl: there is no request, or its host may be anybody's claim.
    """
    environ: Mapping[str, Any] = request.environ or {}
    claimed = environ.get("HTTP_X_FORWARDED_HOST") or environ.get("HTTP_HOST") or ""
    allowed = [domain.strip() for domain in os.environ.get("PY4WEB_DOMAINS", "").split(",")]
    allowed = [domain for domain in allowed if domain]
    if allowed:
        return f"{_scheme(environ)}://{claimed if claimed in allowed else allowed[0]}"
    host = environ.get("HTTP_HOST") or ""
    if not is_own(host, str(environ.get("SERVER_PORT") or "")):
        raise NoBaseUrl(f"The request came for the host {host[:100]!r}.")
    return f"{environ.get('wsgi.url_scheme', 'http')}://{host}"


def _scheme(environ: Mapping[str, Any]) -> str:
    schemes = (environ.get("HTTP_X_FORWARDED_PROTO"), environ.get("wsgi.url_scheme"))
    return next((str(scheme) for scheme in schemes if scheme in ("http", "https")), "http")


def _app_path(use_appname: bool | None) -> str:
    """The path of this request's app, by what the server says of itself."""
    environ: Mapping[str, Any] = request.environ or {}
    before = (os.environ.get("PY4WEB_URL_PREFIX") or environ.get("SCRIPT_NAME") or "").rstrip("/")
    name = str(request.app_name)
    if use_appname is None:
        use_appname = environ.get("HTTP_X_PY4WEB_APPNAME") != f"/{name}"
    return f"{before}/{quote(name)}" if use_appname and name != "_default" else before


def is_own(host: str, port: str) -> bool:
    """Whether a Host header can only lead to this machine, or to the reader's own.

    Args:
        host: the header; only localhost and IP addresses of this machine pass.
        port: where this server listens, for any address but localhost.
    """
    try:
        parts = urlsplit(f"//{host}")
        name, asked = parts.hostname or "", parts.port
    except ValueError:
        return False
    if parts.netloc != host or "@" in host or parts.path or parts.query:
        return False
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or (str(asked or 80) == port and _is_of_this_machine(address))


def _is_of_this_machine(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    if address.is_unspecified or address.is_multicast:
        return False
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))  # only an address of one's own can be bound
    except OSError:
        return False
    return True

"""From a mailer's settings to a transport, and what is wrong with them in plain words."""

from __future__ import annotations

import re
from typing import Any

from ..classify import SiteFault
from ..compose import parse_address
from ..errors import BadAddress
from .base import Transport
from .capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from .smtp import IMPLICIT, PLAIN, STARTTLS, SmtpTransport, Timeouts

_SERVER = re.compile(
    r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/@\[\]\x00-\x1f\x7f]+))(:(?P<port>[0-9]{0,5}))?"
)
# Reserved for examples (RFC 2606 section 3), and so never a site's own.
_EXAMPLE_DOMAINS = ("example.com", "example.net", "example.org")
# The senders that web2py's application template comes with.
_EXAMPLE_ADDRESSES = frozenset({"you@gmail.com"})


def transport_for(settings: Any, captured: list[Captured]) -> Transport:
    """The way out that a mailer's settings describe.

    Args:
        settings: with server, login, tls, ssl, timeout, hostname, ca_file, logger and sender.
        captured: where a memory transport keeps its messages.

    Raises:
        SiteFault: they cannot be used as they are; says which and why.
    """
    server = settings.server
    if not server:
        raise SiteFault("no-server", "server is not set")
    if not isinstance(server, str):
        raise SiteFault("bad-server-address", f"server is {type(server).__name__}, not text")
    if server == "logging":
        return LoggingTransport(settings.logger)
    if server == "logging:":
        raise SiteFault("bad-server-address", "server is 'logging:' without the name of a file")
    if server.startswith("logging:"):
        return FileTransport(server.removeprefix("logging:"))
    if server == "memory":
        return MemoryTransport(captured)
    if server in ("aws", "gae"):
        raise SiteFault("unknown-server", f"server is {server!r}")
    check_sender(settings.sender)
    return _smtp(server, settings)


def _smtp(server: str, settings: Any) -> SmtpTransport:
    host, port = _host_and_port(server, 465 if settings.ssl else 25)
    return SmtpTransport(
        host,
        port,
        security=IMPLICIT if settings.ssl else STARTTLS if settings.tls else PLAIN,
        login=_user_and_password(settings.login),
        ca_file=settings.ca_file,
        hostname=settings.hostname,
        timeouts=Timeouts.of(settings.timeout),
    )


def _host_and_port(server: str, default_port: int) -> tuple[str, int]:
    """Read host, host:port, [IPv6] or [IPv6]:port."""
    parts = _SERVER.fullmatch(server)
    port = int(parts["port"] or default_port) if parts else 0
    if not parts or not 0 < port < 65536:
        shown = re.sub(r".*@", "***@", server, flags=re.DOTALL)  # somebody may have put the login there
        raise SiteFault("bad-server-address", f"server is {shown[:100]!r}, expected host:port")
    return parts["address"] or parts["host"], port


def _user_and_password(login: Any) -> tuple[str, str] | None:
    if not login:
        return None
    user, colon, password = str(login).partition(":")
    if not colon or not user:
        raise SiteFault("bad-login", "login is not of the form user:password")
    return user, password


def check_sender(sender: object) -> None:
    """Whether a site can send with this address.

    Raises:
        SiteFault: there is none, it is no address, or it is the example of a site's template.
    """
    if not sender:
        raise SiteFault("no-sender", "sender is not set")
    try:
        spec = parse_address(sender).spec.lower()
    except BadAddress as error:
        raise SiteFault("bad-sender", str(error)) from error
    domain = spec.rpartition("@")[2]
    reserved = any(domain == example or domain.endswith("." + example) for example in _EXAMPLE_DOMAINS)
    if reserved or spec in _EXAMPLE_ADDRESSES:
        raise SiteFault("example-sender", f"sender is {spec}")

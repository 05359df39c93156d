"""From a mailer's settings to a transport, and what is wrong with them in plain words."""

from __future__ import annotations

import re
from typing import Any

from ..classify import SiteFault
from ..compose import parse_address
from ..errors import BadAddress
from .base import Transport
from .capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from .server_address import host_and_port
from .ses import SesTransport
from .smtp import IMPLICIT, PLAIN, STARTTLS, SmtpTransport, Timeouts
from .urls import transport_of_url

NO_SERVER, NO_SENDER = "server is not set", "sender is not set"

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
    made = server_described(settings, captured)
    if made.delivers:
        check_sender(settings.sender)
    return made


def server_described(settings: Any, captured: list[Captured]) -> Transport:
    """As transport_for(), whatever the sender: a site may set it later.

    Raises:
        SiteFault: they cannot be used as they are; says which and why.
    """
    server = settings.server
    if not server:
        raise SiteFault("no-server", NO_SERVER)
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
    if server == "gae":
        raise SiteFault("unknown-server", "server is 'gae'")
    if server == "aws":
        return SesTransport(timeout=settings.timeout)
    return _smtp(server, settings)


def transport_of(spec: object, settings: Any, captured: list[Captured]) -> Transport:
    """The way out that one entry of `transports` describes.

    Args:
        spec: a URL, see urls.py, or a function without arguments that makes a transport.
        settings: with timeout, hostname, ca_file, logger and sender.
        captured: where a memory transport keeps its messages.

    Raises:
        SiteFault: it describes none, or the sender cannot be used; says why, without secrets.
        Exception: whatever the function raises, such as MissingExtra.
    """
    made = described(spec, settings, captured)
    if made.delivers:
        check_sender(settings.sender)
    return made


def described(spec: object, settings: Any, captured: list[Captured]) -> Transport:
    """As transport_of(), whatever the sender: a site may set it later.

    Raises:
        SiteFault: the entry describes none; says why, without secrets.
        Exception: whatever the function raises, such as MissingExtra.
    """
    if isinstance(spec, str):
        made: object = transport_of_url(spec, settings, captured)
    elif callable(spec):
        made = spec()
    else:
        kind = type(spec).__name__
        raise SiteFault(
            "bad-transport",
            f"{kind} is neither a URL nor a function that makes a transport for each connection",
        )
    if not isinstance(made, Transport):
        raise SiteFault("bad-transport", f"a function made {type(made).__name__}, which is no Transport")
    return made


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
    try:
        return host_and_port(server, default_port)
    except ValueError as error:
        shown = re.sub(r".*@", "***@", server, flags=re.DOTALL)  # somebody may have put the login there
        raise SiteFault("bad-server-address", f"server is {shown[:100]!r}, {error}") from None


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
        raise SiteFault("no-sender", NO_SENDER)
    try:
        spec = parse_address(sender).spec.lower()
    except BadAddress as error:
        raise SiteFault("bad-sender", str(error)) from error
    domain = spec.rpartition("@")[2]
    reserved = any(domain == example or domain.endswith("." + example) for example in _EXAMPLE_DOMAINS)
    if reserved or spec in _EXAMPLE_ADDRESSES:
        raise SiteFault("example-sender", f"sender is {spec}")

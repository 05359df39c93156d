"""From a URL to a transport: the schemes, the providers' SMTP servers, and the options each takes.

    smtp://user:password@host:587?tls=required      smtps://user:password@host:465
    lmtp://host:24                                  lmtp:///run/dovecot/lmtp
    sendgrid+smtp://KEY                             ses+smtp://user:password?region=eu-west-1
    logging:    logging:FILE    memory:

Those that lead to a provider's own API are in api_urls.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from ..classify import SiteFault
from .api_urls import API_SCHEMES
from .base import Transport
from .capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from .lmtp import LmtpTransport
from .server_address import host_and_port
from .smtp import IMPLICIT, OPPORTUNISTIC, PLAIN, STARTTLS, SmtpTransport, Timeouts
from .url_parts import (
    ESCAPE,
    Url,
    Wrong,
    address,
    expect_no_path,
    expect_options,
    key_of,
    label,
    parts_of,
    seconds,
    user_and_password,
)

_TLS = {"required": STARTTLS, "implicit": IMPLICIT, "opportunistic": OPPORTUNISTIC, "none": PLAIN}
_PORTS = {STARTTLS: 587, IMPLICIT: 465, OPPORTUNISTIC: 25, PLAIN: 25}


@dataclass(frozen=True)
class Provider:
    """A provider's SMTP server, which speaks STARTTLS on port 587.

    Args:
        host: its name; "{region}" stands for the option of that name.
        user: the user name that everybody has, so that the URL holds the key alone; "{key}": the key
            itself; None: the URL holds user:password.
        region: the region where the URL does not say; None: it must, if the host has one.
        hosts: the host of a region, where it does not follow from its name.
    """

    host: str
    user: str | None = None
    region: str | None = None
    hosts: Mapping[str, str] | None = None


# What their own documentation says.
PROVIDERS = {
    "brevo": Provider("smtp-relay.brevo.com"),
    "gmail": Provider("smtp.gmail.com"),
    "mailersend": Provider("smtp.mailersend.net"),
    "mailgun": Provider(
        "{region}", region="us", hosts={"us": "smtp.mailgun.org", "eu": "smtp.eu.mailgun.org"}
    ),
    "mailjet": Provider("in-v3.mailjet.com"),
    "mandrill": Provider("smtp.mandrillapp.com"),
    "office365": Provider("smtp.office365.com"),
    "postmark": Provider("smtp.postmarkapp.com", user="{key}"),
    "resend": Provider("smtp.resend.com", user="resend"),
    "sendgrid": Provider("smtp.sendgrid.net", user="apikey"),
    "ses": Provider("email-smtp.{region}.amazonaws.com"),
    "sparkpost": Provider("smtp.sparkpostmail.com", user="SMTP_Injection"),
}


def transport_of_url(url: str, settings: Any, captured: list[Captured]) -> Transport:
    """The transport that a URL describes.

    Args:
        url: see above.
        settings: with timeout, hostname, ca_file and logger, for what the URL does not say.
        captured: where a memory transport keeps its messages.

    Raises:
        SiteFault: it describes none; says why, without secrets.
    """
    captures = _capturing(url, settings, captured)
    if captures:
        return captures
    parsed = parts_of(url)
    try:
        return _maker_of(parsed.scheme)(parsed, settings)
    except Wrong as wrong:
        raise SiteFault("bad-transport", f"{parsed.scheme}://…: {wrong}") from None


def _capturing(url: str, settings: Any, captured: list[Captured]) -> Transport | None:
    scheme, _, path = url.partition(":")
    if scheme == "logging":
        return FileTransport(path) if path else LoggingTransport(settings.logger)
    return MemoryTransport(captured) if url in ("memory", "memory:") else None


def _maker_of(scheme: str) -> Callable[[Url, Any], Transport]:
    if scheme in _SCHEMES:
        return _SCHEMES[scheme]
    provider, plus, protocol = scheme.partition("+")
    if plus and protocol == "smtp" and provider in PROVIDERS:
        return _of_provider
    known = [*_SCHEMES, *(f"{name}+smtp" for name in PROVIDERS), "logging", "memory"]
    raise SiteFault("bad-transport", f"{scheme}://… is of no kind that is known: {', '.join(known)}")


# --- SMTP ----------------------------------------------------------------------------------
def _smtp(url: Url, settings: Any) -> SmtpTransport:
    tls = url.options.get("tls", "required")
    if tls not in _TLS:
        raise Wrong(f"tls must be one of {', '.join(_TLS)}")
    return _smtp_with(url, settings, _TLS[tls])


def _smtps(url: Url, settings: Any) -> SmtpTransport:
    if "tls" in url.options:
        raise Wrong("smtps is TLS from the start, and takes no option tls")
    return _smtp_with(url, settings, IMPLICIT)


def _smtp_with(url: Url, settings: Any, security: str) -> SmtpTransport:
    login, at, server = url.authority.rpartition("@")
    try:
        host, port = host_and_port(unquote(server), _PORTS[security])
    except ValueError:
        raise Wrong(f"what stands behind the @ is not host:port{ESCAPE}") from None
    expect_no_path(url)
    expect_options(url, *_OPTIONS, "tls")
    return _made(host, port, security, user_and_password(login) if at else None, url, settings)


def _lmtp(url: Url, settings: Any) -> SmtpTransport:
    tls = url.options.get("tls", "none")
    if tls not in _TLS:
        raise Wrong(f"tls must be one of {', '.join(_TLS)}")
    expect_options(url, *_OPTIONS, "tls")
    if not url.authority and url.path.startswith("/") and url.path != "/":
        return _made(unquote(url.path), 0, _TLS[tls], None, url, settings, LmtpTransport)
    login, at, server = url.authority.rpartition("@")
    try:
        host, port = host_and_port(unquote(server), 24)
    except ValueError:
        raise Wrong(f"what stands behind the @ is not host:port{ESCAPE}") from None
    expect_no_path(url)
    account = user_and_password(login) if at else None
    return _made(host, port, _TLS[tls], account, url, settings, LmtpTransport)


def _of_provider(url: Url, settings: Any) -> SmtpTransport:
    name = url.scheme.partition("+")[0]
    provider = PROVIDERS[name]
    expect_no_path(url)
    expect_options(url, *_OPTIONS, *(["region"] if "{region}" in provider.host else []))
    host = _host_of(provider, url.options.get("region", provider.region))
    if provider.user is None:
        login = user_and_password(url.authority)
    else:
        key = key_of(url)
        login = provider.user.format(key=key), key
    return _made(host, _PORTS[STARTTLS], STARTTLS, login, url, settings)


def _host_of(provider: Provider, region: str | None) -> str:
    if "{region}" not in provider.host:
        return provider.host
    if provider.hosts is not None:
        if region is None or region not in provider.hosts:
            raise Wrong(f"region must be one of {', '.join(provider.hosts)}")
        return provider.hosts[region]
    if not region or not re.fullmatch(r"[a-z0-9-]+", region):
        raise Wrong("the option region is missing or none, such as region=eu-west-1")
    return provider.host.format(region=region)


def _made(
    host: str,
    port: int,
    security: str,
    login: tuple[str, str] | None,
    url: Url,
    settings: Any,
    kind: type[SmtpTransport] = SmtpTransport,
) -> SmtpTransport:
    options = url.options
    timeout = options.get("timeout")
    try:
        return kind(
            host,
            port,
            security=security,
            login=login,
            ca_file=options.get("ca_file", settings.ca_file),
            pin=options.get("pin"),
            cert_file=options.get("cert_file"),
            key_file=options.get("key_file"),
            source=address(options.get("source")),
            hostname=options.get("hostname", settings.hostname),
            label=label(options.get("name")),
            timeouts=Timeouts.of(settings.timeout if timeout is None else seconds(timeout)),
        )
    except ValueError as error:
        raise Wrong(str(error)) from None


_OPTIONS = ("ca_file", "cert_file", "hostname", "key_file", "name", "pin", "source", "timeout")
_SCHEMES: dict[str, Callable[[Url, Any], Transport]] = {
    "smtp": _smtp,
    "smtps": _smtps,
    "lmtp": _lmtp,
    **API_SCHEMES,
}

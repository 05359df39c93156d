"""Reading host and port of a server."""

from __future__ import annotations

import re

_SERVER = re.compile(
    r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<host>[^\s:/@\[\]\x00-\x1f\x7f]+))(:(?P<port>[0-9]{0,5}))?"
)


def host_and_port(text: str, default_port: int) -> tuple[str, int]:
    """Read host, host:port, [IPv6] or [IPv6]:port.

    Raises:
        ValueError: it is none of these. The error does not show the text, which may hold a login.
    """
    parts = _SERVER.fullmatch(text)
    port = int(parts["port"] or default_port) if parts else 0
    if not parts or not 0 < port < 65536:
        raise ValueError("expected host:port")
    return parts["address"] or parts["host"], port

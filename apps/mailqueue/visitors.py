"""Which network address a visitor has, as far as that cannot be forged."""

from __future__ import annotations

import ipaddress


def network_of(remote: str | None, forwarded: str | None, proxies: int | None) -> str | None:
    """The network address of a request's visitor: an IPv4 address, or an IPv6 network of 64 bits.

    Args:
        remote: REMOTE_ADDR, who has connected.
        forwarded: X-Forwarded-For, in which whoever passes a request on adds whom it was called by.
        proxies: how many proxies of the site's own stand before it. None: the last entry is believed where
            the request comes from a private address, since it is the entry of the proxy there.

    Returns:
        None where visitors cannot be told apart: no address, or a proxy on this machine that adds none.
    """
    peer = _address(remote)
    told = [part.strip() for part in (forwarded or "").split(",") if part.strip()]
    if proxies is None:
        proxies = 1 if told and (peer is None or peer.is_private) else 0
    if proxies:
        found = _address(told[-proxies]) if len(told) >= proxies else None
    else:
        found = None if peer is None or peer.is_loopback else peer
    if found is None:
        return None
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

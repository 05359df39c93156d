"""Who a request of py4web's comes from."""

from __future__ import annotations

from py4web import request

from ..visitors import network_of


def client(proxies: int | None) -> str | None:
    """The network address of the visitor of this request, as visitors.network_of() finds it.

    Args:
        proxies: how many proxies of the site's own stand before it; None: see there.
    """
    environ = request.environ or {}
    return network_of(environ.get("REMOTE_ADDR"), environ.get("HTTP_X_FORWARDED_FOR"), proxies)

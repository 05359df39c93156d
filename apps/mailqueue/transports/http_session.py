"""An HTTP session that says when a request goes out, and that never takes a message elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from requests import Response, Session
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

AboutToSend = Callable[[], None]


class ApiSession(Session):
    """A session of `requests` for one API.

    It follows no redirect: whoever sends one would get the key and the mail.

    Args:
        about_to_send: called right before the first byte of each request, when the connection stands and is
            secured; behind a proxy, before the proxy is asked. Where it raises, nothing is sent.
    """

    def __init__(self, about_to_send: AboutToSend):
        super().__init__()
        for scheme in ("https://", "http://"):
            self.mount(scheme, _Adapter(about_to_send))

    def request(self, *arguments: Any, **options: Any) -> Response:
        """As in `requests`, without redirects."""
        return super().request(*arguments, **{**options, "allow_redirects": False})


class _Adapter(HTTPAdapter):
    def __init__(self, about_to_send: AboutToSend):
        self._about_to_send = about_to_send
        super().__init__(max_retries=0)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _pools(self._about_to_send)

    def proxy_manager_for(self, *arguments: Any, **options: Any) -> Any:
        self._about_to_send()
        return super().proxy_manager_for(*arguments, **options)


def _pools(about_to_send: AboutToSend) -> dict[str, type[HTTPConnectionPool]]:
    """Pools of connections that stand before they say so."""

    class Plain(HTTPConnection):
        def request(self, *arguments: Any, **options: Any) -> None:
            if self.sock is None:
                self.connect()
            about_to_send()
            super().request(*arguments, **options)

    class Secured(HTTPSConnection):
        def request(self, *arguments: Any, **options: Any) -> None:
            if self.sock is None:
                self.connect()
            about_to_send()
            super().request(*arguments, **options)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecuredPool(HTTPSConnectionPool):
        ConnectionCls = Secured

    return {"http": PlainPool, "https": SecuredPool}

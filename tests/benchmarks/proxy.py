"""A network that is far away: python proxy.py LISTEN_PORT UPSTREAM_PORT RTT_MS.

Half the round-trip time is added to each chunk each way; order is kept, bandwidth is unlimited.
The TCP handshake is modelled too: a client sees the banner two round trips after it began to
connect, as over a real link. select() instead of epoll, whose timer counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import socket
import sys
from collections import deque


class Side(asyncio.Protocol):
    """One end: what comes in here goes out at `peer`, later. None in the queue stands for its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, peer: Side | None = None):
        self.loop, self.delay, self.peer = loop, delay, peer
        self.transport: asyncio.Transport | None = None
        self.waiting: deque[tuple[float, bytes | None]] = deque()
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=1 << 24)

    def data_received(self, data: bytes) -> None:
        self._push(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._push(None)

    def _push(self, item: bytes | None) -> None:
        self.waiting.append((self.loop.time() + self.delay, item))
        if self.timer is None:
            self.timer = self.loop.call_at(self.waiting[0][0], self._flush)

    def _flush(self) -> None:
        if self.peer is None or self.peer.transport is None:  # the other end is not there yet
            self.timer = self.loop.call_later(self.delay, self._flush)
            return
        now = self.loop.time() + 2e-5
        while self.waiting and self.waiting[0][0] <= now:
            _, item = self.waiting.popleft()
            if item is None:
                self.peer.transport.close()
            elif not self.peer.transport.is_closing():
                self.peer.transport.write(item)
        self.timer = self.loop.call_at(self.waiting[0][0], self._flush) if self.waiting else None


class Client(Side):
    """The end at the client."""

    def __init__(self, loop: asyncio.AbstractEventLoop, delay: float, upstream: int):
        super().__init__(loop, delay)
        self.upstream = upstream

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.loop.call_later(3 * self.delay, lambda: self.loop.create_task(self._dial()))

    async def _dial(self) -> None:
        server = Side(self.loop, self.delay, self)
        try:
            await self.loop.create_connection(lambda: server, "127.0.0.1", self.upstream)
        except OSError:
            assert self.transport
            self.transport.close()
            return
        self.peer = server


async def main(listen: int, upstream: int, rtt_ms: float) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    make = functools.partial(Client, loop, rtt_ms / 2000.0, upstream)
    server = await loop.create_server(make, "127.0.0.1", listen, backlog=512)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    own_loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    own_loop._clock_resolution = 1e-6  # type: ignore[attr-defined]
    own_loop.run_until_complete(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

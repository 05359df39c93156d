"""The transports that one connection holds: one for each way that its messages have taken."""

from __future__ import annotations

from .delivery import close
from .transports.base import Following, Transport
from .way import Way


class Lines:
    """Transports, open or not.

    Args:
        way: the first.
        transport: taken from it.

    Attributes:
        at_work: the way of the message at hand.
    """

    def __init__(self, way: Way, transport: Transport):
        self.at_work = way
        self._transports = {way: transport}

    def by(self, way: Way, following: Following) -> Transport:
        """The transport of a way, for the message at hand.

        Args:
            following: what more is known to follow.

        Raises:
            Exception: none can be made.
        """
        if way not in self._transports:
            self._transports[way] = way.take_transport()
        self.at_work = way
        self._transports[way].following = following
        return self._transports[way]

    def others_have(self, way: Way) -> bool:
        """Whether other connections have a transport of this way."""
        return way.holders > int(way in self._transports)

    def leave(self, way: Way) -> None:
        """Close the transport of a way that does not work."""
        transport = self._transports.pop(way, None)
        if transport:
            way.drop(transport)

    def close(self) -> None:
        """Close all transports; they may be opened again."""
        for transport in self._transports.values():
            close(transport)

    def give_back(self) -> None:
        """Leave all transports, in good order, to other connections."""
        while self._transports:
            way, transport = next(iter(self._transports.items()))
            transport.following = None
            way.give_back(transport)
            del self._transports[way]

    def drop(self) -> None:
        """Close all transports for good."""
        for way in list(self._transports):
            self.leave(way)

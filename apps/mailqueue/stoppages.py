"""What a pause of a transport, or settings that make none, mean for the mail: whether it waits, and which.

All of it is told from the settings and the tables: nothing is connected to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from . import queries, words
from .limits import domain_of
from .mailer import MailQueue
from .transports.plan import Parcel, Spec, order
from .ways import domain_of_sender

# What becomes of the mail, the worst first.
ALL_WAITS: Final = "all waits"
A_ROUTE_WAITS: Final = "a route waits"
OTHERS_SEND: Final = "others send"
_EXTENTS = (ALL_WAITS, A_ROUTE_WAITS, OTHERS_SEND)


class Passage:
    """Which of a site's ways out are open.

    Args:
        mail: the site's.
        closed: the names of the transports that cannot be used now.
    """

    def __init__(self, mail: MailQueue, closed: Collection[str]):
        self._plan, self._names = mail.known_ways()
        self._closed = closed
        self._sender_domain = domain_of_sender(mail.site.sender())

    def extent(self, concerned: Collection[str]) -> str:
        """What it means for the mail that some transports cannot be used.

        Args:
            concerned: their names; "" stands for those that cannot even be made.
        """
        if self._is_single:
            return ALL_WAITS
        stopped = [spec for spec in self._plan.specs if self._is_stopped(order(spec, 0), concerned)]
        if self._plan.usual in stopped:
            return ALL_WAITS
        return A_ROUTE_WAITS if stopped else OTHERS_SEND

    @property
    def _is_single(self) -> bool:
        return len(self._plan.leaves) == 1

    def _is_stopped(self, leaves: Iterable[Spec], concerned: Collection[str]) -> bool:
        names = [self._names.get(leaf, "") for leaf in leaves]
        return not self._is_any_open(names) and any(name in concerned for name in names)

    def _is_any_open(self, names: Iterable[str]) -> bool:
        return any(name and name not in self._closed for name in names)

    def is_shut_for(self, message: dict[str, Any]) -> bool:
        """Whether there is no way for somebody who waits for a message.

        Args:
            message: what queries.message() returned.
        """
        if self._is_single:
            return True
        domains = {domain_of(row["address"] or "") for row in message["recipients_list"] if row["due"]}
        return not all(self._is_any_open(self._ways_of(message, domain)) for domain in domains)

    def _ways_of(self, message: dict[str, Any], domain: str) -> list[str]:
        sender = message["sender"]
        parcel = Parcel(
            number=message["id"],
            category=message["category"],
            sender_domain=domain_of(sender) if sender else self._sender_domain,
            recipient_domain=domain,
        )
        chosen = message["next_transport"]
        known = [chosen] if chosen in self._names.values() else []
        return known + [self._names.get(leaf, "") for leaf in self._plan.order(parcel)]


def stoppages(mail: MailQueue) -> list[dict[str, Any]]:
    """What keeps mail waiting, or another transport busy, now: for banners, the worst first.

    Returns:
        What queries.stoppages() does, each with its "extent".
    """
    found = queries.stoppages(mail.db)
    if not found:
        return []
    paused = _paused(mail)
    passage = Passage(mail, paused)
    for row in found:
        row["extent"] = ALL_WAITS if _is_of_no_way(row) else passage.extent(_concerned(row, paused))
    return sorted(found, key=lambda row: _EXTENTS.index(row["extent"]))


def is_held_up(mail: MailQueue, message: dict[str, Any]) -> bool:
    """Whether a message could not be sent at this moment, were it due.

    Args:
        mail: the site's.
        message: what queries.message() returned.
    """
    found = queries.stoppages(mail.db)
    if not found or any(map(_is_of_no_way, found)):
        return bool(found)
    return Passage(mail, _paused(mail)).is_shut_for(message)


def _paused(mail: MailQueue) -> list[str]:
    return [row["name"] for row in queries.paused_transports(mail.db)]


def _is_of_no_way(row: dict[str, Any]) -> bool:
    """Whether it is nobody at work that mail waits for."""
    return bool(row["cause"].startswith("no-worker@"))


def _concerned(row: dict[str, Any], paused: Collection[str]) -> Collection[str]:
    """The names of the transports that an entry is about; a key stops all that are paused."""
    return paused if row["stage"] == words.BUILD else [row["transport"]]

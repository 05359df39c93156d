"""Limits as a site writes them, and the arithmetic of places in a window: pure functions, without a clock.

A limit of 20 a minute is kept in windows of a minute; the first message opens one. Who finds no
place in the present window is put off to one of the next, behind those who were put off before,
so that a long line is spread over the windows to come and nobody is looked at again and again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from .compose import parse_address
from .errors import BadAddress

TRANSPORT: Final = "transport"  # the entry for every transport that has none of its own
OF_TRANSPORT: Final = "transport:"  # what the entry of one transport begins with, before its name
EVERY_DOMAIN: Final = "*"  # the entry for every recipient domain that has none of its own

SPANS: Final = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
# What one connection is reckoned to get done in a window, so that a long line for few connections is
# put off instead of being kept at hand.
PER_CONNECTION: Final = 50
CONNECTION_WINDOW: Final = 10.0  # seconds

_RATE = re.compile(r"([1-9][0-9]{0,8}) ?(?:/|per) ?(second|minute|hour|day)")
_CONNECTIONS = re.compile(r"([1-9][0-9]{0,3}) connections?")


@dataclass(frozen=True)
class Rate:
    """So many messages in a window of so many seconds."""

    messages: int
    seconds: float

    def __str__(self) -> str:
        unit = next((unit for unit, seconds in SPANS.items() if seconds == self.seconds), None)
        return f"{self.messages}/{unit}" if unit else f"{self.messages} in {self.seconds:g} seconds"


@dataclass(frozen=True)
class Limit:
    """What one entry says.

    Args:
        rates: every one of them holds.
        connections: messages under way at the same moment, of all workers together; None: any number.
    """

    rates: tuple[Rate, ...] = ()
    connections: int | None = None

    def __str__(self) -> str:
        rates = [str(rate) for rate in self.rates]
        return ", ".join(rates if self.connections is None else [*rates, f"{self.connections} connections"])


NO_LIMIT: Final = Limit()


@dataclass(frozen=True)
class Limits:
    """A site's limits.

    Args:
        transport: for all the mail over one transport, each transport counted on its own.
        transports: for those that have an entry of their own, by name.
        every_domain: for each recipient domain that has no entry of its own.
        domains: by domain, lower case, as in DNS (IDNA).
    """

    transport: Limit = NO_LIMIT
    every_domain: Limit = NO_LIMIT
    domains: Mapping[str, Limit] | None = None
    transports: Mapping[str, Limit] | None = None

    def of_transport(self, name: str) -> Limit:
        """The limit of a transport, by its name."""
        return (self.transports or {}).get(name, self.transport)

    def of_domain(self, domain: str) -> Limit:
        """The limit of a recipient domain, as domain_of() gives it."""
        return (self.domains or {}).get(domain, self.every_domain)

    def __bool__(self) -> bool:
        everybodys = self.transport != NO_LIMIT or self.every_domain != NO_LIMIT
        return everybodys or bool(self.domains) or bool(self.transports)


def read_limits(given: Mapping[str, str] | None) -> Limits:
    """What a site configured.

    Args:
        given: entry -> limit, such as {"*": "100/minute, 4 connections", "gmail.com": "20/minute",
            "transport": "500/hour"}; an entry is "transport", "transport:" and the name of one, "*" or
            a recipient domain, a limit one or several of "N/second", "N/minute", "N/hour", "N/day" and
            "N connections".

    Raises:
        ValueError: an entry that makes no sense; the text names it.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"limits is {given!r}, expected a dictionary such as {{'gmail.com': '20/minute'}}")
    read = {_entry(name): _limit(name, text) for name, text in (given or {}).items()}
    if len(read) < len(given or {}):
        raise ValueError("limits names a domain twice")
    transports = {name: read.pop(name) for name in list(read) if name.startswith(OF_TRANSPORT)}
    return Limits(
        read.pop(TRANSPORT, NO_LIMIT),
        read.pop(EVERY_DOMAIN, NO_LIMIT),
        read,
        {name.removeprefix(OF_TRANSPORT): limit for name, limit in transports.items()},
    )


def read_rates(name: str, text: str) -> tuple[Rate, ...]:
    """The rates of one setting, such as "5/hour, 20/day".

    Args:
        name: the setting's, for the error.

    Raises:
        ValueError: it makes no sense, or limits connections.
    """
    expected = f"{name} is {text!r}, expected something like '5/hour, 20/day'"
    try:
        limit = _limit(name, text)
    except ValueError as error:
        raise ValueError(expected) from error
    if limit.connections is not None:
        raise ValueError(expected)
    return limit.rates


def _entry(name: object) -> str:
    expected = (
        f"limits[{name!r}]: expected {TRANSPORT!r}, {EVERY_DOMAIN!r}, a domain such as 'gmail.com',"
        " or a transport such as 'transport:smtps://mail.your-domain.org:465'"
    )
    if not isinstance(name, str):
        raise ValueError(expected)
    if name in (TRANSPORT, EVERY_DOMAIN) or (name.startswith(OF_TRANSPORT) and name != OF_TRANSPORT):
        return name
    try:
        return domain_of(parse_address(f"somebody@{name}").spec)
    except BadAddress as error:
        raise ValueError(expected) from error


def _limit(name: str, text: object) -> Limit:
    rates: dict[float, Rate] = {}
    connections = None
    for part in text.split(",") if isinstance(text, str) else [""]:
        if rate := _RATE.fullmatch(part.strip()):
            seconds = SPANS[rate[2]]
            rates[seconds] = Rate(int(rate[1]), seconds)
        elif found := _CONNECTIONS.fullmatch(part.strip()):
            connections = int(found[1])
        else:
            raise ValueError(
                f"limits[{name!r}] is {text!r}, expected something like '20/minute, 500/hour, 4 connections'"
            )
    return Limit(tuple(rates.values()), connections)


def domain_of(address: str) -> str:
    """The domain of a stored address, which has it as in DNS already; "" for a damaged one."""
    return address.rpartition("@")[2].lower()


# --- places in windows ---------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """How much of a rate is taken.

    Args:
        opened_on: when the present window began, or is to begin; epoch seconds.
        taken: places taken in it.
        line: messages that were put off to the windows after it.
    """

    opened_on: float
    taken: int = 0
    line: int = 0


def present(window: Window | None, rate: Rate, now: float) -> Window:
    """The window at a moment: the stored one, or the one that has followed it.

    A window that is further ahead than one can be was opened by a clock that was wrong.
    """
    if window is None or window.opened_on > now:
        return Window(now)
    passed = int((now - window.opened_on) // rate.seconds)
    if not passed:
        return window
    line = max(window.line - passed * rate.messages, 0)
    # While some wait the windows follow each other; without any the next message opens one.
    return Window(window.opened_on + passed * rate.seconds if line else now, 0, line)


def next_place(window: Window, rate: Rate, now: float, *, jumps_line: bool = False) -> float:
    """When the next message has a place, epoch seconds; `now` or earlier: at once.

    Args:
        window: the present one.
        jumps_line: whether it goes before all who were put off, in the next window.
    """
    if window.taken < rate.messages:
        return now
    windows_ahead = 1 + (0 if jumps_line else window.line // rate.messages)
    return window.opened_on + windows_ahead * rate.seconds


def take(window: Window) -> Window:
    """The window with one more place taken."""
    return replace(window, taken=window.taken + 1)


def put_off(window: Window) -> Window:
    """The window with one more message in the line behind it."""
    return replace(window, line=window.line + 1)


def without_the_gone(window: Window, rate: Rate, last: float | None) -> Window:
    """The window with a line that is no longer than the last in it waits: those behind were cancelled.

    Args:
        last: when the last who waits has a place, epoch seconds; None: nobody waits.
    """
    windows = 0 if last is None else max(math.ceil((last - window.opened_on) / rate.seconds), 0)
    return replace(window, line=min(window.line, windows * rate.messages))


def over_on(window: Window, rate: Rate) -> float:
    """When nothing of a window matters any more, epoch seconds."""
    return window.opened_on + (1 + -(-window.line // rate.messages)) * rate.seconds


def places_for(connections: int) -> Rate:
    """What so many connections are reckoned to get done."""
    return Rate(connections * PER_CONNECTION, CONNECTION_WINDOW)


def share(whole: int, workers: int, rank: int) -> int:
    """What one of several workers has of so many connections; none for some where there are too few.

    Args:
        workers: how many are at work, at least one.
        rank: which of them this is, from 0.
    """
    return whole // workers + (rank < whole % workers)

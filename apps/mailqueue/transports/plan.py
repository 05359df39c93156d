"""Which transports a message may take, in which order: preference, balance, and routes.

    transports=[failover("smtp://a…", roundrobin("smtp://b…", "smtp://c…", weights=(3, 1)))]
    routes=[route("ses+smtp://…", category="auth"), route("smtp://…", recipient_domain="x.test")]

None of this raises when a site loads: what makes no sense is a SiteFault once a plan is made of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from types import NoneType
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast

from ..classify import SiteFault
from ..compose import parse_address
from ..errors import BadAddress
from .base import Transport

HEAVIEST = 1000  # weight

_Given = ParamSpec("_Given")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Mistyped:
    """Stands for a part of a plan whose arguments cannot be understood.

    Args:
        said: what is wrong with them, without secrets.
    """

    said: str


@dataclass(frozen=True)
class Failover:
    """The first of these that takes the message."""

    members: tuple[Spec, ...]

    def __repr__(self) -> str:
        """Without secrets."""
        return f"failover({', '.join(map(_shown, self.members))})"


@dataclass(frozen=True)
class RoundRobin:
    """These in turn, by their weights; where one fails, the next."""

    members: tuple[Spec, ...]
    weights: tuple[int, ...]

    def __repr__(self) -> str:
        """Without secrets."""
        return f"roundrobin({', '.join(map(_shown, self.members))}, weights={self.weights})"


Spec: TypeAlias = "str | Callable[[], Transport] | Failover | RoundRobin | Mistyped"


@dataclass(frozen=True)
class Route:
    """Which messages go out over transports of their own; a field that is None fits every message."""

    to: Spec
    category: str | None
    sender_domain: str | None
    recipient_domain: str | None

    def __repr__(self) -> str:
        """Without secrets."""
        fields = ("category", "sender_domain", "recipient_domain")
        given = [f"{name}={getattr(self, name)!r}" for name in fields if getattr(self, name) is not None]
        return f"route({', '.join([_shown(self.to), *given])})"


@dataclass(frozen=True)
class Parcel:
    """What a route and a turn go by.

    Args:
        number: the message's id.
        category: its category.
        sender_domain, recipient_domain: in lower case.
    """

    number: int
    category: str | None
    sender_domain: str
    recipient_domain: str


def _forgiving(make: Callable[_Given, _Made]) -> Callable[_Given, _Made]:
    """Have arguments that cannot be understood keep no site from starting: the plan tells of them."""

    @wraps(make)
    def made(*arguments: _Given.args, **keywords: _Given.kwargs) -> _Made:
        try:
            return make(*arguments, **keywords)
        except TypeError as error:
            return cast(_Made, Mistyped(str(error)))

    return made


@_forgiving
def failover(*members: Spec) -> Failover:
    """Transports in order of preference: where one surely did not send a message, the next takes it at once.

    Args:
        members: URLs, functions that make a transport, and what failover() and roundrobin() give.
    """
    return Failover(members)


@_forgiving
def roundrobin(*members: Spec, weights: Sequence[int] | None = None) -> RoundRobin:
    """Transports that take turns, message by message; where one fails, the next takes its message.

    Args:
        members: as for failover().
        weights: how many messages each takes in its turn; by default one each.
    """
    given = (1,) * len(members) if weights is None else weights
    in_order = isinstance(given, (list, tuple)) and all(map(_is_weight, given))
    if not in_order or len(given) != len(members):
        raise TypeError(f"roundrobin needs one weight from 1 to {HEAVIEST} for each member, in a list")
    return RoundRobin(members, tuple(given))


@_forgiving
def route(
    to: Spec,
    *,
    category: str | None = None,
    sender_domain: str | None = None,
    recipient_domain: str | None = None,
) -> Route:
    """Messages that go out over transports of their own: those that all the given fields fit.

    Args:
        to: as for failover(). Where it cannot be used the message waits: it is not sent another way.
        category: the message's category.
        sender_domain: the domain of its envelope sender.
        recipient_domain: the domain of the recipient; a message to several is parted.
    """
    return Route(to, category, sender_domain, recipient_domain)


@dataclass(frozen=True)
class Plan:
    """All the ways out of a site.

    Args:
        usual: for what no route is for.
        routes: the first that fits a message is its own.
        place: the setting of the mailer that holds the usual ones; "" is the single server.
    """

    usual: Spec
    routes: tuple[Route, ...] = ()
    place: str = ""

    @classmethod
    def of(cls, transports: Any, routes: Any, place: str = "transports=") -> Plan:
        """The plan that a mailer's settings describe.

        Raises:
            SiteFault: they describe none.
        """
        members = _sequence("transports", transports)
        plan = cls(Failover(members), _sequence("routes", routes or ()), place)
        for found in plan.routes:
            if isinstance(found, Mistyped):
                raise SiteFault("bad-transport", found.said)
            if not isinstance(found, Route):
                raise SiteFault("bad-transport", f"routes holds {type(found).__name__}, expected route(…)")
            _check_category(found.category)
            _check_domain("sender_domain", found.sender_domain)
            _check_domain("recipient_domain", found.recipient_domain)
        for spec in plan.specs:
            _check(spec)
        return plan

    @property
    def specs(self) -> tuple[Spec, ...]:
        """The usual transports, and those of each route."""
        return (self.usual, *(found.to for found in self.routes))

    @property
    def leaves(self) -> tuple[Spec, ...]:
        """Every URL and function in it, each once, in order of preference."""
        return tuple(dict.fromkeys(leaf for spec in self.specs for leaf in order(spec, 0)))

    def place_of(self, leaf: Spec) -> str:
        """The setting of the mailer that a URL or function of the plan stands in; "" is the single server."""
        return self.place if leaf in order(self.usual, 0) else "routes="

    def route_of(self, parcel: Parcel) -> Spec:
        """The transports of a message to one domain."""
        fitting = (found.to for found in self.routes if _fits(found, parcel))
        return next(fitting, self.usual)

    def order(self, parcel: Parcel) -> tuple[Spec, ...]:
        """The URLs and functions to try for a message, one after the other."""
        return tuple(dict.fromkeys(order(self.route_of(parcel), parcel.number)))


def order(spec: Spec, number: int) -> list[Spec]:
    """The URLs and functions in a part of a plan, in the order in which to try them.

    Args:
        number: the message's id: its turn depends on nothing else, so that each worker knows it.
    """
    if isinstance(spec, Failover):
        return [leaf for member in spec.members for leaf in order(member, number)]
    if isinstance(spec, RoundRobin):
        turns = [place for place, weight in enumerate(spec.weights) for _ in range(weight)]
        first, further = turns[number % len(turns)], number // len(turns)
        members = (*spec.members[first:], *spec.members[:first])
        return [leaf for member in members for leaf in order(member, further)]
    return [spec]


def _fits(found: Route, parcel: Parcel) -> bool:
    return (
        found.category in (None, parcel.category)
        and (found.sender_domain or parcel.sender_domain).lower() == parcel.sender_domain
        and (found.recipient_domain or parcel.recipient_domain).lower() == parcel.recipient_domain
    )


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise SiteFault("bad-transport", f"{name} is {type(value).__name__}, expected a list")
    return tuple(value)


def _check(spec: Spec) -> None:
    if isinstance(spec, Mistyped):
        raise SiteFault("bad-transport", spec.said)
    if not isinstance(spec, (Failover, RoundRobin)):
        _check_leaf(spec)
        return
    if not spec.members:
        raise SiteFault("bad-transport", f"{type(spec).__name__.lower()} has no member")
    for member in spec.members:
        _check(member)


def _check_leaf(spec: object) -> None:
    try:
        hash(spec)
    except TypeError:
        raise SiteFault(
            "bad-transport",
            f"a {type(spec).__name__} stands where a URL or a function that makes a transport is expected:"
            ' several are written one after the other, as in failover("smtp://a…", "smtp://b…")',
        ) from None


def _check_category(category: object) -> None:
    if not isinstance(category, (str, NoneType)):
        raise SiteFault("bad-transport", f"route: category is {type(category).__name__}, expected one word")


def _check_domain(name: str, domain: object) -> None:
    """Refuse what is no domain as stored addresses have it, and so would never fit."""
    if domain is None or domain == "":
        return
    try:
        found = parse_address(f"somebody@{domain}").spec.rpartition("@")[2].lower()
    except BadAddress:
        found = "your-domain.org"
    if not isinstance(domain, str) or domain.lower() != found:
        raise SiteFault(
            "bad-transport", f"route: {name} is {domain!r}, expected a domain as in DNS: {found!r}"
        )


def _shown(spec: object) -> str:
    """A part of a plan without user names, passwords and keys."""
    if isinstance(spec, (Failover, RoundRobin, Route)):
        return repr(spec)
    if not isinstance(spec, str):
        return str(getattr(spec, "__qualname__", type(spec).__name__))
    scheme, _, rest = spec.partition("://")
    if not re.fullmatch("[A-Za-z0-9+.-]+", scheme):
        return repr("…")
    _, at, server = rest.rpartition("@")
    return repr(f"{scheme}://…{at}{server if at else ''}")


def _is_weight(weight: object) -> bool:
    return isinstance(weight, int) and 1 <= weight <= HEAVIEST

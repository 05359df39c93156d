"""The ways out of one drain: which of them a message may take, and in which order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import dropwhile

from . import outbox, problems, rulebook, words
from .classify import Failure, classify_exception
from .compose import parse_address
from .errors import BadAddress
from .kept import KeptTransports
from .limits import domain_of
from .outbox import Claimed, Pending
from .own_rules import OwnRule
from .signing.faults import OF_KEYS
from .site import Site
from .transports.plan import Parcel, Plan, Spec
from .way import Way, report

# Of the recipient's mailbox, or for the same transport to put right, or of the message's keys.
_NOT_ELSEWHERE = frozenset({"mailbox-full", "storage-full", "too-many-recipients"}) | OF_KEYS
# Limits of a transport that are no fault of it: another one may do better.
OF_THE_TRANSPORT = frozenset({"smtputf8-not-offered", "too-big", "not-supported", "attachment-refused"})
# What is to be seen as the transport's own, and pauses it, where another one takes the mail meanwhile.
EXHAUSTED = frozenset({"sending-limit"})


def another_may(failure: Failure) -> bool:
    """Whether another transport may be given a message at once that this one failed to deliver.

    Only if it was surely not sent, and if neither the recipient nor the message is at fault.
    """
    if failure.rule in OF_THE_TRANSPORT:
        return failure.surely_not_sent
    passing = failure.kind in (words.CONFIGURATION, words.TRANSIENT)
    return passing and failure.surely_not_sent and failure.rule not in _NOT_ELSEWHERE


class Ways:
    """The ways out of one drain. Uses the site's DAL, and commits on it, but for of(), first() and the like.

    Args:
        site: whose mail it is.
        kept: where to take open transports from and to leave them; None: they are not kept.
    """

    def __init__(self, site: Site, kept: KeptTransports | None):
        self._site, self._kept, self._db = site, kept, site.db
        self._plan = Plan(site.make_transport)
        self._ways: dict[Spec, Way] = {}
        self._only: Way | None = None  # the one that all messages go
        self._sender_domain = ""
        self._all_known = False
        self.rules: Sequence[OwnRule] = ()  # of the site's administrators; those of this drain

    @property
    def names(self) -> list[str]:
        """The transports' names."""
        return [way.name for way in self._ways.values()]

    @property
    def usable(self) -> bool:
        """Whether messages may still be begun."""
        return any(way.usable for way in self._ways.values())

    @property
    def probing(self) -> bool:
        """Whether there is no way but those that one message is to probe."""
        return all(way.probing for way in self._ways.values() if way.usable)

    # --- before the first message ----------------------------------------------------------

    def ready(self, stop: threading.Event | None) -> bool:
        """Whether there is mail to send, and a transport admits it and opens.

        Args:
            stop: when it is set, no server is waited for any more.
        """
        self._sender_domain = domain_of_sender(self._site.sender())
        self._all_known = self._make_ways()
        self.rules = rulebook.rules(self._db)
        if not self._ways:
            return False
        now = self._site.clock()
        self._attend_to_problems(now)
        work = self._admit(now, work=self._is_any_due(now))
        self._db.commit()
        return self._open(work, stop) and (work or self._is_any_due(now))

    def _is_any_due(self, now: float) -> bool:
        due = outbox.next_due(self._db)
        return due is not None and due <= now

    def _admit(self, now: float, *, work: bool) -> bool:
        """Find out which may be used. Whether there is mail to send, if only for a probe."""
        for way in self._ways.values():
            way.admit(now, work=work)
        if work or not any(way.probing for way in self._ways.values()):
            return work
        outbox.wake_held(self._db, now)  # what waits for a repair is to show whether it is made
        if not self._is_any_due(now):
            return False
        for way in self._ways.values():
            if not way.usable:
                way.admit(now, work=True)
        return True

    def _make_ways(self) -> bool:
        """Make the transports, as far as that can be done. Whether all of them could be."""
        try:
            self._plan, make = self._site.ways_out()
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            report(self._site, classify_exception(words.CONFIG, error), "")
            return False
        found = {leaf: Way(self._site, self._kept, partial(make, leaf)) for leaf in self._plan.leaves}
        self._ways = {leaf: way for leaf, way in found.items() if way.know() and self._is_only(way, found)}
        if len(self._ways) == 1 and not self._plan.routes:
            self._only = next(iter(self._ways.values()))
        for way in self._ways.values():
            way.beside = [other.settings for other in self._ways.values() if other is not way]
        return len(self._ways) == len(found)

    def _is_only(self, way: Way, found: Mapping[Spec, Way]) -> bool:
        """Whether no way before it has its name: their pauses could not be told apart."""
        first = next(other for other in found.values() if other.name == way.name)
        if first is way:
            return True
        text = f"two transports are called {way.name}: give one of them a name of its own, ?name=…"
        report(self._site, Failure(words.CONFIGURATION, words.CONFIG, "bad-transport", text), "")
        return False

    def _attend_to_problems(self, now: float) -> None:
        if not problems.any_open(self._db):
            return
        if self._all_known:
            problems.resolve_settings(self._db, now)
        problems.resolve_others(self._db, [way.name for way in self._ways.values()], now)
        for way in self._ways.values():
            way.note_settings(now)
        self._db.commit()

    def _open(self, work: bool, stop: threading.Event | None) -> bool:
        """Open one that works, or else those that are to be probed.

        The others are opened by the connections, as messages need them: nobody waits for them here.
        """
        usable = [way for way in self._ways.values() if way.usable]
        if work and any(way.open(stop, self._if_late(way)) for way in usable if not way.probing):
            return True
        probed = [way.open(stop) for way in usable if way.probing]
        return any(probed)

    def _if_late(self, way: Way) -> Callable[[], None]:
        """What to do where a way takes long to open; of several nobody knows how much mail goes which."""
        return way.call_up if way is self._only else lambda: None

    # --- which way, from any thread --------------------------------------------------------

    def of(self, claimed: Claimed) -> Iterator[Way]:
        """The ways for a message, one after the other, of those that may be used at that moment."""
        return (way for way in self._order(claimed) if way.enter())

    def first(self, claimed: Claimed) -> Way | None:
        """The way that a message will surely be tried by first, as it seems now."""
        order = (self._only,) if self._only else self._order(claimed)
        for way in order:
            if way.usable and not way.probing:
                return way
        return None

    def is_only(self, way: Way) -> bool:
        """Whether all messages go this way, and no other."""
        return way is self._only

    def has_any(self, claimed: Claimed) -> bool:
        """Whether there is a way for a message at the moment."""
        return any(way.usable for way in self._order(claimed))

    def is_any_paused(self, claimed: Claimed) -> bool:
        """Whether a message has ways that may not be used at the moment, or cannot be made."""
        known = [self._ways.get(leaf) for leaf in self._plan.order(self._first_parcel(claimed))]
        is_passed_over = set(known).difference(self._order(claimed))
        return any(way is None or not way.usable or way in is_passed_over for way in known)

    def usable_names(self, claimed: Claimed) -> list[str]:
        """The transports that may take a message at the moment, in their order."""
        return [way.name for way in self._order(claimed) if way.usable]

    def _order(self, claimed: Claimed) -> list[Way]:
        """The ways for a message, those left out that come before the one where it has a place."""
        if self._only:
            return [self._only]
        order = self._plan.order(self._first_parcel(claimed))
        usual = [self._ways[leaf] for leaf in order if leaf in self._ways]
        chosen = [way for way in self._ways.values() if way.name == claimed.next_transport]
        ways = [*chosen, *(way for way in usual if way not in chosen)] if chosen else usual
        if claimed.place is None:
            return ways
        return list(dropwhile(lambda way: way.name != claimed.place, ways))

    def _first_parcel(self, claimed: Claimed) -> Parcel:
        return self._parcel(claimed, claimed.recipients[0] if claimed.recipients else None)

    def narrowed(self, claimed: Claimed) -> Claimed:
        """The message to those recipients only whom the same servers can take as the first of them."""
        if len(claimed.recipients) < 2:
            return claimed
        needs = [self._needs(claimed, one) for one in claimed.recipients]
        same = (one for one, need in zip(claimed.recipients, needs, strict=True) if need == needs[0])
        return claimed._replace(recipients=tuple(same))

    def _needs(self, claimed: Claimed, recipient: Pending) -> tuple[object, bool]:
        """The route, and whether any server will do or only one that offers SMTPUTF8."""
        return self._plan.route_of(self._parcel(claimed, recipient)), recipient.address.isascii()

    def _parcel(self, claimed: Claimed, recipient: Pending | None) -> Parcel:
        return Parcel(
            number=claimed.id,
            category=claimed.category,
            sender_domain=domain_of(claimed.sender) if claimed.sender else self._sender_domain,
            recipient_domain=domain_of(recipient.address) if recipient else "",
        )

    # --- what became of it -----------------------------------------------------------------

    def preferred(self) -> Way:
        """The way that a further connection is to begin with."""
        ways = list(self._ways.values())
        return next((way for way in ways if way.usable), ways[0])

    def block(self, failure: Failure) -> None:
        """Pause all transports, for what is the fault of none of them."""
        for way in self._ways.values():
            way.block(failure)

    def settle(self, lasting: Collection[str]) -> None:
        """After sending: what was reported and makes no message wait any more is resolved.

        Args:
            lasting: rules of what is known to be wrong still, though of no transport.
        """
        for way in self._ways.values():
            way.settle(besides=("",) if self._all_known else (), lasting=lasting)

    def close(self) -> None:
        """End what was opened and no connection took."""
        for way in self._ways.values():
            way.close()


def domain_of_sender(sender: str) -> str:
    """The domain of a site's sender, "Name <a@b>" or "a@b"; "" where that is none."""
    try:
        return domain_of(parse_address(sender).spec) if sender else ""
    except BadAddress:
        return ""

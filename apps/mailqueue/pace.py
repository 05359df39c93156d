"""How fast one drain may send: holds back what is over a limit, and learns from what servers say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence

from . import database, leases, ledger, outbox, words
from .classify import Failure
from .ledger import Ledger, name_of_domain, name_of_transport
from .lessons import Lesson, Wish, learn, wish_in
from .limits import Limit, domain_of, share
from .outbox import Claimed, HeldBack, Pending
from .site import Site
from .transports.base import Answer

LOOK_SECONDS = 0.25  # between two looks for lessons of other workers, where there are none in force
ELSEWHERE = 10.0  # seconds for which mail is left to the workers that have the connections for it


class Pace:
    """The limits of one drain, and what it hears. Uses the site's DAL, and commits on it.

    Args:
        site: whose mail it is.
        worker_id: the worker's row.
        transports: the names of the transports that this drain sends over.
        usable: gives those that may take a message at the moment, in their order.
    """

    def __init__(
        self,
        site: Site,
        worker_id: int,
        transports: Sequence[str],
        usable: Callable[[Claimed], Sequence[str]],
    ):
        self._site, self._db, self._limits = site, site.db, site.limits
        self._worker_id, self._transports, self._usable = worker_id, transports, usable
        self._limited = bool(site.limits)
        self._workers, self._rank = 1, 0
        self._free_until = float("-inf")  # on time.monotonic()
        self._known: Collection[str] = ()
        self._wishes: dict[str, list[Wish]] = {}
        self._taken: Counter[str] = Counter()
        self._elsewhere_taken: Counter[str] = Counter()  # transports: where messages had no place
        if self._limited:
            self._count_workers()
            self._db.commit()

    # --- connections -----------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """How many connections this worker may have; other workers have the rest of the limit.

        Each of them may have a session with every transport, so that the narrowest decides.
        """
        limits = (self._limits.of_transport(name).connections for name in self._transports)
        whole = min((limit for limit in limits if limit is not None), default=None)
        return self._site.connections if whole is None else share(whole, self._workers, self._rank)

    def has_room(self, claimed: Claimed, at_work: Iterable[Claimed]) -> bool:
        """Whether a message may be begun beside those that are at work in this worker."""
        if not self._limited:
            return True
        busy = Counter(domain for other in at_work for domain in _domains(other.recipients))
        return all(
            (whole := self._limits.of_domain(domain).connections) is None
            or busy[domain] < max(share(whole, self._workers, self._rank), 1)
            for domain in _domains(claimed.recipients)
        )

    def _count_workers(self) -> None:
        self._workers, self._rank = leases.place_among(self._db, self._worker_id, self._site.clock())

    # --- places ----------------------------------------------------------------------------

    def admit(self, claims: Sequence[Claimed]) -> list[Claimed]:
        """Hold back what has no place now. Commits.

        Returns:
            What may be sent now: of a message to several domains, the recipients that may.
        """
        if not claims:
            return []
        if time.monotonic() < self._free_until:
            return list(claims)
        lessons = ledger.lessons(self._db)
        self._known = set(lessons)
        if self._limited:
            self._count_workers()
        self._db.commit()
        if not self._limited and not any(lesson.strikes for lesson in lessons.values()):
            self._free_until = time.monotonic() + LOOK_SECONDS
            return list(claims)
        now = self._site.clock()
        bounds = self._bounds(claims, lessons)
        if not any(limit.rates or limit.connections or lesson for limit, lesson in bounds.values()):
            return list(claims)
        database.begin(self._db)
        ledger.pass_gate(self._db)
        if not leases.hold(self._db, self._worker_id):  # its claims are another's by now
            self._db.rollback()
            return []
        book = Ledger(self._db, bounds, now)
        going, held = self._split(claims, book, now)
        book.store()
        outbox.hold_back(
            self._db, held, gone=[one for one in claims if one.id not in {go.id for go in going}]
        )
        self._db.commit()
        return going

    def _bounds(
        self, claims: Iterable[Claimed], lessons: dict[str, Lesson]
    ) -> dict[str, tuple[Limit, Lesson | None]]:
        in_force = {name: lesson for name, lesson in lessons.items() if lesson.strikes}
        bounds = {}
        for transport in self._transports:
            name = name_of_transport(transport)
            bounds[name] = self._limits.of_transport(transport), in_force.get(name)
        for domain in {domain for claimed in claims for domain in _domains(claimed.recipients)}:
            name = name_of_domain(domain)
            bounds[name] = self._limits.of_domain(domain), in_force.get(name)
        return bounds

    def _split(
        self, claims: Iterable[Claimed], book: Ledger, now: float
    ) -> tuple[list[Claimed], list[HeldBack]]:
        going, held = [], []
        for claimed in claims:
            place, until = self._place(claimed, book)
            if place and until > now:
                name = name_of_transport(place)
                book.put_off(name)
                held.append(HeldBack(claimed.recipients, until, name))
                continue
            free, waiting = self._by_domain(claimed, book, now)
            held += waiting
            if free or not claimed.recipients:
                if place:
                    book.take(name_of_transport(place))
                going.append(claimed._replace(recipients=free, place=place))
        return going, held

    def _place(self, claimed: Claimed, book: Ledger) -> tuple[str | None, float]:
        """The transport where a message has a place first, and when; None: none may be used now."""
        first = claimed.priority <= words.URGENT
        found = (
            (name, book.next_place(name_of_transport(name), jumps_line=first))
            for name in self._usable(claimed)
        )
        return min(found, key=lambda place: place[1], default=(None, 0.0))

    def _by_domain(
        self, claimed: Claimed, book: Ledger, now: float
    ) -> tuple[tuple[Pending, ...], list[HeldBack]]:
        """The recipients that may be tried now, and those that are held back."""
        free: set[str] = set()
        held = []
        for domain in _domains(claimed.recipients):
            name = name_of_domain(domain)
            until = self._elsewhere(domain, now) or self._wait(book, name, claimed, now)
            if until is None:
                book.take(name)
                free.add(domain)
            else:
                held.append(HeldBack(_those_at(claimed, {domain}), until, name))
        return _those_at(claimed, free), held

    def _elsewhere(self, domain: str, now: float) -> float | None:
        whole = self._limits.of_domain(domain).connections
        other_workers_have_them = whole is not None and not share(whole, self._workers, self._rank)
        return now + ELSEWHERE if other_workers_have_them else None

    def _wait(self, book: Ledger, name: str, claimed: Claimed, now: float) -> float | None:
        until = book.next_place(name, jumps_line=claimed.priority <= words.URGENT)
        if until <= now:
            return None
        book.put_off(name)
        return until

    # --- lessons ---------------------------------------------------------------------------

    def hear(self, claimed: Claimed, answers: Iterable[Answer], transport: str) -> None:
        """Take note of what was answered about one message.

        Args:
            transport: the name of the one that answered.
        """
        taken, by = set(), name_of_transport(transport)
        if claimed.place not in (None, transport):
            self._elsewhere_taken[transport] += 1
        for answer in answers:
            name = name_of_domain(domain_of(answer.recipient))
            if answer.failure is None:
                taken |= {name, by}
            elif wish := wish_in(answer.failure):
                self._wishes.setdefault(by if wish.of_transport else name, []).append(wish)
        self._taken.update(taken)

    def hear_taken(self, claims: Sequence[Claimed], transport: str) -> None:
        """Take note of messages to one recipient each that were taken, where they had a place; as hear()."""
        domains = Counter(domain_of(claimed.recipients[0].address) for claimed in claims)
        for domain, taken in domains.items():
            self._taken[name_of_domain(domain)] += taken
        self._taken[name_of_transport(transport)] += len(claims)

    def hear_in_vain(self, failures: Iterable[Failure], transport: str) -> None:
        """Take note of what a transport said to a message that another one is given: of itself only."""
        wishes = [wish for failure in failures if (wish := wish_in(failure)) and wish.of_transport]
        if wishes:
            self._wishes.setdefault(name_of_transport(transport), []).extend(wishes)

    def learn(self) -> None:
        """Draw the lessons from what was heard. Commits where there are any."""
        names = {*self._wishes, *(name for name in self._taken if name in self._known)}
        if names or self._elsewhere_taken:
            self._free_until = float("-inf")
            database.begin(self._db)
            ledger.pass_gate(self._db)
            self._take_elsewhere()
            before, now = ledger.lessons(self._db, names), self._site.clock()
            after = {
                name: learn(before.get(name), self._wishes.get(name, []), self._taken[name], now)
                for name in names
            }
            changed = {name: lesson for name, lesson in after.items() if lesson != before.get(name)}
            ledger.note_lessons(self._db, changed)
            self._known = {*self._known, *after}
            self._db.commit()
        self._wishes.clear()
        self._taken.clear()
        self._elsewhere_taken.clear()

    def _take_elsewhere(self) -> None:
        """Count those messages that went by another transport than the one where they had a place."""
        limits = {name: self._limits.of_transport(name) for name in self._elsewhere_taken}
        bounds = {name_of_transport(name): (limit, None) for name, limit in limits.items() if limit.rates}
        if bounds:
            book = Ledger(self._db, bounds, self._site.clock())
            for name, number in self._elsewhere_taken.items():
                for _ in range(number):
                    book.take(name_of_transport(name))
            book.store()


def _domains(recipients: Iterable[Pending]) -> dict[str, None]:
    """The domains of these recipients, each once, in their order."""
    return dict.fromkeys(domain_of(recipient.address) for recipient in recipients)


def _those_at(claimed: Claimed, domains: Collection[str]) -> tuple[Pending, ...]:
    return tuple(one for one in claimed.recipients if domain_of(one.address) in domains)

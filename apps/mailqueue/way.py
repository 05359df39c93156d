"""One way out in one drain: whether its transport may be used, and what the administrator is told of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterable

from . import breaker, outbox, problems, words
from .classify import Failure, classify_exception
from .delivery import NOT_WAITED_FOR, close, opened
from .kept import KeptTransports
from .lessons import rest_asked
from .reserve import Reserve
from .signing.faults import OF_A_PROTECTED_MESSAGE, OF_KEYS
from .site import Site
from .supply import MESSAGES_FOR_ANOTHER
from .transports.base import Transport

logger = logging.getLogger("mailqueue")

# Failures of the way out in a row after which the administrator is told even of a transient one.
PATIENCE = 3
# Configuration faults that concern some messages only: these wait, the transport goes on.
_MESSAGES_OWN = frozenset({"relay-denied"}) | OF_A_PROTECTED_MESSAGE
# Those that may, once a recipient is named: whose list of blocked machines it is, each domain decides.
_RECIPIENTS_OWN = frozenset({"host-blocked"})
# Faults of the worker's own surroundings, whatever the message.
WORKERS_OWN = frozenset({"journal-not-writable"})


def is_everybodys(failure: Failure, *, own_sender: bool, own_from: bool) -> bool:
    """Whether a failure would meet every other message too, so that the transport is to be paused.

    Args:
        failure: what met a message.
        own_sender: whether the message has a sender of its own, instead of the site's.
        own_from: whether its From is its own.
    """
    if failure.rule in OF_KEYS and own_from:
        return False  # the site's domain may have other keys
    if failure.stage in words.TRANSPORT_STAGES or failure.rule in WORKERS_OWN:
        return True
    own = (
        failure.rule in _MESSAGES_OWN
        or (failure.rule in _RECIPIENTS_OWN and failure.stage != words.MAIL)
        or (own_sender and failure.stage != words.RCPT)
    )
    return failure.kind == words.CONFIGURATION and not own


def report(site: Site, failure: Failure, transport: str, place: str = "") -> None:
    """Tell the administrator of a failure, if it is news. Commits on the site's DAL.

    Args:
        transport: its name; "" where none could be made. A fault of a key is that of none.
        place: as for remedies.advice().
    """
    now, transport = site.clock(), "" if failure.rule in OF_KEYS else transport
    problem = problems.report(site.db, failure, transport, now, place)
    if failure.stage in words.TRANSPORT_STAGES:
        problems.resolve_way(site.db, transport, now, but=problems.cause_of(failure, transport))
    site.db.commit()
    if problem is None:
        return
    try:
        site.announce(problem)
    except Exception:
        logger.exception("an entry of the problem log could not be announced: %s", problem)


class Way:
    """A way out. Uses the site's DAL, and commits on it, but for what connections call in their threads.

    Args:
        site: whose mail it is.
        kept: where to take open transports from and to leave them; None: they are not kept.
        make: makes its transport.

    Attributes:
        name: the transport's, once it is known.
        settings: the transport's, once it is known.
        beside: settings of the other ways' transports.
        probing: whether one message is to show that a paused transport works again.
        holders: how many connections have a transport of it.
    """

    def __init__(self, site: Site, kept: KeptTransports | None, make: Callable[[], Transport]):
        self._site, self._kept, self._make = site, kept, make
        self._made: Transport | None = None
        self._opened: Transport | None = None  # until a connection takes it
        self._reserve = Reserve()
        self._db = site.db
        self._guard = threading.Lock()
        self._admitted = self._failed = self._blocked = self._missed = self._probed = self._proved = False
        self._repaired = False
        self.name = self._place = ""
        self.settings: tuple[object, ...] = ()
        self.beside: list[tuple[object, ...]] = []
        self.probing = False
        self.holders = 0

    @property
    def usable(self) -> bool:
        """Whether messages may still be begun. From any thread."""
        return self._admitted and not self._failed

    @property
    def coming(self) -> int:
        """How many further connections are on their way to the server."""
        return self._reserve.coming

    # --- before the first message ----------------------------------------------------------

    def know(self) -> bool:
        """Make the transport. False: that cannot be done, and the administrator is told why."""
        try:
            self._made = self._make()
            self.name, self.settings = str(self._made.name), self._made.settings()
            self._place = self._made.place
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            report(self._site, classify_exception(words.CONFIG, error), "")
            return False
        return True

    def admit(self, now: float, *, work: bool) -> None:
        """Find out whether the transport may be used. Commits.

        Args:
            work: whether there is mail to send; if not, only a probe is worth a connection.
        """
        admission = breaker.admit(self._db, self.name, self.settings, now)
        self.probing = admission == breaker.PROBE
        self._admitted = admission != breaker.PAUSED and (work or self.probing)

    def note_settings(self, now: float) -> None:
        """Where they have changed, what waits for that is due. In the caller's transaction."""
        if breaker.settings_changed(self._db, self.name, self.settings):
            outbox.wake_held(self._db, now)

    def open(self, stop: threading.Event | None, if_late: Callable[[], None] = lambda: None) -> bool:
        """Open the transport, for a connection to take it.

        Args:
            stop: when it is set, nobody waits for it any more.
            if_late: as for delivery.opened().

        Returns:
            False: it is paused now, or was not waited for.
        """
        transport, failure = self._first_opened(stop, if_late)
        if failure is NOT_WAITED_FOR:
            breaker.probe_now(self._db, self.name, self._site.clock())  # it was none, if it was to be one
            self._db.commit()
            return False
        if failure:
            self.block(failure)
            return False
        self._opened = transport
        now, name = self._site.clock(), self.name
        if self._is_proved_by_opening(transport):
            self._prove(now)
            problems.resolve_way(self._db, name, now)
            self.probing, self._proved = False, True
        self._db.commit()
        return True

    def _first_opened(
        self, stop: threading.Event | None, if_late: Callable[[], None]
    ) -> tuple[Transport, Failure | None]:
        """The first one, and what went wrong with it.

        If it was late, the others may have the places that the server has: then one of them is the first.
        """
        first = self._kept_one() or self._made or self._make()
        failure = opened(first, stop, if_late)
        if failure and failure is not NOT_WAITED_FOR and failure.stage in (words.CONNECT, words.BANNER):
            another = self._reserve.take()
            if another:
                return another, opened(another, stop)
        return first, failure

    def call_up(self) -> None:
        """Bring near the server what connections the mail is worth, while the first one is opened.

        Not where a limit may forbid them, nor to a server that is probed: one shows that it works.
        Those that are kept are used first, and count.
        """
        kept = self._kept.number(self.settings) if self._kept else 0
        others = self._site.connections - 1 - kept
        if self.probing or self._site.limits or others <= 0:
            return
        due = outbox.number_due(self._db, self._site.clock(), MESSAGES_FOR_ANOTHER * others)
        self._db.commit()
        self._reserve.call_up(self._make, min(due // MESSAGES_FOR_ANOTHER - kept, others))

    def _is_proved_by_opening(self, transport: Transport) -> bool:
        if not transport.opening_proves:
            return False
        return not self.probing or breaker.state(self._db, self.name).stage in words.TRANSPORT_STAGES

    def _prove(self, now: float) -> None:
        if breaker.proved(self._db, self.name, now):
            self._repaired = True
            outbox.wake_held(self._db, now)  # what has no other way waits for this one

    def _kept_one(self) -> Transport | None:
        return self._kept.take(self.settings, self.beside) if self._kept else None

    # --- what became of messages -----------------------------------------------------------

    def block(self, failure: Failure) -> None:
        """Pause the transport; tell the administrator, of a passing fault only if it does not pass."""
        if self._blocked or not self._admitted:
            return
        self._blocked = self._failed = True
        self._reserve.dismiss()
        now, name = self._site.clock(), self.name
        never_worked = breaker.state(self._db, name).connected_on is None
        failures = breaker.pause(
            self._db,
            name,
            self.settings,
            stage=failure.stage,
            reason=failure.text,
            now=now,
            rest=rest_asked(failure),
        )
        if failure.kind == words.CONFIGURATION or never_worked or failures >= PATIENCE:
            report(self._site, failure, name, self._place)
        else:
            self._db.commit()

    def passed(self, failures: Iterable[Failure]) -> None:
        """A message went this way, whatever became of its recipients: any probe is over.

        Args:
            failures: what met its recipients, for the administrator where it concerns the site.
        """
        failures = list(failures)
        self._tell(failures)
        if any(failure.rule in OF_KEYS for failure in failures):
            with self._guard:
                self._probed = False  # nothing was sent that could have shown anything
        elif not self._proved:
            self._prove(self._site.clock())
            self._db.commit()
            self.probing, self._proved = False, True

    def missed(self, failures: Iterable[Failure]) -> None:
        """A message did not go this way, and goes another one.

        Args:
            failures: as for passed().
        """
        self._missed = True
        self._tell(failures)

    def _tell(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            if failure.kind == words.CONFIGURATION or failure.rule.startswith("unknown-exception"):
                report(self._site, failure, self.name, self._place)

    def settle(self, besides: Collection[str], lasting: Collection[str]) -> None:
        """After sending over it: what was reported and makes no message wait any more is resolved.

        Args:
            besides, lasting: as for problems.resolve_unless().
        """
        if self._proved and self.usable and not self._missed and problems.any_open(self._db):
            kinds, now = outbox.kinds_waited_for(self._db), self._site.clock()
            problems.resolve_unless(self._db, self.name, kinds, now, besides=besides, lasting=lasting)
        if self._repaired:
            outbox.wake_held(self._db, self._site.clock())  # what was put off while it was probed
        self._db.commit()

    # --- for connections, from any thread --------------------------------------------------

    def enter(self) -> bool:
        """Whether a message may go this way now: if it is probed, only one may."""
        with self._guard:
            if not self.usable or (self.probing and self._probed):
                return False
            self._probed = self.probing
            return True

    def fail(self) -> None:
        """Begin no further message; the drain is yet to hear why."""
        self._failed = True

    def take_transport(self) -> Transport:
        """A transport for a connection to keep: the one that was opened, then further ones.

        Raises:
            Exception: the settings have been spoilt since.
        """
        with self._guard:
            opened, made = self._opened, self._made
            self._opened = self._made = None
        transport = opened or self._kept_one() or self._reserve.take() or made or self._make()
        with self._guard:
            self.holders += 1
        return transport

    def give_back(self, transport: Transport) -> None:
        """Take back what a connection does not need any more, in good order."""
        self._let_go()
        if self._kept:
            self._kept.put(transport, self._site.clock())
        else:
            close(transport)

    def drop(self, transport: Transport) -> None:
        """Take back what a connection cannot use any more."""
        self._let_go()
        close(transport)

    def _let_go(self) -> None:
        with self._guard:
            self.holders -= 1

    def close(self) -> None:
        """End what was opened and no connection took: what one took may be at work still."""
        self._reserve.dismiss()
        if self._opened:
            close(self._opened)

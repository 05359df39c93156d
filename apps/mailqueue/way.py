"""The way out: whether the transport may be used, and what the administrator is told of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from . import breaker, outbox, problems, words
from .classify import Failure, classify_exception
from .delivery import close
from .kept import KeptTransports
from .site import Site
from .transports.base import Transport

logger = logging.getLogger("mailqueue")

# Failures of the way out in a row after which the administrator is told even of a transient one.
PATIENCE = 3
# Configuration faults that concern some recipients only: these wait, the transport goes on.
_RECIPIENTS_OWN = frozenset({"relay-denied"})
# Faults of the worker's own surroundings, whatever the message.
_WORKERS_OWN = frozenset({"journal-not-writable"})


def is_everybodys(failure: Failure, *, own_sender: bool) -> bool:
    """Whether a failure would meet every other message too, so that the transport is to be paused.

    Args:
        failure: what met a message.
        own_sender: whether the message has a sender of its own, instead of the site's.
    """
    if failure.stage in words.TRANSPORT_STAGES or failure.rule in _WORKERS_OWN:
        return True
    own = failure.rule in _RECIPIENTS_OWN or (own_sender and failure.stage != words.RCPT)
    return failure.kind == words.CONFIGURATION and not own


class Way:
    """The way out of one drain. Uses the site's DAL, and commits on it.

    Args:
        site: whose mail it is.
        kept: where to take open transports from and to leave them; None: they are not kept.

    Attributes:
        name: the transport's, once ready() was asked.
        usable: whether messages may still be begun.
        probing: whether one message is to show that a paused transport works again.
    """

    def __init__(self, site: Site, kept: KeptTransports | None):
        self._site, self._kept = site, kept
        self._transport: Transport | None = None  # until a connection takes it
        self._db = site.db
        self.name = ""
        self.usable = False
        self.probing = False

    def ready(self) -> bool:
        """Whether there is mail to send, and the transport admits it and opens."""
        try:
            transport = self._site.make_transport()
            self.name, self._settings = str(transport.name), transport.settings()
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            self._report(classify_exception(words.CONFIG, error), "")
            return False
        now = self._site.clock()
        self._attend_to_problems(now)
        admission = breaker.admit(self._db, self.name, self._settings, now)
        due = outbox.next_due(self._db)
        self._db.commit()
        self.probing = admission == breaker.PROBE
        work = due is not None and due <= now
        self.usable = admission != breaker.PAUSED and (work or self.probing)
        return self.usable and self._open(self._kept_one() or transport) and work

    def _kept_one(self) -> Transport | None:
        return self._kept.take(self._settings) if self._kept else None

    def _attend_to_problems(self, now: float) -> None:
        if not problems.any_open(self._db):
            return
        problems.resolve_settings(self._db, now)
        problems.resolve_others(self._db, self.name, now)
        if breaker.settings_changed(self._db, self.name, self._settings):
            outbox.wake_held(self._db, now)
        self._db.commit()

    def _open(self, transport: Transport) -> bool:
        self._transport = transport
        try:
            transport.open()
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            stage = transport.stage
            close(transport)
            self.block(classify_exception(stage, error))
            return False
        now, name = self._site.clock(), self.name
        if not self.probing or breaker.state(self._db, name).stage in words.TRANSPORT_STAGES:
            breaker.proved(self._db, name, now)
            problems.resolve_way(self._db, name, now)
            self.probing = False
        self._db.commit()
        return True

    def block(self, failure: Failure) -> None:
        """Pause the transport; tell the administrator, of a passing fault only if it does not pass."""
        if not self.usable:
            return
        self.usable = False
        now, name = self._site.clock(), self.name
        never_worked = breaker.state(self._db, name).connected_on is None
        failures = breaker.pause(
            self._db,
            name,
            self._settings,
            stage=failure.stage,
            reason=failure.text,
            now=now,
        )
        if failure.kind == words.CONFIGURATION or never_worked or failures >= PATIENCE:
            self._report(failure, name)
        else:
            self._db.commit()

    def passed(self, failures: Iterable[Failure]) -> None:
        """A message went this way, whatever became of its recipients: any probe is over.

        Args:
            failures: what met its recipients, for the administrator where it concerns the site.
        """
        for failure in failures:
            if failure.kind == words.CONFIGURATION or failure.rule.startswith("unknown-exception"):
                self._report(failure, self.name)
        if self.probing:
            breaker.proved(self._db, self.name, self._site.clock())
            self._db.commit()
            self.probing = False

    def _report(self, failure: Failure, transport: str) -> None:
        now = self._site.clock()
        problem = problems.report(self._db, failure, transport, now)
        if failure.stage in words.TRANSPORT_STAGES:
            problems.resolve_way(self._db, transport, now, but=problems.cause_of(failure, transport))
        self._db.commit()
        if problem is None:
            return
        try:
            self._site.announce(problem)
        except Exception:
            logger.exception("an entry of the problem log could not be announced: %s", problem)

    def settle(self) -> None:
        """After sending: what was reported and makes no message wait any more is resolved."""
        if self.usable and problems.any_open(self._db):
            kinds = outbox.kinds_waited_for(self._db)
            problems.resolve_unless(self._db, self.name, kinds, self._site.clock())
        self._db.commit()

    def take_transport(self) -> Transport:
        """A transport for a connection to keep: the one that ready() opened, then further ones.

        Raises:
            Exception: the settings have been spoilt since.
        """
        opened, self._transport = self._transport, None
        return opened or self._kept_one() or self._site.make_transport()

    def give_back(self, transport: Transport) -> None:
        """Take back what a connection does not need any more. From any thread."""
        if self._kept:
            self._kept.put(transport, self._site.clock())
        else:
            close(transport)

    def close(self) -> None:
        """End what ready() opened and no connection took: what one took may be at work still."""
        if self._transport:
            close(self._transport)

"""Draining the queue: claim -> transport -> finish, and what to do when the way out is blocked.

No transaction is open while a transport works. What a transport does, whatever it raises, ends
in the rows of the messages it was given, never in the messages behind them.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from . import breaker, database, journal, outbox, problems, words
from .classify import Failure, SiteFault, classify_exception
from .compose import Envelope
from .delivery import hand_over
from .outbox import Claimed, Finished, Outcome, Retention
from .problems import Problem
from .retry import RetryPolicy, decide
from .transports.base import Answer, Transport

logger = logging.getLogger("mailqueue")

BATCH = 100  # messages claimed at once
GROUP = 50  # messages finished in one transaction, at most
GROUP_SECONDS = 0.5  # and how long a finished one may wait for it
HEARTBEAT = 15.0  # seconds between two heartbeats
# Failures of the way out in a row after which the administrator is told even of a transient one.
PATIENCE = 3
# Configuration faults that concern some recipients only: these wait, the transport goes on.
_RECIPIENTS_OWN = frozenset({"relay-denied"})


@dataclass
class Site:
    """What a worker needs to know of the site whose mail it sends.

    Args:
        db: the site's DAL.
        make_transport: gives the way out by today's settings; raises SiteFault.
        sender: the site's own sender, for messages without one; "Name <a@b>" or "a@b".
        announce: takes a new entry of the problem log, after its commit.
        journals: folder for the journals of this host's workers.
        policy: when to try again.
        retention: how long to keep what ended.
        clock: the time, epoch seconds.
        rng: where jitter comes from.
    """

    db: Any
    make_transport: Callable[[], Transport]
    sender: Callable[[], str]
    announce: Callable[[Problem], None]
    journals: str
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    retention: Retention = field(default_factory=Retention)
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)


def drain(site: Site, *, until: float | None = None) -> dict[str, int]:
    """Send what is due. Commits on the site's DAL, again and again.

    Args:
        until: epoch seconds after which nothing more is claimed; None: until nothing is due.

    Returns:
        How many messages came to which status; "queued" are those given back untried.
    """
    counts = dict.fromkeys((words.SENT, words.DEFERRED, words.FAILED, words.IN_DOUBT, words.QUEUED), 0)
    with database.own_transaction(site.db):
        _recover(site)
        way = _Way(site)
        try:
            if way.ready():
                _send_batches(site, way, counts, until)
        finally:
            way.close()
        outbox.purge(site.db, now=site.clock(), retention=site.retention)
    return counts


def _recover(site: Site) -> None:
    """Take back what dead workers had claimed."""
    host = socket.gethostname()
    now = site.clock()
    gone = outbox.dead_workers(
        site.db, now, lambda row: row.host_name == host and journal.owner_is_gone(row.journal)
    )
    site.db.commit()
    for row in gone:
        evidence = journal.read(row.journal) if row.host_name == host else None
        taken = outbox.recover(
            site.db,
            row,
            evidence,
            now=now,
            doubt_due=now + site.policy.first_delay,
            retention=site.retention,
        )
        logger.warning("worker %s on %s is gone; %d messages were taken back", row.pid, row.host_name, taken)
        if evidence is not None:
            journal.discard(row.journal)


def _send_batches(site: Site, way: _Way, counts: dict[str, int], until: float | None) -> None:
    with _Shift(site) as shift:
        while way.usable and not shift.lost and (until is None or site.clock() < until):
            batch = outbox.claim(
                site.db, shift.worker_id, limit=1 if way.probing else BATCH, now=site.clock()
            )
            if not batch:
                break
            _send_batch(site, way, shift, batch, counts)
    way.settle()


def _send_batch(site: Site, way: _Way, shift: _Shift, batch: list[Claimed], counts: dict[str, int]) -> None:
    done: list[Finished] = []
    flushed = time.monotonic()
    for place, claimed in enumerate(batch):
        result = _send_one(site, way, shift, claimed) if shift.holds_lease() else None
        if result is None:
            _flush(site, shift, done, counts)
            outbox.release(site.db, batch[place:], site.clock())
            counts[words.QUEUED] += len(batch) - place
            return
        shift.journal.answered(result)
        done.append(result)
        if len(done) >= GROUP or time.monotonic() - flushed > GROUP_SECONDS:
            _flush(site, shift, done, counts)
            flushed = time.monotonic()
    _flush(site, shift, done, counts)


def _flush(site: Site, shift: _Shift, done: list[Finished], counts: dict[str, int]) -> None:
    for status in outbox.finish(site.db, done, site.clock(), site.retention):
        counts[status] = counts.get(status, 0) + 1
    shift.journal.committed()
    done.clear()


def _send_one(site: Site, way: _Way, shift: _Shift, claimed: Claimed) -> Finished | None:
    """Hand one message over. None: the way out is blocked, the message was not tried."""
    if not way.open():
        return None
    started = site.clock()
    begun = time.monotonic()
    answers = _answers(site, way.transport, shift, claimed)
    if way.blocked_by(claimed, answers):
        return None
    return Finished(
        message_id=claimed.id,
        token=claimed.token,
        transport=way.transport.name,
        started_on=started,
        duration=time.monotonic() - begun,
        outcomes=tuple(_outcomes(site, claimed, answers)),
    )


def _answers(site: Site, transport: Transport, shift: _Shift, claimed: Claimed) -> list[Answer]:
    addresses = [recipient.address for recipient in claimed.recipients]
    try:
        mime = outbox.content(site.db, claimed.id)
    except ValueError as error:
        failure = classify_exception(words.BUILD, error)
        return [Answer.refused(address, failure) for address in addresses]
    site.db.commit()  # nothing may be open while the transport works
    if not addresses:
        return []  # none of its recipients is due after all
    ids = {recipient.address: recipient.id for recipient in claimed.recipients}
    return hand_over(
        transport,
        Envelope(claimed.sender, tuple((words.TO, address) for address in addresses), claimed.smtputf8),
        mime,
        site.sender(),
        lambda accepted: shift.journal.dot(claimed.id, [ids[address] for address in accepted]),
    )


def _outcomes(site: Site, claimed: Claimed, answers: Iterable[Answer]) -> Iterable[Outcome]:
    now = site.clock()
    by_address = {answer.recipient: answer for answer in answers}
    some_taken = any(answer.failure is None for answer in by_address.values())
    for recipient in claimed.recipients:
        answer = by_address[recipient.address]
        stage = answer.stage
        if answer.failure is None:
            yield Outcome(
                recipient.id,
                words.SENT,
                stage=stage,
                code=answer.code,
                enhanced=answer.enhanced,
                reply=answer.text,
            )
            continue
        failure = answer.failure
        decision = decide(
            failure,
            attempts=recipient.attempts + 1,
            age=now - claimed.tried_on if claimed.tried_on is not None else 0.0,
            policy=site.policy,
            rng=site.rng,
            split_helps=some_taken,
        )
        yield Outcome(
            recipient.id,
            decision.status,
            due=None if decision.delay is None else now + decision.delay,
            counts=decision.counts,
            stage=stage,
            failure_kind=failure.kind,
            cause=failure.rule,
            code=failure.code,
            enhanced=failure.enhanced,
            reply=failure.text,
        )


def _announce(site: Site, problem: Problem) -> None:
    try:
        site.announce(problem)
    except Exception:
        logger.exception("an entry of the problem log could not be announced: %s", problem)


class _Way:
    """The way out: the transport, whether it may be used, and what the administrator is told of it."""

    transport: Transport

    def __init__(self, site: Site):
        self._site = site
        self._db = site.db
        self.usable = False
        self.probing = False
        self._proved = False

    def ready(self) -> bool:
        """Whether there is anything to do, and the transport admits and opens."""
        now = self._site.clock()
        fault = self._make_transport()
        if fault:
            self._report(fault, "")
            return False
        self._attend_to_problems(now)
        admission = breaker.admit(self._db, self.transport.name, self.transport.settings(), now)
        due = outbox.next_due(self._db)
        self._db.commit()
        self.probing = admission == breaker.PROBE
        work = due is not None and due <= now
        self.usable = admission != breaker.PAUSED and (work or self.probing)
        return self.usable and self.open() and work

    def _make_transport(self) -> Failure | None:
        try:
            self.transport = self._site.make_transport()
        except SiteFault as fault:
            return classify_exception(words.CONFIG, fault)
        return None

    def _attend_to_problems(self, now: float) -> None:
        if not problems.any_open(self._db):
            return
        problems.resolve_settings(self._db, now)
        problems.resolve_others(self._db, self.transport.name, now)
        if breaker.settings_changed(self._db, self.transport.name, self.transport.settings()):
            outbox.wake_held(self._db, now)
        self._db.commit()

    def open(self) -> bool:
        """Have the transport ready; otherwise it is paused, and nothing more goes over it."""
        try:
            self.transport.open()
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            self._block(classify_exception(self.transport.stage, error))
            return False
        if not self._proved:
            self._proved = True
            self._note_open()
        return True

    def _note_open(self) -> None:
        """The way is open; a pause that began there is over, one that began later needs a message."""
        now, name = self._site.clock(), self.transport.name
        if self.probing and breaker.state(self._db, name).stage not in words.TRANSPORT_STAGES:
            self._db.commit()
            return
        breaker.proved(self._db, name, now)
        problems.resolve_way(self._db, name, now)
        self._db.commit()
        self.probing = False

    def blocked_by(self, claimed: Claimed, answers: list[Answer]) -> bool:
        """Look at the answers for what concerns more than this message. True: the way is blocked."""
        failures = [answer.failure for answer in answers if answer.failure]
        for failure in failures:
            if self._is_everybodys(claimed, failure):
                self._block(failure)
                return True
        for failure in failures:
            if failure.kind == words.CONFIGURATION or failure.rule.startswith("unknown-exception"):
                self._report(failure, self.transport.name)
        if self.probing:
            breaker.proved(self._db, self.transport.name, self._site.clock())
            self._db.commit()
            self.probing = False
        return False

    def _is_everybodys(self, claimed: Claimed, failure: Failure) -> bool:
        if failure.stage in words.TRANSPORT_STAGES:
            return True
        own = failure.rule in _RECIPIENTS_OWN or (claimed.sender and failure.stage != words.RCPT)
        return failure.kind == words.CONFIGURATION and not own

    def _block(self, failure: Failure) -> None:
        """Pause the transport; tell the administrator, of a passing fault only if it does not pass."""
        self.usable = False
        now, name = self._site.clock(), self.transport.name
        never_worked = breaker.state(self._db, name).connected_on is None
        failures = breaker.pause(
            self._db,
            name,
            self.transport.settings(),
            stage=failure.stage,
            reason=failure.text,
            now=now,
        )
        if failure.kind == words.CONFIGURATION or never_worked or failures >= PATIENCE:
            self._report(failure, name)
        else:
            self._db.commit()
        self.transport.close()

    def _report(self, failure: Failure, transport: str) -> None:
        now = self._site.clock()
        problem = problems.report(self._db, failure, transport, now)
        if failure.stage in words.TRANSPORT_STAGES:
            problems.resolve_way(self._db, transport, now, but=problems.cause_of(failure, transport))
        self._db.commit()
        if problem:
            _announce(self._site, problem)

    def settle(self) -> None:
        """After sending: what was reported and makes no message wait any more is resolved."""
        if self.usable and problems.any_open(self._db):
            kinds = outbox.kinds_waited_for(self._db)
            problems.resolve_unless(self._db, self.transport.name, kinds, self._site.clock())
        self._db.commit()

    def close(self) -> None:
        """End the connection."""
        if hasattr(self, "transport"):
            self.transport.close()


class _Shift:
    """A worker's time at work: its row, its journal, and the heartbeat that keeps its claims."""

    def __init__(self, site: Site):
        self._site = site
        self.journal = journal.Journal(site.journals)
        self.worker_id = outbox.register_worker(
            site.db,
            token=self.journal.token,
            host_name=socket.gethostname(),
            pid=os.getpid(),
            journal=self.journal.path,
            now=site.clock(),
        )
        self.lost = False
        self._beaten = time.monotonic()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat_on, name="mailqueue heartbeat", daemon=True)

    def __enter__(self) -> _Shift:
        self._heart.start()
        return self

    def __exit__(self, error_type: object, error: object, traceback: object) -> None:
        self._over.set()
        self._heart.join()
        if error is None and not self.lost:
            outbox.retire_worker(self._site.db, self.worker_id)
            self.journal.close()
        else:
            self.journal.abandon()

    def holds_lease(self) -> bool:
        """Whether this worker's claims are still its own; asks the database when in doubt.

        A process that was stopped for a while finds out here, before it sends what others may
        have sent meanwhile.
        """
        if not self.lost and time.monotonic() - self._beaten > outbox.LEASE / 2:
            self._beat()
        return not self.lost

    def _beat_on(self) -> None:
        while not self._over.wait(HEARTBEAT):
            try:
                with database.own_transaction(self._site.db):
                    self._beat()
            except Exception:
                logger.warning("a heartbeat could not be written", exc_info=True)

    def _beat(self) -> None:
        begun = time.monotonic()
        if outbox.beat(self._site.db, self.worker_id, self._site.clock()):
            self._beaten = begun
        else:
            self.lost = True

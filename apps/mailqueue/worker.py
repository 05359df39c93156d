"""Draining the queue: claim, have connections send, finish; and take back what dead workers held.

All that touches the database happens in the caller's thread. What a transport does, whatever it
raises, ends in the rows of the message it was given, never in the messages behind it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

from . import database, journal, leases, ledger, liveness, outbox, problems, words
from .classify import Failure, classify_exception
from .kept import KeptTransports
from .outbox import Claimed, Finished
from .pace import Pace
from .sender import Died, Job, Sender, Tried, Untried, outcomes
from .shift import JournalNotWritable, Shift
from .site import Site
from .transports.base import Answer
from .way import Way

logger = logging.getLogger("mailqueue")

BATCH = 100  # messages claimed at once
URGENT_SECONDS = 1.0  # between two looks for urgent mail that is to overtake what is claimed
RECOVER_SECONDS = 5.0  # between two looks for dead workers
GROUP = 50  # messages finished in one transaction, at most
GROUP_SECONDS = 0.5  # and how long a finished one may wait for it
MESSAGES_FOR_ANOTHER = 10  # messages waiting that are worth another connection
GRACE = 5.0  # seconds for messages at hand when the work is to end
EXTRA_TURN = 30.0  # seconds for which others are sent, when the drain cannot end for one that waits
LAST_ANSWERS = 60.0  # and when the database fails, but nobody is in a hurry
TRIES = 3  # for a transaction that the database may undo for reasons of its own
GIVE_WAY = 0.1  # seconds before it is tried again, so that whoever was preferred is through by then
PAUSE = 1.0  # seconds between two tries to store what neither database nor journal could take

Counts = dict[str, int]
_Result = TypeVar("_Result")


def drain(
    site: Site,
    *,
    until: float | None = None,
    stop: threading.Event | None = None,
    kept: KeptTransports | None = None,
) -> Counts:
    """Send what is due. Commits on the site's DAL, again and again.

    Args:
        until: epoch seconds after which no further message is begun; None: until nothing is due.
        stop: when set, the messages at hand are finished and the rest is given back.
        kept: where to take open transports from, and to leave them for the next drain; by default
            they are closed.

    Returns:
        How many messages came to which status; "queued" are those given back untried.

    Raises:
        Exception: the database fails (database.faults()). What was answered is in the journal by
            then, and the next drain takes everything back from there.
    """
    counts = dict.fromkeys((words.SENT, words.DEFERRED, words.FAILED, words.IN_DOUBT, words.QUEUED), 0)
    ending = _ending(site, until, stop)
    with database.own_transaction(site.db):
        _note_presence(site)
        recover(site)
        _expire(site)
        way = Way(site, kept)
        try:
            if way.ready() and not ending():
                _send(site, way, counts, ending, stop)
                way.settle()
            else:
                outbox.mend_waiting(site.db, site.clock())
        finally:
            way.close()
        outbox.purge(site.db, now=site.clock(), retention=site.retention)
        ledger.tidy(site.db, site.clock())
    return counts


def _send(
    site: Site, way: Way, counts: Counts, ending: Callable[[], bool], stop: threading.Event | None
) -> None:
    try:
        shift = Shift(site)
    except JournalNotWritable as fault:
        way.block(fault.failure)
        return
    with shift:
        _Drain(site, way, shift, counts, ending, stop).run()


def _ending(site: Site, until: float | None, stop: threading.Event | None) -> Callable[[], bool]:
    def ending() -> bool:
        return bool(stop and stop.is_set()) or (until is not None and site.clock() >= until)

    return ending


def _note_presence(site: Site) -> None:
    liveness.seen(site.db, site.clock())
    if problems.any_open(site.db):
        problems.resolve_rule(site.db, "no-worker", site.clock())
    site.db.commit()


def recover(site: Site) -> None:
    """Take back what dead workers had claimed. Commits on the site's DAL."""
    machine, now = leases.this_machine(), site.clock()
    gone = leases.dead(
        site.db, now, lambda row: row.machine == machine and journal.owner_is_gone(row.journal)
    )
    for row in gone:
        # What a machine that crashed had not on its disk is missing in a journal of before.
        evidence = journal.read(row.journal) if row.machine == machine else None
        discard = partial(journal.discard, row.journal)
        taken = outbox.recover(site.db, row, evidence, site.recovery, now=now, forget=discard)
        if taken:
            logger.warning(
                "worker %s on %s left %d messages unfinished; they were taken back",
                row.pid,
                row.host_name,
                taken,
            )
    orphans = outbox.recover_orphans(site.db, site.recovery, now=now)
    if orphans:
        logger.warning("%d messages were claimed by no worker there is; they were taken back", orphans)


def _expire(site: Site) -> None:
    while outbox.expire(site.db, now=site.clock(), retention=site.retention):
        pass


class _Drain:
    """One drain: the messages claimed, those at work, those done and not yet written down."""

    def __init__(
        self,
        site: Site,
        way: Way,
        shift: Shift,
        counts: Counts,
        ending: Callable[[], bool],
        stop: threading.Event | None,
    ):
        self._site, self._way, self._shift = site, way, shift
        self._counts, self._ending, self._stop = counts, ending, stop
        self._pace = Pace(site, shift.worker_id, way.name)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._results: SimpleQueue[Tried | Untried | Died] = SimpleQueue()
        self._senders: list[Sender] = []
        self._most_senders = site.connections
        self._claimed: deque[Claimed] = deque()
        self._at_work: dict[int, Claimed] = {}
        self._done: list[Finished] = []
        self._flushed = self._looked_around = self._looked_for_urgent = time.monotonic()
        self._patience = float("inf")
        self._over_since: float | None = None
        self._owed = False  # whether less urgent mail has its turn before urgent mail overtakes again

    def run(self) -> None:
        """Send until nothing is due, the way is blocked, or the work is to end."""
        try:
            while self._goes_on():
                self._take_result()
                self._look_around()
                if len(self._done) >= GROUP or time.monotonic() - self._flushed > GROUP_SECONDS:
                    self._flush()
            self._end_senders(GRACE)
            self._flush()
            self._give_back(self._claimed)
            self._shift.complete = not self._at_work
        except database.faults(self._site.db):
            self._end_senders(LAST_ANSWERS)
            self._keep_answers()
            raise
        finally:
            self._end_senders(GRACE)

    def _goes_on(self) -> bool:
        self._dispatch()
        if not self._at_work and self._done:
            self._flush()  # what is left of these messages may be due at once
            self._dispatch()
        return bool(self._at_work) and time.monotonic() < self._patience

    # --- messages to the connections -------------------------------------------------------

    def _dispatch(self) -> None:
        """Give the connections enough to do, as far as there is any."""
        if not self._way.usable or (self._stop and self._stop.is_set()):
            self._close()
        elif self._is_turn_over():
            return
        else:
            self._let_urgent_overtake()
        while not self._shift.closing.is_set() and len(self._at_work) < 2 * max(len(self._senders), 1):
            claimed = self._next()
            if claimed is None:
                break
            self._give_to_sender(claimed)

    def _next(self) -> Claimed | None:
        """The first message that may be begun now; it is claimed if need be. None: there is none."""
        claimed = self._first_with_room()
        while claimed is None and len(self._claimed) <= BATCH and self._claim():
            claimed = self._first_with_room()
        return claimed

    def _first_with_room(self) -> Claimed | None:
        at_work = list(self._at_work.values())
        for place, claimed in enumerate(self._claimed):
            if self._pace.has_room(claimed, at_work):
                del self._claimed[place]
                return claimed
        return None

    def _is_turn_over(self) -> bool:
        """Whether to wait for the messages at hand, so that this drain can end.

        A server may let one of them wait for many minutes; the others do not wait with it.
        """
        if not self._ending():
            return False
        if self._over_since is None:
            self._over_since = time.monotonic()
        return (time.monotonic() - self._over_since) % (GRACE + EXTRA_TURN) < GRACE

    def _close(self) -> None:
        """Begin no further message. What no connection has taken up yet comes back."""
        self._shift.closing.set()
        self._heed_stop()
        with suppress(Empty):
            while job := self._jobs.get_nowait():
                del self._at_work[job.claimed.id]
                self._claimed.appendleft(job.claimed)

    def _heed_stop(self) -> None:
        if self._stop and self._stop.is_set():
            self._patience = min(self._patience, time.monotonic() + GRACE)

    def _claim(self) -> bool:
        if self._way.probing and self._at_work:
            return False
        if not self._pace.connections:
            return False
        found = self._take(1 if self._way.probing else BATCH, words.PRIORITIES)
        self._claimed.extend(found)
        return bool(found)

    def _let_urgent_overtake(self) -> None:
        """A slow server may take minutes for what is claimed; urgent mail does not wait for it.

        Nor does it starve what it overtakes: after a few of them another one has its turn.
        """
        if not self._claimed or self._owed or self._claimed[0].priority == words.URGENT:
            return
        if time.monotonic() - self._looked_for_urgent >= URGENT_SECONDS:
            self._looked_for_urgent = time.monotonic()
            urgent = self._take(outbox.SHARE, (words.URGENT,))
            self._claimed.extendleft(reversed(urgent))
            self._owed = bool(urgent)

    def _take(self, limit: int, priorities: Sequence[int]) -> list[Claimed]:
        """Messages to send now. What is over a limit is put off, as long as nothing else is at hand."""
        _expire(self._site)
        db, worker = self._site.db, self._shift.worker_id
        while True:
            now = self._site.clock()
            # Not after a lost connection: its claim may stand, and only recovery would find those messages.
            claims = self._again_if(
                database.is_conflict,
                lambda: outbox.claim(db, worker, limit=limit, now=now, priorities=priorities),  # noqa: B023
            )
            going = self._again_if(database.is_conflict, lambda: self._pace.admit(claims))  # noqa: B023
            if going or not claims or self._at_work or self._ending():
                return going

    def _look_around(self) -> None:
        """What a long drain must not leave to the next one."""
        if time.monotonic() - self._looked_around > RECOVER_SECONDS:
            self._looked_around = time.monotonic()
            _note_presence(self._site)
            recover(self._site)

    def _give_to_sender(self, claimed: Claimed) -> None:
        if claimed.priority != words.URGENT:
            self._owed = False
        if claimed.expires_on is not None and claimed.expires_on <= self._site.clock():
            outbox.release(self._site.db, [claimed], self._site.clock())  # to be expired with the next claim
            return
        try:
            mime = outbox.content(self._site.db, claimed.id)
        except ValueError as error:
            self._site.db.commit()
            self._finish(claimed, classify_exception(words.BUILD, error))
            return
        self._site.db.commit()  # nothing may be open while the transports work
        if not claimed.recipients:
            self._give_back([claimed])  # none of its recipients is due after all
            return
        self._at_work[claimed.id] = claimed
        self._enlist()
        self._jobs.put(Job(claimed, mime))

    def _finish(self, claimed: Claimed, failure: Failure) -> None:
        answers = [Answer.refused(recipient.address, failure) for recipient in claimed.recipients]
        now = self._site.clock()
        made = tuple(outcomes(self._site, claimed, answers))
        self._done.append(Finished(claimed.id, claimed.token, "", now, 0.0, made))

    def _enlist(self, *, stuck: bool = False) -> None:
        """Open as many connections as the messages are worth, or one more for those that are stuck."""
        messages = len(self._claimed) + len(self._at_work)
        worth = len(self._senders) + 1 if stuck else 1 + messages // MESSAGES_FOR_ANOTHER
        if len(self._senders) >= min(self._most_senders, self._pace.connections, worth):
            return
        try:
            transport = self._way.take_transport()
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            failure = classify_exception(words.CONFIG, error)  # the next drain will report it
            logger.warning("there is no further connection: %s", failure.text)
            return
        sender = Sender(self._site, self._shift, transport, self._jobs, self._results, self._way.give_back)
        self._senders.append(sender)
        sender.start()

    # --- results ---------------------------------------------------------------------------

    def _take_result(self) -> None:
        try:
            result = self._results.get(timeout=GROUP_SECONDS)
        except Empty:
            if not self._jobs.empty():
                self._enlist(stuck=True)  # behind a message that the server lets wait
            return
        if isinstance(result, Died):
            raise result.error
        del self._at_work[result.claimed.id]
        if isinstance(result, Tried):
            self._done.append(result.finished)
            self._way.passed(result.failures)
            self._pace.hear(result.answers)
        else:
            self._take_back(result)

    def _take_back(self, result: Untried) -> None:
        if result.blocking and result.blocking.stage not in words.TRANSPORT_STAGES:
            self._finish(result.claimed, result.blocking)  # put off: another message is to be the next probe
        else:
            self._claimed.appendleft(result.claimed)
        if result.blocking is None:
            if not self._shift.closing.is_set() and not self._shift.renew():
                self._close()
            return
        self._senders.remove(result.sender)
        if self._senders and result.blocking.stage in words.TRANSPORT_STAGES:
            self._most_senders = len(self._senders)  # the server takes no more; these go on
            return
        self._way.block(result.blocking)
        self._close()

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        if not self._done:
            return
        db, now, retention = self._site.db, self._site.clock(), self._site.retention
        # Whatever the fault: the tokens see to it that nothing is written down twice.
        statuses = self._again_if(lambda _: True, lambda: outbox.finish(db, self._done, now, retention))
        for status in statuses:
            self._counts[status] = self._counts.get(status, 0) + 1
        self._shift.journal.committed(result.message_id for result in self._done)
        self._done.clear()
        self._again_if(database.is_conflict, self._pace.learn)

    def _give_back(self, claims: Collection[Claimed]) -> None:
        for status in outbox.release(self._site.db, claims, self._site.clock()):
            self._counts[words.FAILED if status == words.FAILED else words.QUEUED] += 1

    def _end_senders(self, patience: float) -> None:
        """Let the connections end; those that still wait for an answer then are left to themselves.

        Args:
            patience: seconds; GRACE after a stop, which may come meanwhile.
        """
        self._shift.closing.set()
        for _ in self._senders:
            self._jobs.put(None)
        deadline = time.monotonic() + patience
        for sender in self._senders:
            while sender.is_alive() and time.monotonic() < min(deadline, self._patience):
                self._heed_stop()
                sender.join(0.1)

    # --- faults of the database ------------------------------------------------------------

    def _again_if(self, worth: Callable[[Exception], bool], work: Callable[[], _Result]) -> _Result:
        """What one transaction brings, which is tried again after a fault that is worth it."""
        for _ in range(0 if self._stop and self._stop.is_set() else TRIES - 1):
            try:
                return work()
            except database.faults(self._site.db) as error:
                if not worth(error):
                    raise
                database.roll_back(self._site.db)
                time.sleep(GIVE_WAY)
        return work()

    def _keep_answers(self) -> None:
        """See that no answer is lost with this drain, even where the journals' disk is full too."""
        database.roll_back(self._site.db)
        with suppress(Empty):
            while result := self._results.get_nowait():
                if isinstance(result, Tried):
                    self._done.append(result.finished)
        while self._shift.journal.is_behind and not self._stored() and time.monotonic() < self._patience:
            self._heed_stop()
            (self._stop or threading.Event()).wait(PAUSE)

    def _stored(self) -> bool:
        try:
            self._shift.journal.catch_up()
        except OSError:
            return self._flushed_after_all()
        return True

    def _flushed_after_all(self) -> bool:
        try:
            self._flush()
        except database.faults(self._site.db):
            database.roll_back(self._site.db)
            return False
        return True

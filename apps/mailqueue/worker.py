"""Draining the queue: claim, have connections send, finish.

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
from dataclasses import replace
from itertools import takewhile
from queue import Empty, SimpleQueue
from typing import TypeVar

from . import database, outbox, upkeep, words
from .ahead import Job
from .classify import Failure, classify_exception
from .delivery import LATE
from .kept import KeptTransports
from .lines import Lines
from .outbox import Claimed, Finished
from .outcomes import outcomes
from .pace import Pace
from .rounds import Rounds
from .sender import NO_WAY, Died, Missed, Result, Sender, Tried, Untried
from .series import Passed
from .shift import JournalNotWritable, Shift
from .site import Site
from .supply import AHEAD_OCTETS, MESSAGES_FOR_ANOTHER, Supply
from .transports.base import Answer
from .ways import Ways

logger = logging.getLogger("mailqueue")

BATCH = 100  # messages claimed at once, at first
CONNECTIONS_FOR_BATCH = 10  # for so many more connections it is another such batch
LOOK_SECONDS = 0.05  # between two looks for more, where there was none and messages are still at work
URGENT_SECONDS = 1.0  # between two looks for urgent mail that is to overtake what is claimed
RECOVER_SECONDS = 5.0  # between two looks for dead workers
BITE_SECONDS = (
    0.5  # between two bites of what administrators do to many messages, while there is mail to send
)
BULK_SECONDS = 1.0  # for that after each drain
GROUP = 200  # messages finished in one transaction, at most
LAST_GROUP = 100  # and where all mail is with the connections
GROUP_SECONDS = 0.5  # and how long a finished one may wait for it
NEAR = 2  # connections to a server that answers at once: one is served while the other is read
GRACE = 5.0  # seconds for messages at hand when the work is to end
EXTRA_TURN = 30.0  # seconds for which others are sent, when the drain cannot end for one that waits
LAST_ANSWERS = 60.0  # and when the database fails, but nobody is in a hurry
TRIES = 3  # for a transaction that the database may undo for reasons of its own
GIVE_WAY = 0.1  # seconds before it is tried again, so that whoever was preferred is through by then
PAUSE = 1.0  # seconds between two tries to store what neither database nor journal could take
_NO_TEXT = "the stored text of this message is damaged or gone"

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
        upkeep.note_presence(site)
        upkeep.recover(site)
        upkeep.expire(site)
        faulty_keys = upkeep.look_at_keys(site)
        ways = Ways(site, kept)
        try:
            if ways.ready(stop) and not ending():
                _send(site, ways, counts, ending, stop)
                ways.settle(lasting=faulty_keys)
            else:
                outbox.mend_waiting(site.db, site.clock())
        finally:
            ways.close()
        upkeep.work_in_bulk(site, BULK_SECONDS)
        upkeep.tidy(site)
    return counts


def _send(
    site: Site, ways: Ways, counts: Counts, ending: Callable[[], bool], stop: threading.Event | None
) -> None:
    try:
        shift = Shift(site)
    except JournalNotWritable as fault:
        ways.block(fault.failure)
        return
    with shift:
        _Drain(site, ways, shift, counts, ending, stop).run()


def _ending(site: Site, until: float | None, stop: threading.Event | None) -> Callable[[], bool]:
    def ending() -> bool:
        return bool(stop and stop.is_set()) or (until is not None and site.clock() >= until)

    return ending


class _Drain:
    """One drain: the messages claimed, those at work, those done and not yet written down."""

    def __init__(
        self,
        site: Site,
        ways: Ways,
        shift: Shift,
        counts: Counts,
        ending: Callable[[], bool],
        stop: threading.Event | None,
    ):
        self._site, self._ways, self._shift = site, ways, shift
        self._counts, self._ending, self._stop = counts, ending, stop
        self._pace = Pace(site, shift.worker_id, ways.names, ways.usable_names)
        self._supply = Supply()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._results: SimpleQueue[Result] = SimpleQueue()
        self._senders: list[Sender] = []
        self._rounds = Rounds()
        self._most_senders = site.connections
        self._batch = BATCH * max(1, site.connections // CONNECTIONS_FOR_BATCH)
        self._claimed: deque[Claimed] = deque()
        self._at_work: dict[int, Claimed] = {}
        self._done: list[Finished] = []
        self._flushed = self._looked_around = self._looked_for_urgent = time.monotonic()
        self._bitten = self._flushed
        self._patience = float("inf")
        self._wait = LATE
        self._claimed_on = float("-inf")
        self._found_none = False  # at the last claim
        self._over_since: float | None = None
        self._overtaker = words.NORMAL  # how urgent: less urgent mail has its turn before it overtakes again

    def run(self) -> None:
        """Send until nothing is due, the way is blocked, or the work is to end."""
        try:
            while self._goes_on():
                self._take_results()
                self._enlist_all()  # the server may be slow from now on
                self._look_around()
                if len(self._done) >= self._group() or time.monotonic() - self._flushed > GROUP_SECONDS:
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

    def _group(self) -> int:
        """How many messages are worth a transaction; fewer once there is nothing else to do meanwhile."""
        return LAST_GROUP if self._found_none and not self._claimed else GROUP

    def _goes_on(self) -> bool:
        self._dispatch()
        if not self._at_work and self._done:
            self._flush()  # what is left of these messages may be due at once
            self._dispatch()
        return bool(self._at_work) and time.monotonic() < self._patience

    # --- messages to the connections -------------------------------------------------------

    def _dispatch(self) -> None:
        """Give the connections enough to do, as far as there is any."""
        if not self._ways.usable or self._is_stranded() or (self._stop and self._stop.is_set()):
            self._close()
        elif self._is_turn_over():
            return
        else:
            self._let_urgent_overtake()
        while not self._shift.closing.is_set() and (lacking := self._supply.lacking(len(self._senders))):
            chosen = self._choose(lacking)
            if not chosen:
                break
            self._give_to_senders(chosen)

    def _is_stranded(self) -> bool:
        """Whether messages wait for a connection, and other workers have all that there may be by now."""
        return bool(self._at_work) and not self._senders and self._most_connections() < 1

    def _choose(self, most: int) -> list[Claimed]:
        """Messages to begin now, as many as may lie ready; they count as at work."""
        chosen: list[Claimed] = []
        octets = 0
        while len(chosen) < most and octets <= AHEAD_OCTETS:
            claimed = self._first_with_room() if chosen else self._next()
            if claimed is None:
                break  # what is chosen does not wait for a claim
            self._at_work[claimed.id] = claimed
            chosen.append(claimed)
            octets += claimed.byte_size or 0
        return chosen

    def _next(self) -> Claimed | None:
        """The first message that may be begun now; it is claimed if need be. None: there is none."""
        claimed = self._first_with_room()
        while claimed is None and len(self._claimed) <= self._batch and self._claim():
            claimed = self._first_with_room()
        return claimed

    def _first_with_room(self) -> Claimed | None:
        at_work = self._at_work.values()
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
        """Begin no further message."""
        self._shift.closing.set()
        self._heed_stop()
        self._recall()

    def _recall(self) -> None:
        """Take back what no connection has taken up yet."""
        recalled = []
        with suppress(Empty):
            while job := self._jobs.get_nowait():
                self._end_work(job.claimed)
                recalled.append(job.claimed)
        self._claimed.extendleft(reversed(recalled))

    def _end_work(self, claimed: Claimed) -> None:
        del self._at_work[claimed.id]
        self._supply.came_back(claimed.id)

    def _heed_stop(self) -> None:
        if self._stop and self._stop.is_set():
            self._patience = min(self._patience, time.monotonic() + GRACE)

    def _claim(self) -> bool:
        if self._ways.probing and self._at_work:
            return False
        if not self._pace.connections or self._has_just_asked():
            return False
        most = 1 if self._ways.probing else self._supply.batch(self._batch)
        asked = self._supply.to_ask_for(words.PRIORITIES) if self._at_work else words.PRIORITIES
        found = self._take(most, asked)
        self._claimed.extend(found)
        self._claimed_on, self._found_none = time.monotonic(), not found
        return bool(found)

    def _has_just_asked(self) -> bool:
        """Whether nothing was found a moment ago, and there is something left to do before the end."""
        is_left = self._found_none and bool(self._at_work or self._done)
        return is_left and time.monotonic() - self._claimed_on < LOOK_SECONDS

    def _let_urgent_overtake(self) -> None:
        """A slow server may take minutes for what is claimed; urgent mail does not wait for it.

        Nor does it starve what it overtakes: after a few of them another one has its turn.
        """
        if not (self._claimed or self._supply.is_deep(len(self._senders))):
            return
        at_hand = self._claimed[0].priority if self._claimed else words.BULK
        sooner = [priority for priority in words.PRIORITIES if priority < min(at_hand, self._overtaker)]
        if sooner and time.monotonic() - self._looked_for_urgent >= URGENT_SECONDS:
            self._looked_for_urgent = time.monotonic()
            urgent = self._take(outbox.SHARE, sooner)
            if urgent:
                self._overtaker = urgent[-1].priority
                self._recall()
                self._put_in_front(urgent)

    def _put_in_front(self, urgent: Sequence[Claimed]) -> None:
        """These go first, but for what is at the front already and as urgent."""
        rest = list(self._claimed)
        ahead = list(takewhile(lambda claimed: claimed.priority <= urgent[-1].priority, rest))
        first = sorted([*ahead, *urgent], key=lambda claimed: claimed.priority)
        self._claimed = deque([*first, *rest[len(ahead) :]])

    def _take(self, limit: int, priorities: Sequence[int]) -> list[Claimed]:
        """Messages to send now. What is over a limit is put off, as long as nothing else is at hand."""
        db, worker = self._site.db, self._shift.worker_id
        while True:
            now = self._site.clock()
            # Not after a lost connection: its claim may stand, and only recovery would find those messages.
            claims = self._again_if(
                database.is_conflict,
                lambda: outbox.claim(db, worker, limit=limit, now=now, priorities=priorities),  # noqa: B023
            )
            self._supply.found(priorities, {claimed.priority for claimed in claims})
            claims = [self._ways.narrowed(claimed) for claimed in claims]
            going = self._again_if(database.is_conflict, lambda: self._pace.admit(claims))  # noqa: B023
            if going or not claims or self._at_work or self._ending():
                return going

    def _look_around(self) -> None:
        """What a long drain must not leave to the next one."""
        if time.monotonic() - self._looked_around > RECOVER_SECONDS:
            self._looked_around = time.monotonic()
            upkeep.note_presence(self._site)
            upkeep.recover(self._site)
            upkeep.expire(self._site)
        if time.monotonic() - self._bitten > BITE_SECONDS:
            self._bitten = time.monotonic()
            upkeep.work_in_bulk(self._site, 0.0)

    def _give_to_senders(self, chosen: Sequence[Claimed]) -> None:
        going = self._worth_sending(chosen)
        texts = outbox.contents(self._site.db, going)
        self._site.db.commit()  # nothing may be open while the transports work
        for claimed in going:
            mime = texts.get(claimed.id)
            if mime is None:
                self._finish(claimed, classify_exception(words.BUILD, ValueError(_NO_TEXT)))
                del self._at_work[claimed.id]
                continue
            self._supply.handed_out(claimed.id, len(mime))
            self._jobs.put(Job(claimed, mime))
        self._enlist_all()

    def _worth_sending(self, chosen: Sequence[Claimed]) -> list[Claimed]:
        """Without those that nobody is to get now; they are given back."""
        now = self._site.clock()
        late = [claimed for claimed in chosen if claimed.expires_on is not None and claimed.expires_on <= now]
        idle = [claimed for claimed in chosen if not claimed.recipients]  # none of them is due after all
        if late:
            outbox.release(self._site.db, late, now)
            upkeep.expire(self._site)
        if idle:
            self._give_back(idle)
        unsent = {claimed.id for claimed in (*late, *idle)}
        for message_id in unsent:
            del self._at_work[message_id]
        return [claimed for claimed in chosen if claimed.id not in unsent]

    def _finish(self, claimed: Claimed, failure: Failure) -> None:
        answers = [Answer.refused(recipient.address, failure) for recipient in claimed.recipients]
        now = self._site.clock()
        made = tuple(outcomes(self._site, claimed, answers))
        self._done.append(Finished(claimed.id, claimed.token, "", now, 0.0, made))

    def _enlist_all(self) -> None:
        """Open as many connections as the messages are worth."""
        if self._shift.closing.is_set():
            return
        worth = 1 + (len(self._claimed) + len(self._at_work)) // MESSAGES_FOR_ANOTHER
        if not self._supply.is_server_slow:
            worth = min(worth, NEAR)
        for _ in range(len(self._senders), min(worth, len(self._at_work), self._most_connections())):
            self._enlist()

    def _enlist(self) -> None:
        """Open one more connection, as far as there may be any."""
        if len(self._senders) >= self._most_connections():
            return
        try:
            way = self._ways.preferred()
            lines = Lines(way, way.take_transport())
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            failure = classify_exception(words.CONFIG, error)  # the next drain will report it
            logger.warning("there is no further connection: %s", failure.text)
            self._most_senders = len(self._senders)
            return
        sender = Sender(self._site, self._shift, self._ways, lines, self._jobs, self._results, self._rounds)
        self._senders.append(sender)
        sender.start()

    def _most_connections(self) -> int:
        # Those on their way are waited for: others in their place would come on top of them.
        beside = max(self._site.connections - self._ways.preferred().coming, 1)
        return min(self._most_senders, self._pace.connections, beside)

    # --- results ---------------------------------------------------------------------------

    def _take_results(self) -> None:
        """Wait for a result, and take those that have come meanwhile along with it."""
        wait, self._wait = self._wait, GROUP_SECONDS
        try:
            self._take_in(self._results.get(timeout=wait))
        except Empty:
            self._supply.kept_waiting()
            if wait >= GROUP_SECONDS and not self._jobs.empty():
                self._enlist()  # behind a message that the server lets wait
            return
        with suppress(Empty):
            while True:
                self._take_in(self._results.get_nowait())

    def _take_in(self, result: Result) -> None:
        if isinstance(result, Died):
            raise result.error
        if isinstance(result, Missed):
            self._note(result)
            return
        if isinstance(result, Passed):
            self._take_in_many(result)
            return
        self._end_work(result.claimed)
        if isinstance(result, Tried):
            if result.claimed.priority > self._overtaker:
                self._overtaker = words.NORMAL  # another one has had its turn
            self._done.append(result.finished)
            self._supply.took(result.finished.duration)
            result.way.passed(result.failures)
            self._pace.hear(result.claimed, result.answers, result.way.name)
        else:
            self._take_back(result)

    def _take_in_many(self, result: Passed) -> None:
        for claimed in result.claims:
            self._end_work(claimed)
        if max(claimed.priority for claimed in result.claims) > self._overtaker:
            self._overtaker = words.NORMAL
        self._done += result.finished
        for finished in result.finished:
            self._supply.took(finished.duration)
        self._pace.hear_taken(result.claims, result.transport)

    def _note(self, result: Missed) -> None:
        if result.blocking:
            result.way.block(result.blocking)
        else:
            self._pace.hear_in_vain(result.failures, result.way.name)
        result.way.missed(result.failures)

    def _take_back(self, result: Untried) -> None:
        if result.blocking and self._is_put_off(result.claimed, result.blocking):
            # Whatever the fault, it is a repair that is waited for.
            self._finish(result.claimed, replace(result.blocking, kind=words.CONFIGURATION))
        else:
            self._claimed.appendleft(result.claimed)
        if result.blocking is None:
            if not self._shift.closing.is_set() and not self._shift.renew():
                self._close()
            return
        if result.ends_sender:
            self._senders.remove(result.sender)
        if not self._ways.usable:
            self._close()
        elif result.ends_sender and self._senders and result.blocking.stage in words.TRANSPORT_STAGES:
            self._most_senders = len(self._senders)  # the server takes no more; these go on

    def _is_put_off(self, claimed: Claimed, blocking: Failure) -> bool:
        """Whether a message whose ways are blocked is to wait, so that others are sent."""
        if blocking.stage not in words.TRANSPORT_STAGES:
            return True  # another message is to be the next probe
        return self._ways.usable and (blocking is NO_WAY or not self._ways.has_any(claimed))

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
                elif isinstance(result, Passed):
                    self._done += result.finished
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

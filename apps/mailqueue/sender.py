"""A connection at work, in a thread of its own: takes messages, hands them over, says what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TypeAlias

from . import words
from .ahead import Job, LookAhead
from .classify import Failure, classify_exception
from .compose import Envelope
from .delivery import close, go_on, hand_over, letter_ahead
from .lines import Lines
from .outbox import Claimed, Finished
from .outcomes import outcomes
from .own_rules import judged
from .rounds import Rounds
from .series import ClaimedSeries, Passed
from .shift import Shift
from .signing.seal import has_own_from
from .site import Site
from .transports.base import Answer, Letter, Transport
from .way import WORKERS_OWN, Way, is_everybodys
from .ways import EXHAUSTED, OF_THE_TRANSPORT, Ways, another_may

NO_WAY = Failure(
    words.CONFIGURATION, words.CONNECT, "all-paused", "the transports that may take it are paused"
)


@dataclass(frozen=True)
class Tried:
    """A message was handed over; what became of it is in the journal."""

    claimed: Claimed
    finished: Finished
    answers: tuple[Answer, ...]
    way: Way

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What met its recipients."""
        return tuple(answer.failure for answer in self.answers if answer.failure)


@dataclass(frozen=True)
class Untried:
    """A message was not handed over, or nothing of it counts: it can go back as it was.

    Args:
        blocking: what blocks its ways, NO_WAY if it found them blocked; None where this worker may
            begin no message any more, or another connection is to have this one.
    """

    claimed: Claimed
    sender: Sender
    blocking: Failure | None

    @property
    def ends_sender(self) -> bool:
        """Whether that was its last message."""
        return self.blocking is not None and self.blocking is not NO_WAY


@dataclass(frozen=True)
class Missed:
    """A message did not go this way, and may go another one.

    Args:
        failures: what met its recipients.
        blocking: what would meet other messages too; None: those may try.
    """

    way: Way
    failures: tuple[Failure, ...]
    blocking: Failure | None


@dataclass(frozen=True)
class Died:
    """The thread ended on an error of our own, which is to go on in the drain's own thread."""

    error: BaseException


Result: TypeAlias = "Tried | Untried | Missed | Passed | Died"


class _LeaseLost(Exception):
    """Right before the dot, this worker's claims are not surely its own any more."""


class Sender(threading.Thread):
    """One connection.

    Args:
        site: whose mail it is.
        shift: the worker's.
        ways: which way a message may go.
        lines: the connection's own transports, open or not; further ones as messages need them.
        jobs: where it takes messages from; None ends it.
        results: where it says what came of each.
        rounds: where it meets the other connections of the drain.
    """

    def __init__(
        self,
        site: Site,
        shift: Shift,
        ways: Ways,
        lines: Lines,
        jobs: SimpleQueue[Job | None],
        results: SimpleQueue[Result],
        rounds: Rounds,
    ):
        super().__init__(name="mailqueue connection", daemon=True)
        self._site, self._shift, self._ways, self._lines = site, shift, ways, lines
        self._jobs, self._results, self._rounds = jobs, results, rounds
        self._lapsed = False
        self._ahead = LookAhead(self._waiting_job, self._put_back, self._letter_of)

    def run(self) -> None:
        """Work until there is a None among the jobs, or there is no way for a message."""
        try:
            while (job := self._next_job()) is not None:
                result = self._attempt(job)
                self._results.put(result)
                if isinstance(result, Tried):
                    result = self._go_on(result.way) or result
                if isinstance(result, Untried) and result.ends_sender:
                    self._ahead.give_back()
                    break
            else:
                self._lines.give_back()
                return
        except BaseException as error:  # noqa: BLE001 - the drain's thread raises it
            self._results.put(Died(error))
        self._lines.drop()

    def _next_job(self) -> Job | None:
        job, self._ahead.job = self._ahead.job, None
        return job or self._jobs.get()

    def _waiting_job(self) -> Job | None:
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return None
        if job is None:
            self._jobs.put(None)  # the end, which _next_job() is to find
        return job

    def _put_back(self, job: Job) -> None:
        self._results.put(Untried(job.claimed, self, None))

    def _letter_of(self, job: Job) -> Letter | None:
        if self._ways.first(job.claimed) is not self._lines.at_work:
            return None
        return letter_ahead(_envelope(job.claimed), job.mime, self._site.sender(), self._site.seal)

    def _attempt(self, job: Job) -> Tried | Untried:
        """Hand a message over, by the first of its ways that takes it."""
        if not self._shift.may_begin():
            self._lines.close()  # the server may know of this message already
            return Untried(job.claimed, self, None)
        ways = self._ways.of(job.claimed)
        way = next(ways, None)
        result: Tried | Untried = Untried(job.claimed, self, NO_WAY)
        in_vain: list[Finished] = []
        while way is not None:
            latest = self._attempt_by(way, job)
            if isinstance(latest, Tried) or isinstance(result, Untried):
                result = latest
            if self._is_final(way, latest):
                break
            missed, way = way, next(ways, None)
            if isinstance(latest, Tried) and way is not None:
                in_vain.append(latest.finished)
                self._miss(missed, latest)
        return self._concluded(result, in_vain)

    def _concluded(self, result: Tried | Untried, in_vain: Sequence[Finished] = ()) -> Tried | Untried:
        if not isinstance(result, Tried):
            return result
        earlier = tuple(one for one in in_vain if one is not result.finished)
        if earlier:
            result = replace(result, finished=result.finished._replace(in_vain=earlier))
        if self._may_another_take(result):
            self._shift.journal.released(result.claimed.id)
            return Untried(result.claimed, self, NO_WAY)
        return self._answered(result)

    def _may_another_take(self, result: Tried) -> bool:
        """Whether the message was too much for the transports that work, and another one is to come back."""
        too_much = all(
            answer.failure and answer.failure.rule in OF_THE_TRANSPORT for answer in result.answers
        )
        return too_much and self._ways.is_any_paused(result.claimed)

    def _is_final(self, way: Way, result: Tried | Untried) -> bool:
        """Whether the message is not to go another way; if the way itself is at fault, the drain is told."""
        if isinstance(result, Tried):
            return not all(answer.failure and another_may(answer.failure) for answer in result.answers)
        blocking = result.blocking
        if blocking is None:
            return True
        if blocking.stage in words.TRANSPORT_STAGES and self._lines.others_have(way):
            return True  # the server takes no more connections; those that it took go on
        way.fail()
        self._lines.leave(way)
        self._results.put(Missed(way, (), blocking))
        return blocking.rule in WORKERS_OWN

    def _miss(self, way: Way, result: Tried) -> None:
        self._shift.journal.released(result.claimed.id)
        exhausted = next((failure for failure in result.failures if failure.rule in EXHAUSTED), None)
        if exhausted:
            way.fail()
        self._results.put(Missed(way, result.failures, exhausted))

    def _attempt_by(self, way: Way, job: Job) -> Tried | Untried:
        transport: Transport | None = None
        try:
            transport = self._lines.by(way, self._ahead)
            transport.stage = words.CONNECT  # not all transports say so themselves
            transport.open()
            name = transport.name
            with self._shift.recording():
                self._shift.journal.begun(job.claimed.id)
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            stage = transport.stage if transport else words.CONFIG
            if transport:
                close(transport)
            return Untried(job.claimed, self, classify_exception(stage, error))
        started, begun = self._site.clock(), time.monotonic()
        answers = self._hand_over(transport, job)
        return self._judged(way, name, job, answers, started, begun)

    def _judged(
        self, way: Way, transport: str, job: Job, answers: list[Answer], started: float, begun: float
    ) -> Tried | Untried:
        claimed = job.claimed
        answers = [self._by_own_rules(answer) for answer in answers]
        blocking = self._blocking(job, answers)
        if blocking or self._lapsed:
            self._shift.journal.released(claimed.id)
            return Untried(claimed, self, blocking)
        finished = Finished(
            message_id=claimed.id,
            token=claimed.token,
            transport=transport,
            started_on=started,
            duration=time.monotonic() - begun,
            outcomes=tuple(outcomes(self._site, claimed, answers)),
        )
        return Tried(claimed, finished, tuple(answers), way)

    def _go_on(self, way: Way) -> Tried | Untried | None:
        """Hand over the messages behind while all goes well; what became of the last one, if it did not."""
        if self._ahead.job is None or not self._ways.is_only(way):
            return None
        transport = self._lines.by(way, self._ahead)
        series = ClaimedSeries(self._site, self._shift, way, transport.name, self._ahead, self._results.put)
        try:
            answers = go_on(transport, series, series.at_stake, self._rounds)
        finally:
            series.waits()
        if series.dotted is None:
            return None
        job, started, begun = series.dotted, series.started_on, series.begun
        result = self._judged(way, transport.name, job, answers, started, begun)
        self._is_final(way, result)
        result = self._concluded(result)
        self._results.put(result)
        return result

    def _answered(self, result: Tried) -> Tried:
        self._shift.journal.answered(result.finished)
        return result

    def _hand_over(self, transport: Transport, job: Job) -> list[Answer]:
        claimed = job.claimed
        self._lapsed = False  # it may have been true of the message before
        ids = {recipient.address: recipient.id for recipient in claimed.recipients}

        def before_dot(accepted: Iterable[str]) -> None:
            with self._shift.recording():
                self._shift.journal.dot(claimed.id, [ids[address] for address in accepted])
            if not self._shift.is_fresh():
                self._lapsed = True
                raise _LeaseLost

        return hand_over(
            transport, _envelope(claimed), job.mime, self._site.sender(), before_dot, self._site.seal
        )

    def _by_own_rules(self, answer: Answer) -> Answer:
        """The answer as the site's own rules see it; what was taken, or is in doubt, stays that."""
        if answer.failure is None or not self._ways.rules:
            return answer
        return replace(answer, failure=judged(answer.failure, self._ways.rules))

    def _blocking(self, job: Job, answers: Iterable[Answer]) -> Failure | None:
        """What would meet every other message too; None where it met some of the recipients only.

        If just one of them has another answer, this message must not go back as it was: whom it was
        sent to would get it again.
        """
        own_sender, own_from = bool(job.claimed.sender), has_own_from(job.mime)
        failures = [answer.failure for answer in answers]
        everybodys = all(
            failure and is_everybodys(failure, own_sender=own_sender, own_from=own_from)
            for failure in failures
        )
        return failures[0] if everybodys else None


def _envelope(claimed: Claimed) -> Envelope:
    addresses = dict.fromkeys([recipient.address for recipient in claimed.recipients])
    return Envelope(claimed.sender, tuple([(words.TO, address) for address in addresses]), claimed.smtputf8)

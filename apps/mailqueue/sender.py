"""A connection at work, in a thread of its own: takes messages, hands them over, says what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue

from . import words
from .classify import Failure, classify_exception
from .compose import Envelope
from .delivery import close, hand_over
from .outbox import Claimed, Finished, Outcome
from .retry import decide
from .shift import Shift
from .site import Site
from .terms import RESEND
from .transports.base import Answer, Transport
from .way import is_everybodys


@dataclass(frozen=True)
class Job:
    """A claimed message with its text."""

    claimed: Claimed
    mime: bytes


@dataclass(frozen=True)
class Tried:
    """A message was handed over; what became of it is in the journal."""

    claimed: Claimed
    finished: Finished
    answers: tuple[Answer, ...]

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What met its recipients."""
        return tuple(answer.failure for answer in self.answers if answer.failure)


@dataclass(frozen=True)
class Untried:
    """A message was not handed over, or nothing of it counts: it can go back as it was.

    Args:
        blocking: what blocks the way; None where this worker may begin no message any more.
    """

    claimed: Claimed
    sender: Sender
    blocking: Failure | None


@dataclass(frozen=True)
class Died:
    """The thread ended on an exit such as SystemExit, which is to go on in the drain's own thread."""

    error: BaseException


class _LeaseLost(Exception):
    """Right before the dot, this worker's claims are not surely its own any more."""


class Sender(threading.Thread):
    """One connection.

    Args:
        site: whose mail it is.
        shift: the worker's.
        transport: its own, open or not.
        jobs: where it takes messages from; None ends it.
        results: where it says what came of each.
        give_back: takes the transport when there is no more to do; one that blocks is closed.
    """

    def __init__(
        self,
        site: Site,
        shift: Shift,
        transport: Transport,
        jobs: SimpleQueue[Job | None],
        results: SimpleQueue[Tried | Untried | Died],
        give_back: Callable[[Transport], None],
    ):
        super().__init__(name="mailqueue connection", daemon=True)
        self._site, self._shift, self._transport = site, shift, transport
        self._jobs, self._results, self._give_back = jobs, results, give_back
        self._lapsed = False

    def run(self) -> None:
        """Work until there is a None among the jobs, or the way is blocked."""
        try:
            while (job := self._jobs.get()) is not None:
                result = self._attempt(job)
                self._results.put(result)
                if isinstance(result, Untried) and result.blocking:
                    break
            else:
                self._give_back(self._transport)
                return
        except BaseException as error:  # noqa: BLE001 - the drain's thread raises it
            self._results.put(Died(error))
        close(self._transport)

    def _attempt(self, job: Job) -> Tried | Untried:
        if not self._shift.may_begin():
            return Untried(job.claimed, self, None)
        self._transport.stage = words.CONNECT  # not all transports say so themselves
        try:
            self._transport.open()
            name = self._transport.name
            with self._shift.recording():
                self._shift.journal.begun(job.claimed.id)
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            stage = self._transport.stage
            close(self._transport)
            return Untried(job.claimed, self, classify_exception(stage, error))
        started, begun = self._site.clock(), time.monotonic()
        answers = self._hand_over(job)
        blocking = self._blocking(job.claimed, answers)
        if blocking or self._lapsed:
            self._shift.journal.released(job.claimed.id)
            return Untried(job.claimed, self, blocking)
        finished = Finished(
            message_id=job.claimed.id,
            token=job.claimed.token,
            transport=name,
            started_on=started,
            duration=time.monotonic() - begun,
            outcomes=tuple(outcomes(self._site, job.claimed, answers)),
        )
        self._shift.journal.answered(finished)
        return Tried(job.claimed, finished, tuple(answers))

    def _hand_over(self, job: Job) -> list[Answer]:
        claimed = job.claimed
        self._lapsed = False  # it may have been true of the message before
        ids = {recipient.address: recipient.id for recipient in claimed.recipients}

        def before_dot(accepted: Iterable[str]) -> None:
            with self._shift.recording():
                self._shift.journal.dot(claimed.id, [ids[address] for address in accepted])
            if not self._shift.is_fresh():
                self._lapsed = True
                raise _LeaseLost

        recipients = tuple((words.TO, address) for address in ids)
        envelope = Envelope(claimed.sender, recipients, claimed.smtputf8)
        return hand_over(self._transport, envelope, job.mime, self._site.sender(), before_dot)

    def _blocking(self, claimed: Claimed, answers: Iterable[Answer]) -> Failure | None:
        """What would meet every other message too; None where it met some of the recipients only.

        If just one of them has another answer, this message must not go back as it was: whom it was
        sent to would get it again.
        """
        own = bool(claimed.sender)
        failures = [answer.failure for answer in answers]
        everybodys = all(failure and is_everybodys(failure, own_sender=own) for failure in failures)
        return failures[0] if everybodys else None


def outcomes(site: Site, claimed: Claimed, answers: Iterable[Answer]) -> Iterator[Outcome]:
    """What becomes of the recipients, by the answers for them and the site's patience."""
    now = site.clock()
    by_address = {answer.recipient: answer for answer in answers}
    some_taken = any(answer.failure is None for answer in by_address.values())
    age = now - claimed.tried_on if claimed.tried_on is not None else 0.0
    for recipient in claimed.recipients:
        answer = by_address[recipient.address]
        if answer.failure is None:
            yield Outcome(
                recipient.id,
                words.SENT,
                stage=answer.stage,
                code=answer.code,
                enhanced=answer.enhanced,
                reply=answer.text,
            )
            continue
        failure = answer.failure
        decision = decide(
            failure,
            attempts=recipient.attempts + 1,
            age=age,
            policy=site.policy,
            rng=site.rng,
            resend_doubt=(claimed.doubt or site.doubt) == RESEND,
            split_helps=some_taken,
        )
        yield Outcome(
            recipient.id,
            decision.status,
            due=None if decision.delay is None else now + decision.delay,
            counts=decision.counts,
            stage=answer.stage,
            failure_kind=failure.kind,
            cause=failure.rule,
            code=failure.code,
            enhanced=failure.enhanced,
            reply=failure.text,
        )

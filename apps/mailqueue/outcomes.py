"""From the answers for a message's recipients to what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from . import words
from .outbox import Claimed, Outcome
from .retry import decide
from .site import Site
from .terms import RESEND
from .transports.base import Answer


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
                provider_id=answer.provider_id,
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

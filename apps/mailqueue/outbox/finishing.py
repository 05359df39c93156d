"""Ending claims: what became of messages, or that they come back untried."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from .. import database, sql, words
from ..sql import Row
from ..tables import ATTEMPT, MESSAGE, RECIPIENT
from . import rows
from .records import Claimed, Finished, Outcome, Retention
from .rows import fitting
from .sending import store_sent
from .settling import settle

# From which statuses a recipient may come to each status.
SOURCES = {
    target: [source for source, targets in words.RECIPIENT_MOVES.items() if target in targets]
    for target in words.RECIPIENT_STATUSES
}


def finish(db: Any, results: Sequence[Finished], now: float, retention: Retention) -> list[str]:
    """Write down what became of messages, all in one transaction. Commits.

    Returns:
        The new message statuses; a message whose claim this worker no longer holds is left out
        and stays as it is.
    """
    database.begin(db)
    sent = store_sent(db, results, now, retention)
    others = [result for result in results if result.message_id not in sent]
    statuses = _store(db, others, now, retention)
    db.commit()
    return [words.SENT] * len(sent) + statuses


def _store(db: Any, results: Sequence[Finished], now: float, retention: Retention) -> list[str]:
    held = rows.hold(db, list({result.message_id for result in results}))
    mine: dict[int, Finished] = {}
    for result in results:
        row = held.get(result.message_id)
        if row and row["claim"] == result.token:
            mine.setdefault(result.message_id, result)
    apply(db, list(mine.values()), now)
    for message_id, result in mine.items():
        held[message_id].update(latest(held[message_id], result))
    return settle(db, [held[message_id] for message_id in mine], now, retention)


def release(db: Any, claims: Iterable[Claimed], now: float) -> list[str]:
    """Give messages back as if they had never been claimed. Commits.

    Returns:
        Their statuses; `failed` for one that turns out to have nobody left to send it to.
    """
    database.begin(db)
    held = rows.hold_own(db, {claimed.id: claimed.token for claimed in claims})
    statuses = settle(db, list(held.values()), now, Retention())
    db.commit()
    return statuses


def apply(db: Any, results: Sequence[Finished], now: float) -> None:
    """Write down what became of recipients, and the attempts; nobody moves where the rules forbid it.

    The rows of the messages are held.
    """
    outcomes = [(result, outcome) for result in results for outcome in result.outcomes]
    found = _recipients(db, sorted({outcome.recipient_id for _, outcome in outcomes}))
    moved: dict[int, Row] = {}
    attempts = [_passed_on(earlier, one) for earlier, one in _in_vain(results) if one.recipient_id in found]
    for result, outcome in outcomes:
        before = moved.get(outcome.recipient_id) or found.get(outcome.recipient_id)
        if before is None or before["status"] not in SOURCES[outcome.status]:
            continue
        moved[outcome.recipient_id] = _moved(before, result, outcome, now)
        if outcome.counts:
            attempts.append(_attempt(result, outcome))
    sql.update(db, RECIPIENT, list(moved.values()))
    sql.insert(db, ATTEMPT, attempts)


def _recipients(db: Any, ids: Sequence[int]) -> dict[int, Row]:
    columns = ("id", "status", "attempts")
    return {
        row[0]: dict(zip(columns, row, strict=True))
        for some in sql.portions(ids)
        for row in sql.fetch(
            db, f"SELECT {', '.join(columns)} FROM {RECIPIENT} WHERE id IN ({sql.signs(some)})", *some
        )
    }


def _moved(before: Row, result: Finished, outcome: Outcome, now: float) -> Row:
    return fitting(
        RECIPIENT,
        id=outcome.recipient_id,
        status=outcome.status,
        due=outcome.due,
        attempts=(before["attempts"] or 0) + int(outcome.counts),
        failure_kind=outcome.failure_kind,
        code=outcome.code,
        enhanced=outcome.enhanced,
        reply=outcome.reply,
        provider_id=outcome.provider_id,
        transport=result.transport,
        changed_on=now,
        held_by=None,
    )


def _attempt(result: Finished, outcome: Outcome) -> Row:
    return fitting(
        ATTEMPT,
        message_ref=result.message_id,
        recipient_ref=outcome.recipient_id,
        transport=result.transport,
        stage=outcome.stage,
        outcome=outcome.status,
        failure_kind=outcome.failure_kind,
        cause=outcome.cause,
        code=outcome.code,
        enhanced=outcome.enhanced,
        reply=outcome.reply,
        started_on=result.started_on,
        duration=result.duration,
    )


def _in_vain(results: Iterable[Finished]) -> Iterator[tuple[Finished, Outcome]]:
    for result in results:
        for earlier in result.in_vain:
            for outcome in earlier.outcomes:
                yield earlier, outcome


def _passed_on(earlier: Finished, outcome: Outcome) -> Row:
    return {**_attempt(earlier, outcome), "outcome": words.PASSED_ON}


def latest(row: Row, result: Finished) -> Row:
    """What the message's own row, as it is now, is to say after a hand-over."""
    failed = next((outcome for outcome in result.outcomes if outcome.failure_kind), None)
    spent = any(outcome.counts for outcome in result.outcomes)
    tried_on = row["tried_on"]
    said: dict[str, str | None] = {}
    if failed:  # else what met others of its recipients before stays
        reply = words.answer(failed.code, failed.enhanced, failed.reply)
        said = {"failure_kind": failed.failure_kind, "error": reply}
    return {
        "tried_on": result.started_on if spent and tried_on is None else tried_on,
        "attempts": (row["attempts"] or 0) + int(spent),
        "crashes": None,
        "spent": spent,  # for settle(): others of its recipients may be due still
        **fitting(MESSAGE, transport=result.transport, **said),
    }

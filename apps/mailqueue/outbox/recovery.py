"""Taking back what workers held that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .. import database, leases, sql, words
from ..classify import Failure
from ..retry import decide, delay_before
from ..sql import Row
from ..tables import MESSAGE, RECIPIENT, WORKER
from ..terms import RESEND
from . import rows
from .claiming import to_try
from .finishing import apply, latest
from .records import NO_EVIDENCE, Evidence, Finished, Outcome, Pending, Recovery
from .settling import settle

# A message in whose hands so many workers died, one after the other, is given up.
MOST_CRASHES = 5
_AT_ONCE = 200  # messages whose rows are in memory


def recover(
    db: Any,
    worker: Any,
    evidence: Evidence | None,
    how: Recovery,
    *,
    now: float,
    forget: Callable[[], None] = lambda: None,
) -> int:
    """Take back every claim of a dead worker. Commits, twice.

    What was answered is finished as answered, what was started and not answered is in doubt,
    the rest goes back to the queue untouched.

    Args:
        worker: its row, from leases.dead().
        evidence: its journal; None where it is out of reach: then all it was to try is in doubt.
        how: what to do with it.
        now: epoch seconds.
        forget: removes the evidence; called once all is taken back. The worker's row goes last, so
            that whoever is killed in between leaves the rest to another.

    Returns:
        The number of messages taken back; 0 also where another worker was faster, or this one lives.
    """
    database.begin(db)
    if not leases.take_over(db, worker):
        db.rollback()
        return 0
    found = sql.fetch(db, f"SELECT id FROM {MESSAGE} WHERE worker = %s", worker.id)
    taken = 0
    for ids in sql.portions([message_id for (message_id,) in found], _AT_ONCE):
        held = [row for row in rows.hold(db, ids).values() if row["worker"] == worker.id]
        _take_back(db, held, evidence or NO_EVIDENCE, how, now)
        taken += len(held)
    db.commit()
    forget()
    leases.retire(db, worker.id)
    return taken


def recover_orphans(db: Any, how: Recovery, *, now: float) -> int:
    """Take back what is claimed by a worker that has no row, or by none at all. Commits.

    Nothing here leaves such a message behind: a row was damaged, or deleted by hand. All that was
    to be tried is in doubt, since nobody knows how far it came.

    Returns:
        The number of messages taken back.
    """
    of_nobody = f"worker IS NOT NULL AND worker NOT IN (SELECT id FROM {WORKER})"
    asked = (
        f"SELECT id, worker FROM {MESSAGE} WHERE {of_nobody}"
        f" UNION ALL SELECT id, worker FROM {MESSAGE} WHERE status = %s AND worker IS NULL"
    )
    orphans = dict(sql.fetch(db, asked, words.SENDING))
    db.commit()
    taken = 0
    for ids in sql.portions(list(orphans), _AT_ONCE):
        database.begin(db)
        held = [row for row in rows.hold(db, ids).values() if _is_orphan(row, orphans)]
        _take_back(db, held, NO_EVIDENCE, how, now)
        taken += len(held)
        db.commit()
    return taken


def _is_orphan(row: Row, orphans: dict[int, int | None]) -> bool:
    """Whether nobody else has taken it back meanwhile."""
    if row["worker"] is None:
        return orphans[row["id"]] is None and row["status"] == words.SENDING
    return bool(row["worker"] == orphans[row["id"]])


def _take_back(db: Any, held: Sequence[Row], evidence: Evidence, how: Recovery, now: float) -> None:
    """End the claims, whose rows are held, of a worker that is gone."""
    for row in held:
        row["claimed_on"] = now if row["claimed_on"] is None else row["claimed_on"]  # damaged
    pending = _pending(db, held)  # before the answers move some of them
    results = {row["id"]: list(_conclude(row, pending[row["id"]], evidence, how, now)) for row in held}
    for row in held:
        if not results[row["id"]] and row["id"] in evidence.begun:
            results[row["id"]] = _note_crash(db, row, pending[row["id"]], how, now)
    apply(db, [result for some in results.values() for result in some], now)
    for row in held:
        for result in results[row["id"]]:
            row.update(latest(row, result))
    settle(db, held, now, how.retention)


def _pending(db: Any, held: Sequence[Row]) -> dict[int, list[Pending]]:
    moments: dict[float, list[int]] = {}
    for row in held:
        moments.setdefault(row["claimed_on"], []).append(row["id"])
    return {
        message_id: pending
        for moment, ids in moments.items()
        for message_id, pending in to_try(db, ids, moment).items()
    }


def _conclude(
    row: Row, given: Sequence[Pending], evidence: Evidence, how: Recovery, now: float
) -> Iterator[Finished]:
    answered = [
        result
        for result in evidence.answered
        if (result.message_id, result.token) == (row["id"], row["claim"])
    ]
    yield from answered
    known = {outcome.recipient_id for result in answered for outcome in result.outcomes}
    started = evidence.started.get(row["id"], [])
    outcomes = tuple(
        _doubt(row, pending, how, now)
        for pending in given
        if pending.id not in known and (pending.id in started or not evidence.complete)
    )
    if outcomes:
        yield _after_death(row, outcomes)


def _after_death(row: Row, outcomes: tuple[Outcome, ...]) -> Finished:
    return Finished(row["id"], row["claim"], "", row["claimed_on"], 0.0, outcomes)


def _doubt(row: Row, pending: Pending, how: Recovery, now: float) -> Outcome:
    text = "The worker died while the mail server's answer was awaited."
    failure = Failure(words.IN_DOUBT, words.DOT, "worker-died", text, surely_not_sent=False)
    decision = decide(
        failure,
        attempts=pending.attempts + 1,
        age=now - (row["tried_on"] or now),
        policy=how.policy,
        rng=how.rng,
        resend_doubt=(row["doubt"] or how.doubt) == RESEND,
    )
    return Outcome(
        recipient_id=pending.id,
        status=decision.status,
        due=None if decision.delay is None else now + decision.delay,
        failure_kind=failure.kind,
        cause=failure.rule,
        reply=failure.text,
    )


def _note_crash(db: Any, row: Row, pending: Sequence[Pending], how: Recovery, now: float) -> list[Finished]:
    """A worker died with this message in hand: the first time by chance, then the message is suspected.

    It costs no attempt, but the messages behind it go first, and after a few deaths it is given up.
    """
    row["crashes"] = (row["crashes"] or 0) + 1
    if row["crashes"] >= MOST_CRASHES:
        return [_after_death(row, tuple(_given_up(one, row["crashes"]) for one in pending))]
    if row["crashes"] > 1:
        later = now + delay_before(row["crashes"] - 1, how.policy, how.rng)
        sql.update(db, RECIPIENT, [{"id": one.id, "due": later} for one in pending])
    return []


def _given_up(pending: Pending, crashes: int) -> Outcome:
    return Outcome(
        pending.id,
        words.FAILED,
        stage=words.BUILD,
        failure_kind=words.MESSAGE,
        cause="worker-killer",
        reply=f"{crashes} workers in a row died while they had this message in hand.",
    )

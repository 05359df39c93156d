"""The only file that changes a message's status: enqueue, claim, finish, recover, retry, cancel, purge.

A message waits while its `due` is set; a claim clears it and leaves a token. Whatever a worker
says about a message afterwards is guarded by that token, so that a worker whose claim is gone
cannot finish it. enqueue, retry and cancel run in the caller's transaction; claim, finish,
release, recover and purge are the worker's own and commit.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import database, leases, words
from .classify import Failure
from .compose import Composed
from .retry import RetryPolicy, decide, delay_before
from .tables import ATTEMPT, CONTENT, DEDUPE, MESSAGE, RECIPIENT, WORKER
from .terms import RESEND, Terms

# Largest piece of MIME text in one row: under every server's default limit for a statement.
CHUNK = 512 * 1024
# Recipients handed over in one SMTP transaction: what every server must take (RFC 5321, 4.5.3.1.8).
RECIPIENTS_AT_ONCE = 100
# Of the places in a claim, one in so many is for less urgent mail, however much urgent mail there is.
SHARE = 10
# A message in whose hands so many workers died, one after the other, is given up.
MOST_CRASHES = 5

# From which statuses a recipient may come to each status.
_SOURCES = {
    target: [source for source, targets in words.RECIPIENT_MOVES.items() if target in targets]
    for target in words.RECIPIENT_STATUSES
}


@dataclass(frozen=True)
class Retention:
    """How long things are kept after a message ended, in seconds.

    Args:
        sent_content: the text of a message that was sent; it may hold live links.
        other_content: the text of one that was not, so that it can be tried again.
        record: who, when, what the server said.
    """

    sent_content: float = 7 * 86400.0
    other_content: float = 30 * 86400.0
    record: float = 180 * 86400.0

    def content(self, status: str) -> float:
        """Seconds for which the content of a message that ended so is kept."""
        return self.sent_content if status == words.SENT else self.other_content


@dataclass(frozen=True)
class Pending:
    """A recipient that a worker is to try."""

    id: int
    address: str
    attempts: int


@dataclass(frozen=True)
class Claimed:
    """A message that a worker holds a claim on, with the recipients to try now."""

    id: int
    token: str
    sender: str | None
    smtputf8: bool
    tried_on: float | None
    doubt: str | None
    priority: int
    expires_on: float | None
    recipients: tuple[Pending, ...]


@dataclass(frozen=True)
class HeldBack:
    """Recipients of one claimed message that have no place now.

    Args:
        until: when they may have one, epoch seconds.
        held_by: the transport or domain whose limit it is, as ledger.py calls it.
    """

    recipients: tuple[Pending, ...]
    until: float
    held_by: str


@dataclass(frozen=True)
class Outcome:
    """What became of one recipient in one attempt.

    Args:
        recipient_id: its row.
        status: its new status.
        due: when to try again, epoch seconds; None: not by itself.
        counts: whether this was an attempt, as against a try that cost nothing.
    """

    recipient_id: int
    status: str
    due: float | None = None
    counts: bool = True
    stage: str = words.DOT
    failure_kind: str | None = None
    cause: str | None = None
    code: int | None = None
    enhanced: str | None = None
    reply: str = ""


@dataclass(frozen=True)
class Finished:
    """What one hand-over of a message to a transport brought."""

    message_id: int
    token: str
    transport: str
    started_on: float
    duration: float
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Evidence:
    """What a worker's journal tells after its death.

    Args:
        started: message -> recipients whose final dot was sent and not answered.
        answered: hand-overs that were answered and may not have been written down.
        complete: whether that is all; otherwise anything else it claimed may have been sent too.
        begun: messages that it had in hand, and of which nothing is known.
    """

    started: dict[int, list[int]]
    answered: list[Finished]
    complete: bool = True
    begun: frozenset[int] = frozenset()


NO_EVIDENCE = Evidence({}, [], complete=False)

_UNKNOWN_STATUS = "The stored status of this recipient is damaged; whether it was reached is not known."
_NO_RECIPIENTS = "The stored recipients of this message are gone; nobody is left to send it to."


@dataclass(frozen=True)
class Recovery:
    """How to treat what a dead worker leaves behind.

    Args:
        policy: when to try again.
        rng: where jitter comes from.
        doubt: terms.RESEND or terms.HOLD, for messages that do not say.
        retention: how long to keep what ends.
    """

    policy: RetryPolicy
    rng: random.Random
    doubt: str
    retention: Retention


# --- in the caller's transaction -------------------------------------------------------------


def enqueue(db: Any, composed: Composed, terms: Terms, *, now: float) -> int | None:
    """Insert a message in the caller's transaction.

    Args:
        db: the host's DAL.
        composed: envelope and MIME text.
        terms: how it is to be treated.
        now: epoch seconds.

    Returns:
        The message's id; None where its dedupe key was used already, and nothing is written.
    """
    if terms.dedupe is not None and not _is_first(db, terms.dedupe, terms.dedupe_until, now):
        return None
    recipients = composed.envelope.recipients
    own = _fitting(
        db[MESSAGE],
        status=words.QUEUED,
        priority=terms.priority,
        due=terms.due,
        expires_on=terms.expires_on,
        doubt=terms.doubt,
        category=terms.category,
        sender=composed.envelope.sender,
        subject=composed.subject,
        message_uid=composed.message_id,
        smtputf8=composed.envelope.smtputf8,
        byte_size=len(composed.mime),
        recipients=len(recipients),
        attempts=0,
        created_on=now,
    )
    message_id = int(db[MESSAGE].insert(**own))
    for number, chunk in enumerate(_chunks(composed.mime)):
        db[CONTENT].insert(message_ref=message_id, chunk_no=number, mime=chunk)
    waiting = {"status": words.QUEUED, "due": terms.due, "attempts": 0, "changed_on": now}
    for kind, address in recipients:
        db[RECIPIENT].insert(message_ref=message_id, address=address, kind=kind, **waiting)
    return message_id


def _is_first(db: Any, key: str, until: float, now: float) -> bool:
    """Whether no other message holds this key; books it. Two transactions at once take turns.

    In one statement: a look first and an insert then would be a deadlock between two on MySQL.
    """
    booked = f"INSERT INTO {DEDUPE} (dedupe_key, until_on) VALUES (%s, %s)"
    if database.engine(db) == database.MYSQL:
        where_over = "ON DUPLICATE KEY UPDATE until_on = IF(until_on <= %s, VALUES(until_on), until_on)"
    else:
        update = "ON CONFLICT (dedupe_key) DO UPDATE SET until_on = excluded.until_on"
        where_over = f"{update} WHERE {DEDUPE}.until_on <= %s"
    return database.change(db, f"{booked} {where_over}", key, until, now) > 0


def _chunks(mime: bytes) -> Iterator[str]:
    text = mime.decode("utf-8")
    for start in range(0, len(text), CHUNK):
        yield text[start : start + CHUNK]


def _fitting(table: Any, **values: Any) -> dict[str, Any]:
    """The values, texts cut to the length of their columns and without what a database refuses.

    PostgreSQL refuses a text that is too long, NUL and lone surrogates, and with them the whole
    transaction. What a server or somebody else's transport says must not have that power.
    """
    return {
        name: _storable(value)[: table[name].length] if isinstance(value, str) else value
        for name, value in values.items()
    }


def _storable(text: str) -> str:
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def refuse(
    db: Any, *, address: str, subject: str, reason: str, category: str, now: float, retention: Retention
) -> int:
    """Insert a message that could not be made, as failed, so that it is not lost from sight.

    In the caller's transaction. It has no text, so it cannot be retried.

    Args:
        address: whom it was for, as it was given.
        reason: why it could not be made.

    Returns:
        The message's id.
    """
    message = _fitting(
        db[MESSAGE],
        status=words.FAILED,
        priority=words.NORMAL,
        category=category,
        subject=subject,
        byte_size=0,
        recipients=1,
        attempts=0,
        created_on=now,
        finished_on=now,
        purge_on=now + retention.record,
        failure_kind=words.MESSAGE,
        error=reason,
    )
    message_id = int(db[MESSAGE].insert(**message))
    recipient = _fitting(
        db[RECIPIENT],
        message_ref=message_id,
        address=address,
        kind=words.TO,
        status=words.FAILED,
        attempts=0,
        failure_kind=words.MESSAGE,
        reply=reason,
        changed_on=now,
    )
    db[RECIPIENT].insert(**recipient)
    return message_id


def retry(db: Any, message_id: int, now: float) -> bool:
    """Put every recipient that was not reached back into the queue, due at once.

    Returns:
        False where there is nothing to retry: sent to all, being sent, or its content is gone.
    """
    if not _hold(db, message_id):
        return False
    recipient = db[RECIPIENT]
    wanted = (recipient.message_ref == message_id) & recipient.status.belongs(_SOURCES[words.QUEUED])
    possible = has_content(db, message_id)
    changed = possible and db(wanted).update(status=words.QUEUED, due=now, changed_on=now, held_by=None)
    _let_go(db, message_id)
    if changed:
        _settle(db, message_id, now, changes={"crashes": None})
    return bool(changed)


def settle_doubt(db: Any, message_id: int, now: float, retention: Retention) -> bool:
    """Take what is in doubt for sent: an administrator knows that it arrived.

    Returns:
        False where nothing is in doubt, or a worker is sending the message at this moment.
    """
    return _end(db, message_id, [words.IN_DOUBT], words.SENT, now, retention)


def cancel(db: Any, message_id: int, now: float, retention: Retention) -> bool:
    """Stop trying every recipient that is still waiting.

    Returns:
        False where none was waiting, or a worker is sending the message at this moment.
    """
    return _end(db, message_id, _SOURCES[words.CANCELLED], words.CANCELLED, now, retention)


def _end(
    db: Any, message_id: int, sources: Sequence[str], target: str, now: float, retention: Retention
) -> bool:
    """Move every recipient of these statuses to its end. Whether there was any, and nobody was at it."""
    recipient = db[RECIPIENT]
    wanted = (recipient.message_ref == message_id) & recipient.status.belongs(sources)
    if not _hold(db, message_id):
        return False
    changed = db(wanted).update(status=target, due=None, changed_on=now)
    _let_go(db, message_id)
    if changed:
        _settle(db, message_id, now, retention)
    return bool(changed)


def _hold(db: Any, message_id: int) -> bool:
    """Lock the message's row until the caller's transaction ends, unless a worker holds a claim.

    A claim of the caller's own, since MySQL counts only rows that an update really changes.
    """
    message = db[MESSAGE]
    free = (message.id == message_id) & (message.claim == None)  # noqa: E711 - pydal's IS NULL
    return bool(db(free).update(claim=secrets.token_hex(16)) == 1)


def _let_go(db: Any, message_id: int) -> None:
    db(db[MESSAGE].id == message_id).update(claim=None)


def has_content(db: Any, message_id: int) -> bool:
    """Whether the MIME text of a message is still stored."""
    return not db(db[CONTENT].message_ref == message_id).isempty()


# --- the worker's own transactions -----------------------------------------------------------


def next_due(db: Any) -> float | None:
    """When the earliest waiting message is due, epoch seconds; None: nothing waits."""
    message = db[MESSAGE]
    earliest = message.due.min()
    dues = [
        db((message.priority == priority) & (message.due != None)).select(earliest).first()[earliest]  # noqa: E711
        for priority in words.PRIORITIES
    ]
    return min((due for due in dues if due is not None), default=None)


def claim(
    db: Any, worker_id: int, *, limit: int, now: float, priorities: Sequence[int] = words.PRIORITIES
) -> list[Claimed]:
    """Claim up to `limit` due messages of these priorities for a worker, the most urgent first. Commits.

    Workers that claim at the same moment get different messages: the update takes a row only
    while it is still due. One that comes away with nothing looks again.

    Returns:
        The messages; none only where none is due, or the worker was declared dead.
    """
    claimed: list[Claimed] = []
    while not claimed and (ids := _due_ids(db, limit, now, priorities)):
        db.commit()  # MySQL would show the recipients as they were when the ids were read
        claimed = _take(db, worker_id, ids, now)
        if not leases.hold(db, worker_id):  # whoever took this worker over would not see these claims
            db.rollback()
            return []
    db.commit()
    return claimed


def _take(db: Any, worker_id: int, ids: list[int], now: float) -> list[Claimed]:
    message = db[MESSAGE]
    token = secrets.token_hex(16)
    taken = message.id.belongs(ids) & (message.due <= now)
    db(taken).update(status=words.SENDING, due=None, worker=worker_id, claim=token, claimed_on=now)
    rows = db(message.id.belongs(ids) & (message.claim == token)).select()
    order = {message_id: place for place, message_id in enumerate(ids)}
    return [_claimed(db, row, now) for row in sorted(rows, key=lambda row: order[row.id])]


def _due_ids(db: Any, limit: int, now: float, priorities: Sequence[int]) -> list[int]:
    """Urgent mail first, but never all of the places for it while others wait."""
    message = db[MESSAGE]
    first, rest = priorities[0], priorities[1:]
    due = db((message.priority == first) & (message.due <= now))
    rows = due.select(message.id, orderby=message.due | message.id, limitby=(0, limit)) if limit else []
    own = [row.id for row in rows]
    others = _due_ids(db, max(limit - len(own), limit // SHARE), now, rest) if rest else []
    return [*own[: limit - len(others)], *others]


def _claimed(db: Any, row: Any, now: float) -> Claimed:
    return Claimed(
        id=row.id,
        token=row.claim,
        sender=row.sender,
        smtputf8=bool(row.smtputf8),
        tried_on=row.tried_on,
        doubt=row.doubt,
        priority=row.priority,
        expires_on=row.expires_on,
        recipients=tuple(_to_try(db, row.id, now)),
    )


def _to_try(db: Any, message_id: int, claimed_on: float) -> Iterator[Pending]:
    """The recipients that a claim made at this moment is for."""
    recipient = db[RECIPIENT]
    waiting = (recipient.message_ref == message_id) & recipient.status.belongs(words.PENDING)
    rows = db(waiting & (recipient.due <= claimed_on)).select(
        recipient.id,
        recipient.address,
        recipient.attempts,
        orderby=recipient.id,
        limitby=(0, RECIPIENTS_AT_ONCE),
    )
    return (Pending(row.id, row.address or "", row.attempts or 0) for row in rows)


def content(db: Any, message_id: int) -> bytes:
    """The MIME text of a message, as it was enqueued.

    Raises:
        ValueError: it is not complete any more.
    """
    row = db[MESSAGE](message_id)
    chunks = db(db[CONTENT].message_ref == message_id).select(orderby=db[CONTENT].chunk_no)
    mime = "".join(chunk.mime or "" for chunk in chunks).encode("utf-8")
    in_order = all(chunk.chunk_no == number for number, chunk in enumerate(chunks))
    if not row or not in_order or len(mime) != row.byte_size:
        raise ValueError("the stored text of this message is damaged or gone")
    return mime


def finish(db: Any, results: Sequence[Finished], now: float, retention: Retention) -> list[str]:
    """Write down what became of messages, all in one transaction. Commits.

    Returns:
        The new message statuses; a message whose claim this worker no longer holds is left out
        and stays as it is.
    """
    message = db[MESSAGE]
    statuses = []
    for result in results:
        mine = (message.id == result.message_id) & (message.claim == result.token)
        if db(mine).update(worker=None, claim=None, claimed_on=None) == 1:
            _apply(db, result, now)
            statuses.append(_settle(db, result.message_id, now, retention, _latest(db, result)))
    db.commit()
    return statuses


def _apply(db: Any, result: Finished, now: float) -> None:
    recipient = db[RECIPIENT]
    for outcome in result.outcomes:
        movable = (recipient.id == outcome.recipient_id) & recipient.status.belongs(_SOURCES[outcome.status])
        change = _fitting(
            recipient,
            status=outcome.status,
            due=outcome.due,
            failure_kind=outcome.failure_kind,
            code=outcome.code,
            enhanced=outcome.enhanced,
            reply=outcome.reply,
            transport=result.transport,
            changed_on=now,
            held_by=None,
        )
        attempts = recipient.attempts.coalesce_zero() + int(outcome.counts)
        moved = db(movable).update(**change, attempts=attempts)
        if moved and outcome.counts:
            _note_attempt(db, result, outcome)


def _note_attempt(db: Any, result: Finished, outcome: Outcome) -> None:
    made = _fitting(
        db[ATTEMPT],
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
    db[ATTEMPT].insert(**made)


def _settle(
    db: Any,
    message_id: int,
    now: float,
    retention: Retention = Retention(),
    changes: dict[str, Any] | None = None,
) -> str:
    """Bring the message's own row in line with its recipients; nobody holds a claim on it."""
    earliest = _earliest_dues(db, message_id)
    if _is_damaged(earliest):
        changes = {**(changes or {}), **_mend(db, message_id, now)}
        earliest = _earliest_dues(db, message_id)
    status = words.summarize(earliest) if earliest else words.FAILED
    waiting = [due for status, due in earliest.items() if status in words.PENDING]
    due = min((due for due in waiting if due is not None), default=None)
    db(db[MESSAGE].id == message_id).update(
        status=status,
        due=due,
        finished_on=None if waiting else now,
        purge_on=None if waiting else now + retention.content(status),
        # What an administrator retries is to be sent, however late.
        **({} if due is not None else {"expires_on": None}),
        **(changes or {}),
    )
    return status


def _earliest_dues(db: Any, message_id: int) -> dict[str, float | None]:
    """The statuses of a message's recipients, each with the earliest time one of them is due."""
    recipient = db[RECIPIENT]
    earliest = recipient.due.min()
    rows = db(recipient.message_ref == message_id).select(
        recipient.status, earliest, groupby=recipient.status, for_update=_must_lock(db)
    )
    return {row[recipient.status]: row[earliest] for row in rows}


def _must_lock(db: Any) -> bool:
    # MySQL shows the caller's transaction an older state than it changes, unless it is to lock it.
    return database.engine(db) == database.MYSQL


def _is_damaged(earliest: dict[str, float | None]) -> bool:
    unknown = set(earliest).difference(words.RECIPIENT_STATUSES)
    never = [status for status in (words.QUEUED, words.DEFERRED) if earliest.get(status, 0.0) is None]
    return bool(unknown or never or not earliest)


def _mend(db: Any, message_id: int, now: float) -> dict[str, Any]:
    """Put right what nothing here ever writes, so that the message comes to an end that is seen.

    Returns:
        What the message's own row is to say of it.
    """
    recipient = db[RECIPIENT]
    rows = db(recipient.message_ref == message_id).select(
        recipient.id, recipient.status, recipient.due, for_update=_must_lock(db)
    )
    # Compared here: to MySQL "SENT" and "sent" are the same.
    unknown = [row.id for row in rows if row.status not in words.RECIPIENT_STATUSES]
    never = [row.id for row in rows if row.status in (words.QUEUED, words.DEFERRED) and row.due is None]
    db(recipient.id.belongs(never)).update(due=now)
    db(recipient.id.belongs(unknown)).update(
        status=words.FAILED,
        due=None,
        failure_kind=words.MESSAGE,
        reply=_UNKNOWN_STATUS,
        changed_on=now,
    )
    reason = _UNKNOWN_STATUS if unknown else None if rows else _NO_RECIPIENTS
    return {"failure_kind": words.MESSAGE, "error": reason} if reason else {}


def _latest(db: Any, result: Finished) -> dict[str, Any]:
    failed = next((outcome for outcome in result.outcomes if outcome.failure_kind), None)
    spent = any(outcome.counts for outcome in result.outcomes)
    message = db[MESSAGE]
    return {
        "tried_on": message.tried_on.coalesce(result.started_on) if spent else message.tried_on,
        "attempts": message.attempts.coalesce_zero() + int(spent),
        "crashes": None,
        **_fitting(
            message,
            transport=result.transport,
            failure_kind=failed.failure_kind if failed else None,
            error=failed.reply if failed else None,
        ),
    }


def release(db: Any, claims: Iterable[Claimed], now: float) -> list[str]:
    """Give messages back as if they had never been claimed. Commits.

    Returns:
        Their statuses; `failed` for one that turns out to have nobody left to send it to.
    """
    message = db[MESSAGE]
    statuses = []
    for claimed in claims:
        mine = (message.id == claimed.id) & (message.claim == claimed.token)
        if db(mine).update(worker=None, claim=None, claimed_on=None) == 1:
            statuses.append(_settle(db, claimed.id, now))
    db.commit()
    return statuses


def hold_back(db: Any, held: Iterable[HeldBack], gone: Iterable[Claimed]) -> None:
    """Put recipients off that have no place now; that is no attempt. In the caller's transaction.

    A few statements for a whole claim, since there may be very many of them.

    Args:
        held: who is put off, until when, and for what.
        gone: claimed messages of which nobody may be tried now: their claims end.
    """
    recipient, message = db[RECIPIENT], db[MESSAGE]
    together: dict[tuple[float, str], list[int]] = {}
    for one in held:
        ids = together.setdefault((one.until, one.held_by), [])
        ids += [pending.id for pending in one.recipients]
    for (until, held_by), ids in together.items():
        waiting = recipient.id.belongs(ids) & recipient.status.belongs(words.PENDING)
        db(waiting).update(due=until, held_by=held_by)
    tokens = {claimed.id: claimed.token for claimed in gone}
    mine = message.id.belongs(list(tokens)) & message.claim.belongs(set(tokens.values()))
    if tokens:
        _let_wait(db, mine)


def _let_wait(db: Any, mine: Any) -> None:
    """End the claims on these messages, each to wait until the first of its recipients is due."""
    message, recipient = db[MESSAGE], db[RECIPIENT]
    ids = [row.id for row in db(mine).select(message.id)]
    earliest: dict[int, dict[str, float | None]] = {message_id: {} for message_id in ids}
    due = recipient.due.min()
    rows = db(recipient.message_ref.belongs(ids) & recipient.status.belongs(words.PENDING)).select(
        recipient.message_ref, recipient.status, due, groupby=recipient.message_ref | recipient.status
    )
    for row in rows:
        earliest[row[recipient.message_ref]][row[recipient.status]] = row[due]
    together: dict[tuple[str, float], list[int]] = {}
    for message_id, dues in earliest.items():
        moments = [moment for moment in dues.values() if moment is not None]
        if moments:
            together.setdefault((words.summarize(dues), min(moments)), []).append(message_id)
    for (status, moment), some in together.items():
        db(message.id.belongs(some)).update(
            status=status, due=moment, worker=None, claim=None, claimed_on=None
        )


def let_through(db: Any, held_by: str, now: float, limit: int = 1000) -> int:
    """Make due at once what was held back for this transport or domain. In the caller's transaction.

    Args:
        limit: how many recipients at most; the others come at their times.

    Returns:
        How many recipients.
    """
    recipient, message = db[RECIPIENT], db[MESSAGE]
    waiting = (recipient.held_by == held_by) & (recipient.due > now)
    rows = db(waiting).select(recipient.id, recipient.message_ref, orderby=recipient.due, limitby=(0, limit))
    db(recipient.id.belongs([row.id for row in rows]) & (recipient.due > now)).update(due=now)
    db(message.id.belongs({row.message_ref for row in rows}) & (message.due > now)).update(due=now)
    return len(rows)


def kinds_waited_for(db: Any) -> set[str]:
    """The failure kinds because of which recipients wait. Looks at waiting messages only."""
    message, recipient = db[MESSAGE], db[RECIPIENT]
    waiting = (message.due != None) & (recipient.message_ref == message.id)  # noqa: E711
    rows = db(waiting & recipient.status.belongs(words.PENDING)).select(recipient.failure_kind, distinct=True)
    return {row.failure_kind for row in rows if row.failure_kind}


def wake_held(db: Any, now: float) -> None:
    """Make due at once what waits because of a configuration fault. In the caller's transaction."""
    message, recipient = db[MESSAGE], db[RECIPIENT]
    waiting = (message.due != None) & (recipient.message_ref == message.id)  # noqa: E711
    held = waiting & recipient.status.belongs(words.PENDING) & (recipient.failure_kind == words.CONFIGURATION)
    rows = db(held).select(recipient.id, recipient.message_ref)
    db(recipient.id.belongs([row.id for row in rows])).update(due=now)
    ids = {row.message_ref for row in rows}
    db(message.id.belongs(ids) & (message.due != None)).update(due=now)  # noqa: E711


def expire(db: Any, *, now: float, retention: Retention, limit: int = 200) -> int:
    """End what waits and is not worth sending any more. Commits.

    What is in doubt stays so, and waits for an administrator.

    Args:
        now: epoch seconds.
        limit: the largest number of messages touched in one call.

    Returns:
        The number of messages ended.
    """
    message, recipient = db[MESSAGE], db[RECIPIENT]
    over = (message.expires_on <= now) & (message.due != None)  # noqa: E711
    ended = 0
    for row in db(over).select(message.id, limitby=(0, limit)):
        if not _hold(db, row.id):
            continue
        own = recipient.message_ref == row.id
        doubtful = own & (recipient.status == words.IN_DOUBT)
        db(doubtful).update(due=None)
        untried = own & recipient.status.belongs([words.QUEUED, words.DEFERRED])
        db(untried).update(status=words.EXPIRED, due=None, changed_on=now)
        _let_go(db, row.id)
        _settle(db, row.id, now, retention)
        ended += 1
    db.commit()
    return ended


def mend_waiting(db: Any, now: float) -> None:
    """Have what waits without a time, or with a priority that is none, be claimed after all. Commits.

    Nothing here leaves a row like that. Looks at all that waits, so only where nothing is due.
    """
    due = next_due(db)
    if due is not None and due <= now:
        return
    message = db[MESSAGE]
    free = message.status.belongs([words.QUEUED, words.DEFERRED]) & (message.claim == None)  # noqa: E711
    for row in db(free & (message.due == None)).select(message.id):  # noqa: E711
        if _hold(db, row.id):
            _let_go(db, row.id)
            _settle(db, row.id, now)
    unknown = (message.priority == None) | ~message.priority.belongs(words.PRIORITIES)  # noqa: E711
    # By their ids: otherwise MySQL waits for every row that some request has not committed yet.
    ids = [row.id for row in db(free & unknown).select(message.id)]
    if ids:
        db(message.id.belongs(ids) & free).update(priority=words.NORMAL)
    db.commit()


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
    message = db[MESSAGE]
    if not leases.take_over(db, worker):
        db.rollback()
        return 0
    taken = 0
    for row in db(message.worker == worker.id).select():
        taken += _take_back(db, row, evidence or NO_EVIDENCE, how, now)
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
    message, worker = db[MESSAGE], db[WORKER]
    of_nobody = ~message.worker.belongs(db(worker.id > 0)._select(worker.id))
    taken = 0
    for orphaned in (
        (message.worker != None) & of_nobody,  # noqa: E711 - pydal's IS NOT NULL
        (message.status == words.SENDING) & (message.worker == None),  # noqa: E711
    ):
        for row in db(orphaned).select():
            taken += _take_back(db, row, NO_EVIDENCE, how, now)
    db.commit()
    return taken


def _take_back(db: Any, row: Any, evidence: Evidence, how: Recovery, now: float) -> bool:
    """End one claim of a worker that is gone; False where it has finished the message just now."""
    message = db[MESSAGE]
    held = (message.id == row.id) & (message.worker == row.worker) & (message.claim == row.claim)
    # The status too: MySQL counts only rows that an update really changes.
    if db(held).update(status=words.QUEUED, worker=None, claim=None, claimed_on=None) != 1:
        return False
    if row.claimed_on is None:  # damaged
        row.claimed_on = now
    changes: dict[str, Any] = {}
    for result in _conclude(db, row, evidence, how, now):
        _apply(db, result, now)
        changes = _latest(db, result)
    if not changes and row.id in evidence.begun:
        changes = _note_crash(db, row, how, now)
    _settle(db, row.id, now, how.retention, changes)
    return True


def _conclude(db: Any, row: Any, evidence: Evidence, how: Recovery, now: float) -> Iterator[Finished]:
    given = tuple(_to_try(db, row.id, row.claimed_on))  # before the answers move some of them
    answered = [
        result for result in evidence.answered if (result.message_id, result.token) == (row.id, row.claim)
    ]
    yield from answered
    known = {outcome.recipient_id for result in answered for outcome in result.outcomes}
    started = evidence.started.get(row.id, [])
    outcomes = tuple(
        _doubt(row, pending, how, now)
        for pending in given
        if pending.id not in known and (pending.id in started or not evidence.complete)
    )
    if outcomes:
        yield Finished(row.id, row.claim, "", row.claimed_on, 0.0, outcomes)


def _doubt(row: Any, pending: Pending, how: Recovery, now: float) -> Outcome:
    text = "The worker died while the mail server's answer was awaited."
    failure = Failure(words.IN_DOUBT, words.DOT, "worker-died", text, surely_not_sent=False)
    decision = decide(
        failure,
        attempts=pending.attempts + 1,
        age=now - (row.tried_on or now),
        policy=how.policy,
        rng=how.rng,
        resend_doubt=(row.doubt or how.doubt) == RESEND,
    )
    return Outcome(
        recipient_id=pending.id,
        status=decision.status,
        due=None if decision.delay is None else now + decision.delay,
        failure_kind=failure.kind,
        cause=failure.rule,
        reply=failure.text,
    )


def _note_crash(db: Any, row: Any, how: Recovery, now: float) -> dict[str, Any]:
    """A worker died with this message in hand: the first time by chance, then the message is suspected.

    It costs no attempt, but the messages behind it go first, and after a few deaths it is given up.
    """
    crashes = (row.crashes or 0) + 1
    pending = tuple(_to_try(db, row.id, row.claimed_on))
    if crashes >= MOST_CRASHES:
        return _give_up(db, row, pending, crashes, now)
    if crashes > 1:
        later = now + delay_before(crashes - 1, how.policy, how.rng)
        recipient = db[RECIPIENT]
        db(recipient.id.belongs([one.id for one in pending])).update(due=later)
    return {"crashes": crashes}


def _give_up(db: Any, row: Any, pending: Iterable[Pending], crashes: int, now: float) -> dict[str, Any]:
    outcomes = tuple(
        Outcome(
            one.id,
            words.FAILED,
            stage=words.BUILD,
            failure_kind=words.MESSAGE,
            cause="worker-killer",
            reply=f"{crashes} workers in a row died while they had this message in hand.",
        )
        for one in pending
    )
    result = Finished(row.id, row.claim, "", row.claimed_on, 0.0, outcomes)
    _apply(db, result, now)
    return _latest(db, result)


def purge(db: Any, *, now: float, retention: Retention, limit: int = 200) -> int:
    """Delete the content, and later the whole record, of messages that ended long ago. Commits.

    Args:
        now: epoch seconds.
        limit: the largest number of messages touched in one call, so that sending never waits.

    Returns:
        The number of messages whose content or record was deleted.
    """
    message, content_table = db[MESSAGE], db[CONTENT]
    rows = db(message.purge_on <= now).select(message.id, message.finished_on, limitby=(0, limit))
    with_content = content_table.message_ref.belongs([row.id for row in rows])
    full = {row.message_ref for row in db(with_content).select(content_table.message_ref, distinct=True)}
    db.commit()
    purged = 0
    for row in rows:
        over = db((message.id == row.id) & (message.purge_on <= now))  # nobody is retrying it just now
        if row.id in full:
            later = max((row.finished_on or now) + retention.record, now + 1.0)
            gone, belonging = over.update(purge_on=later), [CONTENT]
        else:
            gone, belonging = over.delete(), [RECIPIENT, ATTEMPT]
        if gone:
            purged += 1
            for table in belonging:
                db(db[table].message_ref == row.id).delete()
    _purge_keys(db, now, limit)
    db.commit()
    return purged


def _purge_keys(db: Any, now: float, limit: int) -> None:
    table = db[DEDUPE]
    rows = db(table.until_on <= now).select(table.id, limitby=(0, limit))
    if rows:
        db(table.id.belongs([row.id for row in rows]) & (table.until_on <= now)).delete()

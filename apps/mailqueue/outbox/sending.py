"""Writing down what became of nearly all messages: one recipient, for whom the transport has taken it.

It comes to the same as finishing.py and settling.py. But one look at the recipients tells of many messages
that they have no other one, and what all of them share is said once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from .. import database, sql, words
from ..sql import Row, Values
from ..tables import ATTEMPT, MESSAGE, RECIPIENT
from .records import Finished, Outcome, Retention
from .rows import fit

# From which statuses a recipient may come to "sent".
_BEFORE = frozenset(source for source, targets in words.RECIPIENT_MOVES.items() if words.SENT in targets)
_REACHED = {"status": words.SENT, "due": None, "failure_kind": None, "held_by": None}
_ENDED = {
    "status": words.SENT,
    "due": None,
    "expires_on": None,
    "worker": None,
    "claim": None,
    "claimed_on": None,
    "crashes": None,
    "failure_kind": None,
    "error": None,
    "next_transport": None,
}

_RECIPIENT = ("attempts", "code", "enhanced", "reply", "provider_id", "transport")
_ATTEMPT = (
    "message_ref",
    "recipient_ref",
    "transport",
    "stage",
    "outcome",
    "code",
    "enhanced",
    "reply",
    "started_on",
    "duration",
)
_MESSAGE = ("attempts", "tried_on", "transport")

_known = lru_cache(maxsize=256)(fit)  # of texts that come with every message


class _Sent(NamedTuple):
    """A message that was sent: its result, its row, and the attempts for its recipient so far."""

    result: Finished
    row: Row
    attempts: int


def store_sent(
    db: Any, results: Mapping[int, Finished], held: Mapping[int, Row], now: float, retention: Retention
) -> set[int]:
    """Write down those of the results that say a message was sent to its one recipient.

    Args:
        results: the result for each message.
        held: the messages' rows, which are locked: attempts, tried_on, wipe.

    Returns:
        The messages; all others stay as they are.
    """
    likely = [
        message_id
        for message_id, result in results.items()
        if _is_sent(result) and held[message_id]["wipe"] != "T"
    ]
    sent = [
        _Sent(results[message_id], held[message_id], attempts)
        for message_id, recipient_id, attempts in _of_one_recipient(db, likely)
        if recipient_id == results[message_id].outcomes[0].recipient_id
    ]
    said = [_said(result.outcomes[0]) for result, _, _ in sent]
    reached = [_recipient(one, *its_words) for one, its_words in zip(sent, said, strict=True)]
    sql.update_values(db, RECIPIENT, _RECIPIENT, reached, {**_REACHED, "changed_on": now})
    attempts = [_attempt(one, *its_words) for one, its_words in zip(sent, said, strict=True)]
    sql.insert_values(db, ATTEMPT, _ATTEMPT, attempts)
    ending = {"finished_on": now, "purge_on": now + retention.content(words.SENT)}
    sql.update_values(db, MESSAGE, _MESSAGE, [_message(one) for one in sent], {**_ENDED, **ending})
    return {result.message_id for result, _, _ in sent}


def _is_sent(result: Finished) -> bool:
    outcomes = result.outcomes
    alone = len(outcomes) == 1 and not result.in_vain
    return alone and outcomes[0].status == words.SENT and outcomes[0].counts


def _of_one_recipient(db: Any, ids: Sequence[int]) -> list[tuple[int, int, int]]:
    """Of those messages with one recipient that may be sent to: message, recipient, attempts so far."""
    table = RECIPIENT
    if database.engine(db) == database.MYSQL:  # it would rather read all of a small table
        table = f"{RECIPIENT} FORCE INDEX (mailqueue_recipient_message_idx)"
    columns = "message_ref, MIN(id), MIN(attempts), MIN(status)"
    return [
        (message_id, recipient_id, attempts or 0)
        for some in sql.portions(ids)
        for message_id, recipient_id, attempts, status in sql.fetch(
            db,
            f"SELECT {columns} FROM {table} WHERE message_ref IN ({sql.signs(some)})"
            " GROUP BY message_ref HAVING COUNT(*) = 1",
            *some,
        )
        if status in _BEFORE
    ]


def _said(outcome: Outcome) -> tuple[str | None, str | None]:
    """What the server said, as both a recipient and an attempt take it."""
    return _known(RECIPIENT, "enhanced", outcome.enhanced), fit(RECIPIENT, "reply", outcome.reply)


def _recipient(one: _Sent, enhanced: str | None, reply: str | None) -> Values:
    outcome = one.result.outcomes[0]
    transport = _known(RECIPIENT, "transport", one.result.transport)
    provider_id = fit(RECIPIENT, "provider_id", outcome.provider_id)
    return (one.attempts + 1, outcome.code, enhanced, reply, provider_id, transport, outcome.recipient_id)


def _attempt(one: _Sent, enhanced: str | None, reply: str | None) -> Values:
    result, outcome = one.result, one.result.outcomes[0]
    return (
        result.message_id,
        outcome.recipient_id,
        _known(ATTEMPT, "transport", result.transport),
        _known(ATTEMPT, "stage", outcome.stage),
        outcome.status,
        outcome.code,
        enhanced,
        reply,
        result.started_on,
        result.duration,
    )


def _message(one: _Sent) -> Values:
    result, row = one.result, one.row
    tried_on = result.started_on if row["tried_on"] is None else row["tried_on"]
    transport = _known(MESSAGE, "transport", result.transport)
    return ((row["attempts"] or 0) + 1, tried_on, transport, result.message_id)

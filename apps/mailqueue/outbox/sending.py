"""Writing down what became of nearly all messages: one recipient, for whom the transport has taken it.

It comes to the same as finishing.py and settling.py, which read the rows first. Here the database itself
looks whether they are as expected, and changes them in the same statement; what is not is left to the others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, NamedTuple

from .. import database, sql, words
from ..tables import ATTEMPT, MESSAGE, RECIPIENT
from .records import Finished, Outcome, Retention
from .rows import fit, storable

# From which statuses a recipient may come to "sent".
_BEFORE = ", ".join(
    f"'{source}'" for source, targets in sorted(words.RECIPIENT_MOVES.items()) if words.SENT in targets
)

_NOW_SENT = (f"status = '{words.SENT}'", "due = NULL", "failure_kind = NULL")
_CLAIM = ("expires_on", "worker", "claim", "claimed_on", "crashes", "error", "next_transport")
_ENDED = (*_NOW_SENT, *(f"{name} = NULL" for name in _CLAIM))
_REACHED = (*_NOW_SENT, "held_by = NULL", "provider_id = NULL")
_SAID = tuple(f"{name} = %s" for name in ("transport", "code", "enhanced", "changed_on"))
_WHEN = tuple(f"{name} = %s" for name in ("transport", "finished_on", "purge_on"))
_INTO_ATTEMPT = (
    f"INSERT INTO {ATTEMPT} (outcome, transport, stage, code, enhanced,"
    " message_ref, recipient_ref, reply, started_on, duration)"
)
_ITS_VALUES = (
    f"SELECT '{words.SENT}', %s, %s, %s, %s, v.message, v.recipient, v.reply, v.started_on, v.duration FROM"
)

_message_id = attrgetter("message_id")


class _Shared(NamedTuple):
    """What messages have in common that one connection sent one after the other."""

    transport: str | None
    stage: str | None
    code: int | None
    enhanced: str | None


class _Sent(NamedTuple):
    """What each of them has of its own."""

    message: int
    recipient: int
    token: str
    reply: str
    started_on: float
    duration: float


class _Ends(NamedTuple):
    """When that is written down, and when their contents are to be deleted; epoch seconds."""

    now: float
    purge_on: float


_LONGEST = 1000  # characters of a usual reply: as many as are written down at once fit into any statement

_Store = Callable[[Any, _Shared, Sequence[_Sent], _Ends], list[int]]


class _Otherwise(Exception):
    """Some of the rows are not as expected."""


def store_sent(db: Any, results: Sequence[Finished], now: float, retention: Retention) -> set[int]:
    """Write down those of the results that say a message was sent to its one recipient.

    In the caller's transaction, which is one that writes.

    Returns:
        The messages; all others stay as they are.
    """
    store = _way_of(db)
    if store is None:
        return set()
    ends, stored = _Ends(now, now + retention.content(words.SENT)), set[int]()
    for shared, sent in _alike(results):
        for some in sql.portions(sent, sql.most_rows(db, len(_Sent._fields))):
            stored.update(store(db, shared, some, ends))
    return stored


def _way_of(db: Any) -> _Store | None:
    """How the database does it; None: it cannot."""
    kind = database.engine(db)
    if kind == database.MYSQL and not database.is_mariadb(db, (10, 6)):  # it has no JSON_TABLE
        return None
    return {database.SQLITE: _in_turn, database.POSTGRES: _at_once, database.MYSQL: _joined}[kind]


def _alike(results: Sequence[Finished]) -> list[tuple[_Shared, list[_Sent]]]:
    """The results that are meant here, by what they have in common."""
    times = Counter(map(_message_id, results))
    found: dict[tuple[Any, ...], list[_Sent]] = {}
    for result in sorted(results, key=_message_id):  # rows.hold() locks them in this order too
        if times[result.message_id] == 1 and _is_sent(result):
            outcome = result.outcomes[0]
            shared = (result.transport, outcome.stage, outcome.code, outcome.enhanced)
            found.setdefault(shared, []).append(_of_its_own(result, outcome))
    return [(_fitting(*shared), sent) for shared, sent in found.items()]


def _is_sent(result: Finished) -> bool:
    if len(result.outcomes) != 1 or result.in_vain:
        return False
    (outcome,) = result.outcomes
    usual = outcome.provider_id is None and outcome.reply is not None and len(outcome.reply) <= _LONGEST
    return outcome.status == words.SENT and outcome.counts and usual


def _fitting(transport: str | None, stage: str, code: int | None, enhanced: str | None) -> _Shared:
    where = fit(ATTEMPT, "transport", transport), fit(ATTEMPT, "stage", stage)
    return _Shared(*where, code, fit(RECIPIENT, "enhanced", enhanced))


def _of_its_own(result: Finished, outcome: Outcome) -> _Sent:
    reply, started_on, duration = storable(outcome.reply), result.started_on, result.duration
    return _Sent(result.message_id, outcome.recipient_id, result.token, reply, started_on, duration)


# --- PostgreSQL: all in one statement ----------------------------------------------------------------

_KINDS = ("integer", "integer", "text", "text", "double precision", "double precision")
_AT_ONCE_STATEMENT = f"""
WITH v AS (
  SELECT * FROM unnest({", ".join(f"%s::{kind}[]" for kind in _KINDS)}) AS v ({", ".join(_Sent._fields)})
), m AS (
  UPDATE {MESSAGE} AS t
  SET {", ".join((*_ENDED, *_WHEN))},
    attempts = COALESCE(t.attempts, 0) + 1, tried_on = COALESCE(t.tried_on, v.started_on)
  FROM v
  WHERE t.id = v.message AND t.claim = v.token AND t.wipe IS DISTINCT FROM 'T'
    AND EXISTS (SELECT 1 FROM {RECIPIENT} AS r
      WHERE r.id = v.recipient AND r.message_ref = v.message AND r.status IN ({_BEFORE}))
    AND NOT EXISTS (SELECT 1 FROM {RECIPIENT} AS o WHERE o.message_ref = v.message AND o.id <> v.recipient)
  RETURNING v.message, v.recipient, v.reply, v.started_on, v.duration
), r AS (
  UPDATE {RECIPIENT} AS t
  SET {", ".join((*_REACHED, *_SAID))}, attempts = COALESCE(t.attempts, 0) + 1, reply = m.reply
  FROM m WHERE t.id = m.recipient
), a AS ({_INTO_ATTEMPT} {_ITS_VALUES} m AS v)
SELECT message FROM m
"""


def _at_once(db: Any, shared: _Shared, sent: Sequence[_Sent], ends: _Ends) -> list[int]:
    given = [sql.array(values) for values in zip(*sent, strict=True)]
    found = sql.fetch(db, _AT_ONCE_STATEMENT, *given, *_when(shared, ends), *_said(shared, ends), *shared)
    return [message_id for (message_id,) in found]


def _when(shared: _Shared, ends: _Ends) -> tuple[object, ...]:
    return (shared.transport, *ends)


def _said(shared: _Shared, ends: _Ends) -> tuple[object, ...]:
    return (shared.transport, shared.code, shared.enhanced, ends.now)


# --- MariaDB: two statements -------------------------------------------------------------------------

_UNICODE = "CHARACTER SET utf8mb4"  # whatever the database's own is
_TYPES = ("INT", "INT", f"VARCHAR(255) {_UNICODE}", f"LONGTEXT {_UNICODE}", "DOUBLE", "DOUBLE")
_PATHS = ", ".join(
    f"{name} {kind} PATH '$[{place}]'"
    for place, (name, kind) in enumerate(zip(_Sent._fields, _TYPES, strict=True))
)
_TABLE = f"JSON_TABLE(%s, '$[*]' COLUMNS ({_PATHS})) AS v"
_JOINED_STATEMENT = f"""
UPDATE {_TABLE}
  STRAIGHT_JOIN {MESSAGE} AS t FORCE INDEX (PRIMARY) ON t.id = v.message
  STRAIGHT_JOIN {RECIPIENT} AS r FORCE INDEX (PRIMARY) ON r.id = v.recipient
  LEFT JOIN {RECIPIENT} AS o FORCE INDEX (mailqueue_recipient_message_idx)
    ON o.message_ref = v.message AND o.id <> v.recipient
SET {", ".join(f"t.{change}" for change in (*_ENDED, *_WHEN))},
  t.attempts = COALESCE(t.attempts, 0) + 1, t.tried_on = COALESCE(t.tried_on, v.started_on),
  {", ".join(f"r.{change}" for change in (*_REACHED, *_SAID))},
  r.attempts = COALESCE(r.attempts, 0) + 1, r.reply = v.reply
WHERE CAST(t.claim AS BINARY) = CAST(v.token AS BINARY) AND NOT (t.wipe <=> 'T')
  AND r.message_ref = v.message AND CAST(r.status AS BINARY) IN ({_BEFORE}) AND o.id IS NULL
"""


def _joined(db: Any, shared: _Shared, sent: Sequence[_Sent], ends: _Ends) -> list[int]:
    given = json.dumps(sent, ensure_ascii=False)
    with suppress(_Otherwise), database.savepoint(db):
        changed = sql.change(db, _JOINED_STATEMENT, given, *_when(shared, ends), *_said(shared, ends))
        if changed != 2 * len(sent):
            raise _Otherwise
        sql.change(db, f"{_INTO_ATTEMPT} {_ITS_VALUES} {_TABLE}", *shared, given)
        return [one.message for one in sent]
    return []


# --- SQLite: three statements ------------------------------------------------------------------------

_V = f"v ({', '.join(_Sent._fields)})"
_AS_EXPECTED = f"""{_ITS_VALUES} v CROSS JOIN {MESSAGE} AS t CROSS JOIN {RECIPIENT} AS r
WHERE t.id = v.message AND r.id = v.recipient AND t.claim = v.token AND t.wipe IS NOT 'T'
  AND r.message_ref = v.message AND r.status IN ({_BEFORE})
  AND NOT EXISTS (SELECT 1 FROM {RECIPIENT} AS o WHERE o.message_ref = v.message AND o.id <> v.recipient)"""
_PUT_REACHED = f"""ON CONFLICT (id) DO UPDATE SET {", ".join((*_REACHED, *_SAID))},
  attempts = COALESCE(attempts, 0) + 1, reply = excluded.reply"""
_PUT_ENDED = f"""ON CONFLICT (id) DO UPDATE SET {", ".join((*_ENDED, *_WHEN))},
  attempts = COALESCE(attempts, 0) + 1, tried_on = COALESCE(tried_on, excluded.tried_on)"""


def _in_turn(db: Any, shared: _Shared, sent: Sequence[_Sent], ends: _Ends) -> list[int]:
    # Rows are put in the place of those that are there, since UPDATE FROM leaves the way to a planner, who
    # reads all of a table that he believes small.
    with suppress(_Otherwise), database.savepoint(db):
        listed, given = sql.values_of(sent)
        attempts = f"{_INTO_ATTEMPT} WITH {_V} AS (VALUES {listed}) {_AS_EXPECTED}"
        if sql.change(db, attempts, *given, *shared) != len(sent):
            raise _Otherwise
        listed, given = sql.values_of([(one.recipient, one.reply) for one in sent])
        reached = f"INSERT INTO {RECIPIENT} (id, reply) VALUES {listed} {_PUT_REACHED}"
        sql.change(db, reached, *given, *_said(shared, ends))
        listed, given = sql.values_of([(one.message, one.started_on) for one in sent])
        ended = f"INSERT INTO {MESSAGE} (id, tried_on) VALUES {listed} {_PUT_ENDED}"
        sql.change(db, ended, *given, *_when(shared, ends))
        return [one.message for one in sent]
    return []

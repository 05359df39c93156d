"""Finding the messages of a selection, step by step, at a cost that does not grow with the history.

A step follows an index: that of the address, of the statuses, or of the ids. Of what the index brings it
looks at LOOKED_AT messages at most, and says where the next step goes on: it may find nothing while others
do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from . import database, sql, words
from .masking import masked
from .selection import Selection, between, condition, with_address_like
from .tables import MESSAGE, RECIPIENT

LOOKED_AT = 1000  # messages in one step
_GREATEST = 2**62  # no id is

_ALL = frozenset(words.MESSAGE_STATUSES)


@dataclass(frozen=True)
class Found:
    """What one step found.

    Attributes:
        ids: of messages, in the order of the step.
        beyond: the id beyond which the next step goes on; None: there is nothing more.
    """

    ids: list[int]
    beyond: int | None


@dataclass(frozen=True)
class _Stretch:
    """The ids between two others, in the order of a step: the greatest first where it goes down."""

    above: int
    below: int
    down: bool

    @property
    def order(self) -> str:
        return "DESC" if self.down else "ASC"

    @property
    def beyond(self) -> int:
        """The id beyond which the next stretch begins."""
        return self.above + 1 if self.down else self.below - 1

    def cut(self, edges: Iterable[int]) -> _Stretch:
        """Only what comes before each of these ids."""
        if self.down:
            return _Stretch(max(edges, default=self.above), self.below, self.down)
        return _Stretch(self.above, min(edges, default=self.below), self.down)


@dataclass(frozen=True)
class _Lane:
    """The part of a table that an index brings in the order of the messages' ids."""

    table: str
    index: str
    column: str  # with the messages' ids
    own: str  # the condition that makes it this part
    value: str | None = None

    def read(
        self, db: Any, stretch: _Stretch, window: str, also: str = "", values: Sequence[object] = ()
    ) -> list[int]:
        """Ids of a stretch, as far as another condition is met, too."""
        # MySQL would rather walk along another index that happens to have the order.
        hint = f" FORCE INDEX ({self.index})" if database.engine(db) == database.MYSQL else ""
        parts = [self.own, f"{self.column} > %s AND {self.column} < %s", also]
        where = " AND ".join(filter(None, parts))
        asked = f"SELECT {self.column} FROM {self.table}{hint} WHERE {where}"
        given = [*([] if self.value is None else [self.value]), stretch.above, stretch.below, *values]
        ordered = f"{asked} ORDER BY {self.column} {stretch.order} {window}"
        return [message_id for (message_id,) in sql.fetch(db, ordered, *given)]


class Search:
    """The messages of a selection.

    Args:
        selection: which.
        statuses: only messages of these.
    """

    def __init__(self, db: Any, selection: Selection, statuses: Collection[str] = _ALL):
        self._db, self._is_looked_for = db, selection.is_looked_for
        self._above, self._below = between(db, selection)
        self._statuses = sorted(_possible(selection).intersection(statuses))
        self._of_address = selection.address is not None
        self._lanes = _of_address(selection) if self._of_address else _of_statuses(self._statuses)
        self._condition, self._values = condition(db, selection)
        self._search = selection.search

    def step(self, *, limit: int, before: int | None = None, after: int | None = None) -> Found:
        """Take one step.

        Args:
            limit: how many messages at most.
            before: only those with smaller ids, the greatest first; that is the order without `after` too.
            after: only those with greater ids, the smallest first.
        """
        if not self._statuses:  # no message can be meant
            return Found([], None)
        stretch = _Stretch(
            max(bound for bound in (-1, self._above, after) if bound is not None),
            min(bound for bound in (_GREATEST, self._below, before) if bound is not None),
            down=after is None,
        )
        edges = self._edges(stretch) if self._is_looked_for else []
        within = stretch.cut(edges)
        search = self._among_theirs if self._of_address else self._among_all
        ids = sorted(search(within, limit), reverse=within.down)[:limit]
        beyond = ids[-1] if len(ids) == limit else within.beyond if edges else None
        return Found(self._without_guesses(ids), beyond)

    def _without_guesses(self, ids: list[int]) -> list[int]:
        """Those that show what was searched: a key that is hidden must not be found out bit by bit."""
        wanted = self._search
        if wanted is None or not ids:
            return ids
        asked = f"SELECT id, subject, category FROM {MESSAGE} WHERE id IN ({sql.signs(ids)})"
        hidden = {
            message_id
            for message_id, subject, category in sql.fetch(self._db, asked, *ids)
            if (shown := masked(subject or "", category)) != (subject or "")
            and wanted.casefold() not in shown.casefold()
        }
        of_address = with_address_like(self._db, sorted(hidden), wanted) if hidden else set()
        return [message_id for message_id in ids if message_id not in hidden or message_id in of_address]

    def steps(self, *, limit: int, before: int | None = None, after: int | None = None) -> Iterator[Found]:
        """One step after the other, to the end; the arguments are those of the first one."""
        found = self.step(limit=limit, before=before, after=after)
        yield found
        while found.beyond is not None:
            way = {"before": found.beyond} if after is None else {"after": found.beyond}
            found = self.step(limit=limit, **way)
            yield found

    def _edges(self, stretch: _Stretch) -> list[int]:
        """The id in each lane that is not looked at any more, where it is so long."""
        end = f"LIMIT 1 OFFSET {LOOKED_AT}"
        return [edge for lane in self._lanes for edge in lane.read(self._db, stretch, end)]

    def _among_all(self, stretch: _Stretch, limit: int) -> list[int]:
        also, end = (self._condition, self._values), f"LIMIT {limit}"
        return [found for lane in self._lanes for found in lane.read(self._db, stretch, end, *also)]

    def _among_theirs(self, stretch: _Stretch, limit: int) -> list[int]:
        # The ids first: a join might be done the other way round, through all the messages there are.
        theirs = {own for lane in self._lanes for own in lane.read(self._db, stretch, "")}
        parts = [f"status IN ({sql.signs(self._statuses)})", self._condition]
        also = " AND ".join(filter(None, parts))
        return [
            found
            for some in sql.portions(sorted(theirs))
            for (found,) in sql.fetch(
                self._db,
                f"SELECT id FROM {MESSAGE} WHERE id IN ({sql.signs(some)}) AND {also}",
                *some,
                *self._statuses,
                *self._values,
            )
        ]


def newest(db: Any) -> int:
    """The id that the newest message has now; 0: there is none."""
    ((found,),) = sql.fetch(db, f"SELECT MAX(id) FROM {MESSAGE}")
    return int(found or 0)


def _possible(selection: Selection) -> frozenset[str]:
    """The statuses that messages of a selection may have: what was sent has no failure."""
    failed = selection.failure is not None or selection.error is not None
    possible = _ALL - {words.SENT} if failed else _ALL
    return possible if selection.status is None else possible & {selection.status}


def _of_address(selection: Selection) -> list[_Lane]:
    index = "mailqueue_recipient_mail_idx"
    return [_Lane(RECIPIENT, index, "message_ref", "address = %s", one) for one in selection.spellings]


def _of_statuses(statuses: Collection[str]) -> list[_Lane]:
    if len(statuses) == len(_ALL):
        return [_Lane(MESSAGE, "PRIMARY", "id", "")]
    index = "mailqueue_message_status_idx"
    return [_Lane(MESSAGE, index, "id", "status = %s", status) for status in sorted(statuses)]

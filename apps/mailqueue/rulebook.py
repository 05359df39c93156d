"""The rules for replies that administrators have added, and the replies that no rule knew."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import sql, words
from .classify import Failure, own_words
from .outbox import fitting
from .own_rules import GENERAL, LONGEST, MEANINGS, OwnRule
from .tables import ATTEMPT, RULE

logger = logging.getLogger("mailqueue")

MOST_RULES = 200
MOST_ATTEMPTS = 20_000  # the latest, among which replies are looked for that no rule knew
MOST_UNKNOWN = 50

_CHANGING = re.compile(r"<[^<>]*>|\S+@\S+|\S*\d\S*")  # addresses, queue ids, times: another one in each reply
_COLUMNS = ("stage", "code", "enhanced", "reply_text", "meaning")


def rules(db: Any) -> list[OwnRule]:
    """The rules, the first one added first; one whose row is damaged is left out."""
    asked = f"SELECT {', '.join(_COLUMNS)} FROM {RULE} ORDER BY id LIMIT {MOST_RULES}"
    return list(_sound(sql.fetch(db, asked)))


def _sound(rows: list[tuple[Any, ...]]) -> Iterator[OwnRule]:
    for stage, code, enhanced, text, meaning in rows:
        try:
            yield OwnRule(stage or "", code or 0, enhanced or "", text or "", meaning or "")
        except ValueError as error:
            logger.warning("a rule for replies is damaged and left out: %s", error)


def rows(db: Any) -> list[dict[str, Any]]:
    """The rules as they are stored, with who added them and when."""
    table = db[RULE]
    found: list[dict[str, Any]] = db(table.id > 0).select(orderby=table.id, limitby=(0, MOST_RULES)).as_list()
    return found


def add(db: Any, rule: OwnRule, who: str, now: float) -> bool:
    """Add a rule, in the caller's transaction.

    Returns:
        False where there is such a rule already, or there are MOST_RULES.
    """
    present = rules(db)
    if rule in present or len(present) >= MOST_RULES:
        return False
    stored = dict(zip(_COLUMNS, (rule.stage, rule.code, rule.enhanced, rule.text, rule.meaning), strict=True))
    sql.insert(db, RULE, [fitting(RULE, added_by=who, added_on=now, **stored)])
    return True


def remove(db: Any, rule_id: int) -> str | None:
    """Remove a rule, in the caller's transaction.

    Returns:
        What it was, in words; None where it is gone already.
    """
    row = db[RULE](rule_id)
    if row is None or not db(db[RULE].id == rule_id).delete():
        return None
    return told(row)


def told(row: Any) -> str:
    """A rule in words: what it looks for, and what that means."""
    parts = (row["stage"], row["code"], row["enhanced"], f"“{row['reply_text']}”")
    return f"{' '.join(str(part) for part in parts if part)} → {row['meaning']}"


@dataclass
class Unknown:
    """Replies of the same shape that no rule knew.

    Attributes:
        failure: the last one; its kind is not known.
        number: how many of them.
        last_on: when the last one came, epoch seconds.
        decided: whether a rule of the site fits them by now.
    """

    failure: Failure
    number: int
    last_on: float | None
    decided: bool


def unknown(db: Any) -> list[Unknown]:
    """The replies among the latest attempts that were decided by their number only, the most frequent first.

    One whose shape a rule fits by now is left out.
    """
    ((newest,),) = sql.fetch(db, f"SELECT MAX(id) FROM {ATTEMPT}")
    present = rules(db)
    asked = (
        f"SELECT stage, code, enhanced, reply, started_on, cause FROM {ATTEMPT} WHERE id > %s AND code >= 400"
        f" AND cause IN ({sql.signs(GENERAL)}) AND stage IN ({sql.signs(MEANINGS)}) ORDER BY id DESC"
    )
    found: dict[tuple[Any, ...], Unknown] = {}
    for stage, code, enhanced, reply, started_on, cause in sql.fetch(
        db, asked, (newest or 0) - MOST_ATTEMPTS, *GENERAL, *MEANINGS
    ):
        shape = stage, code, enhanced, _CHANGING.sub("…", reply or "")
        if shape not in found:
            seen = Failure(words.TRANSIENT, stage, cause, reply or "", code, enhanced)
            found[shape] = Unknown(seen, 0, started_on, any(rule.fits(seen) for rule in present))
        found[shape].number += 1
    left = [one for one in found.values() if not one.decided]
    return sorted(left, key=lambda one: -one.number)[:MOST_UNKNOWN]


def constant_part(text: str) -> str:
    """The longest part of a reply that the next one like it will have too."""
    return max(_CHANGING.split(own_words(text)), key=len).strip(" .,:;()")[:LONGEST]

"""Who was asked to approve which account, and what was decided. All in the caller's transaction.

Each approver has a token of their own, of which only a hash is kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import tokens
from .tables import APPROVAL

APPROVED = "approved"
DECLINED = "declined"

KEPT = 90 * 86400.0  # seconds after its end for which a link can still say what became of it


@dataclass(frozen=True)
class Asked:
    """One approver's question.

    Args:
        account: the applicant's row.
        approver: the address that was asked.
        expires_on: until when the link acts, epoch seconds.
        decision: APPROVED, DECLINED or None.
        decided_by: who decided; whoever was asked, or the name of a page.
        decided_on: epoch seconds.
    """

    account: int
    approver: str
    expires_on: float
    decision: str | None
    decided_by: str | None
    decided_on: float | None


def ask(
    db: Any, account: int, approvers: Iterable[str], *, language: str, now: float, expires_on: float
) -> dict[str, str]:
    """Note that an account is to be decided on.

    Args:
        account: the applicant's row.
        approvers: the addresses that are asked.
        language: the applicant's.
        now, expires_on: epoch seconds.

    Returns:
        The token of each approver.
    """
    given = {approver: tokens.issue(expires_on) for approver in approvers}
    for approver, token in given.items():
        db[APPROVAL].insert(
            account=account,
            approver=approver[: db[APPROVAL].approver.length],
            token_hash=tokens.hashed(token),
            spoken=language[: db[APPROVAL].spoken.length],
            asked_on=now,
            expires_on=expires_on,
        )
    return given


def find(db: Any, token: str) -> Asked | None:
    """The question that a token belongs to; None: there is none, or not any more."""
    row = db(db[APPROVAL].token_hash == tokens.hashed(token)).select().first()
    if row is None:
        return None
    return Asked(row.account, row.approver, row.expires_on, row.decision, row.decided_by, row.decided_on)


def language_of(db: Any, account: int) -> str | None:
    """The language of the applicant when the account was made; None: nobody was asked."""
    table = db[APPROVAL]
    row = db(table.account == account).select(table.spoken, orderby=~table.id, limitby=(0, 1)).first()
    return row.spoken or None if row else None


def asked_on(db: Any, accounts: Iterable[int]) -> dict[int, float]:
    """When the approvers of these accounts were asked first, epoch seconds."""
    table = db[APPROVAL]
    first = table.asked_on.min()
    open_ones = table.account.belongs(list(accounts)) & (table.decision == None)  # noqa: E711
    rows = db(open_ones).select(table.account, first, groupby=table.account)
    return {row[table.account]: row[first] for row in rows}


def decide(db: Any, account: int, decision: str, decided_by: str, now: float) -> None:
    """Note a decision on everything that was asked about this account and is open."""
    table = db[APPROVAL]
    open_ones = (table.account == account) & (table.decision == None)  # noqa: E711 - pydal's IS NULL
    decided_by = decided_by[: table.decided_by.length]
    db(open_ones).update(decision=decision, decided_by=decided_by, decided_on=now)


def tidy(db: Any, now: float, limit: int = 1000) -> None:
    """Delete what was asked long ago.

    Args:
        limit: how many rows at most, so that sending never waits.
    """
    table = db[APPROVAL]
    over = table.expires_on <= now - KEPT
    ids = [row.id for row in db(over).select(table.id, limitby=(0, limit))]
    if ids:
        db(table.id.belongs(ids) & over).delete()

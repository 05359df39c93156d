"""The only package that changes a message's status: enqueue, claim, finish, recover, retry, cancel, purge.

A message waits while its `due` is set; a claim clears it and leaves a token. Whatever a worker
says about a message afterwards is guarded by that token, so that a worker whose claim is gone
cannot finish it. enqueue, retry and cancel run in the caller's transaction; claim, finish,
release, recover and purge are the worker's own and commit.

All of it works on many messages at once: their rows are read and locked in one statement, changed
here, and written back in one statement. Messages are locked before their recipients, and in the order
of their ids, so that two that lock the same ones wait for each other in turn.
"""

from __future__ import annotations

from .claiming import RECIPIENTS_AT_ONCE, SHARE, claim, next_due, number_due
from .enqueueing import enqueue, refuse
from .finishing import finish, release
from .records import (
    NO_EVIDENCE,
    Claimed,
    Evidence,
    Finished,
    HeldBack,
    Outcome,
    Pending,
    Recovery,
    Retention,
)
from .recovery import MOST_CRASHES, recover, recover_orphans
from .retention import delete_all, expire, purge
from .rows import fitting
from .texts import content, contents, has_content
from .verbs import CORRECTABLE, cancel, cancel_all, correct, retry, retry_all, settle_doubt
from .waiting import hold_back, kinds_waited_for, let_through, mend_waiting, wake_held

__all__ = [
    "CORRECTABLE",
    "MOST_CRASHES",
    "NO_EVIDENCE",
    "RECIPIENTS_AT_ONCE",
    "SHARE",
    "Claimed",
    "Evidence",
    "Finished",
    "HeldBack",
    "Outcome",
    "Pending",
    "Recovery",
    "Retention",
    "cancel",
    "cancel_all",
    "claim",
    "content",
    "contents",
    "correct",
    "delete_all",
    "enqueue",
    "expire",
    "finish",
    "fitting",
    "has_content",
    "hold_back",
    "kinds_waited_for",
    "let_through",
    "mend_waiting",
    "next_due",
    "number_due",
    "purge",
    "recover",
    "recover_orphans",
    "refuse",
    "release",
    "retry",
    "retry_all",
    "settle_doubt",
    "wake_held",
]

"""Messages in a database, without a mailer: what the tests of tables and outbox need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mailqueue import define_tables, leases, outbox, words
from mailqueue.compose import Composed, Envelope
from mailqueue.outbox import Claimed, Finished, Outcome, Retention
from mailqueue.terms import terms
from pydal import DAL

MIME = b"Subject: hi\r\n\r\nhello\r\n"
NOW = 1_800_000_000.123456
KEEP = Retention()


def open_dal(uri: str, folder: Path, **options: Any) -> DAL:
    """A DAL with the tables of mailqueue."""
    folder.mkdir(exist_ok=True)
    db = DAL(uri, folder=str(folder), **options)
    define_tables(db)
    return db


@contextlib.contextmanager
def another_dal(uri: str, folder: Path) -> Iterator[DAL]:
    """A second connection, as another process has one; closed afterwards."""
    db = open_dal(uri, folder)
    try:
        yield db
    finally:
        db._adapter.close("rollback")


def composed(*addresses: str, mime: bytes = MIME, subject: str = "hi") -> Composed:
    recipients = tuple((words.TO, address) for address in addresses or ("ann@x.test",))
    return Composed(Envelope(None, recipients, False), mime, subject, "<1@site.test>")


def put(
    db: DAL, *addresses: str, now: float = NOW, mime: bytes = MIME, subject: str = "hi", **wanted: Any
) -> int:
    """Enqueue a message and commit; `wanted` are arguments of terms()."""
    agreed = terms(now, **{"category": "test", **wanted})
    message_id = outbox.enqueue(db, composed(*addresses, mime=mime, subject=subject), agreed, now=now)
    db.commit()
    assert message_id
    return message_id


def worker(db: DAL, token: str = "w", now: float = NOW) -> int:
    return leases.register(db, token=token, host_name="here", pid=1, journal="/j", now=now)


def claim(db: DAL, worker_id: int | None = None, limit: int = 100, now: float = NOW) -> list[Claimed]:
    """Claim for this worker, or for one that is there for the moment only."""
    if worker_id is not None:
        return outbox.claim(db, worker_id, limit=limit, now=now)
    passing = worker(db, now=now)
    claimed = outbox.claim(db, passing, limit=limit, now=now)
    leases.retire(db, passing)
    return claimed


def finished(claimed: Claimed, *outcomes: Outcome) -> Finished:
    """The result of a hand-over; everybody's sent unless outcomes are given."""
    sent = tuple(
        Outcome(recipient.id, words.SENT, code=250, reply="taken") for recipient in claimed.recipients
    )
    return Finished(claimed.id, claimed.token, "smtp://s", NOW, 0.5, outcomes or sent)


def finish(db: DAL, *results: Finished, now: float = NOW) -> list[str]:
    return outbox.finish(db, results, now, KEEP)


def end(db: DAL, status: str, *, due: float | None = None, kind: str | None = None) -> int:
    """A message to one recipient that came to this status in one attempt."""
    message_id = put(db)
    (claimed,) = [claimed for claimed in claim(db) if claimed.id == message_id]
    finish(db, finished(claimed, Outcome(claimed.recipients[0].id, status, due=due, failure_kind=kind)))
    return message_id


def message(db: DAL, message_id: int) -> dict[str, Any]:
    row: dict[str, Any] = db.mailqueue_message(message_id).as_dict()
    db.commit()
    return row


def all_rows(db: DAL, table: str) -> list[dict[str, Any]]:
    """The rows of mailqueue_<table>, by id."""
    name = f"mailqueue_{table}"
    rows: list[dict[str, Any]] = db(db[name].id > 0).select(orderby=db[name].id).as_list()
    db.commit()
    return rows


def snapshot(db: DAL) -> dict[str, list[dict[str, Any]]]:
    """Everything in the tables of messages."""
    return {table: all_rows(db, table) for table in ("message", "content", "recipient", "attempt")}


def recipient_statuses(db: DAL) -> list[str]:
    return [row["status"] for row in all_rows(db, "recipient")]

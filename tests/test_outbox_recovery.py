"""What is done about dead workers and old messages: leases, recovery, purge."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mailqueue import outbox, words
from mailqueue.outbox import Claimed, Evidence, Outcome, Retention
from pydal import DAL
from support.store import (
    KEEP,
    NOW,
    all_rows,
    another_dal,
    claim,
    end,
    finish,
    finished,
    message,
    open_dal,
    put,
    recipient_statuses,
    snapshot,
    worker,
)

DAY = 86400.0
DOUBT_DUE = NOW + 60


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


@pytest.fixture
def other(db: DAL, db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    """A second connection to the same database."""
    with another_dal(db_uri, tmp_path) as other:
        yield other


# --- workers ---------------------------------------------------------------------------------


def test_a_worker_is_dead_when_its_lease_ran_out_or_it_is_seen_gone(db: DAL) -> None:
    alive, late, gone = worker(db), worker(db, now=NOW - outbox.LEASE - 1), worker(db)
    dead = outbox.dead_workers(db, NOW, lambda row: row.id == gone)
    assert {row.id for row in dead} == {late, gone}
    assert outbox.beat(db, late, NOW)
    outbox.retire_worker(db, gone)
    assert outbox.dead_workers(db, NOW, lambda row: False) == []
    assert [row["id"] for row in all_rows(db, "worker")] == [alive, late]


def test_a_beat_tells_a_worker_that_it_was_declared_dead(db: DAL, other: DAL) -> None:
    worker_id = worker(db)
    assert outbox.beat(db, worker_id, NOW + 1)
    assert outbox.beat(db, worker_id, NOW + 1)  # the clock may stand still
    outbox.retire_worker(other, worker_id)
    assert not outbox.beat(db, worker_id, NOW + 2)


# --- recover ---------------------------------------------------------------------------------


def row_of(db: DAL, worker_id: int) -> Any:
    """A worker's row, as dead_workers() gives it."""
    (row,) = [row for row in outbox.dead_workers(db, NOW, lambda row: True) if row.id == worker_id]
    db.commit()
    return row


def recover(db: DAL, row: Any, evidence: Evidence | None, doubt_due: float | None = DOUBT_DUE) -> int:
    return outbox.recover(db, row, evidence, now=NOW + 30, doubt_due=doubt_due, retention=KEEP)


def claimed_by(db: DAL, worker_id: int, *messages: tuple[str, ...]) -> list[Claimed]:
    for addresses in messages:
        put(db, *addresses)
    return claim(db, worker_id)


def test_what_was_answered_is_finished_what_was_started_is_in_doubt_the_rest_is_untouched(db: DAL) -> None:
    dead = worker(db)
    answered, started, untouched = claimed_by(
        db, dead, ("a@x.test",), ("b@x.test", "c@x.test"), ("d@x.test",)
    )
    b, _ = (recipient.id for recipient in started.recipients)
    assert recover(db, row_of(db, dead), Evidence({started.id: [b]}, [finished(answered)])) == 3
    assert recipient_statuses(db) == ["sent", "in_doubt", "queued", "queued"]
    assert [row["status"] for row in all_rows(db, "message")] == ["sent", "queued", "queued"]
    assert [row["due"] for row in all_rows(db, "recipient")] == [None, DOUBT_DUE, NOW, NOW]
    assert {row["claim"] for row in all_rows(db, "message")} == {None}
    assert all_rows(db, "worker") == []
    row = message(db, untouched.id)
    assert (row["attempts"], row["tried_on"], row["error"]) == (0, None, None)
    assert [(a["recipient_ref"], a["outcome"]) for a in all_rows(db, "attempt")] == [
        (answered.recipients[0].id, "sent"),
        (b, "in_doubt"),
    ]


def test_what_is_in_doubt_waits_for_an_administrator_if_so_decided(db: DAL) -> None:
    dead = worker(db)
    (started,) = claimed_by(db, dead, ("a@x.test",))
    recover(db, row_of(db, dead), Evidence({started.id: [started.recipients[0].id]}, []), doubt_due=None)
    row = message(db, started.id)
    assert (row["status"], row["due"], row["failure_kind"]) == ("in_doubt", None, "in_doubt")
    assert claim(db, now=NOW + 9 * DAY) == []
    assert outbox.retry(db, started.id, NOW + 40)
    assert len(claim(db, now=NOW + 40)) == 1


def test_without_evidence_everything_it_was_to_try_is_in_doubt_and_nothing_else(db: DAL) -> None:
    put(db, "a@x.test", "b@x.test", "c@x.test")
    (first,) = claim(db)
    a, b, c = (recipient.id for recipient in first.recipients)
    later = Outcome(b, words.DEFERRED, due=NOW + 999)
    finish(db, finished(first, Outcome(a, words.SENT), later, Outcome(c, words.QUEUED, due=NOW)))
    dead = worker(db)
    claim(db, dead)
    assert recover(db, row_of(db, dead), None) == 1
    assert recipient_statuses(db) == ["sent", "deferred", "in_doubt"]
    assert message(db, first.id)["due"] == DOUBT_DUE


def test_damaged_evidence_stands_and_what_it_is_silent_about_is_in_doubt(db: DAL) -> None:
    dead = worker(db)
    answered, deferred, _ = claimed_by(db, dead, ("a@x.test",), ("b@x.test",), ("c@x.test",))
    again = Outcome(deferred.recipients[0].id, words.DEFERRED, due=NOW + 5)
    evidence = Evidence({}, [finished(answered), finished(deferred, again)], complete=False)
    assert recover(db, row_of(db, dead), evidence) == 3
    assert recipient_statuses(db) == ["sent", "deferred", "in_doubt"]
    assert len(all_rows(db, "attempt")) == 3


def test_answers_under_an_older_claim_count_for_nothing(db: DAL) -> None:
    dead = worker(db)
    (old,) = claimed_by(db, dead, ("a@x.test",))
    outbox.release(db, [old], NOW)
    claim(db, dead)
    recover(db, row_of(db, dead), Evidence({}, [finished(old)]))
    assert recipient_statuses(db) == ["queued"]


def test_a_worker_that_beats_in_the_last_moment_is_left_alone(db: DAL, other: DAL) -> None:
    dead = worker(db)
    claimed_by(db, dead, ("a@x.test",))
    row = row_of(db, dead)
    outbox.beat(other, dead, NOW + 0.25)
    before = snapshot(db)
    assert recover(db, row, None) == 0
    assert snapshot(db) == before
    assert len(all_rows(db, "worker")) == 1


def test_of_several_who_recover_the_same_worker_one_does(db: DAL, db_uri: str, tmp_path: Path) -> None:
    dead = worker(db)
    claimed_by(db, dead, *[("a@x.test",)] * 10)
    start = threading.Barrier(3)

    def work(_: int) -> int:
        with another_dal(db_uri, tmp_path) as mine:
            row = row_of(mine, dead)
            start.wait()
            return recover(mine, row, None)

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(work, range(3))) == [0, 0, 10]
    assert len(all_rows(db, "attempt")) == 10


WAITING_FOR_A_LOCK = {
    "postgres": "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND datname = current_database()",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p"
    " ON p.id = t.trx_mysql_thread_id WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()",
}


def until_waiting(db: DAL, number: int, thread: threading.Thread) -> None:
    """Until so many connections wait for a lock."""
    pause = threading.Event()
    for _ in range(200):
        if db.executesql(WAITING_FOR_A_LOCK[outbox.database.engine(db)])[0][0] >= number:
            db.commit()
            return
        db.commit()
        assert thread.is_alive()
        pause.wait(0.15)  # MariaDB shows news only to who did not look for 0.1 s
    raise AssertionError("nobody waits for a lock")


def test_a_worker_that_finishes_while_it_is_recovered_keeps_its_result(
    db: DAL, other: DAL, db_uri: str, tmp_path: Path
) -> None:
    if db_uri.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time: nothing can come in between")
    slow = worker(db)
    (mine,) = claimed_by(db, slow, ("a@x.test",))
    row = row_of(db, slow)
    later = Outcome(mine.recipients[0].id, words.DEFERRED, due=NOW + 500)
    found: dict[str, Any] = {}

    def in_thread(name: str, work: Callable[[DAL], Any]) -> threading.Thread:
        def run() -> None:
            with another_dal(db_uri, tmp_path) as own:
                found[name] = work(own)

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    with another_dal(db_uri, tmp_path) as holder:
        # The recipient's row is locked, so that finish() stops half-way, before its commit.
        holder(holder.mailqueue_recipient.id > 0).update(code=1)
        finishing = in_thread("finish", lambda own: finish(own, finished(mine, later)))
        until_waiting(other, 1, finishing)
        recovering = in_thread("recover", lambda own: recover(own, row, Evidence({}, [finished(mine)])))
        until_waiting(other, 2, recovering)
        holder.rollback()
        finishing.join()
        recovering.join()
    assert found == {"finish": ["deferred"], "recover": 0}
    assert message(db, mine.id)["due"] == NOW + 500
    assert len(all_rows(db, "attempt")) == 1


# --- purge -----------------------------------------------------------------------------------


def test_content_goes_first_and_the_record_later(db: DAL) -> None:
    sent, failed = end(db, words.SENT), end(db, words.FAILED)
    keep = Retention(sent_content=DAY, other_content=2 * DAY, record=9 * DAY)
    db(db.mailqueue_message.id == sent).update(purge_on=NOW + DAY)
    db(db.mailqueue_message.id == failed).update(purge_on=NOW + 2 * DAY)
    assert outbox.purge(db, now=NOW + DAY - 1, retention=keep) == 0
    assert outbox.purge(db, now=NOW + DAY, retention=keep) == 1
    assert not outbox.has_content(db, sent) and outbox.has_content(db, failed)
    assert outbox.purge(db, now=NOW + 2 * DAY, retention=keep) == 1
    assert {table: len(rows) for table, rows in snapshot(db).items()} == {
        "message": 2,
        "content": 0,
        "recipient": 2,
        "attempt": 2,
    }
    assert outbox.purge(db, now=NOW + 9 * DAY, retention=keep) == 2
    assert {len(rows) for rows in snapshot(db).values()} == {0}


def test_what_waits_or_is_being_sent_is_never_purged(db: DAL) -> None:
    put(db)
    claim(db)
    put(db)
    end(db, words.DEFERRED, due=NOW + 5)
    before = snapshot(db)
    assert outbox.purge(db, now=NOW + 9999 * DAY, retention=Retention(0, 0, 0)) == 0
    assert snapshot(db) == before


def test_what_is_retried_while_it_is_purged_keeps_its_content(
    db: DAL, other: DAL, db_uri: str, tmp_path: Path
) -> None:
    if db_uri.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time: nothing can come in between")
    message_id = end(db, words.FAILED)
    purged: list[int] = []

    def purge() -> None:
        with another_dal(db_uri, tmp_path) as own:
            purged.append(outbox.purge(own, now=NOW + 99 * DAY, retention=KEEP))

    assert outbox.retry(db, message_id, NOW)
    purging = threading.Thread(target=purge)
    purging.start()
    until_waiting(other, 1, purging)
    db.commit()
    purging.join()
    assert purged == [0]
    assert outbox.has_content(db, message_id)


def test_one_purge_touches_a_few_messages_only(db: DAL) -> None:
    for _ in range(5):
        end(db, words.SENT)
    assert [outbox.purge(db, now=NOW + 8 * DAY, retention=KEEP, limit=2) for _ in range(4)] == [2, 2, 1, 0]

"""What is done about dead workers and old messages: recovery, expiry, purge."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mailqueue import database, leases, outbox, words
from mailqueue.journal import Journal, read
from mailqueue.outbox import Claimed, Evidence, Outcome, Recovery, Retention
from mailqueue.retry import RetryPolicy
from mailqueue.terms import HOLD, RESEND
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
NOTHING_STARTED = Evidence({}, [])
DOUBT_DUE = NOW + 60  # recovered after 30 seconds, sent again after 30 more


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


# --- recover ---------------------------------------------------------------------------------


def row_of(db: DAL, worker_id: int) -> Any:
    """A worker's row, as leases.dead() gives it."""
    (row,) = [row for row in leases.dead(db, NOW, lambda row: True) if row.id == worker_id]
    db.commit()
    return row


def recover(db: DAL, row: Any, evidence: Evidence | None, doubt: str = RESEND) -> int:
    how = Recovery(RetryPolicy(first_delay=30, jitter=0), random.Random(1), doubt, KEEP)
    return outbox.recover(db, row, evidence, how, now=NOW + 30)


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


def test_what_a_provider_calls_a_message_survives_the_worker(db: DAL, tmp_path: Path) -> None:
    dead = worker(db)
    (claimed,) = claimed_by(db, dead, ("a@x.test",))
    record = Journal(str(tmp_path / "journals"))
    outcome = Outcome(claimed.recipients[0].id, words.SENT, code=200, provider_id="re-1")
    record.answered(finished(claimed, outcome))
    record.abandon()
    recover(db, row_of(db, dead), read(record.path))
    (row,) = all_rows(db, "recipient")
    assert (row["status"], row["provider_id"]) == ("sent", "re-1")


def test_what_is_in_doubt_waits_for_an_administrator_if_so_decided(db: DAL) -> None:
    dead = worker(db)
    (started,) = claimed_by(db, dead, ("a@x.test",))
    recover(db, row_of(db, dead), Evidence({started.id: [started.recipients[0].id]}, []), HOLD)
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
    assert message(db, first.id)["due"] == NOW + 30 + 60  # its second attempt


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
    leases.beat(other, dead, NOW + 0.25)
    before = snapshot(db)
    assert recover(db, row, None) == 0
    assert snapshot(db) == before
    assert len(all_rows(db, "worker")) == 1


def test_a_worker_that_was_taken_over_claims_nothing(db: DAL) -> None:
    dead, message_id = worker(db), put(db)
    assert leases.take_over(db, row_of(db, dead))
    db.commit()
    assert claim(db, dead) == []
    assert message(db, message_id)["status"] == "queued"


def test_whoever_takes_a_worker_over_waits_for_its_claim_and_sees_it(
    db: DAL, other: DAL, db_uri: str, tmp_path: Path
) -> None:
    """Its process may be gone while its COMMIT is still on the way."""
    if db_uri.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time: nothing can come in between")
    dead, message_id = worker(db), put(db)
    row = row_of(db, dead)
    taken: list[int] = []

    def take_over() -> None:
        with another_dal(db_uri, tmp_path) as own:
            taken.append(recover(own, row, NOTHING_STARTED))

    commit, db.commit = db.commit, lambda: None  # the claim is made, its commit is not executed yet
    assert [one.id for one in claim(db, dead)] == [message_id]
    taking = threading.Thread(target=take_over)
    taking.start()
    until_waiting(other, 1, taking)
    db.commit = commit
    db.commit()
    taking.join()
    assert taken == [1]
    row_now = message(db, message_id)
    assert (row_now["status"], row_now["worker"], row_now["attempts"]) == ("queued", None, 0)


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
        if db.executesql(WAITING_FOR_A_LOCK[database.engine(db)])[0][0] >= number:
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


def between(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> None:
    """Have something happen after the next look, before what was found is locked."""
    real, left = database.begin, [work]

    def begin(db: DAL) -> None:
        if left:
            left.pop()()
        real(db)

    monkeypatch.setattr(database, "begin", begin)


def test_of_two_who_find_an_orphan_one_takes_it_back(
    db: DAL, other: DAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = worker(db)
    claimed_by(db, lost, ("a@x.test",))
    leases.retire(db, lost)
    how = Recovery(RetryPolicy(first_delay=30, jitter=0), random.Random(1), RESEND, KEEP)
    taken: list[int] = []
    between(monkeypatch, lambda: taken.append(outbox.recover_orphans(other, how, now=NOW + 30)))
    assert outbox.recover_orphans(db, how, now=NOW + 30) == 0
    assert taken == [1]
    assert len(all_rows(db, "attempt")) == 1


# --- what kills workers ----------------------------------------------------------------------


def killed_with(db: DAL, message_id: int, now: float, **evidence: Any) -> None:
    """A worker claims what is due and dies with this message in hand."""
    dead = worker(db, now=now)
    claim(db, dead, now=now)
    (row,) = [row for row in leases.dead(db, now, lambda row: True) if row.id == dead]
    how = Recovery(RetryPolicy(jitter=0), random.Random(1), RESEND, KEEP)
    outbox.recover(db, row, Evidence({}, [], begun=frozenset([message_id]), **evidence), how, now=now)


def test_a_message_that_kills_its_workers_lets_others_pass_and_is_given_up(db: DAL) -> None:
    killer, now, waits = put(db), NOW, []
    for _ in range(outbox.MOST_CRASHES):
        killed_with(db, killer, now)
        due = message(db, killer)["due"]
        if due is not None:
            waits.append(due - now)
            now = due
    assert waits == [0, 60, 120, 240]
    row = message(db, killer)
    assert (row["status"], row["failure_kind"]) == ("failed", "message")
    assert "5 workers in a row died" in row["error"]
    (attempt,) = all_rows(db, "attempt")
    assert (attempt["cause"], attempt["outcome"]) == ("worker-killer", "failed")


def test_deaths_before_it_was_handed_over_and_after_a_success_are_not_held_against_a_message(db: DAL) -> None:
    first, second = put(db, "a@x.test", "b@x.test"), put(db)
    killed_with(db, first, NOW)
    killed_with(db, first, NOW)
    assert (message(db, first)["crashes"], message(db, second)["crashes"]) == (2, None)
    (mine,) = [one for one in claim(db, now=NOW + 999) if one.id == first]
    again = Outcome(mine.recipients[1].id, words.DEFERRED, due=NOW + 1000)
    finish(db, finished(mine, Outcome(mine.recipients[0].id, words.SENT), again))
    assert message(db, first)["crashes"] is None
    assert message(db, first)["attempts"] == 1


def test_doubt_after_doubt_ends_with_the_administrator(db: DAL) -> None:
    doubtful, now = put(db), NOW
    for _ in range(RetryPolicy().doubt_attempts):
        (recipient,) = all_rows(db, "recipient")
        dead = worker(db, now=now)
        assert len(claim(db, dead, now=now)) == 1
        how = Recovery(RetryPolicy(jitter=0), random.Random(1), RESEND, KEEP)
        (row,) = leases.dead(db, now, lambda row: True)
        outbox.recover(db, row, Evidence({doubtful: [recipient["id"]]}, []), how, now=now)
        now += 9999
    row = message(db, doubtful)
    assert (row["status"], row["due"], row["attempts"]) == ("in_doubt", None, 4)


@pytest.mark.parametrize(("own", "sites", "due"), [(HOLD, RESEND, None), (RESEND, HOLD, DOUBT_DUE)])
def test_what_a_message_says_of_doubt_goes_before_what_the_site_says(
    db: DAL, own: str, sites: str, due: float | None
) -> None:
    put(db, doubt=own)
    dead = worker(db)
    (started,) = claim(db, dead)
    assert started.doubt == own
    recover(db, row_of(db, dead), Evidence({started.id: [started.recipients[0].id]}, []), sites)
    assert message(db, started.id)["due"] == due


def test_an_administrator_who_knows_that_it_arrived_ends_the_doubt(db: DAL) -> None:
    doubtful, other_one = end(db, words.IN_DOUBT), end(db, words.FAILED)
    assert outbox.settle_doubt(db, doubtful, NOW + 5, KEEP)
    assert not outbox.settle_doubt(db, other_one, NOW + 5, KEEP)
    row = message(db, doubtful)
    assert (row["status"], row["finished_on"], row["due"]) == ("sent", NOW + 5, None)
    assert message(db, other_one)["status"] == "failed"


# --- expire ----------------------------------------------------------------------------------


def test_what_is_not_worth_sending_any_more_is_expired_not_sent(db: DAL) -> None:
    link, letter = put(db, "a@x.test", "b@x.test", expires_after=DAY), put(db)
    assert outbox.expire(db, now=NOW + DAY - 1, retention=KEEP) == 0
    assert outbox.expire(db, now=NOW + DAY, retention=KEEP) == 1
    row = message(db, link)
    assert (row["status"], row["due"], row["finished_on"]) == ("expired", None, NOW + DAY)
    assert recipient_statuses(db) == ["expired", "expired", "queued"]
    assert [one.id for one in claim(db, now=NOW + DAY)] == [letter]
    assert outbox.retry(db, link, NOW + DAY)  # an administrator may want it sent all the same
    assert outbox.expire(db, now=NOW + 2 * DAY, retention=KEEP) == 0


def test_who_had_it_before_it_expired_still_has_it_and_a_doubt_stays_a_doubt(db: DAL) -> None:
    put(db, "a@x.test", "b@x.test", "c@x.test", expires_after=DAY)
    (mine,) = claim(db)
    a, b, c = (recipient.id for recipient in mine.recipients)
    later = Outcome(b, words.DEFERRED, due=NOW + 9)
    doubt = Outcome(c, words.IN_DOUBT, due=NOW + 9)
    finish(db, finished(mine, Outcome(a, words.SENT), later, doubt))
    outbox.expire(db, now=NOW + DAY, retention=KEEP)
    assert recipient_statuses(db) == ["sent", "expired", "in_doubt"]
    row = message(db, mine.id)
    assert (row["status"], row["due"], row["purge_on"]) == ("in_doubt", None, None)


def test_what_is_being_sent_is_not_expired_under_its_worker(db: DAL) -> None:
    put(db, expires_after=DAY)
    (mine,) = claim(db)
    assert outbox.expire(db, now=NOW + DAY, retention=KEEP) == 0
    assert finish(db, finished(mine)) == ["sent"]
    assert message(db, mine.id)["expires_on"] is None


def test_what_is_sent_in_the_moment_of_its_expiry_stays_as_it_is(
    db: DAL, other: DAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(db, expires_after=DAY)
    (mine,) = claim(db)
    outbox.release(db, [mine], NOW)
    between(monkeypatch, lambda: finish(other, finished(claim(other)[0])))
    assert outbox.expire(db, now=NOW + DAY, retention=KEEP) == 0
    row = message(db, mine.id)
    assert (row["status"], row["finished_on"]) == ("sent", NOW)


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

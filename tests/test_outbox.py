"""The life of a message in the database: enqueue, claim, finish, release, retry, cancel."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mailqueue import database, outbox, words
from mailqueue.outbox import Finished, Outcome, finishing, texts
from mailqueue.terms import terms
from pydal import DAL
from support.store import (
    KEEP,
    NOW,
    all_rows,
    another_dal,
    claim,
    composed,
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


# --- enqueue ---------------------------------------------------------------------------------


def test_a_message_commits_and_rolls_back_with_its_caller(db: DAL, other: DAL) -> None:
    for end_transaction, expected in ((db.rollback, 0), (db.commit, 1)):
        outbox.enqueue(db, composed("a@x.test", "b@x.test"), terms(NOW), now=NOW)
        end_transaction()
        found = snapshot(other)
        assert [len(found[table]) for table in ("message", "content", "recipient")] == [
            expected,
            expected,
            2 * expected,
        ]


def test_a_message_is_due_at_once_and_says_who_gets_it(db: DAL) -> None:
    row = message(db, put(db, "a@x.test", "b@x.test", subject="hello", priority=words.URGENT))
    assert (row["status"], row["due"], row["created_on"], row["priority"]) == ("queued", NOW, NOW, 0)
    assert (row["subject"], row["recipients"], row["attempts"]) == ("hello", 2, 0)
    assert [(r["address"], r["kind"]) for r in all_rows(db, "recipient")] == [
        ("a@x.test", "to"),
        ("b@x.test", "to"),
    ]


def test_three_megabytes_come_back_as_they_were(db: DAL) -> None:
    for character in ("x", "é", "😀", "\r\n", "'\\%s"):
        mime = (character * (3_000_000 // len(character.encode()))).encode()
        message_id = put(db, mime=mime)
        assert outbox.content(db, message_id) == mime
        assert db(db.mailqueue_content.message_ref == message_id).count() > 1


def test_content_that_is_not_complete_is_not_sent(db: DAL) -> None:
    message_id = put(db, mime=b"x" * (texts.CHUNK + 1))
    db(db.mailqueue_content.chunk_no == 1).delete()
    for wanted in (message_id, message_id + 1):
        with pytest.raises(ValueError, match="damaged or gone"):
            outbox.content(db, wanted)


def test_a_priority_that_nobody_claims_is_refused(db: DAL) -> None:
    with pytest.raises(ValueError, match="priority is 3"):
        put(db, priority=3)


# --- claim -----------------------------------------------------------------------------------


def test_the_urgent_is_claimed_first_then_what_is_due_longest(db: DAL) -> None:
    bulk = put(db, priority=words.BULK, now=NOW - 9)
    late, early = put(db, now=NOW), put(db, now=NOW - 5)
    urgent = put(db, priority=words.URGENT)
    assert [claimed.id for claimed in claim(db, limit=3)] == [urgent, early, late]
    assert [claimed.id for claimed in claim(db, limit=3)] == [bulk]


def test_what_is_not_due_yet_is_not_claimed(db: DAL) -> None:
    put(db, now=NOW + 1)
    assert claim(db) == []
    assert outbox.next_due(db) == NOW + 1
    assert len(claim(db, now=NOW + 1)) == 1
    assert outbox.next_due(db) is None


def test_what_is_due_is_counted_up_to_a_bound(db: DAL) -> None:
    for priority in (words.URGENT, words.NORMAL, words.NORMAL, words.BULK):
        put(db, priority=priority)
    put(db, now=NOW + 1)
    found = [outbox.number_due(db, NOW, most) for most in (0, 1, 3, 4, 9)]
    db.commit()
    assert found == [0, 1, 3, 4, 4]


def test_a_claim_shows_and_nobody_else_gets_the_message(db: DAL, other: DAL) -> None:
    message_id = put(db)
    mine = worker(db)
    (claimed,) = claim(db, mine)
    row = message(other, message_id)
    assert (row["status"], row["worker"], row["claim"]) == ("sending", mine, claimed.token)
    assert (row["due"], row["claimed_on"]) == (None, NOW)
    assert claim(other) == []


def test_claiming_when_nothing_is_due_leaves_no_transaction_open(db: DAL) -> None:
    claim(db)
    assert not database.in_transaction(db)


def test_workers_that_claim_at_the_same_time_share_the_messages(db: DAL, db_uri: str, tmp_path: Path) -> None:
    ids = [put(db) for _ in range(60)]
    start = threading.Barrier(4)

    def work(number: int) -> list[int]:
        with another_dal(db_uri, tmp_path) as mine:
            start.wait()
            taken: list[int] = []
            while batch := claim(mine, limit=4):
                taken += [claimed.id for claimed in batch]
                finish(mine, *map(finished, batch))
            return taken

    with ThreadPoolExecutor(4) as pool:
        shares = list(pool.map(work, range(1, 5)))
    assert sorted(itertools.chain(*shares)) == ids
    assert {row["status"] for row in all_rows(db, "message")} == {"sent"}
    assert len(all_rows(db, "attempt")) == 60


def test_a_claim_sees_what_another_worker_did_since_the_transaction_began(db: DAL, other: DAL) -> None:
    put(db, *(f"r{number}@x.test" for number in range(150)))
    db(db.mailqueue_message).select()  # from here MySQL would show an old state
    (first,) = claim(other)
    finish(other, finished(first))
    (second,) = claim(db)
    assert {r.id for r in first.recipients}.isdisjoint(r.id for r in second.recipients)


def test_many_recipients_are_claimed_in_portions_and_each_is_sent_once(db: DAL) -> None:
    message_id = put(db, *(f"r{number}@x.test" for number in range(250)))
    portions = []
    while batch := claim(db):
        portions.append(len(batch[0].recipients))
        statuses = finish(db, finished(batch[0]))
    assert portions == [100, 100, 50]
    assert statuses == ["sent"]
    assert [row["attempts"] for row in all_rows(db, "recipient")] == [1] * 250
    assert message(db, message_id)["status"] == "sent"


# --- finish ----------------------------------------------------------------------------------


def test_three_recipients_with_three_fates(db: DAL) -> None:
    message_id = put(db, "a@x.test", "b@x.test", "c@x.test")
    (claimed,) = claim(db)
    a, b, c = (recipient.id for recipient in claimed.recipients)
    soon = Outcome(b, words.DEFERRED, due=NOW + 60, failure_kind=words.TRANSIENT, code=451, reply="later")
    never = Outcome(c, words.FAILED, failure_kind=words.RECIPIENT, code=550, cause="unknown-address")
    assert finish(db, finished(claimed, Outcome(a, words.SENT), soon, never)) == ["deferred"]
    row = message(db, message_id)
    assert (row["due"], row["finished_on"], row["purge_on"]) == (NOW + 60, None, None)
    assert (row["failure_kind"], row["error"], row["attempts"]) == ("transient", "451 later", 1)
    assert (row["worker"], row["claim"], row["claimed_on"], row["tried_on"]) == (None, None, None, NOW)

    (again,) = claim(db, now=NOW + 60)
    assert [recipient.id for recipient in again.recipients] == [b]
    assert finish(db, finished(again), now=NOW + 61) == ["failed"]
    row = message(db, message_id)
    assert (row["due"], row["finished_on"], row["tried_on"]) == (None, NOW + 61, NOW)
    assert row["purge_on"] == NOW + 61 + KEEP.other_content
    assert recipient_statuses(db) == ["sent", "sent", "failed"]
    assert [r["attempts"] for r in all_rows(db, "recipient")] == [1, 2, 1]
    assert [a["outcome"] for a in all_rows(db, "attempt")] == ["sent", "deferred", "failed", "sent"]


def test_what_costs_no_attempt_leaves_no_attempt_and_no_age(db: DAL) -> None:
    message_id = put(db)
    (claimed,) = claim(db)
    held = Outcome(
        claimed.recipients[0].id,
        words.QUEUED,
        due=NOW + 5,
        counts=False,
        failure_kind=words.CONFIGURATION,
    )
    assert finish(db, finished(claimed, held)) == ["queued"]
    row = message(db, message_id)
    assert (row["attempts"], row["tried_on"], row["due"]) == (0, None, NOW + 5)
    assert all_rows(db, "attempt") == []


def test_a_wrong_or_old_token_changes_nothing_at_all(db: DAL) -> None:
    put(db)
    (old,) = claim(db)
    outbox.release(db, [old], NOW)
    (_,) = claim(db)
    before = snapshot(db)
    wrong = Finished(old.id, "wrong", "smtp://s", NOW, 0.5, finished(old).outcomes)
    assert finish(db, finished(old), wrong) == []
    outbox.release(db, [old], NOW)
    assert snapshot(db) == before


def test_one_lost_claim_does_not_stop_the_results_beside_it(db: DAL) -> None:
    put(db), put(db)
    lost, kept = claim(db)
    outbox.release(db, [lost], NOW)
    assert finish(db, finished(lost), finished(kept)) == ["sent"]
    assert [row["status"] for row in all_rows(db, "message")] == ["queued", "sent"]


def test_a_recipient_that_was_sent_stays_sent_and_gets_no_second_attempt(db: DAL) -> None:
    put(db, "a@x.test", "b@x.test")
    (claimed,) = claim(db)
    a, b = (recipient.id for recipient in claimed.recipients)
    results = finished(claimed, Outcome(a, words.SENT), Outcome(a, words.FAILED), Outcome(b, words.SENT))
    assert finish(db, results) == ["sent"]
    assert len(all_rows(db, "attempt")) == 2


def test_a_release_leaves_no_trace(db: DAL) -> None:
    put(db, now=NOW - 3)
    before = snapshot(db)
    outbox.release(db, claim(db), NOW)
    assert snapshot(db) == before


# --- content that is wiped -------------------------------------------------------------------


def test_content_is_wiped_with_the_end_of_its_message_and_not_before(db: DAL) -> None:
    kept, wiped = put(db), put(db, "a@x.test", "b@x.test", wipe=True)
    first, second = claim(db)
    a, b = (recipient.id for recipient in second.recipients)
    later = Outcome(b, words.DEFERRED, due=NOW + 60, failure_kind=words.TRANSIENT)
    finish(db, finished(first), finished(second, Outcome(a, words.SENT), later))
    assert outbox.content(db, wiped)
    (again,) = claim(db, now=NOW + 60)
    assert finish(db, finished(again), now=NOW + 61) == ["sent"]
    assert not outbox.has_content(db, wiped)
    assert outbox.has_content(db, kept)
    assert outbox.purge(db, now=NOW + KEEP.sent_content, retention=KEEP) == 1
    assert message(db, wiped)["purge_on"] == NOW + 61 + KEEP.record, "who got it when is kept"
    assert not outbox.retry(db, wiped, NOW)


def test_what_is_not_worth_sending_any_more_is_not_claimed(db: DAL) -> None:
    late, later, always = put(db, expires_after=60), put(db, expires_after=61), put(db)
    assert [claimed.id for claimed in claim(db, now=NOW + 60)] == [later, always]
    assert message(db, late)["status"] == "queued"


def test_content_is_wiped_that_nobody_got_any_more(db: DAL) -> None:
    late, stopped = (put(db, expires_after=60, wipe=True) for _ in range(2))
    assert outbox.cancel(db, stopped, NOW, KEEP)
    assert outbox.expire(db, now=NOW + 60, retention=KEEP) == 1
    assert not outbox.has_content(db, late)
    assert not outbox.has_content(db, stopped)


# --- retry and cancel ------------------------------------------------------------------------

RETRIED = {"queued", "deferred", "failed", "in_doubt", "suppressed", "cancelled", "expired"}


def test_retry_queues_everybody_but_those_who_have_it(db: DAL) -> None:
    for status in words.RECIPIENT_STATUSES:
        retry_one_that_is(db, status)


def retry_one_that_is(db: DAL, status: str) -> None:
    message_id = end(db, status, due=NOW + 99 if status in words.PENDING else None)
    before = snapshot(db)
    assert outbox.retry(db, message_id, NOW + 7) is (status in RETRIED)
    db.commit()
    if status not in RETRIED:
        assert snapshot(db) == before  # not kept any longer than it would have been
        return
    row = message(db, message_id)
    assert (row["status"], row["due"], row["finished_on"], row["purge_on"]) == (
        "queued",
        NOW + 7,
        None,
        None,
    )
    assert [claimed.id for claimed in claim(db, now=NOW + 7)] == [message_id]


def test_cancel_stops_what_waits_and_nothing_else(db: DAL) -> None:
    for status in words.RECIPIENT_STATUSES:
        cancel_one_that_is(db, status)


def cancel_one_that_is(db: DAL, status: str) -> None:
    message_id = end(db, status, due=NOW + 99 if status in words.PENDING else None)
    before = snapshot(db)
    assert outbox.cancel(db, message_id, NOW + 7, KEEP) is (status in words.PENDING)
    db.commit()
    if status not in words.PENDING:
        assert snapshot(db) == before
        return
    row = message(db, message_id)
    assert (row["status"], row["due"], row["finished_on"]) == ("cancelled", None, NOW + 7)
    assert claim(db, now=NOW + 999) == []


def test_what_is_being_sent_can_neither_be_retried_nor_cancelled(db: DAL, other: DAL) -> None:
    message_id = put(db)
    (claimed,) = claim(db)
    before = snapshot(other)
    assert not outbox.retry(other, message_id, NOW)
    assert not outbox.cancel(other, message_id, NOW, KEEP)
    other.commit()
    assert snapshot(other) == before
    assert finish(db, finished(claimed)) == ["sent"]


def test_retry_and_cancel_of_a_message_that_is_not_there_say_no(db: DAL) -> None:
    assert not outbox.retry(db, 99, NOW)
    assert not outbox.cancel(db, 99, NOW, KEEP)


@pytest.mark.parametrize("how", ["retry", "cancel"])
def test_an_administrator_works_in_the_callers_transaction(db: DAL, how: str) -> None:
    message_id = end(db, words.DEFERRED, due=NOW + 9)
    before = snapshot(db)
    if how == "retry":
        outbox.retry(db, message_id, NOW)
    else:
        outbox.cancel(db, message_id, NOW, KEEP)
    db.rollback()
    assert snapshot(db) == before


def test_a_cancel_that_comes_too_late_does_not_bring_a_message_back(db: DAL, other: DAL) -> None:
    message_id = put(db)
    other(other.mailqueue_recipient).select()  # the request read something before
    (claimed,) = claim(db)
    finish(db, finished(claimed))
    assert not outbox.cancel(other, message_id, NOW, KEEP)
    assert not outbox.retry(other, message_id, NOW)
    other.commit()
    assert message(db, message_id)["status"] == "sent"
    assert claim(db) == []


def test_a_retry_sees_what_a_worker_did_since_the_request_began(db: DAL, other: DAL) -> None:
    message_id = put(db, "a@x.test", "b@x.test")
    other(other.mailqueue_recipient).select()
    (claimed,) = claim(db)
    a, b = (recipient.id for recipient in claimed.recipients)
    finish(db, finished(claimed, Outcome(a, words.DEFERRED, due=NOW + 50), Outcome(b, words.FAILED)))
    assert outbox.cancel(other, message_id, NOW, KEEP)
    other.commit()
    assert recipient_statuses(db) == ["cancelled", "failed"]
    assert message(db, message_id)["status"] == "failed"


def test_without_its_content_a_message_cannot_be_retried(db: DAL) -> None:
    message_id = end(db, words.FAILED)
    assert outbox.purge(db, now=NOW + KEEP.other_content, retention=KEEP) == 1
    before = snapshot(db)
    assert not outbox.retry(db, message_id, NOW)
    db.commit()
    assert snapshot(db) == before


# --- what is held by a configuration fault ---------------------------------------------------


def test_what_waits_for_a_repair_is_woken_and_nothing_else(db: DAL) -> None:
    held = end(db, words.QUEUED, due=NOW + 900, kind=words.CONFIGURATION)
    deferred = end(db, words.DEFERRED, due=NOW + 900, kind=words.TRANSIENT)
    end(db, words.FAILED, kind=words.MESSAGE)
    assert outbox.kinds_waited_for(db) == {"configuration", "transient"}
    outbox.wake_held(db, NOW + 1)
    db.commit()
    assert message(db, held)["due"] == NOW + 1
    assert message(db, deferred)["due"] == NOW + 900
    assert [claimed.id for claimed in claim(db, now=NOW + 1)] == [held]
    assert outbox.kinds_waited_for(db) == {"transient"}


def test_one_recipient_that_is_held_is_woken_though_others_fared_otherwise(db: DAL) -> None:
    message_id = put(db, "a@x.test", "b@x.test")
    (claimed,) = claim(db)
    a, b = (recipient.id for recipient in claimed.recipients)
    later = Outcome(a, words.DEFERRED, due=NOW + 50, failure_kind=words.TRANSIENT)
    held = Outcome(b, words.QUEUED, due=NOW + 900, counts=False, failure_kind=words.CONFIGURATION)
    finish(db, finished(claimed, later, held))
    outbox.wake_held(db, NOW + 1)
    db.commit()
    assert message(db, message_id)["due"] == NOW + 1
    (again,) = claim(db, now=NOW + 1)
    assert [recipient.id for recipient in again.recipients] == [b]


def test_the_sources_of_a_status_mirror_the_legal_moves() -> None:
    found: dict[str, Any] = {source: set() for source in words.RECIPIENT_STATUSES}
    for target, sources in finishing.SOURCES.items():
        for source in sources:
            found[source].add(target)
    assert found == words.RECIPIENT_MOVES


# --- a corrected address ---------------------------------------------------------------------


def test_a_corrected_address_starts_afresh(db: DAL) -> None:
    message_id = end(db, words.FAILED, kind=words.RECIPIENT)
    (before,) = all_rows(db, "recipient")
    assert outbox.correct(db, message_id, before["id"], "new@x.test", NOW + 5) == before["address"]
    db.commit()
    (after,) = all_rows(db, "recipient")
    assert (after["address"], after["status"], after["due"]) == ("new@x.test", words.QUEUED, NOW + 5)
    assert (after["attempts"], after["failure_kind"], after["reply"]) == (0, None, None)
    assert message(db, message_id)["status"] == words.QUEUED
    (claimed,) = claim(db, now=NOW + 6)
    assert [recipient.address for recipient in claimed.recipients] == ["new@x.test"]


def test_an_address_is_corrected_only_where_nobody_has_or_gets_the_mail(db: DAL) -> None:
    sent, doubtful = end(db, words.SENT), end(db, words.IN_DOUBT)
    other, failed = end(db, words.FAILED), put(db, "a@x.test", "b@x.test")
    (claimed,) = [one for one in claim(db) if one.id == failed]
    rows = {row["message_ref"]: row["id"] for row in all_rows(db, "recipient")}
    for message_id in (sent, doubtful, failed):  # the last one is being sent at this moment
        assert outbox.correct(db, message_id, rows[message_id], "new@x.test", NOW) is None
    finish(db, finished(claimed, *(Outcome(r.id, words.FAILED) for r in claimed.recipients)))
    assert outbox.correct(db, failed, rows[failed], "a@x.test", NOW) is None, "somebody else's address"
    assert outbox.correct(db, failed, rows[other], "new@x.test", NOW) is None, "another message's recipient"
    outbox.purge(db, now=NOW + KEEP.other_content + 1, retention=KEEP)
    assert outbox.correct(db, other, rows[other], "new@x.test", NOW) is None, "without a text"
    assert not [row for row in all_rows(db, "recipient") if row["address"] == "new@x.test"]

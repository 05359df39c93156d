"""What pages, counts and commands ask of the tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mailqueue import outbox, queries, words
from pydal import DAL
from support.store import KEEP, NOW, claim, end, finish, finished, open_dal, put, snapshot


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


def ids(db: DAL, **options: object) -> list[int]:
    return [row["id"] for row in queries.messages(db, **options)]  # type: ignore[arg-type]


def test_counts_name_every_status(db: DAL) -> None:
    assert queries.counts(db) == dict.fromkeys(words.MESSAGE_STATUSES, 0)
    put(db), put(db)
    claim(db, limit=1)
    end(db, words.SENT)
    assert queries.counts(db) == {**dict.fromkeys(words.MESSAGE_STATUSES, 0), "sending": 2, "sent": 1}


def test_messages_come_newest_first_page_by_page(db: DAL) -> None:
    first, second, third, fourth = (put(db) for _ in range(4))
    assert ids(db, limit=2) == [fourth, third]
    assert ids(db, limit=2, before=third) == [second, first]
    assert ids(db, before=first) == []


def test_messages_are_found_by_status_and_by_part_of_an_address_or_subject(db: DAL) -> None:
    ann = put(db, "Ann@x.test", subject="Grüße an alle")
    bob = put(db, "bob_b@x.test", "carl@y.test", subject="100% off")
    sent = end(db, words.SENT)
    assert ids(db, status="sent") == [sent]
    for search, expected in {
        "ann@X": [sent, ann],
        "y.test": [bob],
        "grüße": [ann],
        "100%": [bob],
        "b_b": [bob],
        "%": [bob],
        "_": [bob],
        "' or 1=1": [],
        "\\": [],
    }.items():
        assert ids(db, search=search) == expected, search


def test_a_list_shows_the_first_addresses_and_whether_the_text_is_there(db: DAL) -> None:
    put(db, *(f"r{number}@x.test" for number in range(5)))
    (row,) = queries.messages(db)
    assert (row["addresses"], row["has_content"]) == (["r0@x.test", "r1@x.test", "r2@x.test"], True)
    finish(db, finished(claim(db)[0]))
    outbox.purge(db, now=NOW + KEEP.sent_content, retention=KEEP)
    assert queries.messages(db)[0]["has_content"] is False


def test_one_message_brings_its_recipients_and_its_attempts_the_latest_first(db: DAL) -> None:
    message_id = put(db, "a@x.test", "b@x.test")
    finish(db, finished(claim(db)[0]))
    found = queries.message(db, message_id)
    assert found
    assert [row["address"] for row in found["recipients_list"]] == ["a@x.test", "b@x.test"]
    assert [row["address"] for row in found["attempts_list"]] == ["b@x.test", "a@x.test"]
    assert (found["attempts"], found["has_content"]) == (1, True)
    assert queries.message(db, message_id + 1) is None


def test_asking_writes_nothing(db: DAL) -> None:
    message_id = put(db)
    before = snapshot(db)
    queries.counts(db), queries.messages(db, search="x"), queries.message(db, message_id)
    queries.problems(db), queries.paused_transports(db), queries.stoppages(db), queries.open_problems(db)
    db.commit()
    assert snapshot(db) == before


def test_what_is_held_back_is_read_on_every_database(db: DAL) -> None:
    db.mailqueue_lesson.insert(name="domain:x.test", strikes=1, rests_until=NOW + 60)
    waiting = {"held_by": "domain:x.test", "status": words.QUEUED, "message_ref": 1}
    for due in (NOW + 9, NOW + 5, None):
        db.mailqueue_recipient.insert(due=due, **waiting)
    (row,) = queries.held_back(db, NOW)
    assert (row["name"], row["waiting"], row["until"]) == ("domain:x.test", 2, NOW + 5)

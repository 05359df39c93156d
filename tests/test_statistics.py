"""Figures of the last hour, day and week."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import leases, statistics, words
from mailqueue.statistics import Span
from pydal import DAL
from support.store import NOW, Outcome, claim, end, finish, finished, open_dal, put

HOUR = statistics.SPANS[0]


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


def attempts(db: DAL, *made: tuple[float, str]) -> None:
    for started_on, outcome in made:
        db.mailqueue_attempt.insert(started_on=started_on, outcome=outcome)
    db.commit()


def found(db: DAL, span: Span) -> dict[int, dict[str, int]]:
    (counts,) = statistics.counts(db, NOW, [span])
    return {place: part for place, part in enumerate(counts.parts) if part}


def test_attempts_are_counted_in_the_part_they_were_made_in(db: DAL) -> None:
    assert found(db, HOUR) == {}
    attempts(
        db,
        (NOW - 3600.5, "sent"),  # before
        (NOW - 3599.0, "sent"),
        (NOW - 3301.0, "failed"),
        (NOW - 1.0, "sent"),
        (NOW - 299.0, "sent"),
        (NOW + 60.0, "deferred"),  # a clock that is ahead
    )
    assert found(db, HOUR) == {0: {"sent": 1, "failed": 1}, 11: {"sent": 2, "deferred": 1}}
    (counts,) = statistics.counts(db, NOW, [HOUR])
    assert (counts.total("sent"), counts.total("in_doubt"), counts.complete) == (3, 0, True)
    assert len(counts.parts) == 12


def test_counting_ends_at_a_bound_and_says_so(db: DAL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "MOST_ATTEMPTS", 3)
    attempts(db, (NOW - 9000.0, "sent"), *[(NOW - 100.0 + number, "sent") for number in range(3)])
    assert statistics.counts(db, NOW)[0].complete
    attempts(db, (NOW, "sent"))
    (counts,) = statistics.counts(db, NOW, [HOUR])
    assert (counts.total("sent"), counts.complete) == (3, False)


def test_latencies_are_those_of_messages_that_were_sent(db: DAL) -> None:
    assert statistics.latencies(db) is None
    end(db, words.FAILED)
    assert statistics.latencies(db) is None
    for seconds in range(1, 101):
        db.mailqueue_message.insert(status="sent", created_on=NOW, finished_on=NOW + seconds)
    db.mailqueue_message.insert(status="sent", created_on=None, finished_on=None)  # damaged
    assert statistics.latencies(db) == (50.0, 95.0)


def test_workers_and_transports_are_listed_paused_ones_first(db: DAL) -> None:
    leases.register(db, token="t", host_name="here", pid=7, journal="", now=NOW)
    for name, paused_on in (("smtp://a", None), ("smtp://b", NOW)):
        db.mailqueue_transport.insert(name=name, paused_on=paused_on)
    assert [row["pid"] for row in statistics.workers(db)] == [7]
    rows: list[dict[str, Any]] = statistics.transports(db)
    assert [row["name"] for row in rows] == ["smtp://b", "smtp://a"]


def test_what_failed_alike_is_told_by_more_than_its_codes(db: DAL) -> None:
    replies = ("5.7.1 <ann@x.test>: denied", "5.7.1 mailbox disabled for legal reasons", "5.1.1 <bob@x.test>")
    for number in range(3):
        put(db, f"user{number}@x.test")
    for one, reply in zip(claim(db), replies, strict=True):
        failed = Outcome(
            one.recipients[0].id, words.FAILED, failure_kind=words.RECIPIENT, code=550, reply=reply
        )
        finish(db, finished(one, failed))
    parts = {failure.error: failure.part for failure in statistics.failures(db)}
    assert parts == {
        "550 5.7.1 …: denied": ": denied",
        "550 5.7.1 mailbox disabled for legal reasons": "550 5.7.1 mailbox disabled for legal reasons",
        "550 5.1.1 …": "550 5.1.1",
    }

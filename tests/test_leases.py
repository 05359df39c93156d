"""Who is at work: heartbeats, suspicion, death, and clocks that jump."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import leases
from mailqueue.leases import CONFIRM, FRESH, HEARTBEAT, LEASE
from pydal import DAL
from support.store import NOW, all_rows, another_dal, open_dal, worker

HOUR = 3600.0


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


def dead(db: DAL, now: float, gone: int = 0) -> list[int]:
    return [row.id for row in leases.dead(db, now, lambda row: row.id == gone)]


def test_a_worker_seen_gone_is_dead_at_once(db: DAL) -> None:
    alive, gone = worker(db), worker(db)
    assert dead(db, NOW, gone) == [gone]
    leases.retire(db, gone)
    assert dead(db, NOW) == []
    assert [row["id"] for row in all_rows(db, "worker")] == [alive]


def test_a_worker_without_a_heartbeat_is_dead_on_the_second_look_within_a_minute(db: DAL) -> None:
    late = worker(db)
    assert dead(db, NOW + LEASE - 1) == []
    assert leases.next_look(db) == NOW + LEASE
    db.commit()
    assert dead(db, NOW + LEASE) == []
    assert leases.next_look(db) == NOW + LEASE + CONFIRM
    db.commit()
    assert dead(db, NOW + LEASE + CONFIRM - 1) == []
    assert dead(db, NOW + LEASE + CONFIRM) == [late]
    assert HEARTBEAT + LEASE + CONFIRM < 60


def test_a_heartbeat_ends_the_suspicion(db: DAL) -> None:
    late = worker(db)
    dead(db, NOW + LEASE)
    assert leases.beat(db, late, NOW + LEASE + 1)
    assert dead(db, NOW + LEASE + CONFIRM) == []
    assert all_rows(db, "worker")[0]["suspected_on"] is None


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_jumps_costs_no_living_worker_its_claims(db: DAL, jump: float) -> None:
    """The looker's clock jumps; the worker goes on beating by its own."""
    beating = worker(db)
    for seconds in range(0, 120, 4):
        assert dead(db, NOW + seconds + jump) == []
        assert leases.beat(db, beating, NOW + seconds)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_jumps_does_not_keep_a_dead_worker_alive(db: DAL, jump: float) -> None:
    gone = worker(db)
    assert dead(db, NOW + jump) == []
    assert dead(db, NOW + jump + CONFIRM) == [gone]


def test_a_clock_set_back_after_the_suspicion_starts_it_anew(db: DAL) -> None:
    gone = worker(db)
    dead(db, NOW + HOUR)
    assert dead(db, NOW + LEASE) == []
    assert dead(db, NOW + LEASE + CONFIRM) == [gone]


def test_a_worker_stops_before_anybody_can_take_its_claims_over() -> None:
    assert HEARTBEAT * 2 < FRESH < CONFIRM
    assert FRESH < LEASE


def test_a_beat_tells_a_worker_that_it_was_declared_dead(db: DAL, db_uri: str, tmp_path: Path) -> None:
    worker_id = worker(db)
    assert leases.beat(db, worker_id, NOW + 1)
    assert leases.beat(db, worker_id, NOW + 1)  # the clock may stand still
    with another_dal(db_uri, tmp_path) as other:
        leases.retire(other, worker_id)
    assert not leases.beat(db, worker_id, NOW + 2)


def test_a_worker_that_beats_after_the_look_is_not_taken_over(db: DAL) -> None:
    worker(db)
    dead(db, NOW + LEASE)
    row: Any
    (row,) = leases.dead(db, NOW + LEASE + CONFIRM, lambda row: False)
    leases.beat(db, row.id, NOW + LEASE + CONFIRM + 0.25)
    assert not leases.take_over(db, row)
    db.rollback()
    assert len(all_rows(db, "worker")) == 1

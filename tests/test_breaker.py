"""Pauses, probes and fingerprints, on every database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import breaker, database, define_tables
from mailqueue.database import own_transaction
from py4web.core import DAL
from support.store import another_dal

NAME = "smtp://mail.site.test:25"
SETTINGS = ("mail.site.test", "user:password")


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[Any]:
    db = DAL(db_uri, folder=str(tmp_path))
    define_tables(db)
    yield db
    db.close()


def pause(db: Any, now: float, settings: tuple[object, ...] = SETTINGS) -> int:
    with own_transaction(db):
        return breaker.pause(db, NAME, settings, stage="auth", reason="535 no", now=now)


def test_a_transport_nobody_knows_yet_is_flowing(db: Any) -> None:
    assert breaker.admit(db, NAME, SETTINGS, 0.0) == breaker.FLOWING


def test_a_row_that_another_worker_has_made_meanwhile_is_found(db: Any, db_uri: str, tmp_path: Path) -> None:
    with another_dal(db_uri, tmp_path) as other:
        assert breaker.next_probe(db, 1000.0) is None  # the transaction has begun
        breaker.state(other, NAME)
        other.commit()
        assert breaker.state(db, NAME).name == NAME


def test_a_paused_transport_is_left_alone_until_the_probe(db: Any) -> None:
    assert pause(db, 1000.0) == 1
    assert breaker.admit(db, NAME, SETTINGS, 1029.0) == breaker.PAUSED
    assert breaker.next_probe(db, 1000.0) == 1030.0
    assert breaker.next_probe(db, 1030.0) is None, "of a transport that nobody uses any more"
    assert breaker.admit(db, NAME, SETTINGS, 1030.0) == breaker.PROBE


def test_one_of_several_workers_gets_the_probe(db: Any) -> None:
    pause(db, 1000.0)
    answers: list[str] = []
    start = threading.Barrier(4)

    def ask() -> None:
        start.wait(10)
        with own_transaction(db):
            answers.append(breaker.admit(db, NAME, SETTINGS, 1030.0))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers) == [breaker.PAUSED] * 3 + [breaker.PROBE]


def test_changed_settings_end_the_wait_at_once_and_once(db: Any) -> None:
    pause(db, 1000.0)
    repaired = ("mail.site.test", "user:other")
    assert breaker.admit(db, NAME, repaired, 1001.0) == breaker.PROBE
    assert breaker.admit(db, NAME, repaired, 1001.0) == breaker.PAUSED


def test_a_pause_remembers_when_it_began_and_how_often_it_failed(db: Any) -> None:
    assert [pause(db, 1000.0), pause(db, 1030.0), pause(db, 1090.0)] == [1, 2, 3]
    row = breaker.state(db, NAME)
    assert (row.paused_on, row.next_probe, row.reason) == (1000.0, 1090.0 + 120.0, "535 no")


def test_what_works_is_no_longer_paused_and_has_connected(db: Any) -> None:
    pause(db, 1000.0)
    with own_transaction(db):
        breaker.proved(db, NAME, 1030.0)
    row = breaker.state(db, NAME)
    assert (row.paused_on, row.failures, row.connected_on) == (None, 0, 1030.0)
    assert breaker.next_probe(db, 1000.0) is None
    assert breaker.admit(db, NAME, SETTINGS, 1031.0) == breaker.FLOWING


def test_no_password_is_in_the_table_and_equal_settings_look_different_elsewhere(db: Any) -> None:
    pause(db, 1000.0)
    assert "password" not in str(db(db.mailqueue_transport).select().as_list())
    assert breaker.fingerprint(SETTINGS, "salt") != breaker.fingerprint(SETTINGS, "other salt")
    assert breaker.fingerprint(SETTINGS, "salt") == breaker.fingerprint(SETTINGS, "salt")


def test_a_changed_setting_is_noticed_once_while_nothing_is_paused(db: Any) -> None:
    pause(db, 1000.0)
    with own_transaction(db):
        breaker.proved(db, NAME, 1030.0)
    with own_transaction(db):
        assert not breaker.settings_changed(db, NAME, SETTINGS)
        assert breaker.settings_changed(db, NAME, ("elsewhere",))
        assert not breaker.settings_changed(db, NAME, ("elsewhere",))


def test_delays_between_probes_grow_from_30_seconds_to_5_minutes() -> None:
    assert [breaker.probe_delay(n) for n in (0, 1, 2, 3, 4, 5, 500)] == [30, 30, 60, 120, 240, 300, 300]


def test_workers_that_start_at_the_same_moment_make_one_row(db: Any) -> None:
    faults: list[Exception] = []
    ids: list[int] = []

    def start(barrier: threading.Barrier, name: str) -> None:
        barrier.wait(10)
        try:
            with own_transaction(db):
                ids.append(breaker.state(db, name).id)
        except database.faults(db) as error:
            faults.append(error)

    for number in range(20):
        barrier = threading.Barrier(3)
        workers = [threading.Thread(target=start, args=(barrier, f"{NAME}{number}")) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(30)
    assert faults == []
    assert len(ids) == 60 and len(set(ids)) == 20

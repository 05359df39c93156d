"""Celery as the engine: what is announced, when, and what becomes of it when workers are killed."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, signals
from mailqueue import QueuedMailer, database
from mailqueue import celery as engine
from mailqueue.errors import MissingExtra
from support.celery_site import BROKERS, CelerySite, celery_site, kill_all, kill_children
from support.mail import Clock, make_mail, rows, statuses, to_server
from support.services import fresh_database
from support.smtp_faults import Hang
from support.smtp_server import ScriptedServer, nth, refused_port

PATIENCE = 30.0  # seconds


def until(condition: Callable[[], bool], site: CelerySite) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, site.log
        time.sleep(0.05)


@pytest.fixture
def mail(tmp_path: Path) -> QueuedMailer:
    return make_mail(tmp_path, clock=time.time)


class Given:
    """A broker's stand-in: notes each hint, and may fail."""

    def __init__(self, app: Celery, monkeypatch: pytest.MonkeyPatch):
        self.hints: list[tuple[Any, ...]] = []
        monkeypatch.setattr(engine._Hints, "_publish", self._publish)

    def _publish(self, ids: Any, after: float) -> None:
        self.hints.append((list(ids), after))


@pytest.fixture
def app() -> Celery:
    return Celery("site", broker="memory://")


@pytest.fixture
def given(app: Celery, mail: QueuedMailer, monkeypatch: pytest.MonkeyPatch) -> Given:
    engine.register(app, mail)
    return Given(app, monkeypatch)


# --- announcing ----------------------------------------------------------------------------
def test_a_request_announces_its_messages_after_its_commit(mail: QueuedMailer, given: Given) -> None:
    mail.db.on_request({})
    mail.send("ann@x.test")
    mail.send("bob@x.test")
    assert given.hints == []
    mail.db.on_success({"status": 200})
    assert given.hints == [([1, 2], 0)]


def test_a_request_that_fails_announces_nothing_and_neither_does_the_next(
    mail: QueuedMailer, given: Given
) -> None:
    mail.db.on_request({})
    mail.send("ann@x.test")
    mail.db.on_error({})
    mail.db.on_request({})
    mail.db.on_success({"status": 200})
    assert given.hints == []


def test_outside_of_a_request_a_hint_comes_a_little_later_than_the_mail(
    mail: QueuedMailer, given: Given
) -> None:
    mail.send("ann@x.test")
    assert given.hints == [([1], engine.COMMIT_SECONDS)]


def test_many_messages_of_one_request_are_announced_by_a_few_hints(
    mail: QueuedMailer, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = engine.register(app, mail)
    given: list[Any] = []
    monkeypatch.setattr(task, "apply_async", lambda arguments, **_: given.append(arguments))
    mail.db.on_request({})
    for number in range(50):
        mail.send(f"user{number}@x.test")
    mail.db.on_success({"status": 200})
    assert given == [(number,) for number in range(1, engine.HINTS + 1)]


@pytest.mark.parametrize("broker", BROKERS)
def test_a_broker_that_is_down_costs_no_mail_and_next_to_no_time(
    broker: str, mail: QueuedMailer, caplog: pytest.LogCaptureFixture
) -> None:
    with refused_port() as port:
        scheme = BROKERS[broker].partition(":")[0]
        engine.register(Celery("site", broker=f"{scheme}://127.0.0.1:{port}/"), mail)
        begun = time.monotonic()
        for number in range(20):
            assert mail.send(f"user{number}@x.test") is True
        assert time.monotonic() - begun < 20
    assert statuses(mail) == ["queued"] * 20
    told = [record for record in caplog.records if "the broker could not be told" in record.getMessage()]
    assert len(told) == 1


def test_a_broker_that_hangs_holds_a_request_up_once_and_shortly(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["banner"] = Hang()
    engine.register(Celery("site", broker=f"amqp://127.0.0.1:{smtp.port}/"), mail)
    begun = time.monotonic()
    assert mail.send("ann@x.test") is True
    assert mail.send("bob@x.test") is True
    assert time.monotonic() - begun < 10
    smtp.release()


# --- registering ---------------------------------------------------------------------------
def test_the_sweep_survives_a_schedule_that_is_assigned_later(mail: QueuedMailer, app: Celery) -> None:
    engine.register(app, mail, sweep=7.0, queue="mail")
    app.conf.beat_schedule = {"own": {"task": "own", "schedule": 10.0}}
    app.finalize()
    assert set(app.conf.beat_schedule) == {"own", engine.TASK}
    sweep = app.conf.beat_schedule[engine.TASK]
    assert (sweep["task"], sweep["schedule"], sweep["options"]) == (
        engine.TASK,
        7.0,
        {"queue": "mail", "expires": 7.0},
    )


def test_a_task_outlives_its_worker(mail: QueuedMailer, app: Celery) -> None:
    task = engine.register(app, mail)
    assert (task.acks_late, task.reject_on_worker_lost, task.ignore_result) == (True, True, True)


def test_children_of_a_worker_inherit_no_connection(mail: QueuedMailer, app: Celery) -> None:
    engine.register(app, mail)
    mail.counts()
    assert database.has_connection(mail.db)
    signals.worker_init.send(sender=None)
    assert not database.has_connection(mail.db)


def test_without_celery_the_extra_is_named(mail: QueuedMailer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "celery", None)
    with pytest.raises(MissingExtra, match=r"pip install 'mailqueue\[celery\]'"):
        engine.register(object(), mail)


# --- the task ------------------------------------------------------------------------------
def test_a_hint_whose_message_is_not_due_starts_no_drain(
    mail: QueuedMailer, app: Celery, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains: list[Any] = []
    monkeypatch.setattr(mail, "process_queue", lambda **given: drains.append(given))
    task = app.tasks[engine.TASK]
    mail.send("ann@x.test", send_at=time.time() + 3600)
    task(1)
    task(99)
    assert drains == []
    mail.send("bob@x.test")
    task(2)
    task()
    assert len(drains) == 2


def test_a_turn_that_is_over_asks_for_the_next(tmp_path: Path, app: Celery, smtp: ScriptedServer) -> None:
    clock = Clock()
    mail = make_mail(tmp_path, clock=clock)
    task = engine.register(app, mail)
    given: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine._Hints, "give", lambda _self, ids, **_: given.append(ids))
        to_server(mail, smtp)
        smtp.script["dot"] = lambda *_: clock.advance(engine.TURN)
        mail.send("ann@x.test")
        given.clear()
        task()
        smtp.script.clear()
        task()
    assert given == [[None]]


def test_a_database_that_fails_is_one_line_and_no_error(
    mail: QueuedMailer, app: Celery, given: Given, caplog: pytest.LogCaptureFixture
) -> None:
    task = app.tasks[engine.TASK]
    mail.db.executesql("DROP TABLE mailqueue_pulse")
    mail.db.commit()
    task()
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "the database fails (no such table: mailqueue_pulse)" in record.getMessage()
    assert record.exc_info is None


# --- whole journeys ------------------------------------------------------------------------
@pytest.fixture(params=[("redis", "postgres"), ("rabbitmq", "sqlite")], ids="-".join)
def site(request: pytest.FixtureRequest, tmp_path: Path, smtp: ScriptedServer) -> Iterator[CelerySite]:
    broker, kind = request.param
    with fresh_database(kind, tmp_path) as uri, celery_site(tmp_path, smtp.port, broker, uri) as site:
        yield site


def queue_some(site: CelerySite, name: str, number: int) -> None:
    """A third announced as usual, a third twice, a third never."""
    for place in range(number):
        address = f"{name}{place}@x.test"
        if place % 3 == 0:
            site.unannounced.send(address)
            continue
        site.mail.send(address)
        if place % 3 == 1:
            site.mail.wake(None)


def sent(site: CelerySite) -> int:
    return statuses(site.unannounced).count("sent")


def arrived_twice(site: CelerySite, smtp: ScriptedServer, number: int) -> set[str]:
    """The addresses whose message arrived more than once; all `number` of them arrived."""
    arrived = Counter(message.rcpt_tos[0] for message in smtp.messages)
    assert len(arrived) == number
    return {address for address, times in arrived.items() if times > 1}


def in_doubt(site: CelerySite) -> set[str]:
    """The addresses that were in doubt: of them, each kill made at most one for each connection."""
    addresses = {row["id"]: row["address"] for row in rows(site.unannounced, "recipient")}
    attempts = rows(site.unannounced, "attempt")
    found = {addresses[row["recipient_ref"]] for row in attempts if row["outcome"] == "in_doubt"}
    assert 0 < len(found) <= 2 * 2 * site.unannounced.site.connections
    return found


def test_whatever_is_announced_and_whoever_is_killed_all_arrives_and_only_doubts_arrive_twice(
    site: CelerySite, smtp: ScriptedServer
) -> None:
    site.start_beat()
    smtp.script["dot"] = nth(Hang(taken=True), 20)
    queue_some(site, "ann", 50)
    worker = site.start_worker()
    smtp.wait_for_stage("dot", 20, PATIENCE)
    kill_children(worker)
    until(lambda: sent(site) == 50, site)
    smtp.script["dot"] = nth(Hang(taken=True), 20)
    reached = smtp.reached["dot"]
    queue_some(site, "bob", 50)
    smtp.wait_for_stage("dot", reached + 20, PATIENCE)
    kill_all(worker)
    site.start_worker()
    until(lambda: sent(site) == 100, site)
    smtp.release()
    assert arrived_twice(site, smtp, 100) <= in_doubt(site)
    assert set(statuses(site.unannounced)) == {"sent"}


def test_a_worker_that_is_to_end_is_not_held_up_by_a_server_and_loses_nothing(
    site: CelerySite, smtp: ScriptedServer
) -> None:
    site.start_beat()
    worker = site.start_worker()
    smtp.script["rcpt"] = Hang()
    for number in range(50):
        site.unannounced.send(f"ann{number}@x.test")
    smtp.wait_for_stage("rcpt", 1, PATIENCE)
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.wait(15) == 0, site.log
    assert statuses(site.unannounced).count("queued") >= 50 - 2 * site.unannounced.site.connections
    smtp.script.clear()
    smtp.release()
    to_server(site.unannounced, smtp)
    assert site.unannounced.process_queue()["sent"] == 50
    assert arrived_twice(site, smtp, 50) == set()
    assert {row["attempts"] for row in rows(site.unannounced, "message")} == {1}

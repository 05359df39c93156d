"""The sending task and pydal's Scheduler: hints, and bringing back what the scheduler lost.

Runs in processes of their own are in test_flow_scheduler.py.
"""

from __future__ import annotations

import datetime
import gc
import logging
import os
import signal
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, leases
from mailqueue.journal import Journal
from mailqueue.py4web import scheduler as sending
from pydal.connection import ConnectionPool
from pydal.tools.scheduler import Scheduler, delta
from pydal.tools.scheduler import now as scheduler_now
from support.mail import make_mail, open_causes, to_server
from support.services import fresh_database, needs
from support.smtp_faults import Reply
from support.smtp_server import ScriptedServer

PERIOD = 60
ENDED = ["completed", "failed", "dead", "timeout", "unknown"]


def make_scheduler(db: Any, folder: Path) -> Scheduler:
    """One that never starts a run by itself."""
    handler = signal.getsignal(signal.SIGCHLD)
    quiet = logging.getLogger("quiet")
    scheduler = Scheduler(db, max_concurrent_runs=0, folder=str(folder / "runs"), logger=quiet)
    signal.signal(signal.SIGCHLD, handler)
    return scheduler


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[QueuedMailer]:
    mail = make_mail(tmp_path, server="memory", clock=time.time)
    mail.enable_scheduler(make_scheduler(mail.db, tmp_path), period=PERIOD)
    clear(mail)
    yield mail
    retire(mail)


def retire(mail: QueuedMailer) -> None:
    assert mail._task
    mail._task.retire(None)


def ensure(mail: QueuedMailer) -> None:
    assert mail._task
    mail._task.ensure()


def clear(mail: QueuedMailer) -> None:
    mail.db(mail.db.task_run).delete()
    mail.db.commit()


def insert(mail: QueuedMailer, *, ago: float = 0, **fields: Any) -> None:
    moment = scheduler_now() - datetime.timedelta(seconds=ago)
    usual = {"name": sending.TASK, "period": PERIOD, "scheduled_for": moment, "inputs": {}, "timeout": 3600}
    mail.db.task_run.insert(**{**usual, "queued_on": moment, **fields})
    mail.db.commit()


def runs(mail: QueuedMailer, **fields: Any) -> list[dict[str, Any]]:
    found = mail.db(mail.db.task_run).select(orderby=mail.db.task_run.id).as_list()
    mail.db.commit()
    return [row for row in found if fields.items() <= row.items()]


def hints(mail: QueuedMailer) -> list[dict[str, Any]]:
    return runs(mail, period=None, status="queued", name=sending.TASK)


# --- enabling ------------------------------------------------------------------------------
def test_enabling_makes_one_periodic_run_and_one_at_once(tmp_path: Path) -> None:
    mail = make_mail(tmp_path, server="memory")
    scheduler = make_scheduler(mail.db, tmp_path)
    for _load in range(3):
        mail.enable_scheduler(scheduler, period=PERIOD)
        assert [run["status"] for run in runs(mail, period=PERIOD)] == ["queued"]
        assert hints(mail)
    assert scheduler.tasks[sending.TASK]
    assert scheduler.sleep_time <= sending.WAKE_SECONDS
    retire(mail)


def test_a_site_without_a_scheduler_queues(tmp_path: Path) -> None:
    mail = make_mail(tmp_path)
    mail.enable_scheduler(None)
    mail.send("ann@x.test")
    assert mail.counts()["queued"] == 1


def test_a_new_period_takes_the_place_of_the_old(mail: QueuedMailer) -> None:
    insert(mail, status="queued", period=86400, ago=-86400)
    ensure(mail)
    (run,) = runs(mail, status="queued")
    assert run["period"] == PERIOD
    assert run["scheduled_for"] <= scheduler_now() + delta(PERIOD)


# --- what the scheduler loses --------------------------------------------------------------
@pytest.mark.parametrize("status", [*ENDED, "nothing"])
def test_a_periodic_run_that_is_gone_comes_back(mail: QueuedMailer, status: str) -> None:
    if status != "nothing":
        insert(mail, status=status, ago=30)
    ensure(mail)
    ensure(mail)
    (run,) = runs(mail, status="queued")
    assert (run["name"], run["period"], run["worker"], run["inputs"]) == (sending.TASK, PERIOD, None, {})
    assert run["scheduled_for"] <= scheduler_now() + delta(PERIOD)


@pytest.mark.parametrize("status", ["queued", "assigned"])
@pytest.mark.parametrize("period", [PERIOD, None])
def test_a_run_that_was_assigned_and_never_began_is_free_again(
    mail: QueuedMailer, status: str, period: int | None
) -> None:
    insert(mail, status=status, worker="10.0.0.1", period=period, ago=sending.STALE_SECONDS + 1)
    ensure(mail)
    assert [(run["status"], run["worker"]) for run in runs(mail, period=period)] == [("queued", None)]


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "assigned", "worker": "10.0.0.1"},
        {"status": "running", "worker": "10.0.0.1", "started_on": scheduler_now().replace(microsecond=0)},
    ],
)
def test_a_run_that_is_under_way_is_left_alone(mail: QueuedMailer, fields: dict[str, Any]) -> None:
    insert(mail, **fields)
    ensure(mail)
    (run,) = runs(mail)
    assert fields.items() <= run.items()


def test_a_run_that_began_too_long_ago_has_a_successor(mail: QueuedMailer) -> None:
    long_ago = scheduler_now() - datetime.timedelta(seconds=sending.LOST_SECONDS + 1)
    insert(mail, status="running", worker="10.0.0.1", started_on=long_ago)
    ensure(mail)
    assert len(runs(mail, status="queued", period=PERIOD)) == 1


def test_spare_periodic_runs_are_deleted(mail: QueuedMailer) -> None:
    for _server in range(3):
        insert(mail, status="queued")
    ensure(mail)
    assert len(runs(mail)) == 1


def test_ended_runs_do_not_pile_up(mail: QueuedMailer) -> None:
    for number in range(60):
        insert(mail, status=ENDED[number % len(ENDED)])
    last = runs(mail)[-1]["id"]
    ensure(mail)
    left = [run["id"] for run in runs(mail) if run["status"] != "queued"]
    assert left == list(range(last - sending.KEPT_RUNS + 1, last + 1))


def test_the_hosts_own_runs_are_left_alone(mail: QueuedMailer) -> None:
    for status in [*ENDED * 10, "queued", "assigned", "running"]:
        insert(mail, name="own", status=status, ago=9999, worker="10.0.0.1", period=None)
        insert(mail, name="own", status=status, ago=9999, worker="10.0.0.1")
    before = runs(mail, name="own")
    ensure(mail)
    assert mail._task
    mail._task.run()
    assert runs(mail, name="own") == before


def test_a_loop_that_died_is_started_again(mail: QueuedMailer) -> None:
    assert mail._task
    scheduler = mail._task._scheduler
    dead = threading.Thread()
    dead.start()
    dead.join()
    for revive in (lambda: ensure(mail), lambda: mail.send("ann@x.test")):
        scheduler._looping, scheduler._thread, scheduler.sleep_time = True, dead, 0.01
        revive()
        assert scheduler._thread is not dead
        assert scheduler._thread.is_alive()
        scheduler.stop()


def test_a_scheduler_that_was_stopped_stays_stopped(mail: QueuedMailer) -> None:
    ensure(mail)
    mail.send("ann@x.test")
    assert mail._task
    assert mail._task._scheduler._thread is None


# --- hints ---------------------------------------------------------------------------------
def test_a_hint_commits_and_rolls_back_with_the_mail(mail: QueuedMailer) -> None:
    for end, expected in (("on_error", 0), ("on_success", 1)):
        mail.db.on_request({})
        mail.send("ann@x.test")
        getattr(mail.db, end)({})
        assert (len(hints(mail)), mail.counts()["queued"]) == (expected, expected)
        mail.db.commit()


def test_a_thread_without_field_defaults_gives_a_whole_hint(mail: QueuedMailer) -> None:
    thread = threading.Thread(target=mail.send, args=("ann@x.test",))
    thread.start()
    thread.join()
    (hint,) = hints(mail)
    assert hint["inputs"] == {}
    assert hint["scheduled_for"] <= scheduler_now()
    assert hint["queued_on"] and hint["timeout"] > sending.RUN_SECONDS
    assert mail.process_queue()["sent"] == 1


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_a_hint_that_cannot_be_given_loses_no_mail(tmp_path: Path, kind: str) -> None:
    with fresh_database(kind, tmp_path) as uri:
        mail = make_mail(tmp_path, uri=uri, server="memory")
        mail.enable_scheduler(make_scheduler(mail.db, tmp_path))
        retire(mail)
        mail.db.executesql("DROP TABLE task_run")
        mail.db.commit()
        mail.db.on_request({})
        mail.send("ann@x.test")
        mail.db.on_success({})
        assert mail.counts()["queued"] == 1
        mail.db.close()


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_a_run_does_not_spend_the_hint_of_a_mail_it_cannot_see_yet(tmp_path: Path, kind: str) -> None:
    with fresh_database(kind, tmp_path) as uri:
        mail = make_mail(tmp_path, uri=uri, server="memory", clock=time.time)
        mail.enable_scheduler(make_scheduler(mail.db, tmp_path))
        assert mail._task
        mail.db.commit()
        mail.send("bob@x.test")
        mail.db.on_request({})
        mail.send("ann@x.test")  # while bob's hint waits
        own = mail.db(mail.db.task_run.id > 0).select(mail.db.task_run.id.max()).first()
        run = threading.Thread(target=mail._task.run)
        run.start()
        run.join()
        mail.db.on_success({})
        assert own[mail.db.task_run.id.max()] in [hint["id"] for hint in hints(mail)]
        assert (mail.counts()["queued"], mail.counts()["sent"]) == (1, 1)
        retire(mail)
        mail.db.close()


# --- a run ---------------------------------------------------------------------------------
def test_a_run_sends_what_is_due_and_spends_the_hints(mail: QueuedMailer) -> None:
    for number in range(3):
        mail.send(f"ann{number}@x.test")
    assert mail._task
    assert mail._task.run()["sent"] == 3
    assert hints(mail) == []


def test_a_run_comes_back_when_the_next_mail_is_due(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    to_server(mail, smtp)
    smtp.script["rcpt"] = Reply(450, "4.2.0 busy")
    mail.send("ann@x.test")
    mail.site.policy = type(mail.site.policy)(first_delay=30, jitter=0)
    assert mail._task
    mail._task.run()
    (planned,) = hints(mail)
    wait = (planned["scheduled_for"] - scheduler_now()).total_seconds()
    assert 20 < wait <= 31
    mail._task.run()
    assert hints(mail) == [planned]


# --- forks and reloads ---------------------------------------------------------------------


def test_a_run_whose_end_cannot_be_written_down_does_not_go_on_as_a_second_scheduler(
    mail: QueuedMailer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pydal's goes on where a driver raises at the end of a connection that was lost."""
    monkeypatch.setattr(sending, "START_SECONDS", 0.1)
    insert(mail, status="queued")
    scheduler = mail._task._scheduler  # type: ignore[union-attr]
    scheduler.max_concurrent_runs = 1
    reading, writing = os.pipe()

    def lose_the_database(scheduler: Scheduler, run: Any) -> None:
        os.write(writing, b"ran")
        raise OSError("the server has gone away")

    monkeypatch.setattr(Scheduler, "safe_exec_child", lose_the_database)
    server = os.getpid()
    try:
        scheduler.step()
    except SystemExit:
        os._exit(0)  # the process between the server's and the run's
    if os.getpid() != server:
        os.write(writing, b" and went on")
        os._exit(0)
    os.wait()
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        assert told.read() == b"ran"


def test_a_run_comes_back_to_look_at_a_worker_that_may_be_dead(mail: QueuedMailer) -> None:
    """On another host, so that only its heartbeat tells."""
    now = time.time()
    leases.register(mail.db, token="t", host_name="elsewhere", machine="another", pid=1, journal="", now=now)
    assert mail._task
    mail._task.run()
    [hint] = hints(mail)
    expected = leases.LEASE
    assert abs((hint["scheduled_for"] - scheduler_now()).total_seconds() - expected) < 5


def test_the_journal_of_a_killed_worker_wakes_the_task(mail: QueuedMailer) -> None:
    left = Journal(mail.site.journals)
    watch_once(mail)
    assert hints(mail) == [], "its worker lives"
    left.abandon()
    for _ in range(2):
        watch_once(mail)
        assert len(hints(mail)) == 1, "once"


def watch_once(mail: QueuedMailer) -> None:
    assert mail._task
    mail._task._wake_for_the_dead()


def test_the_watch_tells_the_administrator_that_nobody_sends(mail: QueuedMailer) -> None:
    mail.send("ann@x.test")
    mail.db(mail.db.mailqueue_message).update(due=time.time() - 3600)
    mail.db.commit()
    assert mail._task
    mail._task._look_for_silence()
    assert open_causes(mail) == ["no-worker"]


def test_a_later_load_of_the_same_app_retires_the_earlier(tmp_path: Path) -> None:
    first = make_mail(tmp_path, server="memory")
    old = make_scheduler(first.db, tmp_path)
    first.enable_scheduler(old)
    old.sleep_time = 0.01
    old.start()
    assert first._task
    gc.collect()
    descriptors = len(os.listdir("/proc/self/fd")) + 1  # the old loop's connection may be still to come
    mails = [first]
    for _reload in range(5):
        mail = make_mail(tmp_path, server="memory")
        mail.enable_scheduler(make_scheduler(mail.db, tmp_path))
        mail.db.close()
        mails.append(mail)
        watches = [t for t in threading.enumerate() if getattr(t, "mailqueue_task", None) is mails[-2]._task]
        for watch in watches:
            watch.join(timeout=5)
            assert not watch.is_alive()
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    old._thread.join(timeout=5)
    gc.collect()
    assert not old._thread.is_alive()
    first._task.retire(None)  # once more does no harm
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    retire(mails[-1])


def test_a_run_holds_neither_the_servers_port_nor_a_visitors_connection() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    visitor = socket.create_connection(("127.0.0.1", port))
    accepted = server.accept()[0]
    own = socket.socketpair()
    child = os.fork()
    if not child:
        sending._close_server_sockets()
        own[1].sendall(b"closed")  # other sockets still work
        own[1].recv(1)
        os._exit(0)
    assert own[0].recv(10) == b"closed"
    accepted.close()
    server.close()
    visitor.settimeout(5)
    assert visitor.recv(1) == b""
    visitor.close()
    socket.create_server(("127.0.0.1", port)).close()
    own[0].sendall(b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in own:
        end.close()


@pytest.mark.parametrize("busy", ["SELECT id FROM task_run", "INSERT INTO task_run (name) VALUES ('x')"])
def test_a_fork_waits_for_the_transactions_of_other_threads(
    mail: QueuedMailer, tmp_path: Path, busy: str
) -> None:
    """SQLite's locks would be held for ever in the child."""
    insert(mail, status="completed")
    insert(mail, status="completed")
    begun = threading.Event()

    def work() -> None:
        with closing(sqlite3.connect(tmp_path / "mail.db")) as link:
            cursor = link.execute(busy)
            cursor.fetchone()
            begun.set()
            threading.Event().wait(0.2)
            cursor.close()
            link.commit()

    other = threading.Thread(target=work)
    other.start()
    begun.wait()
    child = os.fork()
    if not child:
        try:
            link = sqlite3.connect(tmp_path / "mail.db", timeout=1)
            link.execute("INSERT INTO task_run (name) VALUES ('child')")
            link.commit()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    other.join()
    assert os.waitpid(child, 0)[1] == 0
    assert runs(mail, name="child")


def test_a_fork_waits_for_the_pools_and_forgets_them() -> None:
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with sending.GLOBAL_LOCKER:
            taken.set()
            done.wait(0.2)

    holder = threading.Thread(target=hold)
    ConnectionPool.POOLS["sqlite://test"] = [object()]
    holder.start()
    taken.wait()
    child = os.fork()
    if not child:
        free: list[bool] = []
        other = threading.Thread(target=lambda: free.append(sending.GLOBAL_LOCKER.acquire(timeout=5)))
        other.start()
        other.join()
        os._exit(0 if free == [True] and not ConnectionPool.POOLS else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert ConnectionPool.POOLS.pop("sqlite://test")
    holder.join()


def test_a_fork_that_drops_connections_of_mysqlclient_leaves_the_parents_sessions_alone() -> None:
    """Those of other threads are dropped by the fork itself, before anybody can be asked."""
    links = pytest.importorskip("MySQLdb.connections")
    needs("mariadb")

    def link() -> Any:
        return links.Connection(host="127.0.0.1", port=3306, user="root", autocommit=True)

    here, local, ready, forked = [link()], threading.local(), threading.Event(), threading.Event()
    answers: list[Any] = []

    def hold() -> None:
        local.link = link()
        ready.set()
        forked.wait(10)
        answers.append(answer(local.link))

    def answer(of: Any) -> Any:
        of.query("SELECT 7")
        return of.store_result().fetch_row()

    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait(10)
    child = os.fork()
    if not child:
        here.clear()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    forked.set()
    holder.join()
    assert [*answers, answer(here[0])] == [((7,),)] * 2
    here[0].close()

"""A worker is told at once that mail has come; and when it cannot be told, it looks by itself."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, database, outbox, service, wakeup
from mailqueue.terms import terms
from mailqueue.wakeup import FileWatch, Listener, Polling, Watch
from pydal import DAL
from support.database_faults import Other, until
from support.mail import make_mail, statuses, to_server
from support.services import fresh_database
from support.smtp_faults import Reply
from support.smtp_server import ScriptedServer

NEVER = 20.0  # seconds; no test lasts that long
AT_ONCE = 0.2  # seconds in which a call surely arrives, or surely would have


@pytest.fixture(params=["sqlite", "postgres"])
def told_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database that tells of new mail."""
    with fresh_database(request.param, tmp_path) as uri:
        yield uri


@pytest.fixture
def postgres_uri(tmp_path: Path) -> Iterator[str]:
    with fresh_database("postgres", tmp_path) as uri:
        yield uri


@pytest.fixture
def nothing_but_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks for work by himself."""
    monkeypatch.setattr(service, "SWEEP", NEVER)
    monkeypatch.setattr(wakeup, "POLL", NEVER)
    monkeypatch.setattr(wakeup, "interval", lambda quiet: NEVER)


@contextlib.contextmanager
def watching(uri: str, folder: Path) -> Iterator[tuple[DAL, Watch]]:
    """A worker's DAL with a watch that has seen all there was to see."""
    db = DAL(uri, folder=str(folder), pool_size=0)
    watch = wakeup.watch(db, threading.Event())
    try:
        while watch.wait(AT_ONCE):
            pass
        yield db, watch
    finally:
        watch.close()
        db.close()


class Waiting(Watch):
    """Another watch, and whether somebody waits with it."""

    def __init__(self, watch: Watch):
        self.watch, self.at_it = watch, False

    def wait(self, seconds: float) -> bool:
        self.at_it = True
        try:
            return self.watch.wait(seconds)
        finally:
            self.at_it = False

    def pause(self, seconds: float) -> None:
        self.watch.pause(seconds)

    def sent(self) -> None:
        self.watch.sent()

    def close(self) -> None:
        self.watch.close()


@contextlib.contextmanager
def serving(uri: str, folder: Path, smtp: ScriptedServer) -> Iterator[tuple[QueuedMailer, Waiting]]:
    """A site with a service at work in a thread of its own."""
    mail = make_mail(folder, uri=uri, clock=time.time)
    to_server(mail, smtp)
    mail.db.commit()
    stop = threading.Event()
    waiting = Waiting(wakeup.watch(mail.db, stop))
    thread = threading.Thread(target=service.serve, args=(mail.site, stop), kwargs={"watch": waiting})
    thread.start()
    try:
        yield mail, waiting
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
        mail.db.close()


def send(mail: QueuedMailer, address: str) -> None:
    mail.send(address)
    mail.db.commit()


# --- a service that is woken ---------------------------------------------------------------
@pytest.mark.usefixtures("nothing_but_calls")
def test_mail_that_comes_while_the_worker_waits_is_sent_at_once(
    told_uri: str, tmp_path: Path, smtp: ScriptedServer
) -> None:
    with serving(told_uri, tmp_path, smtp) as (mail, waiting):
        for number in range(3):
            until(lambda: waiting.at_it)
            send(mail, f"user{number}@x.test")
            smtp.wait_for(number + 1)
        until(lambda: statuses(mail) == ["sent"] * 3)


@pytest.mark.usefixtures("nothing_but_calls")
def test_a_worker_that_waits_is_told_of_mail_that_is_tried_again_by_hand(
    told_uri: str, tmp_path: Path, smtp: ScriptedServer
) -> None:
    smtp.script["rcpt"] = {"ann@x.test": Reply(550, "5.1.1 nobody")}
    with serving(told_uri, tmp_path, smtp) as (mail, _):
        send(mail, "ann@x.test")
        until(lambda: statuses(mail) == ["failed"])
        smtp.script.clear()
        outbox.retry(mail.db, 1, time.time())
        mail.wake()
        mail.db.commit()
        smtp.wait_for(1)


def test_a_lost_listener_costs_no_mail_and_listens_again(
    postgres_uri: str,
    tmp_path: Path,
    smtp: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(wakeup, "RECONNECT", 0.2)
    with serving(postgres_uri, tmp_path, smtp) as (mail, waiting):
        other = Other(mail.db)
        other.link.autocommit = True
        (first,) = until(lambda: listeners(other))
        for _ in range(2):
            other.run("SELECT pg_terminate_backend(%s)", first)
            send(mail, "ann@x.test")
            until(lambda gone=first: listeners(other) not in ([], [gone]))
            (first,) = listeners(other)
        smtp.wait_for(2)
        monkeypatch.setattr(wakeup, "POLL", NEVER)
        until(lambda: waiting.watch._hears)  # type: ignore[attr-defined]
        send(mail, "bob@x.test")
        smtp.wait_for(3)
        other.close()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "looks for it by itself" in said[0]


def listeners(other: Other) -> list[int]:
    """The connections to this database whose last statement was LISTEN."""
    found = other.run(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%%'"
    )
    return [pid for (pid,) in found]


# --- the watches ---------------------------------------------------------------------------
def test_each_database_has_the_best_watch_there_is(db_uri: str, tmp_path: Path) -> None:
    kinds = {database.SQLITE: FileWatch, database.POSTGRES: Listener, database.MYSQL: Polling}
    db = DAL(db_uri, folder=str(tmp_path), pool_size=0)
    watch = wakeup.watch(db, threading.Event())
    assert type(watch) is kinds[database.engine(db)]
    db.close()


def test_a_rollback_wakes_nobody_and_a_commit_does(told_uri: str, tmp_path: Path) -> None:
    with watching(told_uri, tmp_path) as (_, watch):
        mail = make_mail(tmp_path, uri=told_uri)  # makes tables
        mail.db.commit()
        while watch.wait(AT_ONCE):
            pass
        in_thread(lambda: queue(mail, "rollback"))
        assert not watch.wait(AT_ONCE)
        in_thread(lambda: queue(mail, "commit"))
        assert watch.wait(NEVER)
        assert not watch.wait(AT_ONCE), "one call wakes once"


def queue(mail: QueuedMailer, end: str) -> None:
    """Queue a mail in a transaction that ends like that."""
    composed = mail.compose({"to": "ann@x.test", "subject": "s", "text": "t", "html": None})
    mail.queue(composed, terms(mail.site.clock()))
    mail.db._adapter.close(end)


def in_thread(work: Any) -> None:
    """Work on a connection of its own, as another process does."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_what_is_committed_between_two_waits_is_not_missed(told_uri: str, tmp_path: Path) -> None:
    with watching(told_uri, tmp_path) as (db, watch):
        other = Other(db)
        run = other.run
        if other.engine == database.POSTGRES:
            other.link.autocommit = True
            run("NOTIFY mailqueue")
        else:
            run("CREATE TABLE news (id INTEGER)")
        other.close()
        assert watch.wait(NEVER)


def test_a_worker_on_sqlite_is_not_woken_by_what_it_writes_itself(tmp_path: Path) -> None:
    with watching("sqlite://own.db", tmp_path) as (db, watch):
        db.executesql("CREATE TABLE own (id INTEGER)")
        db.commit()
        assert not watch.wait(AT_ONCE)


def test_a_worker_that_waits_asks_postgresql_nothing(postgres_uri: str, tmp_path: Path) -> None:
    with watching(postgres_uri, tmp_path) as (db, watch):
        other = Other(db)
        asked = (
            "SELECT pid, query_start FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
        )
        before = other.run(asked)
        other.link.rollback()
        assert len(before) == 2
        assert not watch.wait(2 * wakeup.POLL)
        assert other.run(asked) == before
        other.close()


def test_where_calls_do_not_arrive_the_worker_looks_by_itself_and_says_so_once(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wakeup, "announce", lambda db: None)  # as behind a pooler
    monkeypatch.setattr(wakeup, "POLL", 0.05)
    db = DAL(postgres_uri, folder=str(tmp_path), pool_size=0)
    watch = wakeup.watch(db, threading.Event())
    assert [watch.wait(NEVER) for _ in range(4)] == [True] * 4
    assert len(caplog.records) == 1
    assert "pooler" in caplog.text
    watch.close()
    db.close()


def test_a_stop_ends_every_wait(db_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    db = DAL(db_uri, folder=str(tmp_path), pool_size=0)
    stop = threading.Event()
    watch = wakeup.watch(db, stop)
    if not isinstance(watch, Polling) or isinstance(watch, Listener):
        while watch.wait(AT_ONCE):
            pass
    threading.Timer(0.1, stop.set).start()
    watch.wait(NEVER)
    watch.pause(NEVER)
    assert stop.is_set()
    watch.close()
    db.close()


def test_polling_is_quick_after_mail_and_slow_in_quiet_times() -> None:
    quiet, looks = 0.0, []
    while quiet < 20:
        looks.append(wakeup.interval(quiet))
        quiet += looks[-1]
    assert looks == sorted(looks)
    assert (looks[0], looks[-1]) == (wakeup.QUICK_POLL, wakeup.POLL)
    assert len(looks) < 70


def test_a_call_outside_of_any_transaction_leaves_none_open(db_uri: str, tmp_path: Path) -> None:
    mail = make_mail(tmp_path, uri=db_uri)
    mail.db.commit()
    mail.wake()
    assert not database.in_transaction(mail.db)

"""Databases and disks that fail while mail is sent: nothing lost, nothing twice, said once.

The faults are real (see support/database_faults.py); only the moment is chosen: right before, or
right after, a step of the worker touches the database.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, database, leases, liveness, outbox, service, worker
from mailqueue.database import own_transaction
from mailqueue.journal import Journal
from mailqueue.sender import Sender
from support.database_faults import (
    Cluster,
    Other,
    Quarrel,
    SmallDisk,
    connections,
    kill_connection,
    private_postgres,
    small_disk,
    until,
)
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.patience import Pauses
from support.services import fresh_database
from support.smtp_faults import Close, Hang
from support.smtp_server import ScriptedServer
from support.worker_process import Worker

STEPS = (
    "liveness.seen",
    "leases.dead",
    "outbox.recover_orphans",
    "outbox.next_due",
    "leases.register",
    "outbox.claim",
    "outbox.contents",
    "outbox.finish",
    "leases.retire",
    "outbox.purge",
)
WRITES = ("liveness.seen", "leases.register", "outbox.claim", "outbox.finish", "leases.retire")
MODULES = {"liveness": liveness, "leases": leases, "outbox": outbox, "database": database}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["postgres", "mariadb"])
def server_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with fresh_database(request.param, tmp_path) as uri:
        yield uri


def mail_at(folder: Path, smtp: ScriptedServer, clock: Clock, **options: Any) -> QueuedMailer:
    """A mailer whose thread has no connection yet."""
    mail = make_mail(folder, clock=clock, **options)
    if database.engine(mail.db) == database.SQLITE:
        mail.db._adapter.driver_args["timeout"] = 0.05
    to_server(mail, smtp)
    mail.db._adapter.close("commit")
    return mail


def send(mail: QueuedMailer, *names: str) -> None:
    for name in names:
        mail.send(f"{name}@x.test")
    mail.db._adapter.close("commit")


def at(
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
    within: Any = None,
) -> None:
    """Have something happen right before, or right after, the next time that this step is taken.

    Args:
        step: "module.function", or the name of a method of the class `within`.
    """
    module, _, name = step.rpartition(".")
    within = within or MODULES[module]
    real = getattr(within, name)
    left = [before]

    def with_fault(*arguments: Any, **keywords: Any) -> Any:
        first = bool(left)
        if first:
            left.pop()()
        result = real(*arguments, **keywords)
        if first:
            after()
        return result

    monkeypatch.setattr(within, name, with_fault)


def serve(
    mail: QueuedMailer, clock: Clock, plans: dict[int, Callable[[], object]] | None = None
) -> list[float]:
    """Serve until everything was sent, and one sweep more; the waits in seconds."""
    sent: list[float] = []

    def enough() -> bool:
        if set(statuses(mail)) <= {"sent"}:
            sent.append(clock.now)
        return bool(sent) and clock.now - sent[0] > service.SWEEP + 1

    pauses = Pauses(clock, enough)
    pauses.plans.update(plans or {})
    service.serve(mail.site, pauses.stop, watch=pauses)
    return pauses.waits


def said(caplog: pytest.LogCaptureFixture, text: str) -> int:
    return sum(text in record.getMessage() for record in caplog.records if record.name == "mailqueue")


def assert_told_once(caplog: pytest.LogCaptureFixture) -> None:
    assert (said(caplog, "the database fails"), said(caplog, "the fault is over")) == (1, 1), caplog.text
    assert not any(record.exc_info for record in caplog.records), caplog.text


def assert_each_sent_once(mail: QueuedMailer, smtp: ScriptedServer, *names: str) -> None:
    assert sorted(m.rcpt_tos[0] for m in smtp.messages) == sorted(f"{name}@x.test" for name in names)
    assert statuses(mail) == ["sent"] * len(names)
    assert [row["attempts"] for row in rows(mail, "message")] == [1] * len(names)
    assert [row["outcome"] for row in rows(mail, "attempt")] == ["sent"] * len(names)
    assert_nothing_left(mail)


def assert_nothing_left(mail: QueuedMailer) -> None:
    # A worker that may or may not have got its row leaves no journal to tell: two looks are needed.
    for wait in (leases.LEASE + 1, leases.CONFIRM + 1):
        mail.site.clock.advance(wait)
        mail.process_queue()
    assert rows(mail, "worker") == []
    mail.db._adapter.close("commit")
    assert [path.name for path in Path(mail.site.journals).iterdir()] == []
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("mailqueue")] == []


# --- SQLite, locked by somebody else for longer than anybody waits ------------------------
@pytest.mark.parametrize("step", STEPS)
def test_a_locked_sqlite_at_any_step_loses_nothing_and_doubles_nothing(
    step: str,
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = mail_at(tmp_path, smtp, clock)
    send(mail, "ann", "bob")
    other = Other(mail.db)
    at(monkeypatch, step, before=lambda: other.run("BEGIN EXCLUSIVE"))
    serve(mail, clock, {3: lambda: other.run("ROLLBACK")})
    other.close()
    assert_told_once(caplog)
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_a_locked_sqlite_while_dead_workers_claims_are_taken_back(
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = mail_at(tmp_path, smtp, clock)
    send(mail, "ann", "bob")
    die_with_claims(mail)
    other = Other(mail.db)
    at(monkeypatch, "outbox.recover", before=lambda: other.run("BEGIN EXCLUSIVE"))
    serve(mail, clock, {2: lambda: other.run("ROLLBACK")})
    other.close()
    assert_told_once(caplog)
    assert_each_sent_once(mail, smtp, "ann", "bob")


def die_with_claims(mail: QueuedMailer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        at(patch, "outbox.contents", before=_interrupt)
        with pytest.raises(KeyboardInterrupt):
            mail.process_queue()
    mail.db._adapter.close("commit")


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_heartbeats_that_cannot_be_written_are_told_once_and_end_no_message(
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT", 0.01)
    mail = mail_at(tmp_path, smtp, clock)
    send(mail, "ann")
    beats: list[str] = []
    real = leases.beat

    def beat(*arguments: Any) -> bool:
        beats.append("begun")
        alive = real(*arguments)
        beats.append("written")
        return alive

    monkeypatch.setattr(leases, "beat", beat)
    smtp.script["dot"] = Hang()
    other = Other(mail.db)

    def let_them_fail() -> None:
        smtp.wait_for_stage("dot")
        until(lambda: "written" in beats and lock(other))
        seen = len(beats)
        until(lambda: len(beats) >= seen + 4)
        other.run("ROLLBACK")
        until(lambda: beats[-1] == "written")
        smtp.release()

    meanwhile = threading.Thread(target=let_them_fail)
    meanwhile.start()
    serve(mail, clock)
    meanwhile.join()
    other.close()
    assert said(caplog, "a heartbeat could not be written") == 1
    assert said(caplog, "the database fails") == 0
    assert_each_sent_once(mail, smtp, "ann")


def lock(other: Other) -> bool:
    try:
        other.run("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True


# --- connections that die ------------------------------------------------------------------
@pytest.mark.parametrize("pool_size", [0, 3])
@pytest.mark.parametrize("step", STEPS)
def test_a_connection_killed_before_any_step_is_replaced(
    step: str,
    pool_size: int,
    server_uri: str,
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = mail_at(tmp_path, smtp, clock, uri=server_uri)
    mail.db._adapter.pool_size = pool_size
    send(mail, "ann", "bob")
    at(monkeypatch, step, before=lambda: kill_connection(mail.db))
    serve(mail, clock)
    if step == "outbox.finish":
        assert said(caplog, "the database fails") == 0, "that is tried again at once"
    else:
        assert_told_once(caplog)
    assert_each_sent_once(mail, smtp, "ann", "bob")
    until(lambda: connections(mail.db) <= pool_size)


@pytest.mark.parametrize("step", WRITES)
def test_what_was_committed_on_a_connection_that_died_before_it_could_say_so_is_not_done_twice(
    step: str,
    server_uri: str,
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = mail_at(tmp_path, smtp, clock, uri=server_uri)
    send(mail, "ann", "bob")

    def answer_is_lost() -> None:
        kill_connection(mail.db)
        mail.db.executesql("SELECT 1")

    at(monkeypatch, step, after=answer_is_lost)
    waits = serve(mail, clock)
    assert said(caplog, "the database fails") == (0 if step == "outbox.finish" else 1)
    assert len(waits) < 20
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_a_connection_that_died_in_the_pool_does_not_stay_in_the_thread_where_no_other_can_be_had(
    cluster: Cluster, cluster_mail: QueuedMailer
) -> None:
    mail = cluster_mail
    mail.db._adapter.pool_size = 3
    with own_transaction(mail.db):
        mail.db.executesql("SELECT 1")
    cluster.stop()
    with pytest.raises(database.faults(mail.db)), own_transaction(mail.db):
        pass
    assert not database.has_connection(mail.db)
    cluster.start()
    with own_transaction(mail.db):
        assert mail.db.executesql("SELECT 1") == [(1,)]


def test_the_first_error_of_a_dead_connection_is_the_one_that_is_raised(
    server_uri: str, tmp_path: Path, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = mail_at(tmp_path, smtp, clock, uri=server_uri)
    for block in (own_transaction, database.savepoint):
        with pytest.raises(LookupError), own_transaction(mail.db), block(mail.db):
            kill_connection(mail.db)
            raise LookupError
        assert not database.has_connection(mail.db)
        until(lambda: connections(mail.db) == 0)


# --- a server that is gone for a while -----------------------------------------------------
@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with private_postgres() as cluster:
        yield cluster


@pytest.fixture
def cluster_mail(cluster: Cluster, tmp_path: Path, smtp: ScriptedServer, clock: Clock) -> QueuedMailer:
    mail = mail_at(tmp_path, smtp, clock, uri=cluster.uri)
    with own_transaction(mail.db):
        for table in ("attempt", "recipient", "content", "message", "worker", "transport", "problem"):
            mail.db[f"mailqueue_{table}"].truncate()
    return mail


@pytest.mark.parametrize("pool_size", [0, 3])
@pytest.mark.parametrize("step", ["outbox.claim", "outbox.contents", "outbox.finish"])
def test_a_postgresql_that_crashes_amid_a_drain_and_comes_back(
    step: str,
    pool_size: int,
    cluster: Cluster,
    cluster_mail: QueuedMailer,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = cluster_mail
    mail.db._adapter.pool_size = pool_size
    names = [f"user{number}" for number in range(30)]
    send(mail, *names)
    at(monkeypatch, step, before=cluster.stop)
    waits = serve(mail, clock, {3: cluster.start})
    assert waits[:3] == [1, 2, 4]
    assert_told_once(caplog)
    assert_each_sent_once(mail, smtp, *names)


def test_a_postgresql_that_crashes_while_a_server_lets_us_wait_makes_no_doubt(
    cluster: Cluster,
    cluster_mail: QueuedMailer,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.0)
    mail = cluster_mail
    waited: list[str] = []
    at(monkeypatch, "abandon", before=lambda: waited.append("no more"), within=Journal)
    real = Sender.join

    def join(sender: Sender, timeout: float) -> None:
        waited.append("a moment")
        real(sender, timeout)

    monkeypatch.setattr(Sender, "join", join)

    def crash(*_: Any) -> None:
        smtp.script.clear()
        cluster.stop()
        until(lambda: waited.count("a moment") > 2 or "no more" in waited)

    smtp.script["dot"] = lambda session, line: crash() if smtp.reached["dot"] == 2 else None
    send(mail, "ann", "bob")
    serve(mail, clock, {1: cluster.start})
    assert_told_once(caplog)
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_a_message_that_was_never_answered_is_in_doubt_after_a_crash_too(
    cluster: Cluster, cluster_mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail = cluster_mail
    send(mail, "ann")

    def crash(*_: Any) -> Close:
        smtp.script.clear()
        cluster.stop()
        return Close(taken=True)

    smtp.script["dot"] = crash
    serve(mail, clock, {1: cluster.start})
    assert [row["outcome"] for row in rows(mail, "attempt")] == ["in_doubt", "sent"]
    assert len(smtp.messages) == 2
    assert_nothing_left(mail)


def test_a_worker_process_outlives_a_postgresql_that_crashes_and_ends_in_good_order(
    cluster: Cluster, cluster_mail: QueuedMailer, tmp_path: Path, smtp: ScriptedServer
) -> None:
    site = Worker(tmp_path / "site", smtp.port, uri=cluster.uri)
    try:
        process = site.start()
        site.mail.send("ann@x.test")
        until(lambda: statuses(site.mail) == ["sent"])
        site.mail.db._adapter.close("commit")
        cluster.stop()
        assert process.stdout
        while "the database fails" not in (line := process.stdout.readline()):
            assert line, "the worker ended"
        cluster.start()
        site.mail.send("bob@x.test")
        until(lambda: statuses(site.mail) == ["sent", "sent"])
        process.terminate()
        said, _ = process.communicate(timeout=15)
    finally:
        site.end()
    assert process.returncode == 0
    assert ("the database fails" in said, said.count("the fault is over")) == (False, 1)
    assert len(smtp.messages) == 2


# --- transactions that have to give way ----------------------------------------------------
def errors_that_undo(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Collects the errors because of which a transaction is rolled back."""
    lost: list[Exception] = []
    real = database.roll_back

    def roll_back(db: Any) -> None:
        error = sys.exc_info()[1]
        assert isinstance(error, Exception)
        lost.append(error)
        real(db)

    monkeypatch.setattr(database, "roll_back", roll_back)
    return lost


def test_the_loser_of_a_deadlock_tries_again_at_once(
    server_uri: str,
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mail = mail_at(tmp_path, smtp, clock, uri=server_uri)
    send(mail, "ann", "bob")
    lost = errors_that_undo(monkeypatch)
    quarrels: list[Quarrel] = []
    at(monkeypatch, "outbox.finish", before=lambda: quarrels.append(Quarrel(mail.db, earlier=1, later=2)))
    serve(mail, clock)
    quarrels[0].end()
    assert {database.is_conflict(error) for error in lost} == {True}
    assert "deadlock" in str(lost[0]).lower()
    assert said(caplog, "the database fails") == 0
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_a_serialisation_failure_is_tried_again_at_once(
    tmp_path: Path,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with fresh_database("postgres", tmp_path) as uri:
        mail = mail_at(tmp_path, smtp, clock, uri=uri)
        mail.db._adapter._after_connection = lambda adapter: adapter.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        )
        send(mail, "ann", "bob")
        lost = errors_that_undo(monkeypatch)
        other = Other(mail.db)

        def interfere() -> None:
            mail.db.executesql("SELECT 1 FROM mailqueue_message")  # from now on it sees nothing newer
            other.run("UPDATE mailqueue_message SET subject = 'changed' WHERE id = 2")
            other.link.commit()

        at(monkeypatch, "outbox.finish", before=lambda: at(monkeypatch, "database.begin", after=interfere))
        serve(mail, clock)
        other.close()
        assert {database.is_conflict(error) for error in lost} == {True}
        assert said(caplog, "the database fails") == 0
        assert_each_sent_once(mail, smtp, "ann", "bob")
        assert rows(mail, "message")[1]["subject"] == "changed"


# --- disks that are full -------------------------------------------------------------------
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small") as disk:
        yield disk


def test_a_sqlite_whose_disk_is_full_recovers_when_there_is_room(
    disk: SmallDisk, tmp_path: Path, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mail = mail_at(disk.folder, smtp, clock, journals=str(tmp_path / "journals"))
    send(mail, "ann", "bob")
    disk.fill()
    waits = serve(mail, clock, {4: disk.free})
    assert waits[:4] == [1, 2, 4, 8]
    assert "full" in caplog.text or "disk I/O" in caplog.text
    assert_told_once(caplog)
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_a_full_disk_for_journals_is_one_problem_and_costs_no_attempt(
    disk: SmallDisk, tmp_path: Path, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mail = mail_at(tmp_path, smtp, clock, journals=str(disk.folder / "journals"))
    disk.fill()
    send(mail, "ann", "bob")
    seen: list[Any] = []

    def look_and_free() -> None:
        seen.extend([open_causes(mail), rows(mail, "transport")[0]["stage"], rows(mail, "attempt")])
        disk.free()

    serve(mail, clock, {60: look_and_free})
    assert seen == [["journal-not-writable"], "data", []]
    assert said(caplog, "answers are kept") == 0, "there were none"
    assert [row["seen"] > 1 for row in rows(mail, "problem")] == [True], "one entry, counted"
    assert said(caplog, "The disk of the workers' journals is full") == 1
    assert "No space left on device" in rows(mail, "problem")[0]["detail"]
    assert open_causes(mail) == []
    assert said(caplog, "the database fails") == 0
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_a_disk_that_fills_up_right_before_a_dot_has_that_dot_not_sent(
    disk: SmallDisk, tmp_path: Path, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mail = mail_at(tmp_path, smtp, clock, journals=str(disk.folder / "journals"))
    mail.send("ann@x.test", sender="editor@site.test")  # which does not make it the message's fault

    def fill_to_the_last_octet(*_: Any) -> None:
        smtp.script.clear()
        disk.fill()
        (own,) = (disk.folder / "journals").iterdir()
        with own.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\n"):
                pass

    smtp.script["data"] = fill_to_the_last_octet
    assert mail.process_queue()["sent"] == 0
    assert (smtp.messages, rows(mail, "attempt")) == ([], [])
    assert (open_causes(mail), rows(mail, "transport")[0]["stage"]) == (["journal-not-writable"], "data")
    serve(mail, clock, {10: disk.free})
    assert said(caplog, "The disk of the workers' journals is full") == 1
    assert open_causes(mail) == []
    assert_each_sent_once(mail, smtp, "ann")


def test_journals_that_cannot_be_made_at_all_are_the_same_problem(
    tmp_path: Path, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    mail = mail_at(tmp_path, smtp, clock, journals=str(tmp_path / "file" / "journals"))
    send(mail, "ann", "bob")
    assert not any(mail.process_queue().values())
    assert (statuses(mail), open_causes(mail)) == (["queued", "queued"], ["journal-not-writable"])
    serve(mail, clock, {30: (tmp_path / "file").unlink})
    assert len(rows(mail, "problem")) == 1
    assert said(caplog, "The disk of the workers' journals is full") == 1
    assert open_causes(mail) == []
    assert_each_sent_once(mail, smtp, "ann", "bob")


def test_an_answer_that_no_disk_takes_any_more_is_kept_while_the_process_lives(
    disk: SmallDisk,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "PAUSE", 0.01)
    mail = mail_at(disk.folder, smtp, clock)  # database and journals, as most sites have them
    names = [f"user{number}" for number in range(60)]
    mail.send([f"{name}@x.test" for name in names])
    mail.db._adapter.close("commit")
    smtp.script["dot"] = lambda session, line: disk.fill()
    tried: list[bool] = []
    real = worker._Drain._stored

    def stored(drain: Any) -> bool:
        tried.append(real(drain))
        if len(tried) == 3:
            smtp.script.clear()
            disk.free()
        return tried[-1]

    monkeypatch.setattr(worker._Drain, "_stored", stored)
    serve(mail, clock)
    assert tried[:3] == [False, False, False]
    assert tried[-1]
    assert said(caplog, "answers are kept in memory") == 1
    assert_told_once(caplog)
    assert len(smtp.messages) == 1
    assert {row["status"] for row in rows(mail, "recipient")} == {"sent"}
    assert {row["outcome"] for row in rows(mail, "attempt")} == {"sent"}
    assert len(rows(mail, "attempt")) == 60
    assert_nothing_left(mail)


def test_an_answer_that_the_journal_does_not_take_is_written_to_the_database_as_usual(
    disk: SmallDisk, tmp_path: Path, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mail = mail_at(tmp_path, smtp, clock, journals=str(disk.folder / "journals"))
    mail.send([f"user{number}@x.test" for number in range(60)])
    smtp.script["dot"] = lambda session, line: disk.fill()
    assert mail.process_queue()["sent"] == 1
    assert said(caplog, "answers are kept in memory") == 1
    disk.free()
    assert len(smtp.messages) == 1
    assert_nothing_left(mail)


def test_a_stop_ends_the_wait_for_room(
    disk: SmallDisk, smtp: ScriptedServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "PAUSE", 0.01)
    monkeypatch.setattr(worker, "GRACE", 0.1)
    mail = mail_at(disk.folder, smtp, clock)
    mail.send([f"user{number}@x.test" for number in range(60)])
    stop = threading.Event()
    smtp.script["dot"] = lambda session, line: disk.fill()
    at(monkeypatch, "_stored", after=stop.set, within=worker._Drain)
    with pytest.raises(database.faults(mail.db)):
        mail.process_queue(stop=stop)
    disk.free()
    clock.advance(100)
    smtp.script.clear()
    assert mail.process_queue()["queued"] == 0
    assert {row["status"] for row in rows(mail, "recipient")} == {"in_doubt"}, "that answer is really lost"


# --- the scheduler's run -------------------------------------------------------------------
def test_a_run_that_met_a_fault_fails_with_one_line_and_the_next_one_sends(
    tmp_path: Path, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    from mailqueue.py4web.scheduler import SendingTask
    from pydal.tools.scheduler import Scheduler

    mail = mail_at(tmp_path, smtp, clock)
    mail.site.clock = time.time  # as the task's own is
    handler = signal.getsignal(signal.SIGCHLD)  # pydal has it ignored, which spoils every subprocess
    task = SendingTask(mail, Scheduler(mail.db, folder=str(tmp_path / "runs")), 60, "site")
    signal.signal(signal.SIGCHLD, handler)
    send(mail, "ann")
    other = Other(mail.db)
    other.run("BEGIN EXCLUSIVE")
    caplog.set_level(logging.INFO, "mailqueue")
    with pytest.raises(database.faults(mail.db)):
        task.run()
    other.run("ROLLBACK")
    other.close()
    assert said(caplog, "a later run sends it") == 1
    assert not any(record.exc_info for record in caplog.records)
    assert task.run()["sent"] == 1
    task.retire(None)

"""A service: sends as mail comes, waits without a busy loop, survives faults and says so once."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, breaker, database, outbox, service, supply, wakeup
from mailqueue.worker import NEAR
from support.database_faults import until
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.patience import Pauses
from support.services import fresh_database
from support.smtp_faults import Hang, Reply
from support.smtp_server import ScriptedServer
from support.worker_process import COMMAND, MAILER, Worker, read_until


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, clock: Clock, smtp: ScriptedServer) -> QueuedMailer:
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    return mail


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """What mailqueue logged with this in it."""
    said = [record.getMessage() for record in caplog.records if record.name == "mailqueue"]
    return [line for line in said if text in line]


# --- waiting -------------------------------------------------------------------------------
def test_mail_that_comes_later_is_sent_at_the_next_look(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    pauses = Pauses(clock, lambda: len(smtp.messages) == 2)
    mail.send("ann@x.test")
    pauses.plans[30] = lambda: mail.send("bob@x.test")
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert statuses(mail) == ["sent", "sent"]
    assert len(pauses.waits) == 31
    assert max(pauses.waits) <= wakeup.POLL


def test_an_empty_queue_is_looked_at_once_a_second_and_drained_now_and_then(
    mail: QueuedMailer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained: list[float] = []
    real = service.drain

    def drain(*arguments: Any, **keywords: Any) -> Any:
        drained.append(clock.now)
        return real(*arguments, **keywords)

    monkeypatch.setattr(service, "drain", drain)
    pauses = Pauses(clock, lambda: len(pauses.waits) == 60)
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert sum(pauses.waits) == 60
    assert len(drained) == 60 / service.SWEEP


def test_a_deferred_message_is_tried_at_its_time_and_not_at_the_next_second(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["rcpt"] = {"grey@x.test": Reply(451, "4.7.1 later")}
    mail.send("grey@x.test")
    tried: list[float] = []
    pauses = Pauses(clock, lambda: len(smtp.messages) == 1)
    pauses.plans[1] = lambda: (tried.append(rows(mail, "message")[0]["due"]), smtp.script.clear())
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert rows(mail, "message")[0]["finished_on"] == pytest.approx(tried[0], abs=0.01)


def test_a_server_that_is_away_is_probed_when_a_probe_is_due_and_not_in_a_busy_loop(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.send("ann@x.test")
    smtp.script["banner"] = Reply(554, "5.3.2 go away")
    pauses = Pauses(clock, lambda: len(smtp.messages) == 1)
    pauses.plans[20] = smtp.script.clear
    service.serve(mail.site, pauses.stop, watch=pauses)
    waited = sum(pauses.waits[:20])
    assert min(pauses.waits) >= wakeup.POLL
    assert waited > 100, "the waits grow while nothing can be done"
    assert smtp.connections < 8
    assert statuses(mail) == ["sent"]


def test_a_transport_that_is_not_configured_any_more_makes_no_busy_loop(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    with database.own_transaction(mail.db):
        breaker.state(mail.db, "smtp://old.test:25")
        breaker.pause(mail.db, "smtp://old.test:25", (), stage="connect", reason="", now=clock.now - 900)
    mail.send("ann@x.test")
    pauses = Pauses(clock, lambda: len(pauses.waits) == 20)
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert statuses(mail) == ["sent"]
    assert sum(pauses.waits) == pytest.approx(20)


def test_a_mailer_that_cannot_be_used_is_one_problem_and_its_repair_is_noticed(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mail.settings.server = None
    mail.send("ann@x.test")
    pauses = Pauses(clock, lambda: len(smtp.messages) == 1)
    pauses.plans[10] = lambda: to_server(mail, smtp)
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert len(lines(caplog, "No mail server is configured")) == 1
    assert max(pauses.waits) <= service.SWEEP
    assert open_causes(mail) == []


def test_a_stop_gives_back_what_was_not_begun(mail: QueuedMailer, smtp: ScriptedServer, clock: Clock) -> None:
    pauses = Pauses(clock, lambda: False)
    smtp.script["dot"] = lambda session, line: pauses.stop.set()
    for number in range(20):
        mail.send(f"user{number}@x.test")
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert 1 <= len(smtp.messages) <= NEAR * supply.FOR_EACH
    assert sorted(statuses(mail)) == ["queued"] * (20 - len(smtp.messages)) + ["sent"] * len(smtp.messages)
    assert rows(mail, "worker") == []


# --- saying what was done ------------------------------------------------------------------
def test_what_was_done_is_one_line_a_minute(
    mail: QueuedMailer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mailqueue")
    pauses = Pauses(clock, lambda: len(pauses.waits) == 130)
    mail.send("ann@x.test")
    mail.send("bob@x.test")
    pauses.plans[70] = lambda: mail.send("eve@x.test")
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert [record.getMessage() for record in caplog.records] == ["2 sent", "1 sent"]


# --- faults --------------------------------------------------------------------------------
def test_a_fault_is_told_once_its_end_once_and_the_waits_grow_to_half_a_minute(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    mail.db._adapter.driver_args["timeout"] = 0.01
    mail.send("ann@x.test")
    mail.db._adapter.close("rollback")
    other = sqlite3.connect(mail.db._adapter.dbpath, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses = Pauses(clock, lambda: len(smtp.messages) == 1)
    pauses.plans[8] = other.close
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert pauses.waits[:8] == [1, 2, 4, 8, 16, 30, 30, 30]
    begun, over = lines(caplog, "the database fails"), lines(caplog, "the fault is over")
    assert len(begun) == len(over) == 1
    assert "database is locked" in begun[0]
    assert "nothing is lost" in begun[0]
    assert "121 s and 8 tries" in over[0]
    assert len(caplog.records) == 2
    assert statuses(mail) == ["sent"]


def test_whatever_else_a_drain_raises_the_service_goes_on_and_shows_it_once(
    mail: QueuedMailer,
    smtp: ScriptedServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise LookupError("a mistake of ours")

    mail.send("ann@x.test")
    real = outbox.purge
    monkeypatch.setattr(outbox, "purge", broken)
    pauses = Pauses(clock, lambda: len(pauses.waits) == 10)
    pauses.plans[3] = lambda: monkeypatch.setattr(outbox, "purge", real)
    service.serve(mail.site, pauses.stop, watch=pauses)
    shown = [record for record in caplog.records if record.exc_info]
    assert len(shown) == 1
    assert "a mistake of ours" in caplog.text
    assert len(lines(caplog, "the fault is over")) == 1
    assert statuses(mail) == ["sent"]


def test_a_service_leaves_no_thread_and_no_connection(mail: QueuedMailer, clock: Clock) -> None:
    mail.send("ann@x.test")
    mail.db._adapter.close("commit")
    before = set(threading.enumerate())
    pauses = Pauses(clock, lambda: len(pauses.waits) == 3)
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert not database.has_connection(mail.db)
    assert {thread for thread in threading.enumerate() if "mailqueue" in thread.name} <= before


# --- the command ---------------------------------------------------------------------------
@pytest.fixture
def worker(tmp_path: Path, smtp: ScriptedServer) -> Iterator[Worker]:
    worker = Worker(tmp_path, smtp.port)
    yield worker
    worker.end()


def test_the_command_sends_and_ends_in_good_order(worker: Worker, smtp: ScriptedServer) -> None:
    worker.mail.send("ann@x.test")
    process = worker.start()
    smtp.wait_for(1, 30)
    worker.mail.send("bob@x.test")
    smtp.wait_for(2)
    until(lambda: statuses(worker.mail) == ["sent", "sent"])
    process.terminate()
    said, _ = process.communicate(timeout=15)
    assert process.returncode == 0
    assert "INFO 2 sent" in said
    assert "Traceback" not in said
    assert rows(worker.mail, "worker") == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_amid_a_message_finishes_it_and_begins_no_other(
    worker: Worker, smtp: ScriptedServer, number: signal.Signals
) -> None:
    smtp.script["dot"] = Hang()
    worker.mail.send("ann@x.test")
    process = worker.start()
    smtp.wait_for_stage("dot", 1, 30)
    process.send_signal(number)
    read_until(process, "no further message is begun")
    worker.mail.send("bob@x.test")
    smtp.script.clear()
    smtp.release()
    process.communicate(timeout=15)
    assert process.returncode == 0
    assert statuses(worker.mail) == ["sent", "queued"]
    assert [message.rcpt_tos for message in smtp.messages] == [("ann@x.test",)]
    assert rows(worker.mail, "worker") == []


def test_a_server_that_lets_us_wait_does_not_hold_up_the_end(worker: Worker, smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = Hang()
    worker.mail.send("ann@x.test")
    process = worker.start()
    smtp.wait_for_stage("rcpt", 1, 30)
    process.terminate()
    process.communicate(timeout=12)
    assert process.returncode == 0
    smtp.script.clear()
    smtp.release()
    assert worker.mail.settings.server is None
    to_server(worker.mail, smtp)
    assert worker.mail.process_queue()["sent"] == 1
    assert [row["attempts"] for row in rows(worker.mail, "message")] == [1]


def test_a_server_that_does_not_even_greet_does_not_hold_up_the_end(
    worker: Worker, smtp: ScriptedServer
) -> None:
    smtp.script["banner"] = Hang()
    worker.mail.send("ann@x.test")
    process = worker.start()
    smtp.wait_for_stage("banner", 1, 30)
    process.terminate()
    process.communicate(timeout=12)
    assert process.returncode == 0
    smtp.release()
    assert statuses(worker.mail) == ["queued"] and rows(worker.mail, "worker") == []
    assert rows(worker.mail, "transport")[0]["paused_on"] is None, "nobody knows what it would have said"


def test_a_second_signal_ends_it_at_once(worker: Worker, smtp: ScriptedServer) -> None:
    smtp.script["dot"] = Hang()
    worker.mail.send("ann@x.test")
    process = worker.start()
    smtp.wait_for_stage("dot", 1, 30)
    process.terminate()
    read_until(process, "no further message is begun")
    process.terminate()
    process.communicate(timeout=3)
    assert process.returncode == -signal.SIGTERM


def test_a_signal_to_all_processes_of_a_unit_is_one_signal(worker: Worker, smtp: ScriptedServer) -> None:
    smtp.script["dot"] = Hang()
    worker.mail.send("ann@x.test")
    process = worker.start()
    smtp.wait_for_stage("dot", 1, 30)
    (child,) = children(process)
    os.kill(child, signal.SIGTERM)
    process.terminate()
    read_until(process, "no further message is begun")
    smtp.release()
    process.communicate(timeout=15)
    assert process.returncode == 0
    assert statuses(worker.mail) == ["sent"]


def test_two_processes_share_a_queue_and_the_death_of_one_costs_nothing(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    with fresh_database("postgres", tmp_path) as uri:
        worker = Worker(tmp_path, smtp.port, uri=uri)
        try:
            process = worker.start("--processes", "2")
            for _ in range(2):
                read_until(process, "sending the mail of site")
            for number in range(20):
                if number == 10:
                    until(lambda: statuses(worker.mail) == ["sent"] * 10)
                    os.kill(children(process)[0], signal.SIGKILL)
                worker.mail.send(f"user{number}@x.test")
                worker.mail.db.commit()
            until(lambda: statuses(worker.mail) == ["sent"] * 20)
            read_until(process, "sending the mail of site")
            process.terminate()
            process.communicate(timeout=15)
            assert process.returncode == 0
        finally:
            worker.end()
    got = [message.rcpt_tos[0] for message in smtp.messages]
    assert sorted(got) == sorted(f"user{number}@x.test" for number in range(20))


def children(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes under a supervisor."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_a_reload_takes_the_settings_of_today(worker: Worker, smtp: ScriptedServer) -> None:
    process = worker.start()
    read_until(process, "sending the mail of site")
    with ScriptedServer() as another:
        app = worker.apps / "site" / "__init__.py"
        app.write_text(app.read_text("utf-8").replace(str(smtp.port), str(another.port)), "utf-8")
        process.send_signal(signal.SIGHUP)
        read_until(process, "sending the mail of site")
        worker.mail.send("ann@x.test")
        another.wait_for(1)
    assert smtp.messages == []


def test_an_app_whose_threads_never_end_is_left_all_the_same(tmp_path: Path, smtp: ScriptedServer) -> None:
    worker = Worker(tmp_path, smtp.port, MAILER + "\nthreading.Thread(target=threading.Event().wait).start()")
    try:
        worker.mail.send("ann@x.test")
        process = worker.start()
        smtp.wait_for(1, 30)
        process.terminate()
        process.communicate(timeout=15)
        assert process.returncode == 0
    finally:
        worker.end()


def test_an_app_with_several_mailers_has_each_of_them_served(tmp_path: Path, smtp: ScriptedServer) -> None:
    with ScriptedServer() as another:
        second = f"""
other = QueuedMailer(DAL("sqlite://other.db", folder={str(tmp_path / "databases")!r}),
                     "127.0.0.1:{another.port}", "a@site.test", tls=False)
other.send("eve@x.test")
"""
        worker = Worker(tmp_path, smtp.port, MAILER + second)
        try:
            worker.mail.send("ann@x.test")
            worker.start()
            smtp.wait_for(1, 30)
            another.wait_for(1, 30)
        finally:
            worker.end()


@pytest.mark.parametrize(
    ("name", "mailers", "reason"),
    [
        ("nowhere", MAILER, "no app 'nowhere'"),
        ("../apps/site", MAILER, "no app '../apps/site'"),
        ("site", "", "makes no QueuedMailer"),
        ("site", "raise LookupError('spoilt')", "cannot be loaded"),
    ],
)
def test_an_app_that_cannot_be_served_is_an_error_in_plain_words(
    tmp_path: Path, name: str, mailers: str, reason: str
) -> None:
    worker = Worker(tmp_path, 1, mailers)
    done = subprocess.run([*COMMAND, str(worker.apps), name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert reason in done.stderr

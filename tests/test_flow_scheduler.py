"""Mail leaves by pydal's Scheduler in a served site, whatever becomes of the scheduler and its runs."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.mail import SENDER
from support.scaffold import ServedSite, Site, make_site
from support.services import fresh_database
from support.smtp_faults import Hang, nth
from support.smtp_server import ScriptedServer

COMMON = """
import gc
import os
import threading
from py4web import Field
from py4web.core import Reloader

mail.settings.tls, mail.settings.login = False, None
mail.enable_scheduler(scheduler, period=2)
db.define_table("thing", Field("name"))
db.commit()

def own():
    db.thing.insert(name="own task")
    db.commit()

scheduler.register_task("own", own)

@action("send/<name>")
@action.uses(db)
def _(name):
    mail.send(f"{name}@visitor.test", name)
    return "queued"

@action("own")
@action.uses(db)
def _():
    scheduler.enqueue_run("own")
    return "enqueued"

@action("load")
def _():
    Reloader.import_app("site")
    return "loaded"

@action("threads")
def _():
    gc.collect()
    names = [t.name + str(getattr(t, "_target", "")) for t in threading.enumerate()]
    loops = sum("Scheduler.loop" in name for name in names)
    return dict(loops=loops, watches=sum("mailqueue watch" in name for name in names),
                descriptors=len(os.listdir("/proc/self/fd")))
"""
PROMPT = 10.0  # seconds: a generous bound for a busy machine; two are usual


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def scheduled_site(folder: Path, smtp: ScriptedServer, **settings: Any) -> Site:
    usual = {"SMTP_SERVER": f"127.0.0.1:{smtp.port}", "SMTP_SENDER": SENDER, "USE_SCHEDULER": True}
    return make_site(folder, settings={**usual, **settings}, extra_common=COMMON)


@pytest.fixture
def site(tmp_path: Path, smtp: ScriptedServer) -> Site:
    return scheduled_site(tmp_path, smtp)


@pytest.fixture
def served(site: Site, stack: ExitStack) -> ServedSite:
    return stack.enter_context(site.serve())


def send(served: ServedSite, name: str) -> None:
    assert served.browser().get(f"send/{name}").status_code == 200, served.log[-3000:]


def eventually(check: Callable[[], Any], served: ServedSite, patience: float = 60) -> Any:
    """Wait for another process: the site's scheduler works on its own time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(__import__("sqlite3").OperationalError):
            if found := check():
                return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s\n{served.log[-3000:]}")


def running(site: Site) -> list[dict[str, Any]]:
    return site.rows("SELECT id, pid FROM task_run WHERE name = 'mailqueue_send' AND status = 'running'")


def change(site: Site, *statements: str) -> None:
    with contextlib.closing(site.database()) as link, link:
        for statement in statements:
            link.execute(statement)


def names(smtp: ScriptedServer) -> list[str]:
    return sorted(message.rcpt_tos[0].partition("@")[0] for message in smtp.messages)


# --- promptness ----------------------------------------------------------------------------
def test_mail_leaves_promptly_from_the_first_second_on(served: ServedSite, smtp: ScriptedServer) -> None:
    for number in range(1, 6):
        send(served, f"ann{number}")
        smtp.wait_for(number, timeout=PROMPT)
    assert "Traceback" not in served.log


def test_mail_leaves_promptly_while_another_run_is_busy(
    tmp_path: Path, smtp: ScriptedServer, stack: ExitStack
) -> None:
    site = scheduled_site(tmp_path, smtp, SCHEDULER_MAX_CONCURRENT_RUNS=2)
    served = stack.enter_context(site.serve())
    smtp.script["mail"] = nth(Hang(), 1)
    send(served, "slow")
    smtp.wait_for_stage("mail")
    send(served, "quick")
    smtp.wait_for(1, timeout=PROMPT)
    assert names(smtp) == ["quick"]
    smtp.release()
    smtp.wait_for(2, timeout=PROMPT)


def test_mail_that_comes_while_the_only_run_waits_leaves_when_it_ends(
    served: ServedSite, smtp: ScriptedServer
) -> None:
    smtp.script["mail"] = nth(Hang(), 1)
    send(served, "slow")
    smtp.wait_for_stage("mail")
    send(served, "next")
    smtp.release()
    smtp.wait_for(2, timeout=PROMPT)
    assert names(smtp) == ["next", "slow"]


def test_the_hosts_own_task_has_its_turn(served: ServedSite, site: Site, smtp: ScriptedServer) -> None:
    for number in range(5):
        send(served, f"ann{number}")
    assert served.browser().get("own").status_code == 200
    for number in range(5):
        send(served, f"bob{number}")
    eventually(lambda: site.rows("SELECT * FROM thing"), served)
    smtp.wait_for(10)
    assert max(Counter(names(smtp)).values()) == 1


# --- runs that go wrong --------------------------------------------------------------------
def _killed(site: Site, smtp: ScriptedServer, served: ServedSite) -> str:
    os.kill(running(site)[0]["pid"], signal.SIGKILL)
    return "dead"


def _timed_out(site: Site, smtp: ScriptedServer, served: ServedSite) -> str:
    change(site, "UPDATE task_run SET timeout = 1 WHERE status = 'running'")
    return "timeout"


@pytest.mark.parametrize("accident", [_killed, _timed_out])
def test_a_run_that_is_killed_is_followed_by_a_good_one(
    site: Site, served: ServedSite, smtp: ScriptedServer, accident: Callable[..., str]
) -> None:
    smtp.script["mail"] = nth(Hang(), 1)
    send(served, "ann")
    smtp.wait_for_stage("mail")
    eventually(lambda: running(site), served)
    status = accident(site, smtp, served)
    eventually(lambda: site.rows("SELECT 1 FROM task_run WHERE status = ?", status), served)
    eventually(lambda: "ann" in names(smtp), served)
    periodic = "SELECT id FROM task_run WHERE period = 2 AND status IN ('queued', 'assigned', 'running')"
    eventually(lambda: site.rows(periodic), served)
    assert names(smtp).count("ann") == 1


def test_a_run_that_fails_is_followed_by_a_good_one(
    site: Site, served: ServedSite, smtp: ScriptedServer
) -> None:
    change(site, "ALTER TABLE mailqueue_transport RENAME TO away")
    send(served, "ann")
    eventually(lambda: site.rows("SELECT 1 FROM task_run WHERE status = 'failed'"), served)
    change(site, "ALTER TABLE away RENAME TO mailqueue_transport")
    smtp.wait_for(1, timeout=10)


def test_an_overdue_run_that_the_scheduler_does_not_know_yet_is_no_end(
    site: Site, smtp: ScriptedServer
) -> None:
    with site.serve():
        pass
    unknown = "INSERT INTO task_run (name, inputs, period, priority, status, scheduled_for)"
    change(
        site,
        "DELETE FROM task_run",
        f"{unknown} VALUES ('mailqueue_send', '{{}}', 2, 0, 'unknown', '2020-01-01 00:00:00')",
        f"{unknown} VALUES ('mailqueue_send', '{{}}', 2, 0, 'assigned', '2020-01-01 00:00:00')",
    )
    with site.serve() as served:
        send(served, "ann")
        smtp.wait_for(1, timeout=PROMPT)
        done = "SELECT id FROM task_run WHERE period = 2 AND status = 'completed'"
        eventually(lambda: site.rows(done), served)


def test_the_scheduler_survives_an_error_of_the_database(
    site: Site, served: ServedSite, smtp: ScriptedServer
) -> None:
    send(served, "before")
    smtp.wait_for(1, timeout=PROMPT)
    change(site, "ALTER TABLE task_run RENAME TO away")
    eventually(lambda: served.browser().get("threads").json()["loops"] == 0, served)
    send(served, "meanwhile")  # no visitor sees it
    change(site, "ALTER TABLE away RENAME TO task_run")
    smtp.wait_for(2, timeout=20)
    send(served, "after")
    smtp.wait_for(3, timeout=PROMPT)


# --- reloads, restarts, several servers ----------------------------------------------------
def test_a_reload_leaves_one_watch_and_no_descriptors(served: ServedSite, smtp: ScriptedServer) -> None:
    browser = served.browser()
    for _load in range(3):
        assert browser.get("load").status_code == 200, served.log
    send(served, "ann")
    smtp.wait_for(1, timeout=PROMPT)

    def state() -> Any:
        return browser.get("threads").json()

    eventually(lambda: state()["watches"] == 1, served)
    before = state()["descriptors"]
    for _load in range(3):
        browser.get("load")
    eventually(lambda: state()["watches"] == 1, served)
    # Each load of py4web's own leaves a connection in the thread that loads, and a scheduler's loop
    # keeps one until it has slept its ten seconds.
    assert state()["descriptors"] <= before + 12
    send(served, "bob")
    smtp.wait_for(2, timeout=PROMPT)
    assert names(smtp) == ["ann", "bob"]


def test_the_server_restarts_on_its_port_while_a_run_hangs(
    site: Site, served: ServedSite, smtp: ScriptedServer
) -> None:
    smtp.script["mail"] = nth(Hang(), 1)
    send(served, "ann")
    smtp.wait_for_stage("mail")
    (run,) = eventually(lambda: len(running(site)) == 1 and running(site), served)
    server = served._process.pid
    os.kill(server, signal.SIGKILL)
    served._process.wait()
    try:
        served.start()
        os.kill(run["pid"], 0)
        eventually(lambda: not os.path.exists(f"/proc/{run['pid']}"), served)
        send(served, "bob")
        smtp.wait_for(1, timeout=60)
    finally:
        smtp.release()
        smtp.wait_for(2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server, signal.SIGKILL)
    assert names(smtp) == ["ann", "bob"]


def flood(servers: list[ServedSite], each: int) -> list[str]:
    """Visitors of every server send at the same time; the names they used."""

    def visitor(served: ServedSite, number: int) -> None:
        for count in range(each):
            send(served, f"v{number}m{count}")

    threads = [
        threading.Thread(target=visitor, args=(servers[number % len(servers)], number)) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(f"v{number}m{count}" for number in range(4) for count in range(each))


def test_two_servers_on_one_database_send_each_mail_once(
    site: Site, smtp: ScriptedServer, stack: ExitStack
) -> None:
    servers = [stack.enter_context(site.serve()) for _server in range(2)]
    sent = flood(servers, each=5)
    smtp.wait_for(len(sent))
    eventually(lambda: not site.rows("SELECT 1 FROM mailqueue_message WHERE status <> 'sent'"), servers[0])
    assert names(smtp) == sent


def test_forked_runs_leave_pooled_connections_to_postgresql_alone(
    tmp_path: Path, smtp: ScriptedServer, stack: ExitStack
) -> None:
    uri = stack.enter_context(fresh_database("postgres", tmp_path))
    site = scheduled_site(tmp_path, smtp, DB_URI=uri, DB_POOL_SIZE=2, SCHEDULER_MAX_CONCURRENT_RUNS=2)
    served = stack.enter_context(site.serve())
    sent = flood([served], each=10)
    smtp.wait_for(len(sent))
    send(served, "last")
    smtp.wait_for(len(sent) + 1, timeout=PROMPT)
    assert names(smtp) == sorted([*sent, "last"])
    assert "Traceback" not in served.log

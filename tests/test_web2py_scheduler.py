"""Sending in web2py: by its own Scheduler, by cron, and by a worker of its own; each a real process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.smtp_server import ScriptedServer
from support.web2py_site import Web2pySite, register

SENDER = "Site <noreply@site.test>"
UUID = "mailqueue-app"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    site = Web2pySite(tmp_path_factory.mktemp("web2py"))
    site.configure(scheduler=True)
    with site.served():
        yield site


def task(site: Web2pySite) -> dict[str, object]:
    (row,) = site.rows("SELECT * FROM scheduler_task")
    return row


def test_a_registration_with_verification_leaves_by_a_scheduler_worker(
    site: Web2pySite, smtp: ScriptedServer
) -> None:
    options = {"server": f"127.0.0.1:{smtp.port}", "sender": SENDER, "tls": False}
    site.configure(mail=options)
    register(site.browser(), "ann@example.test")
    with site.process("scheduler"):
        smtp.wait_for(1, timeout=60)
        register(site.browser(), "bob@example.test")
        smtp.wait_for(2, timeout=60)
        received = [one.rcpt_tos for one in smtp.messages]
        smtp.wait_for_stage("quit", 2)
    assert received == [("ann@example.test",), ("bob@example.test",)]
    assert task(site)["times_failed"] == 0


def test_each_model_run_leaves_one_task_as_it_should_be(site: Web2pySite) -> None:
    for _ in range(3):
        site.browser().get("default/index")
    row = task(site)
    wanted = {"uuid": UUID, "function_name": "mailqueue_send", "repeats": 0, "retry_failed": -1, "period": 1}
    assert {name: row[name] for name in wanted} == wanted


@pytest.mark.parametrize("status", ["FAILED", "COMPLETED", "TIMEOUT", "STOPPED", "EXPIRED"])
def test_a_task_that_came_to_an_end_is_brought_back(site: Web2pySite, status: str) -> None:
    site.script(f"db(db.scheduler_task.id > 0).update(status={status!r}); db.commit()")
    site.script("pass")  # a process that has not looked yet
    assert task(site)["status"] == "QUEUED"


def test_a_task_that_was_deleted_is_there_again(site: Web2pySite) -> None:
    site.script("db(db.scheduler_task.id > 0).delete(); db.commit()")
    site.script("pass")
    assert task(site)["uuid"] == UUID


def test_a_disabled_task_stays_disabled(site: Web2pySite) -> None:
    site.script("db(db.scheduler_task.id > 0).update(enabled=False); db.commit()")
    site.script("pass")
    assert task(site)["enabled"] == "F"
    site.script("db(db.scheduler_task.id > 0).update(enabled=True); db.commit()")


def test_a_run_with_nothing_to_do_leaves_no_record(site: Web2pySite) -> None:
    site.script("assert mailqueue_send() is None")


def test_a_scheduler_with_a_dictionary_of_tasks_gets_ours_too(site: Web2pySite) -> None:
    program = """
own = scheduler.tasks = {"other": lambda: None}
task = mail.enable_scheduler(scheduler)
assert own["mailqueue_send"] == task, own
"""
    site.script(program)


# --- without the scheduler -------------------------------------------------------------------


def test_cron_sends_what_is_due(site: Web2pySite, smtp: ScriptedServer) -> None:
    site.configure(mail={"server": f"127.0.0.1:{smtp.port}", "sender": SENDER, "tls": False})
    register(site.browser(), "cron@example.test")
    site.run("run_file", "applications/app/private/plugin_mailqueue/send.py")
    assert [one.rcpt_tos for one in smtp.messages] == [("cron@example.test",)]


@pytest.mark.parametrize(
    ("sender", "code", "said"),
    [
        (SENDER, 0, "ok      The mail server can be reached"),
        ("you@example.com", 1, "PROBLEM The sender address is still the example"),
    ],
)
def test_the_check_says_what_is_wrong_and_that_is_its_exit_code(
    site: Web2pySite, smtp: ScriptedServer, sender: str, code: int, said: str
) -> None:
    script = "applications/app/private/plugin_mailqueue/check.py"
    site.configure(mail={"server": f"127.0.0.1:{smtp.port}", "sender": sender, "tls": False})
    before = len(site.log)
    with site.process("run_file", script) as checking:
        assert checking.wait(60) == code, site.log
    assert said in site.log[before:]
    assert "Traceback" not in site.log[before:]
    assert smtp.messages == []


def test_a_worker_sends_mail_as_it_comes_and_ends_when_it_is_told(
    site: Web2pySite, smtp: ScriptedServer
) -> None:
    site.configure(mail={"server": f"127.0.0.1:{smtp.port}", "sender": SENDER, "tls": False})
    with site.process("run_file", "applications/app/private/plugin_mailqueue/worker.py") as worker:
        register(site.browser(), "one@example.test")
        smtp.wait_for(1, timeout=30)
        register(site.browser(), "two@example.test")
        smtp.wait_for(2, timeout=30)
        worker.terminate()
        assert worker.wait(20) == 0, site.log
    assert site.rows("SELECT * FROM mailqueue_worker") == []

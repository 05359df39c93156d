"""Problems as tickets of py4web's dashboard."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from mailqueue.problems import Problem
from mailqueue.py4web import tickets
from py4web.core import action, error_logger
from support.mail import SENDER
from support.scaffold import Site, make_site
from support.smtp_faults import Reply
from support.smtp_server import ScriptedServer

PROBLEM = Problem("no-server", "No mail server is set.", "Set SMTP_SERVER.", "server is not set", "")
PASSWORD = "the-password-of-the-site"
COMMON = """
mail.settings.tls = False
mail.enable_scheduler(scheduler, period=1)

@action("now")
@action.uses(db)
def _():
    mail.send_direct_email("ann@visitor.test", "subject-of-a-mail", "SECRET-LINK")
    return "done"

@action("now_alone")
def _():
    mail.send_direct_email("ann@visitor.test", "subject-of-a-mail", "SECRET-LINK")
    return "done"

@action("later")
@action.uses(db)
def _():
    mail.send("ann@visitor.test", "subject-of-a-mail", "SECRET-LINK")
    return "done"
"""


class Recorder:
    """An error logger of an app's own, as py4web allows."""

    def __init__(self) -> None:
        self.tickets: list[tuple[str, dict[str, Any]]] = []

    def log(self, app_name: str, snapshot: dict[str, Any]) -> str:
        self.tickets.append((app_name, snapshot))
        return "the-ticket"


def test_a_ticket_is_the_entry_in_plain_words_under_its_app(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    monkeypatch.setitem(error_logger.plugins, "shop", recorder)
    tickets.issue("shop", PROBLEM)
    ((app, snapshot),) = recorder.tickets
    assert app == "shop"
    assert snapshot["exception_type"] == "MailProblem"
    assert snapshot["exception_value"] == str(PROBLEM)
    assert "Set SMTP_SERVER." in snapshot["exception_value"]


def test_the_app_is_the_one_that_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(action, "app_name", "shop")
    assert tickets.loading_app() == "shop"


def found_tickets(site: Site, enough: int = 1, patience: float = 15) -> list[dict[str, Any]]:
    """The rows of the dashboard's table, as soon as there are so many; written by another process."""
    deadline = time.monotonic() + patience
    found: list[dict[str, Any]] = []
    while len(found) < enough and time.monotonic() < deadline:
        time.sleep(0.05)
        file = site.folder.parent / ".service" / "service.storage"
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as link:
            link.row_factory = sqlite3.Row
            found = [dict(row) for row in link.execute("SELECT * FROM py4web_error ORDER BY id")]
    return found


@pytest.mark.parametrize("path", ["now", "now_alone", "later"])
def test_a_new_problem_is_one_ticket_and_tells_no_secret(
    tmp_path: Path, smtp: ScriptedServer, path: str
) -> None:
    smtp.script["mail"] = Reply(530, "5.7.0 authentication required")
    settings = {
        "SMTP_SERVER": f"127.0.0.1:{smtp.port}",
        "SMTP_SENDER": SENDER,
        "SMTP_LOGIN": None,
        "USE_SCHEDULER": True,
        "SECRET_OF_ANOTHER_KIND": PASSWORD,
    }
    site = make_site(tmp_path, settings=settings, extra_common=COMMON)
    with site.serve() as served:
        for _visit in range(3):
            assert served.browser().get(path).status_code == 200
        (ticket,) = found_tickets(site)
        assert ticket["app_name"] == "site"
        assert "authentication" in ticket["error"].lower()
        if path != "later":  # the queue does not try again so soon
            smtp.wait_for_stage("mail", 3)
        assert len(found_tickets(site)) == 1
        assert all(word not in str(ticket) for word in (PASSWORD, "SECRET-LINK", "subject-of-a-mail"))
        assert served.log.count(ticket["error"]) >= 1

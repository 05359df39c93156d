"""Whose transaction it is: a mail and what belongs to it commit together or not at all."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pydal
import pytest
from mailqueue import QueuedMailer
from mailqueue.py4web.request import RequestTransaction
from py4web.core import DAL
from support.mail import SENDER, make_mail
from support.scaffold import ServedSite, Site, make_site
from support.services import fresh_database

ACTIONS = """
import threading

import py4web.core
from py4web import HTTP, Field, URL, abort, redirect
from yatl import DIV

py4web.core.DEBUG = settings.APP_DEBUG  # read wherever fixtures are put together
db.define_table("thing", Field("name"))
db.commit()

def work():
    db.thing.insert(name="row")
    mail.send("ann@visitor.test", "Hi")

def mount(name, end, *fixtures, work=work):
    @action(name)
    @action.uses(*fixtures)
    def _():
        work()
        return end()

def in_thread():
    db.thing.insert(name="row")
    db.commit()
    thread = threading.Thread(target=mail.send, args=("ann@visitor.test",))
    thread.start()
    thread.join()

def alone():
    mail.send("ann@visitor.test", "Hi")

def directly():
    db.thing.insert(name="row")
    assert mail.send_direct_email("ann@visitor.test") is False

def registers():
    auth.register(dict(username="ann", email="ann@x.test\\u2028", password="Correct-Horse-1", first_name="A",
                       last_name="B"), validate=False)

def http(status):
    raise HTTP(status)

mount("commit", lambda: "done", db)
mount("redirect", lambda: redirect(URL("commit_not")), db)
mount("http", lambda: http(404), db)
mount("exception", lambda: 1 / 0, db)
mount("abort", lambda: abort(400), db)
mount("template", lambda: dict(), db, "broken.html")
mount("template_first", lambda: dict(), "broken.html", db)
mount("session", lambda: "done", session, auth, T, flash)
mount("alone", lambda: "done", session, work=alone)
mount("alone_exception", lambda: 1 / 0, session, work=alone)
mount("mail_only_exception", lambda: 1 / 0, db, work=alone)
mount("thread_exception", lambda: 1 / 0, db, work=in_thread)
mount("direct", lambda: "done", db, work=directly)
mount("direct_exception", lambda: 1 / 0, db, work=directly)
mount("registers", lambda: "done", session, db, work=registers)
"""
TABLES = ("thing", "mailqueue_message", "mailqueue_problem", "auth_user")


class Served:
    """A served site, and how many rows a request added to its tables."""

    def __init__(self, site: Site, served: ServedSite) -> None:
        self.site, self.served = site, served
        self.browser = served.browser()

    def count(self) -> list[int]:
        db = self.site.dal()
        found = [int(db.executesql(f"SELECT COUNT(*) FROM {table}")[0][0]) for table in TABLES]
        db.close()
        return found

    def added_by(self, path: str, status: int) -> dict[str, int]:
        before = self.count()
        answer = self.browser.get(path, allow_redirects=False)
        assert answer.status_code == status, self.served.log[-3000:]
        changes = zip(TABLES, before, self.count(), strict=True)
        return {table.removeprefix("mailqueue_"): now - was for table, was, now in changes if now != was}


@pytest.fixture(scope="module", params=["sqlite", "sqlite-debug", "postgres"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("request")
    settings: dict[str, Any] = {"SMTP_SENDER": SENDER, "APP_DEBUG": request.param.endswith("debug")}
    with ExitStack() as stack:
        if request.param == "postgres":
            settings["DB_URI"] = stack.enter_context(fresh_database("postgres", folder))
        site = make_site(folder, settings=settings, extra_common=ACTIONS)
        (site.folder / "templates" / "broken.html").write_text("[[=no_such_name]]")
        yield Served(site, stack.enter_context(site.serve()))


BOTH = {"thing": 1, "message": 1}


@pytest.mark.parametrize(
    ("path", "status", "added"),
    [
        ("commit", 200, BOTH),
        ("redirect", 303, BOTH),
        ("http", 404, BOTH),
        ("session", 200, BOTH),
        ("exception", 500, {}),
        ("abort", 400, {}),
        ("mail_only_exception", 500, {}),
        ("template", 500, {}),
        ("template_first", 500, BOTH),
    ],
)
def test_a_mail_commits_and_rolls_back_with_the_row_beside_it(
    served: Served, path: str, status: int, added: dict[str, int]
) -> None:
    assert served.added_by(path, status) == added


@pytest.mark.parametrize(
    ("path", "status"), [("alone", 200), ("alone_exception", 500), ("thread_exception", 500)]
)
def test_a_mail_that_no_fixture_commits_is_committed_at_once(served: Served, path: str, status: int) -> None:
    assert served.added_by(path, status)["message"] == 1
    assert served.added_by("commit", 200) == BOTH  # nothing is locked


def test_a_direct_mail_neither_commits_nor_rolls_back_the_request(served: Served) -> None:
    assert served.added_by("direct", 200) == {"thing": 1, "problem": 1}
    assert served.added_by("direct_exception", 500) == {}


def test_a_user_is_registered_though_the_mail_cannot_be_queued(served: Served) -> None:
    added = served.added_by("registers", 200)
    # What could not be made is kept as a failed message, without content.
    assert added == {"auth_user": 1, "problem": 1, "message": 1}


def test_a_user_is_registered_though_the_queue_is_broken(served: Served) -> None:
    """Comes last in this file's served tests: the tables are gone afterwards."""
    db = served.site.dal()
    for table in ("problem", "recipient", "content"):
        db.executesql(f"DROP TABLE mailqueue_{table}")
    db.commit()
    mails = "SELECT COUNT(*) FROM mailqueue_message"
    before, mails_before = db.executesql("SELECT COUNT(*) FROM auth_user")[0][0], db.executesql(mails)
    db.commit()
    assert served.browser.register("bob@visitor.test").status_code == 200
    assert served.browser.register_by_api("eve@visitor.test").json()["status"] == "success"
    assert db.executesql("SELECT COUNT(*) FROM auth_user")[0][0] == before + 2
    assert db.executesql(mails) == mails_before
    db.close()


# --- scripts and threads -------------------------------------------------------------------
def committed(mail: QueuedMailer, folder: Path) -> int:
    with closing(sqlite3.connect(folder / "mail.db")) as link:
        return int(link.execute("SELECT COUNT(*) FROM mailqueue_message").fetchone()[0])


def test_in_a_script_a_mail_is_committed_at_once(tmp_path: Path) -> None:
    mail = make_mail(tmp_path)
    mail.send("ann@x.test")
    assert committed(mail, tmp_path) == 1


def test_in_a_script_a_mail_joins_what_is_pending(tmp_path: Path) -> None:
    mail = make_mail(tmp_path)
    mail.db.define_table("thing", pydal.Field("name"))
    for end, expected in ((mail.db.rollback, 0), (mail.db.commit, 1)):
        mail.db.thing.insert(name="pending")
        mail.send("ann@x.test")
        assert committed(mail, tmp_path) == 0
        end()
        assert (committed(mail, tmp_path), mail.db(mail.db.thing).count()) == (expected, expected)
        mail.db.commit()


def test_a_plain_pydal_dal_will_do(tmp_path: Path) -> None:
    db = pydal.DAL("sqlite://mail.db", folder=str(tmp_path))
    mail = QueuedMailer(db, server="memory", sender=SENDER)
    mail.send("ann@x.test")
    assert committed(mail, tmp_path) == 1
    assert mail.process_queue()["sent"] == 1


# --- the fixture's begin and end -----------------------------------------------------------
@pytest.mark.parametrize("end", ["on_success", "on_error"])
def test_a_request_lasts_from_the_fixtures_begin_to_its_end(tmp_path: Path, end: str) -> None:
    db = make_mail(tmp_path).db
    watcher = RequestTransaction.of(db)
    assert not watcher.active
    db.on_request({})
    assert watcher.active
    elsewhere: list[bool] = []
    thread = threading.Thread(target=lambda: elsewhere.append(watcher.active))
    thread.start()
    thread.join()
    assert elsewhere == [False]
    getattr(db, end)({})
    assert not watcher.active


def test_a_request_that_could_not_begin_does_not_last_forever(tmp_path: Path) -> None:
    folder = tmp_path / "databases"
    folder.mkdir()
    mail = make_mail(folder)
    mail.db.recycle_connection_in_pool_or_close("commit")
    folder.rename(tmp_path / "away")
    with pytest.raises(sqlite3.OperationalError):
        mail.db.on_request({})
    (tmp_path / "away").rename(folder)
    mail.send("ann@x.test")
    assert committed(mail, folder) == 1


def test_a_request_that_could_not_commit_has_ended(tmp_path: Path) -> None:
    mail = make_mail(tmp_path)
    db = mail.db
    db.on_request({})
    db._adapter.connection.close()
    for end in (db.on_success, db.on_error):
        try:
            end({})
        except sqlite3.ProgrammingError:
            assert not RequestTransaction.of(db).active
    assert not RequestTransaction.of(db).active


def test_a_dal_is_watched_once_however_many_mailers_it_has(tmp_path: Path) -> None:
    db = make_mail(tmp_path).db
    watched = db.on_request
    QueuedMailer(db, server="memory", sender=SENDER)
    assert db.on_request is watched
    assert isinstance(watched.__self__, DAL)

"""The tables as they stand in the database administration of py4web's dashboard."""

from __future__ import annotations

import importlib.resources
import zipfile
from collections.abc import Iterator

import pytest
from mailqueue import outbox
from mailqueue.compose import compose
from mailqueue.tables import TABLES, local_time
from mailqueue.terms import terms
from support.browser import Browser
from support.scaffold import NAME, ServedSite, make_site

NOW = 1_800_000_000.0
PASSWORD = "a-password-of-the-dashboard"


class WithDashboard(ServedSite):
    """A site that is served with py4web's own dashboard beside it."""

    def _command(self) -> list[str]:
        command = super()._command()
        command[command.index("--app_names") + 1] = f"{NAME},_dashboard"
        command[command.index("--dashboard_mode") + 1] = "full"
        return [*command, "--password_file", str(self.site.folder.parent.parent / "password.txt")]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Whoever is logged in there; one message is queued, and one was refused."""
    folder = tmp_path_factory.mktemp("dbadmin")
    site = make_site(folder)
    shipped = importlib.resources.files("py4web").joinpath("assets/py4web.app._dashboard.zip")
    with shipped.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        archive.extractall(site.folder.parent / "_dashboard")
    from pydal.validators import CRYPT

    (folder / "password.txt").write_text(str(CRYPT()(PASSWORD)[0]), encoding="utf-8")
    with WithDashboard(site, {}) as served:
        db = site.dal()
        given = {"html": None, "sender": "site@x.test", "domain": "x.test", "now": NOW}
        composed = compose(to="ann@x.test", subject="Hello", text="a secret text", **given)
        outbox.enqueue(db, composed, terms(NOW, category="test"), now=NOW)
        db(db.mailqueue_recipient).update(status="in_doubt")
        db.commit()
        db.close()
        visitor = Browser(f"http://127.0.0.1:{served.port}/_dashboard")
        assert visitor.post("login", json={"password": PASSWORD}).json()["user"]
        yield visitor


def page(dashboard: Browser, table: str) -> str:
    answer = dashboard.get(f"dbadmin/{NAME}/db/mailqueue_{table}")
    assert answer.status_code == 200
    return answer.text


def test_every_table_is_listed(dashboard: Browser) -> None:
    for table in TABLES:
        page(dashboard, table.removeprefix("mailqueue_"))


def test_times_and_statuses_are_as_people_read_them(dashboard: Browser) -> None:
    assert local_time(NOW) in page(dashboard, "message")
    assert "in doubt" in page(dashboard, "recipient")
    assert "1800000000" not in page(dashboard, "message")


def test_columns_have_plain_names(dashboard: Browser) -> None:
    shown = page(dashboard, "message")
    assert all(label in shown for label in ("Created", "Message-ID", "Failure kind"))
    assert "Created On" not in shown


def test_no_page_shows_the_text_of_a_mail(dashboard: Browser) -> None:
    shown = dashboard.get(f"dbadmin/{NAME}/db/mailqueue_content?mode=details&id=1").text
    assert "secret" not in shown + page(dashboard, "content")

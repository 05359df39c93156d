"""The stand-alone site, as `py4web run apps` serves it."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mailqueue import demo
from support.smtp_server import free_port

HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("standalone")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[demo.Demo]:
    with demo.running(free_port(), folder=str(folder)) as site:
        yield site


@pytest.fixture
def administrator(site: demo.Demo) -> demo.Check:
    check = demo.Check(site, print)
    name, password = site.administrator
    check._fill(check._administrator, "auth/login", email=name, password=password)
    return check


def test_the_front_page_explains_itself_to_anybody(site: demo.Demo) -> None:
    page = requests.get(f"{site.url}/index", headers=HTML, timeout=20)
    assert page.status_code == 200
    assert "auth/register" in page.text
    assert "mail_server" not in page.text


@pytest.mark.parametrize("flash", ['{"message": "<script>alert(1)</script>"}', '"text"', '{"other": 1}'])
def test_a_forged_flash_is_only_text(site: demo.Demo, flash: str) -> None:
    quoted = flash.replace('"', '\\"').replace(",", "\\054").replace(";", "\\073")
    forged = {**HTML, "Cookie": f'py4web-flash="{quoted}"'}
    page = requests.get(f"{site.url}/index", headers=forged, timeout=20)
    assert page.status_code == 200
    assert "<script>" not in page.text
    assert ("alert(1)" in page.text) == ("alert(1)" in flash)  # it was read


def test_the_mail_server_page_is_for_the_administrator(site: demo.Demo, administrator: demo.Check) -> None:
    page = requests.get(f"{site.url}/mail_server", headers=HTML, timeout=20)
    assert "/auth/login" in page.url
    assert "security" in administrator._page(administrator._administrator, "mail_server").text


def test_a_member_who_is_no_administrator_is_refused(site: demo.Demo, administrator: demo.Check) -> None:
    visitor = requests.Session()
    administrator._fill(
        visitor,
        "auth/register",
        email="bob@visitor.test",
        password=demo.PASSWORD,
        password_again=demo.PASSWORD,
        first_name="Bob",
        last_name="Visitor",
    )
    administrator._configure(sender=demo.SENDER)
    administrator._wait(lambda: bool(site.catcher.messages), "the mail")
    link = re.search(r"http://\S+", site.catcher.messages[0].text)
    assert link
    visitor.get(link[0], timeout=20)
    administrator._fill(visitor, "auth/login", email="bob@visitor.test", password=demo.PASSWORD)
    for path in ("mail_server", "mailqueue"):
        assert administrator._page(visitor, path).status_code == 403, path


def test_settings_are_kept_for_the_owner_alone_and_a_password_is_not_shown_again(
    site: demo.Demo, administrator: demo.Check, folder: Path
) -> None:
    session = administrator._administrator
    secret = "very-secret-password"
    fields = {"server": "127.0.0.1:25", "sender": demo.SENDER, "user": "site", "security": "plain"}
    saved = administrator._fill(session, "mail_server", **fields, password=secret)
    assert [step.status_code for step in saved.history] == [303]
    assert "Saved." in saved.history[0].headers["Set-Cookie"]
    assert secret not in administrator._page(session, "mail_server").text
    administrator._fill(session, "mail_server", **fields, password="")
    stored = folder / "state" / "mail_server.json"
    assert json.loads(stored.read_text(encoding="utf-8"))["password"] == secret
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600


def test_a_form_without_its_token_changes_nothing(site: demo.Demo, administrator: demo.Check) -> None:
    session = administrator._administrator
    before = administrator._page(session, "mail_server").text.count("evil.test")
    session.post(f"{site.url}/mail_server", data={"server": "evil.test:25"}, headers=HTML, timeout=20)
    assert administrator._page(session, "mail_server").text.count("evil.test") == before == 0

"""Registration and the rest of web2py's Auth, whatever is wrong with the site's mail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import PASSWORD, Browser
from support.smtp_server import ScriptedServer, refused_port
from support.web2py_site import Web2pySite, register

SENDER = "Site <noreply@site.test>"
FAULTS: dict[str, dict[str, Any]] = {
    "nothing is configured": {},
    "no sender": {"server": "127.0.0.1:25"},
    "no server": {"sender": SENDER},
    "the sender of web2py's template": {"server": "127.0.0.1:25", "sender": "you@gmail.com"},
    "the server is no address": {"server": "smtp:server:25", "sender": SENDER},
    "the server refuses connections": {"server": "127.0.0.1:{refused}", "sender": SENDER, "tls": False},
    "the server has no TLS": {"server": "127.0.0.1:{smtp}", "sender": SENDER},
    "the server has no login": {"server": "127.0.0.1:{smtp}", "sender": SENDER, "tls": False, "login": "a:b"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    with Web2pySite(tmp_path_factory.mktemp("web2py")).served() as site:
        yield site


@pytest.fixture(autouse=True)
def usual(site: Web2pySite) -> None:
    site.configure(mailer="queued", mail={}, auth={}, uri="sqlite://storage.sqlite", usernames=False)


def configured(fault: str, smtp: ScriptedServer, refused: int) -> dict[str, Any]:
    options = dict(FAULTS[fault])
    if "server" in options:
        options["server"] = options["server"].format(smtp=smtp.port, refused=refused)
    return options


def keys(site: Web2pySite, email: str) -> list[str]:
    """The registration keys of the accounts with this address."""
    return [row["registration_key"] for row in site.rows("SELECT * FROM auth_user WHERE email = ?", email)]


def follow_link(site: Web2pySite, visitor: Browser, email: str) -> Any:
    """Open the link in the last mail for an address."""
    link = re.search(r"https?://\S+", site.mails(email)[-1]["mail"])
    assert link
    return visitor.get(link[0])


def member(site: Web2pySite, email: str) -> Browser:
    """Somebody who has registered, and followed the link in the mail."""
    visitor = site.browser()
    register(visitor, email)
    follow_link(site, visitor, email)
    assert keys(site, email) == [""]
    return visitor


def log_in(visitor: Browser, email: str) -> Any:
    return visitor.fill("default/user/login", email=email, password=PASSWORD)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_visitor_registers_whatever_is_wrong_with_the_mail(
    site: Web2pySite, smtp: ScriptedServer, fault: str
) -> None:
    email = f"{fault.replace(' ', '.').lower()}@example.test"
    with refused_port() as refused:
        site.configure(mail=configured(fault, smtp, refused))
        answer = register(site.browser(), email)
    assert answer.status_code == 200
    assert answer.url.endswith("/default/index")
    (mail,) = site.mails(email)
    assert (mail["status"], mail["priority"], mail["category"]) == ("queued", 0, "auth")
    assert keys(site, email)[0] in mail["mail"]
    assert site.tickets == []


@pytest.mark.parametrize(
    ("fault", "seen"), [("nothing is configured", 500), ("the server refuses connections", 200)]
)
def test_web2pys_own_mailer_loses_the_account_there(
    tmp_path: Path, site: Web2pySite, smtp: ScriptedServer, fault: str, seen: int
) -> None:
    email = f"stock{seen}@example.test"
    with refused_port() as refused:
        site.configure(mailer="stock", mail=configured(fault, smtp, refused))
        answer = register(site.browser(), email)
    assert answer.status_code == seen
    assert ("Unable to send email" in answer.text) == (seen == 200)
    assert keys(site, email) == []
    for ticket in (site.app / "errors").glob("*"):
        ticket.unlink()


def test_a_mail_queued_without_a_server_leaves_once_there_is_one(
    site: Web2pySite, smtp: ScriptedServer
) -> None:
    visitor = site.browser()
    register(visitor, "late@example.test")
    site.drain()
    assert "no-server@" in [row["cause"] for row in site.rows("SELECT * FROM mailqueue_problem")]
    assert site.mails("late@example.test")[0]["attempts"] == 0
    site.configure(mail={"server": f"127.0.0.1:{smtp.port}", "sender": SENDER, "tls": False})
    site.drain()
    received = [one for one in smtp.messages if one.rcpt_tos == ("late@example.test",)]
    assert [str(one.parsed()["From"]) for one in received] == [SENDER]
    assert site.rows("SELECT * FROM mailqueue_problem WHERE status = 'open'") == []


def test_what_a_registration_that_fails_has_queued_is_gone_with_it(site: Web2pySite) -> None:
    email = "undone@example.test"
    site.scenario(f"mail.send({email!r}, 'subject', 'text'); db.rollback(); found['done'] = True")
    assert site.mails(email) == []


def test_a_member_logs_in_with_the_code_from_the_mail(site: Web2pySite) -> None:
    email = "two.factors@example.test"
    member(site, email)
    site.configure(auth={"auth_two_factor_enabled": True})
    visitor = site.browser()
    page = log_in(visitor, email)
    assert page.status_code == 200
    code = re.search(r"\d{6}", site.mails(email)[-1]["mail"])
    assert code
    (form,) = visitor.forms(page)
    visitor.submit(form, authentication_code=code[0])
    assert "Ann" in visitor.get("default/user/profile").text
    assert site.tickets == []


def test_a_forgotten_password_is_set_anew(site: Web2pySite) -> None:
    email = "forgotten@example.test"
    member(site, email)
    visitor = site.browser()
    answer = visitor.fill("default/user/request_reset_password", email=email)
    assert answer.status_code == 200
    page = follow_link(site, visitor, email)
    (form,) = visitor.forms(page)
    visitor.submit(form, new_password="Another-1", new_password2="Another-1")
    visitor.get("default/user/logout")
    visitor.fill("default/user/login", email=email, password="Another-1")
    assert "Ann" in visitor.get("default/user/profile").text


def test_a_password_is_sent_where_the_site_wants_it_so(site: Web2pySite) -> None:
    email = "old.ways@example.test"
    member(site, email)
    site.configure(auth={"reset_password_requires_verification": False})
    visitor = site.browser()
    visitor.fill("default/user/retrieve_password", email=email)
    password = re.search(r"password is: (\S+)", site.mails(email)[-1]["mail"])
    assert password
    visitor.fill("default/user/login", email=email, password=password[1])
    assert "Ann" in visitor.get("default/user/profile").text


def test_a_member_invites_others(site: Web2pySite) -> None:
    visitor = member(site, "host@example.test")
    log_in(visitor, "host@example.test")
    visitor.fill("default/invite", subject="Come", emails="guest@example.test", message="Here: %(link)s")
    (mail,) = site.mails("guest@example.test")
    assert (mail["subject"], mail["category"]) == ("Come", "auth")
    assert site.tickets == []


def test_a_forgotten_user_name_is_sent(site: Web2pySite) -> None:
    site.configure(uri="sqlite://names.sqlite", usernames=True)
    email = "nameless@example.test"
    visitor = site.browser()
    fields = {"email": email, "password": PASSWORD, "password_two": PASSWORD, "username": "ann"}
    visitor.fill("default/user/register", first_name="Ann", last_name="Other", **fields)
    visitor.fill("default/user/retrieve_username", email=email)
    assert "ann" in site.mails(email)[-1]["mail"]
    assert site.tickets == []

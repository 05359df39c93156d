"""Accounts that wait for approval in web2py: who hears of them, and what the links and the list do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.browser import PASSWORD, Browser
from support.web2py_site import Web2pySite, register

BOSS, DEPUTY = "boss@site.test", "deputy@site.test"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    with Web2pySite(tmp_path_factory.mktemp("web2py")).served() as site:
        site.browser().get("default/index")  # the first request makes the tables
        yield site


@pytest.fixture(autouse=True)
def usual(site: Web2pySite) -> Iterator[None]:
    configure(site)
    yield
    assert site.tickets == []


def configure(site: Web2pySite, *, verification: bool = False, **approval: Any) -> None:
    usual = {
        "approvers": [BOSS, DEPUTY],
        "base_url": f"http://127.0.0.1:{site.port}/app",
        "per_client": None,
    }
    auth = {
        "registration_requires_approval": True,
        "registration_requires_verification": verification,
    }
    site.configure(auth=auth, approval={**usual, **approval}, mail={"sender": "Site <noreply@site.test>"})


def link(site: Web2pySite, approver: str, verb: str) -> str:
    """The path that the last mail to an approver links to."""
    found = re.search(rf"/app/(plugin_mailqueue/{verb}/\S+?)[\s>\")]", site.mails(approver)[-1]["mail"])
    assert found, site.mails(approver)[-1]["mail"]
    return found[1]


def key(site: Web2pySite, email: str) -> str:
    (row,) = site.rows("SELECT registration_key FROM auth_user WHERE email = ?", email)
    return str(row["registration_key"])


def press(visitor: Browser, path: str, **fields: str) -> Any:
    (form,) = visitor.forms(visitor.get(path))
    return visitor.submit(form, **fields)


def administrator(site: Web2pySite, email: str) -> Browser:
    site.configure(auth={"registration_requires_verification": False})
    visitor = site.browser()
    register(visitor, email)
    assert visitor.get("default/become_admin").text == "done"
    configure(site)
    return visitor


def test_an_approver_lets_an_applicant_in(site: Web2pySite) -> None:
    register(site.browser(), "ann@example.test")
    assert key(site, "ann@example.test") == "pending"
    assert "ann@example.test" in site.mails(BOSS)[-1]["mail"]
    answer = press(site.browser(), link(site, BOSS, "approve"))
    assert (answer.status_code, "You have approved this account" in answer.text) == (200, True)
    assert key(site, "ann@example.test") == ""
    assert "approved" in site.mails("ann@example.test")[-1]["mail"]
    applicant = site.browser()
    applicant.fill("default/user/login", email="ann@example.test", password=PASSWORD)
    assert "Ann" in applicant.get("default/user/profile").text


def test_an_approver_declines_with_a_note(site: Web2pySite) -> None:
    register(site.browser(), "bob@example.test")
    press(site.browser(), link(site, BOSS, "decline"), note="Not <now>.")
    assert key(site, "bob@example.test") == "blocked"
    assert "Not <now>." in site.mails("bob@example.test")[-1]["mail"]
    answer = site.browser().get(link(site, DEPUTY, "approve"))
    assert answer.status_code == 410
    assert f"{BOSS} has declined this account" in answer.text


def test_the_pages_of_the_links_speak_the_language_of_whoever_opens_them(site: Web2pySite) -> None:
    register(site.browser(), "spoken@example.test")
    approver = site.browser()
    approver.session.headers["Accept-Language"] = "de-AT, en;q=0.5"
    page = approver.get(link(site, BOSS, "decline"))
    assert page.headers["Content-Language"] == "de"
    assert "Dieses Konto ablehnen?" in page.text and "Eine Notiz an den Antragsteller" in page.text
    assert "Sie haben dieses Konto freigegeben" in press(approver, link(site, BOSS, "approve")).text


def test_opening_a_link_decides_nothing(site: Web2pySite) -> None:
    register(site.browser(), "opened@example.test")
    answer = site.browser().get(link(site, BOSS, "approve"))
    assert (answer.status_code, answer.headers["Referrer-Policy"]) == (200, "no-referrer")
    site.browser().post(link(site, BOSS, "approve"), data={"_formname": "mailqueue_decision"})
    assert key(site, "opened@example.test") == "pending"
    assert site.browser().get("plugin_mailqueue/approve/guessed").status_code == 404


def test_with_verification_the_approvers_are_asked_once_the_address_is_verified(site: Web2pySite) -> None:
    configure(site, verification=True)
    asked = len(site.mails(BOSS))
    register(site.browser(), "verified@example.test")
    assert len(site.mails(BOSS)) == asked
    found = re.search(
        r"/app/(default/user/verify_email/\S+)", site.mails("verified@example.test")[-1]["mail"]
    )
    assert found
    site.browser().get(found[1])
    assert key(site, "verified@example.test") == "pending"
    assert len(site.mails(BOSS)) == asked + 1


def test_the_list_has_the_same_two_buttons(site: Web2pySite) -> None:
    admin = administrator(site, "admin@example.test")
    for name in ("one", "two"):
        register(site.browser(), f"{name}@listed.test")
    numbers = {row["email"]: row["id"] for row in site.rows("SELECT id, email FROM auth_user")}
    assert "one@listed.test" in admin.get("plugin_mailqueue/accounts").text
    for name, verb, fields in (("one", "approve", {}), ("two", "decline", {"note": "Sorry."})):
        page = admin.get("plugin_mailqueue/accounts")
        form = admin.form_to(page, f"accounts/{numbers[f'{name}@listed.test']}/{verb}")
        assert "its owner is told by mail" in admin.submit(form, **fields).text
        assert "waits for no decision any more" in admin.submit(form, **fields).text
    assert (key(site, "one@listed.test"), key(site, "two@listed.test")) == ("", "blocked")
    assert "Sorry." in site.mails("two@listed.test")[-1]["mail"]
    assert "Pending accounts" in admin.get("plugin_mailqueue/index").text


def test_only_administrators_see_the_list(site: Web2pySite) -> None:
    anonymous = site.browser().get("plugin_mailqueue/accounts", allow_redirects=False)
    assert anonymous.status_code == 303
    register(site.browser(), "member@example.test")
    press(site.browser(), link(site, BOSS, "approve"))
    member = site.browser()
    member.fill("default/user/login", email="member@example.test", password=PASSWORD)
    assert member.get("plugin_mailqueue/accounts").status_code == 403


def test_the_members_of_a_group_are_asked(site: Web2pySite) -> None:
    administrator(site, "head@group.test")
    configure(site, approvers="group:admin")
    register(site.browser(), "for.group@example.test")
    assert "for.group@example.test" in site.mails("head@group.test")[-1]["mail"]


def test_where_nobody_is_to_be_asked_the_visitor_goes_on_and_the_problem_log_says_so(
    site: Web2pySite,
) -> None:
    configure(site, approvers="group:nobody")
    answer = register(site.browser(), "unasked@example.test")
    assert answer.status_code == 200
    assert key(site, "unasked@example.test") == "pending"
    assert "no-approvers@" in [row["cause"] for row in site.rows("SELECT cause FROM mailqueue_problem")]


def test_approvers_are_not_flooded_and_the_account_still_waits(site: Web2pySite) -> None:
    configure(site, per_client="2/hour")
    site.browser().get("default/index")  # which makes the tables
    asked = len(site.mails(BOSS))
    for number in range(3):
        visitor = site.browser()
        # The site's own proxy adds the last entry; the first one is the visitor's claim.
        visitor.session.headers["X-Forwarded-For"] = f"203.0.113.{number}, 198.51.100.7"
        register(visitor, f"flood{number}@example.test")
    assert len(site.mails(BOSS)) == asked + 2
    assert key(site, "flood2@example.test") == "pending"


def test_above_the_tables_of_auth_it_says_where_it_must_stand(site: Web2pySite) -> None:
    seen = site.scenario("""
without_tables = Auth(DAL("sqlite:memory"), host_names=["127.0.0.1:*"])
try:
    mail.enable_approval(without_tables, ["boss@site.test"], "https://site.test/app")
except ValueError as error:
    found["told"] = str(error)
""")
    assert "below auth.define_tables()" in seen["told"]

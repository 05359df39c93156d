"""Each way of py4web's Auth that sends mail, by form and by API: the mail arrives, its link works, once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.accounts import (
    NEW_PASSWORD,
    UNLIMITED,
    WAYS,
    Accounts,
    accounts_site,
    alike,
    ask_for_reset,
    register,
    set_password,
    text_of,
    verify,
)
from support.browser import PASSWORD, Browser


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    folder = tmp_path_factory.mktemp("accounts")
    with accounts_site(folder, f"mail.enable_auth(auth, {UNLIMITED})") as accounts:
        yield accounts


@pytest.fixture
def visitor(accounts: Accounts) -> Browser:
    return accounts.served.browser()


@pytest.mark.parametrize("way", WAYS)
def test_an_address_is_verified_by_its_link(accounts: Accounts, visitor: Browser, way: str) -> None:
    address = f"verify-{way}@visitor.test"
    register(visitor, way, address)
    assert not accounts.can_log_in(address, PASSWORD)
    link = accounts.link(address, "verify_email")
    assert link.startswith(f"{accounts.served.url}/auth/verify_email?token=")
    verify(visitor, way, link)
    assert accounts.can_log_in(address, PASSWORD)


@pytest.mark.parametrize("way", WAYS)
def test_a_link_to_verify_an_address_ends(accounts: Accounts, visitor: Browser, way: str) -> None:
    address = f"late-{way}@visitor.test"
    register(visitor, way, address)
    link = accounts.link(address, "verify_email")
    accounts.advance(3 * 86400 + 1)
    verify(visitor, way, link)
    assert not accounts.can_log_in(address, PASSWORD)
    register(visitor, way, address)
    verify(visitor, way, accounts.link(address, "verify_email"))
    assert accounts.can_log_in(address, PASSWORD)


@pytest.mark.parametrize("way", WAYS)
def test_a_password_is_reset_by_its_link_once(accounts: Accounts, visitor: Browser, way: str) -> None:
    address = f"reset-{way}@visitor.test"
    accounts.active(address)
    ask_for_reset(visitor, way, address)
    link = accounts.link(address, "reset_password")
    assert set_password(visitor, way, link, NEW_PASSWORD)
    assert accounts.can_log_in(address, NEW_PASSWORD)
    assert not set_password(accounts.served.browser(), way, link, "Evil-Horse-Battery-33")
    assert accounts.can_log_in(address, NEW_PASSWORD)
    assert "Your password was changed" in accounts.mail(address)["Subject"]
    assert accounts.state(address) is None


@pytest.mark.parametrize("way", WAYS)
def test_a_link_to_reset_a_password_ends(accounts: Accounts, visitor: Browser, way: str) -> None:
    address = f"reset-late-{way}@visitor.test"
    accounts.active(address)
    ask_for_reset(visitor, way, address)
    link = accounts.link(address, "reset_password")
    accounts.advance(3601)
    assert not set_password(visitor, way, link, NEW_PASSWORD)
    assert accounts.can_log_in(address, PASSWORD)


@pytest.mark.parametrize("token", ["x", "x.1", "x.99999999999"])
def test_a_link_that_has_ended_leads_to_where_to_ask_for_another_one_and_says_so(
    accounts: Accounts, visitor: Browser, token: str
) -> None:
    page = visitor.get(f"auth/reset_password?token={token}")
    assert page.url.endswith("/site/auth/request_reset_password")
    assert "Link invalid or expired" in page.history[0].headers["component-flash"]
    assert 'name="email"' in page.text and 'name="viewport"' in page.text, "it is not in the site's layout"


def test_before_a_sender_is_configured_mails_call_the_site_by_where_their_links_lead(tmp_path: Path) -> None:
    with accounts_site(tmp_path, settings={"SMTP_SENDER": ""}, PY4WEB_DOMAINS="club.test") as site:
        site.served.browser().register("early@visitor.test")
        [row] = site.site.rows("SELECT message_uid FROM mailqueue_message")
        assert row["message_uid"].endswith("@club.test>")
        assert "registration at club.test." in text_of(site.mail("early@visitor.test"))


def test_where_no_link_may_be_asked_for_one_that_has_ended_leads_to_the_login(tmp_path: Path) -> None:
    allowed = 'auth.param.allowed_actions = ["login", "reset_password"]\nmail.enable_auth(auth)'
    with accounts_site(tmp_path, before=allowed) as site:
        page = site.served.browser().get("auth/reset_password?token=x")
        assert page.url.endswith("/site/auth/login")
        assert "Link invalid or expired" in page.history[0].headers["component-flash"]


@pytest.mark.parametrize("way", WAYS)
def test_a_password_that_is_refused_does_not_use_up_the_link(
    accounts: Accounts, visitor: Browser, way: str
) -> None:
    address = f"refused-{way}@visitor.test"
    accounts.active(address)
    ask_for_reset(visitor, way, address)
    link = accounts.link(address, "reset_password")
    assert not set_password(visitor, way, link, "1")
    assert not set_password(visitor, way, link, PASSWORD), "the present password was taken for a new one"
    assert set_password(visitor, way, link, NEW_PASSWORD)


@pytest.mark.parametrize("way", WAYS)
def test_who_is_not_verified_gets_no_link_to_reset_a_password(
    accounts: Accounts, visitor: Browser, way: str
) -> None:
    address = f"pending-{way}@visitor.test"
    register(visitor, way, address)
    state = accounts.state(address)
    known = ask_for_reset(visitor, way, address)
    assert accounts.state(address) == state
    assert len(accounts.mails(address)) == 1
    unknown = ask_for_reset(accounts.served.browser(), way, f"unknown-{way}@visitor.test")
    assert alike(known) == alike(unknown)


# --- an address that is taken ----------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spelled", [str, str.upper])
def test_a_taken_address_is_registered_with_the_same_answer_as_a_new_one(
    accounts: Accounts, visitor: Browser, way: str, spelled: type[str]
) -> None:
    address = f"taken-{way}@{spelled.__name__}.test"
    accounts.active(address, username=f"owner of {address}")
    before = accounts.site.rows("SELECT * FROM auth_user")
    again = register(visitor, way, spelled(address), username=f"second-{address}")
    assert accounts.site.rows("SELECT * FROM auth_user") == before
    assert "You already have an account" in accounts.mail(address)["Subject"]
    assert "/auth/login" in accounts.link(address)
    new = register(accounts.served.browser(), way, f"new-{address}")
    assert alike(again) == alike(new)
    assert [step.headers["Location"] for step in again.history] == [
        step.headers["Location"] for step in new.history
    ]


@pytest.mark.parametrize("way", WAYS)
def test_what_else_is_wrong_is_told_as_for_a_new_address(
    accounts: Accounts, visitor: Browser, way: str
) -> None:
    address = f"weak-{way}@visitor.test"
    accounts.active(address)
    answers = [
        (visitor.register if way == "form" else visitor.register_by_api)(email, password="1", username="w")
        for email in (address, f"new-{address}")
    ]
    assert alike(answers[0]) == alike(answers[1])
    assert len(accounts.mails(address)) == 1


def test_an_account_of_a_taken_address_may_still_be_told_where_nothing_is_verified(tmp_path: Path) -> None:
    with accounts_site(tmp_path, settings={"VERIFY_EMAIL": False}) as accounts:
        accounts.served.browser().register_by_api("ann@visitor.test")
        again = accounts.served.browser().register_by_api("ann@visitor.test", username="other")
        assert "email" in again.json()["errors"]


# --- changes of an account -------------------------------------------------------------------


def test_a_changed_password_is_told(accounts: Accounts, visitor: Browser) -> None:
    accounts.active("changed@visitor.test")
    visitor.login("changed@visitor.test")
    visitor.fill(
        "auth/change_password",
        old_password=PASSWORD,
        new_password=NEW_PASSWORD,
        new_password_again=NEW_PASSWORD,
    )
    assert accounts.can_log_in("changed@visitor.test", NEW_PASSWORD)
    assert "Your password was changed" in accounts.mail("changed@visitor.test")["Subject"]
    told = len(accounts.mails("changed@visitor.test"))
    third = {"old_password": NEW_PASSWORD, "new_password": "Third-Horse-Battery-3"}
    assert visitor.post("auth/api/change_password", json=third).status_code == 200
    assert len(accounts.mails("changed@visitor.test")) == told + 1
    assert visitor.post("auth/api/change_password", json=third).json()["errors"]
    assert len(accounts.mails("changed@visitor.test")) == told + 1


def test_a_link_to_reset_the_password_ends_with_a_change_of_it(accounts: Accounts, visitor: Browser) -> None:
    accounts.active("both@visitor.test")
    ask_for_reset(accounts.served.browser(), "form", "both@visitor.test")
    link = accounts.link("both@visitor.test", "reset_password")
    visitor.login("both@visitor.test")
    changed = {"old_password": PASSWORD, "new_password": NEW_PASSWORD}
    assert visitor.post("auth/api/change_password", json=changed).status_code == 200
    assert not set_password(accounts.served.browser(), "api", link, "Third-Horse-Battery-3")


def test_a_changed_address_is_told_to_the_old_one(accounts: Accounts, visitor: Browser) -> None:
    for number, path, body in (
        (1, "auth/api/change_email", {"new_email": "moved-1@visitor.test", "password": PASSWORD}),
        (2, "auth/api/profile", {"email": "moved-2@visitor.test"}),
    ):
        accounts.active(f"old-{number}@visitor.test")
        visitor.login(f"old-{number}@visitor.test")
        assert visitor.post(path, json=body).status_code == 200
        assert accounts.state(f"moved-{number}@visitor.test") is None
        mail = accounts.mail(f"old-{number}@visitor.test")
        assert "Your e-mail address was changed" in mail["Subject"]
        assert accounts.mails(f"moved-{number}@visitor.test") == []
        same = {"first_name": "Anna", "email": f"moved-{number}@visitor.test"}
        visitor.post("auth/api/profile", json=same)
        assert accounts.mails(f"moved-{number}@visitor.test") == []


def test_who_unsubscribes_is_erased_and_told(accounts: Accounts, visitor: Browser) -> None:
    accounts.active("gone@visitor.test")
    visitor.login("gone@visitor.test")
    assert visitor.get("auth/api/unsubscribe").status_code == 405  # a link of anybody's would do
    assert visitor.get("auth/api/profile").json()["user"]["email"] == "gone@visitor.test"
    assert visitor.post("auth/api/unsubscribe").status_code == 200
    assert "deleted" in accounts.mail("gone@visitor.test")["Subject"]
    rows = accounts.site.rows("SELECT * FROM auth_user WHERE action_token = 'gdpr-unsubscribed'")
    assert [(row["first_name"], row["password"]) for row in rows] == [("anonymous", None)]
    assert rows[0]["email"].endswith("@example.com")
    assert visitor.get("auth/api/profile").status_code == 403
    assert len(accounts.mails("gone@visitor.test")) == 2


# --- the second factor -----------------------------------------------------------------------


def code_in(accounts: Accounts, address: str) -> str:
    found = re.search(r"\b[0-9]{6}\b", text_of(accounts.mail(address)))
    assert found
    return found[0]


def test_a_code_for_the_second_factor_is_mailed_and_ends(tmp_path: Path) -> None:
    enabled = "mail.enable_auth(auth)\nauth.param.two_factor_send = mail.two_factor_send"
    with accounts_site(tmp_path, enabled) as accounts:
        accounts.active("ann@visitor.test")
        visitor = accounts.served.browser()
        page = visitor.login("ann@visitor.test")
        assert page.url.endswith("/auth/two_factor")
        old = code_in(accounts, "ann@visitor.test")
        row = accounts.site.rows("SELECT * FROM mailqueue_message ORDER BY id DESC")[0]
        assert row["priority"] == -1
        assert row["status"] == "sent"
        text = "SELECT * FROM mailqueue_content WHERE message_ref = ?"
        assert accounts.site.rows(text, row["id"]) == [], "the code is nowhere any more"
        assert visitor.get("auth/api/profile").status_code == 403

        accounts.advance(601)
        [form] = [form for form in visitor.forms(page) if "authentication_code" in form.fields]
        visitor.submit(form, authentication_code=old)
        assert visitor.get("auth/api/profile").status_code == 403, "the code had ended"
        new = code_in(accounts, "ann@visitor.test")
        assert new != old
        visitor.fill("auth/two_factor", authentication_code=new)
        assert visitor.get("auth/api/profile").status_code == 200


# --- where it stands ------------------------------------------------------------------------


def test_it_may_be_enabled_before_auths_own_pages(tmp_path: Path) -> None:
    with accounts_site(tmp_path, before="mail.enable_auth(auth)") as accounts:
        address = "ann@visitor.test"
        accounts.active(address)
        ask_for_reset(accounts.served.browser(), "form", address)
        link = accounts.link(address, "reset_password")
        assert set_password(accounts.served.browser(), "form", link, NEW_PASSWORD)
        assert not set_password(accounts.served.browser(), "api", link, "Evil-Horse-Battery-33")
        accounts.served.browser().register(address, username="second")
        assert "You already have an account" in accounts.mail(address)["Subject"]

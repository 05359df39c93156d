"""What strangers try with mails about accounts: forged requests, floods; and what stock Auth lets them do."""

from __future__ import annotations

import contextlib
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
    verify,
)
from support.browser import PASSWORD

# --- what a visitor claims -------------------------------------------------------------------

FORGED = {
    "Host": "evil.test",
    "Origin": "http://evil.test",
    "X-Forwarded-Host": "evil.test",
    "X-Forwarded-Proto": "evil",
    "X-Script-Name": "@evil.test",
}
REQUESTS = {
    "reset by form": ("form", {}),
    "reset by API": ("api", {}),
    "route": ("api", {"route": "//evil.test/x"}),
    "next": ("api", {"next": "//evil.test/x"}),
    "host path": ("api", {"route": "evil.test"}),
    "without a mail": ("api", {"send": False}),
    "unknown": ("api", {"self": 1, "validate": False, "x": [1]}),
}


@pytest.mark.parametrize("environment", [{}, {"PY4WEB_DOMAINS": "site.test,other.test"}])
@pytest.mark.parametrize("base_url", [None, "https://site.test/app"])
def test_nothing_forged_reaches_a_mail(
    tmp_path: Path, base_url: str | None, environment: dict[str, str]
) -> None:
    enabled = f"mail.enable_auth(auth, base_url={base_url!r}, {UNLIMITED})"
    with accounts_site(tmp_path, enabled, **environment) as accounts:
        accounts.served.browser().register("ann@visitor.test")
        accounts.site.rows("SELECT 1")
        activate(accounts, "ann@visitor.test")
        expected = base_url or ("http://site.test/site" if environment else accounts.served.url)
        for way, payload in REQUESTS.values():
            ask(accounts, way, "ann@visitor.test", payload, {})
            assert accounts.link("ann@visitor.test").startswith(f"{expected}/auth/reset_password?token=")
        for header, value in FORGED.items():
            arrived = len(accounts.mails("ann@visitor.test"))
            ask(accounts, "api", "ann@visitor.test", {}, {header: value})
            trusted = base_url or environment or header != "Host"
            assert len(accounts.mails("ann@visitor.test")) == arrived + bool(trusted), header
            assert "evil" not in accounts.mail("ann@visitor.test").as_string()
            assert accounts.link("ann@visitor.test").startswith(f"{expected}/auth/reset_password?token=")
        assert ("no-base-url" in accounts.problems()) is not bool(base_url or environment)


def activate(accounts: Accounts, address: str) -> None:
    with contextlib.closing(accounts.site.database()) as connection, connection:
        connection.execute("UPDATE auth_user SET action_token = NULL WHERE email = ?", (address,))


def ask(
    accounts: Accounts, way: str, address: str, payload: dict[str, object], headers: dict[str, str]
) -> None:
    browser = accounts.served.browser()
    if way == "form":
        assert browser.fill("auth/request_reset_password", email=address).status_code == 200
        return
    body = {"email": address, **payload}
    answer = browser.post("auth/api/request_reset_password", json=body, headers=headers)
    assert answer.status_code == 200, answer.text


def test_a_registration_is_not_held_up_where_no_link_can_be_made(tmp_path: Path) -> None:
    with accounts_site(tmp_path) as accounts:
        forged = {"Host": "your-site.test"}
        user = {"username": "ann", "email": "ann@visitor.test", "password": PASSWORD, "first_name": "A"}
        answer = accounts.served.browser().post(
            "auth/api/register", json={**user, "last_name": "B"}, headers=forged
        )
        assert answer.status_code == 200
        assert accounts.state("ann@visitor.test")
        assert accounts.mails("ann@visitor.test") == []
        problem = accounts.problems()["no-base-url"]
        assert "base_url" in problem["remedy"]
        assert "your-site.test" in problem["detail"]
        accounts.served.browser().register("ann@visitor.test", username="ann")
        assert accounts.link("ann@visitor.test").startswith(accounts.served.url)


def test_an_administrator_sees_at_once_that_links_would_lead_nowhere(tmp_path: Path) -> None:
    enabled = "mail.enable_admin(auth, uses=(session, T, db))"
    with accounts_site(tmp_path, enabled) as accounts:
        admin = accounts.served.browser()
        admin.register("admin@site.test")
        activate(accounts, "admin@site.test")
        with contextlib.closing(accounts.site.database()) as connection, connection:
            connection.execute("INSERT INTO auth_user_tag_groups (tagpath, record_id) VALUES ('/admin/', 1)")
        admin.login("admin@site.test")
        assert admin.get("mailqueue").status_code == 200
        assert accounts.problems() == {}
        cookies = "; ".join(f"{name}={value}" for name, value in admin.session.cookies.items())
        elsewhere = admin.get("mailqueue", headers={"Host": "site.test", "Cookie": cookies})
        assert elsewhere.status_code == 200
        assert list(accounts.problems()) == ["no-base-url"]
        assert "base_url" in admin.get("mailqueue/problems").text
        assert accounts.problems() == {}, "resolved where links can be made"


# --- how much --------------------------------------------------------------------------------


def test_one_address_is_not_flooded_and_nobody_can_tell(tmp_path: Path) -> None:
    with accounts_site(tmp_path, "mail.enable_auth(auth, mails_per_client=None)") as accounts:
        accounts.active("ann@visitor.test")
        answers = {
            alike(ask_for_reset(accounts.served.browser(), way, "ann@visitor.test"))
            for way in ("api", "form") * 4
        }
        assert len(answers) == 2, "one for each way, whatever was sent"
        assert len(accounts.mails("ann@visitor.test")) == 5, "the registration's too"
        problem = accounts.problems()["too-many-account-mails"]
        assert problem["seen"] == 4
        assert "5/hour" in problem["detail"]
        accounts.advance(3601)
        ask_for_reset(accounts.served.browser(), "form", "ann@visitor.test")
        assert len(accounts.mails("ann@visitor.test")) == 6
        assert "ann@visitor.test" not in str(accounts.site.rows("SELECT * FROM mailqueue_allowance"))


@pytest.mark.parametrize("way", WAYS)
def test_the_last_link_that_was_sent_works_however_often_one_registers(tmp_path: Path, way: str) -> None:
    with accounts_site(tmp_path, "mail.enable_auth(auth, mails_per_client=None)") as accounts:
        answers = {
            alike(register(accounts.served.browser(), way, "ann@visitor.test", username="ann"))
            for _time in range(7)
        }
        assert len(answers) == 1
        assert len(accounts.mails("ann@visitor.test")) == 5
        assert accounts.problems()["too-many-account-mails"]["seen"] == 2
        verify(accounts.served.browser(), way, accounts.link("ann@visitor.test", "verify_email"))
        assert accounts.state("ann@visitor.test") is None
        assert accounts.can_log_in("ann@visitor.test", PASSWORD)


def test_whom_another_service_vouches_for_gets_an_account_however_many_mails_there_were(
    tmp_path: Path,
) -> None:
    vouched = "auth.get_or_register_user({'email': 'ann@visitor.test', 'first_name': 'Ann'})"
    page = f"@action('vouched')\n@action.uses(db)\ndef vouched():\n    return str({vouched}['id'])\n"
    enabled = "mail.enable_auth(auth, mails_per_address='1/hour')\nfrom py4web import action\n"
    with accounts_site(tmp_path, enabled + page) as accounts:
        for _time in range(2):
            accounts.served.browser().register("ann@visitor.test", username="ann")
        assert accounts.state("ann@visitor.test")
        assert accounts.served.browser().get("vouched").text == "2"
        assert accounts.state("ann@visitor.test") is None


def test_one_visitor_cannot_have_many_addresses_written_to(tmp_path: Path) -> None:
    enabled = "mail.enable_auth(auth, mails_per_client='3/hour')"
    with accounts_site(tmp_path, enabled) as accounts:
        for number in range(5):
            visitor = accounts.served.browser()
            # The site's own proxy adds the last entry; the first one is the visitor's claim.
            visitor.session.headers["X-Forwarded-For"] = f"203.0.113.{number}, 198.51.100.7"
            assert visitor.register(f"victim-{number}@visitor.test").status_code == 200
        accounts.send()
        assert len(accounts.smtp.messages) == 3
        assert len(accounts.site.rows("SELECT * FROM auth_user")) == 5
        other = accounts.served.browser()
        other.session.headers["X-Forwarded-For"] = "198.51.100.8"
        other.register("other@visitor.test")
        assert len(accounts.mails("other@visitor.test")) == 1


# --- stock Auth ------------------------------------------------------------------------------


def test_stock_auth_lets_a_pending_user_in_through_the_password_reset(tmp_path: Path) -> None:
    """The hole that enable_auth closes. When upstream closes it, this fails: correct docs/accounts.md."""
    with accounts_site(tmp_path, "", settings={"REQUIRES_APPROVAL": True}) as accounts:
        visitor = accounts.served.browser()
        visitor.register("ann@visitor.test")
        verify(visitor, "form", accounts.link("ann@visitor.test", "verify_email"))
        assert accounts.state("ann@visitor.test") == "pending-approval"
        assert not accounts.can_log_in("ann@visitor.test", PASSWORD)
        ask_for_reset(visitor, "api", "ann@visitor.test")
        link = accounts.link("ann@visitor.test", "reset_password")
        assert set_password(visitor, "form", link, NEW_PASSWORD)
        assert accounts.can_log_in("ann@visitor.test", NEW_PASSWORD)
        # And the link works again.
        assert set_password(accounts.served.browser(), "form", link, "Evil-Horse-Battery-33")
        assert accounts.can_log_in("ann@visitor.test", "Evil-Horse-Battery-33")


def test_stock_auth_sends_a_link_to_whatever_host_the_request_names(tmp_path: Path) -> None:
    """When upstream mends it, this fails: correct docs/accounts.md."""
    with accounts_site(tmp_path, "") as accounts:
        accounts.active("ann@visitor.test")
        ask(accounts, "api", "ann@visitor.test", {}, {"Origin": "http://evil.test"})
        assert accounts.link("ann@visitor.test").startswith("http://evil.test/")
        unknown = accounts.served.browser().post(
            "auth/api/request_reset_password", json={"email": "nobody@visitor.test"}
        )
        assert unknown.status_code == 400


def test_stock_auths_unsubscribe_fails(tmp_path: Path) -> None:
    """When upstream mends it, this fails: notices.py need not stand in for it any more."""
    with accounts_site(tmp_path, "") as accounts:
        accounts.active("ann@visitor.test")
        visitor = accounts.served.browser()
        visitor.login("ann@visitor.test")
        assert visitor.post("auth/api/unsubscribe").status_code == 500


def test_stock_auths_api_asks_for_no_second_factor(tmp_path: Path) -> None:
    """When upstream mends it, this fails: correct docs/accounts.md."""
    enabled = "mail.enable_auth(auth)\nauth.param.two_factor_send = mail.two_factor_send"
    with accounts_site(tmp_path, enabled) as accounts:
        accounts.active("ann@visitor.test")
        assert accounts.can_log_in("ann@visitor.test", PASSWORD)

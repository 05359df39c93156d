"""Accounts that wait for approval: approvers are asked by mail, and decide by a link or on the page."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from py4web.core import Session
from py4web.utils.auth import Auth
from requests import Response
from support.accounts import Accounts, accounts_site, link_in, text_of
from support.browser import PASSWORD, Browser
from support.mail import make_mail, rows

WAYS = ("form", "api")
NUMBERS = itertools.count()  # each route can be mounted once in a process
BOSS, OTHER = "boss@site.test", "other@site.test"
ENABLED = f"""
mail.enable_auth(auth, mails_per_address=None, mails_per_client=None)
mail.enable_approval(auth, approvers=[{BOSS!r}, {OTHER!r}], uses=(session, T, db))
mail.enable_admin(auth, uses=(session, T, db))
"""


@pytest.fixture(scope="module")
def accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Accounts]:
    settings = {"REQUIRES_APPROVAL": True}
    with accounts_site(tmp_path_factory.mktemp("approval"), ENABLED, settings) as accounts:
        yield accounts


@pytest.fixture
def approver(accounts: Accounts) -> Browser:
    """Somebody without a login, who comes from a mail."""
    return accounts.served.browser()


def apply(accounts: Accounts, address: str, way: str = "form", **names: str) -> None:
    """Register, and follow the link to verify the address."""
    browser = accounts.served.browser()
    (browser.register if way == "form" else browser.register_by_api)(address, **names)
    token = accounts.link(address, "verify_email").partition("token=")[2]
    browser.get(
        f"auth/verify_email?token={token}" if way == "form" else f"auth/api/verify_email?token={token}"
    )
    assert accounts.state(address) == "pending-approval"


def links(accounts: Accounts, applicant: str, approver: str = BOSS) -> tuple[str, str]:
    """The links to approve and to decline this applicant that this approver was sent."""
    asked = [mail for mail in accounts.mails(approver) if applicant in text_of(mail)]
    assert len(asked) == 1
    return link_in(asked[0], "approve"), link_in(asked[0], "decline")


def press(visitor: Browser, link: str, **fields: str) -> Response:
    """Open a link and press its button."""
    page = visitor.get(link)
    assert page.status_code == 200
    [form] = [form for form in visitor.forms(page) if form.method == "POST"]
    return visitor.submit(form, **fields)


def administrator(accounts: Accounts, address: str = "admin@site.test") -> Browser:
    browser = accounts.served.browser()
    if not accounts.site.rows("SELECT id FROM auth_user WHERE email = ?", address):
        browser.register(address)
    with contextlib.closing(accounts.site.database()) as connection, connection:
        connection.execute("UPDATE auth_user SET action_token = NULL WHERE email = ?", (address,))
        connection.execute(
            "INSERT INTO auth_user_tag_groups (tagpath, record_id)"
            " SELECT '/admin/', id FROM auth_user WHERE email = ?",
            (address,),
        )
    browser.login(address)
    return browser


# --- by the links ----------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_an_approver_lets_an_applicant_in(accounts: Accounts, approver: Browser, way: str) -> None:
    address = f"in-{way}@visitor.test"
    apply(accounts, address, way)
    assert not accounts.can_log_in(address, PASSWORD)
    approve, _ = links(accounts, address)
    page = approver.get(approve)
    assert page.status_code == 200
    assert "Ann Other" in page.text
    assert address in page.text
    assert accounts.state(address) == "pending-approval", "a link that is only opened acts"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Content-Language"] == "en"
    told = press(approver, approve)
    assert "You have approved this account" in told.text
    assert accounts.can_log_in(address, PASSWORD)
    assert "approved" in accounts.mail(address)["Subject"]
    assert "/auth/login" in accounts.link(address)


@pytest.mark.parametrize("way", WAYS)
def test_an_approver_declines_with_a_note(accounts: Accounts, approver: Browser, way: str) -> None:
    address = f"out-{way}@visitor.test"
    apply(accounts, address, way)
    _, decline = links(accounts, address)
    told = press(approver, decline, note="Please use your <b>work</b> address.")
    assert (told.status_code, "You have declined this account" in told.text) == (200, True)
    assert not accounts.can_log_in(address, PASSWORD)
    mail = accounts.mail(address)
    assert "declined" in mail["Subject"]
    assert "Please use your <b>work</b> address." in text_of(mail)
    assert mail.get_body(("html",)) and "<b>work" not in mail.get_body(("html",)).get_content()  # type: ignore
    accounts.served.browser().register(address, username="again")
    assert accounts.state(address) == "account-blocked"
    assert "declined" in accounts.mail(address)["Subject"], "nothing more is sent to a blocked account"


def test_the_pages_of_the_links_speak_the_language_of_whoever_opens_them(
    accounts: Accounts, approver: Browser
) -> None:
    approver.session.headers["Accept-Language"] = "de-AT, en;q=0.5"
    apply(accounts, "spoken@visitor.test")
    approve, decline = links(accounts, "spoken@visitor.test")
    page = approver.get(decline)
    assert page.headers["Content-Language"] == "de" and 'lang="de"' in page.text
    for text in ("Dieses Konto ablehnen?", "Eine Notiz an den Antragsteller", "Stattdessen freigeben"):
        assert text in page.text
    assert "Sie haben dieses Konto freigegeben, am " in press(approver, approve).text
    assert "Dieser Link ist nicht gültig." in approver.get(f"{approve}x").text


def test_each_approver_has_links_of_their_own_and_the_second_one_is_told_who_decided(
    accounts: Accounts, approver: Browser
) -> None:
    apply(accounts, "two@visitor.test")
    mine, theirs = links(accounts, "two@visitor.test"), links(accounts, "two@visitor.test", OTHER)
    assert not set(mine) & set(theirs)
    press(approver, mine[0])
    for link in theirs:
        page = approver.get(link)
        assert page.status_code == 410
        assert f"{BOSS} has approved this account" in page.text
        assert page.text.count("<title>Pending accounts</title>") == 1
        assert not [form for form in approver.forms(page) if form.method == "POST"]
    arrived = len(accounts.mails("two@visitor.test"))
    approver.post(theirs[1])
    approver.post(mine[0])
    assert accounts.can_log_in("two@visitor.test", PASSWORD)
    assert len(accounts.mails("two@visitor.test")) == arrived


def test_links_say_why_they_do_nothing(accounts: Accounts, approver: Browser) -> None:
    apply(accounts, "gone@visitor.test")
    apply(accounts, "elsewhere@visitor.test")
    apply(accounts, "late@visitor.test")
    gone, elsewhere, late = (
        links(accounts, f"{name}@visitor.test")[0] for name in ("gone", "elsewhere", "late")
    )
    with contextlib.closing(accounts.site.database()) as connection, connection:
        connection.execute("DELETE FROM auth_user WHERE email = 'gone@visitor.test'")
        connection.execute("UPDATE auth_user SET action_token = '' WHERE email = 'elsewhere@visitor.test'")
    accounts.advance(7 * 86400 + 1)
    for link, words in (
        (gone, "does not exist any more"),
        (elsewhere, "does not wait for approval any more"),
        (late, "This link expired on"),
    ):
        page = approver.get(link)
        assert page.status_code == 410
        assert words in page.text
        assert approver.post(link).status_code == 410
    assert accounts.state("late@visitor.test") == "pending-approval"
    cut_off = approver.get(late[:-9])
    assert cut_off.status_code == 404
    assert "not valid" in cut_off.text


def test_only_a_hash_of_a_link_is_stored(accounts: Accounts) -> None:
    apply(accounts, "hash@visitor.test")
    token = links(accounts, "hash@visitor.test")[0].rpartition("/")[2]
    assert token not in str(accounts.site.rows("SELECT * FROM mailqueue_approval"))


def test_who_waits_cannot_reset_the_password_and_is_asked_about_once(accounts: Accounts) -> None:
    apply(accounts, "once@visitor.test")
    asked = len(accounts.mails(BOSS))
    browser = accounts.served.browser()
    browser.post("auth/api/request_reset_password", json={"email": "once@visitor.test"})
    browser.register("once@visitor.test", username="again")
    assert accounts.state("once@visitor.test") == "pending-approval"
    assert len(accounts.mails(BOSS)) == asked


def test_an_applicants_name_cannot_put_anything_into_the_mail_or_the_page(
    accounts: Accounts, approver: Browser
) -> None:
    apply(accounts, "x@visitor.test", first="<script>alert(1)</script>", last="\nBcc: x@evil.test")
    approve, _ = links(accounts, "x@visitor.test")
    assert "<script>alert" not in approver.get(approve).text
    mail = next(mail for mail in accounts.mails(BOSS) if "x@visitor.test" in text_of(mail))
    assert mail["Bcc"] is None
    html = mail.get_body(("html",))
    assert html
    assert "<script>alert" not in html.get_content()


def test_an_applicants_name_is_no_message_to_the_approvers(accounts: Accounts, approver: Browser) -> None:
    apply(accounts, "y@visitor.test", first="See", last="http://evil.test/approve")
    mail = next(mail for mail in accounts.mails(BOSS) if "y@visitor.test" in text_of(mail))
    assert "evil.test" not in mail.as_string()
    assert "evil.test" in approver.get(link_in(mail, "approve")).text


# --- on the administrator's page -------------------------------------------------------------


def test_the_page_of_pending_accounts_has_the_same_two_buttons(accounts: Accounts) -> None:
    apply(accounts, "page-in@visitor.test")
    apply(accounts, "page-out@visitor.test")
    admin = administrator(accounts)
    assert "Pending accounts" in admin.get("mailqueue").text
    page = admin.get("mailqueue/accounts")
    assert "page-in@visitor.test" in page.text
    buttons = {
        address: [
            form for form in admin.forms(page) if f"/accounts/{account_id(accounts, address)}/" in form.action
        ]
        for address in ("page-in@visitor.test", "page-out@visitor.test")
    }
    approve, decline = buttons["page-in@visitor.test"][0], buttons["page-out@visitor.test"][1]
    for form in (approve, decline):
        assert admin.get(form.action).status_code in (404, 405)
        unsigned = form.action.partition("?")[0]
        assert admin.post(unsigned).status_code == 403
        assert accounts.served.browser().post(form.action, allow_redirects=False).status_code in (303, 403)
    assert accounts.state("page-in@visitor.test") == "pending-approval"
    admin.submit(approve)
    admin.submit(decline, note="Sorry.")
    assert accounts.can_log_in("page-in@visitor.test", PASSWORD)
    assert accounts.state("page-out@visitor.test") == "account-blocked"
    assert "Sorry." in text_of(accounts.mail("page-out@visitor.test"))
    used = accounts.served.browser().get(links(accounts, "page-in@visitor.test")[0])
    assert "admin@site.test has approved this account" in used.text
    assert "Nothing was changed" in str(admin.submit(approve).history[0].headers["component-flash"])


@pytest.mark.parametrize("who", ["nobody", "somebody"])
def test_only_administrators_see_pending_accounts(accounts: Accounts, who: str) -> None:
    browser = accounts.served.browser()
    if who == "somebody":
        browser.register("some@visitor.test")
        with contextlib.closing(accounts.site.database()) as connection, connection:
            connection.execute("UPDATE auth_user SET action_token = '' WHERE email = 'some@visitor.test'")
        browser.login("some@visitor.test")
    answer = browser.get("mailqueue/accounts", headers={"Accept": "text/html"}, allow_redirects=False)
    assert answer.status_code == (303 if who == "nobody" else 403)


def account_id(accounts: Accounts, address: str) -> int:
    return int(accounts.site.rows("SELECT id FROM auth_user WHERE email = ?", address)[0]["id"])


# --- who is asked ----------------------------------------------------------------------------


def test_at_once_where_no_verification_is_asked_and_in_the_applicants_language(tmp_path: Path) -> None:
    enabled = """
mail.settings.language = "fr"
mail.enable_admin(auth, uses=(session, T, db))
mail.enable_approval(auth, approvers="group:admin", uses=(session, T, db))
"""
    settings = {"REQUIRES_APPROVAL": True, "VERIFY_EMAIL": False}
    with accounts_site(tmp_path, enabled, settings) as accounts:
        accounts.served.browser().register("first@visitor.test")
        assert "no-approvers" in accounts.problems()
        admin = administrator(accounts)
        administrator(accounts, "second@site.test")
        with contextlib.closing(accounts.site.database()) as connection, connection:
            connection.execute(
                "UPDATE auth_user SET action_token = 'account-blocked' WHERE email = 'second@site.test'"
            )
        visitor = accounts.served.browser()
        visitor.session.headers["Accept-Language"] = "de"
        visitor.register_by_api("ann@visitor.test")
        assert accounts.state("ann@visitor.test") == "pending-approval"
        assert accounts.mails("second@site.test") == []
        request = accounts.mail("admin@site.test")
        assert "compte" in request["Subject"]
        assert "ann@visitor.test" in text_of(request)
        press(accounts.served.browser(), link_in(request, "approve"))
        assert re.search("freigegeben|genehmigt|bestätigt", str(accounts.mail("ann@visitor.test")["Subject"]))
        assert "first@visitor.test" in admin.get("mailqueue/accounts").text


def test_approvers_may_be_what_a_function_says_and_its_failure_refuses_nobody(tmp_path: Path) -> None:
    enabled = """
def approvers():
    who = open(os.path.join(settings.APP_FOLDER, "approvers")).read()
    return who.split()
mail.enable_approval(auth, approvers)
"""
    settings = {"REQUIRES_APPROVAL": True, "VERIFY_EMAIL": False}
    with accounts_site(tmp_path, enabled, settings) as accounts:
        assert accounts.served.browser().register("ann@visitor.test").status_code == 200
        assert accounts.state("ann@visitor.test") == "pending-approval"
        assert "FileNotFoundError" in accounts.problems()["no-approvers"]["detail"]
        (accounts.site.folder / "approvers").write_text(f"{BOSS} {BOSS}", encoding="utf-8")
        accounts.served.browser().register("bob@visitor.test")
        assert len(accounts.mails(BOSS)) == 1


@pytest.mark.parametrize("found", [BOSS, [None, BOSS, 7], (address for address in [BOSS])])
def test_what_a_function_finds_besides_addresses_refuses_nobody(tmp_path: Path, found: object) -> None:
    mail = make_mail(tmp_path, server="memory")
    auth = Auth(Session(secret="2f1c8e0a-7b64-4d39"), mail.db, use_username=False)
    mail.settings.base_url = "https://site.test/app"
    mail.enable_approval(auth, lambda: found, route=f"approval-found-{next(NUMBERS)}")
    auth.db.auth_user.insert(email="ann@visitor.test", action_token="pending-approval")
    mail.process_queue()
    assert [message.recipients for message in mail.captured] == [(BOSS,)]


def test_an_approver_is_asked_once_however_the_address_is_written_and_what_is_none_is_named(
    tmp_path: Path,
) -> None:
    mail = make_mail(tmp_path, server="memory")
    auth = Auth(Session(secret="2f1c8e0a-7b64-4d39"), mail.db, use_username=False)
    mail.settings.base_url = "https://site.test/app"
    found = [f"Boss <{BOSS}>", "nonsense", BOSS, BOSS.upper()]
    mail.enable_approval(auth, lambda: found, route=f"approval-found-{next(NUMBERS)}")
    auth.db.auth_user.insert(email="ann@visitor.test", action_token="pending-approval")
    mail.process_queue()
    assert [message.recipients for message in mail.captured] == [(BOSS,)]
    (problem,) = rows(mail, "problem")
    assert (problem["cause"], problem["seen"]) == ("bad-approver@", 1)
    assert "nonsense" in problem["detail"] and "mail.enable_approval" in problem["remedy"]


def test_approvers_are_not_flooded_and_the_account_still_waits(tmp_path: Path) -> None:
    enabled = f"""
mail.enable_auth(auth, mails_per_client="2/hour")
mail.enable_approval(auth, {BOSS!r})
"""
    settings = {"REQUIRES_APPROVAL": True, "VERIFY_EMAIL": False}
    with accounts_site(tmp_path, enabled, settings) as accounts:
        visitor = accounts.served.browser()
        visitor.session.headers["X-Forwarded-For"] = "198.51.100.7"
        for number in range(4):
            assert visitor.register(f"ann-{number}@visitor.test").status_code == 200
            assert accounts.state(f"ann-{number}@visitor.test") == "pending-approval"
        assert len(accounts.mails(BOSS)) == 2
        assert accounts.problems()["too-many-account-mails"]["seen"] == 2

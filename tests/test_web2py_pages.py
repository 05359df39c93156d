"""The administrator's pages in web2py: who may see them, what they show, what their buttons do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from support.browser import PASSWORD, Browser
from support.web2py_site import Web2pySite, member, register


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    site = Web2pySite(tmp_path_factory.mktemp("web2py"))
    site.configure(auth={"registration_requires_verification": False})
    with site.served() as site:
        yield site


@pytest.fixture(autouse=True)
def no_tickets(site: Web2pySite) -> Iterator[None]:
    yield
    assert site.tickets == []


@pytest.fixture(scope="module")
def admin(site: Web2pySite) -> Browser:
    visitor = site.browser()
    register(visitor, "admin@example.test")
    assert visitor.get("default/become_admin").text == "done"
    return visitor


def queued(site: Web2pySite, address: str) -> int:
    site.scenario(f"mail.send({address!r}, 'a subject', 'a secret text')")
    return int(site.mails(address)[0]["id"])


def press(visitor: Browser, path: str, verb: str, message_id: int, **fields: str) -> requests.Response:
    form = visitor.form_to(visitor.get(path), f"/plugin_mailqueue/message/{message_id}/{verb}")
    answer = visitor.submit(form, **fields)
    assert answer.status_code == 200
    return answer


def status(site: Web2pySite, address: str) -> str:
    return str(site.mails(address)[0]["status"])


# --- who -------------------------------------------------------------------------------------


def test_who_logs_in_for_a_page_lands_on_it(site: Web2pySite, admin: Browser) -> None:
    message_id = queued(site, "login@seen.test")
    pressed = admin.form_to(admin.get("plugin_mailqueue/index"), f"/message/{message_id}/cancel").action
    list_of = "/plugin_mailqueue/index?search=a%2Bb&next=//evil.test"
    for asked, method, landed in (
        (f"plugin_mailqueue/message/{message_id}", "GET", f"/plugin_mailqueue/message/{message_id}"),
        (list_of[1:], "GET", list_of),
        (pressed, "POST", "/plugin_mailqueue/index"),
    ):
        visitor = site.browser()
        login = visitor.get(asked) if method == "GET" else visitor.post(asked)
        [form] = [form for form in visitor.forms(login) if "password" in form.fields]
        page = visitor.submit(form, email="admin@example.test", password=PASSWORD)
        assert (page.status_code, "mq-head" in page.text) == (200, True)
        there = urlsplit(page.url)
        assert there.netloc == urlsplit(site.browser().url).netloc
        expected = urlsplit(landed)
        assert there.path.endswith(expected.path) or f"{there.path}/index".endswith(expected.path)
        assert sorted(parse_qsl(there.query)) == sorted(parse_qsl(expected.query))
    assert status(site, "login@seen.test") == "queued"


@pytest.mark.parametrize(
    "page",
    [
        "index",
        "message/1",
        "message/1/content",
        "problems",
        "overview",
        "held",
        "actions",
        "templates",
        "bulk",
    ],
)
def test_only_administrators_see_the_pages(site: Web2pySite, admin: Browser, page: str) -> None:
    queued(site, f"{page.replace('/', '.')}@seen.test")
    anonymous = site.browser().get(f"plugin_mailqueue/{page}", allow_redirects=False)
    assert anonymous.status_code == 303
    assert "/default/user/login" in anonymous.headers["Location"]
    ordinary = member(site, f"member.{page.replace('/', '.')}@example.test")
    assert ordinary.get(f"plugin_mailqueue/{page}").status_code == 403
    seen = admin.get(f"plugin_mailqueue/{page}")
    assert seen.status_code == 200
    assert seen.headers["Cache-Control"] == "no-store"
    assert "secret" not in seen.text


def test_appadmin_shows_the_tables_to_administrators_only(site: Web2pySite, admin: Browser) -> None:
    queued(site, "ann@appadmin.test")
    assert site.browser().get("appadmin/manage/mailqueue").status_code == 403
    assert member(site, "member@appadmin.test").get("appadmin/manage/mailqueue").status_code == 403
    page = admin.get("appadmin/manage/mailqueue").text
    assert all(label in page for label in ("Messages", "Recipients", "Problems"))
    assert "a subject" in admin.get("appadmin/manage.load/mailqueue/0").text
    assert "ann@appadmin.test" in admin.get("appadmin/manage.load/mailqueue/1").text


def test_appadmin_hides_keys_as_the_pages_do_and_exports_nothing(site: Web2pySite, admin: Browser) -> None:
    site.scenario(
        "mail.send('ann@keys.test', 'Reset https://x.test/reset?token=9f86d081884c7d659a2f', 'text')"
    )
    page = admin.get("appadmin/manage.load/mailqueue/0").text
    assert "https://x.test/reset?token=\u2022\u2022\u2022\u2022" in page and "9f86d081" not in page
    for kind in ("csv", "csv_with_hidden_cols", "tsv", "tsv_with_hidden_cols", "xml", "html", "json"):
        exported = admin.get(f"appadmin/manage.load/mailqueue/0?_export_type={kind}")
        assert exported.headers["Content-Type"].startswith("text/html") and "9f86d081" not in exported.text
        assert "web2py_grid" in exported.text


def test_appadmin_lets_nobody_change_a_row(site: Web2pySite, admin: Browser) -> None:
    queued(site, "ann@rows.test")
    page = admin.get("appadmin/manage.load/mailqueue/0").text
    assert not any(f"/{verb}/mailqueue_message" in page for verb in ("edit", "delete", "new"))


# --- what ------------------------------------------------------------------------------------


def test_the_list_shows_the_messages_of_a_status(site: Web2pySite, admin: Browser) -> None:
    queued(site, "ann@list.test")
    site.scenario("mail.send('bob@list.test', '<b>bold</b>', 'text')")
    page = admin.get("plugin_mailqueue/index?status=queued").text
    assert "ann@list.test" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "ann@list.test" not in admin.get("plugin_mailqueue/index?status=sent").text


def test_a_filter_that_is_not_understood_is_left_out_and_the_page_tells_so(
    site: Web2pySite, admin: Browser
) -> None:
    queued(site, "ann@filter.test")
    page = admin.get("plugin_mailqueue/index?status=bogus&search=ann@filter").text
    assert "This filter is not understood, and left out: status=bogus" in page
    assert "ann@filter.test" in page
    assert "is not understood" not in admin.get("plugin_mailqueue/index").text


def test_the_pages_have_their_style_sheet(admin: Browser) -> None:
    found = re.search(r'<link rel="stylesheet" href="/app/(.*?)">', admin.get("plugin_mailqueue/index").text)
    assert found
    assert ".mq-table" in admin.get(found[1]).text


def test_the_list_goes_on_where_a_page_ends(site: Web2pySite, admin: Browser) -> None:
    site.scenario("[mail.send('many%d@pages.test' % n, 'subject', 'text') for n in range(60)]")
    first = admin.get("plugin_mailqueue/index").text
    assert "many59@pages.test" in first
    assert "many1@pages.test" not in first
    last = site.mails("many10@pages.test")[0]["id"]
    assert f"before={last}" in first
    assert "many1@pages.test" in admin.get(f"plugin_mailqueue/index?before={last}").text


def test_the_problem_log_says_what_is_wrong_and_what_to_do(site: Web2pySite, admin: Browser) -> None:
    queued(site, "ann@problem.test")
    site.drain()
    (problem,) = site.rows("SELECT * FROM mailqueue_problem WHERE cause LIKE 'no-server@%'")
    page = admin.get("plugin_mailqueue/problems").text
    assert problem["summary"] in page
    assert problem["remedy"][:40] in page
    assert problem["summary"] in admin.get("plugin_mailqueue/index").text


def test_a_message_that_is_not_there_is_not_found(admin: Browser) -> None:
    for number in ("987654", "x", "", "²"):
        assert admin.get(f"plugin_mailqueue/message/{number}").status_code in (400, 404)


# --- verbs -----------------------------------------------------------------------------------


def test_a_message_is_cancelled_and_retried_from_its_page(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "ann@verbs.test")
    press(admin, f"plugin_mailqueue/message/{number}", "cancel", number)
    assert status(site, "ann@verbs.test") == "cancelled"
    press(admin, f"plugin_mailqueue/message/{number}", "retry", number)
    assert status(site, "ann@verbs.test") == "queued"


def test_a_message_is_cancelled_from_the_list_which_tells_so(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "bob@verbs.test")
    answer = press(admin, "plugin_mailqueue/index?status=queued", "cancel", number)
    assert f"Message {number} is cancelled." in answer.text
    assert answer.url.endswith("/plugin_mailqueue/index?status=queued")
    assert status(site, "bob@verbs.test") == "cancelled"


def test_what_is_in_doubt_is_marked_as_arrived(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "doubt@verbs.test")
    for table in ("message", "recipient"):
        column = "id" if table == "message" else "message_ref"
        site.scenario(f"db(db.mailqueue_{table}.{column} == {number}).update(status='in_doubt', due=None)")
    press(admin, f"plugin_mailqueue/message/{number}", "arrived", number)
    assert status(site, "doubt@verbs.test") == "sent"


def test_an_administrator_sends_themselves_a_copy(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "copied@verbs.test")
    answer = press(admin, f"plugin_mailqueue/message/{number}", "copy", number)
    assert f"A copy of message {number} is on its way to admin@example.test." in answer.text
    assert "a secret text" in site.mails("admin@example.test")[-1]["mail"]


def test_an_address_is_corrected_or_stays_in_its_field_with_the_reason(
    site: Web2pySite, admin: Browser
) -> None:
    number = queued(site, "mistyped@verbs.test")
    for table in ("message", "recipient"):
        column = "id" if table == "message" else "message_ref"
        site.scenario(f"db(db.mailqueue_{table}.{column} == {number}).update(status='failed', due=None)")
    path = f"plugin_mailqueue/message/{number}"
    refused = press(admin, path, "recipient", number, address="no address")
    assert "Nothing was changed: “no address” is not one e-mail address." in refused.text
    assert 'aria-invalid="true"' in refused.text
    told = press(admin, path, "recipient", number, address="right@verbs.test")
    assert f"Message {number} is in the queue for right@verbs.test." in told.text
    assert status(site, "right@verbs.test") == "queued"


def test_a_message_is_retried_over_another_transport(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "over@verbs.test")
    press(admin, f"plugin_mailqueue/message/{number}", "cancel", number)
    before = site.options["mail"]
    ways = ["smtp://127.0.0.1:2501", "smtp://127.0.0.1:2502"]
    site.configure(mail={"transports": ways, "sender": "noreply@site.test"})
    page = admin.get(f"plugin_mailqueue/message/{number}").text
    (second,) = [name for name in re.findall(r"<option>(.*?)</option>", page) if ":2502" in name]
    told = press(admin, f"plugin_mailqueue/message/{number}", "over", number, over=second)
    site.configure(mail=before)
    assert f"Message {number} is back in the queue, to be tried over {second}." in told.text
    assert site.mails("over@verbs.test")[0]["next_transport"] == second


def test_a_problem_is_acknowledged_and_resolved(site: Web2pySite, admin: Browser) -> None:
    queued(site, "ann@resolved.test")
    site.drain()
    (problem,) = site.rows("SELECT * FROM mailqueue_problem WHERE cause LIKE 'no-server@%'")
    for verb, told in (("acknowledge", "Acknowledged: "), ("resolve", "Resolved: ")):
        form = admin.form_to(admin.get("plugin_mailqueue/problems"), f"problems/{problem['id']}/{verb}")
        assert told in admin.submit(form).text
    (problem,) = site.rows("SELECT * FROM mailqueue_problem WHERE cause LIKE 'no-server@%'")
    assert (problem["status"], problem["acknowledged_by"]) == ("resolved", "admin@example.test")


def test_the_messages_of_a_search_are_taken_away_as_csv(site: Web2pySite, admin: Browser) -> None:
    queued(site, "ann@csv.test")
    queued(site, "bob@csv.test")
    form = admin.form_to(admin.get("plugin_mailqueue/index?search=ann@csv"), "/export")
    answer = admin.submit(form)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "ann@csv.test" in answer.text
    assert "bob@csv.test" not in answer.text
    (entry,) = site.rows("SELECT * FROM mailqueue_audit WHERE action_name = 'export'")
    assert entry["detail"] == "search: ann@csv"


def test_a_get_changes_nothing(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "get@verbs.test")
    form = admin.form_to(admin.get(f"plugin_mailqueue/message/{number}"), f"message/{number}/cancel")
    assert admin.get(form.action).status_code == 403
    assert status(site, "get@verbs.test") == "queued"


def test_a_button_holds_for_one_login_one_message_and_one_verb(site: Web2pySite, admin: Browser) -> None:
    number = queued(site, "forged@verbs.test")
    another = queued(site, "another@verbs.test")
    action = admin.form_to(admin.get("plugin_mailqueue/index"), f"message/{number}/cancel").action
    forged = [
        action.partition("?")[0],
        action.replace("_signature=", "_signature=0"),
        action.replace(f"/{number}/", f"/{another}/"),
        action.replace("/cancel", "/copy"),
        action.replace("back=list", "back=lost"),
    ]
    assert [admin.post(url).status_code for url in forged] == [403] * 5
    assert site.browser().post(action, allow_redirects=False).status_code == 303  # to the login
    ordinary = member(site, "member@verbs.test")
    assert ordinary.post(action).status_code == 403
    assert ordinary.get("default/become_admin").text == "done"
    assert ordinary.post(action).status_code == 403
    assert status(site, "forged@verbs.test") == status(site, "another@verbs.test") == "queued"

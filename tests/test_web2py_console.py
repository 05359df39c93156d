"""The pages that web2py shares with py4web: replies, many messages at once, the language."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from support.browser import Browser
from support.smtp_server import ScriptedServer
from support.web2py_site import Web2pySite, member

UNKNOWN = "550 Blue moon, come back in spring"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    site = Web2pySite(tmp_path_factory.mktemp("web2py"))
    approval = {"approvers": ["boss@example.test"], "base_url": "https://site.test/app"}
    site.configure(auth={"registration_requires_verification": False}, approval=approval)
    with site.served() as site:
        yield site


@pytest.fixture(autouse=True)
def no_tickets(site: Web2pySite) -> Iterator[None]:
    yield
    assert site.tickets == []


@pytest.fixture(scope="module")
def admin(site: Web2pySite) -> Browser:
    return administrator(site, "admin@example.test")


def administrator(site: Web2pySite, email: str) -> Browser:
    visitor = member(site, email)
    assert visitor.get("default/become_admin").text == "done"
    return visitor


# --- what replies mean -----------------------------------------------------------------------


def tried(visitor: Browser, text: str, stage: str = "rcpt") -> requests.Response:
    page = visitor.get("plugin_mailqueue/replies")
    return visitor.submit(visitor.form_to(page, "replies/try"), text=text, stage=stage)


def test_only_administrators_see_what_replies_mean(site: Web2pySite, admin: Browser) -> None:
    anonymous = site.browser().get("plugin_mailqueue/replies", allow_redirects=False)
    assert anonymous.status_code == 303
    assert "/default/user/login" in anonymous.headers["Location"]
    assert member(site, "member@replies.test").get("plugin_mailqueue/replies").status_code == 403
    seen = admin.get("plugin_mailqueue/replies")
    assert seen.status_code == 200
    assert seen.headers["Cache-Control"] == "no-store"
    assert "frame-ancestors 'none'" in seen.headers["Content-Security-Policy"]


def test_a_pasted_reply_is_explained(admin: Browser) -> None:
    page = tried(admin, "550 5.1.1 <x@y.test>: User unknown").text
    assert "unknown-address" in page
    assert "a shipped rule" in page
    assert "&lt;x@y.test&gt;" in page


def test_a_pasted_yes_is_said_to_be_one(admin: Browser) -> None:
    page = tried(admin, "250 OK").text
    assert "The mail server says yes: nothing is wrong." in page
    assert "does not take mail" not in page and "Read as" not in page


def test_a_file_that_is_posted_instead_of_a_text_is_no_text(admin: Browser) -> None:
    form = admin.form_to(admin.get("plugin_mailqueue/replies"), "replies/try")
    file = {"text": ("reply.txt", b"550 5.1.1 User unknown")}
    page = admin.session.post(form.action, data={"stage": "rcpt"}, files=file, timeout=30)
    assert page.status_code == 200
    assert "unknown-address" not in page.text


def test_a_reply_that_no_rule_knew_is_decided_by_a_rule_of_the_site(site: Web2pySite, admin: Browser) -> None:
    page = tried(admin, UNKNOWN)
    assert "no rule knew it" in page.text
    told = admin.submit(admin.form_to(page, "replies/add"), meaning="mailbox-full")
    assert "The rule is added." in told.text
    (rule,) = site.rows("SELECT * FROM mailqueue_rule")
    assert (rule["code"], rule["meaning"]) == (550, "mailbox-full")
    assert rule["added_by"] == "admin@example.test"
    assert "a rule of this site" in tried(admin, UNKNOWN).text
    listed = admin.get("plugin_mailqueue/replies")
    removed = admin.submit(admin.form_to(listed, f"replies/{rule['id']}/remove"))
    assert "The rule is removed." in removed.text
    assert site.rows("SELECT * FROM mailqueue_rule") == []
    recorded = [
        row["action_name"] for row in site.rows("SELECT action_name FROM mailqueue_audit ORDER BY id")
    ]
    assert recorded == ["add-rule", "remove-rule"]


def test_a_rule_is_added_by_a_button_of_ones_own_page_only(site: Web2pySite, admin: Browser) -> None:
    form = admin.form_to(tried(admin, UNKNOWN), "replies/add")
    rule = {**form.fields, "meaning": "mailbox-full"}
    unsigned = form.action.partition("?")[0]
    other = administrator(site, "other@replies.test")
    answers = [
        admin.post(unsigned, data=rule),
        admin.post(f"{unsigned}?_signature=guessed", data=rule),
        admin.get(form.action, params=rule),
        other.post(form.action, data=rule),
    ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert site.rows("SELECT * FROM mailqueue_rule") == []


# --- many messages at once -------------------------------------------------------------------


def queue_some(site: Web2pySite, subject: str, number: int = 3) -> None:
    site.scenario(f"[mail.send('ann%d@bulk.test' % n, {subject!r}, 'text') for n in range({number})]")


def statuses(site: Web2pySite, subject: str) -> set[str]:
    found = site.rows("SELECT status FROM mailqueue_message WHERE subject = ?", subject)
    return {row["status"] for row in found}


def test_the_messages_of_a_selection_are_cancelled_together(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "löschen & mehr")
    queue_some(site, "another")
    page = admin.get("plugin_mailqueue/bulk?status=queued&search=löschen+%26")
    told = admin.submit(admin.form_to(page, "bulk/cancel"))
    assert "3 messages are cancelled." in told.text
    assert (statuses(site, "löschen & mehr"), statuses(site, "another")) == ({"cancelled"}, {"queued"})
    begun, done = site.rows("SELECT * FROM mailqueue_audit WHERE action_name = 'cancel' ORDER BY id")
    assert begun["who"] == done["who"] == "admin@example.test"
    assert done["detail"] == "many at once (3): status: queued, search: löschen &"


def test_the_list_leads_to_what_can_be_done_to_all_of_a_search(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "listed")
    page = admin.get("plugin_mailqueue/index?status=queued&search=listed").text
    assert "/plugin_mailqueue/bulk?search=listed&amp;status=queued" in page


def test_a_filter_that_is_not_understood_means_no_messages(site: Web2pySite, admin: Browser) -> None:
    refused = admin.get("plugin_mailqueue/bulk?status=bogus")
    assert refused.status_code == 400
    assert "This filter is not understood: status=bogus" in refused.text


def test_many_are_changed_by_a_button_of_ones_own_page_only(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "signed")
    action = admin.form_to(admin.get("plugin_mailqueue/bulk?search=signed"), "bulk/cancel").action
    forged = [
        action.replace("search=signed", "search=s"),
        action.replace("search=signed&", ""),
        action.replace("bulk/cancel", "bulk/retry"),
        action.partition("&_signature")[0],
    ]
    assert action not in forged
    assert [admin.post(url).status_code for url in forged] == [403] * 4
    assert admin.get(action).status_code == 403
    assert statuses(site, "signed") == {"queued"}


def test_more_messages_than_were_shown_are_not_touched(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "grown")
    site.scenario("db(db.mailqueue_message.subject == 'grown').update(status='cancelled')")
    site.scenario(
        "db.executesql(\"UPDATE mailqueue_message SET status = 'queued' WHERE id = (SELECT MIN(id)"
        " FROM mailqueue_message WHERE subject = 'grown')\")"
    )
    form = admin.form_to(admin.get("plugin_mailqueue/bulk?search=grown"), "bulk/cancel")
    site.scenario("db(db.mailqueue_message.subject == 'grown').update(status='queued')")
    assert "Meanwhile there are more of them: look again." in admin.submit(form).text
    assert statuses(site, "grown") == {"queued"}


def running(site: Web2pySite, **fields: object) -> int:
    """A row of work on many messages that has begun."""
    row = {"status": "running", "action_name": "cancel", "who": "ann@example.test", "changed": 3, **fields}
    begun = "import time; found['id'] = db.mailqueue_bulk.insert(begun_on=time.time(), **%r)"
    return int(site.scenario(begun % row)["id"])


def test_work_on_many_messages_shows_how_far_it_came_and_can_be_stopped(
    site: Web2pySite, admin: Browser
) -> None:
    number = running(site, chosen="status=queued", expected=7, first_below=9, next_below=5)
    path = f"plugin_mailqueue/progress/{number}"
    assert f"/{path}" in admin.get("plugin_mailqueue/bulk").text
    page = admin.get(path)
    assert page.headers["Refresh"] == "3"
    assert all(part in page.text for part in ("3 of 7", "<dd>queued</dd>", "ann@example.test", "<progress"))
    stop = admin.form_to(page, f"progress/{number}/stop")
    assert admin.post(stop.action.partition("?")[0]).status_code == 403
    assert "It is stopped. What was done stays done." in admin.submit(stop).text
    again = admin.get(path)
    assert "Refresh" not in again.headers
    assert "stopped" in again.text
    (entry,) = site.rows("SELECT detail FROM mailqueue_audit WHERE detail LIKE '%stopped%'")
    assert entry["detail"] == "many at once (3, stopped by admin@example.test): status: queued"


def test_the_worker_goes_on_with_what_a_request_has_begun(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "left")
    last = site.rows("SELECT MAX(id) AS id FROM mailqueue_message")[0]["id"]
    number = running(site, chosen="search=left", first_below=last + 1, next_below=last + 1, changed=0)
    site.drain()
    assert statuses(site, "left") == {"cancelled"}
    page = admin.get(f"plugin_mailqueue/progress/{number}").text
    assert "<dd>done</dd>" in page
    assert "<dd>3</dd>" in page


def test_unknown_work_on_many_messages_is_not_found(site: Web2pySite, admin: Browser) -> None:
    for number in ("99999", "x", ""):
        assert admin.get(f"plugin_mailqueue/progress/{number}").status_code in (400, 404)


# --- how things stand ------------------------------------------------------------------------


def served_by(site: Web2pySite, smtp: ScriptedServer) -> None:
    site.configure(mail={"server": f"127.0.0.1:{smtp.port}", "sender": "noreply@site.test", "tls": False})


def test_the_overview_says_what_waits_and_comes_anew_by_itself(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "overseen")
    page = admin.get("plugin_mailqueue/overview")
    assert re.search(r">\d+ queued</a>", page.text)
    assert page.text.count("<svg") == 3
    script = re.search(r'<script src="/app/([^"]*refresh.js[^"]*)" data-seconds="30"', page.text)
    assert script and "mq-live" in admin.get(script[1]).text
    assert "refresh.js" not in admin.get("plugin_mailqueue/overview?refresh=off").text
    menu = re.findall(r'<a href="/app/plugin_mailqueue/(\w*)"[^>]*>([A-Z][a-z]+)', page.text)
    assert [name for name, _ in menu[:3]] == ["overview", "index", "problems"]


def test_the_connection_is_tested_by_a_button_and_that_is_recorded(
    site: Web2pySite, admin: Browser, smtp: ScriptedServer
) -> None:
    served_by(site, smtp)
    form = admin.form_to(admin.get("plugin_mailqueue/overview"), "plugin_mailqueue/test")
    assert admin.get(form.action).status_code == 403
    assert admin.post(form.action.partition("?")[0]).status_code == 403
    assert smtp.connections == 0
    page = admin.submit(form).text
    assert f"smtp://127.0.0.1:{smtp.port}" in page and "The mail server can be used." in page
    assert smtp.connections == 1 and smtp.messages == []
    assert "Connection tested" in admin.get("plugin_mailqueue/actions").text


def test_while_a_server_keeps_the_test_waiting_the_other_pages_do_not_wait(
    site: Web2pySite, admin: Browser
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor() as pool:
        site.configure(mail={"server": f"127.0.0.1:{silent.getsockname()[1]}", "sender": "site@example.test"})
        form = admin.form_to(admin.get("plugin_mailqueue/overview"), "plugin_mailqueue/test")
        tested = pool.submit(admin.submit, form)
        connection, _ = silent.accept()
        with connection:
            assert admin.get("plugin_mailqueue/overview").status_code == 200
            assert not tested.done()
        page = tested.result(30)
    assert page.status_code == 200
    again = admin.form_to(page, "plugin_mailqueue/test")
    assert admin.submit(again).status_code == 200, "the button on its page holds, too"


def test_no_form_stands_in_a_paragraph_which_html_does_not_allow(
    site: Web2pySite, admin: Browser, smtp: ScriptedServer
) -> None:
    served_by(site, smtp)
    queue_some(site, "paragraph")
    (message,) = site.rows("SELECT MAX(id) AS id FROM mailqueue_message")
    pages = [admin.get(f"plugin_mailqueue/{path}") for path in ("bulk", f"message/{message['id']}/content")]
    pages.append(admin.submit(admin.form_to(admin.get("plugin_mailqueue/overview"), "plugin_mailqueue/test")))
    for page in pages:
        assert "<form" in page.text
        assert not re.search(r"<p(?: [^>]*)?>\s*<form", page.text), page.url


def test_what_is_held_back_is_shown_and_can_be_let_go(site: Web2pySite, admin: Browser) -> None:
    assert "No mail is held back" in admin.get("plugin_mailqueue/held").text
    assert ">Held back</a>" not in admin.get("plugin_mailqueue/index").text
    site.scenario(
        "import time; now = time.time()\n"
        "mail.send('ann@busy.test', 'held', 'text')\n"
        "held = dict(held_by='domain:busy.test', due=now + 600)\n"
        "db(db.mailqueue_recipient.address == 'ann@busy.test').update(**held)\n"
        "found['id'] = db.mailqueue_lesson.insert(name='domain:busy.test', strikes=3, pace=10,"
        " learned_on=now, rests_until=now + 600, reason='<i>slow down')"
    )
    assert ">Held back</a>" in admin.get("plugin_mailqueue/index").text
    page = admin.get("plugin_mailqueue/held")
    assert "busy.test" in page.text and "&lt;i&gt;slow down" in page.text
    form = admin.form_to(page, "/forget")
    assert admin.post(form.action.replace("/forget", "7/forget")).status_code == 403
    assert "busy.test is sent to at full speed again." in admin.submit(form).text
    assert site.rows("SELECT * FROM mailqueue_lesson") == []


def test_what_administrators_did_is_listed(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "acted on", 1)
    admin.submit(admin.form_to(admin.get("plugin_mailqueue/index?search=acted"), "/cancel"))
    page = admin.get("plugin_mailqueue/actions").text
    assert "admin@example.test" in page
    assert re.search(r'<a href="/app/plugin_mailqueue/message/\d+">\d+</a>', page)
    assert "Newest" in admin.get("plugin_mailqueue/actions?before=999999").text


def test_each_template_is_shown_in_each_language(site: Web2pySite, admin: Browser) -> None:
    listed = admin.get("plugin_mailqueue/templates").text
    assert 'href="/app/plugin_mailqueue/template/verify_email/de"' in listed
    shown = admin.get("plugin_mailqueue/template/verify_email/de")
    assert 'sandbox="" referrerpolicy="no-referrer"' in shown.text and "Bitte" in shown.text
    assert shown.headers["Referrer-Policy"] == "no-referrer"
    for missing in ("template/verify_email/xx", "template/none/de", "template", "template/verify_email"):
        assert admin.get(f"plugin_mailqueue/{missing}").status_code == 404


def test_the_content_is_shown_on_request_and_that_is_recorded(site: Web2pySite, admin: Browser) -> None:
    site.scenario("mail.send('ann@content.test', 'shown', ('a secret', '<p onclick=\"x()\">a link</p>'))")
    number = site.mails("ann@content.test")[0]["id"]
    before = admin.get(f"plugin_mailqueue/message/{number}")
    assert "a secret" not in before.text
    form = admin.form_to(before, f"message/{number}/content")
    asked = admin.get(form.action.partition("?")[0])
    assert asked.status_code == 200 and "a secret" not in asked.text
    assert admin.post(form.action.partition("?")[0]).status_code == 403
    shown = admin.submit(form)
    assert "a secret" in shown.text and "&lt;p onclick=" in shown.text
    assert shown.headers["Referrer-Policy"] == "no-referrer" and shown.headers["Cache-Control"] == "no-store"
    recorded = site.rows("SELECT * FROM mailqueue_audit WHERE action_name = 'show'")
    assert [(row["message_ref"], row["who"]) for row in recorded] == [(number, "admin@example.test")]


def test_health_is_open_to_everybody_and_fails_where_nobody_sends(site: Web2pySite) -> None:
    site.drain()
    monitor = site.browser()
    answer = monitor.get("plugin_mailqueue/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["Content-Type"].startswith("application/json")
    queue_some(site, "a secret subject", 1)
    site.scenario("db(db.mailqueue_message.subject == 'a secret subject').update(due=1)")
    site.scenario("db(db.mailqueue_pulse.id > 0).delete()")
    answer = monitor.get("plugin_mailqueue/health")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (503, "no-store")
    assert answer.json()["status"] == "failing" and "No worker was seen" in answer.json()["reason"]
    site.drain()
    assert monitor.get("plugin_mailqueue/health").status_code == 200


def test_who_acts_is_asked_of_the_database_once_a_request_however_many_buttons_there_are(
    site: Web2pySite, admin: Browser
) -> None:
    found = site.scenario(
        "console, before = current.plugin_mailqueue.console, len(db._timings)\n"
        "buttons = [console.button('Retry', 'Retry', '/') for _ in range(20)]\n"
        "found['asked'] = [made[0] for made in db._timings[before:]]"
    )
    assert sum("auth_group" in statement for statement in found["asked"]) == 1


# --- who may only look -----------------------------------------------------------------------


def test_readers_see_the_pages_and_can_do_nothing(site: Web2pySite, admin: Browser) -> None:
    queue_some(site, "read only", 1)
    (row,) = site.rows("SELECT id FROM mailqueue_message WHERE subject = 'read only'")
    reader = member(site, "auditor@example.test")
    assert reader.get("default/become_auditor").text == "done"
    seen = ("index", "problems", "replies", "overview", "held", "actions", "templates", "accounts")
    for path in (*seen, f"message/{row['id']}", "template/verify_email/en"):
        page = reader.get(f"plugin_mailqueue/{path}")
        assert page.status_code == 200, path
        assert not [
            form
            for form in reader.forms(page)
            if "/plugin_mailqueue/" in form.action and form.method == "POST"
        ]
    for path in ("bulk", "progress/1", f"message/{row['id']}/content"):
        refused = reader.get(f"plugin_mailqueue/{path}")
        assert (
            refused.status_code == 403
            and "You may look at the mail of this site, but not act." in refused.text
        )
    theirs = admin.form_to(admin.get("plugin_mailqueue/index?search=read+only"), "/cancel").action
    assert reader.post(theirs).status_code == 403
    assert statuses(site, "read only") == {"queued"}


# --- the reader's language -------------------------------------------------------------------

PAGES = (
    "overview", "index", "message/1", "message/1/content", "bulk", "problems", "held", "replies", "accounts",
    "actions", "templates", "template/verify_email/de",
)  # fmt: skip
GERMAN = {"Accept-Language": "de-AT,de;q=0.9"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_in_the_language_that_the_browser_asks_for(
    site: Web2pySite, admin: Browser, page: str
) -> None:
    queue_some(site, "in German")
    answer = admin.get(f"plugin_mailqueue/{page}", headers=GERMAN)
    assert answer.headers["Content-Language"] == "de"
    assert '<div class="mq" lang="de">' in answer.text
    assert "Nachrichten" in answer.text
    assert "Problems" not in answer.text


def test_what_a_button_did_is_told_in_the_readers_language(site: Web2pySite) -> None:
    reader = administrator(site, "german@example.test")
    reader.session.headers.update(GERMAN)
    queue_some(site, "told", 1)
    number = site.rows("SELECT MAX(id) AS id FROM mailqueue_message")[0]["id"]
    form = reader.form_to(reader.get("plugin_mailqueue/index"), f"message/{number}/cancel")
    assert f"Nachricht {number} ist abgebrochen." in reader.submit(form).text
    refused = reader.get("plugin_mailqueue/message/987654")
    assert refused.status_code == 404
    assert "Es gibt keine Nachricht mit dieser Nummer" in refused.text
    assert refused.headers["Content-Language"] == "de"


def test_a_sites_own_translations_go_before_the_shipped_ones(site: Web2pySite, admin: Browser) -> None:
    folder = site.app / "translations"
    folder.mkdir()
    (folder / "de.json").write_text('{"Replies": {"0": "Was Server sagen"}}', encoding="utf-8")
    assert "Was Server sagen" in admin.get("plugin_mailqueue/index", headers=GERMAN).text
    (folder / "de.json").write_text("{", encoding="utf-8")
    assert "Antworten" in admin.get("plugin_mailqueue/index", headers=GERMAN).text
    (folder / "de.json").unlink()
    folder.rmdir()


# --- on every database -----------------------------------------------------------------------


def test_the_pages_read_and_act(site: Web2pySite, empty_uri: str) -> None:
    usual = site.options["uri"]
    uri = empty_uri.replace("postgres@", "postgres:any@")  # pydal of that time cannot do without a password
    site.configure(uri=uri)
    try:
        reader = administrator(site, "everywhere@example.test")
        queue_some(site, "everywhere")
        for page in (*PAGES, "index?search=every&failure=transient&since=2020-01-01"):
            answer = reader.get(f"plugin_mailqueue/{page}")
            assert answer.status_code == 200, page
            assert "<title" not in answer.text, "web2py's layouts have it by response.title"
        page = reader.get("plugin_mailqueue/bulk?search=everywhere")
        assert "3 messages are cancelled." in reader.submit(reader.form_to(page, "bulk/cancel")).text
        rule = reader.form_to(tried(reader, UNKNOWN), "replies/add")
        assert "The rule is added." in reader.submit(rule, meaning="mailbox-full").text
    finally:
        site.configure(uri=usual)


def menu(visitor: Browser, path: str) -> dict[str, int]:
    """Where the menu of a page leads, and what is answered there."""
    head = visitor.get(path).text.partition("</header>")[0]
    found = re.findall(r'<a href="/app/(plugin_mailqueue/(\w+))"', head)
    return {name: visitor.get(link).status_code for link, name in found}


@pytest.mark.parametrize(
    ("admin_lines", "approval_readers", "path", "shown"),
    [
        ("mail.enable_admin(auth, readers='auditors')", "None", "overview", {"overview", "index"}),
        ("pass", "'auditors'", "accounts", {"accounts"}),
        ("mail.enable_admin(auth)", "'auditors'", "accounts", {"accounts"}),
        ("mail.enable_admin(auth, readers='auditors')", "'auditors'", "accounts", {"overview", "accounts"}),
    ],
)
def test_the_menu_leads_to_what_this_visitor_may_see(
    tmp_path: Path, admin_lines: str, approval_readers: str, path: str, shown: set[str]
) -> None:
    site = Web2pySite(tmp_path)
    model = site.app / "models" / "db.py"
    text = model.read_text(encoding="utf-8")
    text = text.replace('mail.enable_admin(auth, readers="auditors")', admin_lines)
    text = text.replace(
        'enable_approval(auth, readers="auditors"', f"enable_approval(auth, readers={approval_readers}"
    )
    model.write_text(text, encoding="utf-8")
    approval = {"approvers": ["boss@example.test"], "base_url": "https://site.test/app"}
    site.configure(auth={"registration_requires_verification": False}, approval=approval)
    with site.served():
        reader = member(site, "reader@menu.test")
        assert reader.get("default/become_auditor").text == "done"
        answers = menu(reader, f"plugin_mailqueue/{path}")
        assert set(answers.values()) == {200}
        assert shown <= set(answers)
        assert ("accounts" in answers) == ("accounts" in shown)
        assert site.tickets == []

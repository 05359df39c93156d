"""Attacks on the administrator's pages, over HTTP: one test for each way in."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest
from mailqueue import audit, problems, rulebook, words
from mailqueue.classify import Failure
from mailqueue.own_rules import OwnRule
from requests import Response
from support.browser import Browser, Form
from support.console_site import Queue, make_console_site, registered
from support.scaffold import ServedSite

EVIL = """<img src=x onerror=alert(1)>"'{mq.mail}[[=1+1]]"""
# py4web's own server leaves the body of what it refuses in the connection, as if it were the next request.
ALONE = {"Connection": "close"}
TWO_WAYS = "mail.settings.transports = ['smtp://one.example.test:25', 'smtp://two.example.test:25']"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    site = make_console_site(tmp_path_factory.mktemp("attacked"), SMTP_SENDER="site@example.test")
    with (site.folder / "common.py").open("a", encoding="utf-8") as common:
        common.write(f"{TWO_WAYS}\n")
    with site.serve() as running:
        yield running


@pytest.fixture(scope="module")
def admin(served: ServedSite) -> Browser:
    return registered(served, "admin@example.test", "/admin/")


@pytest.fixture(scope="module")
def reader(served: ServedSite) -> Browser:
    return registered(served, "reader@example.test", "/auditors/")


@pytest.fixture
def queue(served: ServedSite, admin: Browser) -> Iterator[Queue]:
    with contextlib.closing(served.site.dal()) as db:
        queue = Queue(db)
        queue.clear()
        yield queue


def title(page: Response) -> str:
    [found] = re.findall(r"<title>(.*?)</title>", page.text)
    return html.unescape(found)


def test_every_page_is_called_by_what_is_on_it_and_no_title_tells_a_code(
    admin: Browser, queue: Queue
) -> None:
    code, plain, nameless = (
        queue.put(subject="123456 is your code"),
        queue.put(subject=EVIL),
        queue.put(subject=""),
    )
    queue.db(queue.db.mailqueue_message.id == code).update(category="auth")
    queue.db.commit()
    assert title(admin.get(f"mailqueue/message/{code}")) == f"Message {code}: •••• is your code"
    assert title(admin.get(f"mailqueue/message/{plain}")) == f"Message {plain}: {EVIL}"
    assert title(admin.get(f"mailqueue/message/{nameless}")) == f"Message {nameless}: (no subject)"
    [form] = [form for form in forms(admin, f"mailqueue/message/{code}") if "/content?" in form.action]
    shown = admin.submit(form)
    assert "123456" in shown.text
    assert title(shown) == f"Content of message {code}: •••• is your code"
    german = {"Accept-Language": "de"}
    assert title(admin.get(f"mailqueue/message/{nameless}", headers=german)).endswith("(kein Betreff)")
    paths = ("", "/overview", "/problems", "/held", "/replies", "/actions", "/bulk", "/templates")
    more = ("/template/verify_email/de", "/template/verify_email/en", f"/message/{plain}/content")
    titles = [title(admin.get(f"mailqueue{path}")) for path in (*paths, *more)]
    assert len(set(titles)) == len(titles), titles


def forms(browser: Browser, path: str) -> list[Form]:
    """The forms of a page that change something."""
    return [form for form in browser.forms(browser.get(path)) if form.method == "POST"]


def all_forms(browser: Browser, queue: Queue) -> list[Form]:
    """Every button that there is, pressed or not."""
    failed, waiting = queue.failed(), queue.put()
    assert rulebook.add(queue.db, OwnRule(words.RCPT, 550, "", "computer", "mailbox-full"), "a@b.test", 0.0)
    unknown = {
        "stage": words.RCPT,
        "failure_kind": words.RECIPIENT,
        "cause": "recipient-refused",
        "code": 550,
    }
    queue.finish(queue.put(), status=words.FAILED, reply="Who knows", **unknown)
    problems.report(queue.db, Failure(words.MESSAGE, words.DOT, "too-big", "x"), "smtp://a.test", 0.0)
    queue.db.commit()
    paths = ["", "/overview", "/problems", "/replies", "/bulk", f"/message/{failed}", f"/message/{waiting}"]
    found = [form for path in paths for form in forms(browser, f"mailqueue{path}")]
    verbs = {form.action.partition("?")[0].rpartition("/")[2] for form in found}
    expected = {"retry", "cancel", "copy", "over", "correct", "content", "export", "delete", "test"}
    assert expected | {"try", "add", "remove", "acknowledge", "resolve"} <= verbs
    return found


def state(queue: Queue) -> tuple[object, ...]:
    """All that a verb could change."""
    db = queue.db
    db.commit()
    messages = [(row.id, row.status) for row in db(db.mailqueue_message.id > 0).select()]
    open_ones = db(db.mailqueue_problem.status == problems.OPEN).count()
    return messages, open_ones, rulebook.rules(db), audit.latest(db, None, 100)


def test_nothing_is_done_by_a_link(admin: Browser, queue: Queue) -> None:
    found = all_forms(admin, queue)
    before = state(queue)
    for form in found:
        path = form.action.partition("?")[0]
        if not path.endswith("/content"):
            answer = admin.get(form.action)
            assert (answer.status_code, answer.headers["Allow"]) == (405, "POST"), path
            assert "Please use the button on its page." in answer.text, path
            [back] = re.findall(r'<a href="([^"]*)">← ', answer.text)
            there = forms(admin, urljoin(form.action, html.unescape(back)))
            assert path in [one.action.partition("?")[0] for one in there], "that is where the button is"
    assert state(queue) == before


def test_another_sites_form_does_nothing(admin: Browser, queue: Queue) -> None:
    found = all_forms(admin, queue)
    before = state(queue)
    for form in found:
        bare = re.sub(r"[?&]_signature=[^&]*", "", form.action)
        assert bare != form.action
        assert admin.post(bare, data=form.fields, headers=ALONE).status_code == 403, form.action
    assert state(queue) == before


def test_who_may_only_look_does_nothing_with_an_administrators_form(
    admin: Browser, reader: Browser, queue: Queue
) -> None:
    found = all_forms(admin, queue)
    before = state(queue)
    for form in found:
        answer = reader.post(form.action, data=form.fields, headers=ALONE)
        assert (answer.status_code, "not act" in answer.text) == (403, True), form.action
    for path in ("", "/overview", "/problems", "/replies", "/held", "/actions"):
        assert forms(reader, f"mailqueue{path}") == [], path
    assert state(queue) == before


def test_a_form_for_one_message_is_of_no_use_for_another(admin: Browser, queue: Queue) -> None:
    one, other = queue.failed(), queue.failed()
    before = state(queue)
    for form in forms(admin, f"mailqueue/message/{one}"):
        path, _, query = form.action.partition("?")
        forged = path.replace(f"/message/{one}", f"/message/{other}")
        assert admin.post(f"{forged}?{query}", data=form.fields, headers=ALONE).status_code == 403
    assert state(queue) == before


@pytest.mark.parametrize("number", ["0", "987654321", "99999999999999999999", "-1", "1%00", "1'--"])
def test_a_guessed_number_is_not_found(admin: Browser, queue: Queue, number: str) -> None:
    for path in (f"mailqueue/message/{number}", f"mailqueue/message/{number}/content"):
        assert admin.get(path).status_code == 404
    for verb in ("retry", "cancel", "copy", "over", "content"):
        assert admin.post(f"mailqueue/message/{number}/{verb}", headers=ALONE).status_code in (403, 404, 405)
    assert admin.post(f"mailqueue/replies/{number}/remove", headers=ALONE).status_code in (403, 404, 405)


def test_no_button_leads_to_another_site(served: ServedSite, admin: Browser, queue: Queue) -> None:
    message_id = queue.failed()
    [form] = [one for one in forms(admin, f"mailqueue/message/{message_id}") if "/retry?" in one.action]
    away = "&back=https://evil.test/&next=//evil.test&_next=https://evil.test&before=//evil.test"
    answer = admin.post(form.action + away, headers={"Referer": "https://evil.test/"}, allow_redirects=False)
    assert answer.status_code == 303
    assert answer.headers["Location"].removeprefix(served.url).startswith(("/mailqueue", "/site/mailqueue"))
    assert "evil" not in answer.headers["Location"]


def test_what_others_wrote_is_text_wherever_it_is_shown(admin: Browser, queue: Queue) -> None:
    message_id = queue.put(to="ann@example.test", subject=f"Subject {EVIL}", text=EVIL, html="<p>Hi</p>")
    queue.finish(
        message_id,
        status=words.FAILED,
        stage=words.RCPT,
        failure_kind=words.RECIPIENT,
        cause="recipient-refused",
        code=550,
        reply=f"Reply {EVIL}",
    )
    for table in ("message", "recipient", "attempt"):
        queue.db(queue.db[f"mailqueue_{table}"].id > 0).update(transport=f"Transport {EVIL}")
    queue.db(queue.db.mailqueue_message.id > 0).update(category=EVIL, sender=f"Sender {EVIL}")
    queue.db(queue.db.mailqueue_recipient.id > 0).update(address=f"{EVIL}@x.test", held_by=f"domain:{EVIL}")
    queue.db.mailqueue_transport.insert(name=f"Transport {EVIL}", paused_on=1.0, reason=EVIL, stage=EVIL)
    failure = Failure(words.CONFIGURATION, words.CONFIG, f"rule {EVIL}", f"Detail {EVIL}")
    problems.report(queue.db, failure, f"Transport {EVIL}", 1.0)
    audit.record(queue.db, f"Who {EVIL}", f"Do {EVIL}", queue.clock(), message_id, f"Detail {EVIL}")
    rulebook.add(queue.db, OwnRule(words.RCPT, 551, "", f"Rule {EVIL}", "mailbox-full"), f"Who {EVIL}", 0.0)
    queue.db.commit()
    message = f"mailqueue/message/{message_id}"
    paths = ["", "/overview", "/problems", "/replies", "/held", "/actions", "/bulk?search=" + EVIL]
    pages = [admin.get(f"mailqueue{path}") for path in paths] + [admin.get(message)]
    [show] = [form for form in forms(admin, message) if "/content?" in form.action]
    [tried] = [form for form in forms(admin, "mailqueue/replies") if "/try?" in form.action]
    pages += [admin.submit(show), admin.submit(tried, text=f"550 {EVIL}", stage=EVIL)]
    for page in pages:
        assert page.status_code == 200, page.url
        assert "<img src=x" not in page.text, page.url
        assert 'alert(1)>"' not in page.text, f"it ends an attribute on {page.url}"
    shown = html.unescape("".join(page.text for page in pages))
    for what in ("Subject", "Reply", "Transport", "Sender", "Detail", "Who", "Do", "Rule"):
        assert f"{what} {EVIL}"[:25] in shown, f"{what} is shown as it is"


def test_a_retry_goes_over_a_transport_of_the_site_only(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed()
    [form] = [one for one in forms(admin, f"mailqueue/message/{message_id}") if "/over?" in one.action]
    admin.submit(form, over="smtp://evil.test:25")
    assert queue.status(message_id) == words.FAILED
    admin.submit(form, over="smtp+starttls://two.example.test:25")
    assert queue.status(message_id) == words.QUEUED
    row = queue.db.mailqueue_message(message_id)
    assert row.next_transport == "smtp+starttls://two.example.test:25"
    assert (
        "goes over smtp+starttls://two.example.test:25" in admin.get(f"mailqueue/message/{message_id}").text
    )
    assert audit.latest(queue.db, None, 1)[0]["detail"] == "over smtp+starttls://two.example.test:25"

"""The administrator's pages, over HTTP, in the scaffold site."""

from __future__ import annotations

import contextlib
import html
import io
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from mailqueue import (
    Attachment,
    QueuedMailer,
    audit,
    leases,
    ledger,
    liveness,
    outbox,
    problems,
    queries,
    rulebook,
    words,
)
from mailqueue.administration import relative
from mailqueue.classify import Failure
from mailqueue.compose import compose
from mailqueue.console import actions as actions_page
from mailqueue.console.message import VERBS
from mailqueue.console.messages import ROWS
from mailqueue.ledger import Ledger
from mailqueue.lessons import Lesson
from mailqueue.limits import Limit, Rate
from mailqueue.outbox import HeldBack, Retention
from mailqueue.tables import define_tables
from mailqueue.terms import terms
from py4web.core import DAL
from requests import Response
from support.browser import Browser, Form
from support.console_site import MOUNT, TRANSPORT, Queue, registered
from support.scaffold import ServedSite, Site, make_site
from support.smtp_server import ScriptedServer

HTML = {"Accept": "text/html"}
PAGES = (
    "mailqueue",
    "mailqueue/problems",
    "mailqueue/message/1",
    "mailqueue/message/1/content",
    "mailqueue/held",
    "mailqueue/bulk",
    "mailqueue/actions",
    "mailqueue/overview",
    "mailqueue/replies",
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    site = make_site(tmp_path_factory.mktemp("admin"), settings={"VERIFY_EMAIL": False}, extra_common=MOUNT)
    with site.serve() as running:
        yield running


@pytest.fixture(scope="module")
def admin(served: ServedSite) -> Browser:
    return registered(served, "admin@example.test", "/admin/")


@pytest.fixture
def queue(served: ServedSite, admin: Browser) -> Iterator[Queue]:
    db = served.site.dal()
    queue = Queue(db)
    queue.clear()
    yield queue
    db.close()


def button(browser: Browser, path: str, verb: str) -> Form:
    [form] = buttons(browser, path, verb)
    return form


def buttons(browser: Browser, path: str, verb: str) -> list[Form]:
    return [form for form in browser.forms(browser.get(path)) if f"/{verb}?" in form.action]


def content_of(browser: Browser, message_id: int) -> Response:
    """The content of a message, asked for on its page."""
    return browser.submit(button(browser, f"mailqueue/message/{message_id}", "content"))


def actions(queue: Queue) -> list[tuple[str, str, int | None, str]]:
    """What is recorded of administrators."""
    table = queue.db.mailqueue_audit
    queue.db.commit()
    rows = queue.db(table.id > 0).select(orderby=table.id)
    return [(row.who, row.action_name, row.message_ref, row.detail) for row in rows]


def wait_until_idle(site: Site, patience: float = 20.0) -> None:
    """Return when the scheduler has nothing to do before its next periodic run, an hour away."""
    busy = (
        "SELECT * FROM task_run WHERE status IN ('assigned', 'running')"
        " OR (status = 'queued' AND worker IS NULL AND scheduled_for < datetime('now', '+1 minute'))"
    )
    end = time.monotonic() + patience
    while site.rows(busy) or not site.rows("SELECT id FROM task_run"):
        assert time.monotonic() < end, site.rows("SELECT * FROM task_run")
        time.sleep(0.05)


def told(page: Response) -> str:
    """The flash that came with the redirect to this page: requests spoils its cookie."""
    return str(json.loads(page.history[0].headers["component-flash"])["message"])


def listed(browser: Browser, path: str = "mailqueue") -> list[str]:
    """The subjects on the list of messages."""
    return [
        html.unescape(found)
        for found in re.findall(r'class="mq-subject"[^>]*>(.*?)</a>', browser.get(path).text)
    ]


def neighbour(browser: Browser, path: str, rel: str) -> str | None:
    found = re.search(rf'<a rel="{rel}" href="([^"]+)"', browser.get(path).text)
    return html.unescape(found[1]).removeprefix("/site/") if found else None


# --- who may see it --------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES)
def test_an_anonymous_visitor_is_sent_to_the_login_page(served: ServedSite, path: str) -> None:
    answer = served.browser().get(path, headers=HTML, allow_redirects=False)
    assert answer.status_code == 303
    assert "/site/auth/login?next=" in answer.headers["Location"]


@pytest.mark.parametrize("path", PAGES)
def test_only_members_of_the_group_see_the_pages(served: ServedSite, queue: Queue, path: str) -> None:
    queue.put(subject="Confidential")
    outsiders = (("ann@example.test", ""), ("bob@example.test", "/admin/readers/"), ("c@example.test", "/x/"))
    for email, group in outsiders:
        answer = registered(served, email, group).get(path)
        assert answer.status_code == 403
        assert "Confidential" not in answer.text


def test_whoever_is_refused_is_told_why_and_what_to_do_with_a_way_back(
    served: ServedSite, admin: Browser, reader: Browser, queue: Queue
) -> None:
    visitor = registered(served, "visitor@example.test")
    form = button(admin, f"mailqueue/message/{queue.put()}", "cancel")
    german = {"Accept-Language": "de"}
    start, back = "/site/index", "/site/mailqueue"
    for answer, status, says, to_do, way_back in (
        (visitor.get("mailqueue"), 403, "for the administrators", "log in with that account", start),
        (visitor.get("mailqueue", headers=german), 403, "für die Administratoren", "Konto", start),
        (reader.get("mailqueue/bulk"), 403, "but not act", "Ask an administrator", back),
        (admin.post(f"{form.action}0"), 403, "does not hold any more", "Load the page anew", back),
        (admin.get("mailqueue/message/987654"), 404, "no message with this number", "its recipient", back),
        (admin.get("mailqueue/progress/99"), 404, "Nothing is known", "", back),
        (admin.get("mailqueue/template/nonsense/de"), 404, "no such template", "", f"{back}/templates"),
        (admin.get("mailqueue/bulk?status=<b>"), 400, "status=&lt;b&gt;", "Choose the messages", back),
        (admin.get(form.action), 405, "use the button", "", form.action.partition("/cancel")[0][-20:]),
    ):
        assert (answer.status_code, answer.headers["Content-Type"][:9]) == (status, "text/html")
        assert says in answer.text and to_do in answer.text, answer.text
        [link] = re.findall(r'<a href="([^"]*)">← ', answer.text)
        assert link.endswith(way_back)
        assert '<link rel="stylesheet" href="/site/mailqueue/static/admin.css' in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.fixture(scope="module")
def reader(served: ServedSite) -> Browser:
    return registered(served, "reader@example.test", "/auditors/")


def test_a_reader_sees_the_pages_without_buttons_and_contents(reader: Browser, queue: Queue) -> None:
    failed = queue.failed(subject="Report")
    hold_back(queue, "ann@busy.test")
    pages = ["mailqueue", "mailqueue/problems", "mailqueue/held", "mailqueue/actions", "mailqueue/templates"]
    for path in [*pages, f"mailqueue/message/{failed}"]:
        page = reader.get(path)
        assert page.status_code == 200, path
        assert not [form for form in reader.forms(page) if form.method == "POST"], path
        assert "Correct the address" not in page.text
        assert "/bulk" not in page.text
    for path in (f"mailqueue/message/{failed}/content", "mailqueue/bulk"):
        assert reader.get(path).status_code == 403
    assert listed(reader) == ["Hello", "Report"]


def test_a_reader_cannot_act_with_anybodys_signature(reader: Browser, admin: Browser, queue: Queue) -> None:
    waiting, failed = queue.put(), queue.failed()
    forms = [
        button(admin, f"mailqueue/message/{waiting}", "cancel"),
        button(admin, f"mailqueue/message/{failed}", "correct"),
        button(admin, f"mailqueue/message/{failed}", "content"),
        *[form for form in admin.forms(admin.get("mailqueue/bulk")) if "/bulk/" in form.action],
    ]
    assert len(forms) == 6
    for form in forms:
        answer = reader.post(form.action)
        assert answer.status_code == 403
        assert "not act" in answer.text
    assert (queue.status(waiting), queue.status(failed)) == (words.QUEUED, words.FAILED)
    assert actions(queue) == []


def test_who_leaves_the_group_is_out_at_once(served: ServedSite) -> None:
    browser = registered(served, "former@example.test", "/admin/")
    assert browser.get("mailqueue").status_code == 200
    with contextlib.closing(served.site.database()) as connection, connection:
        connection.execute(
            "DELETE FROM auth_user_tag_groups"
            " WHERE record_id = (SELECT id FROM auth_user WHERE email='former@example.test')"
        )
    assert browser.get("mailqueue").status_code == 403


def test_only_members_can_press_a_button(served: ServedSite, admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    form = button(admin, "mailqueue", "cancel")
    assert registered(served, "dora@example.test").post(form.action).status_code == 403
    nobody = served.browser().post(form.action, headers=HTML, allow_redirects=False)
    assert "/auth/login" in nobody.headers["Location"]
    assert queue.status(message_id) == words.QUEUED


def test_a_host_without_groups_and_layout_gets_the_pages_in_a_layout_of_their_own(tmp_path: Path) -> None:
    # The pages are enabled before the groups are made, and under another path and role.
    site = make_site(tmp_path, settings={"VERIFY_EMAIL": False})
    common = site.folder / "common.py"
    text = common.read_text(encoding="utf-8")
    enable = "mail.enable_admin(auth, (db, session), route='post', role='postmaster')\n"
    text = text.replace("groups = Tags(", f"{enable}groups = Tags(")
    common.write_text(text, encoding="utf-8")
    layout = site.folder / "templates" / "layout.html"
    layout.rename(site.folder / "templates" / "another.html")
    auth = site.folder / "templates" / "auth.html"
    auth.write_text(auth.read_text(encoding="utf-8").replace("layout.html", "another.html"), encoding="utf-8")
    with site.serve() as served:
        browser = registered(served, "ann@example.test", "/postmaster/")
        page = browser.get("post")
        assert page.status_code == 200
        assert "No mail yet" in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "Made with py4web" not in page.text
        cookies = "; ".join(f"{name}={value}" for name, value in browser.session.cookies.items())
        flash = r'py4web-flash="{\"message\": \"Well done.\"}"'
        assert ">Well done.<" in browser.get("post", headers={"Cookie": f"{cookies}; {flash}"}).text


# --- what is held back -----------------------------------------------------------------------


def hold_back(queue: Queue, address: str) -> int:
    """A message that waits because this domain's server asked for less mail, and for the site's limit."""
    message_id = queue.put(to=address)
    name, now = ledger.name_of_domain(address.rpartition("@")[2]), time.time()
    lesson = Lesson(1, now + 600, 10, now + 600, reason="421 <script>alert('reason')</script>")
    ledger.note_lessons(queue.db, {name: lesson})
    ledger.pass_gate(queue.db)
    book = Ledger(queue.db, {name: (Limit((Rate(20, 60.0),)), lesson)}, now)
    until = book.next_place(name, jumps_line=False)
    book.put_off(name)
    book.store()
    worker = leases.register(queue.db, token="t", host_name="h", pid=1, journal="", now=now)
    claims = outbox.claim(queue.db, worker, limit=1000, now=now + 1)
    outbox.hold_back(queue.db, [HeldBack(claims[0].recipients, until, name)], gone=claims)
    queue.db.commit()
    return message_id


def test_a_message_that_waits_without_having_been_tried_says_what_for(admin: Browser, queue: Queue) -> None:
    later = queue.put(terms_given={"send_at": time.time() + 7200})
    page = admin.get(f"mailqueue/message/{later}").text
    assert "It is to be sent later." in page
    assert re.search(r"It is sent at the time that its send_at says\. <time [^>]*>\(in 2 h\)", page)
    held = hold_back(queue, "ann@busy.test")
    over_a_limit = admin.get(f"mailqueue/message/{held}").text
    assert "It waits for its place: a limit, or its server," in over_a_limit
    assert "It is sent by itself once it has a place." in over_a_limit
    for told in ("It waits for a worker", "tried again"):
        assert told not in page + over_a_limit
    waiting = admin.get(f"mailqueue/message/{queue.put()}").text
    assert "It waits for a worker." in waiting and "It is the next to be sent." in waiting


def test_what_is_held_back_is_shown_with_the_reason_and_can_be_let_go(admin: Browser, queue: Queue) -> None:
    assert "Held back" not in admin.get("mailqueue").text
    assert "No mail is held back" in admin.get("mailqueue/held").text
    message_id = hold_back(queue, "ann@busy.test")
    assert "Held back" in admin.get("mailqueue").text
    page = admin.get("mailqueue/held").text
    assert "busy.test" in page
    assert "in 10 min" in page or "in 9 min" in page
    assert "10 messages a minute" in page
    assert re.search(r'class="mq-number">1</td>', page)
    assert "&lt;script&gt;" in page
    assert "<script>alert('reason')" not in page
    assert "held back: busy.test" in admin.get(f"mailqueue/message/{message_id}").text

    form = button(admin, "mailqueue/held", "forget")
    assert admin.get(form.action).status_code == 405
    assert admin.post(form.action.replace("/forget", "7/forget")).status_code == 403
    assert told(admin.post(form.action)) == "busy.test is sent to at full speed again."
    queue.db.commit()
    assert queue.db(queue.db.mailqueue_lesson.id > 0).isempty()
    assert queue.db.mailqueue_message(message_id).due <= time.time()
    assert "Nothing was changed" in told(admin.post(form.action))


def test_counting_what_waits_for_a_limit_ends_at_a_bound(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "MOST_COUNTED", 2)
    hold_back(queue, "ann@busy.test")
    waiting = {"held_by": "domain:busy.test", "due": time.time() + 60}
    queue.db.mailqueue_recipient.bulk_insert([{**waiting, "message_ref": number} for number in range(9)])
    (row,) = queries.held_back(queue.db, time.time())
    assert row["waiting"] == 3
    queue.db.commit()


# --- buttons ---------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_a_get_changes_nothing(admin: Browser, queue: Queue, verb: str) -> None:
    waiting, failed = queue.put(), queue.failed()
    form = button(admin, f"mailqueue/message/{waiting if verb == 'cancel' else failed}", verb)
    answer = admin.get(form.action)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "POST"
    assert (queue.status(waiting), queue.status(failed)) == (words.QUEUED, words.FAILED)


@pytest.mark.parametrize("verb", ["retry", "cancel"])
def test_a_post_needs_the_signature_of_this_message(admin: Browser, queue: Queue, verb: str) -> None:
    queue.failed()
    waiting, other = queue.put(), queue.put()
    signature = button(admin, f"mailqueue/message/{other}", "cancel").action.partition("?")[2]
    path = f"mailqueue/message/{waiting}/{verb}"
    for query in ("", f"?{signature}", "?_signature=00"):
        assert admin.post(path + query).status_code == 403
    assert queue.status(waiting) == words.QUEUED


def test_the_signature_of_one_button_does_not_press_the_other(admin: Browser, queue: Queue) -> None:
    deferred = queue.finish(queue.put(), status=words.DEFERRED, due=time.time() + 900)
    retry = button(admin, f"mailqueue/message/{deferred}", "retry").action
    assert admin.post(retry.replace("/retry", "/cancel")).status_code == 403


def test_an_administrators_signature_is_of_no_use_to_another(
    served: ServedSite, admin: Browser, queue: Queue
) -> None:
    queue.put()
    other = registered(served, "second@example.test", "/admin/")
    assert other.post(button(admin, "mailqueue", "cancel").action).status_code == 403


def test_cancel_stops_a_waiting_message_and_says_so(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    page = admin.submit(button(admin, f"mailqueue/message/{message_id}", "cancel"))
    assert page.url.endswith(f"/site/mailqueue/message/{message_id}")
    assert told(page) == f"Message {message_id} is cancelled."
    assert queue.status(message_id) == words.CANCELLED
    assert queue.db.mailqueue_message(message_id).purge_on > time.time()


def test_retry_puts_a_failed_message_back_into_the_queue(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed()
    page = admin.submit(button(admin, f"mailqueue/message/{message_id}", "retry"))
    assert told(page) == f"Message {message_id} is back in the queue."
    assert queue.status(message_id) == words.QUEUED


def test_retry_wakes_the_task_that_sends(tmp_path: Path, smtp: ScriptedServer) -> None:
    settings = {
        "VERIFY_EMAIL": False,
        "USE_SCHEDULER": True,
        "SMTP_SERVER": f"127.0.0.1:{smtp.port}",
        "SMTP_SENDER": "site@example.test",
        "SMTP_LOGIN": None,
        "SMTP_TLS": False,
    }
    site = make_site(
        tmp_path, settings=settings, extra_common=f"mail.enable_scheduler(scheduler, period=3600)\n{MOUNT}"
    )
    with site.serve() as served, contextlib.closing(site.dal()) as db:
        browser = registered(served, "admin@example.test", "/admin/")
        wait_until_idle(site)
        again = {"to": "ann@example.test", "subject": "Again", "text": "x", "html": None}
        composed = compose(**again, domain="example.test", now=time.time())
        message_id = outbox.enqueue(db, composed, terms(time.time()), now=time.time())
        outbox.cancel(db, message_id, time.time(), Retention())
        db.commit()
        browser.submit(button(browser, "mailqueue", "retry"))
        [received] = smtp.wait_for(1, timeout=20)
        assert received.rcpt_tos == ("ann@example.test",)


def test_a_button_on_the_list_leads_back_to_the_same_list(admin: Browser, queue: Queue) -> None:
    queue.failed(subject="Mine")
    page = admin.submit(button(admin, "mailqueue?status=failed&search=Mine", "retry"))
    assert page.url.endswith("/site/mailqueue?status=failed&search=Mine")


def test_a_button_that_comes_too_late_says_that_nothing_changed(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    form = button(admin, f"mailqueue/message/{message_id}", "cancel")
    queue.finish(message_id, status=words.SENT, code=250)
    assert "Nothing was changed" in told(admin.submit(form))
    assert queue.status(message_id) == words.SENT


def test_buttons_are_only_where_they_do_something(admin: Browser, queue: Queue) -> None:
    sent = queue.finish(queue.put(), status=words.SENT, code=250)
    gone = queue.failed()
    queue.db(queue.db.mailqueue_content.message_ref == gone).delete()
    queue.db.commit()
    deferred = queue.finish(queue.put(), status=words.DEFERRED, due=time.time() + 900)
    queued = queue.put()
    doubtful = queue.finish(queue.put(), status=words.IN_DOUBT)
    expected = {
        sent: "copy",
        gone: "",
        deferred: "retry cancel copy",
        queued: "cancel copy",
        doubtful: "retry cancel arrived copy",
    }
    for message_id, verbs in expected.items():
        path = f"mailqueue/message/{message_id}"
        assert [v for v in VERBS if buttons(admin, path, v)] == verbs.split()
    for verb, ids in (("retry", [doubtful, deferred]), ("cancel", [doubtful, queued, deferred])):
        found = [int(form.action.split("/")[-2]) for form in buttons(admin, "mailqueue", verb)]
        assert found == ids


@pytest.mark.parametrize("status", [words.SENT, words.FAILED])
def test_a_mail_whose_content_goes_as_soon_as_it_ends_says_so(
    admin: Browser, queue: Queue, status: str
) -> None:
    code = queue.finish(queue.put(terms_given={"wipe": True}), status=status)
    path = f"mailqueue/message/{code}"
    page = admin.get(path).text
    assert "is deleted as soon as it is sent or has ended; it cannot be sent again." in page
    assert "when its time was over" not in page + admin.get(f"{path}/content").text
    assert ("Somebody did not get it." in page) == (status == words.FAILED)
    assert "unless you retry" not in page and not buttons(admin, path, "retry")


def test_a_doubt_is_ended_by_who_knows_that_it_arrived(admin: Browser, queue: Queue) -> None:
    message_id = queue.finish(queue.put(), status=words.IN_DOUBT)
    page = admin.get(f"mailqueue/message/{message_id}").text
    assert "the server's answer never came" in html.unescape(page)
    page = admin.submit(button(admin, f"mailqueue/message/{message_id}", "arrived"))
    assert told(page) == f"Message {message_id} is marked as arrived."
    assert queue.status(message_id) == words.SENT


# --- messages --------------------------------------------------------------------------------


def test_an_empty_queue_says_what_comes_here(admin: Browser, queue: Queue) -> None:
    assert "No mail yet" in admin.get("mailqueue").text


def test_tabs_count_and_show_the_messages_of_one_status(admin: Browser, queue: Queue) -> None:
    queue.failed(subject="Broken")
    queue.put(subject="Waiting")
    queue.put(subject="Waiting too")
    page = re.sub(r"\s+", " ", admin.get("mailqueue").text)
    assert re.search(r'>queued <span class="mq-count">2<', page)
    assert re.search(r'>failed <span class="mq-count">1<', page)
    assert re.search(r'>all <span class="mq-count">3<', page)
    assert listed(admin, "mailqueue?status=failed") == ["Broken"]
    assert listed(admin, "mailqueue?status=queued") == ["Waiting too", "Waiting"]
    assert len(listed(admin, "mailqueue?status=nonsense")) == 3
    assert "No message is like that" in admin.get("mailqueue?status=sent").text


def test_a_row_tells_recipients_error_and_next_try(admin: Browser, queue: Queue) -> None:
    queue.finish(
        queue.put(to=[f"r{number}@example.test" for number in range(5)]),
        status=words.DEFERRED,
        due=time.time() + 7260,
        failure_kind=words.TRANSIENT,
        reply="4.7.1 Come back later",
    )
    page = admin.get("mailqueue").text
    assert "r0@example.test, r1@example.test, r2@example.test" in page
    assert "and 2 more" in page
    assert "4.7.1 Come back later" in page
    assert "in 2 h" in page


def test_search_finds_addresses_and_subjects(admin: Browser, queue: Queue) -> None:
    queue.put(to=["first@example.test", "hidden.last@example.test"], subject="Minutes")
    queue.put(to="second@example.test", subject="100% of snake_case")
    assert listed(admin, "mailqueue?search=HIDDEN.last") == ["Minutes"]
    assert listed(admin, "mailqueue?search=minut") == ["Minutes"]
    assert listed(admin, "mailqueue?search=100%25") == ["100% of snake_case"]
    assert listed(admin, "mailqueue?search=e_c") == ["100% of snake_case"]
    assert listed(admin, "mailqueue?search=%25") == ["100% of snake_case"]
    assert listed(admin, "mailqueue?search=minutes&status=sent") == []


def test_an_error_is_found_by_what_the_page_of_a_message_shows(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed(subject="Refused")
    queue.put(subject="Waiting")
    page = admin.get(f"mailqueue/message/{message_id}").text
    for shown in ("550 5.1.1 &lt;script", "550 5.1.1", "550", "5.1.1 &lt;script"):
        assert shown in page
        assert listed(admin, f"mailqueue?error={quote(html.unescape(shown))}") == ["Refused"], shown


def test_paging_goes_to_older_messages_and_back(admin: Browser, queue: Queue) -> None:
    for number in range(2 * ROWS + 5):
        queue.put(subject=f"No. {number}")
    everything = [f"No. {number}" for number in reversed(range(2 * ROWS + 5))]
    first, second, third = everything[:ROWS], everything[ROWS : 2 * ROWS], everything[2 * ROWS :]
    path, pages = "mailqueue?status=queued", []
    assert neighbour(admin, path, "prev") is None
    for _step in range(2):
        pages.append(listed(admin, path))
        path = neighbour(admin, path, "next") or ""
        assert "status=queued" in path
    assert [*pages, listed(admin, path)] == [first, second, third]
    assert neighbour(admin, path, "next") is None
    path = neighbour(admin, path, "prev") or ""
    assert listed(admin, path) == second
    path = neighbour(admin, path, "prev") or ""
    assert listed(admin, path) == first
    assert neighbour(admin, path, "prev") is None
    assert listed(admin, neighbour(admin, path, "next") or "") == second


@pytest.mark.parametrize(
    "query",
    [
        "before=x",
        "before=-1",
        "after=" + "9" * 30,
        "before=" + "9" * 5000,
        "search=%00%ff%0d%0aX",
        "status=%27",
        "search=" + "a" * 3000,
    ],
)
def test_a_url_that_makes_no_sense_does_no_harm(admin: Browser, queue: Queue, query: str) -> None:
    queue.put()
    assert admin.get(f"mailqueue?{query}").status_code == 200


@pytest.mark.parametrize("number", ["987654", "9" * 30])
def test_a_message_that_does_not_exist_is_not_found(admin: Browser, queue: Queue, number: str) -> None:
    assert admin.get(f"mailqueue/message/{number}").status_code == 404
    assert admin.get(f"mailqueue/message/{number}/content").status_code == 404


# --- one message -----------------------------------------------------------------------------


def test_a_message_shows_its_recipients_and_attempts(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed(to=["ann@example.test", "bob@example.test"], subject="Report")
    page = html.unescape(admin.get(f"mailqueue/message/{message_id}").text)
    for expected in ("Report", "ann@example.test", "bob@example.test", TRANSPORT, "rcpt", "234"):
        assert expected in page
    assert page.count("550 5.1.1 <script>") == 4  # both recipients, both attempts; 5.1.1 is said once


def test_what_outsiders_wrote_is_text_on_every_page(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed(
        to='"<script>alert(1)</script>"@example.test',
        subject="<script>alert('subject')</script>",
        text="<script>alert('text')</script>",
        html="<script>alert('html')</script>\"'></iframe><script>alert('out')</script>",
    )
    path = f"mailqueue/message/{message_id}"
    with queue.paused():
        places = ("mailqueue?search=<script>alert", path, "mailqueue/problems")
        pages = [admin.get(place).text for place in places]
        pages.append(content_of(admin, message_id).text)
    for page in pages:
        assert "&lt;script&gt;alert(" in page
        assert "<script>alert" not in page


def test_the_content_is_shown_only_when_asked_for(admin: Browser, queue: Queue) -> None:
    message_id = queue.put(
        text="Grüße: token=SECRET\n",
        html="<p>token=SECRET</p>",
        attachments=[Attachment(io.BytesIO(b"a,b"), filename="list.csv")],
    )
    assert "SECRET" not in admin.get("mailqueue").text
    page = admin.get(f"mailqueue/message/{message_id}")
    assert "SECRET" not in page.text
    asking = admin.get(f"mailqueue/message/{message_id}/content")
    assert "SECRET" not in asking.text
    assert "recorded" in asking.text
    assert actions(queue) == []
    content = content_of(admin, message_id)
    for expected in ("Grüße: token=SECRET", "list.csv", "site@example.test"):
        assert expected in content.text
    assert content.headers["Cache-Control"] == "no-store"
    assert actions(queue) == [("admin@example.test", "show", message_id, "")]
    page = admin.get(f"mailqueue/message/{message_id}")
    assert "Content shown by admin@example.test" in page.text


def test_the_html_of_a_mail_is_locked_in(admin: Browser, queue: Queue) -> None:
    message_id = queue.put(text=None, html='<img src="http://tracker.example/x.png"><p>Hi</p>')
    content = content_of(admin, message_id)
    [frame] = re.findall(r"<iframe [^>]*>", content.text)
    document = html.unescape(frame.partition('srcdoc="')[2].rpartition('"')[0])
    assert 'sandbox=""' in frame
    assert document.startswith("<!DOCTYPE html><meta charset")
    assert document.index("default-src 'none'") < document.index("tracker.example")
    assert "frame-src 'none'" in content.headers["Content-Security-Policy"]


def test_what_a_browser_would_connect_for_before_it_asks_the_policy_is_taken_out(
    admin: Browser, queue: Queue
) -> None:
    loading = '<IFRAME src="//t.example"></IFRAME><link rel=x href="//t.example"><a HREF ="//t.example">x</a>'
    content = content_of(admin, queue.put(text=None, html=f"<p>Hi</p>{loading}"))
    [frame] = re.findall(r"<iframe [^>]*>", content.text)
    document = html.unescape(frame.partition('srcdoc="')[2].rpartition('"')[0])
    assert "<p>Hi</p>" in document and document.count("//t.example") == 3
    assert not re.search(r"<(i?frame|link)|[^-]href\s*=", document, re.IGNORECASE)


def test_each_button_is_called_what_is_to_be_seen_on_it(admin: Browser, queue: Queue) -> None:
    queue.failed()
    for path in ("mailqueue", f"mailqueue/message/{queue.failed()}", "mailqueue/bulk", "mailqueue/overview"):
        pressed = re.findall(r'<button aria-label="([^"]*)"[^>]*>([^<]*)<', admin.get(path).text)
        assert pressed, path
        for name, shown in pressed:
            assert shown.casefold() in name.casefold(), (path, name, shown)


def test_content_that_was_purged_is_said_to_be_gone(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    queue.db(queue.db.mailqueue_content.id > 0).delete()
    queue.db.commit()
    assert "was deleted" in admin.get(f"mailqueue/message/{message_id}").text
    assert "was deleted" in admin.get(f"mailqueue/message/{message_id}/content").text


def test_a_message_that_a_server_held_up_is_not_said_to_be_untried(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    assert "It was not tried yet." in admin.get(f"mailqueue/message/{message_id}").text
    queue.db(queue.db.mailqueue_message.id == message_id).update(failure_kind="configuration")
    queue.db.commit()
    assert "It was not tried yet." not in admin.get(f"mailqueue/message/{message_id}").text


def test_a_message_that_could_not_be_made_is_said_to_be_just_that(
    served: ServedSite, admin: Browser, queue: Queue
) -> None:
    asked = {"json": {"email": "admin@example.test"}, "headers": {"Host": "evil.test"}}
    served.browser().post("auth/api/request_reset_password", **asked)
    queue.db.commit()
    [row] = queue.db(queue.db.mailqueue_message.id > 0).select()
    page = html.unescape(admin.get(f"mailqueue/message/{row.id}").text)
    assert "It could not be made: nobody was sent anything." in page
    assert "Whoever needs this mail has to ask for it again." in page
    assert "base_url is not configured." in page
    for untrue in ("unless you retry", "was deleted", "None", "not tried yet", ">Queued<", ">Failed<"):
        assert untrue not in page, untrue
    assert "was deleted" not in admin.get(f"mailqueue/message/{row.id}/content").text


def test_a_failed_message_without_content_is_not_said_to_wait_for_a_retry(
    admin: Browser, queue: Queue
) -> None:
    message_id = queue.failed()
    queue.db(queue.db.mailqueue_content.id > 0).delete()
    queue.db.commit()
    page = admin.get(f"mailqueue/message/{message_id}").text
    assert "Somebody did not get it." in page and "unless you retry" not in page


def test_content_that_is_damaged_does_not_break_the_page(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    queue.db(queue.db.mailqueue_content.message_ref == message_id).update(mime="cut")
    queue.db.commit()
    assert "is damaged" in content_of(admin, message_id).text
    assert actions(queue) == [], "nothing was shown"


def test_a_signature_of_another_page_does_not_show_the_content(admin: Browser, queue: Queue) -> None:
    one, other = queue.put(text="token=SECRET"), queue.put(text="token=OTHER")
    form = button(admin, f"mailqueue/message/{one}", "content")
    answer = admin.post(form.action.replace(f"/{one}/", f"/{other}/"))
    assert answer.status_code == 403
    assert admin.post(f"mailqueue/message/{one}/content").status_code == 403
    assert actions(queue) == []


def test_a_code_in_the_subject_is_hidden_until_the_content_is_asked_for(admin: Browser, queue: Queue) -> None:
    message_id = queue.put(subject="123456 is your code")
    queue.db(queue.db.mailqueue_message.id == message_id).update(category="auth")
    queue.db.commit()
    assert listed(admin) == ["•••• is your code"]
    assert "123456" not in admin.get(f"mailqueue/message/{message_id}").text
    assert "123456 is your code" in content_of(admin, message_id).text


# --- one message: corrections and copies -----------------------------------------------------


def test_a_bounced_address_is_corrected_and_sent_to(
    admin: Browser, queue: Queue, smtp: ScriptedServer
) -> None:
    message_id = queue.failed(to=["an@example.test", "bob@example.test"])
    queue.db.mailqueue_recipient(queue.recipients(message_id)["bob@example.test"]).update_record(
        status="sent"
    )
    queue.db.commit()
    [form] = buttons(admin, f"mailqueue/message/{message_id}", "correct")
    assert form.fields["address"] == "an@example.test"
    answer = told(admin.submit(form, address="ann@example.test"))
    assert answer == f"Message {message_id} is in the queue for ann@example.test."
    assert actions(queue)[-1][1:] == ("correct", message_id, "an@example.test → ann@example.test")
    mail = QueuedMailer(queue.db, server=f"127.0.0.1:{smtp.port}", sender="site@example.test", tls=False)
    mail.process_queue()
    assert [received.rcpt_tos for received in smtp.messages] == [("ann@example.test",)]
    assert queue.status(message_id) == words.SENT
    page = admin.get(f"mailqueue/message/{message_id}").text
    assert "an@example.test → ann@example.test" in html.unescape(page)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("nonsense", "Nothing was changed: “nonsense” is not one e-mail address."),
        ("", "Nothing was changed: “” is not one e-mail address."),
        ("<b>@x.test", "Nothing was changed"),
        ("a@x.test, b@x.test", "Nothing was changed"),
        ("a@x.test\r\nRCPT TO:<b@x.test>", "Nothing was changed"),
        ("bob@example.test", "another recipient has this address"),
    ],
)
def test_what_is_no_new_address_stands_in_its_field_with_the_reason(
    admin: Browser, queue: Queue, address: str, why: str
) -> None:
    message_id = queue.failed(to=["an@example.test", "bob@example.test"])
    form = buttons(admin, f"mailqueue/message/{message_id}", "correct")[0]
    page = admin.submit(form, address=address)
    [complaint] = re.findall(r'<p [^>]*role="alert"[^>]*>(.*?)</p>', page.text, re.DOTALL)
    assert why in html.unescape(complaint)
    assert "<b>" not in complaint
    [again, other] = [form for form in admin.forms(page) if "/correct?" in form.action]
    assert again.fields["address"].split() == address.split()
    assert other.fields["address"] == "bob@example.test"
    assert 'aria-invalid="true"' in page.text and page.text.count("<details open>") == 1
    assert sorted(queue.recipients(message_id)) == ["an@example.test", "bob@example.test"]
    assert (queue.status(message_id), actions(queue)) == (words.FAILED, [])


def test_a_correction_that_comes_too_late_says_that_nothing_changed(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed()
    [form] = buttons(admin, f"mailqueue/message/{message_id}", "correct")
    admin.submit(form, address="bob@example.test")
    queue.finish(message_id, status=words.SENT, code=250)
    page = admin.submit(form, address="dora@example.test")
    assert "Nothing was changed: the recipient was reached" in told(page)
    assert page.url.endswith(f"/site/mailqueue/message/{message_id}")


def test_an_address_of_any_alphabet_is_taken(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed()
    [form] = buttons(admin, f"mailqueue/message/{message_id}", "correct")
    assert "jörg@xn--bcher-kva.test" in told(admin.submit(form, address="jörg@bücher.test"))
    assert list(queue.recipients(message_id)) == ["jörg@xn--bcher-kva.test"]


def test_only_recipients_that_were_not_reached_can_be_corrected(admin: Browser, queue: Queue) -> None:
    failed, other = queue.failed(), queue.finish(queue.put(to="dora@example.test"), status=words.SENT)
    doubtful = queue.finish(queue.put(), status=words.IN_DOUBT)
    for message_id in (other, doubtful):
        assert not buttons(admin, f"mailqueue/message/{message_id}", "correct")
    action = button(admin, f"mailqueue/message/{failed}", "correct").action
    reached = queue.recipients(other)["dora@example.test"]
    path, _, signature = action.partition("?")
    forged = f"{path.rsplit('/', 2)[0]}/{reached}/correct?{signature}"
    assert admin.post(forged).status_code == 403
    assert admin.get(action).status_code == 405


def test_a_copy_goes_to_whoever_asks_for_it_and_is_marked_as_resent(
    admin: Browser, queue: Queue, smtp: ScriptedServer
) -> None:
    message_id = queue.finish(queue.put(subject="Report", sender=None, text="Figures"), status=words.SENT)
    answer = admin.submit(button(admin, f"mailqueue/message/{message_id}", "copy"))
    assert told(answer) == f"A copy of message {message_id} is on its way to admin@example.test."
    mail = QueuedMailer(queue.db, server=f"127.0.0.1:{smtp.port}", sender="site@example.test", tls=False)
    mail.process_queue()
    [received] = smtp.messages
    copy = received.parsed()
    assert received.rcpt_tos == ("admin@example.test",)
    assert (copy["To"], copy["From"]) == ("ann@example.test", "site@example.test")
    assert (copy["Resent-To"], copy["Resent-From"]) == ("admin@example.test", "admin@example.test")
    assert copy["Subject"] == "Report"
    assert copy.get_content().strip() == "Figures"
    assert actions(queue) == [("admin@example.test", "copy", message_id, "")]
    assert queue.status(message_id) == words.SENT


def test_the_story_of_a_message_is_told_in_its_order(admin: Browser, queue: Queue) -> None:
    message_id = queue.failed()
    admin.submit(button(admin, f"mailqueue/message/{message_id}", "retry"))
    page = admin.get(f"mailqueue/message/{message_id}").text
    story = re.findall(r"<strong>([^<]*)</strong>", page[page.index("mq-timeline") :])
    assert story == ["Queued", f"Attempt over {TRANSPORT}", "Retried by admin@example.test"]
    assert "It is the next to be sent." in page
    with queue.paused():
        page = admin.get(f"mailqueue/message/{message_id}").text
        assert "It goes out by itself once sending is no longer held up." in page
        assert "It waits: sending is held up." in page and "It waits for a worker." not in page


def test_what_changed_nothing_is_not_recorded(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    form = button(admin, f"mailqueue/message/{message_id}", "cancel")
    admin.submit(form)
    admin.submit(form)
    assert [action[1] for action in actions(queue)] == ["cancel"]


# --- many messages ---------------------------------------------------------------------------


def test_a_filter_is_a_url_that_every_page_keeps(admin: Browser, queue: Queue) -> None:
    for number in range(ROWS + 1):
        queue.put(to="ann@example.test", subject=f"Grüße {number}")
    queue.put(to="bob@example.test")
    path = "mailqueue?search=Grüße&address=ann@example.test&category=site&since=2020-01-01"
    assert len(listed(admin, path)) == ROWS
    older = neighbour(admin, path, "next") or ""
    assert listed(admin, older) == ["Grüße 0"]
    page = html.unescape(admin.get(path).text)
    assert 'value="ann@example.test"' in page
    assert "details open" in re.sub(r' class="[^"]*"', "", page)
    assert listed(admin, f"{path}&until=2020-01-02") == []


def test_a_filter_that_is_not_understood_is_named_and_nothing_is_offered_for_it(
    admin: Browser, queue: Queue
) -> None:
    queue.failed()
    page = admin.get("mailqueue?status=bogus&statuss=failed")
    assert "not understood, and left out: status=bogus, statuss=failed" in html.unescape(page.text)
    refused = admin.get("mailqueue/bulk?status=bogus")
    assert refused.status_code == 400 and "status=bogus" in refused.text
    assert "Delete" not in refused.text


def test_where_more_messages_are_meant_by_now_the_button_changes_nothing(
    admin: Browser, queue: Queue
) -> None:
    waiting = [queue.put(subject="stale") for _ in range(3)]
    failed = queue.failed(subject="stale")
    preview = admin.get("mailqueue/bulk?status=failed&search=stale")
    [delete] = [form for form in admin.forms(preview) if "/bulk/delete" in form.action]
    queue.finish(waiting[0], status=words.FAILED)
    assert told(admin.submit(delete)) == "Meanwhile there are more of them: look again."
    assert queue.status(failed) == words.FAILED and actions(queue) == []
    assert admin.post(delete.action.replace("shown=1", "shown=9")).status_code == 403


def test_an_address_leads_to_everything_that_was_sent_to_it(admin: Browser, queue: Queue) -> None:
    queue.put(to=["ann@example.test", "bob@example.test"], subject="Both")
    queue.put(to="annette@example.test", subject="Another")
    message_id = queue.put(to="ann@example.test", subject="One")
    page = admin.get(f"mailqueue/message/{message_id}").text
    [link] = re.findall(r'href="/site/(mailqueue\?address=[^"]+)"', page)
    assert listed(admin, html.unescape(link)) == ["One", "Both"]


def test_all_that_failed_with_an_error_is_retried_after_a_preview(admin: Browser, queue: Queue) -> None:
    failed = [queue.failed(subject="Grüße") for _ in range(3)]
    other = queue.failed(subject="Other")
    path = "mailqueue?search=Grüße&status=failed&error=5.1.1"
    [link] = re.findall(r'href="/site/(mailqueue/bulk[^"]+)"', admin.get(path).text)
    preview = admin.get(html.unescape(link))
    assert "Retry 3 messages" in preview.text
    [retry] = [form for form in admin.forms(preview) if "/bulk/retry" in form.action]
    late = queue.failed(subject="Grüße")
    answer = admin.submit(retry)
    assert told(answer) == "3 messages are back in the queue."
    assert "status=failed" in answer.url
    assert [queue.status(one) for one in failed] == [words.QUEUED] * 3
    assert [queue.status(one) for one in (other, late)] == [words.FAILED] * 2
    begun, ended = actions(queue)
    assert begun[:3] == ended[:3] == ("admin@example.test", "retry", None)
    which = "status: failed, search: Grüße, error: 5.1.1"
    assert (begun[3], ended[3]) == (f"many at once, begun: {which}", f"many at once (3): {which}")


def test_what_takes_long_has_a_page_that_shows_how_far_it_came_and_can_be_stopped(
    admin: Browser, reader: Browser, queue: Queue
) -> None:
    queue.put()
    waiting = {"chosen": "status=queued", "who": "ann@example.test", "first_below": 9, "next_below": 5}
    number = queue.db.mailqueue_bulk.insert(
        status="running", action_name="cancel", expected=7, changed=3, begun_on=time.time(), **waiting
    )
    queue.db.commit()
    path = f"mailqueue/progress/{number}"
    assert f"/{path}" in admin.get("mailqueue/bulk").text
    page = admin.get(path)
    assert page.headers["Refresh"] == "3"
    for part in ("3 of 7", "<dd>queued</dd>", "ann@example.test", "<progress"):
        assert part in page.text
    assert reader.get(path).status_code == 403
    [stop] = [form for form in admin.forms(page) if "/stop?" in form.action]
    assert reader.post(stop.action).status_code == 403
    assert admin.get(stop.action).status_code in (404, 405)
    assert told(admin.submit(stop)) == "It is stopped. What was done stays done."
    again = admin.get(path)
    assert "Refresh" not in again.headers
    assert "stopped" in again.text
    assert not [form for form in admin.forms(again) if "/stop?" in form.action]
    [(who, verb, _, detail)] = actions(queue)
    assert (who, verb) == ("ann@example.test", "cancel")
    assert detail == "many at once (3, stopped by admin@example.test): status: queued"
    assert admin.get("mailqueue/progress/99999").status_code == 404


def test_a_signature_for_some_messages_is_of_no_use_for_others(admin: Browser, queue: Queue) -> None:
    queue.put(subject="One")
    message_id = queue.put(subject="Two")
    [form] = [f for f in admin.forms(admin.get("mailqueue/bulk?search=One")) if "/cancel" in f.action]
    for wider in (
        form.action.replace("search=One", "search=Two"),
        form.action.replace("search=One&", ""),
        re.sub(r"below=\d+", "below=99999999", form.action),
        form.action.replace("/bulk/cancel", "/bulk/delete"),
    ):
        assert wider != form.action
        assert admin.post(wider).status_code == 403
    assert admin.get(form.action).status_code in (404, 405)
    assert admin.post("mailqueue/bulk/cancel?below=99999999").status_code == 403
    assert queue.status(message_id) == words.QUEUED
    assert actions(queue) == []


def test_the_list_is_exported_as_csv_and_that_is_recorded(admin: Browser, queue: Queue) -> None:
    queue.put(to="ann@example.test", subject="=cmd|'Grüße'")
    queue.put(to="bob@example.test")
    [form] = [
        f for f in admin.forms(admin.get("mailqueue?address=ann@example.test")) if "/export" in f.action
    ]
    answer = admin.submit(form)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["Content-Disposition"]
    lines = answer.content.decode("utf-8").splitlines()
    assert len(lines) == 2
    assert "'=cmd|'Grüße'" in lines[1]
    assert actions(queue) == [("admin@example.test", "export", None, "address: ann@example.test")]
    assert admin.get(form.action).status_code in (404, 405)
    assert admin.post("mailqueue/export").status_code == 403


# --- problems --------------------------------------------------------------------------------


def test_rows_that_are_damaged_do_not_break_the_pages(admin: Browser, queue: Queue) -> None:
    nulls = dict.fromkeys(("status", "recipients", "byte_size", "attempts", "created_on", "subject", "due"))
    whole, damaged, lonely = queue.put(subject="Whole"), queue.put(), queue.put(subject="Lonely")
    message, recipient = queue.db.mailqueue_message, queue.db.mailqueue_recipient
    queue.db(message.id == damaged).update(**nulls)
    queue.db(recipient.message_ref == damaged).update(address=None, status=None, attempts=None, kind=None)
    queue.db(recipient.message_ref == lonely).delete()
    queue.db(message.id == lonely).update(error="nobody is left")
    queue.db.commit()
    assert listed(admin) == ["Lonely", "(no subject)", "Whole"]
    assert "is damaged" in admin.get(f"mailqueue/message/{damaged}").text
    assert "nobody is left" in admin.get(f"mailqueue/message/{lonely}").text
    assert admin.get(f"mailqueue/message/{whole}").status_code == 200
    assert admin.get("mailqueue/problems").status_code == 200


def test_a_banner_says_why_sending_is_paused_until_it_is_repaired(admin: Browser, queue: Queue) -> None:
    queue.put()
    with queue.paused():
        page = admin.get("mailqueue").text
        assert "No mail is sent: The mail server rejects user name or password." in page
        assert "Correct the login of the mailer" in page
        assert "Next try" in page
        assert "No mail is sent because of this." in admin.get("mailqueue/problems").text
    page = admin.get("mailqueue").text
    assert "No mail is sent" not in page
    assert "mq-note" not in page


def test_a_banner_says_that_no_server_is_configured(admin: Browser, queue: Queue) -> None:
    failure = Failure(words.CONFIGURATION, words.CONFIG, "no-server", "nothing is set")
    problems.report(queue.db, failure, "", time.time())
    queue.db.commit()
    assert "No mail server is configured." in admin.get("mailqueue").text


def test_a_problem_that_stops_nothing_is_only_pointed_at(admin: Browser, queue: Queue) -> None:
    failure = Failure(words.MESSAGE, words.BUILD, "auth-mail-not-queued", "no address")
    problems.report(queue.db, failure, "", time.time())
    queue.db.commit()
    page = admin.get("mailqueue").text
    assert "There are open problems" in page
    assert "mq-banner" not in page


def test_the_problem_log_has_open_entries_first(admin: Browser, queue: Queue) -> None:
    assert "No problems so far" in admin.get("mailqueue/problems").text
    old = Failure(words.MESSAGE, words.BUILD, "auth-mail-not-queued", "no address")
    for _time in range(3):
        problems.report(queue.db, old, "", time.time() - 7300)
    with queue.paused():
        pass
    page = admin.get("mailqueue/problems").text
    summaries = re.findall(r"mq-badge mq-(\w+)", page)
    assert summaries == ["open", "resolved"]
    assert "seen 3 times" in page
    assert "2 h ago" in page
    assert "535 5.7.8" in page


# --- nobody sends ----------------------------------------------------------------------------


def test_health_is_open_to_everybody_and_fails_where_nobody_sends(
    served: ServedSite, admin: Browser, queue: Queue
) -> None:
    monitor = served.browser()
    answer = monitor.get("mailqueue/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    message_id = queue.put("secret-address@example.test", subject="Secret subject")
    assert monitor.get("mailqueue/health").status_code == 200, "it has only just been queued"
    queue.db(queue.db.mailqueue_message.id == message_id).update(due=time.time() - 3600)
    queue.db.commit()
    answer = monitor.get("mailqueue/health")
    assert (answer.status_code, answer.headers["Cache-Control"]) == (503, "no-store")
    reason = "No worker was seen for 60 minutes while mail is due."
    assert answer.json() == {"status": "failing", "reason": reason}
    page = admin.get("mailqueue").text
    assert "No mail is sent: Mail is due, and nobody sends it." in page
    assert reason in page
    liveness.seen(queue.db, time.time())
    assert monitor.get("mailqueue/health").status_code == 200


def test_health_can_only_be_asked(served: ServedSite) -> None:
    assert served.browser().post("mailqueue/health").status_code == 405


def test_an_expiry_is_shown_while_the_message_waits(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    queue.db(queue.db.mailqueue_message.id == message_id).update(expires_on=time.time() + 7300)
    queue.db.commit()
    page = admin.get(f"mailqueue/message/{message_id}").text
    assert re.search(r"<dt>Expires</dt><dd>.*in 2 h", page)


def test_a_problem_is_acknowledged_and_then_said_to_be_over(admin: Browser, queue: Queue) -> None:
    failure = Failure(words.MESSAGE, words.BUILD, "auth-mail-not-queued", "no address")
    problems.report(queue.db, failure, "", time.time())
    queue.db.commit()
    assert "There are open problems" in admin.get("mailqueue").text
    form = button(admin, "mailqueue/problems", "acknowledge")
    assert told(admin.submit(form)).startswith("Acknowledged: ")
    page = admin.get("mailqueue/problems").text
    assert re.findall(r"mq-badge mq-(\w+)", page) == ["acknowledged"]
    assert "acknowledged by admin@example.test" in page
    assert "Everything works" not in page
    assert "There are open problems" not in admin.get("mailqueue").text
    assert "Nothing was changed" in told(admin.submit(form))
    problems.report(queue.db, failure, "", time.time())
    queue.db.commit()
    assert "seen 2 times" in admin.get("mailqueue/problems").text, "it is the same one still"

    form = button(admin, "mailqueue/problems", "resolve")
    assert admin.get(form.action).status_code == 405
    assert admin.post(form.action.replace("/resolve", "/acknowledge")).status_code == 403
    assert told(admin.submit(form)).startswith("Resolved: ")
    page = admin.get("mailqueue/problems").text
    assert re.findall(r"mq-badge mq-(\w+)", page) == ["resolved"]
    assert "Everything works" in page
    assert "Nothing was changed" in told(admin.submit(form))
    assert [action[1] for action in actions(queue)] == ["acknowledge", "resolve"]
    problems.report(queue.db, failure, "", time.time())
    queue.db.commit()
    assert "There are open problems" in admin.get("mailqueue").text, "it comes back as a new one"


def test_a_problem_leads_to_its_messages(admin: Browser, queue: Queue) -> None:
    queue.put(subject="Waiting")
    relay = Failure(words.CONFIGURATION, words.RCPT, "relay-denied", "554 5.7.1 denied")
    met = {"failure_kind": words.CONFIGURATION, "stage": words.RCPT, "due": time.time() + 900}
    queue.finish(queue.put(subject="Denied"), status=words.DEFERRED, **met)
    problems.report(queue.db, relay, TRANSPORT, time.time())
    queue.db.commit()
    with queue.paused():
        page = admin.get("mailqueue/problems").text
        links = re.findall(r'href="/site/(mailqueue[^"]*)">Affected messages', page)
        found = sorted(listed(admin, f"{admin.url}/{html.unescape(link)}") for link in links)
    assert found == [["Denied"], ["Waiting"]]


def test_what_failed_is_offered_for_a_retry_where_anything_of_it_can_be_sent(
    admin: Browser, queue: Queue
) -> None:
    given = {"address": "ann@", "subject": "", "reason": "bad address", "category": "auth"}
    outbox.refuse(queue.db, **given, now=time.time(), retention=Retention())
    for reply, wipe in (("gone", True), ("gone", True), ("kept", False), ("mixed", False), ("mixed", True)):
        message_id = queue.put(terms_given={"wipe": wipe})
        queue.finish(message_id, status=words.FAILED, failure_kind=words.RECIPIENT, reply=reply)
    page = admin.get("mailqueue/problems").text
    offered = [
        (re.findall(r">([^<]*)</a>", row)[0], "Retry these…" in row)
        for row in re.findall("<tr>.*?</tr>", page[page.index("What failed, by the error") :], re.DOTALL)
        if "<a" in row
    ]
    assert dict(offered) == {"bad address": False, "gone": False, "kept": True, "mixed": True}


def test_failures_are_grouped_by_their_errors_the_most_frequent_first(admin: Browser, queue: Queue) -> None:
    replies = ["5.1.1 <ann@x.test>: unknown", "5.7.1 spam", "5.1.1 <bob@x.test>: unknown", ""]
    for number, reply in enumerate(replies):
        refused = {"failure_kind": words.RECIPIENT, "stage": words.RCPT, "reply": reply}
        queue.finish(queue.put(subject=f"No. {number}"), status=words.FAILED, **refused)
    page = admin.get("mailqueue/problems").text
    groups = re.findall(r'href="/site/(mailqueue\?[^"]*)">([^<]*)</a></td>\s*<td[^>]*>(\d+)<', page)
    assert [(html.unescape(error), number) for _, error, number in groups] == [
        ("5.1.1 …: unknown", "2"),
        ("5.7.1 spam", "1"),
    ]
    assert listed(admin, html.unescape(groups[0][0])) == ["No. 2", "No. 0"]
    [bulk, _] = re.findall(r'href="/site/(mailqueue/bulk[^"]*)"', page)
    assert "Retry 2 messages" in admin.get(html.unescape(bulk)).text


# --- replies ---------------------------------------------------------------------------------


def test_a_pasted_yes_is_said_to_be_one(admin: Browser) -> None:
    [form] = [form for form in admin.forms(admin.get("mailqueue/replies")) if "/replies/try" in form.action]
    for text, said in (
        ("250 2.1.5 OK", "The mail server says yes: nothing is wrong."),
        ("[Errno 111] Connection refused", "The mail server refuses the connection."),
    ):
        assert said in admin.submit(form, text=text, stage="connect").text


# --- overview --------------------------------------------------------------------------------


def test_the_overview_says_how_things_stand_and_comes_anew_by_itself(admin: Browser, queue: Queue) -> None:
    liveness.seen(queue.db, time.time())
    page = admin.get("mailqueue/overview")
    assert "no problem is open" in page.text
    assert "nothing sent yet" in page.text
    queue.failed()
    queue.finish(queue.put(), status=words.SENT, code=250)
    queue.put()
    leases.register(queue.db, token="t", host_name="<b>host</b>", pid=4711, journal="", now=time.time())
    page = admin.get("mailqueue/overview")
    text = html.unescape(re.sub(r"\s+", " ", page.text))
    assert ">1 queued<" in text
    assert "half within 0.0 s" in text
    words_of_charts = re.findall(r'role="img" aria-label="([^"]*)"', text)
    counted = "1 sent, 0 deferred, 1 failed, 0 in doubt; at most 2 in"
    assert words_of_charts == [
        f"The last hour: {counted} 5 min",
        f"The last day: {counted} 1 h",
        f"The last week: {counted} 1 d",
    ]
    assert text.count("<span>2</span> <span>0</span>") == 3, "the scale"
    for begin in ("1 h ago", "1 d ago", "7 d ago"):
        assert f"<span>{begin}</span> <span>now</span>" in text
    assert text.count('<rect class="mq-bar-sent"') == 3
    assert "process 4711 on <b>host</b>" in text
    assert "<b>host" not in page.text
    assert 'data-seconds="30"' in page.text
    assert "Refresh" not in page.headers, "it would take the place that somebody has come to"
    assert "data-seconds" not in admin.get("mailqueue/overview?refresh=off").text
    with queue.paused():
        text = admin.get("mailqueue/overview").text
        assert "No mail is sent: The mail server rejects user name or password." in text
        assert ">paused<" in text
        assert "<script>alert('detail')" not in text


def test_the_overview_and_the_log_show_the_reason_of_a_mail_that_was_not_sent(
    admin: Browser, queue: Queue
) -> None:
    failure = Failure(words.MESSAGE, words.BUILD, "message-not-built", "'bad' is not one <e-mail> address")
    problems.report(queue.db, failure, "", time.time())
    queue.db.commit()
    for page in ("overview", "problems"):
        text = admin.get(f"mailqueue/{page}").text
        assert "A message was refused, or could not be made." in text
        assert html.escape(failure.text) in text, page


def test_a_site_that_no_worker_was_seen_at_is_not_said_to_send(admin: Browser, queue: Queue) -> None:
    queue.put()
    page = html.unescape(admin.get("mailqueue/overview").text)
    assert "Mail goes out" not in page and "One looked for mail" not in page
    assert "<strong>No worker has been seen yet.</strong> See that the site's scheduler is running" in page
    assert "<dt>A worker was seen</dt><dd>not yet</dd>" in page
    with queue.paused():
        assert "<strong>No worker has been seen" not in admin.get("mailqueue/overview").text
    liveness.seen(queue.db, time.time() - 125)
    page = admin.get("mailqueue/overview").text
    assert "Mail goes out" in page and "No worker has been seen" not in page
    assert "No worker has mail in hand at this moment. One looked for mail: 2 min ago." in page


def test_the_connection_is_tested_step_by_step(admin: Browser, reader: Browser, queue: Queue) -> None:
    [form] = [form for form in admin.forms(admin.get("mailqueue/overview")) if "/test?" in form.action]
    page = admin.submit(form)
    assert page.status_code == 200
    results = re.findall(r'mq-badge [\w-]*">([a-z ]+)<', page.text)
    assert results[:2] == ["fails", "not tried"], "no server is set in this site"
    assert "No mail server is configured." in page.text
    assert [action[:2] for action in actions(queue)] == [("admin@example.test", "test")]
    assert reader.post(form.action).status_code == 403
    assert admin.post("mailqueue/test").status_code == 403
    assert admin.get("mailqueue/test").status_code in (404, 405)


def test_the_test_tells_of_the_keys_too(tmp_path: Path) -> None:
    settings = """
from mailqueue import dkim_key
mail.settings.dkim = [dkim_key(domain="example.test", selector="2026", key="/nowhere/dkim.pem")]
mail.settings.cipher_type, mail.settings.gpg_home = "gpg", "/nowhere/gnupg"
mail.settings.sign_passphrase = "very-secret"
"""
    site = make_site(tmp_path, settings={"VERIFY_EMAIL": False}, extra_common=MOUNT + settings)
    with site.serve() as running:
        admin = registered(running, "admin@example.test", "/admin/")
        [form] = [form for form in admin.forms(admin.get("mailqueue/overview")) if "/test?" in form.action]
        page = admin.submit(form).text
        admin.session.headers["Accept-Language"] = "de"
        german = admin.submit(form).text
    assert re.findall(r'mq-badge [\w-]*">fails</span> ((?:DKIM k|K)ey.*?)</li>', page) == [
        "DKIM key 2026._domainkey.example.test",
        "Keys for OpenPGP",
    ]
    assert "DKIM key 2026._domainkey.example.test: A key for DKIM cannot be used" in page
    assert "/nowhere/dkim.pem: No such file or directory" in page
    assert "Keys for OpenPGP: Mail cannot be signed or encrypted by OpenPGP" in page
    assert "very-secret" not in page
    assert "Schlüssel für OpenPGP: " in html.unescape(german)


# --- what was done ---------------------------------------------------------------------------


def test_what_administrators_did_is_shown_page_by_page(admin: Browser, reader: Browser, queue: Queue) -> None:
    assert "Nobody has done anything" in admin.get("mailqueue/actions").text
    message_id = queue.put()
    admin.submit(button(admin, f"mailqueue/message/{message_id}", "cancel"))
    for number in range(actions_page.ROWS):
        audit.record(queue.db, "<script>eve</script>", audit.CORRECT, time.time(), number + 1, "<b>to</b>")
    queue.db.commit()
    page = reader.get("mailqueue/actions")
    assert page.text.count("Address corrected") == actions_page.ROWS
    assert "&lt;script&gt;eve" in page.text
    assert "<b>to" not in page.text
    last = admin.get(neighbour(admin, "mailqueue/actions", "next") or "").text
    assert "Cancelled" in last
    assert "admin@example.test" in last[last.index("mq-table") :]
    assert f'href="/site/mailqueue/message/{message_id}"' in last
    assert "Newest" in last


def test_what_was_stored_in_english_is_shown_in_the_language_of_who_reads_it(
    admin: Browser, queue: Queue
) -> None:
    german, message_id = {"Accept-Language": "de"}, queue.put()
    queue.db(queue.db.mailqueue_message.id == message_id).update(due=time.time() - 3600)
    rule = {"stage": "rcpt", "code": 550, "enhanced": "", "reply_text": "no", "meaning": "unknown-address"}
    for action, detail in (
        (audit.ADD_RULE, rulebook.told(rule)),
        (audit.EXPORT, "status: in_doubt, search: x, y, until: 2026-01-01"),
        (audit.CANCEL, "many at once (5, stopped by b@x.test): status: queued"),
        (audit.RETRY, "many at once, begun: all messages"),
        (audit.ACKNOWLEDGE, "Mail is due, and nobody sends it."),
    ):
        audit.record(queue.db, "a@x.test", action, time.time(), None, detail)
    audit.record(queue.db, "a@x.test", audit.RETRY, time.time(), message_id, "over smtp://a.test:25")
    queue.db.commit()
    page = html.unescape(admin.get("mailqueue/actions", headers=german).text)
    assert re.findall(r'<div class="mq-reply">(.*?)</div>', page) == [
        "über smtp://a.test:25",
        "E-Mails sind fällig, und niemand sendet sie.",
        "viele auf einmal, begonnen: alle Nachrichten",
        "viele auf einmal (5, angehalten von b@x.test): Status: eingereiht",
        "Status: zweifelhaft, Suche: x, y, bis: 2026-01-01",
        "rcpt 550 “no” → Diese Adresse gibt es nicht",
    ]
    page = admin.get(f"mailqueue/message/{message_id}", headers=german).text
    assert "Seit 60 Minuten war kein Worker da, obwohl E-Mails fällig sind." in page
    assert '<div class="mq-reply">über smtp://a.test:25</div>' in page
    assert '<span class="mq-muted">an</span>' in page
    assert "<dd>zweifelhaft</dd>" in admin.get("mailqueue/bulk?status=in_doubt", headers=german).text


def test_a_test_of_the_connection_is_told_in_the_language_of_who_asks_for_it(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    settings = {
        "VERIFY_EMAIL": False,
        "SMTP_SERVER": f"127.0.0.1:{smtp.port}",
        "SMTP_SENDER": "site@example.test",
        "SMTP_LOGIN": None,
        "SMTP_TLS": False,
    }
    site = make_site(tmp_path, settings=settings, extra_common=MOUNT)
    smtp.extensions = ("8BITMIME",)
    with site.serve() as served:
        browser = registered(served, "admin@example.test", "/admin/")
        browser.session.headers["Accept-Language"] = "de"
        [form] = [one for one in browser.forms(browser.get("mailqueue/overview")) if "/test?" in one.action]
        page = html.unescape(browser.submit(form).text)
    assert "Die Verbindung ist nicht verschlüsselt." in page
    assert "Der Server bietet PIPELINING nicht an: das Senden braucht mehr Hin- und Rückwege." in page
    assert "Erweiterungen, auf die es ankommt: 8BITMIME." in page


def test_no_page_can_be_framed_nor_send_its_forms_elsewhere(admin: Browser, queue: Queue) -> None:
    message_id = queue.put(html="<p>Hi</p>")
    pages = [admin.get(path) for path in PAGES if path != "mailqueue/message/1"]
    pages = [page for page in pages if page.status_code == 200]
    assert len(pages) > 4
    for page in [*pages, content_of(admin, message_id), admin.get("mailqueue/templates")]:
        policy = page.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        own = page.text[page.text.index('<div class="mq"') :]
        own = own[: own.index("<footer")]
        assert not re.findall(r"<script(?! src=)| on\w+=| style=", own), "strict policies of hosts are kept"
        assert not re.findall(r'(?:href|src|action)="(?:https?:)?//', own)


# --- the rest --------------------------------------------------------------------------------


def test_the_style_sheet_is_served_and_nothing_beside_it(served: ServedSite, admin: Browser) -> None:
    [sheet] = re.findall(
        r'<link rel="stylesheet" href="(/site/mailqueue/[^"]+)"', admin.get("mailqueue").text
    )
    answer = admin.get(served.url.removesuffix("/site") + sheet)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/css")
    outside = admin.get("mailqueue/static/..%2Fwords.py")
    assert outside.status_code in (403, 404)


@pytest.mark.parametrize(("wanted", "language"), [("de-AT", "de"), ("tlh", "en"), ("", "en")])
def test_every_answer_says_which_language_it_is_in(
    admin: Browser, queue: Queue, wanted: str, language: str
) -> None:
    asked = {"Accept-Language": wanted}
    form = button(admin, f"mailqueue/message/{queue.put()}", "cancel")
    answers = [admin.get(path, headers=asked) for path in ("mailqueue", "mailqueue/message/987654")]
    answers.append(admin.post(form.action, headers=asked, allow_redirects=False))
    assert [answer.status_code for answer in answers] == [200, 404, 303]
    assert [answer.headers["Content-Language"] for answer in answers] == [language] * 3


def test_the_pages_are_in_the_hosts_own_layout(admin: Browser, queue: Queue) -> None:
    for path in ("mailqueue", "mailqueue/problems", f"mailqueue/message/{queue.put()}"):
        page = admin.get(path).text
        assert "Made with py4web" in page
        assert "<title>M" in page[: page.index("</head>")], "the layout has a place for it"
        assert "admin@example.test" in page
        own = page[page.index('<div class="mq"') :]
        links = re.findall(r'(?:href|action)="([^"]*)"', own[: own.index("<footer")])
        assert links
        assert all(link.startswith("/site/mailqueue") for link in links)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (-200000, "2 d ago"),
        (-7199, "1 h ago"),
        (-119, "1 min ago"),
        (-5, "just now"),
        (29, "in a moment"),
        (117, "in 2 min"),
        (3569, "in 59 min"),
        (3570, "in 1 h"),
        (7194, "in 2 h"),
        (86399, "in 1 d"),
    ],
)
def test_a_span_of_time_is_told_in_words(seconds: float, told: str) -> None:
    assert relative(seconds) == told


def test_search_takes_wildcards_for_letters_on_every_database(db_uri: str, tmp_path: Path) -> None:
    db = DAL(db_uri, folder=str(tmp_path))
    define_tables(db)
    queue = Queue(db)
    percent, plain = queue.put(subject="100% off"), queue.put(subject="1000 off", to="Bob_x@example.test")
    assert [row["id"] for row in queries.messages(db, search="0%")] == [percent]
    assert [row["id"] for row in queries.messages(db, search="bob_X")] == [plain]
    assert queries.messages(db, search="bob\\") == []
    assert queries.messages(db, search="'; --") == []
    assert [row["id"] for row in queries.messages(db, before=plain)] == [percent]
    assert queries.message(db, 10**30) is None
    db.close()

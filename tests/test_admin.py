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
from typing import Any

import pytest
from mailqueue import Attachment, breaker, leases, ledger, liveness, outbox, problems, queries, words
from mailqueue.classify import Failure
from mailqueue.compose import compose
from mailqueue.ledger import Ledger
from mailqueue.lessons import Lesson
from mailqueue.limits import Limit, Rate
from mailqueue.outbox import Finished, HeldBack, Outcome, Retention
from mailqueue.py4web.admin import ROWS, VERBS, relative
from mailqueue.tables import TABLES, define_tables
from mailqueue.terms import terms
from py4web.core import DAL
from requests import Response
from support.browser import Browser, Form
from support.scaffold import ServedSite, Site, make_site
from support.smtp_server import ScriptedServer

TRANSPORT = "smtp://mail.example.test:587"
MOUNT = "mail.enable_admin(auth, uses=(session, T, db))"
HTML = {"Accept": "text/html"}
PAGES = (
    "mailqueue",
    "mailqueue/problems",
    "mailqueue/message/1",
    "mailqueue/message/1/content",
    "mailqueue/held",
)


class Queue:
    """The queue of a site, filled and emptied from outside."""

    def __init__(self, db: Any) -> None:
        self.db = db

    def put(self, to: object = "ann@example.test", subject: str = "Hello", **content: Any) -> int:
        given = {"text": "Text", "html": None, "sender": "site@example.test", **content}
        composed = compose(to=to, subject=subject, domain="example.test", now=time.time(), **given)
        message_id = outbox.enqueue(self.db, composed, terms(time.time()), now=time.time())
        self.db.commit()
        assert message_id
        return message_id

    def finish(self, message_id: int, **outcome: Any) -> int:
        """One attempt, with this outcome for every recipient."""
        now = time.time()
        worker = leases.register(self.db, token="t", host_name="h", pid=1, journal="", now=now)
        everything = outbox.claim(self.db, worker, limit=1000, now=now + 1)
        [claimed] = [one for one in everything if one.id == message_id]
        outbox.release(self.db, [one for one in everything if one.id != message_id], now)
        outcomes = tuple(Outcome(recipient.id, **outcome) for recipient in claimed.recipients)
        done = Finished(message_id, claimed.token, TRANSPORT, now, 0.2345, outcomes)
        outbox.finish(self.db, [done], now, Retention())
        return message_id

    def failed(self, **message: Any) -> int:
        reply = "5.1.1 <script>alert('reply')</script>"
        return self.finish(
            self.put(**message),
            status=words.FAILED,
            stage=words.RCPT,
            failure_kind=words.RECIPIENT,
            code=550,
            enhanced="5.1.1",
            reply=reply,
        )

    def status(self, message_id: int) -> str:
        self.db.commit()
        return str(self.db.mailqueue_message(message_id).status)

    def clear(self) -> None:
        for table in TABLES:
            self.db(self.db[table].id > 0).delete()
        self.db.commit()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        now = time.time()
        said = "5.7.8 <script>alert('detail')</script>"
        failure = Failure(words.CONFIGURATION, words.AUTH, "auth-rejected", said, code=535)
        problems.report(self.db, failure, TRANSPORT, now)
        breaker.pause(self.db, TRANSPORT, [], stage=words.AUTH, reason=said, now=now)
        self.db.commit()
        try:
            yield
        finally:
            breaker.proved(self.db, TRANSPORT, time.time())
            problems.resolve_way(self.db, TRANSPORT, time.time())
            self.db.commit()


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


def registered(served: ServedSite, email: str, group: str = "") -> Browser:
    browser = served.browser()
    browser.register(email)
    if group:
        join(served.site, email, group)
    browser.login(email)
    return browser


def join(site: Site, email: str, group: str) -> None:
    with contextlib.closing(site.database()) as connection, connection:
        connection.execute(
            "INSERT INTO auth_user_tag_groups (tagpath, record_id) SELECT ?, id FROM auth_user WHERE email=?",
            (group, email),
        )


def button(browser: Browser, path: str, verb: str) -> Form:
    [form] = buttons(browser, path, verb)
    return form


def buttons(browser: Browser, path: str, verb: str) -> list[Form]:
    return [form for form in browser.forms(browser.get(path)) if f"/{verb}?" in form.action]


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
        sent: "",
        gone: "",
        deferred: "retry cancel",
        queued: "cancel",
        doubtful: "retry cancel arrived",
    }
    for message_id, verbs in expected.items():
        path = f"mailqueue/message/{message_id}"
        assert [v for v in VERBS if buttons(admin, path, v)] == verbs.split()
    for verb, ids in (("retry", [doubtful, deferred]), ("cancel", [doubtful, queued, deferred])):
        found = [int(form.action.split("/")[-2]) for form in buttons(admin, "mailqueue", verb)]
        assert found == ids


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
        places = ("mailqueue?search=<script>alert", path, f"{path}/content", "mailqueue/problems")
        pages = [admin.get(place).text for place in places]
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
    [link] = re.findall(r'href="/site/(mailqueue/message/\d+/content)"', page.text)
    content = admin.get(link)
    for expected in ("Grüße: token=SECRET", "list.csv", "site@example.test"):
        assert expected in content.text
    assert content.headers["Cache-Control"] == "no-store"


def test_the_html_of_a_mail_is_locked_in(admin: Browser, queue: Queue) -> None:
    message_id = queue.put(text=None, html='<img src="http://tracker.example/x.png"><p>Hi</p>')
    content = admin.get(f"mailqueue/message/{message_id}/content")
    [frame] = re.findall(r"<iframe [^>]*>", content.text)
    document = html.unescape(frame.partition('srcdoc="')[2].rpartition('"')[0])
    assert 'sandbox=""' in frame
    assert document.startswith("<!DOCTYPE html><meta charset")
    assert document.index("default-src 'none'") < document.index("tracker.example")
    assert "frame-src 'none'" in content.headers["Content-Security-Policy"]


def test_content_that_was_purged_is_said_to_be_gone(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    queue.db(queue.db.mailqueue_content.id > 0).delete()
    queue.db.commit()
    assert "was deleted" in admin.get(f"mailqueue/message/{message_id}").text
    assert "was deleted" in admin.get(f"mailqueue/message/{message_id}/content").text


def test_content_that_is_damaged_does_not_break_the_page(admin: Browser, queue: Queue) -> None:
    message_id = queue.put()
    queue.db(queue.db.mailqueue_content.message_ref == message_id).update(mime="cut")
    queue.db.commit()
    assert "is damaged" in admin.get(f"mailqueue/message/{message_id}/content").text


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
        assert "next try" in page
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


def test_the_pages_are_in_the_hosts_own_layout(admin: Browser, queue: Queue) -> None:
    for path in ("mailqueue", "mailqueue/problems", f"mailqueue/message/{queue.put()}"):
        page = admin.get(path).text
        assert "Made with py4web" in page
        assert "admin@example.test" in page
        own = page[page.index('<div class="mq">') :]
        links = re.findall(r'(?:href|action)="([^"]*)"', own[: own.index("<footer")])
        assert links
        assert all(link.startswith("/site/mailqueue") for link in links)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-5, "just now"), (5, "in a moment"), (-90, "1 min ago"), (7200, "in 2 h"), (-200000, "2 d ago")],
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
    assert [row["id"] for row in queries.messages(db, after=percent)] == [plain]
    assert queries.message(db, 10**30) is None
    db.close()

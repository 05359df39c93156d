"""The administrator's pages in a real Chromium: journeys, keyboard, screens, scripts off, what axe finds."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mailqueue
import pytest
from mailqueue import QueuedMailer, words
from support.browser import Browser
from support.console_site import MOUNT, Queue, fill, make_console_site, registered
from support.scaffold import ServedSite, make_site
from support.services import needs
from support.smtp_server import Close, Reply, ScriptedServer

ADMIN = "admin@example.test"


@pytest.fixture(scope="module")
def chrome() -> Iterator[Any]:
    needs("browser")
    from support.chromium import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(chrome: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    with make_console_site(tmp_path_factory.mktemp("console")).serve() as running:
        yield running


@pytest.fixture(scope="module")
def admin(served: ServedSite) -> Browser:
    return registered(served, ADMIN, "/admin/")


@pytest.fixture
def queue(served: ServedSite, admin: Browser) -> Iterator[Queue]:
    with contextlib.closing(served.site.dal()) as db:
        queue = Queue(db)
        queue.clear()
        yield queue


@pytest.fixture
def visit(chrome: Any, served: ServedSite, admin: Browser) -> Iterator[Callable[..., Any]]:
    """Opens a page of the console as the administrator, in a window of its own."""
    with windows(chrome, served, admin) as opened:
        yield opened


@contextlib.contextmanager
def windows(chrome: Any, served: ServedSite, admin: Browser) -> Iterator[Callable[..., Any]]:
    with contextlib.ExitStack() as windows:

        def opened(path: str, **window: Any) -> Any:
            context = chrome.new_context(viewport={"width": 1280, "height": 900}, **window)
            windows.callback(context.close)
            cookies = [{"name": c.name, "value": c.value, "url": served.url} for c in admin.session.cookies]
            context.add_cookies(cookies)
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.goto(f"{served.url}/{path}")
            return page

        yield opened


def mailer(queue: Queue, smtp: ScriptedServer, login: str | None = None) -> QueuedMailer:
    """A worker's side of the site: it sends what the pages show."""
    server = f"127.0.0.1:{smtp.port}"
    return QueuedMailer(queue.db, server=server, sender="site@example.test", login=login, tls=False)


# --- in layouts of others --------------------------------------------------------------------


def test_the_heading_can_be_read_in_the_layout_of_web2pys_welcome_application(chrome: Any) -> None:
    theirs = """header { box-shadow: 0 0 8px 2px #000; margin-bottom: 10px; }
        header h1 { color: #FFF!important; text-shadow: 0 0 7px #000; }"""  # of its web2py-bootstrap4.css
    ours = Path(mailqueue.__file__).with_name("static").joinpath("admin.css").read_text(encoding="utf-8")
    with contextlib.closing(chrome.new_page()) as page:
        page.set_content(
            f"<style>{theirs}</style><style>{ours}</style><body style='color: #212529'>"
            "<div class=mq><header class=mq-head><h1>Mail</h1></header></div>"
        )
        head, heading = page.locator("header"), page.locator("h1")
        assert head.evaluate("it => getComputedStyle(it).boxShadow") == "none"
        style = heading.evaluate("it => [getComputedStyle(it).color, getComputedStyle(it).textShadow]")
        assert style == ["rgb(33, 37, 41)", "none"]


# --- journeys --------------------------------------------------------------------------------


def test_i_did_not_get_the_mail(visit: Callable[..., Any], queue: Queue) -> None:
    queue.put(to="bob@example.test", subject="Another")
    queue.failed(to="ann@exmaple.test", subject="Your invoice")
    page = visit("mailqueue")
    page.get_by_role("searchbox").fill("ann@exmaple")
    page.get_by_role("button", name="Search").click()
    assert page.locator(".mq-subject").all_inner_texts() == ["Your invoice"]
    page.get_by_role("link", name="Your invoice").click()
    text = page.locator(".mq").inner_text()
    assert "550 5.1.1 <script>alert('reply')</script>" in text
    assert "What happens next: Nothing by itself: correct the address" in text


def test_a_wrong_password_is_found_and_repaired(
    visit: Callable[..., Any], queue: Queue, smtp: ScriptedServer
) -> None:
    queue.put(subject="Waiting")
    with ScriptedServer(auth={"site": "right"}) as server:
        mailer(queue, server, "site:wrong").process_queue()
        page = visit("mailqueue/overview")
        banner = page.get_by_role("region", name="No mail is sent")
        assert "rejects user name or password" in banner.inner_text()
        assert "Correct the login of the mailer" in banner.inner_text()
        again = mailer(queue, server, "site:right")
        assert again.process_queue()["sent"] == 1
    page.reload()
    assert page.get_by_text("Mail goes out: no problem is open.").is_visible()
    assert page.get_by_text("working").is_visible()


def test_a_refused_address_is_corrected(
    visit: Callable[..., Any], queue: Queue, smtp: ScriptedServer
) -> None:
    from support.chromium import violations

    message_id = queue.put(to="jon@exmaple.test", subject="Order")
    smtp.script["rcpt"] = Reply(550, "5.1.1 User unknown")
    assert mailer(queue, smtp).process_queue()["failed"] == 1
    page = visit(f"mailqueue/message/{message_id}")
    page.get_by_text("Correct the address", exact=True).click()
    address = page.get_by_role("textbox", name="Another address for jon@exmaple.test")
    address.fill("jon@@example.test")
    page.get_by_role("button", name="Correct jon@exmaple.test and retry").click()
    assert "“jon@@example.test” is not one e-mail address" in page.get_by_role("alert").inner_text()
    assert address.input_value() == "jon@@example.test"
    assert address.evaluate("field => field === document.activeElement"), "it can be mended at once"
    assert not violations(page)
    address.fill("jon@example.test")
    page.get_by_role("button", name="Correct jon@exmaple.test and retry").click()
    assert f"Message {message_id} is in the queue for jon@example.test." in page.inner_text("body")
    del smtp.script["rcpt"]
    assert mailer(queue, smtp).process_queue()["sent"] == 1
    assert smtp.messages[-1].rcpt_tos == ("jon@example.test",)


def test_a_doubt_is_resolved(visit: Callable[..., Any], queue: Queue, smtp: ScriptedServer) -> None:
    message_id = queue.put(subject="Minutes")
    smtp.script["dot"] = Close()
    assert mailer(queue, smtp).process_queue()["in_doubt"] == 1
    page = visit("mailqueue?status=in_doubt")
    page.get_by_role("link", name="Minutes").click()
    page.get_by_role("button", name=f"It arrived: message {message_id}").click()
    assert f"Message {message_id} is marked as arrived." in page.inner_text("body")
    assert queue.status(message_id) == words.SENT


def test_all_that_failed_with_an_error_is_retried(visit: Callable[..., Any], queue: Queue) -> None:
    failed = [queue.failed(subject=f"No. {number}") for number in range(3)]
    page = visit("mailqueue/problems")
    page.get_by_role("link", name="Retry these…").click()
    page.get_by_role("button", name="Retry 3 messages").click()
    assert "3 messages are back in the queue." in page.inner_text("body")
    assert {queue.status(message_id) for message_id in failed} == {words.QUEUED}


def test_a_reply_that_no_rule_knew_is_decided_from_then_on(
    visit: Callable[..., Any], queue: Queue, smtp: ScriptedServer
) -> None:
    queue.put()
    smtp.script["rcpt"] = Reply(550, "Computer says no")
    mailer(queue, smtp).process_queue()
    page = visit("mailqueue/replies")
    page.get_by_text("Decide replies like this from now on").click()
    assert page.get_by_label("The server says").input_value() == "Computer says no"
    page.get_by_label("which means").select_option("mailbox-full")
    page.get_by_role("button", name="Add the rule").click()
    assert "The rule is added." in page.inner_text("body")
    page.get_by_label("Reply or exception").fill("550 Computer says no")
    page.get_by_role("button", name="Try it").click()
    assert "a rule of this site" in page.get_by_role("status").last.inner_text()
    page.get_by_role("button", name="Remove the rule for Computer says no").click()
    assert "The rule is removed." in page.inner_text("body")


# --- everybody -------------------------------------------------------------------------------


def test_keys_alone_find_a_message_and_retry_it(visit: Callable[..., Any], queue: Queue) -> None:
    message_id = queue.failed(subject="Your invoice")
    page = visit("mailqueue")
    tab_to(page, lambda told: told["type"] == "search")
    page.keyboard.type("invoice")
    page.keyboard.press("Enter")
    page.wait_for_url("**search=invoice*")
    tab_to(page, lambda told: told["text"] == "Your invoice")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/message/{message_id}")
    tab_to(page, lambda told: told["text"] == "Retry")
    page.keyboard.press("Enter")
    page.get_by_text("is back in the queue").wait_for()
    assert queue.status(message_id) == words.QUEUED


def tab_to(page: Any, wanted: Callable[[dict[str, str]], bool]) -> None:
    """Press Tab until this has the focus; each place on the way shows that it has it."""
    script = """() => { const e = document.activeElement, s = getComputedStyle(e);
        return {text: e.innerText || "", type: e.type || "", tag: e.tagName, outline: s.outlineStyle} }"""
    for _ in range(60):
        page.keyboard.press("Tab")
        told = page.evaluate(script)
        assert told["outline"] != "none", f"nobody sees the focus on {told}"
        if wanted(told):
            return
    raise AssertionError("no Tab leads there")


def test_every_verb_works_without_scripts(visit: Callable[..., Any], queue: Queue) -> None:
    waiting, failed = queue.put(text="token=SECRET"), queue.failed()
    page = visit(f"mailqueue/message/{waiting}", java_script_enabled=False)
    page.get_by_role("button", name=f"Show the content of message {waiting}").click()
    assert "token=SECRET" in page.inner_text("body")
    page.get_by_role("link", name="Back to the message").click()
    page.get_by_role("button", name=f"Cancel message {waiting}").click()
    assert queue.status(waiting) == words.CANCELLED
    page.get_by_role("link", name="Messages").click()
    page.get_by_role("button", name=f"Retry message {failed}").click()
    assert queue.status(failed) == words.QUEUED
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("button", name="Test the connection").click()
    assert "No mail server is configured." in page.inner_text("body")
    page.get_by_role("link", name="Replies").click()
    page.get_by_label("Reply or exception").fill("550 5.1.1 User unknown")
    page.get_by_role("button", name="Try it").click()
    assert "unknown-address" in page.inner_text("body")


def test_the_overview_comes_anew_and_takes_nothing_from_who_is_at_it(
    visit: Callable[..., Any], queue: Queue
) -> None:
    page = visit("mailqueue/overview")
    page.clock.install()
    page.reload()
    queued = page.get_by_role("link", name="queued")
    assert queued.inner_text() == "0 queued"
    queue.put()
    queued.focus()
    with_focus = page.evaluate("document.activeElement.href")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.fast_forward(31_000)
    assert page.evaluate("document.activeElement.href") == with_focus
    assert queued.inner_text() == "0 queued"
    assert asked == [], "nothing is fetched for somebody who is at it"
    page.get_by_role("link", name="Stop that").focus()
    with page.expect_response("**/overview"):
        page.clock.fast_forward(31_000)
    page.get_by_role("link", name="1 queued").wait_for()
    assert page.evaluate("document.activeElement.innerText") == "Stop that"


def test_an_overview_whose_login_has_ended_does_not_grow_old(visit: Callable[..., Any], queue: Queue) -> None:
    page = visit("mailqueue/overview")
    page.clock.install()
    page.reload()
    page.context.clear_cookies()
    with page.expect_navigation(url=re.compile("/auth/login")):
        page.clock.fast_forward(31_000)
    assert page.locator("#mq-live").count() == 0


def test_the_pages_are_in_the_language_of_who_reads_them(visit: Callable[..., Any], queue: Queue) -> None:
    from support.chromium import HEIGHT, NARROW, WIDE, scrolls_sideways

    queue.failed()
    queue.finish(queue.put(), status=words.IN_DOUBT)
    page = visit("mailqueue", locale="de-AT")
    page.set_viewport_size({"width": WIDE, "height": HEIGHT})
    assert page.locator("td.mq-main").first.bounding_box()["width"] > 200, "long buttons leave it its place"
    page.set_viewport_size({"width": NARROW, "height": HEIGHT})
    assert page.locator(".mq").get_attribute("lang") == "de"
    assert not scrolls_sideways(page), "three long words beside each other"
    page.get_by_role("button", name="erneut versuchen").first.click()
    assert "ist wieder in der Warteschlange" in page.inner_text("body")


# --- every page ------------------------------------------------------------------------------


def pages(queue: Queue) -> list[str]:
    made = fill(queue, queue.clock())
    ones = [f"message/{made[one]}" for one in ("failed", "in_doubt")]
    further = ["", "?search=x", "?status=expired", "/overview", "/problems", "/held", "/actions", "/replies"]
    shown = ["/bulk", "/templates", "/template/verify_email/de", f"/message/{made['queued']}/content"]
    return [f"mailqueue{path}" for path in (*further, *shown, *(f"/{one}" for one in ones))]


def test_no_page_breaks_the_rules_for_accessible_content(
    visit: Callable[..., Any], served: ServedSite, queue: Queue
) -> None:
    from support.chromium import HEIGHT, NARROW, WIDE, refusals, scrolls_sideways, violations

    page = visit("mailqueue")
    refused, found = refusals(page), []
    with queue.paused():
        for path in (*pages(queue), "mailqueue/message/987654"):
            answer = page.goto(f"{served.url}/{path}")
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            if path.endswith("/content"):
                page.get_by_role("button", name="Show the content").click()
                page.get_by_text("do not pass it on").wait_for()
            assert not refused, f"the policy refuses a part of {path}"
            # Colours do not depend on the width, nor sizes on the colours: these two stand for all four.
            for width, scheme in ((WIDE, "dark"), (NARROW, "light")):
                page.set_viewport_size({"width": width, "height": HEIGHT})
                page.emulate_media(color_scheme=scheme)
                seen = violations(page)
                seen += ["it is wider than the window"] if scrolls_sideways(page) else []
                found += [f"{path} {width} {scheme}: {told}" for told in seen]
            refused.clear()  # axe itself is no part of the page
    assert not found, "\n".join(found)


def test_a_page_in_a_hosts_layout_has_a_title_and_takes_no_contrast_from_its_links(
    chrome: Any, tmp_path: Path
) -> None:
    from support.chromium import violations

    site = make_site(tmp_path, settings={"VERIFY_EMAIL": False}, extra_common=MOUNT)
    # What is just enough on the host's own background, and says by nothing else that it is a link.
    style = site.folder / "static" / "css" / "no.css"
    style.write_text(f"{style.read_text()}\nmain a {{ color: #767676; text-decoration: none; }}")
    layout = site.folder / "templates" / "layout.html"
    layout.write_text(re.sub("<link.*cdnjs.*>", "", layout.read_text()))
    with site.serve() as served, contextlib.closing(site.dal()) as db:
        admin, queue = registered(served, ADMIN, "/admin/"), Queue(db)
        found = []
        with windows(chrome, served, admin) as visit, queue.paused():
            page = visit("mailqueue")
            for path in (*pages(queue), "mailqueue?search=nobody", "mailqueue/overview?refresh=off"):
                page.goto(f"{served.url}/{path}")
                assert page.title() != "", path
                if page.locator(".mq-table tbody tr").count():
                    page.locator(".mq-table tbody tr").first.hover()
                found += [f"{path}: {told}" for told in violations(page, ".mq")]
    assert not found, "\n".join(found)


def test_the_policy_names_no_other_host(admin: Browser, queue: Queue) -> None:
    for path in pages(queue):
        answer = admin.get(path)
        assert answer.status_code == 200
        policy = answer.headers["Content-Security-Policy"]
        assert "http" not in policy
        assert "script-src" not in policy or "script-src 'self'" in policy
        inline = path.startswith("mailqueue/template/")
        assert ("'unsafe-inline'" in policy) == inline, (
            "only the mail itself, in its frame, has styles inside"
        )


def test_the_pictures_of_the_documentation_can_be_made_anew(chrome: Any, tmp_path: Path) -> None:
    import screenshots

    screenshots.make(chrome, tmp_path)
    shown = {path.name for path in (Path(__file__).parent.parent / "docs" / "images").glob("*.png")}
    assert {path.name for path in tmp_path.glob("*.png")} == shown


SCREENSHOTS = [sys.executable, str(Path(__file__).with_name("screenshots.py"))]


@pytest.mark.parametrize(("option", "code"), [("--help", 0), ("--what", 2)])
def test_an_option_of_the_picture_maker_is_no_folder(tmp_path: Path, option: str, code: int) -> None:
    needs("browser")
    answer = subprocess.run(
        [*SCREENSHOTS, option], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == code, answer
    assert "usage: screenshots.py" in answer.stdout + answer.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_picture_maker_that_is_ended_ends_what_it_started(tmp_path: Path) -> None:
    needs("browser")
    environment = {**os.environ, "PICTURES_OF": str(tmp_path)}  # which whatever it starts inherits
    with subprocess.Popen([*SCREENSHOTS, str(tmp_path)], env=environment) as running:
        for _pause in range(600):
            if (tmp_path / "admin.png").exists():
                break
            time.sleep(0.05)
        assert any("py4web" in command for command in _processes_of(tmp_path))
        running.terminate()
        assert running.wait(30) == 1
    for _pause in range(200):  # the browser sees by itself that nobody is there any more
        if not _processes_of(tmp_path):
            break
        time.sleep(0.05)
    assert _processes_of(tmp_path) == []


def _processes_of(folder: Path) -> list[str]:
    """The command lines of the processes that make pictures for this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is somebody else's
            if f"PICTURES_OF={folder}".encode() in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found

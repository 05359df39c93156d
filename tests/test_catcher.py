"""The mail catcher of the demo: real SMTP in, real HTTP out."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from email.message import EmailMessage

import pytest
import requests
from mailqueue.catcher import Catcher


@pytest.fixture
def catcher() -> Iterator[Catcher]:
    with Catcher() as catcher:
        yield catcher


def send(catcher: Catcher, text: str, html: str = "", subject: str = "Hello") -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@site.test", "ann@visitor.test", subject
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port, timeout=10) as client:
        client.send_message(message)


def test_an_empty_inbox_says_so(catcher: Catcher) -> None:
    assert "No mail has arrived yet" in requests.get(catcher.inbox_url, timeout=10).text


def test_what_was_sent_is_listed_newest_first_and_can_be_opened(catcher: Catcher) -> None:
    send(catcher, "one", subject="First")
    send(catcher, "two", subject="Zweiter ä")
    page = requests.get(catcher.inbox_url, timeout=10).text
    assert page.index("Zweiter ä") < page.index("First")
    assert "ann@visitor.test" in page
    assert "one" in requests.get(catcher.inbox_url + "1", timeout=10).text
    listed = requests.get(catcher.inbox_url + "messages.json", timeout=10).json()
    assert [message["subject"] for message in listed] == ["First", "Zweiter ä"]


def test_a_link_in_the_text_can_be_clicked_and_the_rest_is_only_text(catcher: Catcher) -> None:
    send(catcher, 'click https://site.test/verify?a=1&b=2 <script>alert("x")</script>')
    page = requests.get(catcher.inbox_url + "1", timeout=10).text
    assert '<a href="https://site.test/verify?a=1&amp;b=2">' in page
    assert "<script>" not in page


def test_html_is_shown_in_a_frame_that_can_do_nothing(catcher: Catcher) -> None:
    send(catcher, "text", html="<p>HTML</p><script>alert(1)</script>")
    answer = requests.get(catcher.inbox_url + "1", timeout=10)
    assert '<iframe sandbox title="HTML" srcdoc="&lt;p&gt;HTML' in answer.text
    assert "<script>" not in answer.text
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["7", "0", "x", "../etc/passwd", "-1"])
def test_what_is_not_there_is_404(catcher: Catcher, path: str) -> None:
    assert requests.get(catcher.inbox_url + path, timeout=10).status_code == 404


def test_an_unheard_of_character_set_hides_no_mail(catcher: Catcher) -> None:
    odd = b"Subject: odd\r\nContent-Type: text/plain; charset=x-unheard-of\r\n\r\nhello\r\n"
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port, timeout=10) as client:
        client.sendmail("a@site.test", ["ann@visitor.test"], odd)
    assert "hello" in requests.get(catcher.inbox_url + "1", timeout=10).text
    assert requests.get(catcher.inbox_url + "messages.json", timeout=10).json()[0]["text"].strip() == "hello"


def test_a_subject_cannot_break_out_of_the_page(catcher: Catcher) -> None:
    send(catcher, "x", subject="</title><script>alert(1)</script>")
    for path in ("", "1"):
        assert "<script>" not in requests.get(catcher.inbox_url + path, timeout=10).text


def test_it_listens_on_this_machine_only(catcher: Catcher) -> None:
    assert catcher.inbox_url.startswith("http://127.0.0.1:")
    assert catcher._smtp.hostname == "127.0.0.1"

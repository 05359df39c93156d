"""send_template(): the mail that is queued, its language, and what becomes of a broken template."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from mailqueue import BadMessage, QueuedMailer, outbox, words
from mailqueue.rendering import templates_of
from support.mail import make_mail, open_causes, rows
from support.scaffold import ServedSite, make_site

VERIFY = {"name": "Ann", "link": "https://site.test/verify?token=1", "expires": 86400}
ACTIONS = """
from mailqueue.errors import BadMessage
from py4web import request

@action("invite")
@action.uses(db)
def _():
    try:
        mail.send_template("ann@x.test", "invitation", language=request.query.get("language"), name="Ann")
    except BadMessage as error:
        return str(error)
    return "sent"
"""


@pytest.fixture
def mail(tmp_path: Path) -> QueuedMailer:
    mail = make_mail(tmp_path)
    mail.templates = templates_of(tmp_path / "app")
    return mail


def own(tmp_path: Path, name: str, content: str) -> None:
    """Write a template of the site's own."""
    path = tmp_path / "app" / "templates" / "mail" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def stored(db: Any) -> list[EmailMessage]:
    """The messages in the queue, by id."""
    ids = [row.id for row in db(db.mailqueue_message.id > 0).select(orderby=db.mailqueue_message.id)]
    found = [message_from_bytes(outbox.content(db, one), EmailMessage, policy=policy.default) for one in ids]
    db.commit()
    return found


def parts(message: EmailMessage) -> tuple[str, str]:
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    assert text
    assert html
    return text.get_content(), html.get_content()


# --- what is queued --------------------------------------------------------------------------


def test_subject_text_and_html_are_queued_in_the_language_asked_for(mail: QueuedMailer) -> None:
    assert mail.send_template("ann@x.test", "verify_email", language="de-AT", **VERIFY) is True
    (message,) = stored(mail.db)
    text, html = parts(message)
    assert message["Subject"] == "Bestätigen Sie Ihre E-Mail-Adresse"
    assert message["To"] == "ann@x.test"
    assert text.splitlines()[0] == "Guten Tag Ann,"
    assert '<html lang="de"' in html
    assert VERIFY["link"] in text
    assert VERIFY["link"] in html


def test_everything_else_that_send_takes_can_be_given(mail: QueuedMailer) -> None:
    options = {"priority": words.URGENT, "category": "account", "expires_after": 60, "headers": {"X-A": "b"}}
    mail.send_template(
        ["a@x.test", "b@x.test"], "approved", options=options, priority="none of send's", to="x"
    )
    (row,) = rows(mail, "message")
    assert (row["priority"], row["category"], row["recipients"]) == (words.URGENT, "account", 2)
    assert row["expires_on"] == mail.site.clock() + 60
    assert stored(mail.db)[0]["X-A"] == "b"


def test_hostile_variables_make_no_header(mail: QueuedMailer, tmp_path: Path) -> None:
    own(tmp_path, "hello.html", "<title>Hi [[=who]]</title><p>[[=who]]</p>")
    mail.send_template("ann@x.test", "hello", who="x\r\nBcc: all@x.test\r\n\r\n<script>")
    (message,) = stored(mail.db)
    assert message["Subject"] == "Hi x Bcc: all@x.test <script>"
    assert message["Bcc"] is None
    assert [row["address"] for row in rows(mail, "recipient")] == ["ann@x.test"]


@pytest.mark.parametrize("template", ["nope", "hello", "verify_email"])
def test_what_cannot_be_filled_in_is_refused_at_the_call(
    mail: QueuedMailer, tmp_path: Path, template: str
) -> None:
    own(tmp_path, "hello.html", "<title>Hi [[=who]]</title>")
    with pytest.raises(BadMessage, match=template):
        mail.send_template("ann@x.test", template)
    assert rows(mail, "message") == []


def test_a_broken_template_of_the_site_is_one_problem_and_no_lost_mail(
    mail: QueuedMailer, tmp_path: Path
) -> None:
    own(tmp_path, "verify_email.html", "<title>[[=lnk]]</title>")
    for _ in range(3):
        mail.send_template("ann@x.test", "verify_email", **VERIFY)
    assert [message["Subject"] for message in stored(mail.db)] == ["Confirm your e-mail address"] * 3
    (problem,) = rows(mail, "problem")
    assert open_causes(mail) == ["template-broken"]
    assert problem["seen"] == 3
    assert "'lnk' is not defined" in problem["detail"]
    assert "the shipped one is used" in problem["summary"]
    assert "templates/mail" in problem["remedy"]
    assert "token" not in str(problem)


# --- which language, and what the site is called ---------------------------------------------


def test_without_a_request_the_sites_language_is_used(mail: QueuedMailer) -> None:
    assert mail.rendered("verify_email", None, VERIFY).language == "en"
    mail.settings.language = "fr"
    assert mail.rendered("verify_email", None, VERIFY).language == "fr"
    assert mail.rendered("verify_email", "nl", VERIFY).language == "fr"
    assert mail.rendered("verify_email", "it", VERIFY).language == "it"


@pytest.mark.parametrize(
    ("sender", "site", "called"),
    [
        ("The Club <a@club.test>", None, "The Club"),
        ("a@club.test", None, "club.test"),
        ("The Club <a@club.test>", "Our <Club>", "Our <Club>"),
    ],
)
def test_the_site_is_called_by_its_name(
    mail: QueuedMailer, sender: str, site: str | None, called: str
) -> None:
    mail.settings.sender, mail.settings.site = sender, site
    assert f"registration at {called}." in mail.rendered("verify_email", None, VERIFY).text
    assert "at Here." in mail.rendered("verify_email", None, {**VERIFY, "site": "Here"}).text


@pytest.mark.parametrize("sender", [None, "", "no address", "you@example.com"])
def test_a_site_that_is_not_set_up_yet_has_some_name(mail: QueuedMailer, sender: str | None) -> None:
    mail.settings.sender = sender
    assert mail.site_name()


# --- in a py4web app -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    site = make_site(tmp_path_factory.mktemp("templated"), extra_common=ACTIONS)
    folder = site.folder / "templates" / "mail"
    folder.mkdir()
    template = '[[subject = T("Approve")]][[extend "layout.html"]]<p>Come!</p>'
    (folder / "invitation.html").write_text(template, encoding="utf-8")
    (site.folder / "translations" / "it.json").write_text('{"Approve": {"0": "Venga"}}', encoding="utf-8")
    with site.serve() as running:
        yield running


@pytest.mark.parametrize(
    ("accepted", "language", "subject"),
    [
        ("de-AT, en;q=0.5", None, "Freigeben"),
        ("it", None, "Venga"),  # the app's own translation
        ("nl", None, "Approve"),
        (None, None, "Approve"),
        ("de", "cs", "Schválit"),
        ("de", "", "Approve"),  # the site's
    ],
)
def test_an_apps_own_template_is_sent_in_the_visitors_language(
    served: ServedSite, accepted: str | None, language: str | None, subject: str
) -> None:
    browser = served.browser()
    browser.session.headers["Accept-Language"] = accepted  # type: ignore[assignment]  # None: not sent
    path = "invite" if language is None else f"invite?language={language}"
    assert browser.get(path).text == "sent"
    db = served.site.dal()
    assert stored(db)[-1]["Subject"] == subject
    db.close()

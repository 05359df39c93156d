"""QueuedMailer: the stock mailer's arguments and meanings, in a queue."""

from __future__ import annotations

import inspect
import io
import json
import logging
import threading
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from mailqueue import Attachment, BadAddress, BadAttachment, BadHeader, BadMessage, QueuedMailer
from py4web.core import Session, Translator
from py4web.utils.auth import Auth
from py4web.utils.mailer import Mailer
from pydal import Field
from support.database_faults import Other, until
from support.mail import SENDER, make_mail, open_causes, rows
from support.services import fresh_database

BROKEN_HEADER = "Hello\r\nBcc: victim@x.test"


@pytest.fixture
def mail(tmp_path: Path) -> QueuedMailer:
    return make_mail(tmp_path, server="memory")


def sent(mail: QueuedMailer) -> EmailMessage:
    """The one message that was queued, as it goes out."""
    mail.db.commit()
    mail.process_queue()
    from email import message_from_bytes, policy

    (captured,) = mail.captured
    message = message_from_bytes(captured.mime, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(mail: QueuedMailer) -> str:
    message = sent(mail)
    assert message.get_content_type() == "text/plain"
    return str(message.get_content()).rstrip()


# --- the signature -------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["__init__", "send"])
def test_the_signature_is_the_stock_mailers_with_keywords_added(method: str) -> None:
    stock = list(inspect.signature(getattr(Mailer, method)).parameters.values())
    ours = list(inspect.signature(getattr(QueuedMailer, method)).parameters.values())
    if method == "__init__":
        assert ours.pop(1).name == "db"
    assert [(p.name, p.default, p.kind) for p in ours[: len(stock)]] == [
        (p.name, p.default, p.kind) for p in stock
    ]
    added = ours[len(stock) :]
    assert added
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in added)


def test_it_is_a_stock_mailer_with_all_of_its_settings(mail: QueuedMailer) -> None:
    assert isinstance(mail, Mailer)
    assert set(vars(Mailer().settings)) <= set(vars(mail.settings))
    assert bool(mail)
    assert issubclass(QueuedMailer.Attachment, Attachment)
    assert inspect.signature(QueuedMailer.Attachment) == inspect.signature(Attachment)
    stock = inspect.signature(Mailer.Attachment).parameters.values()
    ours = inspect.signature(QueuedMailer.Attachment).parameters.values()
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in stock]


# --- bodies --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("Grüße", "Grüße"),
        ("<html>no page</html>", "<html>no page</html>"),
        (("plain", None), "plain"),
        ((None, "not a page"), "not a page"),
        (["plain", None], "plain"),
        (None, ""),
        ((None, None), ""),
        (io.StringIO("from a file"), "from a file"),
        (io.BytesIO("größer".encode()), "größer"),
        ((io.StringIO("from a file"), None), "from a file"),
        (42, "42"),
    ],
)
def test_a_body_without_html_is_plain_text(mail: QueuedMailer, body: Any, text: str) -> None:
    mail.send("ann@x.test", "Hi", body)
    assert text_of(mail) == text


@pytest.mark.parametrize(
    "body",
    [
        (None, "<html><b>hi</b></html>"),
        (None, " <!DOCTYPE html><html><b>hi</b></html>"),
        (None, io.StringIO("<html><b>hi</b></html>")),
    ],
)
def test_a_body_of_html_only_is_html(mail: QueuedMailer, body: Any) -> None:
    mail.send("ann@x.test", "Hi", body)
    message = sent(mail)
    assert message.get_content_type() == "text/html"
    assert "<b>hi</b>" in message.get_content()


def test_text_and_html_are_alternatives(mail: QueuedMailer) -> None:
    mail.send("ann@x.test", "Hi", ("plain", "<b>rich</b>"))
    message = sent(mail)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


def test_bytes_are_read_in_the_given_encoding(mail: QueuedMailer) -> None:
    latin = "Grüße".encode("latin-1")
    mail.send("ann@x.test", latin, latin, headers={"X-Greeting": latin}, encoding="latin-1")
    message = sent(mail)
    assert (message["Subject"], message["X-Greeting"]) == ("Grüße", "Grüße")
    assert message.get_content().rstrip() == "Grüße"


def test_no_subject_and_no_body_are_the_stock_mailers(mail: QueuedMailer) -> None:
    mail.send("ann@x.test")
    message = sent(mail)
    assert (message["Subject"], message.get_content().rstrip()) == ("[no subject]", "[no body]")


def test_a_subject_of_none_is_empty(mail: QueuedMailer) -> None:
    mail.send("ann@x.test", None, "text")
    assert sent(mail)["Subject"] == ""


def test_raw_is_plain_text_without_attachments(mail: QueuedMailer, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("x")
    mail.send("ann@x.test", "Hi", "as it is", attachments=[str(file)], raw=True)
    assert text_of(mail) == "as it is"


def test_raw_html_is_not_lost(mail: QueuedMailer) -> None:
    mail.send("ann@x.test", "Hi", (None, "<html>page</html>"), raw=True)
    assert text_of(mail) == "<html>page</html>"


# --- recipients and headers ----------------------------------------------------------------
@pytest.mark.parametrize("kind", [list, tuple])
def test_the_callers_lists_stay_as_they_are(mail: QueuedMailer, kind: Any) -> None:
    to, cc, bcc = kind(["ann@x.test"]), kind(["bob@x.test"]), kind(["eve@x.test"])
    headers = {"X-A": "1"}
    mail.send(to, cc=cc, bcc=bcc, headers=headers)
    assert (to, cc, bcc) == (kind(["ann@x.test"]), kind(["bob@x.test"]), kind(["eve@x.test"]))
    assert headers == {"X-A": "1"}
    assert [(row["kind"], row["address"]) for row in rows(mail, "recipient")] == [
        ("to", "ann@x.test"),
        ("cc", "bob@x.test"),
        ("bcc", "eve@x.test"),
    ]
    message = sent(mail)
    assert (message["To"], message["Cc"], message["Bcc"]) == ("ann@x.test", "bob@x.test", None)
    assert b"eve@x.test" not in mail.captured[0].mime


def test_single_addresses_need_no_list(mail: QueuedMailer) -> None:
    mail.send("Ann <ann@x.test>", cc="bob@x.test", bcc="eve@x.test", reply_to="Desk <desk@x.test>")
    message = sent(mail)
    assert mail.captured[0].recipients == ("ann@x.test", "bob@x.test", "eve@x.test")
    assert (message["To"], message["Reply-To"]) == ("Ann <ann@x.test>", "Desk <desk@x.test>")


@pytest.mark.parametrize(
    ("given", "envelope", "shown"),
    [
        ({}, "noreply@site.test", "Site <noreply@site.test>"),
        ({"sender": "other@x.test"}, "other@x.test", "other@x.test"),
        ({"from_address": "Boss <boss@x.test>"}, "noreply@site.test", "Boss <boss@x.test>"),
        ({"sender": "other@x.test", "from_address": "boss@x.test"}, "other@x.test", "boss@x.test"),
    ],
)
def test_sender_is_the_envelopes_and_from_address_the_headers(
    mail: QueuedMailer, given: dict[str, str], envelope: str, shown: str
) -> None:
    mail.send("ann@x.test", **given)
    message = sent(mail)
    assert (mail.captured[0].sender, message["From"]) == (envelope, shown)


def test_list_unsubscribe_comes_from_the_settings_unless_given(mail: QueuedMailer) -> None:
    mail.settings.list_unsubscribe = "leave@site.test"
    mail.send("ann@x.test")
    assert sent(mail)["List-Unsubscribe"] == "<mailto:leave@site.test>"
    mail.captured.clear()
    mail.send("ann@x.test", list_unsubscribe="https://site.test/leave")
    assert sent(mail)["List-Unsubscribe"] == "<https://site.test/leave>"


def test_headers_are_added(mail: QueuedMailer) -> None:
    mail.send("ann@x.test", headers={"X-Mailer": "site", "In-Reply-To": "<1@x.test>"})
    message = sent(mail)
    assert (message["X-Mailer"], message["In-Reply-To"]) == ("site", "<1@x.test>")


# --- attachments ---------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["name", "names", "tuple", "object", "objects", "both", "path"])
def test_attachments_are_file_names_or_attachments_one_or_several(
    mail: QueuedMailer, tmp_path: Path, form: str
) -> None:
    file = tmp_path / "a.txt"
    file.write_text("content")
    attached = mail.Attachment(io.BytesIO(b"content"), filename="a.txt")
    given: Any = {
        "name": str(file),
        "names": [str(file)],
        "tuple": (str(file),),
        "object": attached,
        "objects": [attached],
        "both": [str(file), attached],
        "path": file,
    }[form]
    mail.send("ann@x.test", "Hi", "text", attachments=given)
    parts = list(sent(mail).iter_attachments())
    assert [(part.get_filename(), part.get_payload(decode=True)) for part in parts] == [
        ("a.txt", b"content")
    ] * (2 if form == "both" else 1)


# --- translations --------------------------------------------------------------------------
def test_lazy_translations_are_in_the_language_of_the_moment(mail: QueuedMailer, tmp_path: Path) -> None:
    folder = tmp_path / "translations"
    folder.mkdir()
    for language, hello in {"de": "Hallo {name}", "it": "Ciao {name}"}.items():
        words = {"Hello {name}": {"0": hello}, "Bye": {"0": f"{language}-bye"}}
        (folder / f"{language}.json").write_text(json.dumps(words))
    translator = Translator(str(folder))
    for language in ("de", "it"):
        translator.select(language)
        subject = translator("Hello {name}").format(name="Ann")
        mail.send("ann@x.test", subject, [translator("Bye"), None])
    translator.select("en")
    assert [row["subject"] for row in rows(mail, "message")] == ["Hallo Ann", "Ciao Ann"]
    mail.process_queue()
    assert [b"de-bye" in mail.captured[0].mime, b"it-bye" in mail.captured[1].mime] == [True, True]


# --- what cannot become a mail -------------------------------------------------------------
class Unreadable(io.StringIO):
    def read(self, *_: Any) -> str:
        raise OSError("the disk is gone")


BAD: list[tuple[dict[str, Any], type[BadMessage]]] = [
    ({"to": None}, BadMessage),
    ({"to": []}, BadMessage),
    ({"to": ""}, BadAddress),
    ({"to": "ann@x.test, bob@x.test"}, BadAddress),
    ({"to": "ann@x.test\nBcc: eve@x.test"}, BadAddress),
    ({"to": ["ann@x.test", "no address"]}, BadAddress),
    ({"to": 5}, BadAddress),
    ({"cc": "nobody"}, BadAddress),
    ({"sender": "nobody"}, BadAddress),
    ({"reply_to": "a@x.test\r\nX: y"}, BadAddress),
    ({"subject": BROKEN_HEADER}, BadHeader),
    ({"headers": {"X-A": "1\r\nBcc: eve@x.test"}}, BadHeader),
    ({"headers": {"X-A\r\nBcc": "eve@x.test"}}, BadHeader),
    ({"headers": "X-A: 1"}, BadMessage),
    ({"attachments": "/does/not/exist"}, BadAttachment),
    ({"attachments": [object()]}, BadAttachment),
    ({"body": b"\xff\xfe"}, BadMessage),
    ({"body": b"text", "encoding": "klingon"}, BadMessage),
    ({"body": ()}, BadMessage),
    ({"body": ("one", "two", "three")}, BadMessage),
    ({"body": Unreadable()}, BadMessage),
    ({"body": "half a character \ud800"}, BadMessage),
    ({"list_unsubscribe": "https://x.test/ \r\n"}, BadMessage),
    ({"cipher_type": "rot13"}, BadMessage),
    ({"cipher_type": "gpg", "sign_passphrase": "for the settings"}, BadMessage),
    ({"dkim": object()}, BadMessage),
]


@pytest.mark.parametrize(("given", "error"), BAD, ids=lambda value: str(value).partition(" at 0x")[0][:60])
def test_bad_input_raises_and_nothing_is_written(
    mail: QueuedMailer, given: dict[str, Any], error: type[BadMessage]
) -> None:
    with pytest.raises(error):
        mail.send(**{"to": "ann@x.test", **given})
    assert [rows(mail, table) for table in ("message", "recipient", "content", "problem")] == [[]] * 4


@pytest.mark.parametrize(("given", "error"), BAD, ids=lambda value: str(value).partition(" at 0x")[0][:60])
def test_sending_bad_input_directly_is_false_and_a_problem(
    mail: QueuedMailer, given: dict[str, Any], error: type[BadMessage]
) -> None:
    assert mail.send_direct_email(**{"to": "ann@x.test", **given}) is False
    assert isinstance(mail.error, error)
    assert len(open_causes(mail)) == 1
    assert not mail.captured


# --- Auth ----------------------------------------------------------------------------------
def auth_of(mail: QueuedMailer) -> Auth:
    auth = Auth(Session(secret="2f1c8e0a-7b64-4d39-9a55"), mail.db, define_tables=False)
    auth.sender = mail
    return auth


USER = {"email": "ann@x.test", "first_name": "Ann"}


def test_auths_mails_are_urgent_and_have_a_category_of_their_own(mail: QueuedMailer) -> None:
    mail.send("bob@x.test")
    auth_of(mail).send("verify_email", USER, link="https://site.test/verify")
    site, auth = rows(mail, "message")
    assert auth["priority"] < site["priority"]
    assert (auth["category"], site["category"]) == ("auth", "site")
    mail.send("eve@x.test", category="news", priority=2)
    assert [rows(mail, "message")[2][name] for name in ("category", "priority")] == ["news", 2]


def test_auths_links_expire_after_a_day_unless_the_site_says_otherwise(tmp_path: Path) -> None:
    for folder, expiring in (
        ("usual", {}),
        ("hours", {"auth_expires_after": 3600}),
        ("never", {"auth_expires_after": None}),
    ):
        (tmp_path / folder).mkdir()
        mail = make_mail(tmp_path / folder, **expiring)
        auth_of(mail).send("verify_email", USER, link="https://site.test/verify")
        mail.send("ann@x.test")
        spans = [row["expires_on"] and row["expires_on"] - row["created_on"] for row in rows(mail, "message")]
        assert spans == [expiring.get("auth_expires_after", 86400), None]


def _bad_address(mail: QueuedMailer, auth: Auth) -> None:
    auth.send("verify_email", {**USER, "email": "ann@x.test\r\nBcc: eve@x.test"}, link="SECRET")


def _bad_subject(mail: QueuedMailer, auth: Auth) -> None:
    auth.param.messages["verify_email"]["subject"] = BROKEN_HEADER
    auth.send("verify_email", USER, link="SECRET")


def test_a_mail_of_auths_that_cannot_be_encrypted_waits(mail: QueuedMailer) -> None:
    mail.settings.cipher_type = "no such cipher"
    auth_of(mail).send("verify_email", USER, link="SECRET")
    mail.process_queue()
    assert [row["status"] for row in rows(mail, "message")] == ["queued"]
    assert open_causes(mail) == ["cipher-settings"] and not mail.captured


def _no_table(mail: QueuedMailer, auth: Auth) -> None:
    mail.db.executesql("DROP TABLE mailqueue_recipient")
    mail.db.commit()
    auth.send("verify_email", USER, link="SECRET")


@pytest.mark.parametrize("fault", [_bad_address, _bad_subject, _no_table])
def test_whatever_is_wrong_with_a_mail_of_auths_the_visitor_does_not_see_it(
    mail: QueuedMailer, fault: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fault(mail, auth_of(mail))
    assert open_causes(mail) == ["auth-mail-not-queued"]
    assert rows(mail, "content") == []
    lost = [row for row in rows(mail, "message") if row["status"] == "failed"]
    assert len(lost) == (0 if fault is _no_table else 1)  # without its table it is in the log alone
    assert all(row["category"] == "auth" and row["error"] and row["due"] is None for row in lost)
    assert any(record.levelno == logging.ERROR for record in caplog.records)
    assert "SECRET" not in str(rows(mail, "problem")) + str(rows(mail, "message"))


def test_every_person_whose_mail_of_auths_was_given_up_stays_in_view(mail: QueuedMailer) -> None:
    auth = auth_of(mail)
    for label in ("first", "second"):
        auth.send("verify_email", {**USER, "email": f"{label}@{'a' * 70}.test"}, link="x")
    mail.send("bob@x.test")
    mail.settings.server = "memory"
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == ["auth-mail-not-queued"], "a mail that was given up does not come back"
    failed = [row["address"] for row in rows(mail, "recipient") if row["status"] == "failed"]
    assert [address.partition("@")[0] for address in failed] == ["first", "second"]


def test_a_visitor_is_not_told_that_an_account_is_there_which_a_deadlock_undid(tmp_path: Path) -> None:
    """MySQL undoes the whole transaction of the one that has to give way, the account with the mail."""
    with fresh_database("mariadb", tmp_path) as uri:
        mail = make_mail(tmp_path, uri=uri)
        mail.db.define_table("account", Field("email"))
        first = mail.db.account.insert(email="first@x.test")
        mail.db.commit()
        rival = Other(mail.db)
        for _ in range(50):  # who wrote less gives way
            rival.run("INSERT INTO account (email) VALUES ('rival@x.test')")
        rival.run("SELECT id FROM mailqueue_message FOR UPDATE")
        mail.db(mail.db.account.id == first).update(email="changed@x.test")
        waiting = threading.Thread(target=rival.run, args=("UPDATE account SET email = 'r' WHERE id = 1",))
        waiting.start()
        watch = Other(mail.db)
        blocked = "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
        until(lambda: (watch.link.rollback(), watch.run(blocked))[1])
        with pytest.raises(mail.db._adapter.driver.OperationalError, match="Deadlock"):
            auth_of(mail).send("verify_email", USER, link="x")
        mail.db.rollback()
        waiting.join()
        rival.link.rollback()
        assert rows(mail, "message") == rows(mail, "problem") == []
        assert mail.db.account(first).email == "first@x.test"
        for link in (rival, watch):
            link.close()
        mail.db.close()


def test_a_site_may_derive_its_own_mailer(tmp_path: Path) -> None:
    class OurMailer(QueuedMailer):
        def send(self, *arguments: Any, **keywords: Any) -> bool:
            return super().send(*arguments, **keywords)

    base = make_mail(tmp_path, server="memory")
    mail = OurMailer(base.db, server="memory", sender=SENDER)
    _bad_address(mail, auth_of(mail))
    assert open_causes(mail) == ["auth-mail-not-queued"]
    mail.send("bob@x.test")
    auth_of(mail).send("verify_email", USER, link="x")
    assert [row["category"] for row in rows(mail, "message")] == ["auth", "site", "auth"]

"""QueuedMail in a request of a real web2py: what its callers see, and what is queued."""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import tempfile
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from support.services import needs
from support.signing_keys import (
    dkim_ed25519,
    ed25519_verifies,
    fresh_keyring,
    make_person,
    smime_decrypted,
    smime_verified,
)
from support.smtp_server import ScriptedServer
from support.web2py_site import TODAY, Web2pySite, register

SENDER = "Site <noreply@site.test>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    with Web2pySite(tmp_path_factory.mktemp("web2py")).served() as site:
        yield site


@pytest.fixture(autouse=True)
def usual(site: Web2pySite) -> None:
    site.configure(mail={"sender": SENDER})


# --- what a caller sees ----------------------------------------------------------------------


def test_it_is_the_stock_mailer_to_whoever_asks(site: Web2pySite) -> None:
    seen = site.scenario("""
import inspect
from gluon.tools import Mail
found["is a Mail"] = isinstance(mail, Mail) and auth.settings.mailer is mail and current.mail is mail
stock = list(inspect.signature(Mail.send).parameters)
found["same order"] = list(inspect.signature(type(mail).send).parameters)[:len(stock)] == stock
found["error"], found["result"] = mail.error, mail.result
found["attachment"] = mail.Attachment.__name__
""")
    assert seen == {
        "is a Mail": True,
        "same order": True,
        "error": None,
        "result": {},
        "attachment": "Attachment",
    }


def test_a_mailer_whose_arguments_make_no_sense_is_not_made(site: Web2pySite) -> None:
    seen = site.scenario("""
for name, value in {"retry": 5, "retention": 7, "silence": "x", "auth_expires_after": "x"}.items():
    try:
        type(mail)(db, **{name: value})
    except ValueError as error:
        found[name] = name in str(error)
""")
    assert seen == {"retry": True, "retention": True, "silence": True, "auth_expires_after": True}


def test_the_settings_are_the_stock_mailers_and_a_server_is_always_there(site: Web2pySite) -> None:
    site.configure(mail={})
    seen = site.scenario("""
found["server"] = bool(mail.settings.server)
mail.settings.server = None
found["server still"] = bool(mail.settings.server)
mail.settings.update({"server": ""}, tls=False)
found["server after an update"] = bool(mail.settings.server), mail.settings.tls
mail.settings.server = "127.0.0.1:2525"
found["server set"] = mail.settings.server
mail.settings.sender, mail.settings.tls, mail.settings.ssl = "a@site.test", False, False
mail.settings.login, mail.settings.timeout = "user:password", 10
found["written"] = [mail.settings[name] for name in ("sender", "tls", "ssl", "login", "timeout")]
found["unknown"] = mail.settings.no_such_thing
try:
    mail.settings.no_such_thing = 1
except SyntaxError:
    found["locked"] = True
""")
    assert seen == {
        "server": True,
        "server still": True,
        "server after an update": [True, False],
        "server set": "127.0.0.1:2525",
        "written": ["a@site.test", False, False, "user:password", 10],
        "unknown": None,
        "locked": True,
    }


def test_what_cannot_become_a_mail_is_refused_as_web2py_does(site: Web2pySite) -> None:
    seen = site.scenario("""
import pickle
found["sent"] = mail.send("nobody", "subject", "text")
found["error"] = str(mail.error)
found["again"] = str(pickle.loads(pickle.dumps(mail.error))) == str(mail.error)
found["no recipient"] = mail.send(None, "subject", "text")
found["cipher"] = mail.send("a@example.test", "subject", "text", cipher_type="rot13")
found["then"] = mail.send("then@example.test", "subject", "text"), mail.error
try:
    mail.send("a@example.test", no_such_argument=1)
except TypeError as error:
    found["wrong"] = "no_such_argument" in str(error)
""")
    assert seen.pop("error").startswith("'nobody' is not one e-mail address")
    assert seen == {
        "sent": False,
        "again": True,
        "no recipient": False,
        "cipher": False,
        "then": [True, None],
        "wrong": True,
    }


def test_the_bodies_are_told_apart_as_web2py_does(site: Web2pySite) -> None:
    site.scenario("""
import io
for name, message in {
    "plain": "text", "bytes": b"text", "page": " <html><b>rich</b></html> ", "both": ("text", "<b>rich</b>"),
    "rich": (None, "<b>rich</b>"), "file": io.StringIO("text"), "none": None,
}.items():
    assert mail.send(name + "@bodies.test", "subject", message), (name, mail.error)
""")
    rows = site.rows("""SELECT address, mime FROM mailqueue_recipient r
        JOIN mailqueue_content c ON c.message_ref = r.message_ref WHERE address LIKE '%@bodies.test'""")
    kinds = {row["address"].partition("@")[0]: re.findall(r"Type: text/(\w+)", row["mime"]) for row in rows}
    assert kinds == {
        "plain": ["plain"],
        "bytes": ["plain"],
        "page": ["html"],
        "both": ["plain", "html"],
        "rich": ["html"],
        "file": ["plain"],
        "none": ["plain"],
    }


def test_a_message_has_terms_of_its_own(site: Web2pySite) -> None:
    site.scenario("""
for _ in range(2):
    mail.send("once@example.test", "subject", "text", dedupe="once", priority=2, category="news")
""")
    (mail,) = site.mails("once@example.test")
    assert (mail["priority"], mail["category"]) == (2, "news")


def test_a_lazy_translation_is_made_in_the_language_of_the_request(site: Web2pySite) -> None:
    (site.app / "languages").mkdir(exist_ok=True)
    (site.app / "languages" / "de.py").write_text("{'Welcome': 'Willkommen'}", encoding="utf-8")
    site.scenario("T.force('de'); mail.send('lazy@example.test', T('Welcome'), T('Welcome'))")
    (mail,) = site.mails("lazy@example.test")
    assert (mail["subject"], mail["mail"].strip()) == ("Willkommen", "Willkommen")


def test_a_mail_made_of_a_template_is_in_the_language_of_the_visitor(site: Web2pySite) -> None:
    (site.app / "private" / "scenario.py").write_text(
        "found['sent'] = mail.send_template('ann@example.test', 'alert', summary='s', remedy='r', detail='d')"
    )
    answer = site.browser().get("default/run", headers={"Accept-Language": "de"})
    assert answer.json() == {"sent": True}
    (mail,) = site.mails("ann@example.test")
    assert mail["subject"] == "Der Mailversand von Site braucht Ihre Aufmerksamkeit"


# --- whose transaction -----------------------------------------------------------------------


def test_a_mail_lives_and_dies_with_its_request(site: Web2pySite) -> None:
    site.scenario("mail.send('kept@example.test', 'subject', 'text')")
    (site.app / "private" / "scenario.py").write_text(
        "mail.send('lost@example.test', 'subject', 'text'); raise ValueError('a ticket')"
    )
    assert site.browser().get("default/run").status_code == 500
    assert len(site.mails("kept@example.test")) == 1
    assert site.mails("lost@example.test") == []


def test_a_task_need_not_commit_what_it_sends(site: Web2pySite) -> None:
    # A task's process ends without the commit that web2py makes after a script.
    program = "import os; mail.send('task@example.test', 'subject', 'text'); os._exit(0)"
    site.run("run_in_app", program)
    assert len(site.mails("task@example.test")) == 1


def test_a_script_may_take_back_what_it_sends_with_the_rest(site: Web2pySite) -> None:
    site.script(
        "db.auth_group.insert(role='undone'); mail.send('undone@example.test', 's', 't'); db.rollback()"
    )
    assert site.mails("undone@example.test") == []


# --- sending now -----------------------------------------------------------------------------


def test_a_mail_is_sent_at_once_where_that_is_asked_for(site: Web2pySite, smtp: ScriptedServer) -> None:
    site.configure(mail={"server": f"127.0.0.1:{smtp.port}", "sender": SENDER, "tls": False})
    seen = site.scenario("""
found["sent"] = mail.send_direct_email("now@example.test", subject="subject", message="text")
found["error"] = mail.error
mail.settings.server = None
found["unsent"] = mail.send_direct_email("now@example.test", subject="subject", message="text")
found["why"] = str(mail.error)
found["wrong"] = mail.send_direct_email(no_such_argument=1)
""")
    assert [one.rcpt_tos for one in smtp.messages] == [("now@example.test",)]
    assert seen.pop("why")
    assert seen == {"sent": True, "error": None, "unsent": False, "wrong": False}
    causes = [row["cause"] for row in site.rows("SELECT * FROM mailqueue_problem")]
    assert "no-server@" in causes


# --- on every database -----------------------------------------------------------------------


def test_a_registration_is_queued_and_sent(site: Web2pySite, smtp: ScriptedServer, empty_uri: str) -> None:
    uri = empty_uri.replace("postgres@", "postgres:any@")  # pydal of that time cannot do without a password
    options = {"server": f"127.0.0.1:{smtp.port}", "sender": SENDER, "tls": False}
    site.configure(uri=uri, mail=options)
    answer = register(site.browser(), "ann@example.test")
    assert answer.url.endswith("/default/index"), site.tickets
    site.drain()
    site.configure(uri="sqlite://storage.sqlite")
    assert [one.rcpt_tos for one in smtp.messages] == [("ann@example.test",)]


def test_transports_by_url_are_taken_and_a_bad_one_is_a_problem_from_the_first_request_on(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    working = f"smtp://127.0.0.1:{smtp.port}?tls=none"
    with Web2pySite(tmp_path).served() as site:
        site.configure(mail={"transports": ["gopher://me:top-secret@h.test", working], "sender": SENDER})
        found = site.scenario("""
problem = db.mailqueue_problem
found["causes"] = [row.cause for row in db(problem.status == "open").select()]
found["sent"] = mail.send("ann@x.test", "hello", "text")
""")
        assert found == {"causes": ["bad-transport@"], "sent": True}
        site.drain()
        assert [one.rcpt_tos for one in smtp.messages] == [("ann@x.test",)]


# --- beside today's libraries ----------------------------------------------------------------

SIGNING = """
from plugin_mailqueue import dkim_key

mail.settings.server, mail.settings.sender, mail.settings.tls = {server!r}, {sender!r}, False
mail.settings.dkim = [dkim_key(domain="site.test", selector="s", key={dkim!r})]
mail.settings.x509_sign_keyfile, mail.settings.x509_sign_certfile = {key!r}, {certificate!r}
mail.settings.sign_passphrase = "geheim"
mail.settings.gpg_home = {gpg_home!r}
"""
BOTH = """
text, html = "Gr\u00fc\u00dfe", "<html>Gr\u00fc\u00dfe</html>"
# by position, in web2py's order: to, subject, message, attachments, cc, bcc, reply_to, sender, …
found["smime"] = mail.send("ann@x.test", "S/MIME", (text, html), None, None, None, None, None,
    cipher_type="x509", x509_crypt_certfiles={reader!r})
found["pgp"] = mail.send("ann@x.test", "OpenPGP", text, cipher_type="gpg", sign=False)
found["bad"] = mail.send("ann@x.test", "bad", text, cipher_type="gpg", sign_passphrase="another")
"""


def parts_of(entity: bytes) -> list[EmailMessage]:
    message = email.message_from_bytes(entity, policy=email.policy.default)
    return [part for part in message.walk() if not part.is_multipart()]  # type: ignore[misc]


def test_it_signs_and_encrypts_with_web2pys_settings_and_arguments(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    needs("openssl")
    needs("gpg")
    signer = make_person(tmp_path, "noreply", password=b"geheim")
    ann, own = make_person(tmp_path, "ann"), dkim_ed25519()
    (tmp_path / "dkim.pem").write_text(own.pem)
    short = Path(tempfile.mkdtemp(prefix="pgp", dir="/tmp"))
    with Web2pySite(tmp_path / "site", TODAY).served() as site, fresh_keyring(short / "home") as keyring:
        keyring.make("ann@x.test")
        (site.app / "models" / "signing.py").write_text(
            SIGNING.format(
                server=f"127.0.0.1:{smtp.port}",
                sender=SENDER,
                dkim=str(tmp_path / "dkim.pem"),
                key=str(signer.key_file),
                certificate=str(signer.cert_file),
                gpg_home=str(keyring.home),
            )
        )
        found = site.scenario(BOTH.format(reader=str(ann.cert_file)))
        assert found == {"smime": True, "pgp": True, "bad": False}
        site.drain()
        by_subject = {got.parsed()["Subject"]: got for got in smtp.messages}
        assert by_subject.keys() == {"S/MIME", "OpenPGP"}, site.rows("SELECT * FROM mailqueue_problem")
        assert all(ed25519_verifies(got.data, own.record) for got in smtp.messages)
        entity = smime_verified(smime_decrypted(by_subject["S/MIME"].data, ann) or b"", signer)
        assert entity and [part.get_content().strip() for part in parts_of(entity)] == [
            "Grüße",
            "<html>Grüße</html>",
        ]
        sealed = by_subject["OpenPGP"].parsed().get_payload()[1].get_payload(decode=True)
        (text,) = parts_of(keyring.gpg("--decrypt", data=sealed).stdout)
        assert text.get_content().strip() == "Grüße"
    shutil.rmtree(short, ignore_errors=True)


def test_it_works_with_todays_pydal_and_when_the_databases_are_deleted(tmp_path: Path) -> None:
    with Web2pySite(tmp_path, TODAY).served() as site:
        register(site.browser(), "ann@example.test")
        assert len(site.mails("ann@example.test")) == 1
        for path in (site.app / "databases").iterdir():
            if path.is_file():
                path.unlink()
        register(site.browser(), "ann@example.test")
        assert len(site.mails("ann@example.test")) == 1
        assert site.tickets == []

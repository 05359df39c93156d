"""Each of the thirteen places in Sahana Eden that send a mail, called as it calls, in a real web2py."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_string, policy
from typing import Any

import pytest
from support.web2py_site import Web2pySite

# As in Eden: modules/s3/s3aaa.py, modules/s3/s3msg.py, modules/templates/*/controllers.py. The condition
# of each is Eden's too; `found` says which of them went through.
EDEN = """
import os
from io import BytesIO
from types import SimpleNamespace
from gluon.tools import Auth

person = {"email": "approver@eden.test", "language": "en"}
user = SimpleNamespace(email="user@eden.test")
form = SimpleNamespace(vars=SimpleNamespace(email="new@eden.test"))
system = {"system_name": "Eden", "url": "http://eden.test/verify/key"}
auth_settings = auth.settings


class AuthS3(Auth):
    def __init__(self, settings):
        self.settings = settings

    def verify(self):
        settings = self.settings
        return not (not settings.mailer or
                    not settings.mailer.settings.server or
                    not settings.mailer.send(to = form.vars.email,
                                             subject = "1 %(system_name)s" % system,
                                             message = "%(url)s" % system,
                                             ))

    def reset(self):
        mailer = self.settings.mailer
        if not mailer or not mailer.settings.server:
            return False
        return mailer.send(to = user.email, subject = "2 reset", message = "text")

    def approve(self):
        mailer = self.settings.mailer
        if mailer.settings.server:
            send_email = mailer.send
            return send_email(to = person["email"], subject = "3 approve", message = "text")

    def welcome(self):
        recipient = user.email
        return current.mail.send(recipient, subject = "4 welcome", message = "text")


class S3Msg:
    def send_email(self, to, subject, message, attachments = None, cc = None, bcc = None, reply_to = None,
                   sender = None, encoding = "utf-8"):
        result = current.mail.send(to,
                                   subject = subject,
                                   message = message,
                                   attachments = attachments,
                                   cc = cc,
                                   bcc = bcc,
                                   reply_to = reply_to,
                                   sender = sender,
                                   encoding = encoding,
                                   headers = {},
                                   )
        if not result:
            current.session.error = current.mail.error
        else:
            current.session.error = None
        return result


def custom_verify(number):
    return not (not auth_settings.mailer or
                not auth_settings.mailer.settings.server or
                not auth_settings.mailer.send(to = form.vars.email,
                                              subject = number + " verify",
                                              message = "text",
                                              ))


def custom_approve(number):
    result = None
    mailer = auth_settings.mailer
    if mailer.settings.server:
        send_email = mailer.send
        for approver in [person]:
            result = send_email(to = approver["email"], subject = number + " approve", message = "text")
    return result


def approve_each():
    result = None
    mailer = auth_settings.mailer
    if mailer.settings.server:
        for approver in [SimpleNamespace(**person)]:
            result = mailer.send(to = approver.email, subject = "10 approve", message = "text")
    return result


eden, msg = AuthS3(auth.settings), S3Msg()
path = os.path.join(request.folder, "private", "report.txt")
with open(path, "wb") as file:
    file.write(b"a report")
found["1 AuthS3.register"] = eden.verify()
found["2 AuthS3.email_reset_password"] = eden.reset()
found["3 AuthS3.s3_verify_user"] = eden.approve()
found["4 AuthS3.s3_send_welcome_email"] = eden.welcome()
found["5 S3Msg.send_email"] = msg.send_email(
    "to@eden.test", "5 both", ("text", "<html><b>rich</b></html>"),
    attachments = [current.mail.Attachment(path),
                   current.mail.Attachment(BytesIO(b"a stream"), filename = "stream.bin")],
    cc = ["cc@eden.test"], bcc = "bcc@eden.test", reply_to = "answers@eden.test",
    sender = "Eden <eden@eden.test>",
)
found["6 BRCMS register"] = custom_verify("6")
found["7 BRCMS register invited"] = custom_verify("7")
found["8 BRCMS approve"] = custom_approve("8")
found["9 CCC register"] = custom_verify("9")
found["10 CCC approve"] = approve_each()
found["11 RLP register"] = custom_verify("11")
found["12 RLPPTM register"] = custom_verify("12")
found["13 RLPPTM approve"] = custom_approve("13")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web2pySite]:
    with Web2pySite(tmp_path_factory.mktemp("web2py")).served() as site:
        yield site


@pytest.fixture(scope="module")
def mails(site: Web2pySite) -> dict[str, Any]:
    """What was queued, by the number of the place, after all of them were called with nothing configured."""
    seen = site.scenario(EDEN)
    assert len(seen) == 13
    assert set(seen.values()) == {True}, seen
    rows = site.rows(
        "SELECT m.subject, m.category, c.mime FROM mailqueue_message m JOIN mailqueue_content c"
        " ON c.message_ref = m.id"
    )
    assert site.tickets == []
    return {row["subject"].split()[0]: row for row in rows}


def test_each_place_goes_through_unchanged_with_nothing_configured(mails: dict[str, Any]) -> None:
    assert sorted(mails, key=int) == [str(number) for number in range(1, 14)]


def test_what_edens_auth_sends_is_urgent_and_the_rest_the_sites(mails: dict[str, Any]) -> None:
    assert {number for number, mail in mails.items() if mail["category"] == "auth"} == {"1", "2", "3", "4"}


def test_a_message_of_s3msg_keeps_all_that_it_was_given(mails: dict[str, Any], site: Web2pySite) -> None:
    mail = message_from_string(mails["5"]["mime"], policy=policy.default)
    shown = {name: str(mail[name]) for name in ("From", "To", "Cc", "Bcc", "Reply-To")}
    assert shown == {
        "From": "Eden <eden@eden.test>",
        "To": "to@eden.test",
        "Cc": "cc@eden.test",
        "Bcc": "None",
        "Reply-To": "answers@eden.test",
    }
    files = {part.get_filename(): part.get_content() for part in mail.iter_attachments()}
    assert files == {"report.txt": "a report", "stream.bin": b"a stream"}
    rich = mail.get_body(("html",))
    assert rich and "<b>rich</b>" in rich.get_content()
    kinds = site.rows("SELECT kind, address FROM mailqueue_recipient WHERE address LIKE '%cc@eden.test'")
    assert {(row["kind"], row["address"]) for row in kinds} == {
        ("cc", "cc@eden.test"),
        ("bcc", "bcc@eden.test"),
    }


def test_an_error_that_eden_keeps_in_the_session_is_there_in_the_next_request(site: Web2pySite) -> None:
    visitor = site.browser()
    (site.app / "private" / "scenario.py").write_text(
        "found['sent'] = current.mail.send('nobody', subject = 's', message = 't', encoding = 'utf-8')\n"
        "session.error = current.mail.error"
    )
    assert visitor.get("default/run").json() == {"sent": False}
    (site.app / "private" / "scenario.py").write_text("found['error'] = str(session.error)")
    assert "'nobody' is not one e-mail address" in visitor.get("default/run").json()["error"]

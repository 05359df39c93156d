"""A served scaffold site whose account mails go to a real SMTP server, and a clock that tests can move."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from mailqueue import QueuedMailer
from requests import Response

from .browser import Browser
from .mail import SENDER
from .scaffold import ServedSite, make_site
from .smtp_server import ScriptedServer

WAYS = ("form", "api")
UNLIMITED = "mails_per_address=None, mails_per_client=None"
NEW_PASSWORD = "Another-Horse-Battery-2"

_CLOCK = """
import time as _time
def _moved():
    try:
        return float(open(os.path.join(settings.APP_FOLDER, "moved")).read())
    except FileNotFoundError:
        return 0.0
object.__setattr__(mail.site, "clock", lambda: _time.time() + _moved())
"""


class Accounts:
    """The site, and the mails of its visitors.

    Attributes:
        served: the running site.
        smtp: where its mails arrive.
    """

    def __init__(self, served: ServedSite, smtp: ScriptedServer) -> None:
        self.served, self.site, self.smtp = served, served.site, smtp
        self._moved = 0.0

    def advance(self, seconds: float) -> None:
        """Move the site's clock."""
        self._moved += seconds
        (self.site.folder / "moved").write_text(str(self._moved), encoding="utf-8")

    def send(self) -> None:
        """Send what is queued, as a worker of the site does."""
        db = self.site.dal()
        moved = self._moved
        mail = QueuedMailer(
            db,
            server=f"127.0.0.1:{self.smtp.port}",
            sender=SENDER,
            tls=False,
            clock=lambda: time.time() + moved,
        )
        mail.process_queue()
        db.close()

    def mails(self, address: str) -> list[EmailMessage]:
        """What arrived at this address so far, all that is queued included."""
        self.send()
        return [message.parsed() for message in self.smtp.messages if address in message.rcpt_tos]

    def mail(self, address: str) -> EmailMessage:
        """The last mail that arrived at this address."""
        return self.mails(address)[-1]

    def link(self, address: str, page: str = "") -> str:
        """The link to this page in the last mail to this address."""
        return link_in(self.mail(address), page)

    def state(self, address: str) -> str | None:
        """What the account of this address waits for: its action_token."""
        [row] = self.site.rows("SELECT action_token FROM auth_user WHERE email = ?", address)
        return str(row["action_token"]) if row["action_token"] else None

    def problems(self) -> dict[str, dict[str, Any]]:
        """The open problems by the rule they are of."""
        rows = self.site.rows("SELECT * FROM mailqueue_problem WHERE status = 'open'")
        return {row["cause"].partition("@")[0]: row for row in rows}

    def can_log_in(self, address: str, password: str) -> bool:
        answer = self.served.browser().post("auth/api/login", json={"email": address, "password": password})
        return answer.status_code == 200

    def active(self, address: str, **names: str) -> None:
        """Register somebody, and follow the link."""
        browser = self.served.browser()
        assert browser.register(address, **names).status_code == 200
        browser.get(self.link(address, "verify_email"))
        assert self.state(address) is None


def text_of(message: EmailMessage) -> str:
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def link_in(message: EmailMessage, page: str = "") -> str:
    found = re.findall(rf"https?://[^\s)>\"]*{page}[^\s)>\"]*", text_of(message))
    assert found, text_of(message)
    return str(found[0])


def register(visitor: Browser, way: str, address: str, **more: str) -> Response:
    answer = (visitor.register if way == "form" else visitor.register_by_api)(address, **more)
    assert answer.status_code == 200, answer.text
    return answer


def ask_for_reset(visitor: Browser, way: str, address: str) -> Response:
    if way == "form":
        answer = visitor.fill("auth/request_reset_password", email=address)
    else:
        answer = visitor.post("auth/api/request_reset_password", json={"email": address})
    assert answer.status_code == 200, answer.text
    return answer


def set_password(visitor: Browser, way: str, link: str, password: str) -> bool:
    """Follow a link to set another password. Whether it worked."""
    if way == "form":
        page = visitor.get(link)
        if page.history:
            return False
        [form] = [form for form in visitor.forms(page) if "new_password" in form.fields]
        answer = visitor.submit(form, new_password=password, new_password_again=password)
        return bool(answer.history)
    token = link.partition("token=")[2]
    answer = visitor.post("auth/api/reset_password", json={"token": token, "new_password": password})
    return answer.status_code == 200


def alike(answer: Response) -> str:
    """What of an answer is not a key of its own."""
    return re.sub(r'value="[^"]*"', "", answer.text)


def verify(visitor: Browser, way: str, link: str) -> None:
    token = link.partition("token=")[2]
    visitor.get(link if way == "form" else f"auth/api/verify_email?token={token}")


@contextlib.contextmanager
def accounts_site(
    folder: Path,
    enabled: str = "mail.enable_auth(auth)",
    settings: dict[str, Any] | None = None,
    before: str = "",
    **environment: str,
) -> Iterator[Accounts]:
    """A running site whose common.py ends with `enabled`, and has `before` above auth.enable()."""
    with ScriptedServer() as smtp:
        given = {"SMTP_SERVER": f"127.0.0.1:{smtp.port}", "SMTP_SENDER": SENDER, **(settings or {})}
        site = make_site(folder, settings=given, extra_common=f"{_CLOCK}\n{'' if before else enabled}")
        common = site.folder / "common.py"
        text = common.read_text(encoding="utf-8")
        common.write_text(text.replace("\nauth.enable(", f"\n{before}\nauth.enable("), encoding="utf-8")
        with site.serve(**environment) as served:
            yield Accounts(served, smtp)

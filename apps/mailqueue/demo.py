"""The demo: the stand-alone site and a mail catcher on real ports, and the story to walk through them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import requests

from .catcher import Catcher

PACKAGE = Path(__file__).parent
SENDER = "Demo <noreply@site.test>"
PASSWORD = "Correct-Horse-Battery-1"  # noqa: S105 - of a visitor who lives as long as the check


@dataclass
class Demo:
    """A running demo.

    Attributes:
        url: of the site.
        catcher: what catches its mail.
        administrator: login name and password.
    """

    url: str
    catcher: Catcher
    administrator: tuple[str, str]
    log: Path

    def story(self) -> str:
        """What to do, step by step."""
        name, password = self.administrator
        return f"""
  The site    {self.url}/index
  The inbox   {self.catcher.inbox_url}
  The administrator's login   {name}   {password}

Walk through it:
  1. Register at {self.url}/auth/register with any address. No mail server is configured, yet
     you see no error: the mail waits.
  2. Log in as the administrator and open {self.url}/mailqueue. It says what is wrong.
  3. Open {self.url}/mail_server. Type as server  127.0.0.1:{self.catcher.smtp_port}  with
     security "none", and leave the sender as it is. Save: now the sender is what is wrong.
  4. Type as sender  {SENDER}  and save.
  5. The mail is in the inbox, {self.catcher.inbox_url}. Click the link in it: the account is verified.
  6. Back at {self.url}/mailqueue the problems are resolved and the message is sent.

Stop with Ctrl-C.
"""


@contextlib.contextmanager
def running(
    port: int = 8000, smtp_port: int = 0, inbox_port: int = 0, folder: str | None = None
) -> Iterator[Demo]:
    """Start the site and the catcher; stop both at the end.

    Args:
        port: the site's; the next free one where it is taken.
        smtp_port: the catcher's; 0 for any free one.
        inbox_port: its page's.
        folder: where to keep the site's state; a temporary one, removed at the end, by default.

    Raises:
        MissingExtra: the extra `demo` is not installed.
        RuntimeError: the site does not start; holds its log.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mailqueue-demo-")))
        home = Path(folder).resolve() if folder else scratch
        home.mkdir(parents=True, exist_ok=True)
        catcher = stack.enter_context(Catcher(smtp_port, inbox_port))
        port = _free_from(port)
        log = home / "py4web.log"
        server = _start(scratch / "apps", home, port, log)
        stack.callback(_stop, server)
        _wait_for(port, server, log)
        name, password = (home / "state" / "administrator.txt").read_text(encoding="utf-8").split()
        yield Demo(f"http://127.0.0.1:{port}/mailqueue", catcher, (name, password), log)


def _free_from(port: int) -> int:
    last = min(port + 99, 65535)
    for candidate in range(port, last + 1):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", candidate))
                return candidate
    raise RuntimeError(f"no port is free from {port} to {last}; choose another with --port")


def _start(apps: Path, home: Path, port: int, log: Path) -> subprocess.Popen[bytes]:
    left_out = shutil.ignore_patterns("databases", "__pycache__")
    shutil.copytree(PACKAGE, apps / "mailqueue", ignore=left_out)
    (apps / "__init__.py").touch()
    command = [sys.executable, "-m", "py4web", "run", str(apps), "--yes", "--quiet", "--port", str(port)]
    command += ["--app_names", "mailqueue", "--watch", "off", "--dashboard_mode", "none"]
    environment = {
        **os.environ,
        "MAILQUEUE_FOLDER": str(home / "state"),
        "PY4WEB_DOMAINS": f"127.0.0.1:{port}",  # a forged Host must not reach a mail
    }
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own command
            command, env=environment, cwd=home, stdout=output, stderr=output, start_new_session=True
        )


def _stop(server: subprocess.Popen[bytes]) -> None:
    """The scheduler's runs are children of the server: the whole group ends."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait(10)


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"the site did not start:\n{log.read_text(encoding='utf-8', errors='replace')}")


# --- the story by itself ---------------------------------------------------------------------


class Failed(Exception):
    """A step of the story did not hold."""


class Check:
    """Walks the story over real HTTP and real SMTP, saying what it observes.

    Args:
        demo: a running demo, fresh.
        say: takes each line.
    """

    def __init__(self, demo: Demo, say: Callable[[str], None]):
        self._demo, self._say = demo, say
        self._visitor, self._administrator = requests.Session(), requests.Session()

    def run(self) -> bool:
        """Whether every step held; stops at the first that did not."""
        steps = (
            self._a_visitor_registers,
            self._the_administrator_sees_why_nothing_is_sent,
            self._half_a_repair_names_what_is_left,
            self._after_the_repair_the_mail_arrives,
            self._its_link_verifies_the_account,
            self._the_administrator_sees_it_sent,
        )
        for number, step in enumerate(steps, 1):
            title = step.__name__.strip("_").replace("_", " ")
            try:
                self._say(f"ok      {number}. {title}: {step()}")
            except Failed as failure:
                self._say(f"FAILED  {number}. {title}: {failure}")
                return False
        return True

    def _a_visitor_registers(self) -> str:
        page = self._fill(
            self._visitor,
            "auth/register",
            email="ann@visitor.test",
            password=PASSWORD,
            password_again=PASSWORD,
            first_name="Ann",
            last_name="Visitor",
        )
        _expect(page.status_code == 200 and page.url.endswith("/index"), f"got {page.status_code} {page.url}")
        _expect(not self._demo.catcher.messages, "a mail was sent although no server is configured")
        return "the visitor is taken to the start page, with no error"

    def _the_administrator_sees_why_nothing_is_sent(self) -> str:
        name, password = self._demo.administrator
        self._fill(self._administrator, "auth/login", email=name, password=password)
        page = self._until("mailqueue/problems", "No mail server is configured")
        listed = self._page(self._administrator, "mailqueue?status=queued")
        _expect("ann@visitor.test" in listed.text, "the message is not among the queued ones")
        _expect("Traceback" not in page.text, "a traceback is shown")
        return 'the message waits, and the problem log says "No mail server is configured."'

    def _half_a_repair_names_what_is_left(self) -> str:
        self._configure(sender="you@example.com")
        self._until("mailqueue/problems", "still the example")
        _expect(not self._demo.catcher.messages, "a mail was sent from the example sender")
        return "with a server, the log names the sender that was never edited"

    def _after_the_repair_the_mail_arrives(self) -> str:
        begun = time.monotonic()
        self._configure(sender=SENDER)
        self._wait(lambda: bool(self._demo.catcher.messages), "the mail in the catcher")
        caught = self._demo.catcher.messages[0]
        _expect(caught.recipients == ("ann@visitor.test",), f"it went to {caught.recipients}")
        _expect(caught.sender == "noreply@site.test", f"it came from {caught.sender}")
        return f"{time.monotonic() - begun:.1f} s after the repair, to {caught.recipients[0]}"

    def _its_link_verifies_the_account(self) -> str:
        inbox = requests.get(self._demo.catcher.inbox_url + "1", timeout=10).text
        link = re.search(r'href="(http[^"]+verify_email[^"]+)"', inbox)
        _expect(link is not None, "there is no link in the inbox")
        self._visitor.get(unescape(link[1] if link else ""), timeout=10)
        self._fill(self._visitor, "auth/login", email="ann@visitor.test", password=PASSWORD)
        page = self._page(self._visitor, "index")
        _expect("ann@visitor.test" in page.text, "the visitor cannot log in after the verification")
        return "the link in the inbox is followed, and the visitor can log in"

    def _the_administrator_sees_it_sent(self) -> str:
        page = self._page(self._administrator, "mailqueue/message/1")
        _expect("caught as number 1" in page.text, "the message's page does not show the server's answer")
        self._wait(
            lambda: "open problem" not in self._page(self._administrator, "mailqueue").text.lower(),
            "the problems resolved",
        )
        return "the message's page shows the server's answer, and no problem is open"

    # --- tools -----------------------------------------------------------------------------

    def _configure(self, sender: str) -> None:
        server = f"127.0.0.1:{self._demo.catcher.smtp_port}"
        self._fill(self._administrator, "mail_server", server=server, sender=sender, security="plain")

    def _page(self, session: requests.Session, path: str) -> requests.Response:
        return session.get(f"{self._demo.url}/{path}", headers={"Accept": "text/html"}, timeout=20)

    def _fill(self, session: requests.Session, path: str, **fields: str) -> requests.Response:
        page = self._page(session, path)
        hidden = dict(re.findall(r'name="(_form[a-z]+)" type="hidden" value="([^"]*)"', page.text))
        _expect(bool(hidden), f"{path} shows no form ({page.status_code})")
        return session.post(page.url, data={**hidden, **fields}, headers={"Accept": "text/html"}, timeout=20)

    def _until(self, path: str, words: str) -> requests.Response:
        self._wait(lambda: words in self._page(self._administrator, path).text, f"“{words}” on {path}")
        return self._page(self._administrator, path)

    def _wait(self, holds: Callable[[], Any], what: str, patience: float = 20.0) -> None:
        deadline = time.monotonic() + patience
        while not holds():
            _expect(time.monotonic() < deadline, f"{what}: not within {patience:.0f} s")
            time.sleep(0.2)


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Failed(otherwise)

"""A web2py application with the packed plugin in it, in an environment of web2py's own.

with web2py_site(tmp_path, sender="noreply@site.test") as site:
    site.browser().fill("default/user/register", email="ann@example.test", …)
    assert site.rows("SELECT email FROM auth_user")
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from email import message_from_string, policy
from pathlib import Path
from typing import Any

import pytest
from mailqueue.web2py import pack

from .browser import PASSWORD, Browser
from .services import REQUIRED
from .smtp_server import free_port

HERE = Path(__file__).parent
RUNNER = HERE / "web2py_run.py"
WEB2PY = ("web2py-gluon==2.26.1", "yatl", "psycopg2-binary", "pymysql")
OF_ITS_TIME = (*WEB2PY, "pydal==20230521.1")  # what its login and scheduler need
TODAY = (*WEB2PY, "pydal", "cryptography>=45", "dkimpy[ed25519]>=1.1", "python-gnupg>=0.5.4")


def environment(requirements: tuple[str, ...] = OF_ITS_TIME) -> Path:
    """The Python of an environment with web2py and nothing of ours; made once on a machine.

    Skips the running test where it cannot be had, or fails it if MAILQUEUE_REQUIRE_SERVICES=1.
    """
    name = hashlib.sha256(repr((requirements, sys.version)).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir(), f"mailqueue_web2py_{os.getuid()}_{name}")
    if not folder.exists():
        making = Path(tempfile.mkdtemp(prefix="mailqueue_web2py_"))
        venv.create(making, with_pip=False)
        python = str(making / "bin" / "python")
        command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *requirements]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            shutil.rmtree(making)
            missing = f"web2py cannot be installed: {done.stderr.strip()[-300:]}"
            pytest.fail(missing, pytrace=False) if REQUIRED else pytest.skip(missing)
        try:
            making.rename(folder)
        except OSError:  # another session was first
            shutil.rmtree(making)
    return folder / "bin" / "python"


class Web2pySite:
    """An application named "app", as it lies in its folder.

    Args:
        folder: a temporary one.
        requirements: of its environment.
        plugin: whether to install the packed plugin.
    """

    def __init__(self, folder: Path, requirements: tuple[str, ...] = OF_ITS_TIME, *, plugin: bool = True):
        self.python, self.root, self.app = environment(requirements), folder, folder / "applications" / "app"
        self.port = free_port()
        self.options: dict[str, Any] = {
            "uri": "sqlite://storage.sqlite",
            "mailer": "queued",
            "usernames": False,
            "mail": {},
            "auth": {},
            "scheduler": False,
            "approval": {},
        }
        shutil.copytree(HERE / "web2py_app", self.app)
        shutil.copy(self._appadmin(), self.app / "controllers")
        for missing in ("private", "databases"):  # a script, unlike a request, does not make them
            (self.app / missing).mkdir()
        for package in ("applications", "applications/app", "applications/admin"):
            (folder / package).mkdir(exist_ok=True)
            (folder / package / "__init__.py").touch()
        (folder / "deposit").mkdir()
        (folder / "VERSION").write_text("Version 2.26.1-stable+timestamp.2023.11.16.08.03.57\n")
        self.configure()
        if plugin:
            self.install()

    def _appadmin(self) -> Path:
        (packages,) = self.python.parent.parent.glob("lib/python*/site-packages")
        return packages / "applications" / "welcome" / "controllers" / "appadmin.py"

    def install(self) -> None:
        """Have web2py's plugin_install put our pack into the application."""
        packed = self.root / pack.NAME
        pack.write(packed)
        self.run("install", str(packed))

    def configure(self, **options: Any) -> None:
        """Change what the model does, from the next request on."""
        self.options.update(options)
        (self.app / "private" / "site.json").write_text(json.dumps(self.options))

    def run(self, *arguments: str, **more_environment: str) -> str:
        """Run a verb of web2py_run.py to its end; what it printed."""
        done = subprocess.run(
            [str(self.python), str(RUNNER), *arguments],
            cwd=self.root,
            env=self._environment(more_environment),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ") if name in os.environ}
        return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}

    @contextlib.contextmanager
    def process(self, *arguments: str, **more_environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A verb of web2py_run.py as a process that is killed afterwards, with its children."""
        with (self.root / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.python), str(RUNNER), *arguments],
                cwd=self.root,
                env=self._environment(more_environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    @contextlib.contextmanager
    def served(self, server: str = "wsgi", **more_environment: str) -> Iterator[Web2pySite]:
        """The site under a server: "wsgi" or "rocket", web2py's own."""
        with self.process(server, str(self.port), **more_environment) as process:
            for _pause in range(600):
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", self.port)).close()
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.05)
                    break
            assert process.poll() is None, self.log
            yield self

    @property
    def log(self) -> str:
        """All that the processes printed so far."""
        return (self.root / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def tickets(self) -> list[str]:
        """The tickets that web2py gave, with what they tell."""
        errors = self.app / "errors"
        return [path.read_bytes().decode("latin-1") for path in errors.glob("*")] if errors.exists() else []

    def browser(self) -> Browser:
        """A visitor with cookies of their own."""
        return Browser(f"http://127.0.0.1:{self.port}/app")

    def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """What this query finds in the SQLite database now."""
        path = self.app / "databases" / self.options["uri"].removeprefix("sqlite://")
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, arguments)]

    def mails(self, address: str) -> list[dict[str, Any]]:
        """The messages that were queued for an address, each with its text as "mail"."""
        query = """SELECT m.*, c.mime FROM mailqueue_message m
            JOIN mailqueue_content c ON c.message_ref = m.id
            WHERE m.id IN (SELECT message_ref FROM mailqueue_recipient WHERE address = ?) ORDER BY m.id"""
        found = self.rows(query, address)
        for row in found:
            parsed = message_from_string(row["mime"], policy=policy.default)
            row["mail"] = parsed.get_body(("plain", "html")).get_content()
        return found

    def script(self, program: str) -> None:
        """Run a program after the models, in a process of its own; AssertionError where it fails."""
        printed = self.run("run_in_app", f"{program}\nprint('to the end')")  # web2py exits with 0 anyway
        assert "to the end" in printed, printed

    def drain(self) -> None:
        """Send what is due, in a process of its own, as cron would."""
        self.script("mail.process_queue()")

    def scenario(self, program: str) -> dict[str, Any]:
        """Run a program inside of a request, after the models; what it put into the dictionary `found`."""
        (self.app / "private" / "scenario.py").write_text(program, encoding="utf-8")
        answer = self.browser().get("default/run")
        assert answer.status_code == 200, (answer.text, self.tickets)
        found: dict[str, Any] = json.loads(answer.text)
        return found


def register(visitor: Browser, email: str) -> Any:
    """Register on web2py's form."""
    fields = {"email": email, "password": PASSWORD, "password_two": PASSWORD}
    return visitor.fill("default/user/register", first_name="Ann", last_name="Other", **fields)


def member(site: Web2pySite, email: str) -> Browser:
    """A visitor who has registered and logged in."""
    visitor = site.browser()
    register(visitor, email)
    visitor.fill("default/user/login", email=email, password=PASSWORD)
    return visitor

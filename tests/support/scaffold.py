"""The scaffold application of the installed py4web, as shipped, with only its mailer swapped.

site = make_site(tmp_path, mailer="queued", settings={"SMTP_SERVER": f"127.0.0.1:{smtp.port}"})
with site.serve() as served:
    served.browser().register("ann@example.test")
assert site.rows("SELECT email FROM auth_user")
"""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from py4web.core import DAL

from .browser import Browser
from .smtp_server import free_port

APPS = Path(__file__).parent.parent.parent / "apps"
NAME = "site"
MEASURED = any(name.startswith("COVERAGE_PROCESS") for name in os.environ)
END = 2.0  # seconds that a measured server has to end; one that takes longer is killed, and not measured

_IMPORT = re.compile(r"^from py4web\.utils\.mailer import Mailer$", re.M)
_MAILER = re.compile(
    r"^if settings\.SMTP_SERVER:\n    auth\.sender = Mailer\(\n((?:        .*\n)+)    \)\n", re.M
)


def make_site(
    folder: Path,
    *,
    mailer: str = "queued",
    settings: Mapping[str, Any] | None = None,
    extra_common: str = "",
) -> Site:
    """Unpack the scaffold as app "site" into `folder`/apps.

    Args:
        folder: a temporary one.
        mailer: "stock" leaves common.py as shipped; "queued" makes the edit of `queue_mail()`.
        settings: put into settings_private.py, above the defaults of the tests: VERIFY_EMAIL is True.
        extra_common: Python text to append to common.py; there `mail` is the queued mailer.
    """
    site = Site(folder / "apps" / NAME, dict(settings or {}), queued=mailer == "queued")
    site.folder.mkdir(parents=True)
    (site.folder.parent / "__init__.py").touch()
    shipped = importlib.resources.files("py4web").joinpath("assets/py4web.app._scaffold.zip")
    with shipped.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        archive.extractall(site.folder)
    common = site.folder / "common.py"
    text = common.read_text(encoding="utf-8")
    text = queue_mail(text) if site.queued else text
    common.write_text(f"{text}\n{extra_common}\n", encoding="utf-8")
    site.configure()
    return site


def queue_mail(common: str) -> str:
    """The edit a site makes, and no more: our mailer for py4web's, made even without an SMTP_SERVER."""
    common, imports = _IMPORT.subn("from mailqueue import QueuedMailer", common)
    common, mailers = _MAILER.subn(r"mail = auth.sender = QueuedMailer(\n        db,\n\1)\n", common)
    assert (imports, mailers) == (1, 1), "the scaffold's common.py is no longer what this edit was made for"
    return common


@dataclass(frozen=True)
class Site:
    """The unpacked app: its folder, its settings, its database."""

    folder: Path
    settings: dict[str, Any]
    queued: bool

    def serve(self, **environment: str) -> ServedSite:
        """A server for it, to be used as a context manager; `environment` adds to this process's own."""
        return ServedSite(self, environment)

    def configure(self, **settings: Any) -> None:
        """Write settings_private.py, as an administrator does; takes effect when the site starts."""
        self.settings.update(settings)
        chosen = {"VERIFY_EMAIL": True, "SESSION_SECRET_KEY": "2f1c8e0a-7b64-4d39-9a55", **self.settings}
        lines = "".join(f"{key} = {value!r}\n" for key, value in chosen.items())
        (self.folder / "settings_private.py").write_text(lines, encoding="utf-8")

    def database(self) -> sqlite3.Connection:
        """The SQLite database, rows by name; a new connection for the caller to close."""
        connection = sqlite3.connect(self.folder / "databases" / "storage.db", timeout=30)
        connection.row_factory = sqlite3.Row
        return connection

    def rows(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        """What this query finds in the SQLite database now."""
        with contextlib.closing(self.database()) as connection:
            return [dict(row) for row in connection.execute(query, arguments)]

    def dal(self) -> DAL:
        """A DAL on the site's database that changes no table; knows mailqueue's tables if the site does."""
        databases = self.folder / "databases"
        uri = self.settings.get("DB_URI", f"sqlite://{databases / 'storage.db'}")
        db = DAL(uri, folder=str(databases), migrate=False)
        if self.queued:
            from mailqueue.tables import define_tables

            define_tables(db)
        return db


class ServedSite:
    """The site under a real `py4web run` of its own, from `start()` to `stop()`.

    Attributes:
        url: of the site, without a slash at its end.
        port: the same after a restart.
    """

    def __init__(self, site: Site, environment: Mapping[str, str]) -> None:
        self.site, self.port = site, free_port()
        self.url = f"http://127.0.0.1:{self.port}/{NAME}"
        self._environment = environment
        self._log_file = site.folder.parent.parent / f"py4web-{self.port}.log"

    @property
    def log(self) -> str:
        """All that the server and the app printed so far."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    def browser(self) -> Browser:
        """A visitor with cookies of their own."""
        return Browser(self.url)

    def __enter__(self) -> ServedSite:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if MEASURED:  # a killed process saves no measurement, but an orderly end takes seconds
            self.stop(patience=END)
        else:
            self.kill()

    def start(self, patience: float = 30.0) -> None:
        """Return as soon as the site answers; AssertionError with its log after `patience` seconds."""
        with self._log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.site.folder.parent.parent,
                env=self._full_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        for _pause in range(int(patience / 0.05)):
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.05)
                break
        if self._process.poll() is not None or "[FAILED] loading" in self.log:
            self.kill()
            raise AssertionError(f"py4web does not come up:\n{self.log}")

    def stop(self, patience: float = 15.0) -> None:
        """End it by SIGTERM, then, after at most `patience` seconds, whatever of it is left."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        self.kill()

    def kill(self) -> None:
        """End it and every process it started, without a warning."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "py4web", "run", str(self.site.folder.parent), "--yes", "--quiet"]
        command += ["--port", str(self.port), "--app_names", NAME, "--watch", "off"]
        return [*command, "--dashboard_mode", "none", "--errorlog", ":stderr"]

    def _full_environment(self) -> dict[str, str]:
        paths = [str(APPS)] if str(APPS) in sys.path else []
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([*paths, inherited] if inherited else paths)
        return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, **self._environment}

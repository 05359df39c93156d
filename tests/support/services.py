"""Services outside Python that some tests need: databases, brokers, a browser, a mail server."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue.tables import TABLES, define_tables
from pydal import DAL

from . import postfix

REQUIRED = os.environ.get("MAILQUEUE_REQUIRE_SERVICES") == "1"
POSTGRES = "postgres://postgres@127.0.0.1:5432/"
MYSQL_DRIVER = os.environ.get("MAILQUEUE_TEST_MYSQL_DRIVER", "pymysql")
MARIADB = f"mysql:{MYSQL_DRIVER}://root:@127.0.0.1:3306/"


def _missing_server(port: int) -> str | None:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError as error:
        return f"nobody answers on port {port}: {error}"
    return None


def _missing_module(name: str) -> str | None:
    return None if importlib.util.find_spec(name) else f"the Python package {name} is not installed"


def _missing_browser() -> str | None:
    found = any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    return _missing_module("playwright") if found else "no Chromium on the PATH"


def _missing_program(name: str) -> str | None:
    return None if shutil.which(name) else f"no {name} on the PATH"


def _missing_mail_dkim() -> str | None:
    if not shutil.which("perl"):
        return "no perl on the PATH"
    found = subprocess.run(["perl", "-MMail::DKIM", "-e", "1"], capture_output=True, check=False)
    return "Perl's Mail::DKIM is not installed (Debian: libmail-dkim-perl)" if found.returncode else None


_MISSING: dict[str, Callable[[], str | None]] = {
    "postgres": lambda: _missing_module("psycopg2") or _missing_server(5432),
    "mariadb": lambda: _missing_module("pymysql") or _missing_module(MYSQL_DRIVER) or _missing_server(3306),
    "redis": lambda: _missing_module("redis") or _missing_server(6379),
    "rabbitmq": lambda: _missing_server(5672),
    "browser": _missing_browser,
    "mail-dkim": _missing_mail_dkim,
    "openssl": lambda: _missing_program("openssl"),
    "gpg": lambda: _missing_program("gpg"),
    "postfix": postfix.missing,
}


def needs(name: str) -> None:
    """Skip the running test if this service is absent; fail it if MAILQUEUE_REQUIRE_SERVICES=1.

    Args:
        name: one of _MISSING.
    """
    missing = _MISSING[name]()
    if missing and REQUIRED:
        pytest.fail(f"{name} is required: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"{name}: {missing}")


@contextlib.contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """The URI, for pydal, of an empty database that is gone afterwards.

    Args:
        kind: "sqlite", "postgres" or "mariadb".
        folder: where SQLite puts its file.
    """
    name = f"mailqueue_test_{uuid.uuid4().hex[:12]}"
    if kind == "sqlite":
        yield f"sqlite://{folder / name}.db"
    elif kind == "postgres":
        needs("postgres")
        _on_postgres(f"CREATE DATABASE {name}")
        # No test pulls the plug; a commit that waits for the disk is most of what the suite would wait for.
        _on_postgres(f"ALTER DATABASE {name} SET synchronous_commit = off")
        try:
            yield POSTGRES + name
        finally:
            _on_postgres(f"DROP DATABASE {name} WITH (FORCE)")
    else:
        needs("mariadb")
        _on_mariadb(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield f"{MARIADB}{name}?set_encoding=utf8mb4"
        finally:
            _drop_on_mariadb(name)


class KeptDatabase:
    """A database with the tables of mailqueue in it, for one test after the other: making them takes long.

    Args:
        kind: "postgres" or "mariadb".
        folder: for the files in which pydal keeps what tables are like.

    Attributes:
        uri: for pydal.
    """

    def __init__(self, kind: str, folder: Path):
        self._kind, self._folder = kind, folder
        self._open = contextlib.ExitStack()
        self.uri = self._open.enter_context(fresh_database(kind, folder))
        db = DAL(self.uri, folder=str(folder), pool_size=0)
        define_tables(db)
        db.close()

    def lend(self, folder: Path) -> None:
        """Empty it, and have a DAL with this folder take the tables for its own."""
        name = self.uri.rpartition("/")[2].partition("?")[0]
        statements = [f"DELETE FROM {table}" for table in TABLES]
        if self._kind == "postgres":
            _on_postgres(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            _on_postgres(";".join(statements), name)
        else:
            _end_connections_on_mariadb(name)
            _on_mariadb_together(statements, name)
        for path in self._folder.glob("*.table"):
            shutil.copy(path, folder)

    def close(self) -> None:
        """Drop it."""
        self._open.close()


def _on_postgres(statement: str, database: str = "test") -> None:
    import psycopg2

    with contextlib.closing(
        psycopg2.connect(f"{POSTGRES}{database}".replace("postgres:", "postgresql:", 1))
    ) as link:
        link.autocommit = True
        link.cursor().execute(statement)


def _on_mariadb_together(statements: Iterable[str], database: str) -> None:
    """Execute them in one transaction."""
    import pymysql

    with contextlib.closing(
        pymysql.connect(host="127.0.0.1", port=3306, user="root", database=database)
    ) as link:
        for statement in statements:
            link.cursor().execute(statement)
        link.commit()


def _on_mariadb(statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    import pymysql

    with contextlib.closing(pymysql.connect(host="127.0.0.1", port=3306, user="root")) as link:
        cursor = link.cursor()
        cursor.execute(statement, arguments)
        return list(cursor.fetchall())


def _drop_on_mariadb(name: str) -> None:
    _end_connections_on_mariadb(name)  # it would wait for their locks
    _on_mariadb(f"DROP DATABASE {name}")


def _end_connections_on_mariadb(name: str) -> None:
    for (connection,) in _on_mariadb("SELECT id FROM information_schema.processlist WHERE db = %s", name):
        _kill_on_mariadb(connection)


def _kill_on_mariadb(connection: int) -> None:
    import pymysql

    try:
        _on_mariadb(f"KILL {connection}")
    except pymysql.err.OperationalError as error:
        if error.args[0] != 1094:  # it ended by itself just now
            raise

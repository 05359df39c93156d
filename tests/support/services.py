"""Services outside Python that some tests need: databases, brokers, a browser."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REQUIRED = os.environ.get("MAILQUEUE_REQUIRE_SERVICES") == "1"
POSTGRES = "postgres://postgres@127.0.0.1:5432/"
MARIADB = "mysql://root:@127.0.0.1:3306/"


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
    return None if found else "no Chromium on the PATH"


_MISSING: dict[str, Callable[[], str | None]] = {
    "postgres": lambda: _missing_module("psycopg2") or _missing_server(5432),
    "mariadb": lambda: _missing_module("pymysql") or _missing_server(3306),
    "redis": lambda: _missing_module("redis") or _missing_server(6379),
    "rabbitmq": lambda: _missing_server(5672),
    "browser": _missing_browser,
}


def needs(name: str) -> None:
    """Skip the running test if this service is absent; fail it if MAILQUEUE_REQUIRE_SERVICES=1.

    Args:
        name: "postgres", "mariadb", "redis", "rabbitmq" or "browser".
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


def _on_postgres(statement: str) -> None:
    import psycopg2

    with contextlib.closing(
        psycopg2.connect(f"{POSTGRES}test".replace("postgres:", "postgresql:", 1))
    ) as link:
        link.autocommit = True
        link.cursor().execute(statement)


def _on_mariadb(statement: str, *arguments: Any) -> list[tuple[Any, ...]]:
    import pymysql

    with contextlib.closing(pymysql.connect(host="127.0.0.1", port=3306, user="root")) as link:
        cursor = link.cursor()
        cursor.execute(statement, arguments)
        return list(cursor.fetchall())


def _drop_on_mariadb(name: str) -> None:
    # DROP DATABASE would wait for the locks of a connection that somebody left open.
    for (connection,) in _on_mariadb("SELECT id FROM information_schema.processlist WHERE db = %s", name):
        _kill_on_mariadb(connection)
    _on_mariadb(f"DROP DATABASE {name}")


def _kill_on_mariadb(connection: int) -> None:
    import pymysql

    try:
        _on_mariadb(f"KILL {connection}")
    except pymysql.err.OperationalError as error:
        if error.args[0] != 1094:  # it ended by itself just now
            raise

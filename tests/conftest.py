"""Fixtures for every test. Helpers are in tests/support, imported as `from support... import ...`."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("mailqueue") is None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "apps"))

from support.certificates import Certificates, make_certificates
from support.kill_figures import FIGURES
from support.services import KeptDatabase, fresh_database, needs
from support.smtp_server import ScriptedServer


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A certification authority and certificates for 127.0.0.1, good and bad."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def smtp() -> Iterator[ScriptedServer]:
    """An SMTP server without TLS and AUTH, ready to misbehave."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def empty_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URI of a fresh database, on every kind of database we support."""
    with fresh_database(request.param, tmp_path) as uri:
        yield uri


@pytest.fixture(scope="session")
def kept_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], KeptDatabase]]:
    """The database of each kind that tests use one after the other; made when it is asked for first."""

    @functools.cache
    def kept(kind: str) -> KeptDatabase:
        database = KeptDatabase(kind, tmp_path_factory.mktemp(kind))
        made.append(database)
        return database

    made: list[KeptDatabase] = []
    yield kept
    for database in made:
        database.close()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def db_uri(
    request: pytest.FixtureRequest, tmp_path: Path, kept_database: Callable[[str], KeptDatabase]
) -> Iterator[str]:
    """The URI of a database with our tables and no rows in them, for a DAL whose folder is tmp_path."""
    if request.param == "sqlite":
        with fresh_database("sqlite", tmp_path) as uri:
            yield uri
        return
    needs(request.param)
    database = kept_database(request.param)
    database.lend(tmp_path)
    yield database.uri


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the kill matrix: its tests take longest, and at the end one would be waited for."""
    items.sort(key=lambda item: item.path.name != "test_kill_matrix.py")


# With pytest-xdist the kills happen in its worker processes, and the summary is written by another one.
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a process of pytest-xdist: hand over what its kills have come to."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["kills"] = FIGURES.told()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take that over; a process that crashed has handed over nothing."""
    if "kills" in getattr(node, "workeroutput", {}):
        FIGURES.merge(node.workeroutput["kills"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the kills of this run have come to."""
    lines = list(FIGURES.lines())
    if lines:
        terminalreporter.section("kill matrix")
        for line in lines:
            terminalreporter.write_line(line)

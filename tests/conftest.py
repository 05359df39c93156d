"""Fixtures for every test. Helpers are in tests/support, imported as `from support... import ...`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if importlib.util.find_spec("mailqueue") is None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "apps"))

from support.certificates import Certificates, make_certificates
from support.kill_figures import FIGURES
from support.services import fresh_database
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
def db_uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URI of a fresh database, on every kind of database we support."""
    with fresh_database(request.param, tmp_path) as uri:
        yield uri


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the kills of this run have come to."""
    lines = list(FIGURES.lines())
    if lines:
        terminalreporter.section("kill matrix")
        for line in lines:
            terminalreporter.write_line(line)

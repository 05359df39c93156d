"""The command `mailqueue`, as a user calls it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mailqueue import demo
from mailqueue.cli import main
from support.smtp_server import free_port

COMMAND = [sys.executable, "-c", "from mailqueue.cli import main; main()"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_help_names_every_command() -> None:
    answer = run("--help")
    assert answer.exit_code == 0
    assert {"demo", "manifest", "worker"} <= set(answer.stdout.split())


def test_version_is_the_packages() -> None:
    from mailqueue import __version__

    assert run("--version").stdout.strip() == f"mailqueue, version {__version__}"


def test_the_manifest_is_printed_and_checked() -> None:
    assert '"name": "mailqueue"' in run("manifest").stdout
    checked = run("manifest", "--check")
    assert (checked.exit_code, checked.stdout) == (0, "The manifest and the code agree.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("demo", "--port", "x"),
        ("demo", "--port", "99999"),
        ("demo", "--port", "-1"),
        ("demo", "--port", "0"),
        ("demo", "--smtp-port", "65536"),
        ("demo", "--inbox-port", "-4"),
        ("demo", "--check", "--folder", "x"),
        ("manifest", "--what"),
    ],
)
def test_a_users_mistake_is_answered_without_a_traceback(arguments: tuple[str, ...]) -> None:
    answer = run(*arguments)
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output
    assert "Error" in answer.output


def test_a_taken_port_is_a_plain_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = run("demo", "--check", "--inbox-port", str(taken.getsockname()[1]))
    assert answer.exit_code == 1
    assert "Traceback" not in answer.output


def test_no_port_is_looked_for_beyond_the_last_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        answer = run("demo", "--check", "--port", "65535")
    assert answer.exit_code == 1
    assert "no port is free from 65535 to 65535" in answer.output
    assert "Traceback" not in answer.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_check_that_is_cut_short_does_not_pass(number: signal.Signals) -> None:
    command = [*COMMAND, "demo", "--check", "--port", str(free_port())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline().startswith("ok")
        running.send_signal(number)
        assert running.wait(20) == 1


def test_a_folder_that_holds_apps_already_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tmp_path / "home" / "apps" / "theirs.py"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with demo.running(free_port(), folder="home"):  # a relative path means the user's own directory
        assert (tmp_path / "home" / "state" / "administrator.txt").exists()
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.py"]
    assert theirs.read_text(encoding="utf-8") == "precious"


def test_the_demo_tells_its_story_and_ends_in_good_order(tmp_path: Path) -> None:
    port = free_port()
    command = [*COMMAND, "demo", "--port", str(port), "--folder", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        said = ""
        while "Ctrl-C" not in said:
            line = running.stdout.readline()
            assert line, said
            said += line
        assert f"http://127.0.0.1:{port}/mailqueue/index" in said
        password = (tmp_path / "state" / "administrator.txt").read_text(encoding="utf-8").split()[1]
        assert password in said
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    with socket.socket() as again:  # the site and whatever it started are gone
        assert again.connect_ex(("127.0.0.1", port)) != 0
    assert (tmp_path / "state" / "administrator.txt").stat().st_mode & 0o777 == 0o600

"""One folder, two names: an installable package and a py4web app; and what a wheel of it holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.scaffold import APPS

TOP = APPS.parent
SERVED = "py4web.core.wsgi(apps_folder={apps!r}, app_names='mailqueue', dashboard_mode='none')"


def python(program: str, folder: Path) -> str:
    command = [sys.executable, "-c", f"import os, sys, py4web, py4web.core; {program}; os._exit(0)"]
    environment = {"MAILQUEUE_FOLDER": str(folder / "state"), "PATH": "", "PYTHONPATH": str(APPS)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def served(tmp_path: Path) -> str:
    apps = tmp_path / "apps"
    apps.mkdir()
    (apps / "__init__.py").touch()
    (apps / "mailqueue").symlink_to(APPS / "mailqueue")
    return SERVED.format(apps=str(apps))


FOUND = """
routes = py4web.core.Reloader.ROUTES['mailqueue']
print(sorted(route['rule'] + route['method'] for route in routes if 'index' in route['rule']))
print(__import__('mailqueue').QueuedMailer.__module__, sys.modules['apps.mailqueue'].__name__)
sys.stdout.flush()
""".strip().replace("\n", "; ")


@pytest.mark.parametrize("order", ["library first", "app first"])
def test_it_is_library_and_app_in_one_process_in_either_order(order: str, tmp_path: Path) -> None:
    steps = ["import mailqueue", served(tmp_path)]
    if order == "app first":
        steps.reverse()
    printed = python("; ".join([*steps, FOUND]), tmp_path)
    assert "['/mailqueue/indexGET', '/mailqueue/indexPOST']" in printed
    assert "mailqueue.py4web.mailer apps.mailqueue" in printed


def test_the_library_alone_mounts_nothing(tmp_path: Path) -> None:
    routes = "print(dict(py4web.core.Reloader.ROUTES)); sys.stdout.flush()"
    assert python(f"import mailqueue; {routes}", tmp_path).strip() == "{}"


def test_a_wheel_holds_everything_that_is_read_at_run_time(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(TOP)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    read = [
        path.relative_to(APPS).as_posix()
        for path in (APPS / "mailqueue").rglob("*")
        if path.is_file() and path.suffix in (".py", ".html", ".css", ".typed", ".json")
    ]
    assert {*read, "mailqueue/plugin_manifest.json"} <= names
    assert not [name for name in names if "databases" in name or "tests" in name]

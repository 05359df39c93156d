"""Runs a part of the benchmark in a process of its own, which tells its figures in a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab


class Failed(Exception):
    """A process did not do what it was to do; the text has its last words."""


class Child:
    """A script under an environment's interpreter, as a context manager that ends it.

    Args:
        folder: of the benchmark; the child gets one of its own in it.
        environment: "ours" or "peers".
        script: a file beside this one.
        spec: what it is to do, for JSON; `folder` and `out` are added.
        variables: environment variables.
    """

    def __init__(self, folder: Path, environment: str, script: str, spec: dict[str, Any], **variables: str):
        self._own = tempfile.TemporaryDirectory(prefix="run-", dir=folder)
        self.folder = Path(self._own.name)
        self._out, self._log = self.folder / "out.json", self.folder / "log.txt"
        told = self.folder / "spec.json"
        own = {"folder": str(self.folder), "out": str(self._out)}
        told.write_text(json.dumps({**spec, **own}), encoding="utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [lab.python(folder, environment), str(lab.HERE / script), str(told)],
                stdout=log,
                stderr=log,
                cwd=lab.HERE,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
                start_new_session=True,
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # of its own session: what it started too
            self._process.wait()
        self._own.cleanup()

    def wait_for(self, happened: Callable[[], bool], seconds: float) -> None:
        """Wait until something happened.

        Raises:
            Failed: the child ended before, or it took too long.
        """
        end = _Deadline(seconds)
        while not happened():
            if self._process.poll() is not None:
                raise Failed(f"it ended with exit code {self._process.returncode}\n{self._last_words()}")
            end.check(self._last_words)

    def figures(self, seconds: float) -> dict[str, Any]:
        """What it found out, once it has ended.

        Raises:
            Failed: it did not end well, or it took too long.
        """
        end = _Deadline(seconds)
        while self._process.poll() is None:
            end.check(self._last_words)
        if self._process.returncode:
            raise Failed(f"exit code {self._process.returncode}\n{self._last_words()}")
        found: dict[str, Any] = json.loads(self._out.read_text(encoding="utf-8"))
        return found

    def _last_words(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-2000:]


class _Deadline:
    def __init__(self, seconds: float):
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def check(self, last_words: Callable[[], str]) -> None:
        if time.monotonic() > self._end:
            raise Failed(f"it took longer than {self._seconds:.0f} s\n{last_words()}")
        time.sleep(0.005)


def figures(folder: Path, script: str, spec: dict[str, Any], seconds: float = 3600) -> dict[str, Any]:
    """What a script of ours found out.

    Raises:
        Failed: it did not end well, or it took too long.
    """
    with Child(folder, "ours", script, spec) as child:
        return child.figures(seconds)

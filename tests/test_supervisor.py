"""Worker processes are replaced, renewed and ended as asked, whoever of them or of their parent dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.database_faults import until
from support.worker_process import read_until

SUPERVISOR = """
import logging, sys
from mailqueue import supervisor
logging.basicConfig(level=logging.INFO, format="%(message)s")
supervisor.KILL_SECONDS = {kill_seconds}
sys.exit(supervisor.supervise([sys.executable, "-c", {child!r}], {processes}))
"""
# In one write each: two processes that print to one pipe mix up their lines now and then.
CHILD = """
import os, sys
os.write(1, f"up {os.getpid()}\\n".encode())
while os.read(0, 1): pass
os.write(1, f"down {os.getpid()}\\n".encode())
"""
STAYS = CHILD.replace("while os.read(0, 1): pass", "import time; time.sleep(60)")

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def start(child: str = CHILD, processes: int = 1, kill_seconds: float = 20) -> subprocess.Popen[str]:
        script = SUPERVISOR.format(child=child, processes=processes, kill_seconds=kill_seconds)
        command = [sys.executable, "-c", script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def pids(process: subprocess.Popen[str], word: str, number: int) -> set[int]:
    """The processes that say this word next."""
    return {int(read_until(process, word).split()[1]) for _ in range(number)}


def is_there(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_dies_is_replaced_after_a_pause_that_grows(start: Start) -> None:
    process = start()
    (first,) = pids(process, "up", 1)
    os.kill(first, signal.SIGKILL)
    assert f"{first} ended: signal 9. Another one is started in 1 s" in read_until(process, "ended")
    (second,) = pids(process, "up", 1)
    os.kill(second, signal.SIGKILL)
    assert f"{second} ended: signal 9. Another one is started in 2 s" in read_until(process, "ended")
    process.terminate()
    assert process.wait(10) == 0


def test_a_reload_replaces_every_worker_and_lets_the_old_ones_end(start: Start) -> None:
    process = start(processes=2)
    old = pids(process, "up", 2)
    process.send_signal(signal.SIGHUP)
    read_until(process, "reloading")
    said = [read_until(process, " ").split() for _ in range(4)]
    fresh = {int(pid) for word, pid in said if word == "up"}
    assert {int(pid) for word, pid in said if word == "down"} == old
    assert len(fresh) == 2
    assert not fresh & old
    process.terminate()
    assert pids(process, "down", 2) == fresh
    assert process.wait(10) == 0


def test_a_reload_that_finds_nothing_to_serve_is_tried_again(start: Start, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    process = start(f"import os, sys\nif os.path.exists({str(spoilt)!r}): sys.exit(2)\n{CHILD}")
    read_until(process, "up")
    spoilt.touch()
    process.send_signal(signal.SIGHUP)
    assert "exit code 2" in read_until(process, "Another one is started")
    spoilt.unlink()
    read_until(process, "up")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_every_worker_end_in_good_order(start: Start, number: signal.Signals) -> None:
    process = start(processes=2)
    there = pids(process, "up", 2)
    process.send_signal(number)
    assert pids(process, "down", 2) == there
    assert process.wait(10) == 0


def test_a_worker_that_ends_badly_is_told_by_the_exit_code(start: Start) -> None:
    process = start(CHILD + "sys.exit(3)")
    read_until(process, "up")
    process.terminate()
    assert "exit code 3" in read_until(process, "ended badly")
    assert process.wait(10) == 1


def test_a_worker_that_does_not_end_is_killed(start: Start) -> None:
    process = start(STAYS, kill_seconds=0.1)
    (there,) = pids(process, "up", 1)
    process.terminate()
    assert process.wait(10) == 1
    assert not is_there(there)


def test_a_second_signal_ends_everything_at_once(start: Start) -> None:
    process = start(STAYS, processes=2)
    there = pids(process, "up", 2)
    process.terminate()
    while process.poll() is None:
        process.terminate()
    assert process.wait(10) == -signal.SIGTERM
    until(lambda: not any(map(is_there, there)))


def test_workers_end_in_good_order_when_their_supervisor_is_killed(start: Start) -> None:
    process = start(processes=2)
    there = pids(process, "up", 2)
    process.kill()
    assert pids(process, "down", 2) == there


def test_where_the_first_worker_has_nothing_to_serve_none_is_tried_again(start: Start) -> None:
    process = start("raise SystemExit(2)", processes=2)
    said, _ = process.communicate(timeout=10)
    assert process.returncode == 2
    assert not re.search("ended|started", said)

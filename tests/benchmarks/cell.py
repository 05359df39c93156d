"""One contender, once, in a process of its own: python cell.py SPEC.json.

Times the adapter's enqueue(n) and drain(). Between the two it waits until the file `mark` is gone,
so that whoever started it can read counters.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path


def _cpu() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _timed(action: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of CPU time."""
    cpu, begun = _cpu(), time.perf_counter()
    action()
    return time.perf_counter() - begun, _cpu() - cpu


def _wait_while(mark: Path) -> None:
    mark.touch()
    while mark.exists():
        time.sleep(0.002)
        if os.getppid() == 1:
            sys.exit("the benchmark is gone")


def main() -> None:
    """Measure what the specification says."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    adapter = importlib.import_module(f"adapters.{spec['adapter']}")
    contender = adapter.Adapter(spec["url"], "127.0.0.1", spec["port"], spec["options"], Path(spec["folder"]))
    enqueue, enqueue_cpu = _timed(lambda: contender.enqueue(spec["n"]))
    contender.get_ready()
    _wait_while(Path(spec["folder"], "mark"))
    drain, drain_cpu = _timed(contender.drain)
    contender.close()
    figures = {
        "enqueue": enqueue,
        "enqueue_cpu": enqueue_cpu,
        "drain": drain,
        "drain_cpu": drain_cpu,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    Path(spec["out"]).write_text(json.dumps(figures), encoding="utf-8")


main()

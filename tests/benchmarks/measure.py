"""The benchmark itself, in the environment that run.py makes; run.py is the command."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import children
import console
import drains
import growth
import lab
import latency
import options
import report
import services
import targets
from gear import Gear, gear
from targets import Verdict
from verify import verify

UNMEASURED = 2  # exit code


def main() -> int:
    """Measure what is asked for, and print it.

    Returns:
        0: all targets are met; 1: not all; 2: it could not be measured.
    """
    asked = options.parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(UNMEASURED))  # so that what was started is ended
    try:
        with gear(asked.folder, asked.databases, asked.plan.rtts) as ready, _spinning(asked.spin):
            if "verify" in asked.parts and verify(ready, asked.databases):
                print("the contenders do not all send the same", file=sys.stderr)
                return UNMEASURED
            results, verdicts = _measure(ready, asked)
    except (lab.Missing, children.Failed) as error:
        print(error, file=sys.stderr)
        return UNMEASURED
    print(f"\nresults: {_store(asked.folder, results, verdicts)}")
    return 0 if all(verdict.met for verdict in verdicts) else 1


def _spinning(wanted: bool) -> AbstractContextManager[object]:
    return closing(services.Spin()) if wanted else nullcontext()


def _measure(ready: Gear, asked: argparse.Namespace) -> tuple[dict[str, Any], list[Verdict]]:
    results: dict[str, Any] = {}
    verdicts: list[Verdict] = []
    if "composing" in asked.parts:
        results["composing"] = children.figures(ready.folder, "composing_run.py", {})
        verdicts += targets.of_composing(results["composing"])
    if "latency" in asked.parts:
        waits = latency.measure(ready, asked.plan)
        results["latency"] = list(map(asdict, waits))
        verdicts += targets.of_latency(waits)
    if "growth" in asked.parts:
        grown = growth.measure(ready, asked.plan.sizes)
        results["growth"] = list(map(asdict, grown))
        verdicts += targets.of_growth(grown)
    if "console" in asked.parts:
        pages = console.measure(ready, asked.plan.sizes)
        results["console"] = list(map(asdict, pages))
        verdicts += targets.of_console(pages)
    if "drains" in asked.parts:
        rows = drains.measure(ready, asked.plan, asked.databases)
        results["drains"] = list(map(asdict, rows))
        verdicts = [*targets.of_drains(rows), *verdicts]
        print(*report.of_drains(rows), sep="\n")
    print(*report.of_others(results), sep="\n")
    print(*report.of_verdicts(verdicts), sep="\n")
    return results, verdicts


def _store(folder: Path, results: dict[str, Any], verdicts: list[Verdict]) -> Path:
    kept = folder / "results" / time.strftime("%Y%m%d-%H%M%S.json")
    kept.parent.mkdir(exist_ok=True)
    machine = {"system": platform.platform(), "cpus": os.cpu_count(), "python": platform.python_version()}
    told = [{**asdict(verdict), "measured": verdict.measured, "met": verdict.met} for verdict in verdicts]
    whole = {"command": sys.argv[1:], **machine, "targets": told, **results}
    kept.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    return kept


if __name__ == "__main__":
    sys.exit(main())

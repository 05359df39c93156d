"""How long making a message takes: python composing_run.py SPEC.json. Ways of doing it take turns."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import messages
from mailqueue.compose import compose

TURNS, MESSAGES = 15, 100
Message = dict[str, str]


def by_mailqueue(message: Message) -> bytes:
    """As send() does."""
    return compose(
        to=message["to"],
        subject=message["subject"],
        text=message["text"],
        html=message["html"],
        domain="site.test",
        now=time.time(),
    ).mime


WAYS: dict[str, Callable[[Message], Any]] = {
    "mailqueue": by_mailqueue,
    "email.message": messages.by_email_message,
    "ready_made": messages.ready_made,
}


def main() -> None:
    """Milliseconds for each message, by way: the median of the turns."""
    made = [messages.make(number) for number in range(MESSAGES)]
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(TURNS):
        for name, way in WAYS.items():
            begun = time.perf_counter()
            for message in made:
                way(message)
            taken[name].append((time.perf_counter() - begun) / MESSAGES * 1000)
    figures = {name: statistics.median(times) for name, times in taken.items()}
    out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["out"]
    Path(out).write_text(json.dumps(figures), encoding="utf-8")


main()

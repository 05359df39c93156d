"""Waiting without time: what a service does instead of sleeping, in tests."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mailqueue.wakeup import POLL, Watch

from .mail import Clock


class Pauses(Watch):
    """A watch that does not wait: the clock advances, and what is planned for the n-th pause happens.

    It looks for work each second, as a watch does that nothing wakes.

    Args:
        clock: advances by what was to be waited.
        enough: asked at each pause; when it says so, `stop` is set.

    Attributes:
        waits: the seconds of each pause.
        plans: what to do at which pause, 1 being the first; before that it is not `enough`.
    """

    def __init__(self, clock: Clock, enough: Callable[[], bool], most: int = 200):
        self.clock, self.enough, self.most = clock, enough, most
        self.stop = threading.Event()
        self.waits: list[float] = []
        self.plans: dict[int, Callable[[], object]] = {}

    def wait(self, seconds: float) -> bool:
        self.pause(min(seconds, POLL))
        return True

    def pause(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(seconds)
        if plan := self.plans.pop(len(self.waits), None):
            plan()
        if not self.plans and self.enough():
            self.stop.set()
        if len(self.waits) >= self.most:
            self.stop.set()
            raise AssertionError(f"waited {self.most} times, and it is not enough")

"""Sending from pydal's Scheduler."""

from __future__ import annotations

from typing import Any


class SendingTask:
    """The task."""

    def __init__(self, mail: Any, scheduler: Any, period: int): ...

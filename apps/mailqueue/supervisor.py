"""Keeping worker processes alive: starting them, replacing those that die, reloading, ending.

A worker process ends when its standard input does. So it ends with its supervisor too, however
that comes to its end; and a signal that reaches all processes of a terminal or a systemd unit at
once is one signal to the supervisor, not two to the worker.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

logger = logging.getLogger("mailqueue")

ENDED, ENDED_BADLY, NOTHING_TO_SERVE = 0, 1, 2  # exit codes, of a worker process and of the supervisor
END_SECONDS = 25.0  # that a worker process has for the messages at hand, and what is to be written of them
KILL_SECONDS = END_SECONDS + 2.0  # after which it is killed
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds until one that died is replaced: the first, the longest
STEADY = 60.0  # seconds of life after which the pauses begin anew

_ENDS = (signal.SIGTERM, signal.SIGINT)


def supervise(command: Sequence[str], processes: int) -> int:
    """Keep so many worker processes alive until SIGTERM or SIGINT; SIGHUP replaces them by fresh ones.

    In the main thread. A second SIGTERM or SIGINT ends everything at once.

    Args:
        command: starts a worker process, which ends in good order when its standard input does, and
            exits with one of the exit codes above.
        processes: how many.

    Returns:
        ENDED: as asked, and every worker in good order; ENDED_BADLY: not every one;
        NOTHING_TO_SERVE: the first worker said so.
    """
    return _Supervisor(command, processes).run()


@dataclass
class _Place:
    """Where there is to be a worker process.

    Args:
        process: None: the next one is to be started at `start_on`.
        start_on: seconds by time.monotonic(); when this one was started, or is to be.
        pause: seconds until the next one is started if this one dies soon.
    """

    process: subprocess.Popen[bytes] | None = None
    start_on: float = 0.0
    pause: float = FIRST_PAUSE


class _Supervisor:
    def __init__(self, command: Sequence[str], processes: int):
        self._command = command
        self._places = [_Place() for _ in range(processes)]
        self._leaving: dict[subprocess.Popen[bytes], float] = {}  # and when their time is over
        # Its put() may interrupt anything, unlike an Event's set().
        self._signals: SimpleQueue[int] = SimpleQueue()
        self._ending = False
        self._first = True  # nobody was replaced yet
        self._status = ENDED

    def run(self) -> int:
        for number in (*_ENDS, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, _: self._signals.put(number))
        while not self._ending or self._leaving:
            self._start_who_is_due()
            with suppress(Empty):
                self._heed(self._signals.get(timeout=self._patience()))
            self._see_who_ended()
            self._kill_who_stays()
        return self._status

    def _patience(self) -> float | None:
        """Seconds until something is to be done by itself; None: nothing is."""
        starts = [] if self._ending else [place.start_on for place in self._places if not place.process]
        moments = [*starts, *self._leaving.values()]
        return max(min(moments) - time.monotonic(), 0.0) if moments else None

    def _start_who_is_due(self) -> None:
        now = time.monotonic()
        for place in [] if self._ending else self._places:
            if place.process is None and place.start_on <= now:
                place.process = subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603 - our own
                place.start_on = now

    def _heed(self, number: int) -> None:
        if number in _ENDS:
            if self._ending:
                self._end_at_once(number)
            self._end(ENDED)
        elif number == signal.SIGHUP and not self._ending:
            logger.info("reloading: fresh worker processes take over")
            self._first = False
            self._dismiss_all()

    def _end(self, status: int) -> None:
        self._ending, self._status = True, max(self._status, status)
        self._dismiss_all()

    def _dismiss_all(self) -> None:
        for place in self._places:
            if place.process is not None:
                _input_of(place.process).close()
                self._leaving[place.process] = time.monotonic() + KILL_SECONDS
            place.process, place.start_on, place.pause = None, 0.0, FIRST_PAUSE

    def _end_at_once(self, number: int) -> None:
        for process in self._leaving:
            process.kill()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _see_who_ended(self) -> None:
        for place in self._places:
            if place.process is not None and place.process.poll() is not None:
                self._replace(place, place.process)
        # After those above, which may make others leave: of one that has ended no further signal comes.
        for process in [process for process in self._leaving if process.poll() is not None]:
            del self._leaving[process]
            self._note_end(process)

    def _note_end(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode == ENDED or self._status == NOTHING_TO_SERVE:
            return
        logger.error("the worker process %d ended badly: %s", process.pid, _reason(process.returncode))
        if self._ending:
            self._status = ENDED_BADLY

    def _replace(self, place: _Place, died: subprocess.Popen[bytes]) -> None:
        _input_of(died).close()
        place.process = None
        if self._first and died.returncode == NOTHING_TO_SERVE:
            self._end(NOTHING_TO_SERVE)
            return
        self._first = False
        now = time.monotonic()
        if now - place.start_on > STEADY:
            place.pause = FIRST_PAUSE
        logger.error(
            "the worker process %d ended: %s. Another one is started in %g s",
            died.pid,
            _reason(died.returncode),
            place.pause,
        )
        place.start_on = now + place.pause
        place.pause = min(place.pause * 2, LONGEST_PAUSE)

    def _kill_who_stays(self) -> None:
        now = time.monotonic()
        for process, deadline in self._leaving.items():
            if deadline <= now:
                logger.error("the worker process %d does not end, and is killed", process.pid)
                process.kill()
                self._leaving[process] = now + KILL_SECONDS


def _input_of(process: subprocess.Popen[bytes]) -> Any:
    return process.stdin


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"

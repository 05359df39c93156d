"""A nursery of workers: one process that has imported everything, and forks a real worker on order.

It reads orders as lines of JSON and answers with what became of the worker: ended or stopped. Each
worker is a process with database connections, a journal and SMTP connections of its own; it is
struck by a signal at a point of its work, or after some time.
"""

from __future__ import annotations

import contextlib
import gc
import json
import mmap
import os
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from mailqueue import QueuedMailer, delivery, journal, service, shift, supply, worker
from mailqueue.service import serve
from mailqueue.wakeup import Watch

from support.kill_points import Points
from support.mail import START, make_mail

STOPPED_FOR = 1000.0  # seconds that have gone by for a worker that is continued
HANDLED = 0.5  # seconds within which the main thread notices a signal, unless it waits for this one
LONGEST_LIFE = 30  # seconds after which a worker that hangs is ended
_monotonic, _elapsed = time.monotonic, shift.elapsed


@dataclass(frozen=True)
class Order:
    """What a worker is to do, and what is to befall it.

    Args:
        uri, folder: the database.
        port: the mail server's, on 127.0.0.1.
        connections: how many it may open.
        signal: the name of one without SIG; "" to let it live.
        label, occurrence: the point at which it strikes itself.
        seconds: instead of that, the time after which it is struck from outside.
        points: a file for the points it has reached, when it ends by itself.
        first_port: of a mail server that is to be tried before the other one; 0: there is none.
    """

    uri: str
    folder: str
    port: int
    connections: int
    signal: str = ""
    label: str | None = None
    occurrence: int = 0
    seconds: float | None = None
    points: str = ""
    first_port: int = 0


def transports(first_port: int, port: int) -> list[str] | None:
    """What a site has that tries one mail server before another; None where there is no first one."""
    return [f"smtp://127.0.0.1:{one}?tls=none" for one in (first_port, port)] if first_port else None


class Shared:
    """Two numbers that the nursery and its worker share: time that was slept through, and the strike's."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def _get(self, place: int) -> float:
        return float(struct.unpack_from("d", self._memory, place)[0])

    @property
    def slept(self) -> float:
        """Seconds for which the worker was stopped."""
        return self._get(0)

    @slept.setter
    def slept(self, seconds: float) -> None:
        struct.pack_into("d", self._memory, 0, seconds)

    @property
    def struck_on(self) -> float:
        """When it was struck, by the monotonic clock; 0.0: not yet."""
        return self._get(8)

    @struck_on.setter
    def struck_on(self, moment: float) -> None:
        struct.pack_into("d", self._memory, 8, moment)


# --- the worker ------------------------------------------------------------------------------


def work(mail: QueuedMailer, stop: threading.Event) -> None:
    """Serve the site until there is nothing to do for the moment, or `stop` is set."""
    serve(mail.site, stop, watch=_NoWait(mail.db, stop))


class _NoWait(Watch):
    """Stops the service where it would wait."""

    def wait(self, seconds: float) -> bool:
        self._stop.set()
        return False

    def pause(self, seconds: float) -> None:
        self._stop.set()


def live(order: Order, shared: Shared) -> None:
    """The life of a worker."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.alarm(LONGEST_LIFE)
    time.monotonic = lambda: _monotonic() + shared.slept
    shift.elapsed = lambda: _elapsed() + shared.slept
    mail = make_mail(
        Path(order.folder),
        uri=order.uri,
        clock=lambda: START + shared.slept,  # type: ignore[arg-type]  # not a Clock, but as good
        connections=order.connections,
    )
    mail.settings.server = f"127.0.0.1:{order.port}"
    mail.settings.transports = transports(order.first_port, order.port)
    worker.MESSAGES_FOR_ANOTHER = 1  # few messages are to open all connections,
    supply.SLOW = 0.0  # near as the server is
    delivery.LATE = 60.0  # and none in advance, which a busy machine alone would have

    def strike() -> None:
        shared.struck_on = _monotonic()
        if order.signal == "TERM":
            os.kill(os.getpid(), signal.SIGTERM)
            stop.wait(HANDLED)  # Python runs the handler in the main thread, a moment later
        else:  # at this very point: sent to the process, STOP would let this thread go on for a moment
            signal.pthread_kill(threading.get_ident(), signal.Signals[f"SIG{order.signal}"])

    points = Points(strike, order.label, order.occurrence, order.connections)
    if order.seconds is None:
        _work_in_small_pieces()
        points.watch(mail.db)
        os.write(_READY, b".")
    else:
        _tell_of_the_first_drain()
    work(mail, stop)
    if order.points:
        Path(order.points).write_text(json.dumps(points.reached), encoding="utf-8")


def _tell_of_the_first_drain() -> None:
    """Say that the worker begins when it does: asked to end before that, it rightly does nothing at all."""
    drain = service.drain

    def told(*args: Any, **named: Any) -> dict[str, int]:
        service.drain = drain
        os.write(_READY, b".")
        return drain(*args, **named)

    service.drain = told


def _work_in_small_pieces() -> None:
    """Have a few messages take all the ways that thousands take."""
    worker.BATCH = 5
    supply.FOR_EACH = 4  # however fast the server, there is always a message behind
    worker.GROUP = 2
    journal.LARGEST = 1500


# --- the nursery -----------------------------------------------------------------------------

_READY = -1  # where a worker says that it begins


def bear(order: Order, shared: Shared) -> int:
    """Fork a worker; returns its process id once it is at work."""
    global _READY
    shared.slept = shared.struck_on = 0.0
    ready, _READY = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            live(order, shared)
            code = 0
        except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(_READY)
    os.read(ready, 1)
    os.close(ready)
    return pid


def strike_from_outside(pid: int, order: Order, shared: Shared) -> None:
    """Send the signal after the time ordered; to a process that is not waited for yet, so it is the one."""
    if order.seconds is None:
        return
    time.sleep(order.seconds)
    shared.struck_on = _monotonic()
    os.kill(pid, signal.Signals[f"SIG{order.signal}"])


def fate(pid: int, shared: Shared) -> dict[str, Any]:
    """Wait until it ends or is stopped; says which, and how long after the strike."""
    _, status = os.waitpid(pid, os.WUNTRACED)
    return {
        "code": None if os.WIFSTOPPED(status) else os.waitstatus_to_exitcode(status),
        "struck": shared.struck_on > 0,
        "seconds": _monotonic() - shared.struck_on,
    }


def lines() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def tend() -> None:
    """Bear workers as ordered, one at a time, until there are no more orders."""
    shared = Shared()
    pid = 0
    gc.freeze()  # what a worker does not touch need not be copied for it
    for request in lines():
        if "continue" in request:
            shared.slept = STOPPED_FOR  # while it stands still, so that it never sees the time between
            os.kill(pid, signal.SIGCONT)
        else:
            order = Order(**request)
            pid = bear(order, shared)
            strike_from_outside(pid, order, shared)
        print(json.dumps(fate(pid, shared)), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        tend()

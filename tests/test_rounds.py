"""Steps of several threads in one of them, over sockets whose other ends the test holds."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from mailqueue.rounds import Rounds, Steps, Waiting

LONG = 30.0


class Line:
    """A connection: steps at one end of it, the test at the other."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.threads: set[int] = set()
        self.waits = threading.Event()

    def steps(self, octets: int = 1, seconds: float = LONG) -> Steps[bytes]:
        """Read so many octets; what came within the time."""
        until, read = time.monotonic() + seconds, b""
        while len(read) < octets and time.monotonic() < until:
            self.waits.set()
            yield Waiting(self.near.fileno(), select.POLLIN, until)
            self.threads.add(threading.get_ident())
            try:
                read += self.near.recv(1)
            except BlockingIOError:
                continue
        return read

    def is_waiting(self) -> bool:
        return self.waits.wait(LONG)


@pytest.fixture
def lines() -> Iterator[list[Line]]:
    made = [Line() for _ in range(3)]
    yield made
    for line in made:
        line.near.close()
        line.far.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def started(threads: ThreadPoolExecutor, rounds: Rounds, line: Line, **options: Any) -> Future[bytes]:
    """Steps at work; whoever started the first ones leads."""
    running = threads.submit(lambda: rounds.run(line.steps(**options)))
    assert line.is_waiting()
    return running


def test_steps_bring_what_they_return() -> None:
    def at_once() -> Steps[str]:
        yield from ()
        return "done"

    assert Rounds().run(at_once()) == "done"


def test_one_thread_takes_the_steps_of_all_and_each_has_its_own_result(
    lines: list[Line], threads: ThreadPoolExecutor
) -> None:
    rounds = Rounds()
    running = [started(threads, rounds, line, octets=2) for line in lines]
    for sent in (b"a", b"b", b"c", b"d"):
        lines[1 + (sent in b"bd")].far.send(sent)
    assert [one.result(LONG) for one in running[1:]] == [b"ac", b"bd"]
    lines[0].far.send(b"ef")
    assert running[0].result(LONG) == b"ef"
    assert len(set.union(*(line.threads for line in lines))) == 1


def test_whoever_comes_by_is_served_although_the_leader_has_nothing_to_do(
    lines: list[Line], threads: ThreadPoolExecutor
) -> None:
    rounds = Rounds()
    leading = started(threads, rounds, lines[0])
    coming = started(threads, rounds, lines[1])
    lines[1].far.send(b"x")
    assert coming.result(LONG) == b"x" and not leading.done()
    (leader,) = lines[1].threads
    lines[0].far.send(b"y")
    assert leading.result(LONG) == b"y" and lines[0].threads == {leader}


def test_when_the_leader_is_through_another_one_leads(lines: list[Line], threads: ThreadPoolExecutor) -> None:
    rounds = Rounds()
    running = [started(threads, rounds, line) for line in lines]
    for line, one in zip(lines, running, strict=True):
        line.far.send(b"x")
        assert one.result(LONG) == b"x"
    again = started(threads, rounds, lines[0])
    lines[0].far.send(b"z")
    assert again.result(LONG) == b"z"


def failing(line: Line, error: BaseException) -> Steps[bytes]:
    yield from line.steps()
    raise error


def test_an_error_is_for_the_thread_that_it_belongs_to(
    lines: list[Line], threads: ThreadPoolExecutor
) -> None:
    rounds = Rounds()
    leading = started(threads, rounds, lines[0])
    mine = threads.submit(lambda: rounds.run(failing(lines[1], SystemExit("mine"))))
    assert lines[1].is_waiting()
    lines[1].far.send(b"x")
    with pytest.raises(SystemExit, match="mine"):
        mine.result(LONG)
    lines[0].far.send(b"y")
    assert leading.result(LONG) == b"y"


def test_a_leader_that_fails_leaves_the_others_to_somebody_else(
    lines: list[Line], threads: ThreadPoolExecutor
) -> None:
    rounds = Rounds()
    leading = threads.submit(lambda: rounds.run(failing(lines[0], KeyError("mine"))))
    assert lines[0].is_waiting()
    other = started(threads, rounds, lines[1])
    lines[0].far.send(b"x")
    with pytest.raises(KeyError, match="mine"):
        leading.result(LONG)
    lines[1].far.send(b"y")
    assert other.result(LONG) == b"y"


def test_steps_that_wait_for_what_is_closed_already_end_with_an_error_of_their_own(
    lines: list[Line], threads: ThreadPoolExecutor
) -> None:
    rounds = Rounds()
    leading = started(threads, rounds, lines[0])
    lines[1].near.close()
    closed = threads.submit(lambda: rounds.run(lines[1].steps()))
    with pytest.raises(ValueError, match="descriptor"):
        closed.result(LONG)
    lines[0].far.send(b"y")
    assert leading.result(LONG) == b"y"


@pytest.mark.parametrize("waits_for", ["nothing", "ever", "another's connection"])
def test_steps_that_wait_for_what_nobody_can_wait_for_end_with_an_error_of_their_own(
    lines: list[Line], threads: ThreadPoolExecutor, waits_for: str
) -> None:
    late = time.monotonic() + LONG
    said: dict[str, Any] = {
        "nothing": None,
        "ever": Waiting(lines[2].near.fileno(), select.POLLIN, None),  # type: ignore[arg-type]
        "another's connection": Waiting(lines[0].near.fileno(), select.POLLIN, late),
    }

    def strange() -> Steps[None]:
        yield said[waits_for]

    rounds = Rounds()
    running = [started(threads, rounds, line) for line in lines[:2]]
    with pytest.raises((AttributeError, TypeError, ValueError)):
        threads.submit(lambda: rounds.run(strange())).result(LONG)
    for line, one in zip(lines, running, strict=False):
        line.far.send(b"x")
        assert one.result(LONG) == b"x"


def test_a_leader_that_fails_by_itself_takes_nobody_with_it(
    lines: list[Line], threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = threading.Event()

    class Poll:
        def __init__(self) -> None:
            self.real = select_poll()
            self.register, self.unregister = self.real.register, self.real.unregister

        def poll(self, milliseconds: float) -> Any:
            if fails.is_set():
                fails.clear()
                raise MemoryError
            return self.real.poll(milliseconds)

    select_poll = select.poll
    monkeypatch.setattr(select, "poll", Poll)
    rounds = Rounds()
    monkeypatch.undo()
    leading, other = (started(threads, rounds, line) for line in lines[:2])
    fails.set()
    with pytest.raises(MemoryError):
        leading.result(LONG)
    again = started(threads, rounds, lines[0])
    for line, one in ((lines[1], other), (lines[0], again)):
        line.far.send(b"x")
        assert one.result(LONG) == b"x"


def test_a_wait_is_over_in_time_however_busy_the_others_are(
    lines: list[Line], threads: ThreadPoolExecutor
) -> None:
    rounds, enough = Rounds(), threading.Event()

    def busy(line: Line) -> Steps[None]:
        while not enough.is_set():  # always ready
            yield Waiting(line.near.fileno(), select.POLLOUT, time.monotonic() + LONG)

    leading = threads.submit(lambda: rounds.run(busy(lines[0])))
    late = started(threads, rounds, lines[1], seconds=0.05)
    assert late.result(LONG) == b""
    enough.set()
    leading.result(LONG)


def test_steps_may_change_what_they_wait_for(lines: list[Line], threads: ThreadPoolExecutor) -> None:
    def both_ways(line: Line) -> Steps[bytes]:
        yield Waiting(line.near.fileno(), select.POLLOUT, time.monotonic() + LONG)
        line.near.send(b"?")
        return (yield from line.steps())

    rounds = Rounds()
    running = threads.submit(lambda: rounds.run(both_ways(lines[0])))
    assert lines[0].far.recv(1) == b"?"
    lines[0].far.send(b"!")
    assert running.result(LONG) == b"!"


def test_very_many_threads_come_and_go_and_none_is_forgotten(threads: ThreadPoolExecutor) -> None:
    rounds = Rounds()

    def work(number: int) -> int:
        line = Line()
        line.far.send(b"x" * 5)
        with line.near, line.far:
            return sum(len(rounds.run(line.steps(octets=n % 3 + 1))) for n in range(2)) + number

    assert list(threads.map(work, range(500), timeout=LONG)) == [3 + number for number in range(500)]

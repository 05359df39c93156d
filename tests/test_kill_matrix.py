"""A worker is killed at every point of its work; a second one finishes; nothing is lost or miscounted.

The points are the moments before and after each commit, SMTP command, answer and journal line, as
a worker that was let live has reached them. Over one connection every sixth of each kind is struck,
beginning with another one for each signal and database, and three later where commands go in turn
instead of in a pipeline: so every point is met by each signal or, on SQLite, in turn, and each pair of signal
and database meets every kind of point. (What goes in turn is the dialogue, which knows no database.) Over
more connections it is the first, the middle or the last one of each kind, since their order is not always
the same; every other kind over four connections, the rest over ten.

MAILQUEUE_WHOLE_KILL_MATRIX=1 strikes at every point over one connection, in both ways on each database, and
at every kind of point over four and ten.
"""

from __future__ import annotations

import logging
import os
import queue
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import coverage
import pytest
from support.kill_figures import FIGURES
from support.kill_lane import Case, Lane, Verdict
from support.services import needs

DATABASES = ("sqlite", "postgres", "mariadb")
SIGNALS = ("KILL", "TERM", "STOP")
MESSAGES = {1: 8, 4: 14, 10: 20}  # by connections: enough that each has some
LEAST_POINTS = 60  # kinds of points that there are at least
WHOLE = os.environ.get("MAILQUEUE_WHOLE_KILL_MATRIX") == "1"
LANES = 2  # cases at a time

RANDOM_KILLS = 100
STREAM = 40  # messages waiting when a kill comes at random
LONGEST = 0.06  # seconds of full speed that these take, more or less

# Where the connection's last record is that the dot will follow, a kill leaves doubt; where it is an
# earlier or later one, it does not. (RSET follows answers of both kinds.)
DOUBTFUL = (
    *("after journal dot", "after journal answered and dot"),
    *("before dot", "after dot", "after answer to dot"),
)
CERTAIN = (
    *("before EHLO", "after answer to EHLO", "before MAIL", "after MAIL", "after answer to MAIL"),
    *("before RCPT", "after RCPT", "after answer to RCPT", "before DATA", "after DATA"),
    *("after answer to DATA", "before text", "after text", "before journal dot"),
    *("after journal answered", "before QUIT", "after QUIT", "after answer to QUIT"),
)


class Lanes:
    """Several lanes at work at once, each in a thread of its own."""

    def __init__(self, folder: Path):
        self._threads = [ThreadPoolExecutor(1) for _ in range(LANES)]
        self._lanes = [
            thread.submit(Lane, folder / str(number)).result() for number, thread in enumerate(self._threads)
        ]
        self._points: dict[tuple[str, int, bool], dict[str, int]] = {}

    def close(self) -> None:
        for thread, lane in zip(self._threads, self._lanes, strict=True):
            thread.submit(lane.close).result()
            thread.shutdown()

    def points(self, database: str, connections: int, pipelining: bool = True) -> dict[str, int]:
        """How often a worker reaches each kind of point when it is let live."""
        found = self._points.get((database, connections, pipelining))
        if not found:
            case = Case(database, connections, messages=MESSAGES[connections], pipelining=pipelining)
            found = self.reached(case)
            self._points[database, connections, pipelining] = found
        return found

    def reached(self, case: Case) -> dict[str, int]:
        """How often a worker reaches each kind of point in a case in which it is let live."""
        return self._threads[0].submit(self._lanes[0].points, case).result()

    def run(self, cases: list[Case]) -> list[Verdict]:
        """Run them all, in any order."""
        waiting: queue.SimpleQueue[Case] = queue.SimpleQueue()
        for case in cases:
            waiting.put(case)
        works = [
            thread.submit(lambda lane=lane: [lane.run(case) for case in _taken(waiting)])
            for thread, lane in zip(self._threads, self._lanes, strict=True)
        ]
        return [verdict for work in works for verdict in work.result()]


def _taken(waiting: queue.SimpleQueue[Case]) -> Iterator[Case]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return


@pytest.fixture(scope="module", autouse=True)
def uncounted() -> Iterator[None]:
    """No lines are counted here: other tests cover them, and thousands of cells would take twice as long."""
    stopped = []
    while counting := coverage.Coverage.current():  # in a process of pytest-xdist there are several
        counting.stop()
        stopped.append(counting)
    yield
    for counting in reversed(stopped):
        counting.start()


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    logger = logging.getLogger("mailqueue")
    logger.setLevel(logging.ERROR)  # that a worker is gone is no news here
    lanes = Lanes(tmp_path_factory.mktemp("kills"))
    yield lanes
    lanes.close()
    logger.setLevel(logging.NOTSET)


# Over more connections it depends on how the threads run which messages go out one behind the other.
SERIES = ("journal answered and dot", "answers in a series")


def turn(case: Case) -> int:
    """0, 1 or 2: another one for each signal on a database, and for each database under a signal."""
    return (DATABASES.index(case.database) + SIGNALS.index(case.signal) + case.connections) % 3


def labels(reached: dict[str, int], connections: int) -> list[str]:
    """The kinds of points that are struck over so many connections."""
    if WHOLE or connections == 1:
        return list(reached)
    return sorted(label for label in reached if not label.endswith(SERIES))[connections == 10 :: 2]


def occurrences(count: int, case: Case) -> list[int]:
    """Which occurrences of a point that is reached so often are struck in cases like this one."""
    if case.connections > 1:
        return [(1, (count + 1) // 2, count)[turn(case)]]
    first = 1 + turn(case) + 3 * (not case.pipelining)
    return list(range(1, count + 1) if WHOLE else range(first, count + 1, 6)) or [count]


def complaints(verdicts: list[Verdict]) -> str:
    found = "\n".join(str(verdict) for verdict in verdicts if verdict.complaints)
    print(found)  # in full, which the assertion does not show
    return found


def wrong_doubts(verdicts: list[Verdict]) -> str:
    """The cases over one connection in which there is doubt without reason, or none where it is due."""
    expected = {**dict.fromkeys(DOUBTFUL, 1), **dict.fromkeys(CERTAIN, 0)}
    return "\n".join(
        f"{verdict.case}: {verdict.doubts} in doubt"
        for verdict in verdicts
        if not verdict.held and verdict.doubts != expected.get(str(verdict.case.label), verdict.doubts)
    )


WAYS = [
    (database, connections, pipelining)
    for database in DATABASES
    for connections, pipelining in ((1, True), (1, False), (4, True), (10, True))
    if pipelining or WHOLE or database == "sqlite"
]


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(("database", "connections", "pipelining"), WAYS)
def test_struck_at_any_point_a_worker_leaves_nothing_lost_nothing_twice_nothing_miscounted(
    lanes: Lanes, database: str, connections: int, pipelining: bool, signal: str
) -> None:
    if database != "sqlite":
        needs(database)
    case = Case(database, connections, signal, messages=MESSAGES[connections], pipelining=pipelining)
    reached = lanes.points(database, connections, pipelining)
    assert len(reached) >= LEAST_POINTS
    cases = [
        replace(case, label=label, occurrence=occurrence)
        for label in labels(reached, connections)
        for occurrence in occurrences(reached[label], case)
    ]
    verdicts = lanes.run(cases)
    assert not complaints(verdicts)
    assert len(verdicts) == len(cases)
    if connections == 1 and signal != "TERM":
        assert not wrong_doubts(verdicts)


@pytest.mark.parametrize(("first_refuses", "signal"), [("rcpt", "KILL"), ("banner", "STOP")])
def test_struck_while_one_transport_passes_mail_on_to_the_next_a_worker_leaves_nothing_lost_nothing_twice(
    lanes: Lanes, first_refuses: str, signal: str
) -> None:
    case = Case("sqlite", 1, messages=MESSAGES[1], first_refuses=first_refuses)
    reached = lanes.reached(case)
    struck = sorted(reached)[:: 2 if first_refuses == "rcpt" else 4]
    cases = [
        replace(case, signal=signal, label=label, occurrence=(reached[label] + 1) // 2) for label in struck
    ]
    verdicts = lanes.run(cases)
    assert not complaints(verdicts)
    assert len(verdicts) == len(struck) >= LEAST_POINTS // 4


def random_case(rng: random.Random, lanes: Lanes, number: int) -> Case:
    """A kill of any kind: at a point of the work, or after some time at full speed."""
    database, connections = DATABASES[number % len(DATABASES)], rng.choice((1, 4, 10))
    signal = rng.choice(SIGNALS)
    if rng.random() < 0.5:
        return Case(database, connections, signal, seconds=rng.uniform(0, LONGEST), messages=STREAM)
    label, count = rng.choice(sorted(lanes.points(database, connections).items()))
    return Case(database, connections, signal, label, rng.randint(1, count), messages=STREAM)


def test_struck_at_random_at_full_speed_a_worker_leaves_one_message_a_connection_in_doubt_at_most(
    lanes: Lanes,
) -> None:
    for database in DATABASES[1:]:
        needs(database)
    FIGURES.seed = int(os.environ.get("MAILQUEUE_KILL_SEED") or random.randrange(10**9))
    print(f"MAILQUEUE_KILL_SEED={FIGURES.seed}")
    rng = random.Random(FIGURES.seed)
    verdicts = lanes.run([random_case(rng, lanes, number) for number in range(RANDOM_KILLS)])
    assert not complaints(verdicts)
    assert sum(verdict.struck for verdict in verdicts) == RANDOM_KILLS

"""A worker is killed at every point of its work; a second one finishes; nothing is lost or miscounted.

The points are the moments before and after each commit, SMTP command, answer and journal line, as
a worker that was let live has reached them. Over one connection a worker is struck at each of them,
over more at the first, the middle and the last one of each kind, since their order is not always
the same: each of these three with one signal on each database, so that every signal meets every
point, and every database too.
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
LANES = 3  # cases at a time

RANDOM_KILLS = 210
STREAM = 40  # messages waiting when a kill comes at random
LONGEST = 0.06  # seconds of full speed that these take, more or less

# Where the connection's last record is that the dot will follow, a kill leaves doubt; where it is an
# earlier or later one, it does not. (RSET follows answers of both kinds.)
DOUBTFUL = ("after journal dot", "before dot", "after dot", "after answer to dot")
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
        self._points: dict[tuple[str, int], dict[str, int]] = {}

    def close(self) -> None:
        for thread, lane in zip(self._threads, self._lanes, strict=True):
            thread.submit(lane.close).result()
            thread.shutdown()

    def points(self, database: str, connections: int) -> dict[str, int]:
        """How often a worker reaches each kind of point when it is let live."""
        found = self._points.get((database, connections))
        if not found:
            case = Case(database, connections, messages=MESSAGES[connections])
            found = self._threads[0].submit(self._lanes[0].points, case).result()
            self._points[database, connections] = found
        return found

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
    counting = coverage.Coverage.current()
    if counting:
        counting.stop()
    yield
    if counting:
        counting.start()


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    logger = logging.getLogger("mailqueue")
    logger.setLevel(logging.ERROR)  # that a worker is gone is no news here
    lanes = Lanes(tmp_path_factory.mktemp("kills"))
    yield lanes
    lanes.close()
    logger.setLevel(logging.NOTSET)


def occurrences(count: int, case: Case) -> list[int]:
    """Which occurrences of a point that is reached so often are struck in cases like this one."""
    if case.connections == 1:
        return list(range(1, count + 1))
    turn = DATABASES.index(case.database) + SIGNALS.index(case.signal) + case.connections
    return [(1, (count + 1) // 2, count)[turn % 3]]


def complaints(verdicts: list[Verdict]) -> str:
    return "\n".join(str(verdict) for verdict in verdicts if verdict.complaints)


def wrong_doubts(verdicts: list[Verdict]) -> str:
    """The cases over one connection in which there is doubt without reason, or none where it is due."""
    expected = {**dict.fromkeys(DOUBTFUL, 1), **dict.fromkeys(CERTAIN, 0)}
    return "\n".join(
        f"{verdict.case}: {verdict.doubts} in doubt"
        for verdict in verdicts
        if not verdict.held and verdict.doubts != expected.get(str(verdict.case.label), verdict.doubts)
    )


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("connections", [1, 4, 10])
@pytest.mark.parametrize("database", DATABASES)
def test_struck_at_any_point_a_worker_leaves_nothing_lost_nothing_twice_nothing_miscounted(
    lanes: Lanes, database: str, connections: int, signal: str
) -> None:
    if database != "sqlite":
        needs(database)
    case = Case(database, connections, signal, messages=MESSAGES[connections])
    cases = [
        replace(case, label=label, occurrence=occurrence)
        for label, count in lanes.points(database, connections).items()
        for occurrence in occurrences(count, case)
    ]
    verdicts = lanes.run(cases)
    assert not complaints(verdicts)
    assert len(verdicts) == len(cases) >= LEAST_POINTS
    if connections == 1 and signal != "TERM":
        assert not wrong_doubts(verdicts)


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

"""Several connections in one thread, for as long as none of them waits for long.

Threads that send at the same time take the interpreter from each other, and each wait for a server puts
one to sleep and wakes it again. So the first one takes the steps of all the others too: each in its turn,
when what it waits for has come. The others sleep until theirs are over.
"""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

LOOK_SECONDS = 0.005  # between two looks for threads that came by


class Waiting(NamedTuple):
    """What a step waits for.

    Attributes:
        descriptor: of a socket.
        events: for what it is to be ready, as select.poll takes it.
        until: after which it is not waited for any longer, on time.monotonic().
    """

    descriptor: int
    events: int
    until: float


_Result = TypeVar("_Result")
Steps: TypeAlias = Generator[Waiting, None, _Result]


class Rounds:
    """Where threads that send at the same time meet."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._is_led = False
        self._come: deque[_Course] = deque()  # which nobody has taken up yet
        # What follows is the leader's.
        self._poll = select.poll()
        self._courses: dict[int, _Course] = {}  # those that wait, by descriptor
        self._soonest = float("inf")  # when a wait may be over; never too late

    def run(self, steps: Steps[_Result]) -> _Result:
        """Take steps to their end, in this thread or in another one that does so already.

        Returns:
            What they return.

        Raises:
            BaseException: what they raise.
        """
        mine = _Course(steps)
        with self._guard:
            self._come.append(mine)
            leads, self._is_led = not self._is_led, True
        if leads or mine.is_to_lead():
            self._lead(mine)
        return mine.result()  # type: ignore[no-any-return]

    def _lead(self, mine: _Course) -> None:
        try:
            while not mine.is_over:
                for _ in range(len(self._come)):  # without the lock: whoever comes now is found the next time
                    self._take_step(self._newcomer())
                for course in self._ready():
                    self._take_step(course)
        except BaseException:
            self._forget(mine.waits_for)  # no step's fault; the others go on without this thread
            raise
        finally:
            self._hand_over()

    def _newcomer(self) -> _Course:
        with self._guard:
            return self._come.popleft()

    def _ready(self) -> list[_Course]:
        """Those that wait no longer; none if all do, and somebody may have come by."""
        if not self._courses:
            return []
        patience = min(self._soonest - time.monotonic(), LOOK_SECONDS)
        ready = [self._courses[descriptor] for descriptor, _ in self._poll.poll(max(patience, 0.0) * 1000)]
        if time.monotonic() >= self._soonest:
            ready += [course for course in self._late() if course not in ready]
        return ready

    def _late(self) -> list[_Course]:
        now = time.monotonic()
        untils = [course.waits_for.until for course in self._courses.values()]
        self._soonest = min((until for until in untils if until > now), default=float("inf"))
        return [course for course in self._courses.values() if course.waits_for.until <= now]

    def _take_step(self, course: _Course) -> None:
        before = course.waits_for
        course.step()
        try:
            self._watch(course, before)
        except Exception as error:  # noqa: BLE001 - it says what nobody can wait for: its socket is closed
            self._forget(before)
            course.fail(error)
        if course.is_over:
            course.wake()

    def _watch(self, course: _Course, before: Waiting) -> None:
        waits_for = course.waits_for
        self._soonest = min(self._soonest, waits_for.until)
        if before[:2] == waits_for[:2]:
            return
        self._forget(before)
        if course.is_over:
            return
        if waits_for.descriptor in self._courses:
            raise ValueError("another one waits for this connection")
        self._poll.register(waits_for.descriptor, waits_for.events)
        self._courses[waits_for.descriptor] = course

    def _forget(self, waited_for: Waiting) -> None:
        if self._courses.pop(waited_for.descriptor, None):
            self._poll.unregister(waited_for.descriptor)

    def _hand_over(self) -> None:
        with self._guard:
            left = [*self._courses.values(), *self._come]
            self._is_led = bool(left)
        if left:
            left[0].lead()


_NOTHING = Waiting(-1, 0, float("inf"))


class _Course:
    """The steps of one thread, and where they are.

    Attributes:
        waits_for: what the next step waits for; nothing before the first one and after the last.
    """

    def __init__(self, steps: Steps[Any]):
        self._steps = steps
        self._awake = threading.Event()
        self._is_leader = False
        self._result: Any = None
        self._error: BaseException | None = None
        self.is_over = False
        self.waits_for = _NOTHING

    def step(self) -> None:
        """Take the next step; whatever it raises is for the thread that it belongs to."""
        self.waits_for = _NOTHING
        try:
            self.waits_for = next(self._steps)
        except StopIteration as end:
            self._result, self.is_over = end.value, True
        except BaseException as error:  # noqa: BLE001 - result() raises it
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """It ends with this error."""
        self._error, self.is_over = error, True

    def lead(self) -> None:
        """From now on its own thread takes the steps of all."""
        self._is_leader = True
        self._awake.set()

    def wake(self) -> None:
        """Its own thread goes on."""
        self._awake.set()

    def is_to_lead(self) -> bool:
        """Sleep until it is over, or this thread is to lead."""
        self._awake.wait()
        return self._is_leader

    def result(self) -> Any:
        """What came of it."""
        if self._error is not None:
            raise self._error
        return self._result

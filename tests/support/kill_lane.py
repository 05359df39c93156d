"""A lane of the kill matrix: databases, a nursery and a mail server, for one case after the other."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mailqueue import QueuedMailer, database, leases, outbox, words
from mailqueue.journal import Journal
from mailqueue.outbox import Finished, Outcome
from mailqueue.tables import TABLES
from mailqueue.terms import terms

from . import kill_worker
from .kill_figures import FIGURES
from .kill_ledger import GREY, Dialogue, Ledger, account, addresses
from .kill_worker import STOPPED_FOR, Order
from .mail import START, Clock, make_mail, rows
from .services import fresh_database
from .smtp_server import EXTENSIONS, ScriptedServer
from .store import composed

ROUNDS = 12  # how often the second worker looks again
WAIT = 75.0  # seconds between two looks, enough for what is deferred once
SOONEST = 0.0001  # seconds after which a worker can be struck
PROMPTLY = 5.0  # seconds within which TERM ends a worker
FAULTS = ("the database fails", "cannot be worked on")  # what a worker survives, but must not meet here
# What makes the second worker give up at once where a stopped one holds a lock, and wait again as usual.
IMPATIENT = {
    database.SQLITE: ("PRAGMA busy_timeout=20", "PRAGMA busy_timeout=5000"),
    database.POSTGRES: ("SET lock_timeout=20", "SET lock_timeout=0"),
    database.MYSQL: ("SET innodb_lock_wait_timeout=0", "SET innodb_lock_wait_timeout=50"),
}


@dataclass(frozen=True)
class Case:
    """One kill.

    Args:
        database: "sqlite", "postgres" or "mariadb".
        connections: how many the worker may open.
        signal: "KILL", "TERM", "STOP", or "" for none.
        label, occurrence: the point at which it strikes.
        seconds: instead of that, how long after the worker's beginning.
        messages: how many are waiting.
        pipelining: whether the mail server offers it.
        first_refuses: the stage at which a mail server that is tried first refuses everybody; "": there
            is only one.
    """

    database: str
    connections: int
    signal: str = ""
    label: str | None = None
    occurrence: int = 0
    seconds: float | None = None
    messages: int = 8
    pipelining: bool = True
    first_refuses: str = ""

    def earlier(self) -> Case | None:
        """The same at an earlier moment; None: there is none."""
        if self.seconds is not None:
            return replace(self, seconds=self.seconds / 2) if self.seconds > SOONEST else None
        return replace(self, occurrence=self.occurrence // 2) if self.occurrence > 1 else None

    def __str__(self) -> str:
        where = f"{self.seconds:.4f} s" if self.seconds is not None else f"{self.label} #{self.occurrence}"
        way = "pipelining" if self.pipelining else "in turn"
        first = f", after one that refuses at {self.first_refuses}" if self.first_refuses else ""
        return f"{self.database}, {self.connections} connections, {way}{first}, {self.signal} at {where}"


@dataclass
class Verdict:
    """What came of a case.

    Attributes:
        struck: whether the worker was struck at all; otherwise nothing else is told.
        doubts: how many messages this worker left in doubt.
        repeated: how many recipients have a message twice because it was in doubt.
        held: whether the stopped worker held a lock, so that the second one had to wait for its end.
    """

    case: Case
    struck: bool = True
    complaints: list[str] = field(default_factory=list)
    lost: int = 0
    duplicates: int = 0
    miscounted: int = 0
    doubts: int = 0
    repeated: int = 0
    held: bool = False

    def __str__(self) -> str:
        return f"{self.case}: {'; '.join(self.complaints)}"


class Nursery:
    """The process that bears the workers; see kill_worker.

    Args:
        log: where the workers' errors go.
    """

    def __init__(self, log: Path):
        # Measuring would outlast many a worker.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, kill_worker.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                text=True,
            )

    def bear(self, order: Order) -> dict[str, Any]:
        """Have a worker live until it ends or is stopped; its fate."""
        return self._ask(asdict(order))

    def go_on(self) -> dict[str, Any]:
        """Continue the worker that is stopped; its fate."""
        return self._ask({"continue": True})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the nursery has died"
        fate: dict[str, Any] = json.loads(answer)
        return fate

    def close(self) -> None:
        """End it; there must be no worker any more."""
        self._process.communicate(timeout=30)


class Lane:
    """Runs cases one after the other; to be used from one thread, since pydal binds connections to it.

    Args:
        folder: a temporary one.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir()
        self._log = folder / "workers.log"
        self._nursery = Nursery(self._log)
        self._clock = Clock()
        self._open = contextlib.ExitStack()
        self._sites: dict[str, tuple[str, QueuedMailer]] = {}

    def close(self) -> None:
        """End the nursery and drop the databases."""
        self._nursery.close()
        for _, mail in self._sites.values():
            mail.db._adapter.close("rollback")
        self._open.close()

    def points(self, case: Case) -> dict[str, int]:
        """The points that a worker reaches which is let live, and how often."""
        told = self._folder / "points.json"
        with self._case(case, str(told)) as (mail, server, fate, _):
            assert (fate["code"], server.connections) == (0, case.connections), self._log.read_text()
            drain(mail, self._clock)
        found: dict[str, int] = json.loads(told.read_text(encoding="utf-8"))
        return found

    def run(self, case: Case) -> Verdict:
        """Kill a worker, have a second one finish, and give account.

        How often a point is reached depends on how the threads run: where it was not reached so
        often, or the work was done before its time, an earlier moment is taken.
        """
        verdict = self._try(case)
        while not verdict.struck and (earlier := case.earlier()):
            case = earlier
            verdict = self._try(case)
        if not verdict.struck:
            verdict.complaints.append("this point was never reached")
        FIGURES.add(verdict)
        return verdict

    def _try(self, case: Case) -> Verdict:
        with self._case(case) as (mail, server, fate, ledger):
            verdict = Verdict(case, struck=_was_struck(case, fate))
            if case.signal == "TERM":
                verdict.complaints += _unfinished(fate, ledger, mail, server)
            else:
                ledger.cut(server.connections)
            if case.signal == "STOP" and verdict.struck:
                verdict.held = not self._take_over(mail)
                ledger.struck_goes_on = True
                fate = self._nursery.go_on()
                wait_until(lambda: all_over(server))
                ledger.struck_goes_on = False
                self._clock.now = max(self._clock.now, START + STOPPED_FOR)
                verdict.complaints += _bad_end(fate)
            drain(mail, self._clock)
            wait_until(lambda: all_over(server))
            self._give_account(verdict, ledger, mail)
        return verdict

    @contextlib.contextmanager
    def _case(
        self, case: Case, points: str = ""
    ) -> Iterator[tuple[QueuedMailer, ScriptedServer, dict[str, Any], Ledger]]:
        """Messages, a server, and a worker that has met its fate."""
        uri, mail = self._site(case.database)
        self._clock.now = START
        os.truncate(self._log, 0)
        empty(mail)
        ledger = Ledger()
        for number in range(case.messages):
            enqueue(mail, number)
        mail.db.commit()
        leave_a_predecessor(mail, ledger)
        offered = EXTENSIONS if case.pipelining else tuple(set(EXTENSIONS) - {"PIPELINING"})
        with ScriptedServer(extensions=offered) as server, _first(case) as first_port:
            ledger.script(server)
            mail.settings.server = f"127.0.0.1:{server.port}"
            mail.settings.transports = kill_worker.transports(first_port, server.port)
            order = Order(
                uri=uri,
                folder=str(self._folder / case.database),
                port=server.port,
                connections=case.connections,
                signal=case.signal,
                label=case.label,
                occurrence=case.occurrence,
                seconds=case.seconds,
                points=points,
                first_port=first_port,
            )
            yield mail, server, self._nursery.bear(order), ledger

    def _site(self, kind: str) -> tuple[str, QueuedMailer]:
        if kind not in self._sites:
            folder = self._folder / kind
            folder.mkdir()
            uri = self._open.enter_context(fresh_database(kind, folder))
            self._sites[kind] = uri, make_mail(folder, uri=uri, clock=self._clock)
        return self._sites[kind]

    def _take_over(self, mail: QueuedMailer) -> bool:
        """Have the second worker finish while the first stands still. False: that one holds a lock."""
        hurry, wait = IMPATIENT[database.engine(mail.db)]
        mail.db.executesql(hurry)
        mail.db.commit()
        try:
            drain(mail, self._clock)
        except mail.db._adapter.driver.OperationalError:
            return False
        finally:
            mail.db.executesql(wait)
            mail.db.commit()
        return True

    def _give_account(self, verdict: Verdict, ledger: Ledger, mail: QueuedMailer) -> None:
        found = account(ledger, tables_of(mail), ended=True)
        verdict.complaints += found.complaints()
        verdict.complaints += [f"journal {path} is left" for path in os.listdir(mail.site.journals)]
        said = self._log.read_text(encoding="utf-8")
        verdict.complaints += [f"a worker said: {fault}" for fault in FAULTS if fault in said]
        verdict.lost, verdict.duplicates = len(found.lost), len(found.duplicates)
        verdict.miscounted, verdict.repeated = len(found.miscounted), len(found.repeated)
        verdict.doubts = len(found.in_doubt - {ledger.in_doubt_before})
        allowed = 0 if verdict.case.signal == "TERM" else verdict.case.connections
        if verdict.doubts > allowed:
            verdict.complaints.append(f"{verdict.doubts} in doubt")
        if verdict.complaints:
            verdict.complaints.append(said[-2000:])


# --- a case ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _first(case: Case) -> Iterator[int]:
    """The port of the mail server that is tried first and takes nothing; 0: there is none."""
    if not case.first_refuses:
        yield 0
        return
    with ScriptedServer() as server:
        server.script[case.first_refuses] = GREY
        yield server.port
        assert server.reached[case.first_refuses] and not server.messages


def empty(mail: QueuedMailer) -> None:
    """Take everything out of the tables, and the journals away."""
    for table in TABLES:
        mail.db.executesql(f"DELETE FROM {table}")
    mail.db.commit()
    for path in Path(mail.site.journals).glob("*"):
        path.unlink()


def enqueue(mail: QueuedMailer, number: int) -> None:
    wanted = terms(START, category="test")
    outbox.enqueue(mail.db, composed(*addresses(number)), wanted, now=START)


def leave_a_predecessor(mail: QueuedMailer, ledger: Ledger) -> None:
    """A worker that died before: one message answered and not written down, one in doubt."""
    left = Journal(mail.site.journals)
    worker = leases.register(
        mail.db, token=left.token, host_name=socket.gethostname(), pid=1, journal=left.path, now=START
    )
    answered, started = outbox.claim(mail.db, worker, limit=2, now=START)
    (ann,), (bob, dead) = answered.recipients, started.recipients
    left.dot(answered.id, [ann.id])
    sent = (Outcome(ann.id, words.SENT, code=250),)
    left.answered(Finished(answered.id, answered.token, "smtp://before", START, 0.1, sent))
    left.dot(started.id, [bob.id])
    left.abandon()
    ledger.dialogues += [
        Dialogue({ann.address: 250}, text=250, over=True),
        Dialogue({bob.address: 250, dead.address: 550}),
    ]
    ledger.in_doubt_before = started.id


def drain(mail: QueuedMailer, clock: Clock) -> None:
    """Be the second worker until nothing is left, as time goes by."""
    for _ in range(ROUNDS):
        mail.process_queue()
        if not rows(mail, "worker") and not any(row["due"] or row["claim"] for row in rows(mail, "message")):
            return
        clock.advance(WAIT)


def tables_of(mail: QueuedMailer) -> dict[str, list[dict[str, Any]]]:
    return {table: rows(mail, table) for table in ("message", "recipient", "attempt", "worker")}


def all_over(server: ScriptedServer) -> bool:
    """Whether all connections to the server are closed on its side too."""
    return all(session.socket.fileno() < 0 for session in server.sessions)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return as soon as it holds; fail after some seconds."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("waited in vain")


# --- what is wrong with it ---------------------------------------------------------------------


def _was_struck(case: Case, fate: dict[str, Any]) -> bool:
    ends = {"KILL": -9, "STOP": None}
    return bool(fate["struck"] and fate["code"] == ends.get(case.signal, fate["code"]))


def _bad_end(fate: dict[str, Any]) -> list[str]:
    return [] if fate["code"] == 0 else [f"the worker ended with {fate['code']}"]


def _unfinished(
    fate: dict[str, Any], ledger: Ledger, mail: QueuedMailer, server: ScriptedServer
) -> list[str]:
    """What a worker has left behind that was asked to end."""
    wait_until(lambda: all_over(server))
    found = account(ledger, tables_of(mail), ended=False)
    complaints = _bad_end(fate) + found.complaints()
    if fate["seconds"] > PROMPTLY:
        complaints.append(f"the worker took {fate['seconds']:.1f} s to end")
    if not all(one.over or one.announced or one.text is not None for one in ledger.dialogues[2:]):
        complaints.append("a dialogue was cut off")
    return [f"after TERM {complaint}" for complaint in complaints]

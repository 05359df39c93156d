"""Databases that fail for real: connections killed, locks held, a server that stops, a disk that is full."""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import pwd
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import database
from pydal import DAL

from .services import REQUIRED
from .smtp_server import free_port


def _skip(what: str, why: str) -> None:
    if REQUIRED:
        pytest.fail(f"{what} is required: {why}", pytrace=False)
    pytest.skip(f"{what}: {why}")


def until(condition: Callable[[], Any], patience: float = 20.0, every: float = 0.01) -> Any:
    """What `condition` says as soon as it is true; AssertionError after `patience` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(every)
    raise AssertionError(f"not within {patience} s")


# --- connections ---------------------------------------------------------------------------
class Other:
    """Another client of the same database, for this test only; close() ends it.

    Args:
        db: the DAL whose database it is.
    """

    def __init__(self, db: DAL):
        self.engine = database.engine(db)
        adapter = db._adapter
        arguments = {k: v for k, v in adapter.driver_args.items() if k != "timeout"}
        if self.engine == database.SQLITE:
            self.link: Any = sqlite3.connect(adapter.dbpath, timeout=10, check_same_thread=False)
            self.link.isolation_level = None
        else:
            self.link = adapter.driver.connect(**arguments)

    def run(self, statement: str, *values: Any) -> list[Any]:
        cursor = self.link.cursor()
        cursor.execute(statement, values)
        return list(cursor.fetchall()) if cursor.description else []

    def close(self) -> None:
        self.link.close()


def kill_connection(db: DAL) -> None:
    """Have the server end the connection of this thread, as a restart or an administrator does."""
    other = Other(db)
    try:
        if other.engine == database.POSTGRES:
            (own,) = db.executesql("SELECT pg_backend_pid()")[0]
            other.link.autocommit = True
            other.run("SELECT pg_terminate_backend(%s)", own)
            until(lambda: not other.run("SELECT 1 FROM pg_stat_activity WHERE pid = %s", own))
        else:
            (own,) = db.executesql("SELECT connection_id()")[0]
            other.run(f"KILL {own}")
            gone = "SELECT 1 FROM information_schema.processlist WHERE id = %s"
            until(lambda: not other.run(gone, own))
    finally:
        other.close()


def connections(db: DAL) -> int:
    """How many connections there are to the database of this DAL, besides the one that asks."""
    other = Other(db)
    try:
        if other.engine == database.POSTGRES:
            rows = other.run("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        else:
            asked = "SELECT count(*) FROM information_schema.processlist WHERE db = database()"
            rows = other.run(asked)
        return int(rows[0][0]) - 1
    finally:
        other.close()


class Quarrel:
    """Another client that makes a deadlock with this one, and wins it.

    It locks the message `later`; when somebody waits for that, it asks for the message `earlier`,
    which they hold. In a thread of its own, which ends when it has got both.
    """

    def __init__(self, db: DAL, earlier: int, later: int):
        self._other, self._earlier = Other(db), earlier
        if self._other.engine == database.POSTGRES:
            self._other.run("SET deadlock_timeout = '100s'")  # who looks first, loses
        else:
            self._other.run("CREATE TABLE weight (id INT PRIMARY KEY) ENGINE=InnoDB")
            self._other.run("BEGIN")
            numbers = ", ".join(f"({number})" for number in range(1000))
            self._other.run(f"INSERT INTO weight VALUES {numbers}")  # who has done less, loses
        self._lock(later)
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def _lock(self, message_id: int) -> None:
        self._other.run("UPDATE mailqueue_message SET byte_size = byte_size + 0 WHERE id = %s", message_id)
        self._other.run("SELECT id FROM mailqueue_message WHERE id = %s FOR UPDATE", message_id)

    def _go_on(self) -> None:
        until(self._is_waited_for, every=0.15)  # InnoDB shows nothing new to those who ask more often
        self._lock(self._earlier)
        self._other.link.rollback()

    def _is_waited_for(self) -> bool:
        if self._other.engine == database.POSTGRES:
            waiting = (
                "SELECT 1 FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        else:
            waiting = (
                "SELECT 1 FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND"
                " trx_mysql_thread_id IN"
                " (SELECT id FROM information_schema.processlist WHERE db = database())"
            )
        return bool(self._other.run(waiting))

    def end(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive(), "there was no quarrel"
        self._other.close()


# --- a PostgreSQL server of one's own ------------------------------------------------------
class Cluster:
    """A PostgreSQL server for one test, that may be stopped at any moment."""

    def __init__(self, folder: Path):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
        initdb = shutil.which("initdb")
        if not found and not initdb:
            _skip("a PostgreSQL server of one's own", "its programs are not installed")
        self._bin = found[-1] if found else os.path.dirname(str(initdb))
        self._data, self._port = folder / "data", free_port()
        folder.mkdir(parents=True)
        self._as_user: list[str] = []
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            try:
                pwd.getpwnam("postgres")
            except KeyError:
                _skip("a PostgreSQL server of one's own", "there is no user postgres to run it")
            shutil.chown(folder, "postgres")
            self._as_user = ["runuser", "-u", "postgres", "--"]
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync")
        self.uri = f"postgres://postgres@127.0.0.1:{self._port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_user, os.path.join(self._bin, program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self._data), "-w", *arguments)

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._control("-l", str(self._data / "log"), "-o", options, "start")

    def stop(self) -> None:
        """As a power cut does it."""
        self._control("-m", "immediate", "stop")


@contextlib.contextmanager
def private_postgres() -> Iterator[Cluster]:
    """A running PostgreSQL server of one's own; gone afterwards."""
    import tempfile

    # Not pytest's own folder: others may not enter it.
    with tempfile.TemporaryDirectory(prefix="mailqueue_pg_") as folder:
        os.chmod(folder, 0o755)
        cluster = Cluster(Path(folder) / "cluster")
        cluster.start()
        try:
            yield cluster
        finally:
            with contextlib.suppress(AssertionError):  # the test may have stopped it
                cluster.stop()


# --- a disk that is full -------------------------------------------------------------------
class SmallDisk:
    """A disk of its own, small enough to be filled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def fill(self) -> None:
        with (self.folder / "filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"\0" * 4096) == 4096:
                pass

    def free(self) -> None:
        (self.folder / "filler").unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[SmallDisk]:
    """A disk mounted on a new folder; only root may."""
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, f"size={size}".encode()) != 0:
        _skip("a small disk", f"it cannot be mounted: {os.strerror(ctypes.get_errno())}")
    try:
        yield SmallDisk(folder)
    finally:
        libc.umount2(str(folder).encode(), 2)  # MNT_DETACH

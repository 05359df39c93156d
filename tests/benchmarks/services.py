"""Starts and ends what the benchmark needs: SMTP sink, far networks, databases, a broker.

All of it is the benchmark's own, listens on 127.0.0.1 alone, and is ended by its process id.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lab
import psycopg2
import pymysql

_TICKS = os.sysconf("SC_CLK_TCK")
_COUNTS = re.compile(rb"sess=(\d+) quit=\d+ mesg=(\d+)")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until(ready: Callable[[], object], what: str, process: subprocess.Popen[Any]) -> None:
    """Wait for a service that was just started.

    Raises:
        lab.Missing: it does not come up.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ready()
            return
        except (OSError, psycopg2.Error, pymysql.Error):
            time.sleep(0.05)
    raise lab.Missing(f"{what} does not start (exit code {process.poll()})")


def _connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 1).close()


def cpu_seconds(pid: int) -> float:
    """User and system time of one process; 0 where it has ended."""
    numbers = _stat(pid)
    return sum(numbers[11:13]) / _TICKS if numbers else 0.0


def _stat(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    state, *numbers = text.rpartition(")")[2].split()
    return [0, *map(int, numbers)] if state else []


def end(process: subprocess.Popen[Any], number: int = signal.SIGTERM) -> None:
    """End a process that the benchmark started."""
    process.send_signal(number)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Sink:
    """Postfix's smtp-sink, which takes mail faster than anybody sends it.

    Args:
        folder: the benchmark's own.
        dump: a file that gets all messages; None: they are counted and forgotten.
    """

    def __init__(self, folder: Path, dump: Path | None = None):
        self.port = free_port()
        self.log = folder / f"sink-{self.port}.log"
        program, needed = lab.sink_command(folder)
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        dumping = ["-D", str(dump)] if dump else []
        command = [program, "-4", *user, "-c", "-m", "512", *dumping, f"127.0.0.1:{self.port}", "1024"]
        with self.log.open("wb") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **needed})
        self.pid = self._process.pid
        wait_until(lambda: _connect(self.port), f"smtp-sink, see {self.log},", self._process)

    def counts(self) -> tuple[int, int]:
        """Connections and messages so far."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 400))
            found = _COUNTS.findall(log.read())
        return (int(found[-1][0]), int(found[-1][1])) if found else (0, 0)

    def close(self) -> None:
        end(self._process)
        self.log.unlink()


class FarSink:
    """The way to a sink over a network with a round-trip time."""

    def __init__(self, sink: Sink, rtt_ms: int):
        self.port = free_port()
        command = [sys.executable, str(lab.HERE / "proxy.py"), str(self.port), str(sink.port), str(rtt_ms)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.readline()

    def close(self) -> None:
        end(self._process)


def _as_user(name: str) -> list[str]:
    """Database servers refuse to run as root."""
    if os.getuid():
        return []
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--clear-groups"]


def _own_folder(folder: Path, user: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if not os.getuid():
        shutil.chown(folder, user, user)


class Postgres:
    """A PostgreSQL cluster with the defaults of its package: fsync and synchronous_commit are on."""

    name = "postgres"

    def __init__(self, folder: Path):
        self._data, self.port = folder / "postgres", free_port()
        where = "/usr/lib/postgresql/*/bin"
        server = lab.program("postgres", "postgresql", where)
        initdb = lab.program("initdb", "postgresql", where)
        _own_folder(self._data, "postgres")
        make = ["-D", str(self._data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
        subprocess.run([*_as_user("postgres"), initdb, *make], check=True, stdout=subprocess.DEVNULL, cwd="/")
        serve = ["-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", ""]
        with (folder / "postgres.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*_as_user("postgres"), server, *serve], stdout=log, stderr=log, cwd="/"
            )
        wait_until(lambda: self.execute("SELECT 1"), f"PostgreSQL, see {log.name},", self._process)

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Execute a statement outside any transaction."""
        link = psycopg2.connect(host="127.0.0.1", port=self.port, user="bench", dbname=database)
        with contextlib.closing(link):
            link.autocommit = True
            link.cursor().execute(statement)

    def fresh(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.drop(name)
        self.execute(f"CREATE DATABASE {name}")
        return f"postgres://bench:x@127.0.0.1:{self.port}/{name}"

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def settle(self, name: str) -> None:
        """What the server does by itself some time after a database was filled."""
        self.execute("VACUUM ANALYZE", name)
        self.execute("CHECKPOINT", name)

    def cpu_seconds(self) -> float:
        """Of the whole cluster, processes that have ended included."""
        own = _stat(self._process.pid)
        ticks = sum(own[11:15]) if own else 0
        for entry in Path("/proc").iterdir():
            numbers = _stat(int(entry.name)) if entry.name.isdigit() else []
            if numbers and numbers[1] == self._process.pid:
                ticks += sum(numbers[11:13])
        return ticks / _TICKS

    def close(self) -> None:
        end(self._process, signal.SIGINT)
        shutil.rmtree(self._data)


class MariaDb:
    """A MariaDB server with the program's own defaults: a flush of its log at every commit."""

    name = "mariadb"

    def __init__(self, folder: Path):
        self._data, self.port = folder / "mariadb", free_port()
        server = lab.program("mariadbd", "mariadb-server")
        install = lab.program("mariadb-install-db", "mariadb-server")
        _own_folder(self._data, "mysql")
        own = [f"--datadir={self._data}", *([] if os.getuid() else ["--user=mysql"])]
        make = [install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", *own]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        where = [f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self._data}/socket"]
        with (folder / "mariadb.log").open("wb") as log:
            self._process = subprocess.Popen(
                [server, "--no-defaults", "--skip-name-resolve", *own, *where],
                stdout=log,
                stderr=log,
                cwd="/",
            )
        wait_until(lambda: self.execute("SELECT 1"), f"MariaDB, see {log.name},", self._process)

    def execute(self, statement: str) -> None:
        """Execute a statement."""
        with contextlib.closing(pymysql.connect(host="127.0.0.1", port=self.port, user="root")) as link:
            link.cursor().execute(statement)

    def fresh(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.drop(name)
        self.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        return f"mysql://root:@127.0.0.1:{self.port}/{name}?set_encoding=utf8mb4"

    def drop(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name}")

    def settle(self, name: str) -> None:
        """What the server does by itself some time after a database was filled."""
        for table in ("message", "content", "recipient", "attempt"):
            self.execute(f"ANALYZE TABLE {name}.mailqueue_{table}")

    def cpu_seconds(self) -> float:
        return cpu_seconds(self._process.pid)

    def close(self) -> None:
        end(self._process)
        shutil.rmtree(self._data)


class SqliteFiles:
    """SQLite: a file for each database.

    Args:
        wal: with a write-ahead log and synchronous=NORMAL, as sites are advised to; otherwise as
            SQLite is without any setting.
    """

    def __init__(self, folder: Path, *, wal: bool):
        self.name = "sqlite-wal" if wal else "sqlite"
        self._folder, self._suffix = folder / self.name, "?journal=wal" if wal else ""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()

    def fresh(self, name: str) -> str:
        """The URL of a new, empty database."""
        self.drop(name)
        (self._folder / name).mkdir()
        return f"sqlite://{self._folder / name / 'queue.db'}{self._suffix}"

    def drop(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)

    def settle(self, name: str) -> None:
        """SQLite does nothing by itself."""

    def cpu_seconds(self) -> float:
        return 0.0

    def close(self) -> None:
        shutil.rmtree(self._folder)


Database = SqliteFiles | Postgres | MariaDb

DATABASES: dict[str, Callable[[Path], Database]] = {
    "sqlite": functools.partial(SqliteFiles, wal=False),
    "sqlite-wal": functools.partial(SqliteFiles, wal=True),
    "postgres": Postgres,
    "mariadb": MariaDb,
}


class Redis:
    """A broker for Celery, which keeps nothing on disk."""

    def __init__(self, folder: Path):
        self.port = free_port()
        program = lab.program("redis-server", "redis-server")
        settings = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        command = [program, "--port", str(self.port), *settings]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(lambda: _connect(self.port), "redis-server", self._process)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def close(self) -> None:
        end(self._process)


class Spin:
    """A busy loop for each CPU that yields to everything else, but keeps a virtual CPU from halting.

    Where waking a halted one is dear, it makes figures at RTT 0 repeatable. It is not neutral: where
    waking is cheap it slows what waits for a disk or a database more than what does not.
    """

    def __init__(self) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-c", "while 1: pass"], preexec_fn=functools.partial(_idle, cpu)
            )
            for cpu in sorted(os.sched_getaffinity(0))
        ]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def _idle(cpu: int) -> None:
    os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))

"""Whose transaction is it: kinds of databases, connections, transactions and savepoints on the host's DAL.

pydal keeps one connection for each thread. A web framework opens it when a request begins and
commits or rolls back when the request ends; outside a request nobody does. Everything in this
file is about not doing the one thing where the other is right.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from pydal._globals import THREAD_LOCAL

from .errors import UnsupportedDatabase

SQLITE = "sqlite"
POSTGRES = "postgres"
MYSQL = "mysql"  # MariaDB too
SUPPORTED = (SQLITE, POSTGRES, MYSQL)

# A transaction that had to give way to another one: PostgreSQL's serialization_failure and
# deadlock_detected; MySQL's changed since last read, lock wait time-out and deadlock.
_MYSQL_DEADLOCK = 1213
_CONFLICTS = frozenset({"40001", "40P01", 1020, 1205, _MYSQL_DEADLOCK})

_numbers = itertools.count()


def engine(db: Any) -> str:
    """The kind of database behind a DAL: "sqlite", "postgres", "mysql", or pydal's own name."""
    return str(db._adapter.dbengine)


def check_supported(db: Any) -> None:
    """See that the database is one of those whose SQL is known here.

    Raises:
        UnsupportedDatabase: it is not.
    """
    if engine(db) not in SUPPORTED:
        raise UnsupportedDatabase(
            f"mailqueue does not work on this kind of database ({engine(db)}): it needs SQLite,"
            " PostgreSQL, MariaDB or MySQL. Give the mailer a DAL of its own on one of them."
        )


def is_mariadb(db: Any, since: tuple[int, int]) -> bool:
    """Whether the server says that it is MariaDB, of this version or a later one."""
    said = str(db._adapter.connection.get_server_info())  # such as 5.5.5-10.11.6-MariaDB-0+deb12u1
    found = re.search(r"(\d+)\.(\d+)\.\d+-MariaDB", said)
    return found is not None and (int(found[1]), int(found[2])) >= since


def folder_of(db: Any) -> str | None:
    """The folder of the DAL's table files and SQLite database, or None where it has none."""
    uri = str(db._adapter.uri or "")
    if uri.startswith("sqlite:///"):
        return os.path.dirname(uri[len("sqlite://") :])
    folder = db._adapter.folder
    return os.path.abspath(folder) if folder else None


def has_connection(db: Any) -> bool:
    """Whether this thread of this process has a connection to the database already."""
    return getattr(THREAD_LOCAL, db._adapter._connection_uname_, None) is not None


def cursor(db: Any) -> Any:
    """The cursor of this thread's transaction. Opens a connection where there is none yet, as pydal does."""
    found = getattr(THREAD_LOCAL, db._adapter._cursors_uname_, None)
    if found is None:
        db._adapter.get_connection()
        found = db._adapter.cursor
    return found


def in_transaction(db: Any) -> bool:
    """Whether this thread's connection has a transaction open (something to commit or roll back).

    Where that cannot be found out, a connection counts as an open transaction: joining one that
    is not there loses less than committing one that belongs to somebody else.
    """
    connection = getattr(THREAD_LOCAL, db._adapter._connection_uname_, None)
    if connection is None:
        return False
    if hasattr(connection, "in_transaction"):  # sqlite3
        return bool(connection.in_transaction)
    if hasattr(connection, "get_transaction_status"):  # psycopg2: 0 is TRANSACTION_STATUS_IDLE
        return bool(connection.get_transaction_status() != 0)
    if hasattr(connection, "server_status"):  # pymysql: SERVER_STATUS_IN_TRANS
        return bool(connection.server_status & 1)
    return engine(db) != MYSQL or _would_be_refused(connection, db._adapter.driver.Error)


def _would_be_refused(connection: Any, error: type[Exception]) -> bool:
    """What mysqlclient does not tell: while a transaction is open, MySQL refuses this (error 1568)."""
    try:
        with closing(connection.cursor()) as cursor:  # that of a dead connection cannot even be closed
            cursor.execute("SET TRANSACTION READ WRITE")
    except error:
        return True
    return False


def speak_four_bytes(db: Any) -> None:
    """Have every connection of a DAL to MySQL carry all of Unicode.

    pydal's own default is `utf8`, MySQL's name for three bytes of it: an emoji would arrive as
    question marks, in an address too.
    """
    if engine(db) != MYSQL:
        return
    before = db._adapter._after_connection

    def after_connection(adapter: Any) -> None:
        if callable(before):
            before(adapter)
        adapter.execute("SET NAMES utf8mb4")

    db._adapter._after_connection = after_connection
    if has_connection(db):
        db.executesql("SET NAMES utf8mb4")


def faults(db: Any) -> type[Exception]:
    """What the driver of a DAL raises when the database fails it; other modules' errors are no such."""
    error: type[Exception] = db._adapter.driver.Error
    return error


def is_conflict(error: Exception) -> bool:
    """Whether the transaction only had to give way to another one: undone, it can be tried again at once."""
    code = getattr(error, "pgcode", None) or next(iter(error.args), None)
    return code in _CONFLICTS


def has_undone_all(db: Any, error: Exception) -> bool:
    """Whether an error undid the whole transaction it happened in, not only its own statement.

    MySQL does so to the victim of a deadlock, SQLite where a disk is full: what the caller wrote
    before is gone too, and a commit would only seem to keep it.
    """
    if not isinstance(error, faults(db)):
        return False
    if engine(db) == MYSQL:
        return next(iter(error.args), None) == _MYSQL_DEADLOCK
    return not in_transaction(db)


def roll_back(db: Any) -> None:
    """Undo what this thread's transaction did, after an error; never hides that error by one of its own.

    A connection that cannot even do that is dropped, so that the next statement opens a fresh one.
    """
    if not has_connection(db):
        return
    try:
        db.rollback()
    except Exception:  # noqa: BLE001 - the error before this one is what matters
        _drop_connection(db)


def _drop_connection(db: Any) -> None:
    # Not pydal's close(): that offers the connection to the pool, and fails on one without a cursor.
    connection = getattr(THREAD_LOCAL, db._adapter._connection_uname_)
    db._adapter.set_connection(None)
    with suppress(Exception):  # the other side is gone already
        connection.close()


def begin(db: Any) -> None:
    """Begin a transaction of the worker's own, on what is committed now. Commits one that is open.

    On MySQL it goes on seeing what others commit, and locks no gaps between rows.
    """
    db.commit()
    begin_writing(db)
    if engine(db) == MYSQL:
        db.executesql("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")


def begin_writing(db: Any) -> None:
    """Have the transaction of this thread be one that writes, on SQLite; others begin by themselves.

    SQLite refuses those who first read and then write, if somebody else wrote in between.
    """
    if engine(db) == SQLITE and not in_transaction(db):
        db.executesql("BEGIN IMMEDIATE")


@contextmanager
def own_transaction(db: Any) -> Iterator[None]:
    """Run the block in a transaction of its own: committed at its end, rolled back on an exception.

    A thread that had no connection before has none after, so that no file handle, lock or open
    transaction stays behind. One that has died is dropped in any case.
    """
    borrowed = not has_connection(db)
    try:
        if borrowed:
            db.get_connection_from_pool_or_new()
        yield
        db.commit()
    except BaseException:
        roll_back(db)  # pydal leaves a connection in the thread even where it could not be opened
        raise
    finally:
        if borrowed:
            db.recycle_connection_in_pool_or_close("rollback")


@contextmanager
def savepoint(db: Any) -> Iterator[None]:
    """Run the block so that a failing statement in it does not spoil the transaction around it.

    PostgreSQL refuses every statement after a failed one until the transaction ends; with a
    savepoint only the block is undone.
    """
    if engine(db) == SQLITE and not in_transaction(db):
        db.executesql("BEGIN")  # sqlite3 opens none for SAVEPOINT, and RELEASE would then commit
    name = f"mailqueue_{next(_numbers)}"  # on MySQL one in another with the same name replaces it
    db.executesql(f"SAVEPOINT {name}")
    try:
        yield
    except BaseException:
        with suppress(faults(db)):  # the whole transaction may be gone, and the error says why
            db.executesql(f"ROLLBACK TO SAVEPOINT {name}")
            db.executesql(f"RELEASE SAVEPOINT {name}")
        raise
    db.executesql(f"RELEASE SAVEPOINT {name}")

"""SQL for many rows at once, past pydal, which has a statement for each; on every kind of database.

All in the caller's transaction. Statements are written with %s for each value, whatever the driver's
own sign is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from .database import MYSQL, POSTGRES, SQLITE, begin_writing, cursor, engine

Row = dict[str, Any]
Values = tuple[object, ...]

_VALUES_AT_ONCE = 3000  # in one statement,
_FEW_VALUES = 900  # but SQLite before 3.32 takes 999
_ROWS_AT_ONCE = 200  # in one statement that updates
IDS_AT_ONCE = 500  # in one condition

# MariaDB before 10.6 does not know it, and takes it for a comment: there it waits.
_PASS_OVER = {
    SQLITE: "",
    POSTGRES: "SKIP LOCKED",
    MYSQL: "/*!80001 SKIP LOCKED */ /*M!100600 SKIP LOCKED */",
}

# Of pydal's kinds of columns those that are no text to PostgreSQL.
_KINDS = {"id": "integer", "integer": "integer", "double": "double precision"}

_Item = TypeVar("_Item")


def change(db: Any, statement: str, *values: object) -> int:
    """Execute a statement that writes, in the caller's transaction.

    Args:
        statement: SQL with %s for each value, whatever the driver's own sign is.

    Returns:
        The number of rows it changed.
    """
    return int(_execute(db, statement, values).rowcount)


def fetch(db: Any, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows that a statement brings, in the caller's transaction.

    Args:
        statement: SQL with %s for each value, whatever the driver's own sign is.
    """
    return list(_execute(db, statement, values).fetchall())


def _execute(db: Any, statement: str, values: Sequence[object]) -> Any:
    """Execute as pydal does, which looks three times for its connection and cursor. Returns the cursor."""
    if engine(db) == SQLITE:
        statement = statement.replace("%s", "?")
    # What the host has hung into pydal, such as its timing of statements, is told as ever.
    handlers = [handler(db._adapter) for handler in db._adapter.execution_handlers]
    found = cursor(db)
    for handler in handlers:
        handler.before_execute(statement)
    found.execute(statement, values)
    for handler in handlers:
        handler.after_execute(statement)
    return found


def signs(values: Collection[object]) -> str:
    """A %s for each of these values, to stand in parentheses."""
    return ", ".join(["%s"] * len(values))


def portions(items: Sequence[_Item], size: int = IDS_AT_ONCE) -> Iterator[Sequence[_Item]]:
    """The items, so many at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def lock(
    db: Any, table: str, columns: Sequence[str], where: str, *values: object, index: str = "PRIMARY"
) -> list[Row]:
    """Read rows that nobody else can change until the caller's transaction ends.

    On SQLite nobody else can change anything from then on.

    Args:
        where: a condition, and ORDER BY and LIMIT if need be, with %s for each value.
        index: the one that finds the rows. MySQL would rather read the whole of a small table,
            and wait for rows that are not meant at all.
    """
    begin_writing(db)
    found = _read(db, table, columns, where, values, index, "FOR UPDATE")
    return [dict(zip(columns, row, strict=True)) for row in found]


def lock_free(
    db: Any, table: str, columns: Sequence[str], where: str, *values: object, index: str
) -> list[tuple[Any, ...]]:
    """Like lock(), but without the rows that somebody else has locked: it waits for nobody.

    Returns:
        The values of the columns, for each row.
    """
    begin_writing(db)
    return _read(db, table, columns, where, values, index, f"FOR UPDATE {_PASS_OVER[engine(db)]}")


def _read(
    db: Any,
    table: str,
    columns: Sequence[str],
    where: str,
    values: Sequence[object],
    index: str,
    locking: str,
) -> list[tuple[Any, ...]]:
    found = f"{table} FORCE INDEX ({index})" if engine(db) == MYSQL else table
    end = "" if engine(db) == SQLITE else locking
    return fetch(db, f"SELECT {', '.join(columns)} FROM {found} WHERE {where} {end}", *values)


def insert_one(db: Any, table: str, row: Mapping[str, object]) -> int:
    """Insert a row into a table that numbers its rows, in the caller's transaction.

    Returns:
        Its id.
    """
    statement = _insertion(table, tuple(row), 1)
    if engine(db) == POSTGRES:
        return int(fetch(db, f"{statement} RETURNING id", *row.values())[0][0])
    return int(_execute(db, statement, list(row.values())).lastrowid)


def insert(db: Any, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, in the caller's transaction.

    Args:
        rows: all with the same columns.
    """
    if not rows:
        return
    how = _insert_as_text if engine(db) == POSTGRES and len(rows) > 1 else _insert_listed
    for some in portions(rows, most_rows(db, len(rows[0]))):
        how(db, table, list(rows[0]), [tuple(row.values()) for row in some])


def _insert_listed(
    db: Any, table: str, columns: Sequence[str], rows: Sequence[Values], ending: str = ""
) -> None:
    statement = _insertion(table, tuple(columns), len(rows))
    change(db, f"{statement} {ending}", *chain.from_iterable(rows))


def _insert_as_text(db: Any, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
    source, texts = _as_text(db, table, columns, rows)
    change(db, f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {source}", *texts)


def _as_text(db: Any, table: str, columns: Sequence[str], rows: Sequence[Values]) -> tuple[str, list[str]]:
    """Rows as PostgreSQL takes many of them soonest: what stands behind FROM, and the values of its signs.

    Behind VALUES it would take each value for a piece of the statement, and plan it.
    """
    kinds = ", ".join(f"%s::{_KINDS.get(db[table][name].type, 'text')}[]" for name in columns)
    texts = [array(values) for values in zip(*rows, strict=True)]
    return f"unnest({kinds}) AS v ({', '.join(columns)})", texts


def array(values: Sequence[object]) -> str:
    """Numbers, texts or None as PostgreSQL reads an array of them."""
    if values and isinstance(values[0], (int, float)) and None not in values:
        return f"{{{','.join(map(str, values))}}}"
    return f"{{{','.join(map(_element, values))}}}"


def _element(value: object) -> str:
    if isinstance(value, str):
        if '"' in value or "\\" in value:
            value = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{value}"'
    return "NULL" if value is None else str(value)


@lru_cache(maxsize=64)
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    values = ", ".join([f"({signs(columns)})"] * rows)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {values}"


def most_rows(db: Any, columns: int) -> int:
    """How many rows with so many values each may stand in one statement."""
    return _most_values(db) // columns


def _most_values(db: Any) -> int:
    is_old = engine(db) == SQLITE and db._adapter.driver.sqlite_version_info < (3, 32)
    return _FEW_VALUES if is_old else _VALUES_AT_ONCE


def values_of(rows: Sequence[Values]) -> tuple[str, list[object]]:
    """What stands behind VALUES for rows, and the values of its signs."""
    return ", ".join([f"({signs(rows[0])})"] * len(rows)), list(chain.from_iterable(rows))


def put(db: Any, table: str, key: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Insert rows, or bring those that are there in line with them, in the caller's transaction.

    Args:
        key: the column that says which row is which; it is unique in the table.
        rows: all with the same columns.
    """
    if not rows:
        return
    columns = list(rows[0])
    sign = "VALUES({})" if engine(db) == MYSQL else "excluded.{}"
    known = "ON DUPLICATE KEY UPDATE" if engine(db) == MYSQL else f"ON CONFLICT ({key}) DO UPDATE SET"
    changes = ", ".join(f"{name} = {sign.format(name)}" for name in columns if name != key)
    for some in portions(rows, most_rows(db, len(columns))):
        _insert_listed(db, table, columns, [tuple(row.values()) for row in some], f"{known} {changes}")


def update(db: Any, table: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Give rows that are there these values, in the caller's transaction.

    Args:
        rows: all with the same columns, their `id` first.
    """
    if not rows:
        return
    _, *columns = rows[0]
    given = [(*values, own_id) for own_id, *values in (row.values() for row in rows)]
    how = {SQLITE: _update_here, POSTGRES: _update_from, MYSQL: _update_joined}[engine(db)]
    for some in portions(given, min(_ROWS_AT_ONCE, most_rows(db, len(rows[0])))):
        how(db, table, columns, some)


def _update_here(db: Any, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
    # A statement for each row would hand the interpreter over to another thread each time, and UPDATE FROM
    # leaves the way to a planner, who reads all of a table that he believes small. Here each id is looked up.
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    values, given = values_of(rows)
    there = f"SELECT * FROM (VALUES {values}) AS v WHERE v.column{len(rows[0])} IN (SELECT id FROM {table})"
    put_back = f"INSERT INTO {table} ({', '.join((*columns, 'id'))}) {there}"
    change(db, f"{put_back} ON CONFLICT (id) DO UPDATE SET {changes}", *given)


def _update_from(db: Any, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
    changes = ", ".join(f"{name} = v.{name}" for name in columns)
    source, texts = _as_text(db, table, (*columns, "id"), rows)
    change(db, f"UPDATE {table} SET {changes} FROM {source} WHERE {table}.id = v.id", *texts)


def _update_joined(db: Any, table: str, columns: Sequence[str], rows: Sequence[Values]) -> None:
    first = ", ".join(f"%s AS {name}" for name in (*columns, "id"))
    others = f" UNION ALL SELECT {signs(rows[0])}" * (len(rows) - 1)
    changes = ", ".join(f"t.{name} = v.{name}" for name in columns)
    # By the index: MySQL would rather read, and lock, the whole of a small table.
    joined = f"{table} AS t FORCE INDEX (PRIMARY) JOIN (SELECT {first}{others}) AS v ON t.id = v.id"
    change(db, f"UPDATE {joined} SET {changes}", *chain.from_iterable(rows))

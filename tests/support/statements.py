"""What a DAL executes: through pydal, and past it as mailqueue/sql.py does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mailqueue import sql
from mailqueue.database import SQLITE, engine
from pydal import DAL


def record_statements(
    db: DAL, monkeypatch: pytest.MonkeyPatch, note: Callable[[str, tuple[Any, ...]], None]
) -> None:
    """Have each statement of a DAL noted from now on, with the driver's signs, and its values."""
    execute, past_pydal = db._adapter.execute, sql._execute

    def executed(statement: str, *values: Any) -> Any:
        note(statement, values[0] if values else ())
        return execute(statement, *values)

    def executed_past_pydal(of: DAL, statement: str, values: Any) -> Any:
        if of is db:
            note(statement.replace("%s", "?") if engine(db) == SQLITE else statement, tuple(values))
        return past_pydal(of, statement, values)

    monkeypatch.setattr(db._adapter, "execute", executed)
    monkeypatch.setattr(sql, "_execute", executed_past_pydal)

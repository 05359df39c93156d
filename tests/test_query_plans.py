"""No page of the administrator's reads the whole history: what each database plans to do for its queries."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks import history
from mailqueue import bulk, finding, outbox, paging, queries, statistics
from mailqueue.selection import Selection, sharpened
from mailqueue.tables import ATTEMPT, MESSAGE, RECIPIENT
from pydal import DAL
from support.statements import record_statements
from support.store import open_dal

SIZE = 5000
LARGE = (MESSAGE, RECIPIENT, ATTEMPT)
DAY = time.strftime("%Y-%m-%d", time.localtime(time.time() - 40 * 86400))
SELECTIONS = [
    {},
    {"status": "sent"},
    {"status": "in_doubt"},
    {"address": history.PERSON},
    {"address": history.ARCHIVE, "status": "failed", "category": "rare"},
    {"search": history.PERSON},
    {"search": "order"},
    {"search": "nowhere", "status": "failed"},
    {"category": "rare"},
    {"transport": "smtp://old"},
    {"failure": "recipient"},
    {"error": "nowhere"},
    {"since": DAY, "until": DAY},
    {"since": DAY, "category": "rare", "status": "sent"},
    {"search": "order", "failure": "recipient", "error": "unknown", "transport": "smtp://a", "until": DAY},
]


@pytest.fixture
def db(db_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DAL]:
    """A history of some thousands, where a step looks at few of them: so the whole of it is dear."""
    monkeypatch.setattr(finding, "LOOKED_AT", 50)
    monkeypatch.setattr(queries, "MOST_LISTED", 50)
    monkeypatch.setattr(statistics, "MOST_ATTEMPTS", 50)
    db = open_dal(db_uri, tmp_path)
    history.fill(db, SIZE)
    for table in LARGE:
        db.executesql(f"ANALYZE {'TABLE ' if db._adapter.dbengine == 'mysql' else ''}{table}")
    db.commit()
    yield db
    db._adapter.close("rollback")


def pages(db: DAL) -> dict[str, Callable[[], object]]:
    """Each page, by what it asks the tables for."""
    now = time.time()
    asked: dict[str, Callable[[], object]] = {
        "overview": lambda: (statistics.counts(db, now), statistics.latencies(db), outbox.next_due(db)),
        "problems": lambda: (statistics.failures(db), queries.problems(db), queries.stoppages(db)),
        "tabs": lambda: queries.counts_up_to_a_bound(db),
        "message": lambda: queries.message(db, SIZE // 2),
        "held": lambda: queries.held_back(db, now),
    }
    for chosen in SELECTIONS:
        selection = Selection(**chosen)
        asked[f"list of {selection}"] = lambda s=selection: [  # type: ignore[misc]
            paging.page(db, sharpened(db, s), **place, size=10)
            for place in (
                {"before": None, "after": None},
                {"before": SIZE // 2, "after": None},
                {"before": None, "after": SIZE // 2},
            )
        ]
        asked[f"bulk of {selection}"] = lambda s=selection: bulk.count(db, "retry", s, SIZE)  # type: ignore[misc]
    return asked


def test_no_page_reads_the_whole_history(db: DAL, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, tuple[Any, ...]] = {}
    record_statements(db, monkeypatch, seen.setdefault)
    monkeypatch.setattr(paging, "PATIENCE", -1.0)
    monkeypatch.setattr(bulk, "COUNTING", -1.0)
    for page in pages(db).values():
        page()
    monkeypatch.undo()
    of_tables = {one: values for one, values in seen.items() if any(table in one for table in LARGE)}
    assert len(of_tables) > 30
    if db._adapter.dbengine == "postgres":
        # Tables as small as these it would rather read whole. What no index can do, it does so even then.
        db.executesql("SET enable_seqscan = off")
    for statement, values in of_tables.items():
        assert reads_all(db, statement, values) == [], statement


def reads_all(db: DAL, statement: str, values: tuple[Any, ...]) -> list[str]:
    """The steps of the plan for a statement that read all of a large table, or all of an index of one."""
    kind = db._adapter.dbengine
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgres": "EXPLAIN", "mysql": "EXPLAIN"}[kind]
    db._adapter.execute(f"{explain} {statement}", *([values] if values else []))
    names = [column[0] for column in db._adapter.cursor.description]
    plan = [dict(zip(names, row, strict=True)) for row in db._adapter.cursor.fetchall()]
    if kind == "sqlite":
        return [step["detail"] for step in plan if _scans_on_sqlite(step["detail"])]
    if kind == "postgres":
        lines = [str(step["QUERY PLAN"]) for step in plan]
        return [line for line in lines if "Seq Scan on mailqueue_" in line and _is_large(line)]
    return [str(step) for step in plan if step["type"] in ("ALL", "index") and _is_large(str(step["table"]))]


def _scans_on_sqlite(detail: str) -> bool:
    return detail.startswith("SCAN") and _is_large(detail)


def _is_large(text: str) -> bool:
    return any(table in text for table in LARGE)

"""One page of a list of messages, whose cost does not grow with the history."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import finding, paging, queries
from mailqueue.selection import Selection
from pydal import DAL
from support.store import open_dal, put


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


def turned(db: DAL, way: str, place: int | None, **chosen: str) -> tuple[list[list[int]], list[int | None]]:
    """The ids on each page, from a place to the end of a way, and where the pages lead back to."""
    found, back = [], []
    for _turn in range(20):
        at: dict[str, Any] = {"before": None, "after": None, way: place}
        page = paging.page(db, Selection(**chosen), **at, size=2)
        found.append([row["id"] for row in page.rows])
        place, other = (page.older, page.newer) if way == "before" else (page.newer, page.older)
        back.append(other)
        if place is None:
            return found, back
    raise AssertionError(f"there is no end: {found}")


def test_pages_go_to_the_oldest_message_and_back(db: DAL) -> None:
    one, two, three, four, five = (put(db) for _ in range(5))
    down, back = turned(db, "before", None)
    assert down == [[five, four], [three, two], [one]]
    assert back == [None, three, one]
    up, _ = turned(db, "after", one)
    assert up == [[three, two], [five, four]]
    assert turned(db, "before", None, search="nothing") == ([[]], [None])


def test_without_messages_there_is_one_page(db: DAL) -> None:
    assert turned(db, "before", None) == ([[]], [None])
    assert turned(db, "before", 77) == ([[]], [76])


def test_what_no_index_finds_is_looked_for_bit_by_bit(db: DAL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "LOOKED_AT", 3)
    monkeypatch.setattr(paging, "PATIENCE", -1.0)
    made = [put(db, category="rare" if number in (0, 1, 7) else "site") for number in range(10)]
    pages, _ = turned(db, "before", None, category="rare")
    assert pages[0] == [made[7]]
    assert [found for page in pages for found in page] == [made[7], made[1], made[0]]
    assert len(pages) <= 4
    pages, _ = turned(db, "after", made[0] - 1, category="rare")
    assert sorted(found for page in pages for found in page) == [made[0], made[1], made[7]]
    for search in ("search", "error"):
        assert len(turned(db, "before", None, **{search: "not there"})[0]) == 4
    assert turned(db, "before", None, address="not@there.test")[0] == [[]], "the index finds it"


def test_counts_of_pages_end_at_a_bound(db: DAL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MOST_LISTED", 2)
    assert set(queries.counts_up_to_a_bound(db).values()) == {0}
    for _ in range(5):
        put(db)
    assert queries.counts_up_to_a_bound(db)["queued"] == 3
    assert queries.counts(db)["queued"] == 5

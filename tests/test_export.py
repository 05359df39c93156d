"""Messages as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailqueue import export
from mailqueue.export import HEADS, as_csv
from mailqueue.selection import Selection
from pydal import DAL
from support.store import open_dal, put


@pytest.fixture
def db(tmp_path: Path) -> Iterator[DAL]:
    db = open_dal("sqlite://export.db", tmp_path)
    yield db
    db._adapter.close("rollback")


def lines(db: DAL, **chosen: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(db, Selection(**chosen)))))


def test_there_is_a_line_for_each_recipient_the_newest_message_first(db: DAL) -> None:
    put(db, "a@x.test", "b@x.test", subject='Grüße, "alle"')
    last = put(db, "c@x.test", category="news")
    found = lines(db)
    assert tuple(found[0]) == HEADS
    assert [line["address"] for line in found] == ["c@x.test", "a@x.test", "b@x.test"]
    assert found[1]["subject"] == 'Grüße, "alle"'
    assert [line["message"] for line in lines(db, category="news")] == [str(last)]


def test_a_message_whose_recipients_are_gone_is_there_too(db: DAL) -> None:
    put(db)
    db(db.mailqueue_recipient.id > 0).delete()
    (line,) = lines(db)
    assert (line["subject"], line["address"]) == ("hi", "")


@pytest.mark.parametrize("subject", ["=1+1", "+1", "-1", "@SUM(A1)"])
def test_no_cell_is_a_formula_to_a_spreadsheet(db: DAL, subject: str) -> None:
    put(db, subject=subject)
    (line,) = lines(db)
    assert line["subject"] == f"'{subject}"


def test_codes_are_hidden(db: DAL) -> None:
    put(db, subject="123456 is your code", category="auth")
    assert "123456" not in as_csv(db, Selection())


@pytest.mark.parametrize(("most", "told"), [(2, True), (3, False)])
def test_a_file_that_is_cut_says_so(db: DAL, monkeypatch: pytest.MonkeyPatch, most: int, told: bool) -> None:
    monkeypatch.setattr(export, "MOST", most)
    monkeypatch.setattr(export, "_AT_ONCE", 2)
    for number in range(3):
        put(db, f"r{number}@x.test")
    found = as_csv(db, Selection())
    assert ("only the newest" in found) is told
    assert found.count("@x.test") == most

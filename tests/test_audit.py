"""What administrators did."""

from __future__ import annotations

from pathlib import Path

from mailqueue import audit
from support.store import NOW, all_rows, open_dal


def test_an_action_is_recorded_in_the_callers_transaction(db_uri: str, tmp_path: Path) -> None:
    db = open_dal(db_uri, tmp_path)
    audit.record(db, "ann@x.test", audit.RETRY, NOW, 7)
    db.rollback()
    assert all_rows(db, "audit") == []
    audit.record(db, "ann@x.test", audit.CORRECT, NOW, 7, "a\0b → c")
    audit.record(db, "ann@x.test", audit.CANCEL, NOW + 1, 8)
    (row,) = audit.of_message(db, 7)
    assert (row["who"], row["action_name"], row["done_on"], row["detail"]) == (
        "ann@x.test",
        "correct",
        NOW,
        "ab → c",
    )
    db._adapter.close("rollback")


def test_what_is_older_than_any_record_of_a_message_is_dropped(db_uri: str, tmp_path: Path) -> None:
    db = open_dal(db_uri, tmp_path)
    audit.record(db, "ann@x.test", audit.RETRY, NOW, 1)
    audit.record(db, "ann@x.test", audit.RETRY, NOW + audit.KEPT, 2)
    assert len(all_rows(db, "audit")) == 2
    audit.record(db, "ann@x.test", audit.RETRY, NOW + audit.KEPT + 1, 3)
    assert [row["message_ref"] for row in all_rows(db, "audit")] == [2, 3]
    db._adapter.close("rollback")

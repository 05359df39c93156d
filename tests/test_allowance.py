"""How many mails somebody may cause, counted on every kind of database."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from mailqueue import allowance
from mailqueue.limits import Rate, read_rates
from mailqueue.tables import ALLOWANCE, define_tables
from py4web.core import DAL
from support.mail import START

FEW, MORE = Rate(2, 3600.0), Rate(3, 86400.0)


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Any:
    db = DAL(db_uri, folder=str(tmp_path), pool_size=0)
    define_tables(db)
    yield db
    db.close()


def counted(db: Any, who: str, now: float, *rates: Rate) -> Rate | None:
    exceeded = allowance.count(db, who, rates, now)
    db.commit()
    return exceeded


def test_a_window_begins_with_its_first_mail_and_ends(db: Any) -> None:
    assert [counted(db, "ann", START + number, FEW) for number in range(3)] == [None, None, FEW]
    assert counted(db, "bob", START, FEW) is None
    assert counted(db, "ann", START + 3599, FEW) == FEW
    assert counted(db, "ann", START + 3600, FEW) is None
    assert counted(db, "ann", START + 7199, FEW) is None
    assert counted(db, "ann", START + 7199.5, FEW) == FEW


def test_every_rate_holds(db: Any) -> None:
    found = [counted(db, "ann", START + hours * 3600, FEW, MORE) for hours in (0, 0, 0, 2, 2)]
    assert found == [None, None, FEW, MORE, MORE]
    assert counted(db, "ann", START + 86400, FEW, MORE) is None


def test_a_count_is_rolled_back_with_its_request(db: Any) -> None:
    allowance.count(db, "ann", [FEW], START)
    db.rollback()
    assert [counted(db, "ann", START, FEW) for _ in range(3)] == [None, None, FEW]


def test_requests_at_once_are_all_counted(db: Any, db_uri: str, tmp_path: Path) -> None:
    exceeded = []

    def ask() -> None:
        own = DAL(db_uri, folder=str(tmp_path), pool_size=0, migrate=False, driver_args=timeout(db_uri))
        define_tables(own)
        exceeded.append(allowance.count(own, "ann", [FEW], START))
        own.commit()
        own.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(str(rate) for rate in exceeded) == ["2/hour"] * 4 + ["None"] * 2


def timeout(db_uri: str) -> dict[str, int] | None:
    return {"timeout": 30} if db_uri.startswith("sqlite") else None


def test_who_is_counted_cannot_be_read_and_old_windows_go(db: Any) -> None:
    counted(db, "address ann@visitor.test", START, FEW)
    counted(db, "bob", START + 10, FEW)
    assert "ann" not in str(db(db[ALLOWANCE].id > 0).select())
    allowance.tidy(db, START + 3605)
    assert db(db[ALLOWANCE].id > 0).count() == 1


@pytest.mark.parametrize("text", ["", "5", "many/hour", "2 connections", "5/hour, 2 connections", 5, None])
def test_a_rate_that_makes_no_sense_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="mails_per_address is"):
        read_rates("mails_per_address", text)


def test_rates_are_read() -> None:
    assert read_rates("x", "2/hour, 3 per day") == (FEW, MORE)

"""The terms of a message: from the arguments of a send(), or a clear error."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta, timezone
from typing import Any

import pytest
from mailqueue import BadMessage
from mailqueue.terms import HOLD, Terms, terms

NOW = 1_800_000_000.0


def test_without_arguments_a_message_is_due_now_and_never_expires() -> None:
    assert terms(NOW) == Terms(due=NOW, dedupe_until=NOW + 86400)


@pytest.mark.parametrize(
    "moment",
    [
        NOW + 60,
        datetime.fromtimestamp(NOW + 60),
        datetime.fromtimestamp(NOW + 60, timezone.utc),
        datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=-9))),
    ],
)
def test_a_moment_may_be_a_number_or_a_datetime_of_any_zone(moment: Any) -> None:
    assert terms(NOW, send_at=moment).due == NOW + 60


def test_a_moment_in_the_past_is_now() -> None:
    assert terms(NOW, send_at=NOW - 1).due == NOW


@pytest.mark.parametrize("span", [3600, 3600.0, timedelta(hours=1)])
def test_the_time_until_it_expires_counts_from_when_it_may_go(span: Any) -> None:
    assert terms(NOW, expires_after=span).expires_on == NOW + 3600
    assert terms(NOW, expires_after=span, send_at=NOW + 60).expires_on == NOW + 3660


def test_a_key_holds_for_its_window() -> None:
    found = terms(NOW, dedupe="invoice-7", dedupe_window=timedelta(minutes=5), doubt=HOLD)
    assert (found.dedupe_until, found.doubt) == (NOW + 300, HOLD)
    assert found.dedupe == terms(NOW, dedupe="invoice-7").dedupe


def test_keys_that_a_database_takes_for_the_same_are_different() -> None:
    keys = ["Order-A", "order-a", "órder-a", "Order-A ", "😀", "😁", "a\0b", "a", "a\ud800", "x" * 150]
    assert len({terms(NOW, dedupe=key).dedupe for key in keys}) == len(keys)


def test_an_expiry_beyond_all_calendars_is_the_last_day_there_is() -> None:
    datetime.fromtimestamp(terms(NOW, expires_after=1e300).expires_on or 0)


NONSENSE = [
    ("priority", 3),
    ("priority", True),
    ("priority", None),
    ("doubt", "maybe"),
    ("send_at", "tomorrow"),
    ("send_at", math.nan),
    ("send_at", 1e300),
    ("send_at", NOW * 1000),
    ("send_at", True),
    ("send_at", "5"),
    ("expires_after", True),
    ("send_at", datetime.min),
    ("expires_after", 0),
    ("expires_after", timedelta(seconds=-1)),
    ("expires_after", "1h"),
    ("expires_after", math.inf),
    ("dedupe", ""),
    ("dedupe", "x" * 151),
    ("dedupe", 7),
    ("dedupe_window", 0),
]


def test_what_is_expected_is_told_once() -> None:
    with pytest.raises(BadMessage, match=r"^send_at: expected a datetime or epoch seconds, got date\.$"):
        terms(NOW, send_at=date(2026, 12, 1))  # type: ignore[arg-type]
    with pytest.raises(
        BadMessage, match=r"^expires_after: expected a timedelta or a number of seconds, got s"
    ):
        terms(NOW, expires_after="1h")  # type: ignore[arg-type]


@pytest.mark.parametrize(("argument", "value"), NONSENSE)
def test_what_makes_no_sense_is_refused_naming_the_argument(argument: str, value: Any) -> None:
    with pytest.raises(BadMessage, match=rf"^{argument}(?!.*{argument})"):
        terms(NOW, **{argument: value})

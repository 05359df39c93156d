"""Targets are judged by the medians of ratios within rounds, and nothing unmeasured meets one."""

from __future__ import annotations

import targets
from contenders import DJANGO_MAILER, OURS, RAW
from drains import Measured
from growth import Growth
from latency import Latency


def _rate(contender: str, turn: int, rate: float, database: str = "postgres", error: str = "") -> Measured:
    return Measured(contender, database, 0, turn, 100, rate=rate, error=error)


def _ratios(rows: list[Measured], other: str) -> tuple[float, ...]:
    return targets.ratios(rows, OURS, other, lambda row: row.rate, database="postgres", rtt=0)


def test_ratios_are_taken_within_a_round_and_not_between_medians() -> None:
    rows = [
        *(_rate(OURS, turn, rate) for turn, rate in enumerate((10, 200, 3000))),
        *(_rate(DJANGO_MAILER, turn, rate) for turn, rate in enumerate((5, 40, 1500))),
    ]
    (verdict,) = [verdict for verdict in targets.of_drains(rows) if verdict.what.endswith(DJANGO_MAILER)]
    assert verdict.values == (2.0, 5.0, 2.0)
    assert verdict.measured == 2.0  # the ratio of the medians would be 5


def test_one_without_a_database_is_compared_on_every_database() -> None:
    assert _ratios([_rate(OURS, 0, 300), _rate(RAW, 0, 100, "-")], RAW) == (3.0,)


def test_a_contender_is_not_compared_with_one_on_another_database() -> None:
    assert _ratios([_rate(OURS, 0, 300), _rate(DJANGO_MAILER, 0, 100, "sqlite")], DJANGO_MAILER) == ()


def test_a_round_in_which_one_of_the_two_failed_does_not_count() -> None:
    rows = [
        *(_rate(OURS, turn, 100) for turn in (0, 1)),
        _rate(DJANGO_MAILER, 0, 1, error="the sink got 99 messages of 100"),
        _rate(DJANGO_MAILER, 1, 50),
    ]
    assert _ratios(rows, DJANGO_MAILER) == (2.0,)


def test_a_target_that_was_not_measured_is_not_met() -> None:
    rows = [_rate(OURS, 0, 1e9)]
    assert [verdict.measured for verdict in targets.of_drains(rows)] == [None] * 4
    assert not any(verdict.met for verdict in targets.of_drains(rows))


def test_what_failed_to_be_measured_is_not_met_though_its_figures_are_zero() -> None:
    failed = [
        *targets.of_growth([Growth("sqlite", "history", (1, 2), error="no")]),
        *targets.of_latency([Latency("sqlite", error="no")]),
    ]
    assert len(failed) == 3
    assert not any(verdict.met for verdict in failed)


def test_a_bound_is_met_on_its_own_side_only() -> None:
    assert [verdict.met for verdict in targets.of_composing({"mailqueue": 0.3})] == [True]
    assert [verdict.met for verdict in targets.of_composing({"mailqueue": 0.31})] == [False]
    fast, slow = ([_rate(OURS, 0, rate), _rate(RAW, 0, 100, "-")] for rate in (250, 249))
    assert next(targets.of_drains(fast)).met
    assert not next(targets.of_drains(slow)).met

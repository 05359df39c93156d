"""Limits as a site writes them, the places of a window, and what replies teach: pure functions."""

from __future__ import annotations

from typing import Any

import pytest
from mailqueue import words
from mailqueue.classify import Failure, classify_reply
from mailqueue.lessons import FASTEST, LONGEST_REST, Lesson, Wish, learn, wish_in
from mailqueue.limits import (
    Limit,
    Rate,
    Window,
    domain_of,
    next_place,
    over_on,
    present,
    put_off,
    read_limits,
    share,
    take,
)

NOW = 1_800_000_000.0
TEN = Rate(10, 60.0)


# --- as a site writes them -------------------------------------------------------------------


def test_limits_are_read_as_they_are_written() -> None:
    limits = read_limits(
        {"*": "100/minute, 4 connections", "GMail.com": "20 per second", "bücher.de": "1/day, 1 connection"}
    )
    assert limits.transport == Limit()
    assert limits.of_domain("gmail.com") == Limit((Rate(20, 1.0),))
    assert limits.of_domain("xn--bcher-kva.de") == Limit((Rate(1, 86400.0),), 1)
    assert limits.of_domain("anything.test") == Limit((Rate(100, 60.0),), 4)
    assert str(limits.every_domain) == "100/minute, 4 connections"
    assert read_limits({"transport": "500/hour"}).transport == Limit((Rate(500, 3600.0),))
    assert not read_limits(None)


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ({"gmail.com": "20/fortnight"}, "gmail.com"),
        ({"gmail.com": "0/minute"}, "gmail.com"),
        ({"gmail.com": ""}, "gmail.com"),
        ({"gmail.com": 20}, "gmail.com"),
        ({"gmail.com": "20/minute; 3/hour"}, "gmail.com"),
        ({"not a domain": "20/minute"}, "not a domain"),
        ({"ann@gmail.com": "20/minute"}, "ann@gmail.com"),
        ({7: "20/minute"}, "7"),
        ({"gmail.com": "1/day", "GMAIL.com": "2/day"}, "twice"),
        ("20/minute", "20/minute"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_its_name(limits: Any, named: str) -> None:
    with pytest.raises(ValueError, match="limits") as refused:
        read_limits(limits)
    assert named in str(refused.value)


def test_the_domain_of_an_address_is_what_stands_behind_its_last_at() -> None:
    assert domain_of('"a@b"@X.Test') == "x.test"
    assert domain_of("damaged") == "damaged"


# --- places ----------------------------------------------------------------------------------


def places(messages: int, rate: Rate, window: Window | None = None, now: float = NOW) -> list[float]:
    """When each of so many messages has a place, all of them asked for now; seconds from now."""
    found, window = [], present(window, rate, now)
    for _ in range(messages):
        moment = next_place(window, rate, now)
        window = put_off(window) if moment > now else take(window)
        found.append(moment - now)
    return found


def test_a_line_is_spread_over_the_windows_to_come() -> None:
    assert places(25, TEN) == [0.0] * 10 + [60.0] * 10 + [120.0] * 5


def test_those_who_were_put_off_find_their_places_when_they_come_back() -> None:
    stored = Window(NOW, taken=10, line=15)
    later = present(stored, TEN, NOW + 61)
    assert later == Window(NOW + 60, 0, 5)
    assert places(11, TEN, stored, NOW + 61) == [0.0] * 10 + [59.0], "behind the five who still wait"
    assert present(stored, TEN, NOW + 200) == Window(NOW + 200), "nobody waits: the next message opens one"


def test_who_jumps_the_line_waits_for_the_next_window_only() -> None:
    window = Window(NOW, taken=10, line=1000)
    assert next_place(window, TEN, NOW) == NOW + 101 * 60
    assert next_place(window, TEN, NOW, jumps_line=True) == NOW + 60


def test_a_window_of_the_future_was_opened_by_a_wrong_clock_and_stops_nobody() -> None:
    assert places(3, TEN, Window(NOW + 7 * 86400, taken=10, line=500)) == [0.0] * 3


def test_a_window_matters_until_the_last_in_its_line_had_a_place() -> None:
    assert over_on(Window(NOW, 3, 0), TEN) == NOW + 60
    assert over_on(Window(NOW, 10, 11), TEN) == NOW + 180


@pytest.mark.parametrize(("whole", "workers"), [(1, 1), (4, 3), (2, 5), (10, 4)])
def test_the_shares_of_all_workers_are_the_whole(whole: int, workers: int) -> None:
    shares = [share(whole, workers, rank) for rank in range(workers)]
    assert sum(shares) == whole
    assert max(shares) - min(shares) <= 1


# --- what replies say ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "code", "text", "certain", "of_transport"),
    [
        ("rcpt", 421, "4.7.28 unusual rate of mail from you", True, False),
        ("dot", 421, "4.3.2 closing", True, False),
        ("mail", 421, "4.3.2 closing", True, True),
        ("rcpt", 450, "4.7.1 too many messages in this minute", True, True),
        ("rcpt", 451, "4.7.1 you are throttled", True, False),
        ("rcpt", 454, "4.3.0 later", True, False),
        ("dot", 452, "4.5.4 hourly sending quota used up", True, True),
        ("rcpt", 450, "4.2.0 busy", False, False),
        ("mail", 451, "4.3.0 no room", False, True),
    ],
)
def test_a_wish_for_less_mail_is_understood(
    stage: str, code: int, text: str, certain: bool, of_transport: bool
) -> None:
    wish = wish_in(classify_reply(stage, code, text))
    assert wish
    assert (wish.certain, wish.of_transport) == (certain, of_transport)
    assert wish.text == f"{code} {text}"


@pytest.mark.parametrize(
    ("stage", "code", "text"),
    [
        ("rcpt", 450, "4.2.0 greylisted, come back in 300 seconds"),
        ("rcpt", 451, "4.7.1 Greylisting in action"),
        ("rcpt", 452, "4.2.2 mailbox full"),
        ("rcpt", 452, "4.5.3 too many recipients"),
        ("rcpt", 550, "5.1.1 no such user"),
        ("banner", 421, "4.3.2 not now"),
    ],
)
def test_what_concerns_one_recipient_or_the_connection_is_no_wish(stage: str, code: int, text: str) -> None:
    assert wish_in(classify_reply(stage, code, text)) is None


def test_retry_after_is_a_wish_for_so_many_seconds() -> None:
    failure = Failure(words.TRANSIENT, words.DATA, "http-429", "slow down", 429, retry_after=17)
    wish = wish_in(failure)
    assert wish
    assert (wish.rest, wish.of_transport, wish.certain) == (17, True, True)
    for senseless in (-1.0, float("inf"), float("nan")):
        with pytest.raises(TypeError):
            Failure(words.TRANSIENT, words.DATA, "http-429", "slow down", retry_after=senseless)


# --- what is learned -------------------------------------------------------------------------

ASKED = Wish(False, True, None, "421 too fast")
REFUSED = Wish(False, False, None, "450 busy")


def test_a_wish_is_a_rest_and_then_a_slow_pace() -> None:
    lesson = learn(None, [ASKED], 5, NOW)
    assert lesson == Lesson(1, NOW + 60, 10, NOW + 60, reason="421 too fast")


def test_rests_double_up_to_an_hour_and_the_pace_halves_down_to_one() -> None:
    lesson, now, rests, paces = None, NOW, [], []
    for _ in range(9):
        lesson = learn(lesson, [ASKED], 0, now)
        assert lesson
        rests.append(lesson.rests_until - now)
        paces.append(lesson.pace)
        now = lesson.rests_until
    assert rests == [60, 120, 240, 480, 960, 1920, LONGEST_REST, LONGEST_REST, LONGEST_REST]
    assert paces == [10, 5, 2, 1, 1, 1, 1, 1, 1]


def test_answers_to_what_was_under_way_are_the_same_wish() -> None:
    lesson = learn(None, [ASKED], 0, NOW)
    assert learn(lesson, [ASKED, ASKED], 0, NOW + 1) == lesson
    assert learn(lesson, [], 3, NOW + 1) == lesson, "nor is it taken back by those that were accepted before"


def test_a_rest_is_as_long_as_it_was_asked_for_but_never_longer_than_an_hour() -> None:
    for asked, rest in ((17.0, 17.0), (900_000.0, LONGEST_REST)):
        lesson = learn(None, [Wish(True, True, asked, "429")], 0, NOW)
        assert lesson
        assert lesson.rests_until == NOW + rest


def test_each_minute_that_goes_well_doubles_the_pace_until_the_lesson_is_forgotten() -> None:
    lesson = learn(None, [ASKED], 0, NOW)
    assert lesson
    now, paces = lesson.rests_until, []
    while lesson := learn(lesson, [], 1, now):
        paces.append(lesson.pace)
        now += 30
    assert paces == [pace for step in range(7) for pace in (10 * 2**step,) * 2]
    assert paces[-1] == FASTEST


def test_refusals_come_to_a_wish_only_if_there_are_several_at_once_and_nobody_is_taken() -> None:
    two = learn(None, [REFUSED, REFUSED], 0, NOW)
    assert two
    assert two.strikes == 0
    assert learn(two, [REFUSED], 1, NOW + 1) is None, "somebody was taken"
    alone = learn(two, [REFUSED], 0, NOW + 61)
    assert alone
    assert (alone.strikes, alone.refusals) == (0, 1)
    third = learn(two, [REFUSED], 0, NOW + 59)
    assert third
    assert (third.strikes, third.reason) == (1, "450 busy")


def test_a_clock_that_was_set_back_makes_no_rest_longer_than_an_hour() -> None:
    assert Lesson(1, rests_until=NOW + 7 * 86400).rest_at(NOW) == NOW + LONGEST_REST

"""How much work lies ready for the connections."""

from __future__ import annotations

import pytest
from mailqueue.supply import (
    ABSENT_SECONDS,
    AHEAD_OCTETS,
    AHEAD_SECONDS,
    AT_ONCE,
    FOR_EACH,
    IN_HAND,
    MOST_BATCHES,
    SLOW,
    Supply,
)
from support.mail import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supply(clock: Clock) -> Supply:
    return Supply(clock)


def send(supply: Supply, clock: Clock, messages: int, seconds: float) -> None:
    """So many messages go out within this time."""
    for number in range(messages):
        supply.handed_out(number, 2000)
        supply.came_back(number)
    clock.advance(seconds)


@pytest.mark.parametrize("connections", [0, 1, 4])
def test_at_first_each_connection_has_messages_in_hand_and_as_many_ready(supply, connections):
    assert supply.lacking(connections) == FOR_EACH * max(connections, 1)


def test_what_is_handed_out_does_not_lack_any_more_until_it_comes_back(supply):
    for number in range(FOR_EACH):
        supply.handed_out(number, 2000)
    assert supply.lacking(1) == 0
    supply.came_back(0)
    assert supply.lacking(1) == 1


def test_more_is_handed_out_than_is_in_hand_as_soon_as_some_lies_ready(supply):
    for number in range(2 * IN_HAND):
        supply.handed_out(number, 2000)
    assert supply.is_deep(1) and not supply.is_deep(2)


def test_the_faster_they_go_out_the_more_lie_ready(supply, clock):
    send(supply, clock, 1000, 1.0)
    out = 0
    while lacking := supply.lacking(1):
        assert lacking <= AT_ONCE
        for _ in range(lacking):
            out += 1
            supply.handed_out(out, 2000)
    assert out == 1000 * AHEAD_SECONDS
    assert supply.is_deep(1)


def test_when_they_go_out_slowly_again_no_more_lie_ready_than_at_first(supply, clock):
    send(supply, clock, 1000, 1.0)
    assert supply.lacking(1) == AT_ONCE
    send(supply, clock, 1, 1.0)
    assert supply.lacking(1) == FOR_EACH
    assert not supply.is_deep(1)


def test_what_lies_ready_is_bounded_in_octets_too(supply, clock):
    send(supply, clock, 1000, 1.0)
    for number in range(FOR_EACH):
        supply.handed_out(number, AHEAD_OCTETS)
    assert supply.lacking(1) == 0
    assert supply.lacking(2) == FOR_EACH, "but no connection is left without"
    for number in range(FOR_EACH):
        supply.came_back(number)
    send(supply, clock, 1000, 1.0)
    assert supply.lacking(1) == AT_ONCE


def test_as_many_are_claimed_at_once_as_the_connections_have_to_do_meanwhile(supply):
    sizes = []
    for out in (0, 100, 101, 900, 5000):
        for number in range(out):
            supply.handed_out(number, 2000)
        sizes.append(supply.batch(100))
    assert sizes == [100, 100, 101, 900, 100 * MOST_BATCHES]


def test_a_server_is_slow_once_messages_usually_take_long(supply):
    assert not supply.is_server_slow
    for seconds in [SLOW / 5] * 50 + [SLOW * 5] + [SLOW / 5] * 50:  # once it hesitates
        supply.took(seconds)
        assert not supply.is_server_slow
    for _ in range(50):
        supply.took(SLOW * 5)
    assert supply.is_server_slow
    for _ in range(100):
        supply.took(SLOW / 5)
    assert not supply.is_server_slow


def test_a_far_server_is_a_slow_one_from_the_first_message(supply):
    supply.took(0.05)
    assert supply.is_server_slow


def test_a_server_that_lets_everybody_wait_is_slow(supply):
    supply.kept_waiting()
    assert supply.is_server_slow


def test_a_priority_that_there_was_no_mail_of_is_not_asked_for_a_moment(supply, clock):
    supply.found([1, 2, 3], {2})
    assert supply.to_ask_for([1, 2, 3, 4]) == [2, 4]
    clock.advance(ABSENT_SECONDS)
    assert supply.to_ask_for([1, 2, 3, 4]) == [1, 2, 3, 4]


def test_where_there_was_no_mail_at_all_every_priority_is_asked_for(supply):
    supply.found([1, 2, 3], {2})
    supply.found([2], set())
    assert supply.to_ask_for([1, 2, 3, 4]) == [1, 2, 3, 4]


def test_a_priority_that_there_was_mail_of_after_all_is_asked_for(supply):
    supply.found([1, 2, 3], {2})
    supply.found([1], {1})  # as urgent mail that overtakes
    assert supply.to_ask_for([1, 2, 3]) == [1, 2]


def test_something_is_always_asked_for(supply):
    supply.found([1, 2], {3})
    assert supply.to_ask_for([1, 2]) == [1, 2]

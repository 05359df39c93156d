from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mailqueue.classify import RULES, Failure
from mailqueue.retry import Decision, RetryPolicy, decide, delay_before
from mailqueue.words import (
    AUTH,
    CONFIGURATION,
    CONNECT,
    DEFERRED,
    DOT,
    FAILED,
    FAILURE_KINDS,
    IN_DOUBT,
    MAIL,
    MESSAGE,
    PENDING,
    QUEUED,
    RCPT,
    RECIPIENT,
    STAGES,
    TRANSIENT,
)

DAY = 86400.0
STEADY = RetryPolicy(jitter=0)


def fail(kind, stage=RCPT, rule="some-rule"):
    return Failure(kind, stage, rule, "no")


def decided(failure, attempts=1, age=0.0, **more):
    return decide(failure, attempts=attempts, age=age, policy=STEADY, rng=random.Random(1), **more)


# failure, attempts, age in seconds -> status, delay in seconds, counts
DECISIONS = [
    (fail(CONFIGURATION, AUTH), 1, 0.0, QUEUED, 60.0, False),
    (fail(CONFIGURATION, AUTH), 99, 99 * DAY, QUEUED, 60.0, False),
    (fail(RECIPIENT), 1, 0.0, FAILED, None, True),
    (fail(MESSAGE, DOT), 1, 0.0, FAILED, None, True),
    (fail(TRANSIENT), 1, 0.0, DEFERRED, 60.0, True),
    (fail(TRANSIENT), 2, 60.0, DEFERRED, 120.0, True),
    (fail(TRANSIENT), 5, 900.0, DEFERRED, 960.0, True),
    (fail(TRANSIENT), 50, 3.9 * DAY, DEFERRED, 4 * 3600.0, True),
    (fail(TRANSIENT), 2, 4 * DAY, FAILED, None, True),
    (fail(TRANSIENT, CONNECT), 3, 0.0, DEFERRED, 240.0, False),
    (fail(TRANSIENT, CONNECT), 3, 4 * DAY, FAILED, None, True),
    (fail(TRANSIENT, rule="greylisted"), 1, 0.0, DEFERRED, 300.0, True),
    (fail(TRANSIENT, rule="greylisted"), 3, 600.0, DEFERRED, 300.0, True),
    (fail(TRANSIENT, rule="greylisted"), 4, 900.0, DEFERRED, 480.0, True),
    (fail(TRANSIENT, rule="greylisted"), 9, 4 * DAY, FAILED, None, True),
    (fail(TRANSIENT, rule="mailbox-full"), 13, 0.0, DEFERRED, 4 * 3600.0, True),
    (fail(TRANSIENT, rule="mailbox-full"), 14, 0.0, FAILED, None, True),
    (fail(TRANSIENT, MAIL), 14, 0.0, DEFERRED, 4 * 3600.0, True),
    (fail(TRANSIENT, CONNECT, "unknown-exception"), 1, 0.0, DEFERRED, 60.0, True),
    (fail(TRANSIENT, CONNECT, "unknown-exception"), 14, 0.0, FAILED, None, True),
    (fail(TRANSIENT, rule="too-many-recipients"), 99, 99 * DAY, QUEUED, 0.0, False),
    (fail(IN_DOUBT, DOT), 1, 0.0, IN_DOUBT, 60.0, True),
    (fail(IN_DOUBT, DOT), 1, 4 * DAY, IN_DOUBT, None, True),
    (fail(IN_DOUBT, DOT, "no-reply-to-dot"), 3, 0.0, IN_DOUBT, 240.0, True),
    (fail(IN_DOUBT, DOT, "no-reply-to-dot"), 4, 0.0, IN_DOUBT, None, True),
]


@pytest.mark.parametrize(("failure", "attempts", "age", "status", "delay", "counts"), DECISIONS)
def test_a_failure_is_decided_as_the_table_says(failure, attempts, age, status, delay, counts):
    assert decided(failure, attempts, age) == Decision(status, delay, counts)


def test_doubt_is_held_where_the_policy_forbids_to_send_again():
    assert decided(fail(IN_DOUBT, DOT), resend_doubt=False) == Decision(IN_DOUBT, None, True)


def test_too_many_recipients_is_no_reason_to_go_on_at_once_if_none_was_taken():
    failure = fail(TRANSIENT, rule="too-many-recipients")
    assert decided(failure, split_helps=False) == Decision(DEFERRED, 60.0, True)
    assert decided(failure, age=4 * DAY, split_helps=False) == Decision(FAILED, None, True)


def test_the_bound_of_the_default_policy_is_about_one_day():
    rng = random.Random(1)
    waited = sum(delay_before(attempt, STEADY, rng) for attempt in range(1, STEADY.bounded_attempts))
    assert DAY <= waited <= 1.1 * DAY


def test_the_same_seed_gives_the_same_delays():
    policy = RetryPolicy()
    first, second = random.Random(7), random.Random(7)
    delays = [delay_before(attempt, policy, first) for attempt in range(1, 20)]
    assert delays == [delay_before(attempt, policy, second) for attempt in range(1, 20)]
    assert len(set(delays)) == len(delays)


def test_delays_do_not_overflow():
    assert delay_before(100_000, STEADY, random.Random(1)) == STEADY.longest_delay


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first_delay", 0), ("first_delay", float("nan")), ("factor", 0.5), ("factor", float("inf")),
        ("longest_delay", 59.0), ("jitter", -0.1), ("jitter", 1.0), ("give_up_after", 0),
        ("bounded_attempts", 0), ("hold", 0), ("hold", float("inf")),
        ("first_delay", "60"), ("first_delay", True), ("longest_delay", None), ("give_up_after", 10**400),
        ("give_up_after", -(10**400)), ("bounded_attempts", 1.5), ("bounded_attempts", "5"),
        ("doubt_attempts", True), ("doubt_attempts", None), ("doubt_attempts", float("nan")),
    ],
)  # fmt: skip
def test_a_senseless_policy_is_refused_by_the_name_of_its_value(name, value):
    with pytest.raises(ValueError, match=name):
        RetryPolicy(**{name: value})


policies = st.builds(
    lambda first, factor, more, jitter: RetryPolicy(
        first_delay=first, factor=factor, longest_delay=first + more, jitter=jitter
    ),
    st.floats(0.001, 1e6),
    st.floats(1, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 0.99),
)


@given(policy=policies, attempt=st.integers(1, 10_000), seed=st.integers())
def test_a_delay_stays_within_its_jitter(policy, attempt, seed):
    steady = RetryPolicy(policy.first_delay, policy.factor, policy.longest_delay, jitter=0)
    middle = delay_before(attempt, steady, random.Random(seed))
    delay = delay_before(attempt, policy, random.Random(seed))
    assert middle * (1 - policy.jitter) * 0.999 <= delay <= middle * (1 + policy.jitter) * 1.001
    assert delay > 0


@given(policy=policies, attempt=st.integers(1, 10_000))
def test_without_jitter_a_delay_is_never_shorter_than_the_one_before(policy, attempt):
    steady = RetryPolicy(policy.first_delay, policy.factor, policy.longest_delay, jitter=0)
    rng = random.Random(1)
    before, after = delay_before(attempt, steady, rng), delay_before(attempt + 1, steady, rng)
    assert steady.first_delay <= before <= after <= steady.longest_delay


@given(
    kind=st.sampled_from(FAILURE_KINDS),
    stage=st.sampled_from(STAGES),
    rule=st.sampled_from(sorted(RULES)),
    attempts=st.integers(1, 1000),
    age=st.floats(-DAY, 10 * DAY),
    resend=st.booleans(),
)
def test_only_what_may_be_tried_again_has_a_delay(kind, stage, rule, attempts, age, resend):
    decision = decided(fail(kind, stage, rule), attempts, age, resend_doubt=resend)
    if decision.status in (QUEUED, DEFERRED):
        assert decision.delay is not None
    if decision.delay is not None:
        assert decision.status in PENDING
    if kind == CONFIGURATION:
        assert decision == Decision(QUEUED, max(STEADY.hold, RULES[rule].least_delay), counts=False)


@pytest.mark.parametrize("jitter", [0.0, 0.2, 0.9])
def test_nobody_comes_back_before_it_makes_sense(jitter):
    policy, rng = RetryPolicy(jitter=jitter), random.Random(3)
    greylisted = fail(TRANSIENT, rule="greylisted")
    delays = [decide(greylisted, attempts=1, age=0.0, policy=policy, rng=rng).delay for _ in range(200)]
    assert min(delays) >= 300.0
    assert len(set(delays)) == 1 or jitter, "they do not all come back in the same second"


def test_a_site_that_is_in_a_hurry_waits_no_longer_than_it_wants():
    hasty = RetryPolicy(first_delay=1.0, longest_delay=10.0, jitter=0.0)
    greylisted = fail(TRANSIENT, rule="greylisted")
    assert decide(greylisted, attempts=1, age=0.0, policy=hasty, rng=random.Random(1)).delay == 10.0

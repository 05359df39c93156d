"""The words: statuses, their moves, and the status of a message from those of its recipients."""

from __future__ import annotations

import itertools

import pytest
from mailqueue import words

EVERY_SET = [
    frozenset(chosen)
    for size in range(1, len(words.RECIPIENT_STATUSES) + 1)
    for chosen in itertools.combinations(words.RECIPIENT_STATUSES, size)
]
ENDS = {words.SENT, words.FAILED, words.SUPPRESSED, words.CANCELLED, words.EXPIRED}


@pytest.mark.parametrize("status", words.RECIPIENT_STATUSES)
def test_a_message_to_one_has_its_recipients_status(status: str) -> None:
    expected = words.FAILED if status == words.SUPPRESSED else status
    assert words.summarize([status]) == expected


def test_every_set_of_recipient_statuses_makes_a_message_status_other_than_sending() -> None:
    assert len(EVERY_SET) == 255
    for statuses in EVERY_SET:
        assert words.summarize(statuses) in set(words.MESSAGE_STATUSES) - {words.SENDING}


def test_a_message_is_sent_only_if_every_recipient_is() -> None:
    for statuses in EVERY_SET:
        assert (words.summarize(statuses) == words.SENT) == (statuses == {words.SENT})


def test_a_message_is_pending_as_long_as_one_recipient_is() -> None:
    for statuses in EVERY_SET:
        assert (words.summarize(statuses) in words.PENDING) == bool(statuses & words.PENDING)


def test_what_is_to_be_done_comes_first_then_doubt_then_the_worst_end() -> None:
    for statuses in EVERY_SET:
        order = ["queued", "deferred", "in_doubt", "failed", "suppressed", "expired", "cancelled", "sent"]
        first = next(status for status in order if status in statuses)
        assert words.summarize(statuses) == first.replace("suppressed", "failed")


def test_how_often_and_in_which_order_a_status_occurs_does_not_matter() -> None:
    assert words.summarize(["sent", "failed", "sent"]) == words.summarize(["failed", "sent"]) == "failed"


@pytest.mark.parametrize("statuses", [[], ["sending"], ["sent", "lost"], [None]])
def test_no_status_and_an_unknown_one_are_refused(statuses: list[str]) -> None:
    with pytest.raises(ValueError, match="not the statuses"):
        words.summarize(statuses)


def test_every_recipient_status_has_its_moves_and_they_lead_to_recipient_statuses() -> None:
    assert set(words.RECIPIENT_MOVES) == set(words.RECIPIENT_STATUSES)
    for targets in words.RECIPIENT_MOVES.values():
        assert targets <= set(words.RECIPIENT_STATUSES)


def test_an_end_is_left_only_back_to_the_queue_and_sent_never() -> None:
    assert set(words.RECIPIENT_STATUSES) - words.PENDING == ENDS
    for status in ENDS:
        expected = set() if status == words.SENT else {words.QUEUED}
        assert words.RECIPIENT_MOVES[status] == expected


def test_what_is_pending_can_come_to_every_end_and_be_tried_again() -> None:
    for status in words.PENDING:
        missing = set(words.RECIPIENT_STATUSES) - words.RECIPIENT_MOVES[status]
        # Of what may have arrived it can no longer be said that it was not tried.
        assert missing == ({words.SUPPRESSED} if status == words.IN_DOUBT else set())


def test_every_word_fits_its_column() -> None:
    assert all(len(word) <= 16 for word in (*words.MESSAGE_STATUSES, *words.FAILURE_KINDS, *words.STAGES))
    assert len(set(words.STAGES)) == len(words.STAGES) and set(words.STAGES) > words.TRANSPORT_STAGES
    assert list(words.PRIORITIES) == sorted([words.INSTANT, words.URGENT, words.NORMAL, words.BULK])

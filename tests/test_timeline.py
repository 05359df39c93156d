"""The story of a message, and what happens next."""

from __future__ import annotations

from typing import Any

import pytest
from mailqueue import words
from mailqueue.timeline import Event, next_step, timeline


def attempt(number: int, started_on: float | None, transport: str | None = "smtp://s") -> dict[str, Any]:
    return {"id": number, "started_on": started_on, "transport": transport}


def message(**values: Any) -> dict[str, Any]:
    usual = {"created_on": 1.0, "finished_on": None, "status": words.QUEUED, "attempts_list": []}
    waiting = {"recipients_list": [], "due": None, "crashes": None, "failure_kind": None}
    return {**usual, **waiting, "has_content": True, "was_made": True, **values}


def held(due: float, held_by: str | None = "domain:x.test") -> dict[str, Any]:
    """A recipient that waits."""
    return {"due": due, "held_by": held_by}


def test_attempts_of_one_hand_over_are_one_event_and_everything_is_in_order() -> None:
    made = [attempt(3, 9.0), attempt(2, 5.0), attempt(1, 5.0)]
    action = {"done_on": 7.0, "action_name": "retry", "who": "ann@x.test", "detail": None}
    found = timeline(message(attempts_list=made, finished_on=9.5, status=words.SENT), [action])
    assert found == [
        Event(1.0, "Queued"),
        Event(5.0, "Attempt over smtp://s", attempts=(attempt(1, 5.0), attempt(2, 5.0))),
        Event(7.0, "Retried by ann@x.test"),
        Event(9.0, "Attempt over smtp://s", attempts=(attempt(3, 9.0),)),
        Event(9.5, "Sent to everybody"),
    ]


def test_damaged_rows_are_told_as_far_as_they_go() -> None:
    found = timeline(message(created_on=None, attempts_list=[attempt(1, None, None)], status=None), [])
    assert [event.title for event in found] == ["Queued", "Attempt"]
    assert next_step(message(status=None), False, 0.0) == ""


@pytest.mark.parametrize(
    ("values", "held_up", "told"),
    [
        ({"status": words.QUEUED, "due": 5.0}, False, "next to be sent"),
        ({"status": words.QUEUED, "due": 50.0}, False, "send_at"),
        ({"status": words.QUEUED, "due": 50.0}, True, "send_at"),
        ({"status": words.QUEUED, "due": 50.0, "crashes": 2}, False, "tried again by itself"),
        ({"status": words.QUEUED, "due": 50.0, "recipients_list": [held(50.0)]}, False, "has a place"),
        ({"status": words.QUEUED, "due": 5.0, "recipients_list": [held(5.0)]}, False, "next to be sent"),
        ({"status": words.QUEUED, "due": 50.0, "recipients_list": [held(50.0)]}, True, "held up"),
        (
            {"status": words.DEFERRED, "due": 40.0, "recipients_list": [held(50.0), held(40.0, None)]},
            False,
            "tried again by itself",
        ),
        ({"status": words.QUEUED, "due": 50.0, "failure_kind": words.CONFIGURATION}, False, "tried again"),
        ({"status": words.DEFERRED, "due": 50.0}, False, "tried again by itself"),
        ({"status": words.DEFERRED, "due": 50.0}, True, "once sending is no longer held up"),
        ({"status": words.IN_DOUBT, "due": 50.0}, False, "tried again by itself"),
        ({"status": words.IN_DOUBT}, False, "ask a recipient"),
        ({"status": words.FAILED}, False, "correct the address"),
        ({"status": words.FAILED, "has_content": False}, False, "cannot be sent again"),
        ({"status": words.FAILED, "has_content": False, "was_made": False}, False, "ask for it again"),
        ({"status": words.SENT, "has_content": False}, False, "spam folder"),
        ({"status": words.SENDING}, True, "within minutes"),
    ],
)
def test_what_happens_next_is_said(values: dict[str, Any], held_up: bool, told: str) -> None:
    assert told in next_step(message(**values), held_up, 10.0)

"""The site-admin log: one entry for each cause, on every database."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import classify, define_tables, problems, remedies, words
from mailqueue.classify import Failure
from mailqueue.database import own_transaction
from py4web.core import DAL

WAY = "smtp://mail.site.test:25"
REJECTED = Failure(words.CONFIGURATION, words.AUTH, "auth-rejected", "5.7.8 no", 535, "5.7.8")


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[Any]:
    db = DAL(db_uri, folder=str(tmp_path))
    define_tables(db)
    yield db
    db.close()


def entries(db: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        db(db.mailqueue_problem.id > 0).select(orderby=db.mailqueue_problem.id).as_list()
    )
    db.commit()
    return found


def test_a_cause_is_announced_once_and_then_counted(db: Any) -> None:
    with own_transaction(db):
        first = problems.report(db, REJECTED, WAY, 1.0)
        assert problems.report(db, REJECTED, WAY, 2.0) is None
    assert first is not None
    assert "rejects user name or password" in str(first)
    assert "535 5.7.8 no" in str(first)
    (entry,) = entries(db)
    assert (entry["seen"], entry["first_seen"], entry["last_seen"]) == (2, 1.0, 2.0)
    assert "SMTP_LOGIN" in entry["remedy"]


def test_the_same_fault_at_two_transports_is_two_causes(db: Any) -> None:
    with own_transaction(db):
        assert problems.report(db, REJECTED, WAY, 1.0)
        assert problems.report(db, REJECTED, "smtp://other:25", 1.0)
    assert len(entries(db)) == 2


def test_a_resolved_cause_that_comes_back_is_a_new_entry(db: Any) -> None:
    with own_transaction(db):
        problems.report(db, REJECTED, WAY, 1.0)
        problems.resolve_way(db, WAY, 5.0)
        assert not problems.any_open(db)
        assert problems.report(db, REJECTED, WAY, 9.0)
    assert [(e["status"], e["resolved_on"]) for e in entries(db)] == [("resolved", 5.0), ("open", None)]


def test_workers_that_meet_the_same_fault_at_once_make_one_entry(db: Any) -> None:
    start = threading.Barrier(4)
    announced: list[Any] = []

    def meet() -> None:
        start.wait(10)
        with own_transaction(db):
            announced.append(problems.report(db, REJECTED, WAY, 1.0))

    threads = [threading.Thread(target=meet) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [entry["seen"] for entry in entries(db)] == [4]
    assert len([problem for problem in announced if problem]) == 1


def test_an_entry_goes_with_the_transaction_around_it(db: Any) -> None:
    with pytest.raises(RuntimeError), own_transaction(db):
        problems.report(db, REJECTED, WAY, 1.0)
        raise RuntimeError
    assert entries(db) == []


def test_an_open_way_resolves_what_was_said_of_the_way_only(db: Any) -> None:
    held = Failure(words.CONFIGURATION, words.RCPT, "relay-denied", "no")
    with own_transaction(db):
        problems.report(db, REJECTED, WAY, 1.0)
        problems.report(db, held, WAY, 1.0)
        problems.resolve_way(db, WAY, 2.0)
    assert [(e["stage"], e["status"]) for e in entries(db)] == [("auth", "resolved"), ("rcpt", "open")]


def test_what_no_message_waits_for_is_resolved_and_the_rest_stays(db: Any) -> None:
    unknown = Failure(words.TRANSIENT, words.MAIL, "unknown-exception", "boom")
    held = Failure(words.CONFIGURATION, words.RCPT, "relay-denied", "no")
    with own_transaction(db):
        problems.report(db, unknown, WAY, 1.0)
        problems.report(db, held, WAY, 1.0)
        problems.resolve_unless(db, WAY, {words.TRANSIENT}, 2.0)
    assert [e["status"] for e in entries(db)] == ["open", "resolved"]


def test_a_way_that_is_no_longer_configured_is_no_longer_a_problem(db: Any) -> None:
    with own_transaction(db):
        problems.report(db, REJECTED, WAY, 1.0)
        problems.resolve_others(db, ["smtp://new:25"], 2.0)
    assert [e["status"] for e in entries(db)] == ["resolved"]


def test_emoji_in_a_servers_words_survive(db: Any) -> None:
    with own_transaction(db):
        problems.report(db, Failure(words.CONFIGURATION, words.AUTH, "auth-rejected", "nö 🙅"), WAY, 1.0)
    assert entries(db)[0]["detail"] == "nö 🙅"


@pytest.mark.parametrize(
    "rule", sorted(name for name, rule in classify.RULES.items() if rule.kind == words.CONFIGURATION)
)
def test_every_configuration_fault_has_words_and_a_remedy_of_its_own(rule: str) -> None:
    failure = Failure(words.CONFIGURATION, words.CONNECT, rule, "said")
    summary, remedy = remedies.advice(failure)
    assert summary != remedies.advice(Failure(words.CONFIGURATION, words.CONNECT, "?", "said")).summary
    assert remedy.endswith("once this is repaired.")


def test_a_refused_recipient_is_not_said_to_go_out_by_itself() -> None:
    failure = Failure(words.RECIPIENT, words.RCPT, "unknown-address", "no such user")
    assert "goes out by itself" not in remedies.advice(failure).remedy


@pytest.mark.parametrize("rule", sorted({*classify.RULES, *remedies._ADVICE}))
def test_no_remedy_says_where_the_reason_stands(rule: str) -> None:
    """It is beneath the remedy on a page, and before it in a log and on a terminal."""
    kind = classify.RULES[rule].kind if rule in classify.RULES else words.MESSAGE
    told = remedies.advice(Failure(kind, words.RCPT, rule, "said"))
    assert not {"below", "above"} & set(re.findall(r"\w+", f"{told.summary} {told.remedy}"))


@pytest.mark.parametrize(
    ("place", "said"), [("", "the mail waits"), ("transports=", "no other transport takes")]
)
def test_where_another_transport_may_take_the_mail_it_is_not_said_to_wait(place: str, said: str) -> None:
    failure = Failure(words.CONFIGURATION, words.AUTH, "auth-rejected", "no")
    remedy = remedies.advice(failure, WAY, place).remedy
    assert said in remedy and remedy.endswith("goes out by itself once this is repaired.")
    assert (
        remedies.without_waiting(remedy)
        == remedies.advice(failure, WAY, place).remedy.partition(" Nothing")[0]
    )

"""Which messages somebody asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailqueue import bulk, queries, words
from mailqueue.compose import parse_address
from mailqueue.selection import Selection, id_at, sharpened
from pydal import DAL
from support.store import NOW, claim, end, finish, finished, open_dal, put

DAY = 86400.0


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


def ids(db: DAL, **chosen: str) -> list[int]:
    return [row["id"] for row in queries.messages(db, **chosen)]  # type: ignore[arg-type]


def day(moment: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(moment))


def test_what_makes_no_sense_in_a_url_is_ignored() -> None:
    asked = {
        "status": "nonsense",
        "failure": "'",
        "since": "2026-02-30",
        "until": "yesterday",
        "search": "  \0ann\r\n ",
        "address": "x" * 3000,
        "category": "",
        "before": "7",
    }
    assert Selection.of(asked) == Selection(search="ann", address="x" * 200)
    assert str(Selection.of(asked)).startswith("search: ann, address: xxx")
    assert str(Selection()) == "all messages"


def test_what_makes_no_sense_is_named_since_without_it_more_is_meant() -> None:
    asked = {"status": "FAILED", "since": "2026-13-01", "statuss": "failed", "search": "ann", "below": "7"}
    assert Selection.misread(asked, ["below"]) == ["status=FAILED", "since=2026-13-01", "statuss=failed"]
    assert Selection.misread({"status": "failed", "search": "", "address": " ann@x.test "}) == []


def test_of_an_address_nothing_is_found_that_cannot_be(db: DAL) -> None:
    number = put(db, "ann@x.test")
    assert ids(db, address="ann@x.test", status="queued") == [number]
    assert ids(db, address="ann@x.test", status="sent", failure="recipient") == []
    of_ann = Selection(address="ann@x.test", status="queued")
    counts = {verb: bulk.count(db, verb, of_ann, number + 1).number for verb in bulk.VERBS}
    assert counts == {"retry": 0, "cancel": 1, "delete": 0}


def test_a_key_that_is_hidden_is_not_found_out_bit_by_bit(db: DAL) -> None:
    code = put(db, "ann@x.test", subject="483920 is your code", category="auth")
    link = put(db, "bob@x.test", subject="Reset https://x.test/reset?token=9f86d081884c7d659a2f")
    assert ids(db, search="is your") == [code] and ids(db, search="reset?token") == [link]
    for guess in ("4", "48392", "483920 is", "token=9", "9f86d081884c7d659a2f"):
        assert ids(db, search=guess) == []
        assert ids(db, search=guess, address="ann@x.test") == []
    assert ids(db, search="bob@") == [link]


def test_a_selection_is_the_url_it_came_from() -> None:
    asked = {"status": "failed", "failure": "recipient", "since": "2026-11-28", "error": "5.1.1"}
    assert Selection.of(asked).query() == asked


def test_messages_are_found_by_whatever_is_known_of_them(db: DAL) -> None:
    plain = put(db, "ann@x.test", category="site")
    both = put(db, "bob@x.test", "Ann@X.test", category="news")
    assert ids(db, category="news") == [both]
    assert ids(db, address="ann@x.test") == ([both, plain] if "mysql" in db._uri else [plain])
    assert ids(db, address="Ann@X.test") == [both, plain]
    assert ids(db, address="ann@x") == []
    failed = end(db, words.FAILED, kind=words.RECIPIENT)
    assert ids(db, failure=words.RECIPIENT) == [failed]
    assert ids(db, transport="smtp://s") == [failed]
    assert ids(db, category="news", search="bob", status="sending") == [both]
    assert ids(db, category="news", address="nobody@x.test") == []


@pytest.mark.parametrize(
    "typed",
    ["jörg@bücher.example", "g@bücher.ex", "@BÜCHER", "bücher", "xn--bcher", "<jörg@bücher.example>"],
)
def test_an_address_of_any_alphabet_is_found_as_it_is_written(db: DAL, typed: str) -> None:
    wanted = put(db, parse_address("jörg@bücher.example").spec)
    put(db, "ann@x.test")
    assert ids(db, search=typed) == [wanted]
    sharp = sharpened(db, Selection(search=typed))
    assert ids(db, **sharp.query()) == [wanted]
    assert (sharp.address is not None) == ("jörg@bücher.example" in typed), "an index finds a whole address"


@pytest.mark.parametrize(
    "copied",
    ["<a+b@x.test>", "Ann <a+b@x.test>", '"Ann, A." <A+b@X.test>', "mailto:a%2Bb@x.test?subject=hi"],
)
def test_an_address_is_found_as_a_mail_client_copies_it(db: DAL, copied: str) -> None:
    wanted = put(db, "a+b@x.test")
    put(db, "b@x.test")
    assert ids(db, search=copied) == [wanted]
    sharp = sharpened(db, Selection(search=copied))
    assert ids(db, **sharp.query()) == [wanted]
    assert (sharp.address is not None) == (" " not in copied), "an index finds it, unless it may be a subject"
    if "A+b" not in copied:
        assert ids(db, address=copied) == [wanted]


def test_a_subject_that_ends_in_an_address_is_found(db: DAL) -> None:
    put(db, "ann@x.test")
    subject = "New ticket from Ann <ann@x.test>"
    wanted = put(db, "support@x.test", subject=subject)
    assert wanted in ids(db, **sharpened(db, Selection(search=subject)).query())


@pytest.mark.parametrize("text", ["mailto:", "mailto:[x", "mailto:%00", "<>", ">", "a>", "für <x>", "ü@"])
def test_what_looks_like_an_address_and_is_none_is_looked_for_as_it_stands(db: DAL, text: str) -> None:
    wanted = put(db, subject=f"Re: {text}!")
    put(db)
    assert ids(db, search=text) == [wanted]


def test_an_error_is_found_by_part_of_it(db: DAL) -> None:
    message_id = put(db)
    (claimed,) = claim(db)
    refused = {"failure_kind": words.RECIPIENT, "code": 550, "reply": "5.1.1 no such 100% user"}
    outcome = finished(claimed).outcomes[0]
    finish(db, finished(claimed, type(outcome)(outcome.recipient_id, words.FAILED, **refused)))
    put(db)
    assert ids(db, error="NO SUCH") == [message_id]
    assert ids(db, error="100%") == [message_id]
    assert ids(db, error="550 5.1.1 no") == ids(db, error="550") == [message_id]
    assert ids(db, error="%1.1%") == []


def test_days_are_those_of_the_server_and_both_are_included(db: DAL) -> None:
    made = [put(db, now=NOW + number * DAY) for number in range(5)]
    assert ids(db, since=day(NOW + DAY), until=day(NOW + 2 * DAY)) == [made[2], made[1]]
    assert ids(db, since=day(NOW + 4 * DAY)) == [made[4]]
    assert ids(db, until=day(NOW)) == [made[0]]
    assert ids(db, since=day(NOW + 9 * DAY)) == []


def test_the_place_of_a_time_is_found_with_gaps_and_without_messages(db: DAL) -> None:
    assert id_at(db, NOW) == 0 or id_at(db, NOW) == 1
    made = [put(db, now=NOW + number) for number in range(20)]
    for gone in made[3:9]:
        db(db.mailqueue_message.id == gone).delete()
    left = [*made[:3], *made[9:]]
    for number, moment in enumerate([NOW - 1, NOW + 2, NOW + 5.5, NOW + 9, NOW + 18.5, NOW + 99]):
        place = id_at(db, moment)
        expected = [one for one in left if NOW + made.index(one) >= moment]
        assert [one for one in left if one >= place] == expected, number

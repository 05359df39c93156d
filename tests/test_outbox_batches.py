"""The outbox works on many messages at once: few statements, none of which reads what is over."""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mailqueue import database, outbox, sql, words
from mailqueue.ledger import Ledger
from mailqueue.limits import Limit, Rate
from mailqueue.outbox import HeldBack, Outcome
from mailqueue.tables import ATTEMPT, CONTENT, MESSAGE, RECIPIENT, columns, lengths
from mailqueue.terms import terms
from pydal import DAL
from support.database_faults import Other
from support.mail import make_mail
from support.services import fresh_database
from support.statements import record_statements
from support.store import (
    KEEP,
    MIME,
    NOW,
    all_rows,
    claim,
    composed,
    finish,
    finished,
    message,
    open_dal,
    put,
    snapshot,
    worker,
)


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


class Statements:
    """What a DAL executes from now on: SQL with the driver's signs, and the values."""

    def __init__(self, db: DAL, monkeypatch: pytest.MonkeyPatch):
        self.made: list[tuple[str, Any]] = []
        record_statements(db, monkeypatch, lambda *one: self.made.append(one))

    def of(self, work: Any) -> list[str]:
        """Those that `work` makes."""
        before = len(self.made)
        work()
        return [statement for statement, _ in self.made[before:]]


# --- how many statements ---------------------------------------------------------------------


def test_sixty_messages_take_as_many_statements_as_two(db: DAL, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, statements, counts = worker(db), Statements(db, monkeypatch), []
    for number in (2, 60):
        for _ in range(number):
            put(db, "a@x.test", "b@x.test")
        claims: list[Any] = []
        made = statements.of(lambda: claims.extend(claim(db, mine)))  # noqa: B023
        made += statements.of(lambda: outbox.contents(db, claims))  # noqa: B023
        assert len(claims) == number
        outbox.release(db, claims[:1], NOW)
        made += statements.of(lambda: finish(db, *map(finished, claims[1:])))  # noqa: B023
        counts.append(len(made))
        finish(db, *map(finished, claim(db, mine)))
    assert counts[1] - counts[0] <= 1, "attempts have many values: they may take a further statement"
    assert counts[0] < 25
    assert {row["status"] for row in all_rows(db, "message")} == {"sent"}


def test_a_message_is_queued_with_few_statements_and_the_workers_are_told_in_one_of_them(
    db: DAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Statements(db, monkeypatch).of(lambda: put(db, *(f"r{number}@x.test" for number in range(20))))
    if database.engine(db) == database.POSTGRES:
        assert len(made) == 1
        assert made[0].count("pg_notify") == 1
    else:
        assert [statement.split()[2] for statement in made] == [MESSAGE, CONTENT, RECIPIENT]


@pytest.mark.parametrize("send", ["queue", "retry"])
def test_a_mail_and_a_retry_make_one_call_each_when_they_are_committed(
    tmp_path: Path, send: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fresh_database("postgres", tmp_path) as uri:
        mail = make_mail(tmp_path, uri=uri)
        other = Other(mail.db)
        other.link.autocommit = True
        other.run("LISTEN mailqueue")
        mail.db.executesql("SELECT 1")  # a request that goes on
        made = Statements(mail.db, monkeypatch).of(
            (lambda: mail.send("ann@x.test")) if send == "queue" else (lambda: mail.wake())
        )
        assert len([statement for statement in made if "notify" in statement.lower()]) == 1
        assert calls(other) == 0, "before the commit"
        mail.db.commit()
        assert calls(other) == 1
        other.close()
        mail.db._adapter.close("rollback")


def calls(other: Other) -> int:
    select.select([other.link], [], [], 0.5)
    other.link.poll()
    number = len(other.link.notifies)
    other.link.notifies.clear()
    return number


def test_more_recipients_and_text_than_fit_into_one_statement_are_all_there_in_order(db: DAL) -> None:
    many = [f"r{number}@x.test" for number in range(1234)]
    mime = b"x" * (2 * outbox.texts.CHUNK + 5)
    message_id = put(db, *many, mime=mime)
    assert [row["address"] for row in all_rows(db, "recipient")] == many
    assert {row["message_ref"] for row in all_rows(db, "recipient")} == {message_id}
    assert outbox.content(db, message_id) == mime


# --- what is read ----------------------------------------------------------------------------

HISTORY = 30_000  # PostgreSQL finds it cheaper to read the whole of a small table


def add_history(db: DAL) -> None:
    """Messages that were sent long ago: copies of one."""
    finish(db, finished(claim(db)[0]))
    have = 1
    while have < HISTORY:
        for table in (MESSAGE, CONTENT, RECIPIENT, ATTEMPT):
            names = columns()[table]
            moved = {"message_ref": f"message_ref + {have}", "recipient_ref": f"recipient_ref + {have}"}
            values = ", ".join(moved.get(name, name) for name in names)
            db.executesql(
                f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} ORDER BY id"
            )
        have *= 2
    db.commit()


EXPLAIN = {"sqlite": "EXPLAIN QUERY PLAN ", "postgres": "EXPLAIN ", "mysql": "EXPLAIN "}
ANALYZE = {"sqlite": "ANALYZE", "postgres": "ANALYZE", "mysql": f"ANALYZE TABLE {MESSAGE}, {RECIPIENT}"}


def scans(db: DAL, statement: str, values: Any) -> list[str]:
    """The lines of its plan that read a whole table of those that grow."""
    plan = sql.fetch(db, EXPLAIN[database.engine(db)] + statement.replace("?", "%s"), *values)
    lines = [" ".join(map(str, line)) for line in plan]
    if (
        database.engine(db) == database.MYSQL
    ):  # number, kind, table, how, possible keys, key, ..., rows, extra
        return [
            line
            for line, (_, _, table, how, *_, rows, _) in zip(lines, plan, strict=True)
            if how in ("ALL", "index") and not str(table).startswith("<") and int(rows) > HISTORY // 10
        ]
    whole = re.compile(r"(SCAN|Seq Scan on) (m|r|mailqueue_(?!worker|dedupe|window)\w+)\b(?! USING)")
    return [line for line in lines if whole.search(line)]


def stand_in_line(db: DAL, name: str) -> None:
    """Two more than have a place; how long that line is, is asked the next time."""
    bounds = {name: (Limit((Rate(1, 60.0),)), None)}
    for _ in range(2):
        book = Ledger(db, bounds, NOW)
        book.take(name)
        book.put_off(name)
        book.store()


@pytest.mark.parametrize("analysed", [False, True])
def test_no_step_reads_what_is_over(db: DAL, analysed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if database.engine(db) == database.POSTGRES and not analysed:
        pytest.skip("PostgreSQL analyses by itself")
    put(db, expires_after=9)
    add_history(db)
    ids = [put(db, "a@x.test", "b@x.test", expires_after=999) for _ in range(30)]
    if analysed:
        db.executesql(ANALYZE[database.engine(db)])
    db.commit()
    mine, statements = worker(db), Statements(db, monkeypatch)
    claims = claim(db, mine, limit=20)
    assert len(claims) == 20
    outbox.contents(db, claims)
    outbox.release(db, claims[:3], NOW)
    outbox.hold_back(db, [HeldBack(claims[3].recipients, NOW + 5, "domain:x")], gone=claims[3:4])
    outbox.let_through(db, "domain:x", NOW)
    outbox.wake_held(db, NOW)
    outbox.kinds_waited_for(db)
    finish(db, *map(finished, claims[4:]))
    outbox.retry(db, ids[-1], NOW)
    outbox.cancel(db, ids[-1], NOW, KEEP)
    outbox.expire(db, now=NOW + 999, retention=KEEP)
    outbox.purge(db, now=NOW + 1, retention=KEEP)
    outbox.next_due(db)
    outbox.number_due(db, NOW + 999, 500)
    stand_in_line(db, "domain:x")
    db.commit()
    read = [made for made in statements.made if made[0].split()[0] in ("SELECT", "UPDATE", "DELETE")]
    assert len(read) > 30
    found = {statement: lines for statement, values in read if (lines := scans(db, statement, values))}
    assert found == {}


# --- several at once, each with its own fate -------------------------------------------------


def test_the_texts_of_many_messages_come_at_once_without_those_that_are_damaged(db: DAL) -> None:
    texts = [b"%d " % number + MIME for number in range(5)]
    ids = [put(db, mime=mime) for mime in texts]
    gone, cut, emptied = ids[1], ids[2], ids[3]
    content = db.mailqueue_content
    db(content.message_ref == gone).delete()
    db(content.message_ref == cut).update(mime="short")
    db(content.message_ref == emptied).update(chunk_no=None)
    db.commit()
    claims = claim(db)
    assert [one.byte_size for one in claims] == [len(mime) for mime in texts]
    assert outbox.contents(db, claims) == {ids[0]: texts[0], ids[4]: texts[4]}
    assert outbox.contents(db, []) == {}


def test_of_many_results_each_has_its_own_fate_to_the_last_digit(db: DAL) -> None:
    ids = [put(db, "a@x.test", "b@x.test") for _ in range(130)]
    fates = (words.SENT, words.DEFERRED, words.FAILED, words.IN_DOUBT)
    results = []
    for number, claimed in enumerate(claims := claim(db, limit=200)):
        fate, reply = fates[number % 4], f"it's 100% of %s \\ {number} 😀"
        due = NOW + number + 0.123456 if fate in words.PENDING else None
        first = Outcome(claimed.recipients[0].id, fate, due=due, code=200 + number, reply=reply)
        results.append(finished(claimed, first, Outcome(claimed.recipients[1].id, words.SENT)))
    assert len(claims) == 130
    assert finish(db, *results) == [fates[number % 4] for number in range(130)]
    recipients = {row["message_ref"]: row for row in reversed(all_rows(db, "recipient"))}
    for number, message_id in enumerate(ids):
        fate, row = fates[number % 4], message(db, message_id)
        due = NOW + number + 0.123456 if fate in words.PENDING else None
        assert (row["status"], row["due"], row["attempts"]) == (fate, due, 1)
        mine = recipients[message_id]
        assert (mine["status"], mine["due"], mine["code"]) == (fate, due, 200 + number)
        assert mine["reply"] == f"it's 100% of %s \\ {number} 😀"
    assert len(all_rows(db, "attempt")) == 260


def test_results_that_are_not_its_own_any_more_are_dropped_from_the_midst_of_others(db: DAL) -> None:
    for _ in range(9):
        put(db)
    claims = claim(db)
    outbox.release(db, claims[::3], NOW)
    again = claim(db, limit=1)
    before = {row["id"]: row for row in all_rows(db, "message")}
    assert finish(db, *map(finished, claims)) == ["sent"] * 6
    after = {row["id"]: row for row in all_rows(db, "message")}
    assert [after[one.id] for one in claims[::3]] == [before[one.id] for one in claims[::3]]
    assert after[again[0].id]["status"] == "sending"
    assert len(all_rows(db, "attempt")) == 6


def test_of_two_results_for_one_message_the_first_under_its_claim_counts(db: DAL) -> None:
    put(db)
    (claimed,) = claim(db)
    later = Outcome(claimed.recipients[0].id, words.DEFERRED, due=NOW + 9)
    old = finished(claimed)._replace(token="of an older claim")
    assert finish(db, old, finished(claimed), finished(claimed, later), old) == ["sent"]
    assert len(all_rows(db, "attempt")) == 1


def test_a_message_that_somebody_has_locked_holds_up_no_claim(db: DAL) -> None:
    if database.engine(db) == database.SQLITE:
        pytest.skip("SQLite has one writer at a time: it locks no rows")
    locked, free = put(db), put(db)
    other = Other(db)
    other.run("UPDATE mailqueue_message SET subject = 'mine' WHERE id = %s", locked)
    assert [one.id for one in claim(db)] == [free]
    other.link.rollback()
    other.close()
    assert [one.id for one in claim(db)] == [locked]


def test_a_claim_does_not_wait_for_mail_that_is_not_committed_yet(
    db: DAL, db_uri: str, tmp_path: Path
) -> None:
    if database.engine(db) == database.SQLITE:
        pytest.skip("SQLite has one writer at a time")
    committed = put(db)
    request = open_dal(db_uri, tmp_path)
    outbox.enqueue(request, composed(), terms(NOW), now=NOW)
    (claimed,) = claim(db)
    assert claimed.id == committed
    assert finish(db, finished(claimed)) == ["sent"]
    request.rollback()
    request._adapter.close("rollback")


def test_recipients_are_put_off_one_by_one_and_what_goes_on_keeps_its_claim(db: DAL) -> None:
    for _ in range(3):
        put(db, "a@x.test", "b@y.test")
    claims = claim(db)
    held = [
        HeldBack(one.recipients, NOW + 10 + number, f"domain:{number}") for number, one in enumerate(claims)
    ]
    held[0] = HeldBack(claims[0].recipients[1:], NOW + 99, "domain:y.test")
    outbox.hold_back(db, held, gone=claims[1:])
    db.commit()
    assert [(row["status"], row["due"]) for row in all_rows(db, "message")] == [
        ("sending", None),
        ("queued", NOW + 11),
        ("queued", NOW + 12),
    ]
    assert [row["held_by"] for row in all_rows(db, "recipient")] == [
        None,
        "domain:y.test",
        *["domain:1"] * 2,
        *["domain:2"] * 2,
    ]


def test_a_record_with_very_many_rows_is_deleted_bit_by_bit(db: DAL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox.retention, "_ROWS_AT_ONCE", 40)
    put(db, *(f"r{number}@x.test" for number in range(90)))
    finish(db, finished(claim(db)[0]))
    assert outbox.purge(db, now=NOW + KEEP.sent_content, retention=KEEP) == 1
    later, sizes = NOW + KEEP.record, []
    while all_rows(db, "message"):
        outbox.purge(db, now=later, retention=KEEP)
        sizes.append(len(all_rows(db, "attempt")) + len(all_rows(db, "recipient")))
    assert sizes == [140, 100, 60, 20, 0]
    assert {len(rows) for rows in snapshot(db).values()} == {0}


def test_what_was_simply_sent_is_written_down_as_it_is_in_step(
    db: DAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for many in (True, False):
        if not many:
            monkeypatch.setattr(outbox.sending, "_is_sent", lambda result: False)
        ids = [put(db, f"user{number}@x.test") for number in range(3)]
        results = [
            finished(
                one, Outcome(one.recipients[0].id, words.SENT, code=250, enhanced="2.0.0", reply="😀\0" * 500)
            )
            for one in claim(db)
        ]
        assert finish(db, *results) == ["sent"] * 3
        found.append(
            [
                [
                    {
                        name: value
                        for name, value in row.items()
                        if name not in ("id", "message_ref", "recipient_ref")
                    }
                    for row in all_rows(db, table)
                    if row[own] in ids
                ]
                for table, own in (
                    ("message", "id"),
                    ("recipient", "message_ref"),
                    ("attempt", "message_ref"),
                )
            ]
        )
    assert found[0] == found[1] and len(found[0][2]) == 3


def with_a_damaged_second(db: DAL) -> int:
    message_id = put(db, "a@x.test", "b@x.test")
    recipients = db.mailqueue_recipient
    db((recipients.message_ref == message_id) & (recipients.address == "b@x.test")).update(status="nonsense")
    return message_id


NOT_SIMPLY: dict[str, tuple[Callable[[DAL], int], dict[str, str], str]] = {
    "it is wiped": (lambda db: put(db, wipe=True), {}, "sent"),
    "somebody else gets it": (with_a_damaged_second, {}, "failed"),
    "it was cancelled": (put, {"status": words.CANCELLED}, "cancelled"),
    "its recipient is gone": (put, {"message_ref": "-1"}, "failed"),
}


@pytest.mark.parametrize(("make", "change", "fate"), NOT_SIMPLY.values(), ids=NOT_SIMPLY)
def test_what_is_not_simply_sent_is_not_written_down_so(
    db: DAL, make: Callable[[DAL], int], change: dict[str, str], fate: str
) -> None:
    strange, others = make(db), [put(db) for _ in range(3)]
    claims = claim(db)
    if change:
        db(db.mailqueue_recipient.message_ref == strange).update(**change)
    db.commit()
    said = {"code": 250, "reply": "taken"}
    finish(db, *(finished(one, Outcome(one.recipients[0].id, words.SENT, **said)) for one in claims))
    assert message(db, strange)["status"] == fate
    assert [message(db, one)["status"] for one in others] == ["sent"] * 3
    assert any(row["message_ref"] == strange for row in all_rows(db, "content")) == (fate != "sent")
    tried = [row["message_ref"] for row in all_rows(db, "attempt") if row["message_ref"] in others]
    assert sorted(tried) == others, "once each, whatever was beside them"


def test_a_reply_that_would_make_a_statement_too_large_is_written_down_all_the_same(db: DAL) -> None:
    ids = [put(db) for _ in range(200)]
    said = "\x01" * 40_000  # six octets each, where texts are given as JSON
    claims = claim(db, limit=200)
    finish(db, *(finished(one, Outcome(one.recipients[0].id, words.SENT, reply=said)) for one in claims))
    replies = {row["message_ref"]: row["reply"] for row in all_rows(db, "recipient")}
    assert replies == dict.fromkeys(ids, said[: lengths(RECIPIENT)["reply"]])


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3"])
def test_replies_are_whole_whatever_the_database_would_write_by_itself(db: DAL, charset: str) -> None:
    if database.engine(db) != database.MYSQL:
        pytest.skip("a setting of MariaDB")
    db.executesql(f"ALTER DATABASE CHARACTER SET {charset}")
    put(db)
    (claimed,) = claim(db)
    said = "принято 😀 é"
    one = finished(claimed, Outcome(claimed.recipients[0].id, words.SENT, code=250, reply=said))
    assert outbox.sending.store_sent(db, [one], NOW, KEEP) == {claimed.id}
    assert [row["reply"] for row in all_rows(db, "recipient") + all_rows(db, "attempt")] == [said, said]


@pytest.mark.parametrize("mode", ["HIGH_NOT_PRECEDENCE", "ANSI_QUOTES", "ORACLE", "TRADITIONAL"])
def test_the_modes_of_a_server_do_not_change_what_is_written_down(db: DAL, mode: str) -> None:
    if database.engine(db) != database.MYSQL:
        pytest.skip("a setting of MariaDB")
    put(db)
    (claimed,) = claim(db)
    db.executesql(f"SET SESSION sql_mode = '{mode},STRICT_ALL_TABLES'")
    assert outbox.sending.store_sent(db, [finished(claimed)], NOW, KEEP) == {claimed.id}


def begin_numbers_at(db: DAL, first: int) -> None:
    """The next message's id is this one."""
    if database.engine(db) == database.POSTGRES:
        db.executesql(f"SELECT setval(pg_get_serial_sequence('{MESSAGE}', 'id'), {first}, false)")
    else:
        db.executesql(f"ALTER TABLE {MESSAGE} AUTO_INCREMENT = {first}")
    db.commit()


def test_messages_are_written_down_in_the_order_in_which_everybody_locks_them(
    db: DAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.engine(db) == database.SQLITE:
        pytest.skip("it locks the whole file")
    begin_numbers_at(db, 770_001)  # that nothing else of a statement looks like them
    ids = [put(db) for _ in range(9)]
    claims = claim(db)
    made: list[Any] = []
    record_statements(db, monkeypatch, lambda statement, values: made.append(values))
    finish(db, *(finished(claims[number]) for number in (4, 0, 8, 2, 6, 1, 7, 3, 5)))
    flat = str(made[[str(ids[4]) in str(values) for values in made].index(True)])
    places = [re.search(rf"(?<![\w.]){own_id}(?![\w.])", flat) for own_id in ids]
    assert [place.start() for place in places if place] == sorted(place.start() for place in places if place)
    assert all(places)


@pytest.mark.parametrize("what", ["of another claim", "told twice", "of nobody"])
def test_what_was_sent_is_written_down_only_where_it_belongs(db: DAL, what: str) -> None:
    first, second = put(db), put(db)
    claims = {one.id: one for one in claim(db)}
    results = {own_id: finished(one) for own_id, one in claims.items()}
    strange = results[first]
    (outcome,) = strange.outcomes
    if what == "of another claim":
        strange = strange._replace(token="0" * 32)
    elif what == "of nobody":
        strange = strange._replace(outcomes=(outcome._replace(recipient_id=outcome.recipient_id + 1000),))
    twice = [strange] if what == "told twice" else []
    finish(db, strange, *twice, results[second])
    attempts = [row["message_ref"] for row in all_rows(db, "attempt")]
    assert message(db, second)["status"] == "sent" and attempts.count(second) == 1
    assert (message(db, first)["status"] == "sent") == (what == "told twice")
    assert attempts.count(first) == (what == "told twice")
    (row,) = [row for row in all_rows(db, "recipient") if row["message_ref"] == first]
    assert row["attempts"] == (what == "told twice")


@pytest.mark.parametrize(
    ("said", "since", "is_one"),
    [
        ("5.5.5-10.11.6-MariaDB-0+deb12u1", (10, 6), True),
        ("11.4.2-MariaDB", (10, 6), True),
        ("5.5.5-10.5.23-MariaDB-1:10.5.23", (10, 6), False),
        ("8.0.36", (10, 6), False),
        ("", (10, 6), False),
    ],
)
def test_what_a_server_says_tells_whether_it_is_mariadb(said: str, since: Any, is_one: bool) -> None:
    connection = SimpleNamespace(get_server_info=lambda: said)
    db = SimpleNamespace(_adapter=SimpleNamespace(connection=connection))
    assert database.is_mariadb(db, since) == is_one


def test_a_server_without_json_tables_has_its_sent_mail_written_down_all_the_same(
    db: DAL, monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.engine(db) != database.MYSQL:
        pytest.skip("others need none")
    monkeypatch.setattr(database, "is_mariadb", lambda db, since: False)
    ids = [put(db) for _ in range(3)]
    assert finish(db, *map(finished, claim(db))) == ["sent"] * 3
    assert [row["message_ref"] for row in all_rows(db, "attempt")] == ids

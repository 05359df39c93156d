"""Poison: whatever is wrong with one message, or with a transport, the messages behind it go out.

And the poisoned one ends in a state that the administrator sees, with a reason in plain words.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, leases, outbox, queries, supply, words
from mailqueue.classify import Failure
from mailqueue.errors import BadAddress
from mailqueue.outbox import texts
from mailqueue.tables import TABLES
from mailqueue.transports.base import Answer, Transport
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.services import fresh_database
from support.smtp_faults import Reply
from support.smtp_server import ScriptedServer

ANN, BEN, GOOD = "ann@x.test", "ben@x.test", "good@x.test"


@pytest.fixture(scope="module", params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A mailer's own DAL on each kind of database; the tables are made once."""
    folder = tmp_path_factory.mktemp("poison")
    with fresh_database(request.param, folder) as uri:
        mail = make_mail(folder, uri=uri)
        yield mail
        mail.db.close()


@pytest.fixture
def mail(database: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> QueuedMailer:
    """A mailer with an empty queue that sends to the scripted server."""
    mail = database
    mail.db.rollback()
    for table in TABLES:
        mail.db(mail.db[table].id > 0).delete()
    mail.db.commit()
    mail.site.clock, mail.site.rng = Clock(), random.Random(1)
    mail.site.connections = 1
    mail.site.make_transport = mail._transport
    monkeypatch.setattr(texts, "CHUNK", 100)
    monkeypatch.setattr(supply, "SLOW", 0.0)  # several connections, near as the server is
    to_server(mail, smtp)
    return mail


# --- damaged rows ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Poison:
    """Something wrong in the rows of a message to ANN and BEN.

    Args:
        table: which table is damaged: for "recipient" only ANN's row.
        change: column -> value; None: the rows are deleted.
        ends: the message's status after a drain.
        reason: words that tell the administrator why.
        reached: who got it.
        which: for "content", the chunk; None: all of them.
    """

    table: str
    change: dict[str, Any] | None
    ends: str = words.FAILED
    reason: str = "damaged"
    reached: tuple[str, ...] = ()
    which: int | None = None


def harmless(table: str, **change: Any) -> Poison:
    return Poison(table, change, ends=words.SENT, reason="", reached=(ANN, BEN))


def of_ann_alone(**change: Any) -> Poison:
    return Poison("recipient", change, reached=(BEN,))


GHOST = {"due": None, "worker": 4711, "claim": "c" * 32, "claimed_on": 1_800_000_000.0}
POISONS = {
    "no content": Poison("content", None),
    "a chunk is missing": Poison("content", None, which=1),
    "a chunk is empty": Poison("content", {"mime": None}, which=1),
    "all chunks are empty": Poison("content", {"mime": None}),
    "a chunk has another's number": Poison("content", {"chunk_no": 0}, which=1),
    "a chunk has no number": Poison("content", {"chunk_no": None}, which=1),
    "the text is cut": Poison("content", {"mime": "To: ann@x.test\r\nSubj"}, which=0),
    "no recipients": Poison("recipients", None, reason="recipients"),
    "no content and no recipients": Poison("recipients and content", None, reason="recipients"),
    "address NULL": of_ann_alone(address=None),
    "address empty": of_ann_alone(address=""),
    "address with CR LF": of_ann_alone(address="ann@x.test>\r\nRCPT TO:<evil@x.test"),
    "address with control characters": of_ann_alone(address="ann\x01\x7f@x.test"),
    "address with a parameter": of_ann_alone(address="ann@x.test> NOTIFY=NEVER"),
    "two addresses": of_ann_alone(address="ann@x.test,eve@x.test"),
    "no address": of_ann_alone(address="garbage"),
    "recipient's status NULL": of_ann_alone(status=None),
    "recipient's status empty": of_ann_alone(status=""),
    "recipient's status unknown": of_ann_alone(status="gone fishing"),
    "recipient is being sent": of_ann_alone(status=words.SENDING),
    "recipient never due": harmless("recipient", due=None),
    "recipient's attempts NULL": harmless("recipient", attempts=None),
    "recipient's kind NULL": harmless("recipient", kind=None, changed_on=None),
    "sender is none": Poison("message", {"sender": "garbage"}),
    "sender with CR LF": Poison("message", {"sender": "a@x.test>\r\nRCPT TO:<evil@x.test"}),
    "sender with a parameter": Poison("message", {"sender": "a@x.test> SIZE=1"}),
    "sender empty": harmless("message", sender=""),
    "size NULL": Poison("message", {"byte_size": None}),
    "status NULL": harmless("message", status=None),
    "status unknown": harmless("message", status="gone fishing"),
    "attempts NULL": harmless("message", attempts=None),
    "created_on NULL": harmless("message", created_on=None),
    "counts and flags NULL": harmless("message", recipients=None, smtputf8=None),
    "texts NULL": harmless("message", subject=None, category=None, message_uid=None),
    "to be purged without an end": harmless("message", purge_on=1.0, finished_on=None),
    "claimed by nobody that is there": Poison(
        "message", {"status": words.SENDING, **GHOST}, words.IN_DOUBT, "died"
    ),
    "claimed without a time": Poison(
        "message", {"status": words.SENDING, **GHOST, "claimed_on": None}, words.IN_DOUBT, "died"
    ),
    "claimed without a token": Poison(
        "message", {"status": words.SENDING, **GHOST, "claim": None}, words.IN_DOUBT, "died"
    ),
    "claimed with an unknown status": Poison("message", {"status": "?", **GHOST}, words.IN_DOUBT, "died"),
    "being sent by no worker": Poison(
        "message", {"status": words.SENDING, "due": None}, words.IN_DOUBT, "died"
    ),
}


def damage(mail: QueuedMailer, poison: Poison, message_id: int) -> None:
    for table in poison.table.split(" and "):
        rows_of = _rows_of(mail.db, table, poison, message_id)
        if poison.change is None:
            assert rows_of.delete()
        else:
            assert rows_of.update(**poison.change)
    mail.db.commit()


def _rows_of(db: Any, table: str, poison: Poison, message_id: int) -> Any:
    content, recipient = db.mailqueue_content, db.mailqueue_recipient
    if table == "message":
        return db(db.mailqueue_message.id == message_id)
    if table == "recipient":
        return db((recipient.message_ref == message_id) & (recipient.address == ANN))
    if table == "recipients":
        return db(recipient.message_ref == message_id)
    every = content.message_ref == message_id
    return db(every if poison.which is None else every & (content.chunk_no == poison.which))


def told(mail: QueuedMailer, message_id: int) -> str:
    """What the administrator reads of a message, in the list and on its own page."""
    listed = next(row for row in queries.messages(mail.db) if row["id"] == message_id)
    shown = queries.message(mail.db, message_id)
    assert shown is not None
    assert sum(queries.counts(mail.db).values()) == len(queries.messages(mail.db))
    mail.db.commit()
    replies = [row["reply"] for row in shown["recipients_list"]]
    return " ".join(filter(None, [listed["error"], *replies]))


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_a_damaged_message_ends_with_a_reason_and_the_one_behind_it_goes_out(
    mail: QueuedMailer, smtp: ScriptedServer, poison: Poison
) -> None:
    mail.send([ANN, BEN], subject="poison", body="of some length, for several chunks. " * 5)
    mail.send(GOOD, subject="good")
    bad, good = (row["id"] for row in rows(mail, "message"))
    damage(mail, poison, bad)
    mail.process_queue()
    ended = {row["id"]: row["status"] for row in rows(mail, "message")}
    assert ended == {bad: poison.ends, good: words.SENT}
    reached = Counter(recipient for message in smtp.messages for recipient in message.rcpt_tos)
    assert reached == Counter({GOOD: 1, **dict.fromkeys(poison.reached, 1)})
    assert poison.reason in told(mail, bad)
    assert not any("evil" in command or "None" in command for command in smtp.commands)
    mail.process_queue()
    assert sum(len(message.rcpt_tos) for message in smtp.messages) == 1 + len(poison.reached)


@pytest.mark.parametrize("name", [name for name, poison in POISONS.items() if poison.ends == words.IN_DOUBT])
def test_a_message_that_nobody_holds_is_sent_again_after_its_time(
    mail: QueuedMailer, smtp: ScriptedServer, name: str
) -> None:
    mail.send([ANN, BEN])
    (message,) = rows(mail, "message")
    damage(mail, POISONS[name], message["id"])
    mail.process_queue()
    mail.site.clock.advance(100)
    assert mail.process_queue()["sent"] == 1
    assert statuses(mail) == ["sent"]
    assert smtp.messages[0].rcpt_tos == (ANN, BEN)


def test_a_claim_of_a_worker_that_lives_is_left_alone(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.send(ANN)
    now = mail.site.clock()
    worker = leases.register(
        mail.db, token="t", host_name="elsewhere", machine="another", pid=1, journal="", now=now
    )
    outbox.claim(mail.db, worker, limit=1, now=now)
    mail.process_queue()
    assert statuses(mail) == ["sending"]
    assert smtp.messages == []


def test_an_address_beyond_ascii_goes_out_as_such_though_its_flag_is_lost(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.send("jürgen@x.test")
    mail.db(mail.db.mailqueue_message.id > 0).update(smtputf8=False)
    mail.db.commit()
    assert mail.process_queue()["sent"] == 1
    assert "SMTPUTF8" in smtp.messages[0].mail_parameters


def test_a_status_in_capitals_which_one_database_takes_for_another_stops_nothing(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.send([ANN, BEN])
    mail.db(mail.db.mailqueue_recipient.address == ANN).update(status="QUEUED")
    mail.db.commit()
    mail.process_queue()
    assert statuses(mail) in (["sent"], ["failed"])
    assert rows(mail, "recipient")[1]["status"] == "sent"


def test_a_status_in_capitals_is_not_taken_for_the_same_one_of_somebody_who_waits(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.send([ANN, BEN])
    recipient, now = mail.db.mailqueue_recipient, mail.site.clock()
    mail.db(recipient.address == ANN).update(status="deferred", due=now + 100)
    mail.db(recipient.address == BEN).update(status="DEFERRED")
    mail.db.commit()
    mail.process_queue()
    assert [row["status"] for row in rows(mail, "recipient")] == ["deferred", "failed"]
    mail.site.clock.advance(100)
    mail.process_queue()
    assert [message.rcpt_tos for message in smtp.messages] == [(ANN,)]
    assert (statuses(mail), rows(mail, "recipient")[0]["status"]) == (["failed"], "sent")


def test_a_message_whose_chunks_lie_in_another_order_is_whole(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.send(ANN, body="".join(map(chr, range(32, 127))) * 5)
    content = mail.db.mailqueue_content
    chunks = rows(mail, "content")
    mail.db(content.id > 0).delete()
    for chunk in reversed(chunks):
        content.insert(message_ref=chunk["message_ref"], chunk_no=chunk["chunk_no"], mime=chunk["mime"])
    mail.db.commit()
    assert mail.process_queue()["sent"] == 1
    assert smtp.messages[0].data.endswith("".join(chunk["mime"] for chunk in chunks).encode())


# --- recipients that a server refuses, and lists of bad ones ---------------------------------

BAD_ADDRESSES = [
    "", " ", "nobody", "@x.test", "ann@", "ann@@x.test", "a b@x.test", "ann@x..test", "ann@-x.test",
    "ann@x.test,ben@x.test", "ann@x.test; ben@x.test", "Lee, Ann <ann@x.test>", "<ann@x.test> <ben@x.test>",
    "a@x.test\r\nBcc: eve@x.test", "ann\x00@x.test", "ann@x.test\ud800", "ann@[300.1.1.1]", "ann@" + "x" * 99,
    "=?utf-8?q?eve=40x.test=3E?=@x.test", None, 7, b"\xff@x.test", ["ann@x.test"], object(),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ADDRESSES, ids=lambda bad: ascii(bad).partition(" at 0x")[0][:40])
def test_a_list_with_one_bad_address_is_refused_and_nothing_is_written(
    mail: QueuedMailer, smtp: ScriptedServer, bad: Any
) -> None:
    mail.send(GOOD)
    with pytest.raises(BadAddress):
        mail.send([ANN, bad, BEN])
    assert mail.process_queue()["sent"] == 1
    assert [message.rcpt_tos for message in smtp.messages] == [(GOOD,)]
    assert len(rows(mail, "message")) == len(rows(mail, "recipient")) == 1


def test_a_list_of_addresses_that_the_server_refuses_reaches_all_others(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    refusals = {
        "dead@x.test": (Reply(550, "5.1.1 no such user"), words.FAILED),
        "full@x.test": (Reply(552, "5.2.2 mailbox full"), words.DEFERRED),
        "grey@x.test": (Reply(450, "4.7.1 come back later"), words.DEFERRED),
        "policy@x.test": (Reply(554, "5.7.1 not from you"), words.FAILED),
        "nonsense@x.test": (Reply(299, "what?"), words.SENT),
        "senseless@x.test": (Reply(399, "what?"), words.DEFERRED),
        "many@x.test": (Reply(452, "4.5.3 too many recipients"), words.DEFERRED),
    }
    smtp.script["rcpt"] = {address: reply for address, (reply, _) in refusals.items()}
    mail.send([ANN, *refusals, BEN])
    mail.send(GOOD)
    mail.process_queue()
    ended = {row["address"]: row["status"] for row in rows(mail, "recipient")}
    expected = {address: status for address, (_, status) in refusals.items()}
    assert ended == {ANN: words.SENT, **expected, BEN: words.SENT, GOOD: words.SENT}
    assert statuses(mail) == [words.DEFERRED, words.SENT]
    for row in rows(mail, "recipient"):
        assert row["status"] == words.SENT or row["reply"]


@pytest.mark.parametrize(
    "refusal", [Reply(550, "5.1.8 sender rejected"), Reply(530, "5.7.0 authentication required")]
)
def test_a_fault_of_the_site_that_meets_one_recipient_of_two_sends_nothing_twice(
    mail: QueuedMailer, smtp: ScriptedServer, refusal: Reply
) -> None:
    smtp.script["rcpt"] = {BEN: refusal}
    mail.send([ANN, BEN])
    mail.send(GOOD)
    for _ in range(4):
        mail.process_queue()
        mail.site.clock.advance(400)
    assert [message.rcpt_tos for message in smtp.messages] == [(ANN,), (GOOD,)]
    assert [row["status"] for row in rows(mail, "recipient")] == ["sent", "queued", "sent"]
    assert len(open_causes(mail)) == 1
    smtp.script.clear()
    assert mail.process_queue()["sent"] == 1
    assert smtp.messages[2].rcpt_tos == (BEN,)


def test_a_message_that_pauses_the_transport_is_not_the_next_probe(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["rcpt"] = {BEN: Reply(550, "5.1.8 sender rejected")}
    mail.send(BEN)
    mail.send(GOOD)
    mail.process_queue()
    assert (smtp.messages, statuses(mail)) == ([], ["queued", "queued"])
    mail.site.clock.advance(31)
    mail.process_queue()
    assert [message.rcpt_tos for message in smtp.messages] == [(GOOD,)]
    assert "sender rejected" in told(mail, rows(mail, "message")[0]["id"])


# --- transports that do what they like -------------------------------------------------------


class Panic(BaseException):
    """Not an exit, and yet no Exception."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")

    __repr__ = __str__


class UnprintablePanic(BaseException):
    def __str__(self) -> str:
        raise Panic("not even this")

    __repr__ = __str__


class Group(Exception):
    """As asyncio's groups of exceptions are: others inside."""

    def __init__(self, *inner: BaseException) -> None:
        super().__init__(f"{len(inner)} exceptions", inner)


def nested(depth: int) -> BaseException:
    error: BaseException = Unprintable()
    for _ in range(depth):
        outer = Group(error)
        outer.__cause__, error = error, outer
    return error


ANYTHING = [
    RuntimeError("boom"), ValueError(), KeyError("x"), OSError(5, "io"), MemoryError(), RecursionError(),
    StopIteration(), AssertionError(), UnicodeEncodeError("ascii", "ü", 0, 1, "no"), Panic("panic"),
    Unprintable(), UnprintablePanic(), nested(200), RuntimeError("nul \0 and half a character \ud800" * 500),
    TypeError(), EOFError(), ConnectionResetError(), NotImplementedError(),
]  # fmt: skip


class Hostile(Transport):
    """A transport that keeps to the contract for everybody but ANN.

    Args:
        deliver: what to do with a message to ANN; called with the transport and before_dot.
        raises: method or property -> what it raises.
    """

    def __init__(
        self,
        deliver: Callable[[Hostile, Any], Any] | None = None,
        raises: dict[str, BaseException] | None = None,
    ) -> None:
        self.act, self.raises = deliver, raises or {}
        self.sent: list[str] = []

    def _play(self, what: str) -> None:
        if what in self.raises:
            raise self.raises[what]

    @property
    def name(self) -> str:
        self._play("name")
        return "hostile://"

    def settings(self) -> tuple[object, ...]:
        self._play("settings")
        return ()

    def open(self) -> None:
        self._play("open")

    def close(self) -> None:
        self._play("close")

    def deliver(self, sender: str, recipients: Any, mime: bytes, *, smtputf8: bool, before_dot: Any) -> Any:
        if self.act and ANN in recipients:
            return self.act(self, before_dot)
        before_dot(list(recipients))
        self.sent += recipients
        return [Answer(recipient, None, 250) for recipient in recipients]


def send_both(mail: QueuedMailer, transport: Transport) -> list[str]:
    mail.site.make_transport = lambda: transport
    mail.send(ANN, subject="poison")
    mail.send(GOOD, subject="good")
    mail.process_queue()
    return statuses(mail)


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("dot", [False, True], ids=["before the dot", "after the dot"])
def test_whatever_deliver_raises_is_the_reason_of_its_own_message(
    mail: QueuedMailer, error: BaseException, dot: bool
) -> None:
    def act(_transport: Hostile, before_dot: Any) -> Any:
        if dot:
            before_dot([ANN])
        raise error

    ended = send_both(mail, Hostile(act))
    assert ended[1] == words.SENT
    assert ended[0] == words.IN_DOUBT if dot else ended[0] in (words.DEFERRED, words.FAILED, words.QUEUED)
    assert told(mail, rows(mail, "message")[0]["id"])


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_whatever_close_raises_harms_nobody(mail: QueuedMailer, error: BaseException) -> None:
    assert send_both(mail, Hostile(raises={"close": error})) == [words.SENT, words.SENT]


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["open", "name", "settings"])
def test_a_transport_that_cannot_be_used_costs_no_attempt_and_is_a_problem_until_it_can(
    mail: QueuedMailer, where: str, error: BaseException
) -> None:
    hostile = Hostile(raises={where: error})
    assert send_both(mail, hostile) == [words.QUEUED, words.QUEUED]
    assert len(open_causes(mail)) == 1
    assert all(row["summary"] and row["remedy"] for row in queries.problems(mail.db))
    assert all(row["attempts"] == 0 for row in rows(mail, "recipient"))
    hostile.raises.clear()
    mail.site.clock.advance(1000)
    assert mail.process_queue()["sent"] == 2
    assert open_causes(mail) == []


@pytest.mark.parametrize("error", ANYTHING, ids=lambda error: type(error).__name__)
def test_a_transport_whose_name_is_lost_on_the_way_sends_nothing_twice(
    mail: QueuedMailer, error: BaseException
) -> None:
    hostile = Hostile()
    hostile.act = lambda transport, _dot: transport.raises.update(name=error) or [Answer(ANN, None, 250)]
    ended = send_both(mail, hostile)
    assert (ended[0], hostile.sent) == (words.SENT, [])
    assert ended[1] == words.QUEUED
    hostile.raises.clear()
    mail.site.clock.advance(1000)
    assert mail.process_queue()["sent"] == 1
    assert hostile.sent == [GOOD]


def no(**changes: Any) -> Failure:
    fields = {"kind": words.RECIPIENT, "stage": words.RCPT, "rule": "plugin's own", "text": "no", "code": 550}
    return Failure(**{**fields, **changes})


def _generator_that_raises() -> Iterator[Answer]:
    raise Panic
    yield Answer(ANN, None)


LONG = {"stage": "s\0" * 400, "rule": "r\0" * 400, "text": "t\0\ud800" * 900, "enhanced": "5" * 90}
STRANGE_ANSWERS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "a number": lambda: 250,
    "a text": lambda: "250 ok",
    "nothing": list,
    "no answers": lambda: [None, 250, "ok", object()],
    "a stranger's": lambda: [Answer("eve@x.test", None)],
    "both yes and no": lambda: [Answer(ANN, None), Answer.refused(ANN, no())],
    "a generator that raises": _generator_that_raises,
    "a failure that is none": lambda: [Answer(ANN, "no")],  # type: ignore[arg-type]
    "a code that is text": lambda: [Answer(ANN, no(code="550"))],
    "a code of many digits": lambda: [Answer(ANN, None, code=10**12)],
    "a reply that is none": lambda: [Answer(ANN, None, 250, text=None)],  # type: ignore[arg-type]
    "an enhanced code that is a list": lambda: [Answer(ANN, None, 250, [2, 0, 0])],  # type: ignore[arg-type]
    "a kind that is none": lambda: [Answer.refused(ANN, no(kind="whatever"))],
    "a stage that is none": lambda: [Answer.refused(ANN, no(stage=None))],
}


@pytest.mark.parametrize("answers", STRANGE_ANSWERS.values(), ids=STRANGE_ANSWERS)
def test_answers_that_are_none_are_tried_again_with_a_reason(
    mail: QueuedMailer, answers: Callable[[], Any]
) -> None:
    ended = send_both(mail, Hostile(lambda *_: answers()))
    assert ended[0] in (words.DEFERRED, words.IN_DOUBT)
    assert ended[1] == words.SENT
    assert told(mail, rows(mail, "message")[0]["id"])
    assert len(open_causes(mail)) == 1


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (lambda: [Answer(ANN, None), Answer(ANN, None)], words.SENT),
        (lambda: (Answer(address, None) for address in (ANN, "eve@x.test")), words.SENT),
        (lambda: [Answer.refused(ANN, no(**LONG, kind=words.RECIPIENT))], words.FAILED),
        (lambda: [Answer.refused(ANN, no(**LONG, kind=words.CONFIGURATION))], words.QUEUED),
        (lambda: [Answer(ANN, None, 250, "e\0" * 90, "t\0\ud800" * 9000, "s" * 90)], words.SENT),
    ],
    ids=["twice", "a generator and a stranger", "over-long", "over-long and the site's", "over-long yes"],
)  # fmt: skip
def test_answers_that_are_only_odd_count(mail: QueuedMailer, answers: Callable[[], Any], status: str) -> None:
    ended = send_both(mail, Hostile(lambda *_: answers()))
    assert ended[0] == status
    mail.site.clock.advance(1000)
    mail.process_queue()
    assert statuses(mail)[1] == words.SENT


def test_a_transport_that_says_it_was_at_no_stage_at_all_leaves_doubt(mail: QueuedMailer) -> None:
    def act(transport: Hostile, _before_dot: Any) -> Any:
        transport.stage = None  # type: ignore[assignment]
        raise RuntimeError("lost")

    assert send_both(mail, Hostile(act)) == [words.IN_DOUBT, words.SENT]


def test_a_transport_that_cannot_be_made_waits_as_a_problem(mail: QueuedMailer) -> None:
    def make() -> Transport:
        raise UnprintablePanic

    mail.send(ANN)
    mail.site.make_transport = make
    mail.process_queue()
    assert (statuses(mail), len(open_causes(mail))) == (["queued"], 1)
    mail.site.make_transport = Hostile
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


def test_further_connections_that_cannot_be_made_are_done_without(
    mail: QueuedMailer, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Hostile] = []

    def make() -> Transport:
        if made:
            raise Panic("only one")
        made.append(Hostile())
        return made[0]

    mail.site.make_transport, mail.site.connections = make, 4
    for number in range(40):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 40
    assert "no further connection" in caplog.text


# --- size -------------------------------------------------------------------------------------

BIG = 50_000_000
SEND_BIG = """
import re, sys
from pathlib import Path
from support.mail import make_mail, statuses
mail = make_mail(Path(sys.argv[1]), server=sys.argv[2])
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
with open(sys.argv[3], "rb") as file:
    mail.send("ann@x.test", attachments=mail.Attachment(file, "big.bin"))
mail.send("good@x.test")
queued = peak()
mail.process_queue()
print(*statuses(mail), before, queued, peak())
"""
MEGABYTES_AT_MOST = 12 * BIG // 1_000_000  # beside the 60 of Python itself


def test_an_attachment_of_50_megabytes_arrives_byte_for_byte_in_bounded_memory(tmp_path: Path) -> None:
    content = random.Random(1).randbytes(BIG)
    (tmp_path / "big.bin").write_bytes(content)
    with ScriptedServer(size_limit=100_000_000) as server:
        arguments = [str(tmp_path), f"127.0.0.1:{server.port}", str(tmp_path / "big.bin")]
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        run = subprocess.run(
            [sys.executable, "-c", SEND_BIG, *arguments],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        big = next(message for message in server.messages if message.rcpt_tos == (ANN,))
        assert sorted(message.rcpt_tos for message in server.messages) == [(ANN,), (GOOD,)]
    *ended, before, queued, drained = run.stdout.split()
    assert ended == ["sent", "sent"]
    part = next(message_from_bytes(big.data, policy=policy.default).iter_attachments())
    assert part.get_content() == content
    print(f"peak memory in MB: {before} before, {queued} when queued, {drained} when sent")
    assert int(drained) - int(before) < MEGABYTES_AT_MOST


def test_a_message_too_big_for_the_server_fails_and_the_one_behind_it_goes_out(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.size_limit = 100_000
    mail.send(ANN, attachments=mail.Attachment(io.BytesIO(b"x" * 200_000), "big.bin"))
    mail.send(GOOD)
    mail.process_queue()
    assert statuses(mail) == ["failed", "sent"]
    assert "100000" in told(mail, rows(mail, "message")[0]["id"])


def test_ten_thousand_recipients_are_reached_once_each_in_bounded_time(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # chunks of their usual size
    many = [f"user{number}@x.test" for number in range(10_000)]
    begun = time.monotonic()
    mail.send([], bcc=many)
    queued = time.monotonic()
    mail.send(GOOD)
    mail.process_queue()
    drained = time.monotonic()
    assert statuses(mail) == ["sent", "sent"]
    reached = Counter(recipient for message in smtp.messages for recipient in message.rcpt_tos)
    assert reached == Counter([*many, GOOD])
    assert len(queries.message(mail.db, rows(mail, "message")[0]["id"])["recipients_list"]) == 1000  # type: ignore[index]
    print(f"seconds: {queued - begun:.1f} to queue, {drained - queued:.1f} to send")
    assert drained - begun < 120

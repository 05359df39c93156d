"""Several ways out: failover, balance, routes, and what the administrator hears of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mailqueue import (
    Attachment,
    QueuedMailer,
    breaker,
    failover,
    outbox,
    queries,
    roundrobin,
    route,
    trial,
    words,
)
from mailqueue.administration import retry, retry_over
from mailqueue.classify import DeliveryError, Failure
from mailqueue.timeline import timeline
from mailqueue.transports.base import Answer, Transport
from mailqueue.transports.smtp import SmtpTransport
from support.certificates import Certificates
from support.mail import Clock, make_mail, open_causes, rows, statuses
from support.smtp_faults import Close, Fault, Reply, nth
from support.smtp_server import ScriptedServer, refused_port


@pytest.fixture
def servers() -> Iterator[list[ScriptedServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(ScriptedServer()) for _ in range(3)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def url(server: ScriptedServer | int, login: str = "") -> str:
    port = server if isinstance(server, int) else server.port
    return f"smtp://{login}127.0.0.1:{port}?tls=none"


def name(server: ScriptedServer | int) -> str:
    return f"smtp://127.0.0.1:{server if isinstance(server, int) else server.port}"


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Any:
    made = []

    def make(*transports: Any, **options: Any) -> QueuedMailer:
        made.append(make_mail(tmp_path, clock=clock, transports=list(transports), **options))
        return made[-1]

    yield make
    for mail in made:
        mail.db.close()


def took(servers: Sequence[ScriptedServer]) -> list[list[str]]:
    """Who got mail over each server."""
    return [[to for message in server.messages for to in message.rcpt_tos] for server in servers]


# --- failover --------------------------------------------------------------------------------


def test_the_first_transport_takes_everything_while_it_works(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    mail = make(url(a), url(b))
    for number in range(5):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 5
    assert (len(a.messages), b.connections) == (5, 0)
    assert {row["transport"] for row in rows(mail, "recipient")} == {name(a)}


SURELY_NOT_SENT = [
    ("banner", Reply(554, "5.7.1 go away")),
    ("banner", Close()),
    ("ehlo", Reply(550, "5.7.1 no")),
    ("mail", Reply(530, "5.7.0 authentication required")),
    ("mail", Reply(550, "5.7.1 sender not allowed")),
    ("mail", Reply(451, "4.3.0 busy")),
    ("mail", Reply(550, "5.4.5 daily sending limit exceeded")),
    ("mail", Reply(421, "4.3.2 closing")),
    ("rcpt", Reply(450, "4.7.1 greylisted")),
    ("rcpt", Reply(554, "5.7.1 relay access denied")),
    ("data", Reply(451, "4.3.0 no room")),
    ("data", Close()),
    ("dot", Reply(451, "4.3.0 try later")),
]


@pytest.mark.parametrize(("stage", "fault"), SURELY_NOT_SENT, ids=lambda value: str(value))
def test_what_was_surely_not_sent_goes_out_at_once_over_the_next_transport(
    make: Any, servers: list[ScriptedServer], stage: str, fault: Fault
) -> None:
    a, b, _ = servers
    a.script[stage] = fault
    mail = make(url(a), url(b))
    mail.send(["ann@x.test", "bob@x.test"])
    assert mail.process_queue()["sent"] == 1
    assert took([a, b]) == [[], ["ann@x.test", "bob@x.test"]]
    found = rows(mail, "recipient")
    assert [(row["status"], row["attempts"], row["transport"]) for row in found] == [("sent", 1, name(b))] * 2
    assert rows(mail, "worker") == [] and list(Path(mail.site.journals).iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "fault", "status"),
    [
        ("rcpt", Reply(550, "5.1.1 no such user"), "failed"),
        ("rcpt", Reply(552, "5.2.2 mailbox full"), "deferred"),
        ("rcpt", Reply(550, "5.7.1 blocked by policy"), "failed"),
        ("dot", Reply(550, "5.7.1 looks like spam"), "failed"),
        ("dot", Reply(554, "5.6.0 bad content"), "failed"),
        ("dot", Close(), "in_doubt"),
        ("dot", Reply(299, "what"), "sent"),
    ],
)
def test_a_fault_of_recipient_or_message_or_a_doubt_stays_with_its_transport(
    make: Any, servers: list[ScriptedServer], stage: str, fault: Fault, status: str
) -> None:
    a, b, _ = servers
    a.script[stage] = fault
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == [status]
    assert b.connections == 0


def test_where_some_recipients_were_taken_the_others_wait_and_nobody_gets_it_twice(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.script["rcpt"] = {"bob@x.test": Reply(451, "4.3.0 busy")}
    mail = make(url(a), url(b))
    mail.send(["ann@x.test", "bob@x.test"])
    assert mail.process_queue()["deferred"] == 1
    assert took([a, b]) == [["ann@x.test"], []]
    clock.advance(100)
    assert mail.process_queue()["sent"] == 1
    assert took([a, b]) == [["ann@x.test"], ["bob@x.test"]]


def test_where_no_transport_takes_it_the_message_waits_as_with_one(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.script["mail"], b.script["mail"] = Reply(451, "4.3.0 a is busy"), Reply(451, "4.3.0 b is busy")
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    assert mail.process_queue()["deferred"] == 1
    (row,) = rows(mail, "recipient")
    assert (row["attempts"], row["transport"]) == (1, name(b)) and "b is busy" in row["reply"]


def test_a_transport_that_fails_is_paused_for_all_workers_probed_and_used_again(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.auth = {"me": "right"}
    mail = make(url(a, "me:wrong@"), url(b))
    mail.send("one@x.test")
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == ["auth-rejected"]
    logins = a.reached["auth"]
    for address in ("two@x.test", "three@x.test"):
        mail.send(address)
        assert mail.process_queue()["sent"] == 1
    assert a.reached["auth"] == logins, "a paused transport is left alone"
    assert took([a, b]) == [[], ["one@x.test", "two@x.test", "three@x.test"]]
    assert open_causes(mail) == ["auth-rejected"], "as long as it lasts"
    a.auth = {"me": "wrong"}
    clock.advance(31)
    mail.send("four@x.test")
    assert mail.process_queue()["sent"] == 1
    assert took([a, b])[0] == ["four@x.test"]
    assert open_causes(mail) == []
    assert [row["paused_on"] for row in rows(mail, "transport")] == [None, None]


def test_a_probe_costs_one_message_its_time_and_the_others_go_the_other_way(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.script["mail"] = Reply(550, "5.4.5 daily sending limit exceeded")
    mail = make(url(a), url(b))
    mail.send("first@x.test")
    mail.process_queue()
    clock.advance(31)
    for number in range(30):
        mail.send(f"user{number}@x.test")
    before = a.reached["mail"]
    assert mail.process_queue()["sent"] == 30
    assert a.reached["mail"] == before + 1
    assert (len(a.messages), len(b.messages)) == (0, 31)
    a.script.clear()
    clock.advance(61)
    for number in range(30):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 30
    assert len(a.messages) > 0


def test_without_mail_the_paused_transport_is_probed_all_the_same(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    with refused_port() as port:
        mail = make(url(port), url(servers[0]))
        mail.send("ann@x.test")
        assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == ["connect-refused"]
    with ScriptedServer(port=port):
        clock.advance(31)
        mail.process_queue()
        assert open_causes(mail) == []


def test_when_all_are_paused_nothing_is_lost_and_no_attempt_spent(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.script["banner"] = b.script["banner"] = Reply(554, "5.7.1 go away")
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued"]
    assert [row["attempts"] for row in rows(mail, "recipient")] == [0]
    b.script.clear()
    clock.advance(31)
    assert mail.process_queue()["sent"] == 1


def test_a_message_too_big_for_one_transport_goes_by_one_that_takes_it(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, c = servers
    a.size_limit, b.script["dot"] = 1000, Reply(552, "5.3.4 message too big")
    mail = make(url(a), url(b), url(c))
    mail.send("ann@x.test", body="x" * 2000)
    assert mail.process_queue()["sent"] == 1
    assert took(servers) == [[], [], ["ann@x.test"]]
    mail.settings.transports = [url(a), url(b)]
    mail.send("bob@x.test", body="x" * 2000)
    assert mail.process_queue()["failed"] == 1
    assert "too big" in rows(mail, "recipient")[1]["reply"]


def test_an_address_that_one_transport_cannot_write_goes_by_one_that_can(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.extensions = ("PIPELINING",)
    mail = make(url(a), url(b))
    mail.send("j\u00fcrgen@x.test")
    assert mail.process_queue()["sent"] == 1
    assert took([a, b]) == [[], ["j\u00fcrgen@x.test"]]


EVERYBODY = {"to": ["j\u00fcrgen@x.test", "bob@x.test"], "cc": "\u00e4nn@y.test", "bcc": "eve@x.test"}


def test_an_address_that_needs_smtputf8_leaves_the_other_recipients_alone(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, _, _ = servers
    a.extensions = ("PIPELINING",)
    mail = make(url(a))
    mail.send(**EVERYBODY, subject="Hello")
    mail.process_queue()
    assert {one["address"]: one["status"] for one in rows(mail, "recipient")} == {
        "j\u00fcrgen@x.test": "failed",
        "bob@x.test": "sent",
        "\u00e4nn@y.test": "failed",
        "eve@x.test": "sent",
    }
    [message] = a.messages
    assert message.rcpt_tos == ("bob@x.test", "eve@x.test")
    assert message.data.isascii()


def test_who_needs_smtputf8_gets_it_from_the_transport_that_offers_it(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.extensions = ("PIPELINING",)
    mail = make(url(a), url(b))
    mail.send(**EVERYBODY)
    assert mail.process_queue()["sent"] == 1
    assert took([a, b]) == [["bob@x.test", "eve@x.test"], ["j\u00fcrgen@x.test", "\u00e4nn@y.test"]]
    assert "j\u00fcrgen@x.test".encode() in b.messages[0].data


MIXED = ["j\u00fcrgen@x.test", "bob@x.test"]


@pytest.mark.parametrize("to", [MIXED, MIXED[::-1]])
def test_a_message_in_parts_says_what_met_one_of_them(
    make: Any, servers: list[ScriptedServer], to: list[str]
) -> None:
    a, _, _ = servers
    a.extensions = ("PIPELINING",)
    mail = make(url(a))
    mail.send(to)
    mail.process_queue()
    [message] = rows(mail, "message")
    assert message["failure_kind"] == words.RECIPIENT and "SMTPUTF8" in message["error"]
    assert [row["id"] for row in queries.messages(mail.db, failure=words.RECIPIENT)] == [1]


@pytest.mark.parametrize("to", [MIXED, MIXED[::-1]])
def test_what_met_a_part_of_a_message_is_forgotten_once_everybody_has_it(
    make: Any, servers: list[ScriptedServer], clock: Clock, to: list[str]
) -> None:
    a, _, _ = servers
    a.script["rcpt"] = {"bob@x.test": Reply(450, "4.2.0 later")}
    mail = make(url(a))
    mail.send(to)
    assert mail.process_queue()["deferred"] == 1
    assert rows(mail, "message")[0]["error"] == "450 4.2.0 later"
    clock.advance(3600)
    del a.script["rcpt"]
    assert mail.process_queue()["sent"] == 1
    [message] = rows(mail, "message")
    assert (message["error"], message["failure_kind"]) == (None, None)


def test_a_transport_chosen_by_hand_takes_all_parts_of_a_message(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.script["rcpt"] = b.script["rcpt"] = Reply(550, "5.1.1 unknown")
    mail = make(url(a), url(b))
    mail.send(MIXED)
    assert mail.process_queue()["failed"] == 1
    del a.script["rcpt"], b.script["rcpt"]
    assert retry_over(mail, 1, name(b), "admin@x.test")[0]
    mail.db.commit()
    mail.process_queue()
    assert took([a, b]) == [[], MIXED]
    assert rows(mail, "message")[0]["next_transport"] is None


def test_a_fault_of_one_part_of_a_mail_sent_at_once_is_entered_for_its_transport(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.extensions = ("PIPELINING",)
    b.script["banner"] = Reply(554, "5.7.1 go away")
    mail = make(url(a), url(b))
    assert not mail.send_direct_email(MIXED)
    assert [row["transport"] for row in rows(mail, "problem")] == [name(b)]


def test_a_block_list_is_not_asked_every_minute(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, _, _ = servers
    asked = []

    def blocked(session: Any, line: str) -> Reply:
        asked.append(line)
        return Reply(554, "5.7.1 Client host [203.0.113.7] blocked using zen.spamhaus.org")

    a.script["rcpt"] = blocked
    mail = make(url(a))
    mail.send("bob@x.test")
    for _ in range(10):
        mail.process_queue()
        clock.advance(120)
    assert len(asked) == 2, "once more since the settings are new"
    clock.advance(3600)
    mail.process_queue()
    assert len(asked) == 3


def test_an_address_corrected_to_ascii_needs_smtputf8_no_more(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, _, _ = servers
    a.extensions = ("PIPELINING",)
    mail = make(url(a))
    mail.send("j\u00fcrgen@x.test")
    assert mail.process_queue()["failed"] == 1
    [recipient] = rows(mail, "recipient")
    assert outbox.correct(mail.db, 1, recipient["id"], "juergen@x.test", clock())
    assert mail.process_queue()["sent"] == 1
    assert took([a]) == [["juergen@x.test"]]


def test_a_mail_sent_at_once_parts_its_recipients_too(make: Any, servers: list[ScriptedServer]) -> None:
    a, _, _ = servers
    a.extensions = ("PIPELINING",)
    mail = make(url(a))
    assert not mail.send_direct_email(**EVERYBODY)
    assert took([a]) == [["bob@x.test", "eve@x.test"]]


def test_a_message_too_big_for_those_that_work_waits_for_the_one_that_is_paused(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.size_limit, b.script["banner"] = 1000, Reply(554, "5.7.1 go away")
    mail = make(url(a), url(b))
    mail.send("ann@x.test", body="x" * 2000)
    mail.send("bob@x.test")
    assert mail.process_queue()["sent"] == 1
    waiting = rows(mail, "recipient")[0]
    assert (waiting["status"], waiting["attempts"]) == ("queued", 0)
    b.script.clear()
    clock.advance(100)
    assert mail.process_queue()["sent"] == 1
    assert took([a, b]) == [["bob@x.test"], ["ann@x.test"]]


def test_a_server_that_takes_few_connections_keeps_its_mail(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, _ = servers
    a.script["banner"] = lambda session, _line: Reply(421, "4.7.0 too many") if session.number > 1 else None
    mail = make(url(a), url(b), connections=4)
    for number in range(80):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 80
    assert (len(a.messages), b.connections) == (80, 0)
    assert open_causes(mail) == []


def test_a_transport_that_breaks_in_the_middle_loses_and_doubles_nothing(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    seen: list[int] = []

    def breaks(_session: Any, _line: str) -> Fault | None:
        seen.append(1)
        return Reply(535, "5.7.8 no more") if len(seen) > 40 else None

    a.script["mail"] = breaks
    mail = make(url(a), url(b), connections=4)
    for number in range(150):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 150
    arrived = sorted(to for some in took([a, b]) for to in some)
    assert arrived == sorted(f"user{number}@x.test" for number in range(150))
    assert len(a.messages) > 0 and len(b.messages) > 0
    assert {row["attempts"] for row in rows(mail, "recipient")} == {1}


class Odd(Transport):
    """Raises what nobody knows."""

    name = "odd"

    def settings(self) -> tuple[object, ...]:
        return ("odd",)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def deliver(self, *_arguments: Any, **_keywords: Any) -> list[Answer]:
        raise KeyError("result")


API_FAILURES = {
    "quota": Failure(words.TRANSIENT, words.MAIL, "api-quota", "402 out of credit"),
    "key": Failure(words.CONFIGURATION, words.AUTH, "api-key", "401 no such key"),
    "content": Failure(words.MESSAGE, words.DATA, "api-content", "422 no"),
    "lost": Failure(words.IN_DOUBT, words.DOT, "api-lost", "no reply", surely_not_sent=False),
}


class Api(Odd):
    """A transport that brings its own table of failures."""

    def __init__(self, said: str):
        self._said = said

    def deliver(self, *_arguments: Any, **_keywords: Any) -> list[Answer]:
        raise DeliveryError(API_FAILURES[self._said])


@pytest.mark.parametrize(
    ("said", "status", "by_the_next"),
    [("quota", "sent", 1), ("key", "sent", 1), ("content", "failed", 0), ("lost", "in_doubt", 0)],
)
def test_a_transport_may_bring_its_own_table_of_failures(
    make: Any, servers: list[ScriptedServer], said: str, status: str, by_the_next: int
) -> None:
    mail = make(lambda: Api(said), url(servers[0]))
    mail.send("ann@x.test")
    mail.process_queue()
    assert (statuses(mail), len(servers[0].messages)) == ([status], by_the_next)
    assert open_causes(mail) == (["api-key"] if said == "key" else [])


def test_a_transport_that_raises_its_own_kind_of_exception_is_passed_over_and_reported_once(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    mail = make(Odd, url(servers[0]))
    for _ in range(2):
        for number in range(3):
            mail.send(f"user{number}@x.test")
        assert mail.process_queue()["sent"] == 3
        clock.advance(100)
    assert open_causes(mail) == ["unknown-exception"]
    assert len(rows(mail, "problem")) == 1


@pytest.mark.parametrize("recipients", [["ann@x.test"], ["ann@x.test", "bob@x.test"]])
def test_who_refused_a_message_before_another_transport_took_it_is_on_record(
    make: Any, servers: list[ScriptedServer], recipients: list[str]
) -> None:
    a, b, _ = servers
    a.script["rcpt"] = Reply(450, "4.7.1 a is busy")
    mail = make(url(a), url(b))
    mail.send(recipients)
    assert mail.process_queue()["sent"] == 1
    found = [(row["transport"], row["outcome"], row["reply"]) for row in rows(mail, "attempt")]
    number = len(recipients)
    assert found[:number] == [(name(a), "passed_on", "4.7.1 a is busy")] * number
    assert [(transport, outcome) for transport, outcome, _ in found[number:]] == [(name(b), "sent")] * number
    assert {row["attempts"] for row in rows(mail, "recipient")} == {1}
    told = queries.message(mail.db, 1)
    assert told
    titles = [event.title for event in timeline(told, [])]
    assert titles == ["Queued", f"Attempt over {name(a)}", f"Attempt over {name(b)}", "Sent to everybody"]


def test_where_nobody_takes_it_each_attempt_is_on_record_once(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.script["mail"] = b.script["mail"] = Reply(451, "4.3.0 busy")
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    mail.process_queue()
    found = [(row["transport"], row["outcome"]) for row in rows(mail, "attempt")]
    assert found == [(name(a), "passed_on"), (name(b), "deferred")]


@pytest.mark.parametrize(
    "refusal",
    ["552 5.3.4 message too big", "554 5.7.1 attachments of this type are blocked", "554 attachment refused"],
)
def test_a_mail_whose_attachments_one_provider_refuses_goes_whole_by_one_that_takes_them_or_fails(
    make: Any, servers: list[ScriptedServer], tmp_path: Path, refusal: str
) -> None:
    a, b, _ = servers
    a.script["dot"] = Reply(int(refusal[:3]), refusal[4:])
    (tmp_path / "list.zip").write_bytes(b"PK\x03\x04" * 50)
    mail = make(url(a), url(b))
    mail.send("ann@x.test", "List", "Enclosed", attachments=[Attachment(str(tmp_path / "list.zip"))])
    assert mail.process_queue()["sent"] == 1
    (enclosed,) = b.messages[0].parsed().iter_attachments()
    assert (enclosed.get_filename(), enclosed.get_content()) == ("list.zip", b"PK\x03\x04" * 50)
    mail.settings.transports = [url(a)]
    mail.send("bob@x.test", "List", "Enclosed", attachments=[Attachment(str(tmp_path / "list.zip"))])
    assert mail.process_queue()["failed"] == 1
    assert rows(mail, "recipient")[1]["reply"] == refusal[4:]
    assert a.messages == []


def test_a_virus_is_not_taken_to_the_next_provider(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, _ = servers
    a.script["dot"] = Reply(554, "5.7.1 the attachment contains a virus")
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    assert mail.process_queue()["failed"] == 1
    assert b.connections == 0


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("mail", Reply(452, "4.5.4 no more today")),
        ("mail", Reply(451, "4.3.0 quota exhausted")),
        ("auth", Reply(535, "5.7.8 Authentication failed: Maximum credits exceeded")),
    ],
)
def test_a_quota_that_is_used_up_pauses_its_transport_and_the_next_takes_the_mail(
    make: Any, servers: list[ScriptedServer], stage: str, said: Reply
) -> None:
    a, b, _ = servers
    a.auth = {"me": "right"}
    a.script[stage] = said
    mail = make(url(a, "me:right@"), url(b))
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1
    paused = {row["name"]: row["paused_on"] is not None for row in rows(mail, "transport")}
    assert paused[name(a)] and not paused[name(b)]
    reached = a.connections
    mail.send("bob@x.test")
    assert mail.process_queue()["sent"] == 1
    assert a.connections == reached


def test_a_server_that_says_when_to_come_back_is_left_alone_for_so_long(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    said = Failure(words.TRANSIENT, words.CONNECT, "api-quota", "429", retry_after=600.0)

    class Busy(Odd):
        def open(self) -> None:
            raise DeliveryError(said)

    b.script["banner"] = Reply(421, "4.3.2 too many connections")
    mail = make(Busy, url(b), url(a))
    mail.send("ann@x.test")
    mail.process_queue()
    waits = {
        row["name"]: row["next_probe"] - clock.now for row in rows(mail, "transport") if row["paused_on"]
    }
    assert waits["odd"] == 600.0
    mail.settings.transports = [url(b)]
    mail.send("bob@x.test")
    mail.process_queue()
    (wait,) = (row["next_probe"] - clock.now for row in rows(mail, "transport") if row["name"] == name(b))
    assert wait == 60.0


# --- limits and lessons of each ---------------------------------------------------------------


def test_what_is_over_the_limit_of_one_transport_goes_by_the_next_or_waits(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    limits = {f"transport:{name(a)}": "3/minute", f"transport:{name(b)}": "2/minute"}
    mail = make(url(a), url(b), limits=limits)
    for number in range(8):
        mail.send(f"user{number}@x.test")
    mail.process_queue()
    assert [len(one) for one in took([a, b])] == [3, 2]
    waiting = {row["held_by"] for row in rows(mail, "recipient") if row["status"] == "queued"}
    assert waiting <= {f"transport:{name(a)}", f"transport:{name(b)}"} and waiting
    assert {row["attempts"] for row in rows(mail, "recipient") if row["status"] == "queued"} == {0}
    clock.advance(61)
    mail.process_queue()
    assert statuses(mail) == ["sent"] * 8


def test_each_transport_has_the_common_limit_for_itself(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, _ = servers
    mail = make(url(a), url(b), limits={"transport": "2/minute", f"transport:{name(b)}": "1/minute"})
    for number in range(6):
        mail.send(f"user{number}@x.test")
    mail.process_queue()
    assert [len(one) for one in took([a, b])] == [2, 1]


def test_what_comes_to_a_transport_by_failover_counts_for_its_limit(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    a.script["rcpt"] = Reply(450, "4.2.0 later")
    mail = make(url(a), url(b), limits={f"transport:{name(b)}": "2/hour"}, connections=1)
    mail.send("ann@x.test")
    mail.process_queue()
    mail.settings.transports = [url(b)]
    for number in range(3):
        mail.send(f"user{number}@x.test")
    mail.process_queue()
    assert len(b.messages) == 2


def test_a_transport_that_asks_for_less_mail_gets_less_and_the_others_as_much_as_ever(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.script["mail"] = nth(Reply(450, "4.7.1 too much mail"), 1)
    mail = make(url(a), url(b), connections=1)
    mail.send("first@x.test")
    assert mail.process_queue()["sent"] == 1
    assert [row["name"] for row in rows(mail, "lesson")] == [f"transport:{name(a)}"]
    for number in range(30):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 30
    assert [len(one) for one in took([a, b])] == [0, 31]
    clock.advance(61)
    for number in range(30):
        mail.send(f"later{number}@x.test")
    assert mail.process_queue()["sent"] == 30
    assert [len(one) for one in took([a, b])] == [10, 51]


# --- over a transport of an administrator's choice -------------------------------------------


def test_a_retry_goes_over_the_chosen_transport_first_and_later_ones_as_usual(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    mail = make(url(a), url(b))
    a.script["rcpt"] = b.script["rcpt"] = Reply(550, "5.1.1 unknown")
    mail.send("ann@x.test")
    assert mail.process_queue()["failed"] == 1
    assert retry_over(mail, 1, name(b), "admin@x.test")[0]
    mail.db.commit()
    assert mail.process_queue()["failed"] == 1
    assert [row["transport"] for row in rows(mail, "attempt")] == [name(a), name(b)]
    del a.script["rcpt"]
    assert retry(mail, 1, "admin@x.test")[0]
    mail.db.commit()
    assert mail.process_queue()["sent"] == 1
    assert took(servers) == [["ann@x.test"], [], []]


def test_where_the_chosen_transport_is_paused_or_gone_the_usual_one_takes_the_message(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    mail = make(url(a), url(b))
    for number, chosen in enumerate((name(b), "smtp://gone.test:25")):
        mail.send(f"user{number}@x.test", send_at=mail.site.clock() + 10)
        assert outbox.retry(mail.db, number + 1, mail.site.clock(), chosen)
        mail.db.commit()
    breaker.pause(mail.db, name(b), [], stage=words.AUTH, reason="no", now=mail.site.clock())
    mail.db.commit()
    b.stop()
    assert mail.process_queue()["sent"] == 2
    assert took(servers)[0] == ["user0@x.test", "user1@x.test"]


# --- balance ---------------------------------------------------------------------------------


def test_transports_take_turns_by_their_weights(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, c = servers
    mail = make(roundrobin(url(a), url(b), url(c), weights=(3, 1, 2)))
    for number in range(12):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 12
    assert [len(server.messages) for server in servers] == [6, 2, 4]


def test_the_turn_of_a_transport_that_fails_goes_to_another_one(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, b, c = servers
    a.script["mail"] = Reply(550, "5.7.1 sender not allowed")
    mail = make(failover(roundrobin(url(a), url(b)), url(c)))
    for number in range(6):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 6
    assert [len(server.messages) for server in servers] == [0, 6, 0]


# --- routes ----------------------------------------------------------------------------------


def test_routes_go_by_category_sender_and_recipient(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, c = servers
    routes = [
        route(url(a), category="auth"),
        route(url(b), recipient_domain="Far.test"),
        route(url(b), sender_domain="other.test", category="news"),
    ]
    mail = make(url(c), routes=routes)
    mail.send("ann@x.test", category="auth")
    mail.send("bob@far.test")
    mail.send("cid@x.test", sender="us@other.test", category="news")
    mail.send("dan@x.test", sender="us@other.test")
    mail.send("eva@x.test", category="news")
    assert mail.process_queue()["sent"] == 5
    assert took([a, b]) == [["ann@x.test"], ["bob@far.test", "cid@x.test"]]
    assert sorted(took([c])[0]) == ["dan@x.test", "eva@x.test"]


def test_a_message_to_several_routes_is_parted_and_each_gets_it_once(
    make: Any, servers: list[ScriptedServer]
) -> None:
    a, _, c = servers
    mail = make(url(c), routes=[route(url(a), recipient_domain="far.test")])
    mail.send(["ann@x.test", "bob@far.test", "cid@x.test", "dan@far.test"])
    assert mail.process_queue()["sent"] == 1
    assert took([a, c]) == [["bob@far.test", "dan@far.test"], ["ann@x.test", "cid@x.test"]]
    assert statuses(mail) == ["sent"]


def test_mail_whose_route_does_not_work_waits_and_the_rest_goes_out(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, _, c = servers
    a.script["banner"] = Reply(554, "5.7.1 go away")
    mail = make(url(c), routes=[route(url(a), category="auth")])
    for number in range(20):
        mail.send(f"user{number}@x.test", category="auth" if number % 2 else "site")
    assert mail.process_queue()["sent"] == 10
    assert took([a]) == [[]]
    assert {row["attempts"] for row in rows(mail, "recipient") if row["status"] != "sent"} == {0}
    a.script.clear()
    clock.advance(200)
    mail.process_queue()
    clock.advance(200)
    mail.process_queue()
    assert len(a.messages) == 10 and statuses(mail) == ["sent"] * 20


@pytest.mark.parametrize("stage", ["banner", "mail"])
def test_mail_whose_route_was_paused_goes_out_as_soon_as_a_probe_shows_the_repair(
    make: Any, servers: list[ScriptedServer], clock: Clock, stage: str
) -> None:
    a, _, c = servers
    a.script[stage] = Reply(554, "5.7.1 go away")
    mail = make(url(c), routes=[route(url(a), category="auth")])
    for number in range(4):
        mail.send(f"user{number}@x.test", category="auth" if number else "site")
    assert mail.process_queue()["sent"] == 1
    clock.advance(10)
    mail.process_queue()
    a.script.clear()
    clock.advance(21)
    for _ in range(2):  # one of them is the probe; what was put off meanwhile is due at once
        mail.process_queue()
    assert statuses(mail) == ["sent"] * 4
    assert {row["attempts"] for row in rows(mail, "recipient")} == {1}


def test_the_single_server_is_the_usual_way_where_there_are_routes_only(
    make: Any, tmp_path: Path, clock: Clock, servers: list[ScriptedServer]
) -> None:
    a, b, _ = servers
    mail = make_mail(
        tmp_path, clock=clock, server=f"127.0.0.1:{a.port}", routes=[route(url(b), category="auth")]
    )
    mail.send("ann@x.test")
    mail.send("bob@x.test", category="auth")
    assert mail.process_queue()["sent"] == 2
    assert took([a, b]) == [["ann@x.test"], ["bob@x.test"]]


# --- what is wrong with the configuration ----------------------------------------------------


def test_the_urls_of_routes_beside_a_single_server_are_looked_at_when_the_site_starts(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    wrong = route("gopher://me:top-secret@h.test", category="auth")
    mail = make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}", routes=[wrong])
    (problem,) = rows(mail, "problem")
    assert problem["cause"] == "bad-transport@" and "gopher://… is of no kind" in problem["detail"]
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1


@pytest.mark.parametrize(
    ("place", "option"),
    [("transports", "ca_file"), ("transports", "cert_file"), ("routes", "ca_file"), ("server", "ca_file")],
)
def test_a_file_of_a_transport_that_is_not_there_is_named_when_the_site_starts_and_only_once(
    tmp_path: Path, clock: Clock, certificates: Certificates, place: str, option: str
) -> None:
    file, own = tmp_path / "later.pem", certificates.server
    with ScriptedServer(tls="implicit", certificate=own) as server:
        address = f"127.0.0.1:{server.port}"
        spec = f"smtps://{address}?{option}={file}"
        options: dict[str, dict[str, Any]] = {
            "transports": {"transports": [spec], "ca_file": str(certificates.ca_file)},
            "routes": {"server": "memory", "routes": [route(spec, category="site")]},
            "server": {"server": address, "ssl": True, "ca_file": str(file)},
        }
        mail = make_mail(tmp_path, clock=clock, **options[place])
        (problem,) = rows(mail, "problem")
        rule = {"ca_file": "bad-ca-file", "cert_file": "bad-client-certificate"}[option]
        assert problem["cause"] == f"{rule}@smtps://{address}" and str(file) in problem["detail"]
        assert queries.stoppages(mail.db) == [], "there may be other transports"
        mail.send("ann@x.test")
        for _ in range(5):
            mail.process_queue()
            clock.advance(20)
        assert [row["status"] for row in rows(mail, "problem")] == ["open"], "it is not over in between"
        parts = (own.cert_file, own.key_file, certificates.ca_file)
        file.write_text("".join(part.read_text() for part in parts))
        clock.advance(400)
        assert mail.process_queue()["sent"] == 1
        assert open_causes(mail) == []


def test_a_mail_over_one_transport_says_nothing_of_a_file_of_another_one(
    tmp_path: Path, servers: list[ScriptedServer], clock: Clock
) -> None:
    other = f"smtps://127.0.0.1:1?ca_file={tmp_path / 'later.pem'}"
    mail = make_mail(tmp_path, clock=clock, transports=[url(servers[0]), other])
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == ["bad-ca-file"]


def test_a_key_that_is_given_in_the_place_of_its_path_is_not_shown(tmp_path: Path, clock: Clock) -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEsecret\n-----END PRIVATE KEY-----\n"
    mail = make_mail(tmp_path, clock=clock, transports=[lambda: SmtpTransport("127.0.0.1", 1, cert_file=key)])
    (problem,) = rows(mail, "problem")
    assert problem["cause"].startswith("bad-client-certificate@") and "MIIE" not in str(problem)


def test_what_to_do_names_the_transport_and_where_it_stands(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.script["ehlo"] = Reply(530, "5.7.0 must issue a STARTTLS command first")
    with refused_port() as nobody:
        mail = make(url(a), routes=[route(url(nobody), category="auth"), route(url(b), category="news")])
        mail.send("ann@x.test")
        mail.send("bob@x.test", category="auth")
        mail.process_queue()
        for _ in range(3):
            clock.advance(400)
            mail.process_queue()
        assert mail.send_direct_email("cid@x.test") is False
        told = {row["cause"].split("@")[0]: row["remedy"] for row in rows(mail, "problem")}
        assert f"Correct {name(a)} in transports= of the mailer" in told["tls-required"]
        assert f"Check {name(nobody)} in routes= of the mailer" in told["connect-refused"]
        assert "SMTP_" not in str(told)
        by_trial = [one.remedy for one in trial.try_transports(mail) if one.failure]
        assert by_trial == [told["tls-required"], told["connect-refused"]]


def test_what_to_do_of_a_single_server_beside_routes_names_its_own_settings(
    tmp_path: Path, clock: Clock
) -> None:
    with refused_port() as nobody:
        routes = [route("memory:", category="auth")]
        mail = make_mail(tmp_path, clock=clock, server=f"127.0.0.1:{nobody}", routes=routes)
        mail.send("ann@x.test")
        mail.process_queue()
    (problem,) = rows(mail, "problem")
    assert "SMTP_SERVER in settings.py" in problem["remedy"]


def test_a_server_that_is_yet_to_be_set_is_no_problem_beside_routes(tmp_path: Path) -> None:
    mail = make_mail(tmp_path, routes=[route("memory:", category="auth")])
    assert rows(mail, "problem") == []


@pytest.mark.parametrize(
    ("transports", "cause", "said"),
    [
        (["smtp://me:top-secret@h.test?tsl=no"], "bad-transport", "option tsl is unknown"),
        (["gopher://me:top-secret@h.test"], "bad-transport", "of no kind that is known"),
        (["sendgrid+smtp://"], "bad-transport", "the key is expected"),
        ([5], "bad-transport", "int is neither a URL nor a function"),
        ("smtp://h.test", "bad-transport", "transports is str, expected a list"),
        ([], "bad-transport", "failover has no member"),
        ([roundrobin("smtp://a.test", weights=(1, 2))], "bad-transport", "one weight"),
        ([roundrobin("smtp://a.test", weights=(0,))], "bad-transport", "one weight"),
        ([failover(failover())], "bad-transport", "has no member"),
        ([roundrobin("smtp://a.test", weights=5)], "bad-transport", "one weight"),  # type: ignore[arg-type]
        ([roundrobin("smtp://a.test", weights=("3",))], "bad-transport", "one weight"),  # type: ignore[arg-type]
        ([roundrobin("smtp://a.test", weights="3")], "bad-transport", "one weight"),  # type: ignore[arg-type]
        ([roundrobin("smtp://a.test", weights=(-1,))], "bad-transport", "one weight"),
        ([roundrobin("smtp://a.test", weights={3})], "bad-transport", "one weight"),  # type: ignore[arg-type]
        ([roundrobin("memory:", weight=(3,))], "bad-transport", "argument 'weight'"),  # type: ignore[call-arg]
        ([failover("memory:", weights=(3,))], "bad-transport", "argument 'weights'"),  # type: ignore[call-arg]
        ([failover("memory:", roundrobin("memory:", weights=5))], "bad-transport", "one weight"),  # type: ignore[arg-type]
        (["smtp://h.test?region=x"], "bad-transport", "unknown"),
        ([failover(["smtp://a.test"])], "bad-transport", "a list stands where a URL"),  # type: ignore[arg-type]
        ([["smtp://a.test"]], "bad-transport", "a list stands where a URL"),
        ([("smtp://a.test",)], "bad-transport", "tuple is neither a URL nor a function"),
        ([{"url": "smtp://me:top-secret@h.test"}], "bad-transport", "a dict stands where a URL"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_a_problem_at_start_and_mail_queues(
    tmp_path: Path, transports: Any, cause: str, said: str
) -> None:
    mail = make_mail(tmp_path, transports=transports)
    (problem,) = rows(mail, "problem")
    assert (problem["cause"].split("@")[0], problem["failure_kind"]) == (cause, "configuration")
    assert said in problem["detail"] and "top-secret" not in str(problem)
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued"] and open_causes(mail) == [cause]
    mail.settings.transports = ["memory:"]
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == [] and len(mail.captured) == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (route(["smtp://a.test"], category="auth"), "a list stands where a URL"),  # type: ignore[arg-type]
        (route("smtp://a.test", recipient_domain="Bücher.test"), "'xn--bcher-kva.test'"),
        (route("smtp://a.test", sender_domain="@x.test"), "'@x.test', expected a domain as in DNS"),
        (route("smtp://a.test", recipient_domain="ann@x.test"), "expected a domain as in DNS"),
        (route("smtp://a.test", recipient_domain="*.x.test"), "expected a domain as in DNS"),
        (route("smtp://a.test", sender_domain=["x.test"]), "expected a domain as in DNS"),  # type: ignore[arg-type]
        (route("smtp://a.test", category=["auth"]), "category is list, expected one word"),  # type: ignore[arg-type]
        (route("smtp://a.test", "auth"), "positional argument"),  # type: ignore[misc]
        (route("smtp://a.test", categories="auth"), "argument 'categories'"),  # type: ignore[call-arg]
        (route(category="auth"), "argument: 'to'"),  # type: ignore[call-arg]
        (route(roundrobin("memory:", weights=5), category="auth"), "one weight"),  # type: ignore[arg-type]
    ],
)
def test_a_route_that_no_message_would_ever_take_is_a_problem_at_start_and_mail_queues(
    make: Any, wrong: Any, said: str
) -> None:
    mail = make("memory:", routes=[wrong])
    (problem,) = rows(mail, "problem")
    assert problem["cause"].split("@")[0] == "bad-transport" and said in problem["detail"]
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued"]
    mail.settings.routes = [route("memory:", recipient_domain="X.test", sender_domain="site.TEST")]
    assert mail.process_queue()["sent"] == 1 and open_causes(mail) == []


def test_what_a_plan_shows_of_itself_holds_no_secrets() -> None:
    def made() -> Transport:
        raise AssertionError

    part = roundrobin(
        "smtp://me:pass@word@h.test?tls=none", "resend+api://re_key?name=b", made, weights=(2, 1, 1)
    )
    whole = [
        failover(part, "me:word@h.test"),
        route(part, category="auth"),
        failover("ses://k:word@eu-west-1"),
    ]
    shown = repr(whole)
    for secret in ("me", "pass", "word", "key", "k:"):
        assert secret not in shown.replace("made", "")
    assert "roundrobin('smtp://…@h.test?tls=none', 'resend+api://…', " in shown
    assert "category='auth')" in shown and "'ses://…@eu-west-1'" in shown


def test_one_transport_that_cannot_be_made_is_reported_and_the_others_work(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    mail = make("gopher://h.test", url(servers[0]))
    for _ in range(2):
        mail.send("ann@x.test")
        assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == ["bad-transport"] and len(rows(mail, "problem")) == 1


def test_two_transports_of_one_name_are_told_apart_by_a_name_of_their_own(
    make: Any, servers: list[ScriptedServer]
) -> None:
    (a, *_) = servers
    mail = make(url(a), url(a) + "&timeout=7")
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == ["bad-transport"]
    mail.settings.transports = [url(a), url(a) + "&name=bulk"]
    mail.process_queue()
    assert open_causes(mail) == []


# --- sending now -----------------------------------------------------------------------------


def test_send_direct_email_goes_by_the_next_transport_too(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, c = servers
    a.script["mail"] = Reply(451, "4.3.0 busy")
    mail = make("gopher://h.test", url(a), url(b), routes=[route(url(c), recipient_domain="far.test")])
    assert mail.send_direct_email(["ann@x.test", "bob@far.test"]) is True
    assert took(servers) == [[], ["ann@x.test"], ["bob@far.test"]]
    b.script["rcpt"] = Reply(550, "5.1.1 no such user")
    assert mail.send_direct_email("cid@x.test") is False
    assert mail.result == {"cid@x.test": (550, "5.1.1 no such user")}
    mail.settings.transports = [url(a), "gopher://h.test"]
    assert mail.send_direct_email("cid@x.test") is False


@pytest.mark.parametrize(
    "recipients", [["ann@x.test", "bob@far.test", "cid@x.test"], ["bob@far.test", "ann@x.test", "cid@x.test"]]
)
def test_a_route_without_a_transport_that_can_be_made_keeps_the_mail_from_nobody_else(
    make: Any, servers: list[ScriptedServer], recipients: list[str]
) -> None:
    mail = make(url(servers[0]), routes=[route("gopher://h.test", recipient_domain="far.test")])
    assert mail.send_direct_email(recipients) is False
    assert took(servers)[0] == ["ann@x.test", "cid@x.test"]
    assert list(mail.result) == ["bob@far.test"]
    assert open_causes(mail) == ["bad-transport"]


def test_each_cause_that_keeps_a_mail_sent_at_once_from_somebody_is_entered(
    make: Any, servers: list[ScriptedServer]
) -> None:
    servers[0].script["rcpt"] = Reply(550, "5.1.1 no such user")
    mail = make(url(servers[0]), routes=[route("gopher://h.test", recipient_domain="far.test")])
    assert mail.send_direct_email(["ann@x.test", "cid@x.test", "bob@far.test"]) is False
    assert sorted(open_causes(mail)) == ["bad-transport", "unknown-address"]
    assert [row["seen"] for row in rows(mail, "problem") if "unknown-address" in row["cause"]] == [1]
    assert str(mail.error).endswith("no such user")


def test_send_direct_email_leaves_a_paused_transport_alone_where_there_is_another(
    make: Any, servers: list[ScriptedServer], clock: Clock
) -> None:
    a, b, _ = servers
    a.script["banner"] = Reply(554, "5.7.1 go away")
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    mail.process_queue()
    mail.db.commit()
    before = a.connections
    assert mail.send_direct_email("bob@x.test") is True
    assert a.connections == before
    clock.advance(31)
    a.script.clear()
    assert mail.send_direct_email("cid@x.test") is True
    assert took([a]) == [["cid@x.test"]], "a probe of it is due"


def test_send_direct_email_tries_all_where_all_are_paused(make: Any, servers: list[ScriptedServer]) -> None:
    a, b, _ = servers
    a.script["banner"] = b.script["banner"] = Reply(554, "5.7.1 go away")
    mail = make(url(a), url(b))
    mail.send("ann@x.test")
    mail.process_queue()
    b.script.clear()
    assert mail.send_direct_email("bob@x.test") is True
    assert took([b]) == [["bob@x.test"]]

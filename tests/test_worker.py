"""Draining: outcomes, pauses, probes, problems, and what dead workers leave behind."""

from __future__ import annotations

import _thread
import logging
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, RetryPolicy, delivery, leases, outbox, supply, words, worker
from mailqueue.classify import EXITS
from mailqueue.database import own_transaction
from mailqueue.journal import Journal
from mailqueue.rounds import Steps
from mailqueue.transports.base import Answer, Rest, Series, Transport
from support.certificates import Certificates
from support.mail import START, Clock, make_mail, open_causes, rows, statuses, to_server
from support.smtp_faults import Close, Fault, Hang, Late, Reply, nth
from support.smtp_server import ScriptedServer, refused_port

DAY = 86400.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, clock: Clock, smtp: ScriptedServer) -> QueuedMailer:
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    return mail


def test_what_is_due_is_sent_over_one_connection(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    for number in range(5):
        mail.send(f"user{number}@x.test", subject=f"number {number}")
    counts = mail.process_queue()
    assert counts == {"sent": 5, "deferred": 0, "failed": 0, "in_doubt": 0, "queued": 0}
    assert [m.rcpt_tos for m in smtp.messages] == [(f"user{number}@x.test",) for number in range(5)]
    assert smtp.connections == 1
    assert statuses(mail) == ["sent"] * 5


@pytest.mark.parametrize(("slow_from", "few"), [(1e9, True), (0.0, False)])
def test_only_where_the_server_is_what_is_waited_for_there_are_more_than_two_connections(
    mail: QueuedMailer,
    smtp: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    slow_from: float,
    few: bool,
) -> None:
    monkeypatch.setattr(supply, "SLOW", slow_from)
    for of, wait in ((worker, "LATE"), (worker, "GROUP_SECONDS"), (delivery, "LATE")):
        monkeypatch.setattr(of, wait, 30.0)  # not even a busy machine is to look like a slow server
    for number in range(100):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 100
    assert smtp.connections == 2 if few else smtp.connections > 2


def test_a_server_that_lets_the_first_message_wait_gets_the_others_over_further_connections(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    first = threading.Event()

    def wait(session: object, line: str) -> None:
        if not first.is_set():
            first.set()
            enough.wait(30)

    enough = threading.Event()
    smtp.script["dot"] = wait
    smtp.script["ehlo"] = lambda session, line: enough.set() if smtp.connections > 1 else None
    for number in range(100):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 100
    assert smtp.connections > 1


def test_a_server_that_becomes_slow_midway_gets_the_rest_over_further_connections(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["dot"] = lambda session, line: Late(0.05) if len(smtp.messages) >= 150 else None
    for number in range(200):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 200
    assert smtp.connections > 1


def test_a_drain_that_may_have_no_connection_any_more_gives_back_what_it_claimed(
    tmp_path: Path, smtp: ScriptedServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail = make_mail(tmp_path, clock=clock, limits={"transport": "1 connections"})
    to_server(mail, smtp)
    late = clock.now - leases.LEASE - 1
    other = leases.register(mail.db, token="o", host_name="o", pid=1, journal="/nowhere", now=late)
    mail.send("ann@x.test")
    claim = outbox.claim

    def claim_beside(*given: Any, **named: Any) -> Any:
        leases.beat(mail.db, other, clock.now)  # it was only late, and is the older one
        mail.db.commit()
        return claim(*given, **named)

    monkeypatch.setattr(outbox, "claim", claim_beside)
    assert mail.process_queue()["queued"] == 1
    assert (statuses(mail), smtp.messages) == (["queued"], [])
    monkeypatch.undo()
    leases.retire(mail.db, other)
    assert mail.process_queue()["sent"] == 1


def test_every_recipient_has_its_own_truth(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = {
        "dead@x.test": Reply(550, "5.1.1 no such user"),
        "grey@x.test": Reply(451, "4.7.1 come back later"),
    }
    mail.send(["ann@x.test", "dead@x.test", "grey@x.test"], subject="to three")
    assert mail.process_queue()["deferred"] == 1
    found = {row["address"]: row for row in rows(mail, "recipient")}
    assert {address: row["status"] for address, row in found.items()} == {
        "ann@x.test": "sent",
        "dead@x.test": "failed",
        "grey@x.test": "deferred",
    }
    assert (found["dead@x.test"]["code"], found["dead@x.test"]["enhanced"]) == (550, "5.1.1")
    assert "no such user" in found["dead@x.test"]["reply"]
    assert found["ann@x.test"]["transport"] == f"smtp://127.0.0.1:{smtp.port}"
    assert len(rows(mail, "attempt")) == 3


def test_a_deferred_recipient_is_tried_again_alone_and_not_before_its_time(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["rcpt"] = {"grey@x.test": Reply(450, "4.2.0 busy")}
    mail.send(["ann@x.test", "grey@x.test"])
    mail.process_queue()
    smtp.script.clear()
    assert mail.process_queue()["sent"] == 0
    clock.advance(60 * 1.2 + 1)
    assert mail.process_queue()["sent"] == 1
    assert [m.rcpt_tos for m in smtp.messages] == [("ann@x.test",), ("grey@x.test",)]
    assert statuses(mail) == ["sent"]


def test_delays_grow_and_the_message_fails_when_it_is_too_old(
    tmp_path: Path, clock: Clock, smtp: ScriptedServer
) -> None:
    mail = make_mail(tmp_path, clock=clock, retry=RetryPolicy(give_up_after=DAY, jitter=0))
    to_server(mail, smtp)
    smtp.script["rcpt"] = {"grey@x.test": Reply(450, "4.2.0 busy")}
    mail.send("grey@x.test")
    delays = []
    while mail.process_queue()["deferred"]:
        delays.append(rows(mail, "message")[0]["due"] - clock.now)
        clock.advance(delays[-1])
    assert delays[:4] == [60, 120, 240, 480]
    assert max(delays) == 4 * 3600
    assert clock.now - START >= DAY
    message = rows(mail, "message")[0]
    assert (message["status"], message["attempts"], message["due"]) == ("failed", len(delays) + 1, None)
    assert "busy" in message["error"]


def test_time_spent_waiting_for_a_repair_does_not_make_a_message_old(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.settings.server = None
    mail.send("grey@x.test")
    mail.process_queue()
    clock.advance(30 * DAY)
    to_server(mail, smtp)
    smtp.script["rcpt"] = {"grey@x.test": Reply(450, "4.2.0 busy")}
    assert mail.process_queue()["deferred"] == 1


@pytest.mark.parametrize(
    ("settings", "cause"),
    [
        ({"server": None}, "no-server"),
        ({"server": "gae"}, "unknown-server"),
        ({"server": "a b:25"}, "bad-server-address"),
        ({"sender": None}, "no-sender"),
        ({"sender": "you@example.com"}, "example-sender"),
        ({"sender": "not an address"}, "bad-sender"),
        ({"login": "no-colon"}, "bad-login"),
    ],
)
def test_settings_that_cannot_be_used_are_one_problem_and_cost_nothing(
    mail: QueuedMailer, settings: dict[str, Any], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = {name: getattr(mail.settings, name) for name in settings}
    vars(mail.settings).update(settings)
    mail.send("ann@x.test")
    with caplog.at_level(logging.ERROR, "mailqueue"):
        for _ in range(3):
            assert not any(mail.process_queue().values())
    assert open_causes(mail) == [cause]
    assert len([r for r in caplog.records if r.name == "mailqueue"]) == 1
    assert rows(mail, "problem")[0]["seen"] == 3
    assert (statuses(mail), rows(mail, "attempt")) == (["queued"], [])
    vars(mail.settings).update(good)
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


def test_a_rejected_login_pauses_the_transport_until_the_settings_change(
    tmp_path: Path, clock: Clock, certificates: Certificates
) -> None:
    with ScriptedServer(tls="starttls", certificate=certificates.server, auth={"site": "right"}) as server:
        mail = make_mail(
            tmp_path, clock=clock, tls=True, login="site:wrong", ca_file=str(certificates.ca_file)
        )
        to_server(mail, server)
        for number in range(3):
            mail.send(f"user{number}@x.test")
        mail.process_queue()
        assert open_causes(mail) == ["auth-rejected"]
        mail.process_queue()
        assert server.connections == 1, "a paused transport was touched"
        assert "wrong" not in str(rows(mail, "problem")) + str(rows(mail, "transport"))
        mail.settings.login = "site:right"
        assert mail.process_queue()["sent"] == 3
    assert open_causes(mail) == []
    assert [row["attempts"] for row in rows(mail, "message")] == [1, 1, 1]


def test_a_pause_is_probed_after_30_seconds_then_less_and_less_often(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["ehlo"] = Reply(550, "5.7.1 go away")
    mail.send("ann@x.test")
    mail.process_queue()
    waits = []
    for probe in range(2, 8):
        begun = clock.now
        while smtp.connections < probe:
            clock.advance(5)
            mail.process_queue()
        waits.append(clock.now - begun)
    assert waits == [30, 60, 120, 240, 300, 300]
    assert open_causes(mail) == ["ehlo-rejected"]
    smtp.script.clear()
    clock.advance(300)
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []
    assert rows(mail, "message")[0]["attempts"] == 1


def test_a_probe_that_a_stop_cuts_short_is_made_by_the_next_drain(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.send("ann@x.test")
    smtp.script["banner"] = Reply(554, "5.3.2 not now")
    mail.process_queue()
    clock.advance(31)
    smtp.script["banner"] = Hang()
    stop = threading.Event()
    draining = threading.Thread(target=mail.process_queue, kwargs={"stop": stop})
    draining.start()
    smtp.wait_for_stage("banner", 2)
    stop.set()
    draining.join(20)
    assert not draining.is_alive() and statuses(mail) == ["queued"]
    smtp.script.clear()
    smtp.release()
    assert mail.process_queue()["sent"] == 1


def test_a_probe_resolves_the_problem_even_when_no_mail_waits(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["ehlo"] = Reply(550, "go away")
    mail.send("ann@x.test")
    mail.process_queue()
    with mail.transaction():
        outbox.cancel(mail.db, 1, clock.now, mail.site.retention)
    smtp.script.clear()
    clock.advance(31)
    mail.process_queue()
    assert open_causes(mail) == []
    assert rows(mail, "transport")[0]["paused_on"] is None


def test_a_server_that_never_answered_is_reported_at_once(mail: QueuedMailer) -> None:
    with refused_port() as port:
        mail.settings.server = f"127.0.0.1:{port}"
        mail.send("ann@x.test")
        mail.process_queue()
    assert open_causes(mail) == ["connect-refused"]
    assert statuses(mail) == ["queued"]


def test_a_server_that_worked_before_is_reported_only_when_it_stays_away(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.send("ann@x.test")
    mail.process_queue()
    smtp.stop()
    mail.send("bob@x.test")
    reported = []
    for _ in range(3):
        mail.process_queue()
        reported.append(open_causes(mail))
        clock.advance(301)
    assert reported == [[], [], ["connect-refused"]]
    assert rows(mail, "message")[1]["attempts"] == 0
    smtp.start()
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


def test_a_sender_the_server_refuses_pauses_and_one_message_probes(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["mail"] = Reply(553, "5.7.1 sender address not owned by user")
    for number in range(3):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["queued"] == 3
    assert open_causes(mail) == ["sender-rejected"]
    clock.advance(31)
    mail.process_queue()
    assert smtp.reached["mail"] == 2, "a probe is one message"
    assert open_causes(mail) == ["sender-rejected"]
    smtp.script.clear()
    clock.advance(61)
    assert mail.process_queue()["sent"] == 3
    assert open_causes(mail) == []


def test_a_message_with_a_sender_of_its_own_that_is_refused_holds_up_nobody_else(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["mail"] = {"visitor@elsewhere.test": Reply(553, "5.7.1 not owned by user")}
    mail.send("office@x.test", sender="visitor@elsewhere.test")
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1
    assert statuses(mail) == ["queued", "sent"]
    assert open_causes(mail) == ["sender-rejected"]
    assert rows(mail, "message")[0]["attempts"] == 0
    smtp.script.clear()
    clock.advance(61)
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("5.7.1 Relay access denied", "relay-denied"),
        ("5.7.1 Service unavailable; Client host [203.0.113.7] blocked using bl.test", "host-blocked"),
    ],
)
def test_the_sites_fault_at_one_recipient_holds_that_one_only(
    mail: QueuedMailer, smtp: ScriptedServer, said: str, cause: str
) -> None:
    smtp.script["rcpt"] = {"far@away.test": Reply(554, said)}
    mail.send("far@away.test")
    mail.send("near@x.test")
    assert mail.process_queue()["sent"] == 1
    assert statuses(mail) == ["queued", "sent"]
    assert open_causes(mail) == [cause]
    assert rows(mail, "recipient")[0]["attempts"] == 0
    mail.settings.login = None
    mail.settings.hostname = "relay.site.test"  # the administrator changes something: at once
    smtp.script.clear()
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


@pytest.mark.parametrize(
    ("answer", "status"), [(Reply(250, "2.0.0 taken"), "sent"), (Close(taken=True), "in_doubt")]
)
def test_who_got_the_mail_does_not_get_it_again_because_another_recipient_met_a_fault_of_the_site(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, answer: Fault, status: str
) -> None:
    refused = Reply(550, "5.7.26 no SPF, no DKIM")
    smtp.script.update({"rcpt": {"far@away.test": refused}, "dot": nth(answer, 1)})
    mail.send(["near@x.test", "far@away.test"])
    mail.send("next@x.test")
    mail.process_queue()
    near = rows(mail, "recipient")[0]
    assert (near["status"], near["attempts"]) == (status, 1)
    assert open_causes(mail) == ["sender-not-authenticated"]
    assert [m.rcpt_tos for m in smtp.messages] == [("near@x.test",), ("next@x.test",)], "nobody else waits"
    smtp.script.clear()
    clock.advance(301)
    mail.process_queue()
    assert statuses(mail) == ["sent", "sent"]
    taken = Counter(one for m in smtp.messages for one in m.rcpt_tos)
    assert taken == {"near@x.test": 1 + (status == "in_doubt"), "far@away.test": 1, "next@x.test": 1}
    assert open_causes(mail) == []


def test_a_wait_for_the_answer_to_the_dot_that_ends_in_silence_is_in_doubt(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["dot"] = Close(taken=True)
    mail.send("ann@x.test")
    mail.send("bob@x.test")
    assert mail.process_queue()["in_doubt"] == 2
    assert len(smtp.messages) == 2
    assert [row["failure_kind"] for row in rows(mail, "recipient")] == ["in_doubt", "in_doubt"]


def test_a_message_in_doubt_is_sent_again_with_the_same_message_id(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    smtp.script["dot"] = Close(taken=True)
    mail.send("ann@x.test")
    mail.process_queue()
    smtp.script.clear()
    clock.advance(100)
    assert mail.process_queue()["sent"] == 1
    assert len({m.parsed()["Message-ID"] for m in smtp.messages}) == 1
    assert len(smtp.messages) == 2


def test_a_connection_lost_before_the_dot_is_an_attempt_and_the_next_message_goes_out(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["rcpt"] = {"cut@x.test": Close()}
    mail.send("cut@x.test")
    mail.send("ann@x.test")
    counts = mail.process_queue()
    assert (counts["deferred"], counts["sent"]) == (1, 1)
    assert [m.rcpt_tos for m in smtp.messages] == [("ann@x.test",)]


def test_a_damaged_message_fails_with_a_reason_and_the_queue_goes_on(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.send("ann@x.test")
    mail.send("bob@x.test")
    db = mail.db
    db(db.mailqueue_content.message_ref == 1).delete()
    db.commit()
    counts = mail.process_queue()
    assert (counts["failed"], counts["sent"]) == (1, 1)
    assert "damaged" in rows(mail, "message")[0]["error"]


class Strange(Transport):
    """A transport of somebody else that raises what it likes."""

    name = "strange://"

    def __init__(self, raises: BaseException | None, answers: list[Answer] | None = None):
        self.raises, self.answers = raises, answers

    def settings(self) -> tuple[object, ...]:
        return ()

    def open(self) -> None: ...

    def close(self) -> None: ...

    def deliver(self, sender: str, recipients: Any, mime: bytes, **_: Any) -> list[Answer]:
        if "bad@x.test" in recipients and self.raises:
            raise self.raises
        return [Answer(r, None) for r in recipients] if self.answers is None else self.answers


ORDINARY = [RuntimeError("boom"), KeyError("x"), MemoryError(), AssertionError()]


@pytest.mark.parametrize("error", [*ORDINARY, *(end() for end in EXITS)], ids=repr)
def test_whatever_a_transport_raises_only_its_message_waits(mail: QueuedMailer, error: BaseException) -> None:
    mail.site.make_transport = lambda: Strange(error)
    for address in ("bad@x.test", "ann@x.test", "bob@x.test"):
        mail.send(address)
    counts = mail.process_queue()
    assert (counts["deferred"], counts["sent"]) == (1, 2)
    assert open_causes(mail) == ["unknown-exception"]
    mail.site.make_transport = lambda: Strange(None)
    mail.site.clock.advance(100)
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


def test_a_transport_that_forgets_a_recipient_does_not_stop_the_queue(mail: QueuedMailer) -> None:
    mail.site.make_transport = lambda: Strange(None, answers=[])
    mail.send("ann@x.test")
    assert mail.process_queue()["deferred"] == 1


class Exiting(Strange):
    """A transport whose library calls sys.exit() in one of its steps."""

    def __init__(self, step: str):
        super().__init__(None)
        self.step = step

    def open(self) -> None:
        self._take("open")
        if threading.current_thread().name == "mailqueue connection":
            self._take("open again")

    def deliver(self, sender: str, recipients: Any, mime: bytes, **_: Any) -> list[Answer]:
        if self.step == "go_on" and self.following:
            self.following.next()
        return [Answer(recipient, None) for recipient in recipients]

    def go_on(self, series: Series) -> Steps[Rest]:
        yield from ()
        self.stage = words.DATA
        series.begin(None)
        self._take("go_on")
        raise AssertionError

    def close(self) -> None:
        self._take("close")

    def _take(self, step: str) -> None:
        if step == self.step:
            sys.exit("no licence")


def test_an_exit_of_a_transport_that_opens_pauses_it_and_is_told(mail: QueuedMailer, clock: Clock) -> None:
    mail.site.make_transport = lambda: Exiting("open")
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 0
    assert open_causes(mail) == ["unknown-exception"]
    assert rows(mail, "message")[0]["attempts"] == 0
    mail.site.make_transport = lambda: Strange(None)
    clock.advance(400)
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []


def test_an_exit_of_a_connection_that_opens_costs_its_message_no_attempt(
    mail: QueuedMailer, clock: Clock
) -> None:
    mail.site.make_transport = lambda: Exiting("open again")
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 0
    assert (rows(mail, "message")[0]["attempts"], rows(mail, "worker")) == (0, [])
    mail.site.make_transport = lambda: Strange(None)
    clock.advance(400)
    assert mail.process_queue()["sent"] == 1


def test_an_exit_in_a_series_is_the_answer_to_its_message(mail: QueuedMailer, clock: Clock) -> None:
    mail.site.connections = 1
    mail.site.make_transport = lambda: Exiting("go_on")
    for number in range(4):
        mail.send(f"user{number}@x.test")
    counts = mail.process_queue()
    deferred = counts["deferred"]  # one at least: how many are behind another one, the threads decide
    assert deferred and counts["sent"] == 4 - deferred
    assert open_causes(mail) == ["unknown-exception"]
    mail.site.make_transport = lambda: Strange(None)
    clock.advance(400)
    assert mail.process_queue()["sent"] == deferred


def test_an_exit_of_a_transport_that_closes_is_only_logged(
    mail: QueuedMailer, caplog: pytest.LogCaptureFixture
) -> None:
    mail.site.make_transport = lambda: Exiting("close")
    for address in ("ann@x.test", "bob@x.test"):
        mail.send(address)
        assert mail.process_queue()["sent"] == 1
    assert "SystemExit: no licence" in caplog.text


def test_an_interrupt_ends_the_drain_and_what_was_answered_is_not_sent_again(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    class Interrupted(Strange):
        def deliver(self, *arguments: Any, **keywords: Any) -> list[Answer]:
            _thread.interrupt_main()
            return super().deliver(*arguments, **keywords)

    mail.send("ann@x.test")
    working = mail.site.make_transport
    mail.site.make_transport = lambda: Interrupted(None)
    with pytest.raises(KeyboardInterrupt):
        mail.process_queue()
    assert statuses(mail) == ["sending"]
    mail.site.make_transport = working
    mail.process_queue()
    assert (statuses(mail), smtp.messages) == (["sent"], [])
    assert rows(mail, "worker") == []
    assert list(Path(mail.site.journals).iterdir()) == []


def test_nothing_is_open_in_the_database_while_the_transport_works(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    from mailqueue import database

    seen = []

    class Looking(Strange):
        def open(self) -> None:
            seen.append(database.in_transaction(mail.db))

        def deliver(self, *arguments: Any, **keywords: Any) -> list[Answer]:
            seen.append(database.in_transaction(mail.db))
            return super().deliver(*arguments, **keywords)

    mail.site.make_transport = lambda: Looking(None)
    mail.send("ann@x.test")
    mail.send("bob@x.test")
    assert mail.process_queue()["sent"] == 2
    assert seen
    assert not any(seen)


def test_no_further_message_is_begun_after_the_time_given(mail: QueuedMailer, clock: Clock) -> None:
    mail.send("ann@x.test")
    assert not any(mail.process_queue(until=clock.now).values())
    assert mail.process_queue(until=clock.now + 1)["sent"] == 1


def test_auths_mail_overtakes_a_batch(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.send("bulk@x.test", priority=2)
    mail.send("site@x.test")
    mail.send("auth@x.test", priority=0)
    mail.process_queue()
    assert [m.rcpt_tos[0] for m in smtp.messages] == ["auth@x.test", "site@x.test", "bulk@x.test"]


def test_hundreds_of_recipients_go_out_in_portions_each_once(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    addresses = [f"user{number}@x.test" for number in range(250)]
    mail.send(addresses)
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    assert sorted(a for m in smtp.messages for a in m.rcpt_tos) == sorted(addresses)
    assert max(len(m.rcpt_tos) for m in smtp.messages) == 100


def test_too_many_recipients_are_split_and_the_rest_follows_at_once(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    taken: list[Any] = []

    def only_two(session: Any, line: Any) -> Reply | None:
        taken.append(line)
        return Reply(452, "4.5.3 too many recipients") if len(taken) > 2 else None

    smtp.script["mail"] = lambda session, line: taken.clear()
    smtp.script["rcpt"] = only_two
    mail.send([f"user{number}@x.test" for number in range(5)])
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    assert sorted(a for m in smtp.messages for a in m.rcpt_tos) == [f"user{n}@x.test" for n in range(5)]


def test_a_hanging_server_is_left_after_the_time_that_is_set(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["rcpt"] = {"slow@x.test": Hang()}
    mail.settings.timeout = 0.2
    mail.send("slow@x.test")
    mail.send("ann@x.test")
    counts = mail.process_queue()
    assert (counts["deferred"], counts["sent"]) == (1, 1)


def test_the_content_of_what_was_sent_is_deleted_when_its_time_is_over(
    mail: QueuedMailer, clock: Clock
) -> None:
    mail.send("ann@x.test")
    mail.process_queue()
    clock.advance(8 * DAY)
    mail.process_queue()
    assert rows(mail, "content") == []
    assert statuses(mail) == ["sent"]
    clock.advance(180 * DAY)
    mail.process_queue()
    assert [rows(mail, table) for table in ("message", "recipient", "attempt")] == [[], [], []]


def test_a_worker_that_lost_its_lease_sends_no_more(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        mail.send(f"user{number}@x.test")

    class Robbed(Strange):
        def deliver(self, *arguments: Any, **keywords: Any) -> list[Answer]:
            with own_transaction(mail.db):
                mail.db(mail.db.mailqueue_worker.id > 0).delete()  # somebody declared us dead
            monkeypatch.setattr(leases, "FRESH", 0.0)  # a long time has gone by
            return super().deliver(*arguments, **keywords)

    mail.site.make_transport = lambda: Robbed(None)
    assert mail.process_queue()["sent"] == 1
    assert statuses(mail) == ["sent", "queued", "queued"]


def test_a_long_queue_goes_out_over_several_connections_each_message_once(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "SLOW", 0.0)
    addresses = [f"user{number}@x.test" for number in range(120)]
    for address in addresses:
        mail.send(address)
    assert mail.process_queue()["sent"] == 120
    assert sorted(m.rcpt_tos[0] for m in smtp.messages) == sorted(addresses)
    assert 1 < smtp.connections <= 4


def test_a_server_that_takes_one_connection_only_is_not_paused_for_it(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["banner"] = nth(Reply(421, "4.7.0 too many connections"), 2, 3, 4)
    for number in range(60):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 60
    assert [row["attempts"] for row in rows(mail, "message")] == [1] * 60
    assert open_causes(mail) == []


def test_a_stop_finishes_what_is_at_hand_and_gives_the_rest_back(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    stop = threading.Event()

    class Stopping(Strange):
        def deliver(self, *arguments: Any, **keywords: Any) -> list[Answer]:
            stop.set()
            return super().deliver(*arguments, **keywords)

    mail.site.make_transport = lambda: Stopping(None)
    for number in range(20):
        mail.send(f"user{number}@x.test")
    counts = mail.process_queue(stop=stop)
    assert 1 <= counts["sent"] <= worker.NEAR * supply.FOR_EACH
    assert statuses(mail).count("queued") == 20 - counts["sent"]
    assert rows(mail, "worker") == []


def test_mail_of_another_priority_that_comes_meanwhile_goes_out_with_the_same_drain(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supply, "ABSENT_SECONDS", 1000.0)
    claims, claim = [], outbox.claim

    def noted(db: Any, *arguments: Any, **options: Any) -> Any:
        claims.append(tuple(options["priorities"]))
        found = claim(db, *arguments, **options)
        if len(claims) == 1:
            mail.send("late@x.test", priority=words.BULK)
        return found

    monkeypatch.setattr(outbox, "claim", noted)
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 2
    assert claims[0] == words.PRIORITIES and (words.NORMAL,) in claims


def noted(monkeypatch: pytest.MonkeyPatch, name: str, told: list[tuple[str, int]]) -> None:
    """Have each call of a verb of the outbox told, with the number of messages that it is about."""
    verb = getattr(outbox, name)

    def telling(db: Any, *arguments: Any, **options: Any) -> Any:
        found = verb(db, *arguments, **options)
        told.append((name, len(found if name == "claim" else arguments[0])))
        return found

    monkeypatch.setattr(outbox, name, telling)


def test_what_is_claimed_is_handed_out_before_more_is_claimed(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    for name in ("claim", "contents"):
        noted(monkeypatch, name, told)
    for number in range(worker.BATCH + 10):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == worker.BATCH + 10
    second = [place for place, (name, _) in enumerate(told) if name == "claim"][1]
    assert sum(number for name, number in told[:second] if name == "contents") == worker.BATCH


def test_what_was_sent_last_is_written_down_in_smaller_groups(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    noted(monkeypatch, "finish", told)
    monkeypatch.setattr(worker, "GROUP_SECONDS", 1000.0)
    smtp.script["rcpt"] = {"user149@x.test": Late(0.2)}
    for number in range(150):
        mail.send(f"user{number}@x.test")
    assert mail.process_queue()["sent"] == 150
    assert len(told) > 1 and all(number < worker.GROUP for _, number in told)


def test_mail_is_asked_for_once_before_what_was_sent_is_written_down_and_once_after(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int]] = []
    for name in ("claim", "finish"):
        noted(monkeypatch, name, told)
    monkeypatch.setattr(worker, "LOOK_SECONDS", 1000.0)
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1
    assert told == [("claim", 1), ("claim", 0), ("finish", 1), ("claim", 0)]


def test_a_message_that_the_server_lets_wait_holds_up_nobody_though_the_turn_is_over(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.2)
    smtp.script["rcpt"] = {"slow@x.test": Hang()}
    mail.send("slow@x.test")
    draining = threading.Thread(target=mail.process_queue, kwargs={"until": clock.now + 60})
    draining.start()
    smtp.wait_for_stage("rcpt")
    clock.advance(61)
    for number in range(3):
        mail.send(f"user{number}@x.test")
    mail.db.commit()
    assert len(smtp.wait_for(3)) == 3
    smtp.release()
    draining.join(20)
    assert not draining.is_alive()
    assert statuses(mail) == ["sent"] * 4


def test_a_worker_that_is_told_to_stop_holds_nothing_against_the_message_it_had_in_hand(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "GRACE", 0.1)
    smtp.script["rcpt"] = {"tarpit@x.test": Hang()}
    mail.send("tarpit@x.test")
    for time in range(1, outbox.MOST_CRASHES + 2):
        stop = threading.Event()
        draining = threading.Thread(target=mail.process_queue, kwargs={"stop": stop})
        draining.start()
        smtp.wait_for_stage("rcpt", time)
        stop.set()
        draining.join(20)
    assert rows(mail, "message")[0]["crashes"] is None
    smtp.script.clear()
    smtp.release()
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    assert rows(mail, "message")[0]["attempts"] == 1


def test_a_journal_counts_wherever_it_is_read_on_the_same_machine_and_not_after_its_crash(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In another container, or after a restart of it, with another host name."""
    expected = []
    for machine in (leases.this_machine(), "before the crash"):
        mail.send("ann@x.test")
        left = Journal(mail.site.journals)
        options = {"host_name": "another-container", "machine": machine, "journal": left.path}
        dead = leases.register(mail.db, token=left.token, pid=1, now=clock.now, **options)  # type: ignore[arg-type]
        assert len(outbox.claim(mail.db, dead, limit=9, now=clock.now)) == 1
        left.abandon()
        for _ in range(3):
            clock.advance(leases.LEASE)
            mail.process_queue()
        expected.append((statuses(mail)[-1], len(smtp.messages), Path(left.path).exists()))
    assert expected == [("sent", 1, False), ("in_doubt", 1, False)]


@pytest.mark.parametrize("damage", [{"due": None}, {"priority": 7}, {"priority": None}, {"priority": -1}])
def test_what_waits_without_a_time_or_a_priority_is_sent_after_all(
    mail: QueuedMailer, smtp: ScriptedServer, damage: dict[str, Any]
) -> None:
    mail.send("ann@x.test")
    mail.db(mail.db.mailqueue_message.id > 0).update(**damage)
    mail.db.commit()
    mail.process_queue()
    mail.process_queue()
    assert len(smtp.messages) == 1


def test_a_probe_set_by_a_clock_that_was_ahead_is_made_when_the_clock_is_right_again(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    clock.advance(2 * 3600)
    smtp.script["ehlo"] = Reply(550, "5.7.1 go away")
    mail.send("ann@x.test", send_at=START)
    mail.process_queue()
    mail.db(mail.db.mailqueue_message.id > 0).update(due=START)
    mail.db(mail.db.mailqueue_recipient.id > 0).update(due=START)
    mail.db.commit()
    clock.advance(-2 * 3600)
    smtp.script.clear()
    assert mail.process_queue()["sent"] == 1

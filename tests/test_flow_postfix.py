"""A real Postfix as the smart host, with TLS and login: what arrives in its mailboxes, come what may."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, check
from mailqueue.findings import PROBLEM
from support.certificates import Certificates
from support.dns_server import NameServer
from support.mail import Clock, make_mail, open_causes, rows, statuses
from support.postfix import BOXES, BOXES_DOMAIN, HOST, Postfix
from support.services import needs

USER, PASSWORD = f"site@{HOST}", "a secret/of: the site"
ROUNDS = 12  # drains, with a minute or more between them, after which all must be over
IN_THE_MIDDLE = 40  # messages delivered when it is stopped
MakeMail = Callable[..., QueuedMailer]


@pytest.fixture(scope="module")
def postfix(certificates: Certificates) -> Iterator[Postfix]:
    needs("postfix")
    with Postfix(certificates.server) as server:
        yield server


@pytest.fixture
def relay(postfix: Postfix) -> Postfix:
    """The one Postfix of this file, with its usual settings and empty mailboxes."""
    postfix.set_password("site", PASSWORD)
    postfix.fresh()
    return postfix


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(relay: Postfix, tmp_path: Path, clock: Clock, certificates: Certificates) -> Iterator[MakeMail]:
    made: list[QueuedMailer] = []

    def make(**options: Any) -> QueuedMailer:
        usual = {
            "server": f"127.0.0.1:{relay.port}",
            "tls": True,
            "login": f"{USER}:{PASSWORD}",
            "ca_file": str(certificates.ca_file),
        }
        made.append(make_mail(tmp_path, clock=clock, **{**usual, **options}))
        return made[-1]

    yield make
    for mail in made:
        mail.db.close()


def box(name: str) -> str:
    return f"{name}@{BOXES_DOMAIN}"


def send_until_over(mail: QueuedMailer, clock: Clock) -> None:
    for _ in range(ROUNDS):
        mail.process_queue()
        if not any(row["due"] for row in rows(mail, "message")):
            return
        clock.advance(70)


def subjects(relay: Postfix, name: str, count: int) -> Counter[str]:
    return Counter(str(message["Subject"]) for message in relay.wait_for(name, count))


def attempts(mail: QueuedMailer) -> list[int]:
    return [row["attempts"] for row in rows(mail, "recipient")]


def test_a_mail_arrives_as_it_was_written_over_tls_and_after_the_login(
    relay: Postfix, make: MakeMail
) -> None:
    mail = make()
    mail.send([box("ann"), box("bob")], "Grüße ✓", ("Zeile\n.\n..ende", "<p>Grüße</p>"))
    assert mail.process_queue()["sent"] == 1
    for name in ("ann", "bob"):
        (arrived,) = relay.wait_for(name, 1)
        assert (arrived["Subject"], arrived["Return-Path"]) == ("Grüße ✓", "<noreply@site.test>")
        assert "with ESMTPSA" in arrived["Received"]
        text = arrived.get_body(("plain",))
        assert text and text.get_content().replace("\r\n", "\n").rstrip() == "Zeile\n.\n..ende"


def test_stopped_in_the_middle_and_started_again_it_gets_everything_once(
    relay: Postfix, make: MakeMail, clock: Clock
) -> None:
    mail = make(connections=4)
    expected = {f"number {number}" for number in range(300)}
    for subject in expected:
        mail.send(box("ann"), subject)

    def stop() -> None:
        relay.wait_until(lambda: relay.count("ann") >= IN_THE_MIDDLE)
        relay.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    mail.process_queue()
    stopper.join()
    waiting = [row for row in rows(mail, "message") if row["status"] != "sent"]
    assert waiting, "it was stopped too late"
    assert mail.process_queue()["sent"] == 0
    relay.start()
    clock.advance(100)
    send_until_over(mail, clock)
    assert set(statuses(mail)) == {"sent"}
    got = subjects(relay, "ann", len(expected))
    assert set(got) == expected
    doubted = {row["message_ref"] for row in rows(mail, "attempt") if row["outcome"] == "in_doubt"}
    doubtful = {row["subject"] for row in rows(mail, "message") if row["id"] in doubted}
    assert {subject for subject, count in got.items() if count > 1} <= doubtful
    assert len(doubtful) <= 4, "one for each connection, at most"


def test_a_message_over_its_size_limit_fails_with_that_reason_and_the_others_arrive(
    relay: Postfix, make: MakeMail
) -> None:
    relay.restart(message_size_limit="3000")
    mail = make()
    mail.send(box("ann"), "big", "x" * 5000)
    mail.send(box("ann"), "small")
    mail.process_queue()
    assert statuses(mail) == ["failed", "sent"]
    assert sorted(str(row["cause"]) for row in rows(mail, "attempt")) == ["None", "too-big"]
    assert subjects(relay, "ann", 1) == {"small": 1}


def test_over_its_rate_limit_the_mail_waits_and_all_of_it_arrives_once(
    relay: Postfix, make: MakeMail, clock: Clock
) -> None:
    relay.restart(smtpd_client_message_rate_limit="3")
    mail = make(connections=1)
    for number in range(8):
        mail.send(box("ann"), f"number {number}")
    assert mail.process_queue()["sent"] == 3
    assert relay.wait_for("ann", 3)
    assert {"deferred"} == {status for status in statuses(mail) if status != "sent"}
    assert [row["name"] for row in rows(mail, "lesson") if row["strikes"]] == [
        f"transport:smtp+starttls://127.0.0.1:{relay.port}"
    ]
    relay.restart()
    clock.advance(70)
    send_until_over(mail, clock)
    assert subjects(relay, "ann", 8) == {f"number {number}": 1 for number in range(8)}
    assert open_causes(mail) == []


def test_while_its_disk_is_full_the_mail_waits_and_arrives_once_there_is_room(
    relay: Postfix, make: MakeMail, clock: Clock
) -> None:
    relay.restart(queue_minfree=str(10**13))
    mail = make()
    for number in range(3):
        mail.send(box("ann"), f"number {number}")
    assert mail.process_queue()["sent"] == 0
    assert "4.3.1" in {row["enhanced"] for row in rows(mail, "recipient")}
    relay.restart()
    clock.advance(100)
    send_until_over(mail, clock)
    assert subjects(relay, "ann", 3) == {f"number {number}": 1 for number in range(3)}


def test_more_recipients_than_it_takes_at_once_go_in_several_parts(relay: Postfix, make: MakeMail) -> None:
    relay.restart(smtpd_recipient_limit="3")
    mail = make()
    mail.send([box(name) for name in BOXES], "to all")
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    for name in BOXES:
        assert subjects(relay, name, 1) == {"to all": 1}


def test_after_a_change_of_its_password_the_mail_waits_at_no_cost_until_the_site_has_it_too(
    relay: Postfix, make: MakeMail
) -> None:
    relay.set_password("site", "another one")
    mail = make()
    for number in range(3):
        mail.send(box("ann"), f"number {number}")
    for _ in range(2):
        assert mail.process_queue()["sent"] == 0
    assert statuses(mail) == ["queued"] * 3
    assert (attempts(mail), open_causes(mail)) == ([0, 0, 0], ["auth-rejected"])
    assert PASSWORD not in str(rows(mail, "problem"))
    mail.settings.login = f"{USER}:another one"
    assert mail.process_queue()["sent"] == 3
    assert subjects(relay, "ann", 3) == {f"number {number}": 1 for number in range(3)}
    assert (attempts(mail), open_causes(mail), len(rows(mail, "problem"))) == ([1, 1, 1], [], 1)


def test_an_unknown_recipient_fails_for_good_and_the_others_of_the_message_get_it(
    relay: Postfix, make: MakeMail
) -> None:
    mail = make()
    mail.send([box("ann"), box("nobody"), box("bob")], "to three")
    mail.process_queue()
    found = [(row["status"], row["enhanced"]) for row in rows(mail, "recipient")]
    assert found[1] == ("failed", "5.1.1")
    assert [status for status, _ in found] == ["sent", "failed", "sent"]
    assert statuses(mail) == ["failed"]
    assert subjects(relay, "ann", 1) == subjects(relay, "bob", 1) == {"to three": 1}
    assert open_causes(mail) == []


def test_a_certificate_signed_by_nobody_gets_no_mail_and_no_password_until_it_is_pinned(
    relay: Postfix, make: MakeMail, certificates: Certificates
) -> None:
    relay.fresh(certificates.self_signed)
    mail = make()
    mail.send(box("ann"), "private")
    assert mail.process_queue()["sent"] == 0
    assert (attempts(mail), open_causes(mail)) == ([0], ["certificate"])
    shown = ssl.PEM_cert_to_DER_cert(certificates.self_signed.cert_file.read_text())
    pin = hashlib.sha256(shown).hexdigest()
    login = f"{USER}:{PASSWORD}".replace("@", "%40").replace("/", "%2F").replace(": ", "%3A%20")
    mail.settings.transports = [f"smtp://{login.replace(' ', '%20')}@127.0.0.1:{relay.port}?pin={pin}"]
    assert mail.process_queue()["sent"] == 1
    assert subjects(relay, "ann", 1) == {"private": 1}
    assert open_causes(mail) == []


def test_the_check_finds_nothing_wrong_with_it_and_sends_nothing(relay: Postfix, make: MakeMail) -> None:
    with NameServer() as names:
        found = check.examine(make(), check.Wanted(names.address))
    assert [str(one) for one in found if one.level == PROBLEM] == []
    assert "SIZE, 8BITMIME, SMTPUTF8, PIPELINING" in str(found)
    assert "The server lets noreply@site.test send." in str(found)
    relay.set_password("site", "another one")
    with NameServer() as names:
        (problem,) = [
            one for one in check.examine(make(), check.Wanted(names.address)) if one.level == PROBLEM
        ]
    assert "user name or password" in problem.said
    assert [relay.count(name) for name in BOXES] == [0] * len(BOXES)

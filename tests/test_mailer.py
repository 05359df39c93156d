"""What the drop-in mailers share: sending now, the log, results of each thread, settings of the moment."""

from __future__ import annotations

import logging
import math
import random
import socket
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, Retention
from mailqueue.classify import Failure
from py4web.core import DAL
from support.mail import SENDER, START, Clock, make_mail, open_causes, rows, statuses, to_server
from support.services import fresh_database
from support.smtp_faults import Close, Reply
from support.smtp_server import ScriptedServer, refused_port

FAILURE = Failure("configuration", "connect", "connect-refused", "refused")


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer) -> QueuedMailer:
    mail = make_mail(tmp_path)
    to_server(mail, smtp)
    return mail


# --- arguments that make no sense -----------------------------------------------------------
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("retry", 5), ("retry", 0), ("retry", {}), ("retention", 7), ("retention", timedelta(days=7)),
        ("journals", 5), ("journals", False), ("clock", 5), ("clock", "now"), ("rng", 5), ("rng", random),
        ("connections", 0), ("connections", -1), ("connections", True), ("connections", 1.5),
        ("connections", None), ("limits", 5), ("limits", {"x.test": 5}), ("doubt", "maybe"), ("doubt", None),
        ("auth_expires_after", "x"), ("auth_expires_after", 0), ("auth_expires_after", math.nan),
        ("auth_expires_after", True), ("silence", "x"), ("silence", 0), ("silence", -1), ("silence", None),
        ("silence", math.nan), ("silence", False),
    ],
)  # fmt: skip
def test_a_site_with_an_argument_that_makes_no_sense_does_not_start(
    tmp_path: Path, argument: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=argument):
        make_mail(tmp_path, **{argument: value})
    assert [path.name for path in tmp_path.glob("*.table")] == []


@pytest.mark.parametrize("name", ["sent_content", "other_content", "record"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 10**400, True, None, "7", timedelta(days=7)])
def test_a_retention_that_makes_no_sense_is_refused_by_the_name_of_its_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Retention(**{name: value})


def test_endless_patience_with_silence_reports_none(tmp_path: Path) -> None:
    clock = Clock()
    mail = make_mail(tmp_path, clock=clock, silence=math.inf)
    mail.send("ann@x.test")
    clock.advance(10**6)
    assert mail.silence() is None
    assert open_causes(mail) == []


def test_times_may_be_timedeltas_and_the_journals_folder_a_path(tmp_path: Path, smtp: ScriptedServer) -> None:
    hour, journals = timedelta(hours=1), tmp_path / "journals"
    mail = make_mail(tmp_path, auth_expires_after=hour, silence=hour, journals=journals)
    mail.queue_for_auth(lambda: {"to": "ann@x.test"}, {})
    assert rows(mail, "message")[0]["expires_on"] == START + 3600
    to_server(mail, smtp)
    mail.process_queue()
    assert journals.is_dir()
    assert mail.silence() is None


# --- servers that send nothing, settings of the moment -------------------------------------
def test_logging_writes_the_mail_to_the_log(mail: QueuedMailer, caplog: pytest.LogCaptureFixture) -> None:
    mail.settings.server = "logging"
    mail.send("ann@x.test", "Hällo", "the text")
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    for part in ("email not sent", "noreply@site.test", "ann@x.test", "Hällo", "the text"):
        assert part in caplog.text


def test_logging_to_a_file_appends_to_it(mail: QueuedMailer, tmp_path: Path) -> None:
    file = tmp_path / "mail.log"
    mail.settings.server = f"logging:{file}"
    for subject in ("first", "second"):
        mail.send("ann@x.test", subject)
        mail.process_queue()
    text = file.read_text(encoding="utf-8")
    assert text.index("first") < text.index("second")


def test_memory_keeps_the_mails(mail: QueuedMailer) -> None:
    mail.settings.server = "memory"
    mail.send("ann@x.test", "Hi")
    mail.process_queue()
    assert [captured.recipients for captured in mail.captured] == [("ann@x.test",)]


def test_settings_that_change_take_effect_at_the_next_drain(
    tmp_path: Path, mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    with ScriptedServer() as other:
        mail.send("ann@x.test", "one")
        mail.process_queue()
        mail.send("ann@x.test", "two")
        to_server(mail, other)
        mail.settings.sender = "new@site.test"
        mail.process_queue()
        assert [m.mail_from for m in smtp.messages] == ["noreply@site.test"]
        assert [m.mail_from for m in other.messages] == ["new@site.test"]


@pytest.mark.parametrize(
    ("sender", "domain"), [("Site <a@b.test>", "b.test"), ("a@[192.0.2.1]", "192.0.2.1")]
)
def test_the_message_id_is_in_the_senders_domain(mail: QueuedMailer, sender: str, domain: str) -> None:
    mail.settings.sender = sender
    mail.send("ann@x.test")
    assert rows(mail, "message")[0]["message_uid"].endswith(f"@{domain}>")


@pytest.mark.parametrize("sender", [None, "", "nobody"])
def test_a_site_without_a_sender_queues_all_the_same(mail: QueuedMailer, sender: str | None) -> None:
    mail.settings.sender = sender
    assert mail.send("ann@x.test") is True
    assert mail.counts()["queued"] == 1


# --- counts --------------------------------------------------------------------------------
def test_counts_name_every_status(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = {
        "dead@x.test": Reply(550, "5.1.1 no such user"),
        "grey@x.test": Reply(450, "4.2.0 busy"),
    }
    for name in ("ann", "bob", "dead", "grey"):
        mail.send(f"{name}@x.test")
    mail.process_queue()
    mail.send("late@x.test")
    assert {status: count for status, count in mail.counts().items() if count} == {
        "sent": 2,
        "failed": 1,
        "deferred": 1,
        "queued": 1,
    }


# --- sending now ---------------------------------------------------------------------------
def test_a_direct_mail_goes_out_at_once_and_past_the_queue(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    assert mail.send_direct_email("ann@x.test", "Hi", ("text", "<b>rich</b>")) is True
    assert (mail.error, mail.result) == (None, {})
    (message,) = smtp.messages
    assert message.parsed()["Subject"] == "Hi"
    assert message.parsed()["From"] == SENDER
    assert rows(mail, "message") == []


def test_a_refused_recipient_is_false_and_named_in_the_result(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    smtp.script["rcpt"] = {"dead@x.test": Reply(550, "5.1.1 no such user")}
    assert mail.send_direct_email(["ann@x.test", "dead@x.test"]) is False
    assert list(mail.result) == ["dead@x.test"]
    code, text = mail.result["dead@x.test"]
    assert (code, "no such user" in text) == (550, True)
    assert "no such user" in str(mail.error)
    assert len(smtp.messages) == 1
    assert len(open_causes(mail)) == 1
    smtp.script.clear()
    assert mail.send_direct_email("ann@x.test") is True
    assert (mail.error, mail.result) == (None, {})


def _refused(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.stop()


def _closed(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.script["banner"] = Close()


def _no_server(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.server = None


def _nonsense_server(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.server = 25


def _nonsense_timeout(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.timeout = "long"


def _example_sender(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.sender = "you@example.com"


def _no_sender(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.sender = None


def _bad_login(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.login = "user-without-password"


def _missing_certificates(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.ca_file, mail.settings.tls = "/does/not/exist", True


def _logging_into_a_folder(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    mail.settings.server = "logging:/"


FAULTS = [
    _refused,
    _closed,
    _no_server,
    _nonsense_server,
    _nonsense_timeout,
    _example_sender,
    _no_sender,
    _bad_login,
    _missing_certificates,
    _logging_into_a_folder,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_direct_mail_never_raises_and_its_failure_is_a_problem(
    mail: QueuedMailer, smtp: ScriptedServer, fault: Any
) -> None:
    fault(mail, smtp)
    assert mail.send_direct_email("ann@x.test") is False
    assert isinstance(mail.error, Exception)
    assert len(open_causes(mail)) == 1
    assert mail.send_direct_email("ann@x.test") is False
    assert [row["seen"] for row in rows(mail, "problem")] == [2]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_queued_mail_waits_whatever_the_settings_are(
    mail: QueuedMailer, smtp: ScriptedServer, fault: Any
) -> None:
    fault(mail, smtp)
    assert mail.send("ann@x.test") is True
    mail.process_queue()
    assert statuses(mail) != ["sent"]
    assert statuses(mail) != ["failed"]


@pytest.mark.parametrize(
    ("arguments", "keywords"),
    [((), {}), (("a@x.test",), {"no_such_argument": 1}), (("a@x.test",), {"to": "b@x.test"}), ((None,), {})],
)
def test_wrong_arguments_of_a_direct_mail_are_false_too(
    mail: QueuedMailer, arguments: Any, keywords: Any
) -> None:
    assert mail.send_direct_email(*arguments, **keywords) is False
    assert isinstance(mail.error, (TypeError, ValueError))
    assert len(open_causes(mail)) == 1


def test_a_direct_mail_needs_no_database_that_works(
    mail: QueuedMailer, smtp: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    mail.db.executesql("DROP TABLE mailqueue_problem")
    mail.db.commit()
    assert mail.send_direct_email("ann@x.test") is True
    smtp.script["mail"] = Reply(550, "5.7.1 not you")
    assert mail.send_direct_email("ann@x.test") is False
    assert "not you" in str(mail.error)
    assert any(record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_direct_mail_leaves_the_open_transaction_to_its_owner(
    mail: QueuedMailer, smtp: ScriptedServer, outcome: str
) -> None:
    db = mail.db
    db.define_table("thing", db.Field("name") if hasattr(db, "Field") else __import__("pydal").Field("name"))
    db.commit()
    db.thing.insert(name="pending")
    smtp.script["mail"] = Reply(550, "5.7.1 not you")
    assert mail.send_direct_email("ann@x.test") is False
    getattr(db, outcome)()
    assert db(db.thing).count() == (outcome == "commit")
    assert len(rows(mail, "problem")) == (outcome == "commit")


def test_error_and_result_belong_to_the_thread(mail: QueuedMailer, smtp: ScriptedServer) -> None:
    smtp.script["mail"] = Reply(550, "5.7.1 not you")
    assert mail.send_direct_email("ann@x.test") is False
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append((mail.error, mail.result)))
    thread.start()
    thread.join()
    assert seen == [(None, {})]
    assert mail.error is not None


# --- the log's own transaction -------------------------------------------------------------
def test_a_problem_is_entered_even_where_nothing_else_commits(mail: QueuedMailer) -> None:
    mail.note_problem(FAILURE, "smtp://x")
    mail.db.rollback()
    assert open_causes(mail) == ["connect-refused"]


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_a_problem_that_cannot_be_entered_does_not_spoil_the_callers_transaction(
    tmp_path: Path, kind: str
) -> None:
    from pydal import Field

    with fresh_database(kind, tmp_path) as uri:
        mail = make_mail(tmp_path, uri=uri)
        db = mail.db
        db.define_table("person", Field("name"))
        db.executesql("DROP TABLE mailqueue_problem")
        db.commit()
        db.person.insert(name="registers")
        mail.note_problem(FAILURE, "smtp://x")
        db.commit()
        assert db(db.person).count() == 1
        db.close()


def test_two_mailers_on_one_database_share_the_queue(tmp_path: Path, smtp: ScriptedServer) -> None:
    first = make_mail(tmp_path)
    second = QueuedMailer(first.db, sender=SENDER, server=f"127.0.0.1:{smtp.port}", tls=False)
    first.settings.server = "memory"
    first.send("ann@x.test")
    second.process_queue()
    assert first.counts()["sent"] == 0 or not first.captured
    assert isinstance(first.db, DAL)


def test_a_thread_leaves_no_connection_behind(mail: QueuedMailer) -> None:
    from mailqueue.database import has_connection

    seen: list[bool] = []

    def work() -> None:
        mail.send("ann@x.test")
        seen.append(has_connection(mail.db))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
    assert mail.counts()["queued"] == 1


def test_nobody_listens_is_no_wait(mail: QueuedMailer) -> None:
    with refused_port() as port:
        mail.settings.server = f"127.0.0.1:{port}"
        assert mail.send_direct_email("ann@x.test") is False
    assert open_causes(mail) == ["connect-refused"]


@pytest.mark.parametrize("sender", ["you@example.com", None, "no address"])
def test_a_message_id_never_carries_the_domain_of_an_example(tmp_path: Path, sender: str | None) -> None:
    mail = make_mail(tmp_path, sender=sender)
    mail.send("ann@x.test")
    (message,) = rows(mail, "message")
    host = message["message_uid"].strip("<>").rpartition("@")[2]
    assert host in (socket.gethostname(), "localhost")

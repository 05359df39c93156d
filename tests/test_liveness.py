"""Whether anybody sends, and who is told where nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from mailqueue import QueuedMailer, liveness, mailer
from mailqueue.liveness import PULSE_SECONDS, SILENCE
from pydal import DAL
from support.mail import Clock, make_mail, open_causes, to_server
from support.smtp_server import ScriptedServer
from support.store import NOW, all_rows, open_dal, put


@pytest.fixture
def db(db_uri: str, tmp_path: Path) -> Iterator[DAL]:
    db = open_dal(db_uri, tmp_path)
    yield db
    db._adapter.close("rollback")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, clock: Clock) -> QueuedMailer:
    return make_mail(tmp_path, clock=clock)


def test_nobody_is_missed_while_nothing_is_due(db: DAL) -> None:
    assert liveness.silence(db, NOW, SILENCE) is None
    put(db, send_at=NOW + 9999)
    assert liveness.silence(db, NOW + 9998, SILENCE) is None


def test_mail_that_is_due_without_any_worker_is_noticed(db: DAL) -> None:
    put(db)
    assert liveness.silence(db, NOW + SILENCE, SILENCE) is None
    assert liveness.silence(db, NOW + SILENCE + 60, SILENCE) == SILENCE + 60


def test_a_worker_that_was_here_lately_is_enough(db: DAL) -> None:
    put(db)
    liveness.seen(db, NOW + 900)
    assert liveness.silence(db, NOW + 900 + SILENCE, SILENCE) is None
    assert liveness.silence(db, NOW + 901 + SILENCE, SILENCE) == SILENCE + 1


def test_the_pulse_is_one_row_written_now_and_then(db: DAL) -> None:
    for moment in (NOW, NOW + PULSE_SECONDS - 1, NOW + PULSE_SECONDS, NOW - 3600):
        liveness.seen(db, moment)
        db.commit()
    (row,) = all_rows(db, "pulse")
    assert row["seen_on"] == NOW - 3600  # a clock that was set back is believed
    liveness.seen(db, NOW - 3600 + PULSE_SECONDS - 1)
    assert all_rows(db, "pulse") == [row]


def test_a_silence_is_one_problem_and_a_worker_ends_it(
    mail: QueuedMailer, clock: Clock, smtp: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    to_server(mail, smtp)
    mail.send("ann@x.test")
    assert mail.silence() is None
    clock.advance(SILENCE + 1)
    assert mail.silence() == SILENCE + 1
    assert mail.silence() == SILENCE + 1
    assert open_causes(mail) == ["no-worker"]
    assert len([record for record in caplog.records if record.name == "mailqueue"]) == 1
    assert mail.process_queue()["sent"] == 1
    assert open_causes(mail) == []
    assert mail.silence() is None


def test_a_worker_that_cannot_send_is_not_a_missing_worker(mail: QueuedMailer, clock: Clock) -> None:
    mail.send("ann@x.test")
    clock.advance(SILENCE + 1)
    mail.process_queue()  # no server is configured
    assert mail.silence() is None
    assert open_causes(mail) == ["no-server"]


def test_a_request_that_queues_a_mail_notices_that_nobody_sends(
    mail: QueuedMailer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailer, "SILENCE_CHECK", 0.0)
    mail.send("ann@x.test")
    assert open_causes(mail) == []
    clock.advance(SILENCE + 1)
    mail.send("bob@x.test")
    assert open_causes(mail) == ["no-worker"]

"""Open transports are used again, never with other settings, and closed when nobody needs them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from mailqueue import service
from mailqueue.delivery import LATE
from mailqueue.kept import IDLE_SECONDS, KeptTransports
from mailqueue.transports.smtp import PLAIN, SmtpTransport
from mailqueue.worker import drain
from support.mail import Clock, make_mail, statuses, to_server
from support.patience import Pauses
from support.smtp_faults import Late
from support.smtp_server import ScriptedServer


def transport(smtp: ScriptedServer, hostname: str | None = None) -> SmtpTransport:
    made = SmtpTransport("127.0.0.1", smtp.port, security=PLAIN, hostname=hostname)
    made.open()
    return made


def is_open(kept: SmtpTransport) -> bool:
    return kept._session is not None


def test_the_one_used_last_is_taken_first(smtp: ScriptedServer) -> None:
    kept, one, another = KeptTransports(), transport(smtp), transport(smtp)
    kept.put(one, 0.0)
    kept.put(another, 1.0)
    assert kept.take(one.settings()) is another
    assert kept.take(one.settings()) is one
    assert kept.take(one.settings()) is None


def test_other_settings_never_meet_a_transport_of_before(smtp: ScriptedServer) -> None:
    kept, old = KeptTransports(), transport(smtp, "old.test")
    kept.put(old, 0.0)
    assert kept.take(SmtpTransport("127.0.0.1", smtp.port, security=PLAIN).settings()) is None
    assert not is_open(old)


def test_what_is_used_beside_it_stays_open(smtp: ScriptedServer) -> None:
    kept, one, another = KeptTransports(), transport(smtp), transport(smtp, "other.test")
    kept.put(one, 0.0)
    kept.put(another, 0.0)
    assert kept.take(one.settings(), beside=[another.settings()]) is one
    assert is_open(another)
    assert kept.take(another.settings()) is another


@pytest.mark.parametrize("now", [1.0 + IDLE_SECONDS, 0.5])
def test_what_is_idle_for_too_long_is_closed_and_what_a_clock_put_into_the_future(
    smtp: ScriptedServer, now: float
) -> None:
    kept, idle = KeptTransports(), transport(smtp)
    kept.put(idle, 1.0)
    kept.close_idle(1.0 + IDLE_SECONDS - 0.1)
    assert is_open(idle)
    kept.close_idle(now)
    assert not is_open(idle)
    assert kept.take(idle.settings()) is None


def test_what_comes_back_after_the_end_is_closed(smtp: ScriptedServer) -> None:
    kept, early, late = KeptTransports(), transport(smtp), transport(smtp)
    kept.put(early, 0.0)
    kept.close()
    kept.put(late, 0.0)
    assert not is_open(early)
    assert not is_open(late)


def test_a_service_sends_the_next_mail_over_the_same_connection_and_closes_it_in_quiet_times(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    clock = Clock()
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    pauses = Pauses(clock, lambda: len(pauses.waits) == 80)
    mail.send("ann@x.test")
    pauses.plans[3] = lambda: mail.send("bob@x.test")
    pauses.plans[60] = lambda: mail.send("eve@x.test")
    service.serve(mail.site, pauses.stop, watch=pauses)
    assert statuses(mail) == ["sent"] * 3
    assert smtp.connections == 2


def test_a_connection_that_its_server_closed_meanwhile_costs_nothing(
    tmp_path: Path, smtp: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    mail = make_mail(tmp_path)
    to_server(mail, smtp)
    kept = KeptTransports()
    mail.send("ann@x.test")
    drain(mail.site, kept=kept)
    for _, idle in kept._kept:
        idle._session.wire._socket.shutdown(2)  # type: ignore[attr-defined]
    mail.send("bob@x.test")
    assert drain(mail.site, kept=kept)["sent"] == 1
    assert caplog.records == []
    kept.close()


def test_kept_ones_and_those_that_come_near_are_no_more_than_connections(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    mail, kept = make_mail(tmp_path, clock=Clock(), connections=4), KeptTransports()
    to_server(mail, smtp)
    for one in (transport(smtp), transport(smtp), transport(smtp)):
        kept.put(one, mail.site.clock())
    smtp.sessions[-1].cut()  # so that the one used last is opened again
    smtp.script["banner"] = Late(LATE * 5)
    for number in range(40):
        mail.send(f"user{number}@x.test", subject="s")
    mail.db.commit()
    smtp.script["dot"] = Late(0.02)
    drain(mail.site, kept=kept)
    assert smtp.connections == 5  # two are alive, one is renewed, one is new
    kept.close()

"""Trying the way out, step by step."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, breaker, dkim_key, trial, words
from mailqueue.transports.capture import MemoryTransport
from support.certificates import Certificates
from support.mail import make_mail, rows, statuses, to_server
from support.smtp_server import Hang, Reply, ScriptedServer, refused_port

LOGIN = ("me", "pass-word")


def steps(found: trial.Trial) -> dict[str, str]:
    return {step.label.split()[0]: step.result for step in found.steps}


def mail_to(server: ScriptedServer, folder: Path, **options: Any) -> QueuedMailer:
    mail = make_mail(folder, **options)
    to_server(mail, server)
    return mail


def test_a_server_that_works_passes_every_step_and_gets_no_mail(
    tmp_path: Path, certificates: Certificates
) -> None:
    options = {"tls": "starttls", "certificate": certificates.server, "auth": dict([LOGIN])}
    with ScriptedServer(**options) as server:
        mail = mail_to(server, tmp_path, tls=True, login=":".join(LOGIN), ca_file=str(certificates.ca_file))
        found = trial.try_transports(mail)[0]
        assert found.failure is None
        works = dict.fromkeys(("Settings", "Connection", "Greeting", "Encryption", "Login"), "works")
        assert steps(found) == works
        assert list(steps(found)) == list(works)
        assert (server.messages, server.reached["data"]) == ([], 0)
        assert server.commands[-1] == "QUIT"


def test_a_wrong_password_fails_at_the_login_and_is_told_without_it(tmp_path: Path) -> None:
    with ScriptedServer(auth=dict([LOGIN])) as server:
        server.script["auth"] = Reply(535, "5.7.8 wrong: me pass-word")
        mail = mail_to(server, tmp_path, login=":".join(LOGIN))
        found = trial.try_transports(mail)[0]
    assert steps(found) == {
        "Settings": "works",
        "Connection": "works",
        "Greeting": "works",
        "Login": "fails",
    }
    assert found.failure
    assert found.failure.code == 535
    assert "user name or password" in found.summary
    assert found.remedy
    assert "pass-word" not in f"{found}"


@pytest.mark.parametrize("by_url", [False, True])
def test_a_server_that_hangs_at_the_login_is_known_to_have_worked_until_then(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, by_url: bool
) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 2.0)
    login, ca_file = ":".join(LOGIN), str(certificates.ca_file)
    with ScriptedServer(tls="starttls", certificate=certificates.server, auth=dict([LOGIN])) as server:
        server.script["auth"] = Hang()
        url = f"smtp://{login}@127.0.0.1:{server.port}?ca_file={ca_file}"
        one_server = {"server": f"127.0.0.1:{server.port}", "tls": True, "login": login, "ca_file": ca_file}
        mail = make_mail(tmp_path, **({"transports": [url]} if by_url else one_server))
        found = trial.try_transports(mail)[0]
        server.release()
    assert (steps(found)["Encryption"], steps(found)["Login"]) == ("works", "fails")
    assert found.summary == "The mail server stopped answering at the login."
    assert "587" not in found.remedy, "host, port and TLS are right"


def test_a_certificate_that_does_not_hold_fails_before_the_login(
    tmp_path: Path, certificates: Certificates
) -> None:
    with ScriptedServer(tls="implicit", certificate=certificates.expired) as server:
        mail = mail_to(server, tmp_path, ssl=True, login="me:x", ca_file=str(certificates.ca_file))
        found = steps(trial.try_transports(mail)[0])
    assert list(found) == ["Settings", "Connection", "Encryption", "Greeting", "Login"]
    assert list(found.values()) == ["works", "works", "fails", "not tried", "not tried"]


def test_no_server_and_nobody_at_its_port_are_told_apart(tmp_path: Path) -> None:
    mail = make_mail(tmp_path)
    found = trial.try_transports(mail)[0]
    assert (found.transport, steps(found)["Settings"]) == ("", "fails")
    assert found.summary == "No mail server is configured."
    with refused_port() as port:
        mail.settings.server = f"127.0.0.1:{port}"
        found = trial.try_transports(mail)[0]
    assert (steps(found)["Settings"], steps(found)["Connection"]) == ("works", "fails")


def test_a_server_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 0.2)
    with ScriptedServer() as server:
        server.script["banner"] = Hang()
        found = trial.try_transports(mail_to(server, tmp_path))[0]
        assert steps(found)["Greeting"] == "fails"
        assert found.failure
        assert found.failure.kind == words.TRANSIENT


class Exiting(MemoryTransport):
    def open(self) -> None:
        sys.exit("no licence")


def test_a_transport_that_wants_to_end_the_process_is_told_as_what_it_is(tmp_path: Path) -> None:
    mail = make_mail(tmp_path, transports=[lambda: Exiting([])])
    (found,) = trial.try_transports(mail)
    assert found.failure
    assert (found.failure.rule, found.failure.text) == ("unknown-exception", "SystemExit: no licence")


def test_a_key_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "PATIENCE", 0.2)
    over = threading.Event()

    def from_a_vault() -> str:
        over.wait()
        return ""

    keys = [
        dkim_key(domain="a.test", selector="s", key="/nowhere/dkim.pem"),
        dkim_key(domain="b.test", selector="s", key=from_a_vault),
    ]
    mail = make_mail(tmp_path, dkim=keys)
    found = trial.try_keys(mail)
    over.set()
    assert [(one.step.label, one.step.result) for one in found] == [
        ("DKIM key s._domainkey.a.test", trial.FAILS),
        ("Further keys", trial.NOT_TRIED),
    ]


def test_a_pause_ends_with_the_next_drain_after_a_trial_that_worked(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    mail = mail_to(smtp, tmp_path)
    smtp.script["ehlo"] = Reply(550, "5.7.1 not you")
    mail.send("ann@x.test", "Hello", "Text")
    mail.process_queue()
    trial.try_transports(mail)[0]  # in vain: the next look stays where it was
    mail.process_queue()
    smtp.script.clear()
    mail.process_queue()
    assert statuses(mail) == ["queued"]
    assert trial.try_transports(mail)[0].failure is None
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    assert [row["paused_on"] for row in rows(mail, "transport")] == [None]


def test_a_probe_is_brought_forward_only_where_there_is_a_pause(tmp_path: Path) -> None:
    mail = make_mail(tmp_path)
    breaker.proved(mail.db, "smtp://a", 1.0)
    breaker.probe_now(mail.db, "smtp://a", 5.0)
    assert rows(mail, "transport")[0]["next_probe"] is None


def test_each_of_several_transports_is_tried_by_its_own_steps_and_no_password_is_shown(
    tmp_path: Path,
) -> None:
    with ScriptedServer() as works, refused_port() as refused:
        urls = [
            f"smtp://127.0.0.1:{works.port}?tls=none",
            f"smtp://ann:very-secret@127.0.0.1:{refused}?tls=required",
        ]
        mail = make_mail(tmp_path, transports=urls)
        good, bad = trial.try_transports(mail)
    assert (good.failure, steps(good)["Greeting"]) == (None, trial.WORKS)
    assert bad.failure and bad.failure.stage == words.CONNECT
    assert steps(bad)["Login"] == trial.NOT_TRIED
    assert "very-secret" not in str(bad) + str(good)

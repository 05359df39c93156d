"""`mailqueue check`: what is found about a site's mail, asked of real mail servers and a name server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, check, dkim_key, sender_domain
from mailqueue.findings import NOTE, OK, PROBLEM, Finding, as_json, as_text, exit_code
from mailqueue.transports import smtp_offers
from support.certificates import Certificates
from support.dns_server import GOOD, NameServer
from support.mail import make_mail, open_causes, rows
from support.signing_keys import Published, dkim_ed25519, dkim_rsa
from support.smtp_server import Reply, ScriptedServer, free_port


def examined(mail: QueuedMailer, **wanted: Any) -> list[Finding]:
    with NameServer() as names:
        return check.examine(mail, check.Wanted(names.address, **wanted))


def said(found: list[Finding], level: str) -> str:
    return "\n".join(str(one) for one in found if one.level == level)


def test_a_site_that_is_set_up_well_has_no_problem_and_sends_nothing(
    tmp_path: Path, certificates: Certificates
) -> None:
    options = {"tls": "starttls", "certificate": certificates.server, "auth": {"me": "pass-word"}}
    with ScriptedServer(**options) as server:
        mail = make_mail(
            tmp_path,
            server=f"127.0.0.1:{server.port}",
            tls=True,
            login="me:pass-word",
            ca_file=str(certificates.ca_file),
        )
        found = examined(mail, selector="s1")
        assert server.messages == [] and server.reached["data"] == 0
        assert server.commands[-2:] == ["RSET", "QUIT"]
    assert said(found, PROBLEM) == said(found, NOTE) == ""
    assert exit_code(found) == 0
    told = said(found, OK)
    for part in ("29 more days", "SIZE, 8BITMIME, SMTPUTF8, PIPELINING", "10.0 MB", "noreply@site.test send"):
        assert part in told
    assert "pass-word" not in str(found)
    assert rows(mail, "audit") == [], "it may be run every minute, and nobody did anything"


@pytest.mark.parametrize("make", [dkim_rsa, dkim_ed25519])
def test_the_published_half_of_each_configured_key_is_compared(
    tmp_path: Path, smtp: ScriptedServer, make: Callable[[], Published]
) -> None:
    key, another = make(), make()
    mail = make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}")
    mail.settings.dkim = [dkim_key(domain="site.test", selector="s1", key=key.pem)]
    name = ("s1._domainkey.site.test", "TXT")
    for published, level in ((key, OK), (another, PROBLEM)):
        parts = [published.record[start : start + 200] for start in range(0, len(published.record), 200)]
        with NameServer({**GOOD, name: [" ".join(f'"{part}"' for part in parts)]}) as names:
            found = check.examine(mail, check.Wanted(names.address))
        assert "s1._domainkey.site.test" in said(found, level)
    assert "DKIM key s1._domainkey.site.test can be used." in said(found, OK)
    assert "not the one that mail is signed with" in said(found, PROBLEM)


def test_what_a_server_does_not_offer_is_noted_with_what_follows(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    smtp.extensions = ("8BITMIME",)
    notes = said(examined(make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}")), NOTE)
    assert "not encrypted" in notes
    for keyword in ("SIZE", "SMTPUTF8", "PIPELINING"):
        assert f"does not offer {keyword}: " in notes
    assert "8BITMIME:" not in notes


@pytest.mark.parametrize("stage", ["mail", "rcpt"])
def test_a_sender_that_the_server_refuses_is_a_problem(
    tmp_path: Path, smtp: ScriptedServer, stage: str
) -> None:
    smtp.script[stage] = Reply(553, "5.7.1 sender address rejected: not owned by user")
    found = examined(make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}"))
    assert exit_code(found) == 1
    assert "not owned by user" in said(found, PROBLEM)


@pytest.mark.parametrize(
    "reply", [Reply(550, "5.1.1 no such user"), Reply(450, "4.7.1 greylisted"), Reply(552, "5.2.2 full")]
)
def test_a_sender_without_a_mailbox_is_noted_only(tmp_path: Path, smtp: ScriptedServer, reply: Reply) -> None:
    smtp.script["rcpt"] = reply
    found = examined(make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}"))
    assert exit_code(found) == 0
    assert str(reply.text) in said(found, NOTE)


def test_a_certificate_that_ends_soon_is_a_problem(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp_offers, "SOON", 40)
    with ScriptedServer(tls="implicit", certificate=certificates.server) as server:
        mail = make_mail(
            tmp_path, server=f"127.0.0.1:{server.port}", ssl=True, ca_file=str(certificates.ca_file)
        )
        assert "29 more days" in said(examined(mail), PROBLEM)


def test_each_of_several_transports_is_looked_at_and_the_one_that_fails_named(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    urls = [f"smtp://127.0.0.1:{smtp.port}?tls=none", f"smtp://me:secret-word@127.0.0.1:{free_port()}"]
    found = examined(make_mail(tmp_path, transports=urls))
    (problem,) = [one for one in found if one.level == PROBLEM]
    assert urls[1].rpartition(":")[2] in problem.said and "refuses the connection" in problem.said
    assert "secret-word" not in str(found)


def test_a_limit_of_a_transport_that_there_is_not_is_a_problem(tmp_path: Path, smtp: ScriptedServer) -> None:
    limits = {"transport:smtp://typo": "5/minute", f"transport:smtp://127.0.0.1:{smtp.port}": "5/minute"}
    found = examined(make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}", limits=limits))
    assert said(found, PROBLEM).count("limits has an entry") == 1
    assert "smtp://typo, which there is not" in said(found, PROBLEM)


def test_where_no_name_server_answers_the_rest_is_told_and_that_is_noted(
    tmp_path: Path, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_domain, "PATIENCE", 0.2)
    mail = make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}")
    found = check.examine(mail, check.Wanted(f"127.0.0.1:{free_port()}"))
    assert "SPF, DKIM, DMARC and reverse names could not be looked up" in said(found, NOTE)
    assert exit_code(found) == 0


@pytest.mark.parametrize("server", ["localhost:abc", None])
def test_what_is_in_the_problem_log_and_found_again_is_said_once(tmp_path: Path, server: str | None) -> None:
    mail = make_mail(tmp_path, server=server or f"127.0.0.1:{free_port()}")
    mail.settings.dkim = [dkim_key(domain="site.test", selector="s1", key=str(tmp_path / "none.pem"))]
    mail.send("ann@example.test", "s", "b")
    mail.db.commit()
    mail.process_queue()
    assert open_causes(mail)
    found = [one for one in examined(mail) if one.level == PROBLEM]
    assert [one.said for one in found if "problem log" in one.said] == []
    assert len(found) == 2, "the way out, and the key"


def test_the_reason_of_a_logged_problem_is_told(tmp_path: Path, smtp: ScriptedServer) -> None:
    mail = make_mail(tmp_path, server=f"127.0.0.1:{smtp.port}")
    assert not mail.send_direct_email("bad", subject="d", body="x")
    found = said(examined(mail), PROBLEM)
    assert "In the problem log: A message was refused, or could not be made. ('bad' is not one" in found


def test_addresses_of_this_network_have_no_reverse_name_to_look_for() -> None:
    assert check._public_addresses("127.0.0.1") == check._public_addresses("10.1.2.3") == []
    assert check._public_addresses("/run/lmtp") == check._public_addresses("nosuch.invalid") == []
    assert check._public_addresses("8.8.8.8") == ["8.8.8.8"]


def test_findings_are_told_to_people_and_to_monitoring() -> None:
    found = [Finding(OK, "fine"), Finding(NOTE, "well"), Finding(PROBLEM, "bad", "Repair it.")]
    assert as_text(found) == "ok      fine\nnote    well\nPROBLEM bad\n        Repair it."
    assert as_text(found, problems_only=True) == "PROBLEM bad\n        Repair it."
    assert json.loads(as_json(found))["status"] == "problem"
    assert json.loads(as_json(found[:2])) == {
        "status": "ok",
        "findings": [
            {"level": "ok", "said": "fine", "remedy": ""},
            {"level": "note", "said": "well", "remedy": ""},
        ],
    }

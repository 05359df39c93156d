"""DKIM: whose mail is signed, with what, verified by programs that are not ours; and keys that fail."""

from __future__ import annotations

import base64
import itertools
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mailqueue import QueuedMailer, dkim_key, queries
from mailqueue.classify import DeliveryError
from mailqueue.errors import BadMessage
from mailqueue.signing import dkim
from mailqueue.signing.seal import Seal
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.services import needs
from support.signing_keys import (
    Published,
    dkim_ed25519,
    dkim_rsa,
    dkim_tags,
    ed25519_verifies,
    verified_by_perl,
)
from support.smtp_faults import Reply
from support.smtp_server import ScriptedServer

HOUR = 3600.0
MIME = b"From: Site <noreply@site.test>\r\nTo: ann@x.test\r\nSubject: hi\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def rsa() -> Published:
    return dkim_rsa()


@pytest.fixture(scope="module")
def ed25519() -> Published:
    return dkim_ed25519()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer, clock: Clock) -> QueuedMailer:
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    return mail


def key(given: Any, selector: str = "s", domain: str = "site.test") -> dkim.DkimKey:
    return dkim_key(domain=domain, selector=selector, key=given)


def refusal(keys: Any, mime: bytes = MIME) -> str:
    with pytest.raises(DeliveryError) as refused:
        dkim.signed(mime, keys)
    assert refused.value.failure.kind == "configuration"
    return refused.value.failure.text


# --- what is signed --------------------------------------------------------------------------
def test_what_arrives_is_verified_by_another_program(
    mail: QueuedMailer, smtp: ScriptedServer, rsa: Published, tmp_path: Path
) -> None:
    needs("mail-dkim")
    (tmp_path / "dkim.pem").write_text(rsa.pem)
    (tmp_path / "größe.txt").write_text("ä\n.\n..\nFrom here \n")
    mail.settings.dkim = [key(str(tmp_path / "dkim.pem"))]
    for number in range(3):  # what is announced ahead of its turn, too
        mail.send(
            "Änn <ann@x.test>",
            f"Größe {number} " + "of a long subject that is folded " * 4,
            ("Grüße  \n.\n\n\n", "<p>Grüße</p>"),
            attachments=[str(tmp_path / "größe.txt")],
            list_unsubscribe="https://site.test/unsubscribe?who=" + "x" * 120,
            headers={"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
            reply_to="desk@site.test",
        )
    mail.send("bob@x.test", "plain", "nothing but ASCII")
    mail.process_queue()
    assert statuses(mail) == ["sent"] * 4
    published = {"s._domainkey.site.test": rsa.record}
    assert [verified_by_perl(got.data, published) for got in smtp.messages] == [{"s": "pass"}] * 4
    altered = smtp.messages[-1].data.replace(b"nothing", b"something")
    assert verified_by_perl(altered, published) == {"s": "fail (body has been altered)"}


def test_the_fields_that_matter_are_covered_and_cannot_be_added(
    mail: QueuedMailer, smtp: ScriptedServer, rsa: Published
) -> None:
    needs("mail-dkim")
    mail.settings.dkim = [key(rsa.pem)]
    mail.send(
        "ann@x.test",
        list_unsubscribe="https://site.test/u",
        headers={"List-Unsubscribe-Post": "List-Unsubscribe=One-Click", "X-Ours": "1"},
    )
    mail.process_queue()
    data = smtp.messages[0].data
    (tags,) = dkim_tags(data)
    names = tags["h"].split(":")
    assert {"list-unsubscribe", "list-unsubscribe-post", "to", "mime-version", "content-type"} < {*names}
    assert {name: names.count(name) for name in ("from", "subject", "to", "reply-to", "cc")} == {
        "from": 2, "subject": 2, "to": 2, "reply-to": 1, "cc": 1,
    }  # fmt: skip
    assert not {"date", "message-id", "x-ours", "received"} & {*names}  # providers set their own
    assert (tags["a"], tags["c"], tags["d"]) == ("rsa-sha256", "relaxed/relaxed", "site.test")
    published = {"s._domainkey.site.test": rsa.record}
    assert verified_by_perl(data, published) == {"s": "pass"}
    for added in (b"From: Bank <a@bank.test>\r\n", b"Reply-To: thief@x.test\r\n", b"Subject: win\r\n"):
        assert verified_by_perl(added + data, published)["s"].startswith("fail"), added
    changed = data.replace(b"https://site.test/u", b"https://site.test/x")
    assert verified_by_perl(changed, published)["s"].startswith("fail")


def test_ed25519_beside_rsa(
    mail: QueuedMailer, smtp: ScriptedServer, rsa: Published, ed25519: Published
) -> None:
    needs("mail-dkim")
    mail.settings.dkim = [key(rsa.pem, "r"), key(ed25519.pem, "e")]
    mail.send("ann@x.test")
    mail.process_queue()
    data = smtp.messages[0].data
    assert [(tags["s"], tags["a"]) for tags in dkim_tags(data)] == [
        ("r", "rsa-sha256"),
        ("e", "ed25519-sha256"),
    ]
    assert verified_by_perl(data, {"r._domainkey.site.test": rsa.record})["r"] == "pass"


def test_an_ed25519_signature_fits_what_was_sent(
    mail: QueuedMailer, smtp: ScriptedServer, ed25519: Published
) -> None:
    mail.settings.dkim = key(ed25519.pem)
    mail.send("ann@x.test", "Größe", ("Grüße  \n\n", "<p>Grüße</p>"), cc="bob@x.test")
    mail.process_queue()
    data = smtp.messages[0].data
    assert ed25519_verifies(data, ed25519.record)
    assert not ed25519_verifies(data.replace(b"To: ann@", b"To: eve@"), ed25519.record)


def test_a_sender_of_another_domain_is_not_signed_for(
    mail: QueuedMailer, smtp: ScriptedServer, ed25519: Published
) -> None:
    mail.settings.dkim = [key(ed25519.pem, "here"), key(ed25519.pem, "there", "Other.test")]
    mail.send("ann@x.test", sender="a@third.test")
    mail.send("ann@x.test", sender="a@other.test")
    mail.send("ann@x.test", from_address="Desk <a@other.test>")
    mail.process_queue()
    signers = [[tags["d"] + " " + tags["s"] for tags in dkim_tags(got.data)] for got in smtp.messages]
    assert signers == [[], ["other.test there"], ["other.test there"]]


@pytest.mark.parametrize("form", ["path", "text", "bytes", "function", "bare", "windows", "stock"])
def test_a_key_may_come_in_many_forms(form: str, ed25519: Published, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_text(ed25519.pem)
    der = subprocess.run(
        ["openssl", "pkey", "-in", str(file), "-outform", "DER"], capture_output=True, check=True
    ).stdout
    forms: dict[str, Any] = {
        "path": key(file),
        "text": key(ed25519.pem),
        "bytes": key(ed25519.pem.encode()),
        "function": key(lambda: ed25519.pem),
        "bare": key(base64.b64encode(der[-32:]).decode()),
        "windows": key(ed25519.pem.replace("\n", "\r\n")),
        "stock": SimpleNamespace(key=ed25519.pem, selector="s"),
    }
    assert ed25519_verifies(dkim.signed(MIME, forms[form]), ed25519.record)


def test_what_is_asked_for_again_is_the_same(ed25519: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    first = dkim.signed(MIME, key(ed25519.pem))
    later = time.time() + 5
    monkeypatch.setattr(time, "time", lambda: later)
    assert dkim.signed(MIME, key(ed25519.pem)) == first
    assert dkim.signed(MIME, key(dkim_ed25519().pem)) != first


def test_a_mail_sent_past_the_queue_is_signed_too(
    mail: QueuedMailer, smtp: ScriptedServer, ed25519: Published
) -> None:
    mail.settings.dkim = [key(ed25519.pem)]
    assert mail.send_direct_email("ann@x.test")
    assert ed25519_verifies(smtp.messages[0].data, ed25519.record)


def test_where_nothing_is_configured_nothing_is_done(mail: QueuedMailer) -> None:
    assert Seal().finished(MIME, None, ["ann@x.test"]) is MIME
    assert mail.site.seal.finished(MIME, "a@site.test", ["ann@x.test"]) is MIME


# --- keys that fail --------------------------------------------------------------------------
def test_a_key_that_is_missing_holds_the_mail_until_it_is_there(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, ed25519: Published, tmp_path: Path
) -> None:
    file = tmp_path / "later.pem"
    mail.settings.dkim = [key(file)]
    mail.send("ann@x.test")
    mail.send("bob@x.test")
    for _ in range(3):
        mail.process_queue()
        clock.advance(HOUR)
    assert statuses(mail) == ["queued", "queued"] and smtp.messages == []
    assert [row["attempts"] for row in rows(mail, "recipient")] == [0, 0]
    (problem,) = rows(mail, "problem")
    assert problem["cause"].startswith("dkim-key@") and str(file) in problem["detail"]
    assert "Nothing is lost" in problem["remedy"]
    (stoppage,) = queries.stoppages(mail.db)
    assert stoppage["id"] == problem["id"] and stoppage["paused_on"]
    file.write_text(ed25519.pem)
    mail.process_queue()
    assert statuses(mail) == ["sent", "sent"] and open_causes(mail) == []
    assert all(ed25519_verifies(got.data, ed25519.record) for got in smtp.messages)


def test_a_key_of_one_sender_holds_up_nobody_else(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, ed25519: Published, tmp_path: Path
) -> None:
    mail.settings.dkim = [key(ed25519.pem), key(tmp_path / "gone.pem", domain="other.test")]
    mail.send("ann@x.test", sender="a@other.test")
    mail.send("bob@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued", "sent"]
    assert open_causes(mail) == ["dkim-key"]
    mail.settings.dkim = [key(ed25519.pem)]
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent", "sent"] and open_causes(mail) == []


def test_a_key_of_one_from_address_holds_up_nobody_else(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, ed25519: Published, tmp_path: Path
) -> None:
    mail.settings.dkim = [key(ed25519.pem), key(tmp_path / "gone.pem", domain="other.test")]
    mail.send("ann@x.test", from_address="a@other.test")
    mail.send("bob@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued", "sent"]
    (transport,) = rows(mail, "transport")
    assert (transport["paused_on"], transport["failures"]) == (None, 0)
    assert queries.stoppages(mail.db) == []
    assert open_causes(mail) == ["dkim-key"]
    (tmp_path / "gone.pem").write_text(ed25519.pem)
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent", "sent"] and open_causes(mail) == []
    assert [row["attempts"] for row in rows(mail, "recipient")] == [1, 1]


def test_a_key_set_after_the_mailer_was_made_is_named_before_any_mail_is_to_be_signed(
    mail: QueuedMailer, clock: Clock, ed25519: Published, tmp_path: Path
) -> None:
    mail.settings.dkim = [key(tmp_path / "gone.pem", domain="other.test")]
    mail.process_queue()
    for _ in range(2):  # mail that needs no such key does not make it look repaired
        mail.send("bob@x.test")
        mail.process_queue()
    assert statuses(mail) == ["sent", "sent"]
    assert [row["status"] for row in rows(mail, "problem")] == ["open"]
    (tmp_path / "gone.pem").write_text(ed25519.pem)
    mail.send("bob@x.test")
    mail.process_queue()
    assert open_causes(mail) == []


PASSWORD = "a-vaults-secret"


def _failing() -> str:
    raise RuntimeError(PASSWORD)


LOCKED = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n"
BROKEN = "-----BEGIN RSA PRIVATE KEY-----\nTUlJRXBBSUJBQUtDQVFFQQ==\n-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (_failing, "the function raised RuntimeError"),
        (lambda: None, "NoneType is neither the path"),
        (LOCKED, "has a password"),
        (BROKEN, "no RSA or Ed25519 key"),
        (BROKEN.replace("TUlJ", "*"), "damaged"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no private key"),
        (f"{PASSWORD}==", "its name is not shown"),
        ("/nowhere/dkim.pem", "/nowhere/dkim.pem: No such file"),
        (5, "int is neither"),
    ],
)
def test_what_is_wrong_with_a_key_is_said_without_telling_it(given: Any, said: str) -> None:
    text = refusal(key(given))
    assert said in text and text.startswith("s._domainkey.site.test: ")
    assert PASSWORD not in text and "MII" not in text
    assert PASSWORD not in repr(key(given))


def test_a_key_that_nobody_accepts_is_refused() -> None:
    needs("openssl")
    short = subprocess.run(["openssl", "genrsa", "768"], capture_output=True, check=True, text=True).stdout
    assert "768 bits are too few" in refusal(key(short))


@pytest.mark.parametrize(
    "wrong", [5, "key.pem", [None], dkim_key(domain="a b", selector="s", key="k"), key("k", "s;d=x")]
)
def test_what_is_no_key_at_all_is_refused(wrong: Any) -> None:
    assert refusal(wrong)


@pytest.mark.parametrize("sender", ["gone", "site"])
def test_mistakes_are_named_when_the_site_starts(tmp_path: Path, sender: str) -> None:
    called: list[int] = []
    keys = {"gone": key(tmp_path / "gone.pem"), "site": "key.pem"}
    slow = key(lambda: called.append(1))
    mail = make_mail(tmp_path, dkim=[keys[sender], slow] if sender == "gone" else keys[sender])
    assert open_causes(mail) == ["dkim-key"]
    assert called == []  # a vault is not asked before there is a mail


def test_a_vault_that_takes_its_time_holds_up_one_connection_and_not_the_others(
    mail: QueuedMailer, ed25519: Published
) -> None:
    meeting, calls = threading.Barrier(2), itertools.count()
    met = threading.Event()

    def from_a_vault() -> str:
        if next(calls) >= 10 and not met.is_set():
            with suppress(threading.BrokenBarrierError):
                meeting.wait(5)
                met.set()
        return ed25519.pem

    mail.settings.dkim = [key(from_a_vault)]
    for number in range(60):
        mail.send(f"user{number}@x.test")
    mail.process_queue()
    assert statuses(mail) == ["sent"] * 60
    assert met.is_set(), "two connections were never at it at once"


def test_without_the_package_the_mail_waits_for_it(
    mail: QueuedMailer, clock: Clock, ed25519: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail.settings.dkim = [key(ed25519.pem)]
    mail.send("ann@x.test")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "dkim", None)
        mail.process_queue()
        assert statuses(mail) == ["queued"]
        (problem,) = rows(mail, "problem")
        assert "mailqueue[dkim]" in problem["detail"]
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent"]


def test_a_key_for_one_message_is_refused_and_never_stored(mail: QueuedMailer, ed25519: Published) -> None:
    with pytest.raises(BadMessage, match="not stored"):
        mail.send("ann@x.test", dkim=SimpleNamespace(key=ed25519.pem, selector="s"))
    mail.settings.dkim = [key(ed25519.pem)]
    assert mail.send("ann@x.test", dkim=mail.settings.dkim)


def test_a_mail_that_cannot_be_signed_is_no_probe(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, ed25519: Published, tmp_path: Path
) -> None:
    smtp.script["mail"] = Reply(550, "5.7.1 sender rejected")
    mail.settings.dkim = [key(tmp_path / "gone.pem", domain="other.test")]
    mail.send("ann@x.test")
    mail.process_queue()
    assert open_causes(mail) == ["dkim-key", "sender-rejected"]
    mail.send("first@x.test", sender="a@other.test", priority=0)
    clock.advance(HOUR)
    mail.process_queue()
    (transport,) = rows(mail, "transport")
    assert transport["paused_on"] and transport["failures"] == 2  # it did not look repaired in between
    smtp.script.clear()
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent", "queued"]

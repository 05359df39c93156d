"""OpenPGP as the stock mailers promise it, read by gpg; and what becomes of mail whose keys fail."""

from __future__ import annotations

import email
import email.policy
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer
from mailqueue.classify import DeliveryError
from mailqueue.signing import pgp
from mailqueue.signing.check import cipher_finding
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.services import needs
from support.signing_keys import Keyring, fresh_keyring
from support.smtp_server import ScriptedServer

HOUR = 3600.0
SITE, ANN, BOB = "noreply@site.test", "ann@x.test", "bob@x.test"
PASSPHRASE = "gehäim"
TEXT = "Grüße und ein Geheimnis \nFrom here\n.\n"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="pgp", dir="/tmp"))  # pytest's own is too long for a socket
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def ann(folder: Path) -> Iterator[Keyring]:
    """The keyring of whoever reads."""
    needs("gpg")
    with fresh_keyring(folder / "ann") as keyring:
        for address in (ANN, BOB, "aann@x.test"):
            keyring.make(address)
        yield keyring


@pytest.fixture(scope="module")
def site(folder: Path, ann: Keyring) -> Iterator[Keyring]:
    with fresh_keyring(folder / "site") as keyring:
        keyring.make("other@site.test")
        keyring.make(SITE, PASSPHRASE)
        keyring.give(SITE, ann)
        for address in (ANN, BOB, "aann@x.test"):
            ann.give(address, keyring)
        yield keyring


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer, clock: Clock, site: Keyring) -> QueuedMailer:
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    mail.settings.gpg_home = str(site.home)
    mail.settings.sign_passphrase = PASSPHRASE
    return mail


def send_all(mail: QueuedMailer, tmp_path: Path, **given: Any) -> None:
    file = tmp_path / "größe.txt"
    file.write_text("Geheimnis: ä\n")
    body = (TEXT, "<p>Grüße</p>")
    mail.send(f"Änn <{ANN}>", "Größe", body, attachments=[str(file)], cipher_type="gpg", **given)
    mail.process_queue()


def assert_whole(entity: bytes) -> None:
    """Nothing of what send_all() was given is lost or changed."""
    message = email.message_from_bytes(entity, policy=email.policy.default)
    text = message.get_body(("plain",))
    assert text and text.get_content().replace("\r\n", "\n") == TEXT
    (file,) = message.iter_attachments()
    assert file.get_filename() == "größe.txt"
    assert file.get_payload(decode=True) == "Geheimnis: ä\n".encode()


def decrypted(keyring: Keyring, data: bytes) -> tuple[bytes, str]:
    """What a reader finds in it, and gpg's words for programs."""
    message = email.message_from_bytes(data)
    assert message.get_content_type() == "multipart/encrypted"
    assert message.get_param("protocol") == "application/pgp-encrypted"
    version, sealed = message.get_payload()
    assert version.get_payload().strip() == "Version: 1"
    done = keyring.gpg("--decrypt", data=sealed.get_payload(decode=True))
    return done.stdout, done.stderr.decode()


# --- signed, encrypted, both -----------------------------------------------------------------
def test_a_signed_mail_is_verified_by_gpg(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Keyring, tmp_path: Path
) -> None:
    send_all(mail, tmp_path, sign=True, encrypt=False)
    data = smtp.messages[0].data
    message = email.message_from_bytes(data)
    assert (message.get_content_type(), message.get_param("protocol")) == (
        "multipart/signed",
        "application/pgp-signature",
    )
    assert b"Mailqueue" not in data and message["To"].endswith(f"<{ANN}>")
    delimiter = b"\r\n--" + str(message.get_boundary()).encode()
    _, entity, *_ = data.split(delimiter)
    entity = entity.removeprefix(b"\r\n")
    (tmp_path / "signature").write_bytes(message.get_payload()[-1].get_payload(decode=True))
    for content, good in ((entity, True), (entity.replace(b"text/html", b"text/htmx"), False)):
        (tmp_path / "entity").write_bytes(content)
        done = ann.gpg("--verify", str(tmp_path / "signature"), str(tmp_path / "entity"))
        assert (done.returncode == 0, b"GOODSIG" in done.stderr) == (good, good), done.stderr
        assert not good or f"<{SITE}>".encode() in done.stderr
    assert_whole(entity)
    assert str(message.get_param("micalg")).removeprefix("pgp-") in ("sha256", "sha512")


def test_an_encrypted_mail_is_read_by_whom_it_is_for(
    mail: QueuedMailer, smtp: ScriptedServer, site: Keyring, ann: Keyring, tmp_path: Path
) -> None:
    send_all(mail, tmp_path, sign=False)
    data = smtp.messages[0].data
    entity, said = decrypted(ann, data)
    assert_whole(entity)
    assert "GOODSIG" not in said
    assert decrypted(site, data)[0] == b""
    assert b"Geheimnis" not in data


def test_what_is_encrypted_is_signed_within(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Keyring, tmp_path: Path
) -> None:
    send_all(mail, tmp_path)
    entity, said = decrypted(ann, smtp.messages[0].data)
    assert_whole(entity)
    assert "GOODSIG" in said and f"<{SITE}>" in said  # not the other key of the site's


def test_who_reads_in_secret_is_not_named_by_it(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Keyring, tmp_path: Path
) -> None:
    send_all(mail, tmp_path, bcc=BOB)
    _, said = decrypted(ann, smtp.messages[0].data)
    keys = [line.split()[2] for line in said.splitlines() if " ENC_TO " in line]
    assert len(keys) == 2 and keys.count("0" * 16) == 1


def test_a_sender_of_its_own_signs_with_its_own_key(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Keyring, tmp_path: Path
) -> None:
    mail.settings.sign_passphrase = None
    send_all(mail, tmp_path, sender="Desk <other@site.test>")
    _, said = decrypted(ann, smtp.messages[0].data)
    assert "ERRSIG" in said or "NO_PUBKEY" in said  # of a key that this reader does not have
    assert "GOODSIG" not in said


# --- never as it is --------------------------------------------------------------------------
def test_without_a_key_of_the_recipients_it_waits_for_one(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, site: Keyring, ann: Keyring
) -> None:
    site.forget(ANN)
    try:
        mail.send([ANN, BOB], "Hi", "Geheimnis", cipher_type="gpg")
        mail.send(BOB, "Hi", "for everybody")
        mail.process_queue()
        assert statuses(mail) == ["queued", "sent"]
        assert [b"Geheimnis" in got.data for got in smtp.messages] == [False]
        assert {row["attempts"] for row in rows(mail, "recipient")[:2]} == {0}
        (problem,) = rows(mail, "problem")
        assert problem["cause"].startswith("pgp-key@") and ANN in problem["detail"]
        assert "Nothing is lost" in problem["remedy"]
    finally:
        ann.give(ANN, site)
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent", "sent"] and open_causes(mail) == []
    assert b"Geheimnis" in decrypted(ann, smtp.messages[-1].data)[0]


def _wrong_passphrase(mail: QueuedMailer, site: Keyring) -> None:
    mail.settings.sign_passphrase = "wrong-hidden"


def _no_signing_key(mail: QueuedMailer, site: Keyring) -> None:
    mail.settings.sender = "nobody@site.test"


def _no_home(mail: QueuedMailer, site: Keyring) -> None:
    mail.settings.gpg_home = "/nowhere/gnupg"


def _line_break(mail: QueuedMailer, site: Keyring) -> None:
    mail.settings.sign_passphrase = "two\nlines-hidden"


def _no_passphrase(mail: QueuedMailer, site: Keyring) -> None:
    mail.settings.sign_passphrase = None


FAULTS = {
    _wrong_passphrase: "gpg says: .*Bad passphrase$",
    _no_passphrase: "gpg says: .*No pinentry$",
    _no_signing_key: "gpg says: .*No secret key, of <nobody@site.test>$",
    _no_home: "gpg_home, cannot be used",
    _line_break: "holds a line break",
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("encrypt", [True, False])
def test_with_a_fault_in_the_keys_it_waits_and_is_never_sent_as_it_is(
    mail: QueuedMailer,
    smtp: ScriptedServer,
    site: Keyring,
    spoil: Any,
    encrypt: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    site.forget_passphrases()
    spoil(mail, site)
    mail.send(ANN, "Hi", "Geheimnis", cipher_type="gpg", encrypt=encrypt)
    mail.process_queue()
    assert statuses(mail) == ["queued"] and smtp.messages == []
    assert open_causes(mail) == ["pgp-key"]
    (problem,) = rows(mail, "problem")
    assert re.search(FAULTS[spoil], problem["detail"]) and "sign_passphrase" in problem["remedy"]
    assert not [record for record in caplog.records if record.name == "gnupg"]
    assert "hidden" not in caplog.text + str(rows(mail, "problem"))
    mail.settings.cipher_type = "gpg"
    finding = cipher_finding(mail.settings, 0.0)
    assert finding and finding.failure and finding.failure.rule == "pgp-key"


def test_a_key_that_has_ended_is_told_from_one_that_is_not_there(mail: QueuedMailer, site: Keyring) -> None:
    made = site.gpg(
        "--faked-system-time", "20200101T000000", "--pinentry-mode", "loopback", "--passphrase", "",
        "--quick-generate-key", "<past@x.test>", "future-default", "default", "1d",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    mail.send("past@x.test", cipher_type="gpg", sign=False)
    mail.process_queue()
    (problem,) = rows(mail, "problem")
    assert problem["detail"].endswith("No public key, of <past@x.test> (key expired)")


def test_a_keyring_that_is_missing_is_named_before_there_is_mail(mail: QueuedMailer) -> None:
    mail.settings.cipher_type, mail.settings.gpg_home = "gpg", "/nowhere/gnupg"
    mail.process_queue()
    (problem,) = rows(mail, "problem")
    assert problem["cause"] == "pgp-key@" and "/nowhere/gnupg" in problem["detail"]


def test_without_the_package_it_waits_for_it(
    mail: QueuedMailer, smtp: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gnupg", None)
    pgp._bounded.cache_clear()
    mail.send(ANN, "Hi", "Geheimnis", cipher_type="gpg")
    mail.process_queue()
    assert statuses(mail) == ["queued"] and smtp.messages == []
    assert "mailqueue[pgp]" in rows(mail, "problem")[0]["detail"]


def test_a_gpg_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "gpg"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--list-config*) echo cfg:version:2.2.40;; *) exec tail -f /dev/null;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(pgp, "PATIENCE", 0.5)
    with pytest.raises(DeliveryError, match="did not end"):
        pgp.PgpKeys(None, None, str(program)).check(SITE)
    with pytest.raises(DeliveryError, match="cannot be used"):
        pgp.PgpKeys(None, None, str(tmp_path / "no such program")).check(SITE)


def test_keys_that_can_be_used_are_found_so(mail: QueuedMailer) -> None:
    mail.settings.cipher_type = "gpg"
    finding = cipher_finding(mail.settings, 0.0)
    assert finding and finding.failure is None and finding.subject == "Keys for OpenPGP"

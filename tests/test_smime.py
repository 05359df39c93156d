"""S/MIME as the stock mailers promise it, read by openssl; and what becomes of mail whose keys fail."""

from __future__ import annotations

import email
import email.policy
import sys
import time
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, dkim_key
from mailqueue.errors import BadMessage
from mailqueue.resending import resent
from mailqueue.signing.check import cipher_finding
from mailqueue.signing.wanted import is_marked, marked, unmarked
from support.mail import Clock, make_mail, open_causes, rows, statuses, to_server
from support.services import needs
from support.signing_keys import (
    Person,
    dkim_ed25519,
    ed25519_verifies,
    make_person,
    openssl,
    smime_decrypted,
    smime_verified,
)
from support.smtp_server import ScriptedServer

HOUR = 3600.0
TEXT = "Grüße und ein Geheimnis\nFrom here \n.\n"
HTML = "<p>Grüße und ein Geheimnis</p>"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return make_person(tmp_path_factory.mktemp("keys"), "noreply")


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Person:
    return make_person(tmp_path_factory.mktemp("keys"), "ann")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mail(tmp_path: Path, smtp: ScriptedServer, clock: Clock, site: Person, ann: Person) -> QueuedMailer:
    needs("openssl")
    mail = make_mail(tmp_path, clock=clock)
    to_server(mail, smtp)
    mail.settings.x509_sign_keyfile = str(site.key_file)
    mail.settings.x509_sign_certfile = str(site.cert_file)
    mail.settings.x509_crypt_certfiles = str(ann.cert_file)
    return mail


def send_all(mail: QueuedMailer, tmp_path: Path, **given: Any) -> None:
    file = tmp_path / "größe.txt"
    file.write_text("Geheimnis: ä\n")
    mail.send("Änn <ann@x.test>", "Größe", (TEXT, HTML), attachments=[str(file)], cc="bob@x.test", **given)
    mail.process_queue()


def assert_whole(entity: bytes | None) -> None:
    """Nothing of what send_all() was given is lost or changed."""
    assert entity is not None
    message = email.message_from_bytes(entity, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    text, html = (message.get_body((kind,)) for kind in ("plain", "html"))
    assert text and html
    assert (text.get_content().replace("\r\n", "\n"), html.get_content().strip()) == (TEXT, HTML)
    (file,) = message.iter_attachments()
    assert file.get_filename() == "größe.txt"
    assert file.get_payload(decode=True) == "Geheimnis: ä\n".encode()


def assert_headers(data: bytes) -> None:
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert message["Subject"] == "Größe"
    assert [str(message[name]) for name in ("From", "To", "Cc")] == [
        "Site <noreply@site.test>", "Änn <ann@x.test>", "bob@x.test",
    ]  # fmt: skip
    assert b"Mailqueue" not in data and data.count(b"MIME-Version") == 1


# --- signed, encrypted, both -----------------------------------------------------------------
def test_a_signed_mail_is_verified_by_openssl(
    mail: QueuedMailer, smtp: ScriptedServer, site: Person, tmp_path: Path
) -> None:
    send_all(mail, tmp_path, cipher_type="x509", sign=True, encrypt=False)
    data = smtp.messages[0].data
    assert_headers(data)
    assert_whole(smime_verified(data, site))
    assert smime_verified(data.replace(b"Content-Type: text/html", b"Content-Type: text/htmx"), site) is None


def test_an_encrypted_mail_is_read_by_whom_it_is_for(
    mail: QueuedMailer, smtp: ScriptedServer, site: Person, ann: Person, tmp_path: Path
) -> None:
    send_all(mail, tmp_path, cipher_type="x509", sign=False, encrypt=True)
    data = smtp.messages[0].data
    assert_headers(data)
    assert_whole(smime_decrypted(data, ann))
    assert smime_decrypted(data, site) is None
    assert b"Gr=C3" not in data and b"text/html" not in data


def test_what_is_encrypted_is_signed_within(
    mail: QueuedMailer, smtp: ScriptedServer, site: Person, ann: Person, tmp_path: Path
) -> None:
    mail.settings.cipher_type = "x509"  # sign and encrypt are True where nobody says otherwise
    send_all(mail, tmp_path)
    data = smtp.messages[0].data
    assert_headers(data)
    inner = smime_decrypted(data, ann)
    assert inner
    assert_whole(smime_verified(inner, site))


def test_several_can_read_it_and_keys_may_be_texts(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Person, site: Person, tmp_path: Path
) -> None:
    mail.settings.x509_sign_keyfile = site.key_file.read_text()
    mail.settings.x509_sign_certfile = site.cert_file.read_bytes()
    bob = make_person(tmp_path, "bob")
    both = [ann.cert_file.read_text(), str(bob.cert_file)]
    send_all(mail, tmp_path, cipher_type="x509", x509_crypt_certfiles=both)
    for reader in (ann, bob):
        inner = smime_decrypted(smtp.messages[0].data, reader)
        assert inner
        assert_whole(smime_verified(inner, site))


def test_key_and_certificate_may_lie_in_one_file_with_a_password(
    mail: QueuedMailer, smtp: ScriptedServer, tmp_path: Path
) -> None:
    person = make_person(tmp_path, "locked", password="pässword".encode())
    together = tmp_path / "together.pem"
    together.write_bytes(person.cert_file.read_bytes() + person.key_file.read_bytes())
    mail.settings.x509_sign_keyfile, mail.settings.x509_sign_certfile = str(together), None
    mail.settings.sign_passphrase = "pässword"
    send_all(mail, tmp_path, cipher_type="x509", encrypt=False)
    assert_whole(smime_verified(smtp.messages[0].data, person))


def test_certificates_go_along_or_do_not(
    mail: QueuedMailer, smtp: ScriptedServer, site: Person, ann: Person, tmp_path: Path
) -> None:
    mail.settings.x509_sign_chainfile = str(ann.cert_file)
    send_all(mail, tmp_path, cipher_type="x509", encrypt=False)
    send_all(mail, tmp_path, cipher_type="x509", encrypt=False, x509_nocerts=True)
    with_chain, without = (got.data for got in smtp.messages)
    assert [_subjects_in(data) for data in (with_chain, without)] == [["CN = ann", "CN = noreply"], []]
    assert smime_verified(without, site) is None
    assert_whole(smime_verified(without, site, "-certfile", site.cert_file))


def _subjects_in(data: bytes) -> list[str]:
    message = email.message_from_bytes(data)
    signature = message.get_payload()[-1].get_payload(decode=True)
    told = openssl("pkcs7", "-inform", "DER", "-print_certs", "-noout", data=signature).stdout.decode()
    return sorted(line.partition("=")[2] for line in told.splitlines() if line.startswith("subject"))


def test_a_signer_may_have_an_elliptic_key(mail: QueuedMailer, smtp: ScriptedServer, tmp_path: Path) -> None:
    person = make_person(tmp_path, "curve", curve=True)
    mail.settings.x509_sign_keyfile, mail.settings.x509_sign_certfile = person.key_file, person.cert_file
    send_all(mail, tmp_path, cipher_type="x509", encrypt=False)
    assert_whole(smime_verified(smtp.messages[0].data, person))


def test_dkim_goes_over_all_of_it(mail: QueuedMailer, smtp: ScriptedServer, tmp_path: Path) -> None:
    own = dkim_ed25519()
    mail.settings.dkim = [dkim_key(domain="site.test", selector="s", key=own.pem)]
    send_all(mail, tmp_path, cipher_type="x509")
    assert ed25519_verifies(smtp.messages[0].data, own.record)


def test_a_mail_sent_past_the_queue_is_encrypted_too(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Person
) -> None:
    assert mail.send_direct_email("ann@x.test", "Hi", "Geheimnis", cipher_type="x509", sign=False)
    assert b"Geheimnis" in (smime_decrypted(smtp.messages[0].data, ann) or b"")


def test_several_go_over_one_connection(mail: QueuedMailer, smtp: ScriptedServer, ann: Person) -> None:
    mail.site.connections = 1
    for number in range(4):
        mail.send("ann@x.test", "Hi", f"Geheimnis {number}", cipher_type="x509", sign=False)
    mail.process_queue()
    texts = [smime_decrypted(got.data, ann) or b"" for got in smtp.messages]
    assert [text.strip()[-11:] for text in texts] == [f"Geheimnis {n}".encode() for n in range(4)]
    assert {got.connection for got in smtp.messages} == {smtp.messages[0].connection}


# --- never as it is --------------------------------------------------------------------------
def _wrong_certificate(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_sign_certfile = str(ann.cert_file)


def _no_keyfile(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_sign_keyfile = mail.settings.x509_sign_certfile = None


def _missing_file(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_crypt_certfiles = ["/nowhere/ann.crt"]


def _no_recipients(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_crypt_certfiles = None


def _swapped(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_crypt_certfiles = str(ann.key_file)


def _damaged(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_crypt_certfiles = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def _no_certificate_in_keyfile(mail: QueuedMailer, ann: Person) -> None:
    mail.settings.x509_sign_certfile = None


FAULTS = {
    _wrong_certificate: "x509_sign_certfile is not the certificate of x509_sign_keyfile",
    _no_keyfile: "x509_sign_keyfile is not set",
    _missing_file: "x509_crypt_certfiles: /nowhere/ann.crt: No such file",
    _no_recipients: "x509_crypt_certfiles is not set",
    _swapped: "x509_crypt_certfiles holds no certificate",
    _damaged: "x509_crypt_certfiles: the certificate is damaged",
    _no_certificate_in_keyfile: "x509_sign_certfile holds no certificate",
}


@pytest.mark.parametrize("spoil", FAULTS, ids=lambda fault: fault.__name__)
def test_with_a_fault_in_the_keys_it_waits_and_goes_once_that_is_repaired(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, ann: Person, spoil: Any
) -> None:
    whole = dict(vars(mail.settings))
    spoil(mail, ann)
    mail.send("ann@x.test", "Hi", "Geheimnis", cipher_type="x509")
    mail.send("bob@x.test", "Hi", "for everybody")
    mail.process_queue()
    assert statuses(mail) == ["queued", "sent"]  # nobody else is held up
    for _ in range(2):
        clock.advance(HOUR)
        mail.process_queue()
    clock.advance(HOUR)
    assert statuses(mail) == ["queued", "sent"]
    assert [b"Geheimnis" in got.data for got in smtp.messages] == [False]
    assert [row["attempts"] for row in rows(mail, "recipient")] == [0, 1]
    (problem,) = rows(mail, "problem")
    assert FAULTS[spoil] in problem["detail"] and "Nothing is lost" in problem["remedy"]
    assert "BEGIN" not in problem["detail"]
    vars(mail.settings).update(whole)
    mail.process_queue()
    assert statuses(mail) == ["sent", "sent"] and open_causes(mail) == []
    assert smime_decrypted(smtp.messages[-1].data, ann)


def test_a_key_that_is_missing_is_named_before_there_is_mail_and_only_once(
    mail: QueuedMailer, smtp: ScriptedServer, site: Person, clock: Clock
) -> None:
    clock.now = time.time()  # the certificate is valid
    mail.settings.cipher_type, mail.settings.encrypt = "x509", False
    mail.settings.x509_sign_keyfile = "/nowhere/site.key"
    for _ in range(3):
        mail.process_queue()
        clock.advance(HOUR)
    (problem,) = rows(mail, "problem")
    assert problem["cause"] == "smime-key@" and "/nowhere/site.key: No such file" in problem["detail"]
    mail.settings.x509_sign_keyfile = str(site.key_file)
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["sent"] and open_causes(mail) == []


def test_a_wrong_passphrase_is_said_and_not_told(
    mail: QueuedMailer, smtp: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    person = make_person(tmp_path, "locked", password=b"right-secret")
    mail.settings.x509_sign_keyfile, mail.settings.x509_sign_certfile = person.key_file, person.cert_file
    mail.settings.cipher_type = "x509"
    told = []
    for passphrase in (None, "wrong-secret"):
        mail.settings.sign_passphrase = passphrase
        finding = cipher_finding(mail.settings, 0.0)
        assert finding and finding.failure
        told.append(finding.failure.text)
    assert "sign_passphrase is not set" in told[0] and "sign_passphrase is wrong" in told[1]
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued"] and smtp.messages == []
    seen = caplog.text + str(rows(mail, "problem")) + str(told)
    assert "secret" not in seen and "PRIVATE" not in seen


def test_a_key_that_no_one_can_encrypt_to_is_named(mail: QueuedMailer, tmp_path: Path) -> None:
    mail.settings.x509_crypt_certfiles = str(make_person(tmp_path, "curve", curve=True).cert_file)
    mail.send("ann@x.test", cipher_type="x509")
    mail.process_queue()
    assert statuses(mail) == ["queued"]
    assert rows(mail, "problem")[0]["detail"].startswith("encrypting: TypeError")


def test_without_the_package_it_waits_for_it(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock, ann: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    mail.send("ann@x.test", "Hi", "Geheimnis", cipher_type="x509")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
        mail.process_queue()
    assert statuses(mail) == ["queued"] and smtp.messages == []
    assert "mailqueue[smime]" in rows(mail, "problem")[0]["detail"]
    clock.advance(HOUR)
    mail.process_queue()
    assert smime_decrypted(smtp.messages[0].data, ann)


def test_what_was_to_be_encrypted_stays_so_when_the_setting_is_gone(
    mail: QueuedMailer, smtp: ScriptedServer, clock: Clock
) -> None:
    mail.settings.cipher_type = "x509"
    mail.send("ann@x.test", "Hi", "Geheimnis")
    for nonsense in (None, "rot13"):
        mail.settings.cipher_type = nonsense
        mail.process_queue()
        assert statuses(mail) == ["queued"] and smtp.messages == []
        assert open_causes(mail) == ["cipher-settings"]
        clock.advance(HOUR)
    mail.settings.cipher_type, mail.settings.sign, mail.settings.encrypt = "x509", False, False
    mail.process_queue()
    assert statuses(mail) == ["queued"] and smtp.messages == []
    assert "neither sign nor encrypt" in rows(mail, "problem")[0]["detail"]
    mail.settings.encrypt = True
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent"] and b"Geheimnis" not in smtp.messages[0].data


def test_a_setting_made_later_holds_for_what_waits_already(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Person
) -> None:
    mail.send("ann@x.test", "Hi", "Geheimnis")
    mail.settings.cipher_type = "x509"
    mail.process_queue()
    assert smime_decrypted(smtp.messages[0].data, ann)


@pytest.mark.parametrize("note", ["W10=", "\u00ff", "WzFd", "", "AAAA"])
def test_a_stored_mail_that_is_damaged_is_never_sent_as_it_is(
    mail: QueuedMailer, smtp: ScriptedServer, note: str
) -> None:
    mail.send("ann@x.test", "Hi", "Geheimnis", cipher_type="x509")
    row = mail.db(mail.db.mailqueue_content).select().first()
    damaged = f"Mailqueue-Protection: {note}\r\n{row.mime.partition(chr(10))[2]}"
    row.update_record(mime=damaged)
    mail.db(mail.db.mailqueue_message).update(byte_size=len(damaged.encode()))
    mail.db.commit()
    mail.process_queue()
    assert statuses(mail) == ["failed"] and smtp.messages == []
    assert "is damaged" in rows(mail, "recipient")[0]["reply"]


def test_a_copy_of_a_protected_mail_is_protected() -> None:
    mime = marked(b"To: ann@x.test\r\nSubject: hi\r\n\r\nhello\r\n", {"cipher_type": "x509"})
    copy = resent(mime, "hi", to="boss@x.test", smtputf8=False, domain="site.test", now=0.0)
    assert is_marked(copy.mime) and b"Resent-To: boss@x.test" in copy.mime


# --- what a call may say ---------------------------------------------------------------------
def test_secrets_are_not_stored_with_a_message(mail: QueuedMailer, site: Person) -> None:
    key = site.key_file.read_text()
    for secret in ({"sign_passphrase": "geheim"}, {"x509_sign_keyfile": key}):
        for cipher in ("x509", None):
            with pytest.raises(BadMessage, match="not stored"):
                mail.send("ann@x.test", cipher_type=cipher, **secret)
    mail.settings.sign_passphrase, mail.settings.x509_sign_keyfile = "geheim", key
    mail.send("ann@x.test", cipher_type="x509", sign_passphrase="geheim", x509_sign_keyfile=key)
    (content,) = rows(mail, "content")
    assert unmarked(content["mime"].encode())[0] == {"cipher_type": "x509"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cipher_type": "rot13"}, "expected one of"),
        ({"cipher_type": "x509", "sign": False, "encrypt": False}, "neither sign nor encrypt"),
        ({"cipher_type": "x509", "x509_sign_certfile": "ä".encode()}, "x509_sign_certfile"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(mail: QueuedMailer, given: Any, said: str) -> None:
    with pytest.raises(BadMessage, match=said):
        mail.send("ann@x.test", **given)


@pytest.mark.parametrize("given", [{"sign": True}, {"encrypt": True, "sign": False}, "certificates"])
def test_what_is_to_be_protected_waits_where_no_cipher_is_set(
    mail: QueuedMailer, smtp: ScriptedServer, given: Any, ann: Person, clock: Clock
) -> None:
    clock.now = time.time()  # the certificate is valid
    wish = {"x509_crypt_certfiles": ann.cert_file.read_text()} if given == "certificates" else given
    mail.send("ann@x.test", "Hi", "Geheimnis", **wish)
    mail.process_queue()
    assert statuses(mail) == ["queued"] and smtp.messages == []
    assert open_causes(mail) == ["cipher-settings"]
    mail.settings.cipher_type = "x509"
    clock.advance(HOUR)
    mail.process_queue()
    assert statuses(mail) == ["sent"] and open_causes(mail) == []


def test_what_a_call_says_holds_whatever_is_set_until_it_leaves(
    mail: QueuedMailer, smtp: ScriptedServer, ann: Person
) -> None:
    certificate = ann.cert_file.read_text()
    mail.send("ann@x.test", "Hi", "Geheimnis", encrypt=True, sign=False, x509_crypt_certfiles=certificate)
    mail.send("ann@x.test", "Hi", "Geheimnis", encrypt=False)
    mail.send("ann@x.test", "Hi", "in the open", encrypt=False, sign=False)
    mail.settings.cipher_type, mail.settings.sign, mail.settings.encrypt = "x509", True, False
    mail.settings.x509_crypt_certfiles = None
    mail.process_queue()
    kinds = [email.message_from_bytes(got.data).get_content_type() for got in smtp.messages]
    assert kinds == ["application/pkcs7-mime", "multipart/signed", "text/plain"]
    assert b"multipart/signed" not in (smime_decrypted(smtp.messages[0].data, ann) or b"multipart/signed")


def test_who_declines_it_or_says_nothing_is_heard_without_a_cipher(
    mail: QueuedMailer, smtp: ScriptedServer
) -> None:
    mail.send("ann@x.test", "Hi", "in the open")
    mail.send("ann@x.test", "Hi", "in the open", sign=False)
    mail.send("ann@x.test", "Hi", "in the open", sign=False, encrypt=False)
    assert [is_marked(row["mime"].encode()) for row in rows(mail, "content")] == [False, True, True]
    mail.process_queue()
    assert [b"in the open" in got.data for got in smtp.messages] == [True] * 3


def test_a_certificate_that_has_ended_is_found(mail: QueuedMailer, tmp_path: Path) -> None:
    mail.settings.cipher_type = "x509"
    finding = cipher_finding(mail.settings, time.time())
    assert finding and finding.failure is None
    mail.settings.x509_crypt_certfiles = str(make_person(tmp_path, "past", days=-1).cert_file)
    finding = cipher_finding(mail.settings, time.time())
    assert finding and finding.failure
    assert "the certificate of CN=past has ended on" in finding.failure.text

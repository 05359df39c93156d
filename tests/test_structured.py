"""From a stored message to its parts."""

from __future__ import annotations

import io
from email.message import EmailMessage
from typing import Any

import pytest
from mailqueue.classify import DeliveryError, classify_exception
from mailqueue.compose import Attachment, compose
from mailqueue.transports.structured import structured
from mailqueue.ways import OF_THE_TRANSPORT


def made(**given: Any) -> bytes:
    usual: dict[str, Any] = {"to": "ann@x.test", "sender": "site@site.test", "subject": "x", "text": "t"}
    return compose(**{**usual, "html": None, "domain": "site.test", "now": 0.0, **given}).mime


def raw(*lines: str, body: str = "t") -> bytes:
    return ("\r\n".join(("From: site@site.test", *lines)) + f"\r\n\r\n{body}\r\n").encode()


def test_who_gets_it_is_the_envelopes_business_alone() -> None:
    mime = made(to=["Ann <ann@x.test>", "bob@x.test"], cc=["cid@x.test", "ann@x.test"])
    found = structured(mime, ["ann@x.test", "cid@x.test", "dan@x.test"])
    assert found.to == {"ann@x.test": "Ann <ann@x.test>"}
    assert (found.cc, found.bcc) == ({"cid@x.test": "cid@x.test"}, ("dan@x.test",))


@pytest.mark.parametrize(
    ("written", "recipient", "to"),
    [
        ("Ann <ann@X.TEST>", "ann@x.test", True),
        ("Ann <Ann@x.test>", "ann@x.test", False),  # a local part may have case
        ('"ann, b"@x.test', '"ann, b"@x.test', True),
    ],
)
def test_a_recipient_is_found_in_the_header_whatever_the_case_of_its_domain(
    written: str, recipient: str, to: bool
) -> None:
    found = structured(raw(f"To: {written}"), [recipient])
    assert (list(found.to), list(found.bcc)) == (([recipient], []) if to else ([], [recipient]))


def test_a_header_field_in_utf_8_is_read_as_such() -> None:
    mime = raw("To: Änn <änn@x.test>", "Subject: Grüße", "X-Name: Üb")
    found = structured(mime, ["änn@x.test"])
    assert list(found.to) == ["änn@x.test"] and found.to["änn@x.test"].startswith("Änn <")
    assert (found.subject, found.headers["X-Name"]) == ("Grüße", "Üb")


def test_encoded_words_and_folded_lines_are_decoded() -> None:
    long = "Grüße " * 30 + "end"
    found = structured(made(subject=long, headers={"X-Long": "a" * 60 + " " + "b" * 60}), ["ann@x.test"])
    assert found.subject == long and found.headers["X-Long"] == "a" * 60 + " " + "b" * 60


def test_texts_are_decoded_by_their_charset_and_have_the_line_ends_of_text() -> None:
    latin = raw("Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit").replace(
        b"\r\nt\r\n", b"\r\ngr\xfcn\r\nend\r\n"
    )
    assert structured(latin, ["a@x.test"]).text == "grün\nend\n"
    unknown = raw("Content-Type: text/plain; charset=x-none", body="grün")
    assert structured(unknown, ["a@x.test"]).text == "grün\n"


@pytest.mark.parametrize(
    ("data", "name", "content", "content_type"),
    [
        ("grün".encode(), "a.txt", "grün", "text/plain"),
        ("grün".encode("latin-1"), "a.txt", "grün".encode("latin-1"), "application/octet-stream"),
        (b"\x00\xff", "a.bin", b"\x00\xff", "application/octet-stream"),
        (b"%PDF", "a.pdf", b"%PDF", "application/pdf"),
    ],
)
def test_files_arrive_byte_for_byte(data: bytes, name: str, content: Any, content_type: str) -> None:
    mime = made(attachments=[Attachment(io.BytesIO(data), name)])
    (file,) = structured(mime, ["ann@x.test"]).attached
    assert (file.filename, file.content, file.content_type, file.content_id) == (
        name,
        content,
        content_type,
        None,
    )


def test_an_image_is_inline_where_the_html_shows_it_and_a_file_where_it_does_not() -> None:
    picture = [Attachment(io.BytesIO(b"\x89PNG"), "p.png", content_id="pic", content_type="image/png")]
    (shown,) = structured(made(html="<img src='cid:pic'>", attachments=picture), ["ann@x.test"]).attached
    assert (shown.content_id, shown.content) == ("pic", b"\x89PNG")
    (file,) = structured(made(attachments=picture), ["ann@x.test"]).attached
    assert file.content_id is None


def test_a_message_within_a_message_and_an_invitation_are_kept() -> None:
    mail = EmailMessage()
    mail["From"], mail["To"] = "site@site.test", "ann@x.test"
    mail.set_content("text")
    mail.add_alternative("<p>html</p>", subtype="html")
    mail.add_alternative("BEGIN:VCALENDAR", subtype="calendar")
    inner = EmailMessage()
    inner["Subject"] = "inner"
    inner.set_content("within")
    mail.add_attachment(inner)
    found = structured(mail.as_bytes().replace(b"\n", b"\r\n"), ["ann@x.test"])
    assert (found.text, found.html) == ("text\n", "<p>html</p>\n")
    assert found.further == (("BEGIN:VCALENDAR\n", "text/calendar"),)
    (file,) = found.attached
    assert file.content_type == "message/rfc822" and b"Subject: inner" in bytes(file.content)


def test_fields_of_the_message_itself_and_of_its_way_are_not_among_the_further_ones() -> None:
    mime = raw(
        "To: ann@x.test", "Date: now", "Message-ID: <1@site.test>", "MIME-Version: 1.0", "Received: by x",
        "Return-Path: <x@x.test>", "DKIM-Signature: v=1", "Resent-To: eve@x.test", "Bcc: eve@x.test",
        "X-Tag: one", "X-Tag: two", "X-Metadata-Order-No: 42", "X-Own: 1", "Auto-Submitted: auto-generated",
    )  # fmt: skip
    found = structured(mime, ["ann@x.test"])
    assert found.headers == {"X-Own": "1", "Auto-Submitted": "auto-generated"}
    assert (found.tags, found.metadata) == (("one", "two"), {"order-no": "42"})
    assert (found.message_id, found.bcc) == ("<1@site.test>", ())


@pytest.mark.parametrize(
    "line",
    [
        "Subject: =?utf-8?q?a=0D=0ABcc:_eve=40x.test?=",
        "X-Own: =?utf-8?q?a=0Ab?=",
        "X-Tag: =?utf-8?q?a=00b?=",
        "X-Metadata-A: =?utf-8?b?YQpi?=",
        "X-Own: a\x0bb",
        "To: =?utf-8?q?a=0Ab?= <ann@x.test>",
    ],
)
def test_what_could_become_a_header_of_its_own_goes_nowhere(line: str) -> None:
    try:
        found = structured(raw(line), ["ann@x.test"])
    except (DeliveryError, ValueError) as error:
        assert classify_exception("build", error).rule == "message-not-built"
    else:  # the standard library has taken it out
        assert not any(sign in repr(found) for sign in ("\\n", "\\r", "\\x0b", "\\x00"))


@pytest.mark.parametrize(
    "content_type",
    [
        'multipart/signed; protocol="application/pkcs7-signature"; boundary=b',
        'Multipart/Encrypted; protocol="application/pgp-encrypted"; boundary=b',
        "application/pkcs7-mime; smime-type=enveloped-data",
    ],
)
def test_what_is_signed_or_encrypted_is_left_to_a_transport_that_leaves_it_as_it_is(
    content_type: str,
) -> None:
    with pytest.raises(DeliveryError, match="signed or encrypted") as refused:
        structured(raw(f"Content-Type: {content_type}"), ["ann@x.test"])
    assert refused.value.failure.rule in OF_THE_TRANSPORT


def test_a_message_without_headers_or_text_is_none_but_no_fault() -> None:
    found = structured(b"\r\n\r\n", ["ann@x.test"])
    assert (found.sender, found.to, found.bcc, found.subject, found.attached) == (
        "",
        {},
        ("ann@x.test",),
        "",
        (),
    )

"""Transports that send nothing."""

from __future__ import annotations

import logging

import pytest
from mailqueue.classify import SiteFault, classify_exception
from mailqueue.compose import compose
from mailqueue.transports.capture import (
    Captured,
    FileTransport,
    LoggingTransport,
    MemoryTransport,
    readable,
)
from support.smtp_client import attempt, outcomes

MIME = compose(
    to="a@x.test",
    sender="Site <site@site.test>",
    subject="Grüße",
    text="Ihr Code: 42\nviele Grüße\n",
    html="<b>42</b>",
    domain="site.test",
    now=0.0,
).mime
SENT = {"a@x.test": "sent", "b@x.test": "sent"}


def test_a_message_is_readable_for_a_developer():
    text = readable("site@site.test", ["a@x.test", "b@x.test"], MIME)
    assert "From: site@site.test\nTo: a@x.test, b@x.test\nSubject: Grüße\n" in text
    assert "viele Grüße" in text and "<b>" not in text


@pytest.mark.parametrize(
    "mime",
    [
        b"",
        b"nonsense",
        b"Subject: x\r\nContent-Type: text/plain; charset=no-such\r\n\r\n\xff\r\n",
        b"Subject: \xff\xfe\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n",
        b"Subject: =?utf-8?b?AAAA?= \r\nContent-Transfer-Encoding: base64\r\n\r\n%%%\r\n",
        b"Content-Type: multipart/alternative; boundary=\r\n\r\nx",
    ],
)
def test_a_message_that_cannot_be_read_is_captured_all_the_same(tmp_path, mime):
    path = tmp_path / "mail.log"
    assert outcomes(attempt(FileTransport(str(path)), mime=mime)) == {"a@x.test": "sent"}
    assert "To: a@x.test" in path.read_text("utf-8")


def test_the_logging_transport_writes_to_the_logger_it_was_given(caplog):
    logger = logging.getLogger("site")
    with caplog.at_level(logging.WARNING, "site"):
        answers = attempt(LoggingTransport(logger), "a@x.test", "b@x.test", mime=MIME)
    assert outcomes(answers) == SENT
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("site", "WARNING")
    assert "viele Grüße" in record.getMessage()


def test_a_percent_sign_in_a_mail_does_not_disturb_the_log(caplog):
    attempt(LoggingTransport(logging.getLogger("site")), mime=b"Subject: 100 %s\r\n\r\n%d\r\n")
    assert "100 %s" in caplog.text


def test_the_file_transport_appends(tmp_path):
    path = tmp_path / "mail.log"
    for subject in (b"one", b"two"):
        attempt(FileTransport(str(path)), mime=b"Subject: " + subject + b"\r\n\r\n")
    assert path.read_text("utf-8").index("Subject: one") < path.read_text("utf-8").index("Subject: two")


def test_a_file_that_cannot_be_written_is_the_sites_fault_found_before_a_message_is_tried(tmp_path):
    transport = FileTransport(str(tmp_path / "no-such-folder" / "mail.log"))
    with pytest.raises(SiteFault) as raised:
        transport.open()
    failure = classify_exception(transport.stage, raised.value)
    assert (failure.rule, failure.kind) == ("bad-server-address", "configuration")
    assert "no-such-folder" in failure.text


def test_the_memory_transport_keeps_envelope_and_bytes():
    kept: list[Captured] = []
    attempt(MemoryTransport(kept), "a@x.test", "b@x.test", mime=MIME)
    assert kept == [Captured("site@site.test", ("a@x.test", "b@x.test"), MIME)]


def test_they_are_told_apart_by_name_and_say_that_nothing_leaves(tmp_path):
    transports = [
        LoggingTransport(logging.getLogger()),
        FileTransport("/a"),
        FileTransport("/b"),
        MemoryTransport([]),
    ]
    assert [transport.name for transport in transports] == ["logging", "logging:/a", "logging:/b", "memory"]
    assert len({transport.settings() for transport in transports}) == 4
    assert not any(transport.delivers for transport in transports)

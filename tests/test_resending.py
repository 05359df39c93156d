"""A stored message once more, for somebody else."""

from __future__ import annotations

from email import message_from_bytes, policy
from typing import Any

import pytest
from mailqueue.compose import compose, with_sender
from mailqueue.errors import BadAddress
from mailqueue.resending import resent

NOW = 1_800_000_000.0
GIVEN: dict[str, Any] = {"to": "ann@x.test", "subject": "Grüße", "text": "Text\n\nmore", "html": None}
AGAIN: dict[str, Any] = {"smtputf8": False, "domain": "site.test", "now": NOW}


@pytest.mark.parametrize("sender", [None, "own@site.test"])
def test_a_copy_is_the_message_with_resent_fields_and_one_from(sender: str | None) -> None:
    stored = compose(**GIVEN, sender=sender, domain="site.test", now=NOW)
    copy = resent(stored.mime, stored.subject, to="Boss <boss@x.test>", **AGAIN)
    mail = message_from_bytes(with_sender(copy.mime, "site@site.test"), policy=policy.default)
    assert mail.get_all("From") == [sender or "site@site.test"]
    assert (mail["To"], mail["Subject"]) == ("ann@x.test", "Grüße")
    assert (mail["Resent-From"], mail["Resent-To"]) == ("boss@x.test", "boss@x.test")
    assert mail["Resent-Message-ID"] == copy.message_id != stored.message_id
    assert mail["Resent-Date"].datetime.timestamp() == NOW
    assert mail["Message-ID"] == stored.message_id
    assert copy.mime.partition(b"\r\n\r\n")[2] == stored.mime.partition(b"\r\n\r\n")[2]
    assert copy.envelope.recipients == (("to", "boss@x.test"),)
    assert copy.envelope.sender is None


def test_an_address_beyond_ascii_needs_such_a_server() -> None:
    stored = compose(**GIVEN, domain="site.test", now=NOW)
    assert resent(stored.mime, "s", to="jörg@x.test", **AGAIN).envelope.smtputf8
    assert not resent(stored.mime, "s", to="jorg@x.test", **AGAIN).envelope.smtputf8


def test_an_administrator_without_an_address_is_refused() -> None:
    with pytest.raises(BadAddress):
        resent(b"Subject: x\r\n\r\n", "x", to="an administrator", **AGAIN)

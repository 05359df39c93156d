"""A stored message once more, for somebody else, marked as resent."""

from __future__ import annotations

from datetime import datetime, timezone
from email.utils import format_datetime
from uuid import uuid4

from . import words
from .compose import Composed, Envelope, parse_address


def resent(mime: bytes, subject: str, *, to: str, smtputf8: bool, domain: str, now: float) -> Composed:
    """A message as it is, for one further recipient (RFC 5322 section 3.6.6).

    Args:
        mime: of the stored message.
        subject: for lists.
        to: an address: who resends it, and gets it.
        smtputf8: whether the message needs a server that offers SMTPUTF8.
        domain: the right side of the Resent-Message-ID.
        now: epoch seconds.

    Raises:
        BadAddress: `to` is no address.
    """
    person = parse_address(to)
    own_id = f"<{uuid4()}@{domain}>"
    fields = {
        "Resent-From": person.spec,
        "Resent-To": person.spec,
        "Resent-Date": format_datetime(datetime.fromtimestamp(now, timezone.utc)),
        "Resent-Message-ID": own_id,
    }
    block = "".join(f"\r\n{name}: {value}" for name, value in fields.items()).encode("utf-8")
    # Below the other fields, for the one at the top tells whether the site's own sender is to be put there.
    header, blank, body = mime.partition(b"\r\n\r\n")
    envelope = Envelope(None, ((words.TO, person.spec),), smtputf8 or person.smtputf8)
    return Composed(envelope, header + block + blank + body, subject, own_id)

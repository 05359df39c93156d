"""What an SMTP server that can be used offers, how long its certificate holds, and whom it lets send."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator

from .. import words
from ..findings import NOTE, OK, PROBLEM, Finding
from ..remedies import advice
from ..told import Told
from .smtp import SmtpTransport

SOON = 14  # days before its end from which a certificate is a problem
_EXTENSIONS = {
    "SIZE": Told("a message that is too big is sent in vain"),
    "8BITMIME": Told("text beyond ASCII is sent encoded"),
    "SMTPUTF8": Told("addresses beyond ASCII cannot be written to"),
    "PIPELINING": Told("sending takes more round trips"),
}


def examine(transport: SmtpTransport, sender: str | None) -> Iterator[Finding]:
    """Look at an open transport. Sends MAIL, RCPT and RSET, and no message.

    Args:
        sender: the site's address, which is to send to itself; None: that is not asked.
    """
    yield from _certificate(transport)
    yield _size(transport)
    for keyword, otherwise in _EXTENSIONS.items():
        if keyword not in transport.extensions:
            told = Told(
                "The server does not offer {keyword}: {otherwise}.", keyword=keyword, otherwise=otherwise
            )
            yield Finding(NOTE, told)
    if sender:
        yield _sender(transport, sender)


def _certificate(transport: SmtpTransport) -> Iterator[Finding]:
    shown = transport.peer_certificate
    if shown is None:
        yield Finding(NOTE, Told("The connection is not encrypted."))
        return
    try:
        from cryptography import x509
    except ImportError:
        told = Told("How long the certificate holds is not known without the package cryptography.")
        yield Finding(NOTE, told)
        return
    ends = x509.load_der_x509_certificate(shown).not_valid_after_utc
    days = (ends - datetime.datetime.fromtimestamp(time.time(), datetime.timezone.utc)).days
    told = Told("The server's certificate holds until {day}, {n} more days.", day=f"{ends:%Y-%m-%d}", n=days)
    if days >= SOON:
        yield Finding(OK, told)
    else:
        renew = Told("Have it renewed by whoever runs the mail server, or no mail goes out.")
        yield Finding(PROBLEM, told, renew)


def _size(transport: SmtpTransport) -> Finding:
    offered = ", ".join(keyword for keyword in _EXTENSIONS if keyword in transport.extensions) or Told("none")
    limit = transport.extensions.get("SIZE", "")
    if not (limit.isdecimal() and int(limit)):
        return Finding(OK, Told("Extensions that matter: {offered}.", offered=offered))
    told = Told(
        "Extensions that matter: {offered}; a message may have {size} MB.",
        offered=offered,
        size=f"{int(limit) / 1e6:.1f}",
    )
    return Finding(OK, told)


def _sender(transport: SmtpTransport, sender: str) -> Finding:
    failure = transport.try_sender(sender, sender)
    if failure is None:
        return Finding(OK, Told("The server lets {sender} send.", sender=sender))
    summary, remedy = advice(failure, transport.name, transport.place)
    if failure.kind != words.CONFIGURATION:  # it may have no mailbox, or be asked to wait
        told = Told(
            "The server does not take mail for {sender} itself: {reply}", sender=sender, reply=failure.text
        )
        return Finding(NOTE, told)
    reply = words.answer(failure.code, failure.enhanced, failure.text)
    return Finding(PROBLEM, Told("{summary} ({reply})", summary=Told.plain(summary), reply=reply), remedy)

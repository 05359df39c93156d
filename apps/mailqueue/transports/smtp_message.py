"""A message as an SMTP session needs it: its commands, and its text in lines that end with CRLF."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .. import words
from ..classify import DeliveryError, Failure, NotOffered, classify_exception, classify_reply
from ..errors import MailQueueError
from .base import Letter
from .smtp_wire import in_octets

DATA = b"DATA\r\n"


class Prepared(NamedTuple):
    """A message as one session needs it.

    Args:
        letter: the message.
        text: its MIME text, every line ended by CRLF.
        mail: the MAIL command.
        recipients: each with its RCPT command, or why there can be none.
        commands: all of them, up to the text; none where nobody can be named.
    """

    letter: Letter
    text: bytes
    mail: bytes
    recipients: tuple[tuple[str, bytes | Failure], ...]
    commands: tuple[bytes, ...]


def prepare(letter: Letter, extensions: Mapping[str, str]) -> Prepared:
    """Make a message ready for a server that offers these extensions.

    Raises:
        DeliveryError: it is larger than the server takes.
        NotOffered: it needs an extension that is not offered.
        ValueError: its sender cannot be written.
    """
    text = _with_line_ends(letter.mime)
    mail = in_octets(f"MAIL FROM:<{letter.sender}>{_parameters(letter, len(text), extensions)}")
    recipients = [(one, _rcpt(one)) for one in letter.recipients]
    named = [command for _, command in recipients if isinstance(command, bytes)]
    return Prepared(letter, text, mail, tuple(recipients), (mail, *named, DATA) if named else ())


def prepared_ahead(letter: Letter, extensions: Mapping[str, str]) -> Prepared | None:
    """The same for a message whose commands are to go out before its turn; None where its turn must show."""
    try:
        prepared = prepare(letter, extensions)
    except (MailQueueError, ValueError):
        return None
    return prepared if prepared.commands else None


def stuffed(text: bytes) -> bytes:
    """The text with the dots at the beginning of its lines doubled (RFC 5321 section 4.5.2)."""
    doubled = text.replace(b"\r\n.", b"\r\n..")
    return b"." + doubled if doubled.startswith(b".") else doubled


def _parameters(letter: Letter, size: int, extensions: Mapping[str, str]) -> str:
    parameters = ""
    if "SIZE" in extensions:
        limit = extensions["SIZE"]
        if limit.isdigit() and 0 < int(limit) < size:
            text = f"5.3.4 the message has {size} octets, the server takes {limit}"
            raise DeliveryError(classify_reply(words.MAIL, 552, text))
        parameters += f" SIZE={size}"
    if letter.smtputf8:
        if "SMTPUTF8" not in extensions:
            raise NotOffered("SMTPUTF8")
        parameters += " BODY=8BITMIME SMTPUTF8" if "8BITMIME" in extensions else " SMTPUTF8"
    return parameters


def _rcpt(recipient: str) -> bytes | Failure:
    try:
        return in_octets(f"RCPT TO:<{recipient}>")
    except ValueError as error:
        return classify_exception(words.RCPT, error)


def _with_line_ends(mime: bytes) -> bytes:
    """The message with every line ended by CRLF, the last one too.

    A bare CR or LF is what hides a second message in the first (RFC 5321 section 2.3.8): some servers
    take LF, dot, LF for the end.
    """
    pairs = mime.count(b"\r\n")
    if mime.count(b"\r") != pairs or mime.count(b"\n") != pairs:
        mime = re.sub(rb"\r\n|\r|\n", b"\r\n", mime)
    return mime if mime.endswith(b"\r\n") else mime + b"\r\n"

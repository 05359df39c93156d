"""Two readers of a message that know nothing of each other: what both read is what people get.

Python's email package with its default policy; and, from Python 3.11 on, fast-mail-parser, a binding
of Rust's mailparse, which shares no line with it (mail-parser and its like are built on the email
package). It is strict: what it would have to repair is an error.
"""

from __future__ import annotations

import email
import re
import sys
from dataclasses import dataclass
from email import policy
from email.headerregistry import Address as ReadAddress
from email.message import EmailMessage
from typing import Any

Mailbox = tuple[str, str]  # name without blanks, address
File = tuple[str, str, bytes, str]  # name, type, content, content id without brackets

_WHEELS = (3, 11)  # for older versions of Python fast-mail-parser has none
# Rust's mailparse ends an address at the first ">", even inside of quotes.
_BEYOND_RUST = re.compile(rb'"[^"]*[<>][^"]*"@')
ADDRESS_FIELDS = ("from", "to", "cc", "reply-to")


@dataclass(frozen=True)
class Reading:
    """What a reader makes of a message.

    Attributes:
        fields: the names of the header fields in small letters, sorted, each as often as it is there.
        people: address field -> its mailboxes.
        texts: any other field but the Content- ones -> its value.
        text, html: the bodies with plain line ends; None: there is none.
        files: the attachments, sorted.
        reads_names: whether it is to be trusted with the names of mailboxes.
    """

    fields: list[str]
    people: dict[str, list[Mailbox]]
    texts: dict[str, str]
    text: str | None
    html: str | None
    files: list[File]
    reads_names: bool = True


def readings(mime: bytes) -> list[Reading]:
    """What each reader makes of it; without Rust's where an address is one that it cannot read."""
    header = mime.partition(b"\r\n\r\n")[0]
    if sys.version_info < _WHEELS or _BEYOND_RUST.search(header):
        return [_by_python(mime)]
    return [_by_rust(mime), _by_python(mime)]


def without_blanks(text: str | None) -> str:
    """Readers differ in the blanks they keep inside a name."""
    return re.sub(r"\s", "", text or "")


# --- Python's ---------------------------------------------------------------------------------


def _by_python(mime: bytes) -> Reading:
    # A reader of a message with UTF-8 in its header decodes it first (RFC 6532).
    message: Any = email.message_from_string(mime.decode("utf-8"), policy=policy.default)
    assert isinstance(message, EmailMessage)
    assert not [defect for part in message.walk() for defect in part.defects]
    names = [name.lower() for name in message]
    return Reading(
        fields=sorted(names),
        people={
            name: [(without_blanks(one.display_name), _spec_of(one)) for one in message[name].addresses]
            for name in ADDRESS_FIELDS
            if name in names
        },
        texts={name: str(message[name]) for name in names if _is_text(name)},
        text=_body(message, "plain"),
        html=_body(message, "html"),
        files=sorted(_files(message)),
    )


def _spec_of(address: ReadAddress) -> str:
    # Python's own addr_spec forgets the quotes of "."@example.com.
    plain = re.fullmatch(r"[^ \"(),:;<>@\[\\\].]+(\.[^ \"(),:;<>@\[\\\].]+)*", address.username)
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", address.username) + '"'
    return f"{address.username if plain else quoted}@{address.domain}"


def _is_text(name: str) -> bool:
    return name not in ADDRESS_FIELDS and not name.startswith("content-")


def _body(message: Any, kind: str) -> str | None:
    part = message.get_body((kind,))
    return None if part is None else _lines(part.get_payload(decode=True).decode("utf-8"))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _files(message: Any) -> list[File]:
    bodies = [message.get_body(("plain",)), message.get_body(("html",))]
    leaves = [part for part in message.walk() if not part.is_multipart() and part not in bodies]
    return [
        (
            part.get_filename() or "",
            part.get_content_type(),
            part.get_payload(decode=True),
            (part["Content-ID"] or "").strip("<>"),
        )
        for part in leaves
    ]


# --- Rust's -----------------------------------------------------------------------------------


def _by_rust(mime: bytes) -> Reading:
    import fast_mail_parser

    mail = fast_mail_parser.parse_email(mime, strict=True)
    people = {
        "from": [mail.from_] if mail.from_ else [],
        "to": mail.to,
        "cc": mail.cc,
        "reply-to": mail.reply_to,
    }
    names = sorted(name.lower() for name, values in mail.headers.items() for _ in values)
    assert len(mail.text_plain) < 2 and len(mail.text_html) < 2
    return Reading(
        fields=names,
        people={
            name: [(without_blanks(one.display_name), one.address) for one in people[name]]
            for name in ADDRESS_FIELDS
            if name in names
        },
        texts={name.lower(): values[0] for name, values in mail.headers.items() if _is_text(name.lower())},
        text=_lines(mail.text_plain[0]) if mail.text_plain else None,
        html=_lines(mail.text_html[0]) if mail.text_html else None,
        files=sorted(
            (one.filename, one.mimetype, one.content, one.content_id or "") for one in mail.attachments
        ),
        # Behind a local part beyond ASCII it leaves the encoded words of the same field as they are.
        reads_names=mime.partition(b"\r\n\r\n")[0].isascii(),
    )

"""From a stored message (RFC 5322) and its envelope to its parts, for providers that want them one by one.

Who gets the message is the envelope's business alone: of the header's To and Cc only those are kept who
are in the envelope, whoever is in the envelope only is a Bcc.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.headerregistry import Address
from email.message import EmailMessage
from email.parser import HeaderParser
from email.policy import default
from typing import Any

from .. import words
from ..classify import DeliveryError, Failure

# Fields that are told in another way, or are the business of whoever sends the message on.
_TOLD_OTHERWISE = re.compile(
    "from|to|cc|bcc|reply-to|subject|date|message-id|mime-version|content-.*|return-path|received"
    "|dkim-signature|resent-.*|x-tag|x-metadata-.*",
    re.IGNORECASE,
)
_METADATA = "x-metadata-"
# Whoever builds such a message anew of its parts breaks its signature, or shows what was to be secret.
_PROTECTED = frozenset(
    {"multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"}
)
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\u2028\u2029]")


@dataclass(frozen=True)
class Attached:
    """A file that goes with a message.

    Attributes:
        content_id: without angle brackets; None: it is not shown in the HTML text.
        content: text where it is one that can be read.
    """

    filename: str | None
    content: bytes | str
    content_type: str
    content_id: str | None


@dataclass(frozen=True)
class Structured:
    """A message in its parts.

    Attributes:
        sender: as in the header's From, decoded.
        to, cc: of each recipient's address, how it stands in the header.
        further: other alternatives to the text, such as a calendar's: content and type.
        headers: the fields that nothing else here tells of, in their order.
        tags: the fields X-Tag.
        metadata: the fields X-Metadata-NAME.
    """

    sender: str
    to: dict[str, str]
    cc: dict[str, str]
    bcc: tuple[str, ...]
    reply_to: tuple[str, ...]
    subject: str
    message_id: str
    text: str | None
    html: str | None
    further: tuple[tuple[str, str], ...]
    attached: tuple[Attached, ...]
    headers: dict[str, str]
    tags: tuple[str, ...]
    metadata: dict[str, str]


def structured(mime: bytes, recipients: Sequence[str]) -> Structured:
    """Take a message apart.

    Args:
        mime: the message, with a From.
        recipients: the envelope recipients' addresses.

    Raises:
        DeliveryError: a field holds what no header may hold: it could become a field of its own. Or the
            message is signed or encrypted, and must stay as it is.
    """
    header = _header(mime)
    if header.get_content_type() in _PROTECTED:
        said = "a signed or encrypted message must not be built anew, as this provider's API does"
        raise DeliveryError(Failure(words.MESSAGE, words.BUILD, "not-supported", said))
    to = _in_envelope(header, "To", recipients)
    cc = _in_envelope(header, "Cc", [address for address in recipients if address not in to])
    bodies = _Bodies(message_from_bytes(mime, _class=EmailMessage, policy=default))
    found = Structured(
        sender=", ".join(map(str, _addresses(header, "From"))),
        to=to,
        cc=cc,
        bcc=tuple(address for address in recipients if address not in to and address not in cc),
        reply_to=tuple(map(str, _addresses(header, "Reply-To"))),
        subject=str(header["Subject"] or ""),
        message_id=str(header["Message-ID"] or "").strip(),
        text=bodies.text,
        html=bodies.html,
        further=tuple(bodies.further),
        attached=tuple(bodies.attached),
        headers={name: str(value) for name, value in header.items() if not _TOLD_OTHERWISE.fullmatch(name)},
        tags=tuple(map(str, header.get_all("X-Tag", []))),
        metadata=_metadata(header),
    )
    _check(found)
    return found


def _header(mime: bytes) -> EmailMessage:
    # Read as UTF-8 (RFC 6532), which the standard library does for text only.
    head, _, _ = mime.partition(b"\r\n\r\n")
    parser = HeaderParser(_class=EmailMessage, policy=default)
    return parser.parsestr(head.decode("utf-8", "replace") + "\r\n\r\n")


def _addresses(header: EmailMessage, name: str) -> list[Address]:
    return [address for field in header.get_all(name, []) for address in field.addresses]


def _in_envelope(header: EmailMessage, name: str, recipients: Sequence[str]) -> dict[str, str]:
    """Of each recipient who stands in this field, how."""
    known = {_same(recipient): recipient for recipient in recipients}
    found = ((_same(address.addr_spec), address) for address in _addresses(header, name))
    return {known[same]: str(address) for same, address in found if same in known}


def _same(address: str) -> str:
    """What is equal for two ways to write one address (RFC 5321 section 2.4: the domain has no case)."""
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.lower()}"


def _metadata(header: EmailMessage) -> dict[str, str]:
    fields = ((name.lower(), str(value)) for name, value in header.items())
    return {name.removeprefix(_METADATA): value for name, value in fields if name.startswith(_METADATA)}


class _Bodies:
    """The texts and files of a message.

    Args:
        message: the message.
    """

    def __init__(self, message: EmailMessage):
        self.text: str | None = None
        self.html: str | None = None
        self.further: list[tuple[str, str]] = []
        self.attached: list[Attached] = []
        self._take(message, alternative=False)

    def _take(self, part: Any, *, alternative: bool) -> None:
        if part.get_content_maintype() == "multipart":
            for inner in part.iter_parts():
                self._take(inner, alternative=alternative or part.get_content_subtype() == "alternative")
        elif part.is_attachment() or part.get_filename() or part["Content-ID"]:
            self.attached.append(_attached(part))
        elif part.get_content_type() == "text/plain" and self.text is None:
            self.text = _text_of(part)
        elif part.get_content_type() == "text/html" and self.html is None:
            self.html = _text_of(part)
        elif alternative and part.get_content_maintype() == "text":
            self.further.append((_text_of(part), part.get_content_type()))
        else:
            self.attached.append(_attached(part))


def _text_of(part: Any) -> str:
    data = _bytes_of(part)
    try:
        text = data.decode(part.get_content_charset("utf-8"))
    except (LookupError, UnicodeDecodeError):
        text = data.decode("utf-8", "replace")
    return text.replace("\r\n", "\n")


def _bytes_of(part: Any) -> bytes:
    if part.get_content_maintype() == "message":
        return b"".join(inner.as_bytes() for inner in part.iter_parts())
    return bytes(part.get_payload(decode=True))


def _attached(part: Any) -> Attached:
    content_id = str(part["Content-ID"] or "").strip().strip("<>") or None
    inline = content_id if part.get_content_disposition() != "attachment" else None
    data = _bytes_of(part)
    content_type = part.get_content_type()
    if part.get_content_maintype() != "text" or inline:
        return Attached(part.get_filename(), data, content_type, inline)
    try:
        return Attached(part.get_filename(), data.decode("utf-8"), content_type, None)
    except UnicodeDecodeError:  # it shall arrive byte for byte
        return Attached(part.get_filename(), data, "application/octet-stream", None)


def _check(found: Structured) -> None:
    """A provider may write these into a header as they are; a stored row may be damaged."""
    for text in _one_line_texts(found):
        if _FORBIDDEN.search(text):
            said = "a control character stands where a header goes"
            raise DeliveryError(Failure(words.MESSAGE, words.BUILD, "message-not-built", said))


def _one_line_texts(found: Structured) -> Iterable[str]:
    yield from (found.sender, *found.to.values(), *found.cc.values(), *found.bcc, *found.reply_to)
    yield from (found.subject, found.message_id, *found.tags)
    for pairs in (found.headers, found.metadata):
        yield from (*pairs, *pairs.values())
    for file in found.attached:
        yield from (file.filename or "", file.content_id or "", file.content_type)

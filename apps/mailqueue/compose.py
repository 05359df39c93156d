"""From the arguments of a send() to an envelope and the bytes of an RFC 5322 message.

`compose()` is pure but for reading the attachments that are named by their paths. It either returns
a message that every reader understands as it was meant, or raises a BadMessage that says which
argument is at fault. `_header_block()` writes the header, `_body()` everything below it; both write
the bytes themselves, because the standard library's way of folding header fields differs from one
Python to the next and encodes what must stay as it is (a long List-Unsubscribe address, for one).
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.encoders import encode_base64
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.mime.base import MIMEBase
from functools import lru_cache
from secrets import token_hex
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from email_validator import EmailNotValidError, validate_email

from .errors import BadAddress, BadAttachment, BadHeader, BadMessage

# The line breaks of Unicode are refused with the control characters: readers split lines at them.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_MAILBOX: Final = re.compile(rf'(?P<name>(?:{_QUOTED}|[^"<>,;@])*)<(?P<spec>(?:{_QUOTED}|[^"<>])*)>')
_FIELD_WORD: Final = re.compile(rf" +(?:{_QUOTED}|[^ ])+")
_RECIPIENT_FIELD: Final = re.compile(rb"^(?:To|Cc):[^\r\n]*(?:\r\n[ \t][^\r\n]*)*", re.MULTILINE)
# Names that email-validator refuses because no address there can be reached from everywhere.
_SPECIAL_USE: Final = frozenset({"arpa", "invalid", "local", "localhost", "onion", "test"})
_LONGEST_SPEC: Final = 254  # RFC 5321 section 4.5.3.1.3, less the angle brackets
# What most addresses look like, so that few need a closer look.
_COMMON_SPEC: Final = re.compile(
    r"(?=[^@]{1,64}@)[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@(?:(?=[^.]{1,63}\.)[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*\.)+[A-Za-z]{2,24}"
)
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")

_FIELD_NAME: Final = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 section 3.6.8, ftext
_MESSAGE_ID: Final = re.compile(r"<[!-;=?A-~]{1,400}@[!-;=?A-~]{1,400}>")
_URL: Final = re.compile(r"(?:mailto:|https?://)[!-;=?-~]{1,900}", re.IGNORECASE)
_CONTENT_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(?: *;[ -~]*)?")
# Without ";" too, at which some readers part the parameters even inside of quotes, and without "<": to
# Python's own reader <…> are quotes as well.
_PLAIN_FILENAME: Final = re.compile(r'[^"\\%;<\x80-\U0010ffff]{1,60}')
_BROKEN_FOLD: Final = re.compile("\r(?!\n)|\n(?![ \t])|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_LINE: Final = 76  # characters in a line of the header that holds an encoded word, RFC 2047 section 2
_LONGEST_WORD: Final = 900  # keeps every line of the header below _LONGEST_LINE
_LONGEST_PIECE: Final = 60  # characters of a file name in one numbered piece, RFC 2231 section 3
_WORD_BYTES: Final = 39  # UTF-8 bytes in an encoded word, so that one fits behind "Reply-To: "
_LONGEST_LINE: Final = 998  # bytes, RFC 5322 section 2.1.1
_7BIT: Final = bytes([9, 10, *range(32, 127)])
_NOT_WIRE: Final = re.compile(rb"[\x00\x80-\xff]|\r(?!\n)|(?<!\r)\n|^[^\n]{1000}", re.MULTILINE)
_QP_AS_IS: Final = bytes(byte for byte in range(9, 127) if byte != ord("="))

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_ARGUMENT_OF: Final = {
    "from": "sender= or from_address=",
    "to": "to=",
    "cc": "cc=",
    "bcc": "bcc=",
    "resent-bcc": "bcc=",
    "subject": "subject=",
    "return-path": "sender=",
    "mime-version": "text=, html= or attachments=",
}
_ADDRESS_FIELDS: Final = frozenset({"reply-to", "sender", "disposition-notification-to", "errors-to"})
_OF_A_WHOLE_MESSAGE: Final = ("From", "Date", "Subject", "Received")


@dataclass(frozen=True)
class Address:
    """One mailbox.

    Attributes:
        name: the display name, decoded; "" if there is none.
        spec: local part @ domain as it goes into RCPT TO, the domain in its ASCII form (IDNA).
    """

    name: str
    spec: str

    @property
    def smtputf8(self) -> bool:
        """Whether only a server that offers SMTPUTF8 can take it (RFC 6531)."""
        return not self.spec.isascii()


class Envelope(NamedTuple):
    """Who a message goes from and to, apart from its text.

    Attributes:
        sender: the address for MAIL FROM; None means the site's own, known when it is sent.
        recipients: (kind, address) with kind "to", "cc" or "bcc", each address once.
        smtputf8: whether its header holds addresses that are not all ASCII (RFC 6531).
    """

    sender: str | None
    recipients: tuple[tuple[str, str], ...]
    smtputf8: bool


@dataclass(frozen=True)
class Composed:
    """A message, ready to be stored.

    Attributes:
        envelope: who it goes from and to.
        mime: the RFC 5322 bytes with CRLF line ends; without a From field if the site's own
            sender is to stand there (see `with_sender`).
        subject: the subject for display, decoded, one line.
        message_id: the Message-ID with its angle brackets.
    """

    envelope: Envelope
    mime: bytes
    subject: str
    message_id: str


class Attachment(MIMEBase):
    """A file that goes with a message; the arguments are those of py4web's Mailer.Attachment.

    A type of multipart/* or message/* becomes application/octet-stream: RFC 2046 forbids to encode
    those, and the file shall arrive byte for byte.

    Args:
        payload: the path of a file, or an object with read().
        filename: the name the recipient sees; taken from the path, needed otherwise.
        content_id: the id by which the html body shows it (`<img src="cid:photo">`).
        content_type: such as "image/png"; guessed from the file name by default.
        encoding: of whatever comes as bytes or is read as text.

    Raises:
        BadAttachment: the file cannot be read, or has no name.
        BadHeader: a control character in a name, id or type, or a type that is none.
    """

    def __init__(
        self,
        payload: Any,
        filename: str | bytes | None = None,
        content_id: str | bytes | None = None,
        content_type: str | bytes | None = None,
        encoding: str = "utf-8",
    ) -> None:
        if filename is None and isinstance(payload, (str, os.PathLike)):
            filename = os.path.basename(os.fspath(payload))
        self.my_filename = _header_text(filename or "", "filename", encoding).strip()
        if not self.my_filename:
            raise BadAttachment("An attachment needs a filename= unless it is given by its path.")
        self.my_payload = _read(payload, encoding)
        if content_type is None:
            type_ = _guessed_type(self.my_filename)
        else:
            type_ = _checked_type(_header_text(content_type, "content_type", encoding))
        super().__init__(*type_.split("/", 1))
        self.set_payload(self.my_payload)
        self["Content-Disposition"] = f"attachment; {_filename_parameter(self.my_filename)}"
        if content_id is not None:
            self["Content-ID"] = f"<{_checked_content_id(content_id, encoding)}>"
        encode_base64(self)


def parse_address(text: object) -> Address:
    """Read one address: "a@b.org", "Name <a@b.org>" or "\\"Name, Jr.\\" <a@b.org>".

    The name may hold any character (unquoted too, but for the comma and its like) or be encoded by
    RFC 2047. No name is looked up: addresses at localhost, .test or [192.0.2.1] are fine.

    Args:
        text: the address; bytes are UTF-8, any other object is taken by its str().

    Raises:
        BadAddress: it is no address, or more than one (RFC 5322 section 3.4, RFC 6531).
    """
    given = "" if text is None else _header_text(text, "address", error=BadAddress).strip(" ")
    if not given:
        raise BadAddress("An empty address: somebody without an e-mail address cannot be written to.")
    if not given.endswith(">"):
        return Address("", _validated_spec(given, given))
    parts = _MAILBOX.fullmatch(given)
    if not parts:
        raise _bad_address(given, "quote a name that holds one of , ; @ < >.")
    return Address(_display_name(parts["name"], given), _validated_spec(parts["spec"], given))


def is_bare_address(text: str) -> bool:
    """Whether this is one address without a name, as it stands between the angle brackets of RCPT TO."""
    if len(text) <= _LONGEST_SPEC and _COMMON_SPEC.fullmatch(text):
        return True
    try:
        _validated_spec(_header_text(text, "address", error=BadAddress), text)
    except BadAddress:
        return False
    return True


def compose(
    *,
    to: object,
    subject: object,
    text: object | None,
    html: object | None,
    sender: object | None = None,
    from_address: object | None = None,
    cc: object | None = None,
    bcc: object | None = None,
    reply_to: object | None = None,
    headers: Mapping[str, str] | None = None,
    attachments: Sequence[Attachment | str | os.PathLike[str] | Message] = (),
    list_unsubscribe: str | None = None,
    domain: str,
    now: float,
    message_id: str | None = None,
) -> Composed:
    """Make a message of the arguments of a send().

    Args:
        to, cc, bcc, reply_to: one address or an iterable of them, each as for `parse_address`.
        subject: one line; a lazy translation is taken by its str().
        text, html: the bodies; None or "" means that there is none. Line ends become CRLF, and
            the last line gets one; every other character, NUL too, arrives as it is.
        sender: goes into the envelope, and into From if there is no from_address.
        from_address: goes into From only.
        headers: further fields. They take the place of our own Date, Message-ID, Auto-Submitted,
            Reply-To and List-Unsubscribe.
        attachments: Attachments, paths of files, or any message object of the standard library.
        list_unsubscribe: a URL or a plain address (RFC 2369).
        domain: the right side of the Message-ID.
        now: seconds since the epoch, for the Date.
        message_id: with its angle brackets; a new one by default.

    Returns:
        The message. With neither sender nor from_address it has no From yet.

    Raises:
        BadMessage: or one of its kinds, naming the argument that cannot be used.
    """
    envelope_from = parse_address(sender) if sender else None
    shown_from = parse_address(from_address) if from_address else envelope_from
    people = {
        "to": _addresses(to),
        "cc": _addresses(cc) if cc else [],
        "bcc": _addresses(bcc) if bcc else [],
    }
    fields: dict[str, str | list[Address]] = {
        "From": [shown_from] if shown_from else [],
        "To": people["to"],
        "Cc": people["cc"],
        "Reply-To": _addresses(reply_to) if reply_to else [],
        "Subject": _header_text(subject, "subject"),
        "Date": _date(now),
        "Message-ID": message_id or f"<{token_hex(16)}@{domain}>",
        "Auto-Submitted": "auto-generated",  # RFC 3834: no vacation note comes back
        "List-Unsubscribe": _unsubscribe_target(list_unsubscribe) if list_unsubscribe else [],
    }
    fields = _overridden(fields, _given_fields(headers) if headers else {})
    own_id = _checked_message_id(fields)
    return Composed(
        envelope=_envelope(envelope_from, people, fields),
        mime=_header_block(fields) + _body(_text(text, "text"), _text(html, "html"), _parts(attachments)),
        subject=str(fields["Subject"]),
        message_id=own_id,
    )


def with_sender(mime: bytes, sender: str) -> bytes:
    """Put the From field in front of a message that was composed without one.

    Args:
        mime: a message of `compose`.
        sender: the site's own sender, as for `parse_address`.

    Returns:
        The whole message; mime itself if it has a From already.

    Raises:
        BadAddress: the sender is not one address.
    """
    return mime if mime.startswith(b"From:") else _from_field(sender) + mime


def downgraded(mime: bytes) -> bytes:
    """A message for recipients whose addresses are ASCII: no server on their way needs SMTPUTF8 for it.

    Other addresses in To and Cc become groups without members, named by the address (RFC 6857).

    Args:
        mime: a message of `compose`.
    """
    header, blank, body = mime.partition(b"\r\n\r\n")
    return _RECIPIENT_FIELD.sub(_downgraded_field, header) + blank + body


def _downgraded_field(field: re.Match[bytes]) -> bytes:
    name, _, value = field[0].decode("utf-8", "replace").replace("\r\n", "").partition(":")
    words: list[str] = []
    for word in _FIELD_WORD.findall(value):
        words += [word] if word.isascii() else _group_words(word)
    return _field(name, words)[:-2].encode()


def _group_words(mailbox: str) -> list[str]:
    spec = mailbox.strip(" ,<>")
    *words, last = _encoded_words(f" {spec}")
    return [*words, f"{last} :;," if mailbox.endswith(",") else f"{last} :;"]


def is_header_ascii(mime: bytes) -> bool:
    """Whether a message has no character in its header that only SMTPUTF8 allows there."""
    return mime.partition(b"\r\n\r\n")[0].isascii()


@lru_cache(maxsize=16)  # a site has one sender, and thousands of messages
def _from_field(sender: str) -> bytes:
    return _field("From", _mailbox_words([parse_address(sender)])).encode()


# --- reading the arguments -----------------------------------------------------------------


def _header_text(
    value: object, what: str, encoding: str = "utf-8", error: type[BadMessage] = BadHeader
) -> str:
    try:
        text = value.decode(encoding) if isinstance(value, bytes) else str(value)
    except (UnicodeError, LookupError):
        raise error(f"{what}: bytes that are not {encoding}") from None
    except Exception as problem:
        raise error(f"{what}: {_unreadable(value, problem)}") from problem
    if text.isascii() and text.isprintable():  # many times faster than the search, and true of most
        return text
    if found := _FORBIDDEN.search(text):
        # The text itself is left out: it may hold a secret. That of an address helps to find it.
        shown = f" {_shown(text)}" if error is BadAddress else ""
        raise error(
            f"{what}{shown}: the character U+{ord(found[0]):04X} at position {found.start()} is a line "
            "break or control character, or half a character, and may not stand in a header."
        )
    return text


def _unreadable(value: object, problem: Exception) -> str:
    return f"an object of type {type(value).__name__} raised {type(problem).__name__} when it was read."


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:200] + "…")


def _bad_address(text: str, reason: str) -> BadAddress:
    return BadAddress(f"{_shown(text)} is not one e-mail address: {reason}")


def _addresses(value: Any) -> list[Address]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return [_only_address(value)]
    try:
        items = list(value)
    except Exception as problem:
        raise BadAddress(f"The addresses: {_unreadable(value, problem)}") from problem
    return [parse_address(item) for item in items]


def _only_address(value: object) -> Address:
    """One address where several may be given: a refusal of several in one text says how."""
    try:
        return parse_address(value)
    except BadAddress as error:
        if isinstance(value, str) and value.count("@") > 1:
            raise BadAddress(f"{error} Pass a list for several.") from None
        raise


def _validated_spec(spec: str, given: str) -> str:
    if len(spec) > _LONGEST_SPEC:
        # Before email-validator looks: older ones take minutes for a megabyte.
        raise _bad_address(given, f"it is longer than {_LONGEST_SPEC} characters.")
    local, _, domain = spec.rpartition("@")
    if _COMMON_SPEC.fullmatch(spec):
        return f"{local}@{domain.lower()}"
    if "=?" in local:
        # Readers decode what looks like an encoded word even here, and would see another address.
        raise _bad_address(given, "=? may not stand before the @-sign.")
    label = domain.rpartition(".")[2]
    special = label.lower() in _SPECIAL_USE
    stem = domain[: len(domain) - len(label)]
    try:
        found = validate_email(
            f"{local}@{stem}{'x' * len(label)}" if special else spec,
            allow_smtputf8=True,
            allow_empty_local=False,
            allow_quoted_local=True,
            allow_domain_literal=True,
            allow_display_name=False,
            check_deliverability=False,
            test_environment=False,
            globally_deliverable=False,
        )
    except EmailNotValidError as problem:
        raise _bad_address(given, str(problem)) from None
    ascii_domain = found.ascii_domain
    if special:
        ascii_domain = ascii_domain[: -len(label)] + label.lower()
    return f"{found.local_part}@{ascii_domain}"


def _display_name(raw: str, given: str) -> str:
    if '"' in raw:
        name = re.sub(_QUOTED, lambda quoted: re.sub(r"\\(.)", r"\1", quoted[0][1:-1]), raw)
    elif "=?" in raw:
        name = _decoded(raw, given)
    else:
        name = raw
    return re.sub(" +", " ", name).strip(" ")


def _decoded(raw: str, given: str) -> str:
    try:
        name = str(make_header(decode_header(raw)))
    except (MessageError, ValueError, LookupError):
        raise _bad_address(given, "its name is not encoded as RFC 2047 says.") from None
    return _header_text(name, "the name in the address", error=BadAddress)


def _envelope(
    sender: Address | None, people: dict[str, list[Address]], fields: dict[str, str | list[Address]]
) -> Envelope:
    kinds: dict[str, str] = {}
    for kind, addresses in people.items():
        for address in addresses:
            kinds.setdefault(address.spec, kind)
    if not kinds:
        raise BadMessage("No recipient: give at least one address in to=, cc= or bcc=.")
    shown = [address for value in fields.values() if isinstance(value, list) for address in value]
    return Envelope(
        sender=sender.spec if sender else None,
        recipients=tuple([(kind, spec) for spec, kind in kinds.items()]),
        smtputf8=any(address.smtputf8 for address in shown),
    )


def _given_fields(headers: Mapping[str, str]) -> dict[str, str | list[Address]]:
    fields: dict[str, str | list[Address]] = {}
    for name, value in headers.items():
        key = _checked_field_name(name)
        if value is None or any(key == known.lower() for known in fields):
            raise BadHeader(f"headers: {name} has no value, or is there twice.")
        fields[name] = (
            _addresses(value) if key in _ADDRESS_FIELDS else _header_text(value, f"headers: {name}")
        )
    return fields


def _checked_field_name(name: str) -> str:
    if not isinstance(name, str) or not _FIELD_NAME.fullmatch(name):
        raise BadHeader(f"headers: {_shown(str(name))} is not the name of a header field.")
    key = name.lower()
    argument = "attachments=" if key.startswith("content-") else _ARGUMENT_OF.get(key)
    if argument:
        raise BadHeader(f"headers: {name} is not set here; use {argument}")
    return key


def _overridden(
    ours: dict[str, str | list[Address]], given: dict[str, str | list[Address]]
) -> dict[str, str | list[Address]]:
    if given:
        by_key = {name.lower(): name for name in given}
        ours = {name: given.pop(by_key.get(name.lower(), ""), value) for name, value in ours.items()}
    present = {name: value for name, value in ours.items() if value != []}
    return {**present, **given, "MIME-Version": "1.0"}


def _checked_message_id(fields: dict[str, str | list[Address]]) -> str:
    message_id = str(fields["Message-ID"])
    if not _MESSAGE_ID.fullmatch(message_id):
        raise BadHeader(f"Message-ID: {_shown(message_id)} is not of the form <something@domain>.")
    return message_id


def _unsubscribe_target(given: object) -> str:
    target = _header_text(given, "list_unsubscribe")
    if _URL.fullmatch(target):
        return f"<{target}>"
    if re.match("mailto:|https?:", target, re.IGNORECASE):
        raise BadHeader("list_unsubscribe: a URL holds ASCII without blanks and < >, up to 900 characters.")
    return f"<mailto:{quote(parse_address(target).spec, safe='@+')}>"


def _text(value: object | None, what: str) -> bytes | None:
    if value is None:
        return None
    try:
        text = value.decode("utf-8") if isinstance(value, bytes) else str(value)
        data = text.encode("utf-8").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    except UnicodeError as problem:
        raise BadMessage(f"The {what} body is not Unicode: {problem}.") from None
    except Exception as problem:
        raise BadMessage(f"The {what} body: {_unreadable(value, problem)}") from problem
    return data if not data or data.endswith(b"\n") else data + b"\n"


def _parts(attachments: Any) -> list[Message]:
    if isinstance(attachments, (str, os.PathLike, Message)):
        attachments = [attachments]
    return [item if isinstance(item, Message) else Attachment(item) for item in attachments or ()]


# --- attachments ---------------------------------------------------------------------------


def _read(payload: Any, encoding: str) -> bytes:
    try:
        if isinstance(payload, (str, os.PathLike)):
            with open(payload, "rb") as file:
                return file.read()
        content = payload.read()
        return content.encode(encoding) if isinstance(content, str) else bytes(memoryview(content))
    except OSError as problem:
        raise BadAttachment(f"Attachment {payload!r}: {problem.strerror or problem}.") from problem
    except Exception as problem:
        raise BadAttachment(
            f"Attachment of type {type(payload).__name__}: give a path or a file object that reads bytes "
            f"({type(problem).__name__})."
        ) from problem


def _guessed_type(filename: str) -> str:
    # "./": or a name such as "data:…" would be taken for a URL.
    type_, compressed = mimetypes.guess_type(f"./{filename}")
    return _checked_type(type_) if type_ and not compressed else "application/octet-stream"


def _checked_type(type_: str) -> str:
    if not _CONTENT_TYPE.fullmatch(type_) or "=?" in type_ or len(type_) > 200:
        raise BadHeader(f"content_type: {_shown(type_)} is not of the form type/subtype.")
    return "application/octet-stream" if re.match("(?i)multipart/|message/", type_) else type_.strip(" ")


def _checked_content_id(content_id: str | bytes, encoding: str) -> str:
    text = _header_text(content_id, "content_id", encoding)
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    if not re.fullmatch(r"[!-;=?-~]{1,800}", bare) or "=?" in bare:
        raise BadHeader(
            f"content_id: {_shown(text)} is empty, too long or holds a blank, < > or a non-ASCII."
        )
    return bare


def _filename_parameter(filename: str) -> str:
    if _PLAIN_FILENAME.fullmatch(filename) and "=?" not in filename and "  " not in filename:
        return f'filename="{filename}"'
    # RFC 2231: percent-encoded, and in numbered pieces where it is long.
    pieces = [""]
    for character in filename:
        written = quote(character, safe="")
        if len(pieces[-1]) + len(written) > _LONGEST_PIECE:
            pieces.append("")  # none splits a character: some readers decode each piece by itself
        pieces[-1] += written
    if len(pieces) == 1:
        return f"filename*=utf-8''{pieces[0]}"
    charset = ["utf-8''", *[""] * len(pieces)]
    return "; ".join(f"filename*{n}*={charset[n]}{piece}" for n, piece in enumerate(pieces))


# --- writing the header --------------------------------------------------------------------


def _date(now: float) -> str:
    """RFC 5322 section 3.3. By hand: strftime() speaks the server's language, and datetime is slow."""
    year, month, day, hour, minute, second, weekday, *_ = time.gmtime(now)
    return (
        f"{_DAYS[weekday]}, {day:02} {_MONTHS[month - 1]} {year:04} {hour:02}:{minute:02}:{second:02} +0000"
    )


def _header_block(fields: dict[str, str | list[Address]]) -> bytes:
    lines = [
        _text_field(name, value) if isinstance(value, str) else _field(name, _mailbox_words(value))
        for name, value in fields.items()
    ]
    return "".join(lines).encode("utf-8")


def _text_field(name: str, text: str) -> str:
    if text and len(name) + len(text) + 2 <= _LINE and _stands_as_it_is(text):
        return f"{name}: {text}\r\n"  # most: nothing to fold
    return _field(name, _text_words(text))


def _stands_as_it_is(text: str) -> bool:
    return text.isascii() and "=?" not in text and text == text.strip(" ")


def _field(name: str, words: list[str]) -> str:
    """Fold between words; each of them begins with the blanks before it."""
    done: list[str] = []
    line = f"{name}:"
    for position, word in enumerate(words):
        # Never before the first word: some readers take an empty first line for an empty field.
        if position and len(line) + len(word) > _LINE:
            done.append(line)
            line = word
        else:
            line += word
    return "\r\n".join([*done, line, ""])


def _text_words(text: str) -> list[str]:
    words = re.findall(" *[^ ]+", f" {text}") if text else []
    if _stands_as_it_is(text) and all(len(word) <= _LONGEST_WORD for word in words):
        return words
    return _encoded_words(text)


def _encoded_words(text: str) -> list[str]:
    """Text as encoded words (RFC 2047), none of which splits a character."""
    chunks: list[bytes] = [b""]
    for character in text:
        octets = character.encode("utf-8")
        if len(chunks[-1]) + len(octets) > _WORD_BYTES:
            chunks.append(b"")
        chunks[-1] += octets
    return [f" =?utf-8?b?{base64.b64encode(chunk).decode()}?=" for chunk in chunks]


def _mailbox_words(addresses: list[Address]) -> list[str]:
    words: list[str] = []
    for address in addresses:
        words += _name_words(address.name)
        # Some readers need the brackets around a quoted local part or an address literal to find its end.
        bare = not address.name and address.spec[0] != '"' and address.spec[-1] != "]"
        words.append(f" {address.spec}," if bare else f" <{address.spec}>,")
    words[-1] = words[-1][:-1]
    return words


def _name_words(name: str) -> list[str]:
    if not name:
        return []
    if not name.isascii() or "=?" in name or len(name) > _LINE - len("Reply-To:  "):
        return _encoded_words(name)
    if _ATOMS.fullmatch(name):
        return [f" {name}"]
    escaped = re.sub(r'(["\\])', r"\\\1", name)
    return [f' "{escaped}"']


# --- writing the body ----------------------------------------------------------------------


def _body(text: bytes | None, html: bytes | None, parts: list[Message]) -> bytes:
    """Everything from the Content-Type of the message to its end (RFC 2046)."""
    inline = [part for part in parts if html and part["Content-ID"]]
    attached = [_attached_part(part) for part in parts if not (html and part["Content-ID"])]
    shown = _text_part("html", html) if html else b""
    if inline:
        shown = _multipart("related", [shown, *[_attached_part(part, inline=True) for part in inline]])
    if text and shown:
        shown = _multipart("alternative", [_text_part("plain", text), shown])
    elif text or not (shown or attached):
        shown = _text_part("plain", text or b"")
    if not attached:
        return shown
    return _multipart("mixed", [shown, *attached] if shown else attached)


def _text_part(subtype: str, data: bytes) -> bytes:
    encoding, encoded = _transfer_encoded(data)
    head = f'Content-Type: text/{subtype}; charset="utf-8"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'
    return head.encode() + encoded.replace(b"\n", b"\r\n")


def _transfer_encoded(data: bytes) -> tuple[str, bytes]:
    begins_with_from = data.startswith(b"From ") or b"\nFrom " in data
    ends_with_blanks = b" \n" in data or b"\t\n" in data
    # Some servers change both on their way, and break a signature by that (RFC 3156 section 3).
    is_7bit = not data.translate(None, _7BIT) and _has_short_lines(data)
    if is_7bit and not (begins_with_from or ends_with_blanks):
        return "7bit", data
    # A sixth is where three bytes for one begin to cost more than four for three.
    if begins_with_from or len(data.translate(None, _QP_AS_IS)) * 6 > len(data):
        return "base64", base64.encodebytes(data)
    return "quoted-printable", binascii.b2a_qp(data, istext=True)


def _has_short_lines(data: bytes) -> bool:
    return len(data) <= _LONGEST_LINE or max(map(len, data.split(b"\n"))) <= _LONGEST_LINE


def _multipart(subtype: str, parts: list[bytes]) -> bytes:
    # Neither base64 nor quoted-printable can hold "=_", and nobody can guess the rest.
    boundary = f"=_{token_hex(16)}"
    root = '; type="text/html"' if subtype == "related" else ""
    pieces = [f'Content-Type: multipart/{subtype}{root}; boundary="{boundary}"\r\n'.encode()]
    for part in parts:
        pieces += [f"\r\n--{boundary}\r\n".encode(), part]
    return b"".join([*pieces, f"\r\n--{boundary}--\r\n".encode()])


def _attached_part(part: Message, inline: bool = False) -> bytes:
    for inner in part.walk():
        for name, value in inner.items():
            if not _FIELD_NAME.fullmatch(name) or _BROKEN_FOLD.search(str(value)):
                raise BadHeader(
                    f"attachments: a line break or control character in the field {_shown(name)}."
                )
    if isinstance(part, Attachment) and part["Content-Transfer-Encoding"] == "base64":
        return _own_part(part, inline)
    return _foreign_part(part)


def _own_part(part: Attachment, inline: bool) -> bytes:
    lines: list[str] = []
    for name, value in part.items():
        if name == "Content-Disposition" and inline:
            value = re.sub("^attachment", "inline", value)
        if name != "MIME-Version":
            lines.append(_text_field(name, _header_text(value, name)))
    payload = str(part.get_payload())
    return "".join([*lines, "\r\n"]).encode() + payload.replace("\n", "\r\n").encode()


def _foreign_part(part: Message) -> bytes:
    try:
        written = part.as_bytes(policy=part.policy.clone(linesep="\r\n", cte_type="7bit"))
    except Exception as problem:
        raise BadAttachment(f"attachments: {type(part).__name__} cannot be written: {problem}") from problem
    if _NOT_WIRE.search(written):
        raise BadAttachment(
            f"attachments: {type(part).__name__} holds bytes above 127, a NUL or lines over 998 bytes; "
            "encode it with email.encoders.encode_base64, or use Attachment."
        )
    if any(name in part for name in _OF_A_WHOLE_MESSAGE):
        return b"Content-Type: message/rfc822\r\n\r\n" + written
    return written

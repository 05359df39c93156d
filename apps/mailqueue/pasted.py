"""What somebody has pasted, a server's reply or the text of an exception, as a Failure."""

from __future__ import annotations

import ast
import re
import smtplib
import socket
import ssl
from collections.abc import Callable
from functools import partial

from .classify import Failure, NotOffered, classify_exception, classify_reply
from .words import DATA

LONGEST = 4000  # characters that are looked at

_CODE = re.compile(r"^[ \t]*(\d{3})(?:[ \t-]+|$)", re.MULTILINE)
# As str() of an exception of smtplib shows it: (535, b'5.7.8 Error: authentication failed')
_SMTPLIB = re.compile(r"\((\d{3}), b?(['\"])(.*?)\2\)", re.DOTALL)
_ERRNO = re.compile(r"\[Errno (-?\d+)\] (.*)")
_SSL_REASON = re.compile(r"\[SSL: (\w+)\]")
_KINDS: tuple[type[Exception], ...] = (
    ConnectionRefusedError,
    ConnectionResetError,
    ConnectionAbortedError,
    BrokenPipeError,
    ConnectionError,
    TimeoutError,
    EOFError,
    OSError,
    ValueError,
    socket.gaierror,
    ssl.SSLCertVerificationError,
    ssl.SSLError,
    smtplib.SMTPServerDisconnected,
    smtplib.SMTPNotSupportedError,
    smtplib.SMTPSenderRefused,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPDataError,
    smtplib.SMTPConnectError,
    smtplib.SMTPHeloError,
    smtplib.SMTPAuthenticationError,
    smtplib.SMTPResponseException,
    smtplib.SMTPException,
)
_TYPES: dict[str, type[Exception]] = {"timeout": TimeoutError, **{kind.__name__: kind for kind in _KINDS}}
_NAMES = "|".join(_TYPES)
# As repr() shows an exception, ConnectionRefusedError(111, 'Connection refused'), and as the last line of a
# traceback does, ConnectionRefusedError: [Errno 111] Connection refused; a log may have more before it.
_AS_REPR = re.compile(rf"\b({_NAMES})\((.*)\)$")
_AS_TOLD = re.compile(rf"\b({_NAMES})(?:: ?(.*))?$")
# As str() shows an exception, without its type; so do the pages and the log of this package.
_BARE: tuple[tuple[re.Pattern[str], Callable[[str], Exception]], ...] = (
    (
        re.compile(r"\[SSL: CERTIFICATE_VERIFY_FAILED\]|\bcertificate is not the pinned one\b"),
        partial(ssl.SSLCertVerificationError, 1),
    ),
    (re.compile(r"\[SSL(: \w+)?\]|\bEOF occurred in violation of protocol"), partial(ssl.SSLError, 1)),
    (re.compile(r"\bConnection unexpectedly closed"), smtplib.SMTPServerDisconnected),
    (re.compile(r"\btimed out$|\bno answer within \d+ seconds$"), TimeoutError),
    (
        re.compile(
            r"\bthe (server closed the connection|connection is closed)$|spoke or closed before it was"
        ),
        ConnectionResetError,
    ),
    (re.compile(r"\bextension not supported by server\.?$"), smtplib.SMTPNotSupportedError),
    (re.compile(r"^No suitable authentication method found"), smtplib.SMTPException),
    (re.compile(r"\bdoes not offer \w+$"), lambda text: NotOffered(text.split()[-1])),
    (re.compile(r"^Unicode\w*Error: a character that cannot be written here$"), UnicodeError),
)


def is_yes(stage: str, text: str) -> bool:
    """Whether it is a reply that says yes (RFC 5321 section 4.3.2), on each of its lines.

    Args:
        stage: as for read().
        text: as for read().
    """
    text = text[:LONGEST].strip()
    shown = _SMTPLIB.fullmatch(text)
    codes = [shown[1]] if shown else _CODE.findall(text) if _CODE.match(text) else []
    return bool(codes) and all(code == "354" if stage == DATA else code[0] == "2" for code in codes)


def read(stage: str, text: str) -> Failure:
    """What a reply or an exception means that somebody has copied from a log.

    Args:
        stage: one of words.STAGES: what it was the answer to.
        text: a reply, of several lines or with the marks of smtplib around it; an exception as str() or
            repr() shows it; or a traceback, of which the last line counts.
    """
    text = text[:LONGEST].strip()
    if code := _CODE.match(text):
        return classify_reply(stage, int(code[1]), _CODE.sub("", text))
    last = text.splitlines()[-1].strip() if text else ""
    error = _from_repr(last) or _from_told(last)
    if error is None and (shown := _SMTPLIB.search(text)):
        return classify_reply(stage, int(shown[1]), shown[3].replace("\\n", "\n"))
    return classify_exception(stage, error or _from_bare(last))


def _from_repr(line: str) -> Exception | None:
    shown = _AS_REPR.search(line)
    return _made(_TYPES[shown[1]], f"({shown[2]},)" if shown[2] else "()") if shown else None


def _from_told(line: str) -> Exception | None:
    told = _AS_TOLD.search(line)
    if told is None:
        return None
    kind, said = _TYPES[told[1]], told[2] or ""
    if issubclass(kind, smtplib.SMTPRecipientsRefused):
        return _made(kind, f"({said},)")
    if issubclass(kind, smtplib.SMTPResponseException):
        return _made(kind, said)
    if issubclass(kind, OSError) and (numbered := _ERRNO.match(said)):
        return kind(int(numbered[1]), numbered[2])
    return _with_reason(kind(said))


def _from_bare(line: str) -> Exception:
    if numbered := _ERRNO.search(line):
        number = int(numbered[1])
        # The numbers of look-ups are negative; for the others Python knows the type.
        return socket.gaierror(number, numbered[2]) if number < 0 else OSError(number, numbered[2])
    make = next((make for shape, make in _BARE if shape.search(line)), Exception)
    return _with_reason(make(line))


def _made(kind: type[Exception], arguments: str) -> Exception | None:
    """An exception with its arguments, as Python writes a tuple; None: they are none."""
    try:
        return _with_reason(kind(*ast.literal_eval(arguments)))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _with_reason(error: Exception) -> Exception:
    """An error of ssl knows its reason, which its text only shows."""
    if isinstance(error, ssl.SSLError) and (reason := _SSL_REASON.search(str(error))):
        error.reason = reason[1]
    return error

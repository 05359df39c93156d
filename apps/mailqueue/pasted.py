"""What somebody has pasted, a server's reply or the text of an exception, as a Failure."""

from __future__ import annotations

import ast
import re
import smtplib
import socket
import ssl

from .classify import Failure, classify_exception, classify_reply

LONGEST = 4000  # characters that are looked at

_CODE = re.compile(r"^[ \t]*(\d{3})(?:[ \t-]+|$)", re.MULTILINE)
# As str() of an exception of smtplib shows it: (535, b'5.7.8 Error: authentication failed')
_SMTPLIB = re.compile(r"\((\d{3}), b?(['\"])(.*?)\2\)", re.DOTALL)
_ERRNO = re.compile(r"\[Errno (-?\d+)\] (.*)", re.DOTALL)
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


def read(stage: str, text: str) -> Failure:
    """What a reply or an exception means that somebody has copied from a log.

    Args:
        stage: one of words.STAGES: what it was the answer to.
        text: a reply, of several lines or with the marks of smtplib around it; an exception as repr()
            shows it; or a traceback, of which the last line counts.
    """
    text = text[:LONGEST].strip()
    if code := _CODE.match(text):
        return classify_reply(stage, int(code[1]), _CODE.sub("", text))
    last = text.splitlines()[-1].strip() if text else ""
    error = _from_repr(last) or _from_told(last)
    if error is None and (shown := _SMTPLIB.search(text)):
        return classify_reply(stage, int(shown[1]), shown[3].replace("\\n", "\n"))
    return classify_exception(stage, error or Exception(last))


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

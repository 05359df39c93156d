"""Transports that send nothing: to the log, to a file, or to memory."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import MIMEPart

from .. import words
from ..classify import SiteFault
from .base import Answer, Transport


class _CaptureTransport(Transport):
    delivers = False

    def settings(self) -> tuple[object, ...]:
        return (self.name,)

    def open(self) -> None:
        self.stage = words.CONNECT

    def close(self) -> None:
        self.stage = words.CONFIG

    def deliver(
        self,
        sender: str,
        recipients: Sequence[str],
        mime: bytes,
        *,
        smtputf8: bool,
        before_dot: Callable[[list[str]], None],
    ) -> list[Answer]:
        self.stage = words.DATA
        self._capture(sender, recipients, mime)
        return [Answer(recipient, None, text=f"captured by {self.name}") for recipient in recipients]

    @abstractmethod
    def _capture(self, sender: str, recipients: Sequence[str], mime: bytes) -> None: ...


def readable(sender: str, recipients: Sequence[str], mime: bytes) -> str:
    """A message as a developer wants to read it in a log: envelope, subject, decoded text."""
    message = message_from_bytes(mime, policy=policy.default)
    body = message.get_body(("plain", "html"))
    text = _text_of(body) if body else ""
    line = "-" * 40
    return (
        f"email not sent\n{line}\nFrom: {sender}\nTo: {', '.join(recipients)}\n"
        f"Subject: {message['Subject']}\n\n{text}\n{line}\n"
    )


def _text_of(body: MIMEPart) -> str:
    try:
        return str(body.get_content())
    except LookupError:  # a charset that Python does not know
        return bytes(body.get_payload(decode=True)).decode("utf-8", "replace")


class LoggingTransport(_CaptureTransport):
    """Writes every message to a logger, body included: for development only.

    Args:
        logger: takes the message, at level WARNING, as the stock mailers' "logging" does.
    """

    name = "logging"

    def __init__(self, logger: logging.Logger):
        self._logger = logger

    def _capture(self, sender: str, recipients: Sequence[str], mime: bytes) -> None:
        self._logger.warning("%s", readable(sender, recipients, mime))


class FileTransport(_CaptureTransport):
    """Appends every message to a file.

    Args:
        path: the file; it is made if it is not there.
    """

    def __init__(self, path: str):
        self._path = path

    @property
    def name(self) -> str:
        """The way it is configured."""
        return f"logging:{self._path}"

    def open(self) -> None:
        """Find out whether the file can be written, before a message is risked on it."""
        super().open()
        try:
            self._append("")
        except OSError as error:
            raise SiteFault("bad-server-address", f"the file of server cannot be written: {error}") from error

    def _capture(self, sender: str, recipients: Sequence[str], mime: bytes) -> None:
        self._append(readable(sender, recipients, mime))

    def _append(self, text: str) -> None:
        with open(self._path, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)


@dataclass(frozen=True)
class Captured:
    """A message that the memory transport took."""

    sender: str
    recipients: tuple[str, ...]
    mime: bytes


class MemoryTransport(_CaptureTransport):
    """Keeps every message in a list, for tests.

    Args:
        messages: the list to append to.
    """

    name = "memory"

    def __init__(self, messages: list[Captured]):
        self._messages = messages

    def _capture(self, sender: str, recipients: Sequence[str], mime: bytes) -> None:
        self._messages.append(Captured(sender, tuple(recipients), mime))

"""Delivery over a provider's HTTP API, by the backends of django-anymail, without a Django site."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from .. import words
from ..classify import EXITS, DeliveryError, Failure
from ..errors import MissingExtra
from .anymail_providers import API_PROVIDERS, HTTP_HEADER
from .base import Answer, Transport, with_later
from .http_failures import failure_of_answer, failure_without_answer, without
from .structured import Structured, structured

SECONDS = 60.0  # for an answer: whoever gives up early sends the message twice
_REFUSALS = {
    "rejected": "is on the provider's list of addresses that it does not send to",
    "invalid": "is none to the provider",
}
_CONFIGURING = threading.Lock()


class AnymailTransport(Transport):
    """One provider's API.

    Args:
        provider: one of anymail_providers.API_PROVIDERS.
        login: the parts of its login, as many as it has.
        options: settings of Anymail's backend besides, such as api_url.
        timeout: seconds for connection and answer.
        label: tells it from another one of the same provider.

    Raises:
        MissingExtra: django-anymail is not installed.
    """

    opening_proves = False

    def __init__(
        self,
        provider: str,
        login: Sequence[str],
        options: dict[str, str],
        *,
        timeout: float = SECONDS,
        label: str | None = None,
    ):
        if find_spec("anymail") is None:
            raise MissingExtra("anymail", f"{provider}+api")
        self._key = provider
        self._provider = API_PROVIDERS[provider]
        self._login, self._options = tuple(login), dict(options)
        self._timeout = timeout
        self._label = f"#{label}" if label else ""
        self._backend: Any = None
        self._announce: Callable[[], None] = lambda: None
        self._objection: BaseException | None = None

    @property
    def name(self) -> str:
        """Provider, the API's host where it is not the usual one, and label."""
        host = urlsplit(self._options.get("api_url", "")).netloc
        return f"{self._key}+api://{host}{self._label}"

    def settings(self) -> tuple[object, ...]:
        """Everything that was configured, the key included."""
        options = sorted(f"{name}={value}" for name, value in self._options.items())
        return self.name, self._timeout, *self._login, *options

    def open(self) -> None:
        """Make Anymail's backend ready; the connection comes with the first message."""
        if self._backend is not None:
            return
        self.stage = words.CONFIG
        _configure_django()
        backends = import_module(f"anymail.backends.{self._provider.module}")
        credentials = dict(zip(self._provider.credentials, self._login, strict=True))
        backend = backends.EmailBackend(
            **credentials, **self._options, timeout=self._timeout, ignore_recipient_status=True
        )
        backend.session = _in_house("http_session").ApiSession(self._about_to_send)
        self._backend = backend
        self.stage = words.CONNECT

    def deliver(
        self,
        sender: str,
        recipients: Sequence[str],
        mime: bytes,
        *,
        smtputf8: bool,
        before_dot: Callable[[list[str]], None],
    ) -> list[Answer]:
        """Hand one message over; see Transport.deliver().

        The envelope's sender is the provider's business. Recipients for whom there is no place in one
        request are to be tried again at once.
        """
        self.stage = words.BUILD
        tools = _in_house("anymail_message")
        now, later = tools.parted(structured(mime, recipients), self._provider.most_recipients)
        addresses = list(tools.recipients_of(now))
        self._announce, self._objection = lambda: before_dot(addresses), None
        why = f"{self._provider.title} gets the others in a further request"
        return with_later(lambda: self._send(now, addresses, tools), addresses, later, why)

    def _send(self, parts: Structured, addresses: list[str], tools: ModuleType) -> Iterator[Answer]:
        message = tools.django_message(parts, self._provider)
        if self._provider.idempotency == HTTP_HEADER:
            self._backend.session.headers[HTTP_HEADER] = tools.idempotency_key(parts)
        try:
            self._backend.send_messages([message])
        except EXITS:
            raise
        except BaseException as error:
            raise self._objection or DeliveryError(self._failure(error)) from error
        return self._answers(message.anymail_status, addresses)

    def _about_to_send(self) -> None:
        """The connection stands, and the next thing that it carries is the message."""
        try:
            self._announce()
        except BaseException as error:
            self._objection = error  # what stands between here and _send() would wrap it up
            raise
        self.stage = words.DOT

    def close(self) -> None:
        """Close the connection."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()
        self.stage = words.CONFIG

    # --- what came of it -------------------------------------------------------------------

    def _failure(self, error: BaseException) -> Failure:
        """What an exception of Anymail means."""
        kinds = import_module("anymail.exceptions")
        if isinstance(error, kinds.AnymailUnsupportedFeature):
            return Failure(words.MESSAGE, words.BUILD, "not-supported", str(error.args[0]))
        if isinstance(error, kinds.AnymailAPIError) and error.status_code is not None:
            return self._of_answer(error.response)
        stage = self.stage
        if stage == words.BUILD and isinstance(error, kinds.AnymailAPIError):
            stage = words.CONNECT
        return failure_without_answer(stage, error, provider=self._provider.title, secrets=self._login)

    def _of_answer(self, response: Any) -> Failure:
        title = self._provider.title
        return failure_of_answer(
            response.status_code, response.text, response.headers, provider=title, secrets=self._login
        )

    def _answers(self, status: Any, addresses: Sequence[str]) -> Iterator[Answer]:
        told = {address.lower(): each for address, each in status.recipients.items()}
        refused = any(each.status in _REFUSALS for each in told.values())
        for address in addresses:
            yield self._answer(address, told.get(address.lower()), status.esp_response, refused)

    def _answer(self, address: str, told: Any, response: Any, some_refused: bool) -> Answer:
        """What became of one recipient.

        Args:
            told: Anymail's AnymailRecipientStatus; None: the provider did not speak of them.
            response: the provider's answer.
            some_refused: whether it refused some of the recipients.
        """
        state, code, title = told.status if told else "unknown", response.status_code, self._provider.title
        if state in ("sent", "queued"):
            given = None if told.message_id is None else str(told.message_id)
            return Answer(address, None, code, text=f"{title}: {state}", provider_id=given)
        if state in _REFUSALS:
            said = f"{title}: the address {_REFUSALS[state]}"
            refusal = Failure(words.RECIPIENT, words.RCPT, "recipient-refused", said, code)
        elif code >= 400 and not some_refused:
            refusal = self._of_answer(response)
        elif code >= 400 or state == "failed":
            refusal = Failure(
                words.TRANSIENT, words.RCPT, "unexpected-reply", self._told(response.text), code
            )
        else:
            said = "the provider does not say what became of this recipient"
            refusal = Failure(
                words.IN_DOUBT, words.DOT, "nothing-said", f"{title}: {said}", code, surely_not_sent=False
            )
        return Answer.refused(address, refusal)

    def _told(self, text: str) -> str:
        return without(f"{self._provider.title}: {text}", self._login)


def _configure_django() -> None:
    from django.conf import settings

    with _CONFIGURING:
        if not settings.configured and "DJANGO_SETTINGS_MODULE" not in os.environ:
            settings.configure()


def _in_house(name: str) -> ModuleType:
    """A module of ours that needs the extra."""
    return import_module(f".{name}", __package__)

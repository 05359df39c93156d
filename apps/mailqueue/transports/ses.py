"""Delivery over the API of Amazon SES, by boto3: the message as it stands, to the envelope's recipients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from email import message_from_bytes
from email.policy import default
from functools import cache
from importlib.util import find_spec
from typing import Any

from .. import words
from ..classify import EXITS, DeliveryError, Failure, NotOffered
from ..errors import MissingExtra
from .base import Answer, Transport, with_later
from .ses_failures import failure_of_ses

MOST_RECIPIENTS = 50  # of one call of SendEmail
CONNECT_SECONDS = 30.0
SECONDS = 60.0  # for an answer: whoever gives up early sends the message twice


class SesTransport(Transport):
    """Amazon SES in one region.

    Args:
        region: such as "eu-west-1"; None: the one that boto3 finds, in AWS_DEFAULT_REGION and so on.
        keys: access key id and secret access key; None: those that boto3 finds, of the machine's role too.
        configuration_set: of SES, for events and the like.
        endpoint_url: another address of the API, such as a VPC's.
        timeout: seconds for connection and answer.
        label: tells it from another one in the same region.

    Raises:
        MissingExtra: boto3 is not installed.
    """

    opening_proves = False

    def __init__(
        self,
        region: str | None = None,
        *,
        keys: tuple[str, str] | None = None,
        configuration_set: str | None = None,
        endpoint_url: str | None = None,
        timeout: float | None = None,
        label: str | None = None,
    ):
        if find_spec("boto3") is None:
            raise MissingExtra("ses", "Amazon SES")
        self._region = region
        self._keys = keys
        self._configuration_set = configuration_set
        self._endpoint_url = endpoint_url
        self._timeout = timeout
        self._label = f"#{label}" if label else ""
        self._client: Any = None
        self._announce: Callable[[], None] = lambda: None
        self._objection: BaseException | None = None

    @property
    def name(self) -> str:
        """Region and label."""
        return f"ses://{self._region or 'default'}{self._label}"

    def settings(self) -> tuple[object, ...]:
        """Everything that was configured, the keys included."""
        further = (self._configuration_set, self._endpoint_url, self._timeout)
        return (self.name, *(self._keys or ()), *further)

    def open(self) -> None:
        """Make boto3's client; the connection comes with the first message.

        Raises:
            DeliveryError: there are no keys, or no region.
        """
        if self._client is not None:
            return
        self.stage = words.CONFIG
        try:
            self._client = self._new_client()
        except (*EXITS, DeliveryError):
            raise
        except BaseException as error:
            raise DeliveryError(failure_of_ses(words.CONFIG, error, self._secrets)) from error
        self.stage = words.CONNECT

    def _new_client(self) -> Any:
        import boto3
        import botocore.session
        from botocore.config import Config

        core = botocore.session.get_session()
        core.register_component("data_loader", _descriptions())
        key, secret = self._keys or (None, None)
        session = boto3.session.Session(key, secret, region_name=self._region, botocore_session=core)
        if session.get_credentials() is None:
            text = "there are no AWS keys: neither in the URL nor where boto3 looks for them"
            raise DeliveryError(Failure(words.CONFIGURATION, words.AUTH, "bad-login", text))
        config = Config(
            connect_timeout=self._timeout or CONNECT_SECONDS,
            read_timeout=self._timeout or SECONDS,
            # Tried again by the queue, which knows what may be a duplicate.
            retries={"total_max_attempts": 1, "mode": "standard"},
        )
        client = session.client("sesv2", config=config, endpoint_url=self._endpoint_url)
        client.meta.events.register("before-send.sesv2.SendEmail", self._about_to_send)
        return client

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

        More recipients than one call takes are to be tried again at once.

        Raises:
            NotOffered: SES takes addresses of plain letters only.
        """
        self.stage = words.MAIL
        if smtputf8:
            raise NotOffered("SMTPUTF8")
        now, later = list(recipients[:MOST_RECIPIENTS]), recipients[MOST_RECIPIENTS:]
        self._announce, self._objection = lambda: before_dot(now), None
        why = f"Amazon SES takes {MOST_RECIPIENTS} recipients at once"
        return with_later(lambda: self._send(sender, now, mime), now, later, why)

    def _send(self, sender: str, recipients: list[str], mime: bytes) -> list[Answer]:
        # Explicit recipients: SES would read them from the header, where blind ones are not.
        request: dict[str, Any] = {
            "Destination": {"ToAddresses": recipients},
            "Content": {"Raw": {"Data": mime}},
        }
        if self._configuration_set:
            request["ConfigurationSetName"] = self._configuration_set
        if not _is_from(sender, mime):  # SES has an envelope sender of its own, and passes reports on
            request["FeedbackForwardingEmailAddress"] = sender
        try:
            response = self._client.send_email(**request)
        except EXITS:
            raise
        except BaseException as error:
            raise self._objection or DeliveryError(
                failure_of_ses(self.stage, error, self._secrets)
            ) from error
        given = response.get("MessageId")
        if not given:
            said = "Amazon SES does not say that it has the message"
            raise DeliveryError(
                Failure(words.IN_DOUBT, words.DOT, "senseless-reply-to-dot", said, surely_not_sent=False)
            )
        text = "Amazon SES: accepted"
        return [Answer(address, None, 200, text=text, provider_id=given) for address in recipients]

    def _about_to_send(self, **_: object) -> None:
        try:
            self._announce()
        except BaseException as error:
            self._objection = error
            raise
        self.stage = words.DOT

    @property
    def _secrets(self) -> tuple[str, ...]:
        return self._keys or ()

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        self.stage = words.CONFIG


@cache
def _descriptions() -> Any:
    """What boto3 knows of AWS's services: without it, each client reads its files anew."""
    import botocore.loaders

    return botocore.loaders.create_loader()


def _is_from(sender: str, mime: bytes) -> bool:
    head, _, _ = mime.partition(b"\r\n\r\n")
    field = message_from_bytes(head + b"\r\n\r\n", policy=default)["From"]
    return sender in [address.addr_spec for address in field.addresses] if field else False

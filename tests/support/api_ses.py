"""A stand-in for the API of Amazon SES (version 2): its SendEmail, as boto3 speaks it."""

from __future__ import annotations

import base64
from email import message_from_bytes
from email.policy import default
from typing import Any

from mailqueue.transports.ses import SesTransport

from .api_server import Reply, Request

KEYS = ("AKIATESTTESTTEST", "top-secret-access-key")
PATH = "/v2/email/outbound-emails"


def accept(request: Request) -> Reply:
    """Take whatever is a SendEmail of a raw message, signed with the right key."""
    signed = request.headers.get("authorization", "")
    if f"Credential={KEYS[0]}/" not in signed:
        return refusal(403, "UnrecognizedClientException", "The security token in the request is invalid.")
    if request.path != PATH or "Raw" not in request.json["Content"]:
        return refusal(400, "BadRequestException", "no raw message")
    return Reply(200, {"MessageId": "0100-ses"})


def refusal(status: int, name: str, text: str) -> Reply:
    return Reply(status, {"message": text}, {"x-amzn-ErrorType": f"{name}:http://internal.amazon.com/"})


def arrived(request: Request) -> tuple[str, tuple[str, ...], bytes]:
    """Sender, recipients and message."""
    data = request.json
    mime = base64.b64decode(data["Content"]["Raw"]["Data"])
    own = message_from_bytes(mime, policy=default)["From"].addresses[0].addr_spec
    sender = data.get("FeedbackForwardingEmailAddress", own)
    return sender, tuple(data["Destination"]["ToAddresses"]), mime


def ses_transport(url: str, *, keys: tuple[str, str] | None = KEYS, **options: Any) -> SesTransport:
    """A transport to a stand-in."""
    return SesTransport("eu-west-1", keys=keys, endpoint_url=url, **{"timeout": 20.0, **options})

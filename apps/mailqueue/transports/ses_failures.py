"""What an error of Amazon SES, or of boto3 on the way there, means.

ROWS are read from top to bottom, and the first that fits decides. Names are those of AWS's error codes
(Amazon SES API v2, SendEmail and "Common Errors"; Signature Version 4), and of botocore's exceptions.
What has no such name is not from SES, but from a proxy or a gateway on the way there: that, and a name
that no row knows, is judged by its status, as with other providers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from .. import words
from ..classify import RULES, Failure, own_words
from .http_failures import failure_of_answer, failure_without_answer, retry_after, without

_PROVIDER: Final = "Amazon SES"
_LONGEST_READ: Final = 2000  # characters of an error that are looked at


@dataclass(frozen=True)
class Row:
    """How an error is recognised: by its name, and by words in it if needed."""

    rule: str
    stage: str
    name: str
    said: str = ""
    surely_not_sent: bool = True

    def fits(self, name: str, text: str) -> bool:
        """Whether this row speaks of such an error."""
        return bool(re.fullmatch(self.name, name) and re.search(self.said, text, re.IGNORECASE))


_ANY = ".*"
_BAD_KEYS = (
    "InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature|IncompleteSignature"
    "|ExpiredToken|MissingAuthenticationToken|AuthFailure|InvalidAccessKeyId|AccessDenied|NotAuthorized"
    "|OptInRequired|RequestExpired"
)
_TOO_MANY = (
    "Throttling|Throttled|RequestThrottled|TooManyRequests|LimitExceeded|SlowDown|RequestLimitExceeded"
)
_PAUSED = "AccountSendingPaused|ConfigurationSetSendingPaused|SendingPaused|AccountSuspended"
_REFUSED = r"MessageRejected|BadRequest|InvalidParameterValue|Validation\w*"

ROWS: Final = (
    Row("auth-rejected", words.AUTH, f"({_BAD_KEYS})(Exception)?"),
    Row("sending-limit", words.MAIL, f"({_TOO_MANY})(Exception)?"),
    Row("sending-limit", words.MAIL, _ANY, r"\b(daily|sending) \w* ?quota|sending rate exceeded"),
    Row("sending-paused", words.MAIL, f"({_PAUSED})(Exception)?"),
    Row("sending-paused", words.MAIL, _ANY, r"sending (is )?(disabled|paused)|account is paused"),
    Row("sender-rejected", words.MAIL, "MailFromDomainNotVerified(Exception)?"),
    Row("sender-rejected", words.MAIL, _ANY, r"not verified"),
    Row("bad-transport", words.AUTH, "(ConfigurationSetDoesNotExist|NotFound)(Exception)?"),
    Row("bad-server-address", words.CONNECT, "UnknownOperation(Exception)?"),
    Row("too-big", words.DATA, _ANY, r"message length|(size|length).{0,40}(exceed|more than|greater|limit)"),
    Row("message-refused", words.DATA, f"({_REFUSED})(Exception)?"),
    Row("service-closing", words.CONNECT, "ServiceUnavailable(Exception)?"),
    Row("server-deferred", words.DOT, r"Internal(Failure|Serv\w*)", surely_not_sent=False),
)

# botocore's own exceptions, which say that nothing was sent
_BEFORE: Final = {
    "bad-login": "(NoCredentials|PartialCredentials|CredentialRetrieval|ProfileNotFound|ConfigNotFound"
    "|TokenRetrieval|UnauthorizedSSOToken|SSOTokenLoad|RefreshWithMFAUnsupported|MetadataRetrieval\\w*).*",
    "bad-transport": "(NoRegion|InvalidRegion|UnknownEndpoint|InvalidEndpoint\\w*).*",
}
_NOT_REACHED: Final = frozenset({"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"})
_HANDSHAKE: Final = re.compile(
    "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS|HANDSHAKE_FAILURE"
)


def failure_of_ses(stage: str, error: BaseException, secrets: Sequence[str]) -> Failure:
    """What an exception of boto3 means.

    Args:
        stage: words.DOT once the request may have gone out.
        error: the exception.
        secrets: what the text must not show.
    """
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return _of_answer(response, secrets)
    name = type(error).__name__
    for rule, names in _BEFORE.items():
        if re.fullmatch(names, name):
            at = words.AUTH if rule == "bad-login" else words.CONNECT
            return Failure(words.CONFIGURATION, at, rule, without(f"boto3: {error}", secrets))
    not_reached = name in _NOT_REACHED or _is_handshake(error)
    at = words.CONNECT if not_reached else stage
    return failure_without_answer(at, error, provider=_PROVIDER, secrets=secrets)


def _of_answer(response: dict[str, Any], secrets: Sequence[str]) -> Failure:
    name = str(response["Error"].get("Code", ""))
    about = response.get("ResponseMetadata", {})
    status, headers = about.get("HTTPStatusCode"), about.get("HTTPHeaders", {})
    text = str(response["Error"].get("Message", ""))[:_LONGEST_READ]
    is_named = bool(re.search("[A-Za-z]", name))  # else botocore puts the status there
    row = next((row for row in ROWS if row.fits(name, own_words(text))), None) if is_named else None
    told = f"{name}: {text}" if is_named else text
    if row is not None:
        kind, told = RULES[row.rule].kind, without(f"{_PROVIDER}: {told}", secrets)
        wait = retry_after(headers)
        return Failure(
            kind, row.stage, row.rule, told, status, surely_not_sent=row.surely_not_sent, retry_after=wait
        )
    failure = failure_of_answer(status, told, headers, provider=_PROVIDER, secrets=secrets)
    if failure.rule != "message-refused":
        return failure
    # Nothing says that the message is at fault.
    rule = "unknown-exception" if is_named else "unexpected-reply"
    return replace(failure, kind=words.TRANSIENT, rule=rule)


def _is_handshake(error: BaseException) -> bool:
    """Whether TLS failed before there was a connection to send anything on."""
    return type(error).__name__ == "SSLError" and bool(_HANDSHAKE.search(str(error)))

"""What answers of providers' APIs mean, and ends without an answer."""

from __future__ import annotations

import json
import socket
import ssl
from typing import Any

import pytest
from mailqueue import words
from mailqueue.transports.http_failures import ROWS, failure_of_answer, failure_without_answer

SENDER = ("configuration", "sender-rejected", "mail", True)
REFUSED = ("message", "message-refused", "data", True)
BIG = ("message", "too-big", "data", True)
LIMIT = ("transient", "sending-limit", "mail", True)
KEY = ("configuration", "auth-rejected", "auth", True)


def meaning(status: int, said: Any, **headers: str) -> tuple[str, str, str, bool]:
    text = said if isinstance(said, str) else json.dumps(said)
    failure = failure_of_answer(status, text, headers, provider="Provider", secrets=())
    assert failure.code == status
    return failure.kind, failure.rule, failure.stage, failure.surely_not_sent


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (401, {"message": "Unauthorized"}, KEY),
        (401, {"errors": [{"message": "Maximum credits exceeded"}]}, LIMIT),  # SendGrid
        (403, {"message": "Forbidden"}, KEY),
        (500, {"code": -1, "name": "Invalid_Key", "message": "Invalid API key"}, KEY),  # Mandrill
        (200, {"status": "error", "data": {"code": "InvalidServerAPIKey"}}, KEY),  # Postal
        (403, {"errors": [{"message": "The from address does not match a Sender Identity."}]}, SENDER),
        (403, {"message": "The site.test domain is not verified. Please, add it."}, SENDER),  # Resend
        (422, {"ErrorCode": 400, "Message": "The Sender Signature of 'From' is not confirmed"},
         SENDER),
        (404, {"message": "Domain not found: site.test"}, SENDER),  # Mailgun
        (400, {"Errors": [{"ErrorMessage": "x is not an authorized sender"}]}, SENDER),  # Mailjet
        (402, {}, LIMIT),
        (402, {"message": "Account credits limit reached"}, LIMIT),
        (429, {"message": "Too many requests"}, LIMIT),
        (422, {"message": "You have reached your daily quota"}, LIMIT),
        (413, "", BIG),
        (422, {"Message": "Total size of attachments exceeds the maximum"}, BIG),
        (400, {"message": "'to' parameter is not a valid address"}, REFUSED),
        (422, {"message": "The subject field is required."}, REFUSED),
        (422, {"message": "The domain of the recipient is invalid"}, REFUSED),
        (404, "", ("configuration", "bad-server-address", "connect", True)),
        (301, "", ("configuration", "bad-server-address", "connect", True)),
        (200, "Mailgun Magnificent API", ("configuration", "bad-server-address", "connect", True)),
        (200, {"status": "parameter-error"}, REFUSED),
        (409, {"name": "concurrent_idempotent_requests"}, ("transient", "server-deferred", "mail", True)),
        (409, {"name": "invalid_idempotent_request"}, ("in_doubt", "already-given", "dot", False)),
        (400, {"code": "duplicate_request"}, ("in_doubt", "already-given", "dot", False)),
        (408, "", ("in_doubt", "no-reply-to-dot", "dot", False)),
        (503, "", ("transient", "service-closing", "connect", True)),
        (500, "oops", ("transient", "server-deferred", "dot", False)),
        (502, "<html>", ("transient", "server-deferred", "dot", False)),
        (504, "", ("transient", "server-deferred", "dot", False)),
        (200, "<html>", ("in_doubt", "senseless-reply-to-dot", "dot", False)),
        (700, "", ("transient", "server-deferred", "dot", False)),
    ],
)  # fmt: skip
def test_an_answer_is_what_its_row_says(status: int, said: Any, expected: tuple[str, str, str, bool]) -> None:
    assert meaning(status, said) == expected


@pytest.mark.parametrize(
    "address",
    ["invalid-api-key@x.test", '"invalid api key"@x.test', "<unauthorized@x.test>", "daily.quota@x.test"],
)
def test_whoever_registers_a_telling_address_pauses_nothing(address: str) -> None:
    assert meaning(400, {"message": f"no mail for {address} today"}) == REFUSED
    assert meaning(400, f"no mail for {address} today") == REFUSED


def test_every_status_has_a_meaning() -> None:
    assert all(any(row.fits(status, "") for row in ROWS) for status in range(100, 1000))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "120"}, 120.0),
        (
            {"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT", "Date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 30.0
        ),
        ({"retry-after": "Sun, 06 Nov 1994 08:49:00 GMT", "date": "Sun, 06 Nov 1994 08:49:07 GMT"}, 0.0),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "9" * 400}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_a_wish_to_be_left_alone_is_heard(headers: dict[str, str], seconds: float | None) -> None:
    failure = failure_of_answer(429, "", headers, provider="Provider", secrets=())
    assert failure.retry_after == seconds


def test_the_text_names_the_provider_and_hides_secrets() -> None:
    failure = failure_of_answer(401, "no such key: s3cret", {}, provider="Provider", secrets=("", "s3cret"))
    assert failure.text == "Provider: no such key: ••••"
    assert failure_of_answer(401, "", {}, provider="Provider", secrets=()).text == "Provider answers 401"


def wrapped(error: BaseException) -> BaseException:
    """As libraries hand it on: one as a cause, one as an argument, one as a reason."""
    inner = type("NewConnectionError", (Exception,), {"__module__": "urllib3"})("no luck")
    inner.__cause__ = error
    middle = type("MaxRetryError", (Exception,), {"__module__": "urllib3", "reason": inner})("too often")
    return type("ConnectionError", (OSError,), {"__module__": "requests"})(middle)


@pytest.mark.parametrize(
    ("error", "rule"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "connect-refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "name-not-known"),
        (socket.gaierror(socket.EAI_AGAIN, "later"), "name-lookup-failed"),
        (TimeoutError("timed out"), "connect-timeout"),
        (ssl.SSLCertVerificationError("self-signed"), "certificate"),
        (ConnectionResetError(104, "reset"), "connection-lost"),
    ],
)
def test_what_the_system_said_is_found_below_all_wrapping(error: BaseException, rule: str) -> None:
    failure = failure_without_answer(words.CONNECT, wrapped(error), provider="Provider", secrets=())
    assert (failure.rule, failure.surely_not_sent) == (rule, True) and failure.text.startswith("Provider: ")
    after = failure_without_answer(words.DOT, wrapped(error), provider="Provider", secrets=())
    assert (after.kind, after.surely_not_sent) == (words.IN_DOUBT, False)


def test_exceptions_that_refer_to_each_other_end() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert failure_without_answer(words.BUILD, one, provider="P", secrets=()).rule == "message-not-built"


def test_a_secret_is_hidden_as_python_writes_it_too() -> None:
    secret = "re_s3cr\u00e4t\n'key"
    for written in (secret, repr(secret), ascii(secret)):
        error = ValueError(f"Invalid header value: {written}")
        failure = failure_without_answer(words.CONNECT, error, provider="Provider", secrets=[secret])
        assert "s3cr" not in failure.text and "key" not in failure.text

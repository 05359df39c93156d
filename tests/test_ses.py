"""Delivery over the API of Amazon SES, by boto3, against a stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mailqueue import words
from mailqueue.compose import compose
from mailqueue.errors import MissingExtra
from mailqueue.transports import ses
from mailqueue.transports.base import Answer
from mailqueue.transports.ses import SesTransport
from support.api_server import CUT, HANG, ApiServer, Reply
from support.api_ses import KEYS, accept, arrived, refusal, ses_transport
from support.smtp_client import MIME, attempt
from support.smtp_server import ScriptedServer, refused_port


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """boto3 is to find neither keys nor a region."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    for name in (
        "AWS_PROFILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with ApiServer(accept) as running:
        yield running


def failure_of(answers: list[Answer]) -> tuple[str, str, str, bool]:
    failure = answers[0].failure
    assert failure
    return failure.kind, failure.rule, failure.stage, failure.surely_not_sent


def test_the_message_goes_as_it_stands_to_the_envelopes_recipients_alone(server: ApiServer) -> None:
    message = compose(
        to="ann@x.test", cc="cid@x.test", bcc="dan@x.test", sender="Site <site@site.test>", subject="Hällo",
        text="tëxt", html=None, domain="site.test", now=0.0,
    )  # fmt: skip
    dots: list[list[str]] = []
    transport = ses_transport(server.url)
    answers = attempt(
        transport, "ann@x.test", "dan@x.test", mime=message.mime, sender="site@site.test", dots=dots
    )
    (request,) = server.requests
    assert arrived(request) == ("site@site.test", ("ann@x.test", "dan@x.test"), message.mime)
    assert {"ConfigurationSetName", "FeedbackForwardingEmailAddress", "FromEmailAddress"}.isdisjoint(
        request.json
    )
    assert [(answer.failure, answer.provider_id) for answer in answers] == [(None, "0100-ses")] * 2
    assert dots == [["ann@x.test", "dan@x.test"]]


def test_a_sender_of_the_envelope_that_is_not_in_from_gets_the_reports(server: ApiServer) -> None:
    attempt(ses_transport(server.url), sender="bounces@site.test")
    assert server.requests[0].json["FeedbackForwardingEmailAddress"] == "bounces@site.test"


def test_configuration_set_and_region_are_told(server: ApiServer) -> None:
    attempt(ses_transport(server.url, configuration_set="mail-events"))
    (request,) = server.requests
    assert request.json["ConfigurationSetName"] == "mail-events"
    assert "/eu-west-1/ses/aws4_request" in request.headers["authorization"]


def test_more_recipients_than_a_call_takes_are_left_for_the_next(server: ApiServer) -> None:
    people = [f"p{number}@x.test" for number in range(52)]
    answers = attempt(ses_transport(server.url), *people)
    assert arrived(server.requests[0])[1] == tuple(people[:50])
    assert [answer.failure and answer.failure.rule for answer in answers[50:]] == ["too-many-recipients"] * 2
    server.replies = [CUT]
    answers = attempt(ses_transport(server.url), *people)
    assert [answer.failure and answer.failure.kind for answer in answers] == [words.IN_DOUBT] * 50 + [
        words.TRANSIENT
    ] * 2


def test_an_address_beyond_ascii_is_for_another_transport(server: ApiServer) -> None:
    answers = attempt(ses_transport(server.url), "änn@x.test", smtputf8=True)
    assert failure_of(answers)[1] == "smtputf8-not-offered"
    assert server.requests == []


@pytest.mark.parametrize(
    ("status", "name", "text", "kind", "rule", "stage"),
    [
        (429, "TooManyRequestsException", "Maximum sending rate", "transient", "sending-limit", "mail"),
        (400, "Throttling", "Rate exceeded", "transient", "sending-limit", "mail"),
        (400, "LimitExceededException", "Daily message quota", "transient", "sending-limit", "mail"),
        (400, "MessageRejected", "Daily sending quota exceeded", "transient", "sending-limit", "mail"),
        (400, "MessageRejected", "Email address is not verified. The following identities failed the check in"
         " region EU-WEST-1: site@site.test", "configuration", "sender-rejected", "mail"),
        (400, "MailFromDomainNotVerifiedException", "MX", "configuration", "sender-rejected", "mail"),
        (400, "SendingPausedException", "paused", "configuration", "sending-paused", "mail"),
        (400, "AccountSuspendedException", "x", "configuration", "sending-paused", "mail"),
        (400, "BadRequestException", "Sending is paused for this account.", "configuration", "sending-paused",
         "mail"),
        (400, "MessageRejected", "The message contains a virus", "message", "message-refused", "data"),
        (400, "BadRequestException", "Illegal address", "message", "message-refused", "data"),
        (400, "BadRequestException", "Message length is more than 41943040 bytes long", "message", "too-big",
         "data"),
        (404, "NotFoundException", "Configuration set <x> does not exist.", "configuration", "bad-transport",
         "auth"),
        (403, "SignatureDoesNotMatchException", "x", "configuration", "auth-rejected", "auth"),
        (403, "AccessDeniedException", "User is not authorized to perform ses:SendEmail", "configuration",
         "auth-rejected", "auth"),
        (403, "ExpiredTokenException", "x", "configuration", "auth-rejected", "auth"),
        (503, "ServiceUnavailable", "x", "transient", "service-closing", "connect"),
    ],
)  # fmt: skip
def test_what_ses_refuses_was_not_sent(
    server: ApiServer, status: int, name: str, text: str, kind: str, rule: str, stage: str
) -> None:
    server.replies = [refusal(status, name, text)]
    answers = attempt(ses_transport(server.url))
    assert failure_of(answers) == (kind, rule, stage, True)
    assert answers[0].code == status and text[:20] in answers[0].text
    assert len(server.requests) == 1  # boto3 does not try again by itself


def test_an_error_within_ses_may_have_come_after_the_sending(server: ApiServer) -> None:
    for reply in (refusal(500, "InternalFailure", "x"), refusal(500, "Novelty", "x"), Reply(500, "<html>")):
        server.replies = [reply]
        kind, _, _, surely_not_sent = failure_of(attempt(ses_transport(server.url)))
        assert (kind, surely_not_sent) == ("transient", False)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "kind", "rule", "surely_not_sent"),
    [
        (302, "configuration", "bad-server-address", True),
        (400, "transient", "unexpected-reply", True),
        (401, "configuration", "auth-rejected", True),
        (403, "configuration", "auth-rejected", True),
        (404, "configuration", "bad-server-address", True),
        (407, "transient", "unexpected-reply", True),
        (408, "in_doubt", "no-reply-to-dot", False),
        (413, "message", "too-big", True),
        (429, "transient", "sending-limit", True),
        (503, "transient", "service-closing", True),
    ],
)
def test_what_a_proxy_answers_in_the_place_of_ses_is_judged_by_its_status(
    server: ApiServer, status: int, kind: str, rule: str, surely_not_sent: bool
) -> None:
    for body in ("<html>x</html>", ""):
        server.replies = [Reply(status, body, {"Retry-After": "60"})]
        answers = attempt(ses_transport(server.url))
        found = failure_of(answers)
        assert (found[0], found[1], found[3]) == (kind, rule, surely_not_sent)
        assert answers[0].failure and answers[0].failure.retry_after == 60


@pytest.mark.parametrize(
    ("status", "name", "kind", "rule"),
    [
        (400, "Novelty", "transient", "unknown-exception"),  # which the administrator is told of
        (403, "ForbiddenException", "configuration", "auth-rejected"),
        (413, "RequestEntityTooLarge", "message", "too-big"),
        (429, "NoveltyThrottled", "transient", "sending-limit"),
    ],
)
def test_a_name_that_is_not_known_never_speaks_against_the_message(
    server: ApiServer, status: int, name: str, kind: str, rule: str
) -> None:
    server.replies = [refusal(status, name, "x")]
    assert failure_of(attempt(ses_transport(server.url)))[:2] == (kind, rule)


def test_how_long_ses_asks_to_be_left_alone_is_heard(server: ApiServer) -> None:
    known = refusal(429, "TooManyRequestsException", "x")
    server.replies = [Reply(429, known.body, {**known.headers, "Retry-After": "90"})]
    (answer,) = attempt(ses_transport(server.url))
    assert answer.failure and answer.failure.retry_after == 90


def test_whoever_registers_a_telling_address_pauses_nothing(server: ApiServer) -> None:
    address = '"sending is paused"@x.test'
    server.replies = [refusal(400, "BadRequestException", f"Illegal address {address}")]
    assert failure_of(attempt(ses_transport(server.url), address))[1] == "message-refused"


@pytest.mark.parametrize("fault", [CUT, HANG])
def test_a_request_without_an_answer_is_in_doubt_and_not_repeated(server: ApiServer, fault: str) -> None:
    server.replies = [fault]
    dots: list[list[str]] = []
    transport = ses_transport(server.url, timeout=0.2 if fault == HANG else 20.0)
    assert failure_of(attempt(transport, dots=dots)) == ("in_doubt", "no-reply-to-dot", "dot", False)
    assert (len(server.requests), dots) == (1, [["a@x.test"]])


def test_an_answer_that_nobody_can_read_is_in_doubt(server: ApiServer) -> None:
    server.replies = [Reply(200, "<html>")]
    kind, _, _, surely_not_sent = failure_of(attempt(ses_transport(server.url)))
    assert (kind, surely_not_sent) == ("in_doubt", False)


def test_where_nobody_listens_nothing_was_sent() -> None:
    with refused_port() as port:
        answers = attempt(ses_transport(f"http://127.0.0.1:{port}/"))
    kind, _, stage, surely_not_sent = failure_of(answers)
    assert (kind, stage, surely_not_sent) == ("transient", "connect", True)


def test_a_certificate_that_nobody_vouches_for_gets_nothing(certificates: Any) -> None:
    with ScriptedServer(tls="implicit", certificate=certificates.server) as server:
        answers = attempt(ses_transport(f"https://127.0.0.1:{server.port}/"))
    assert failure_of(answers) == ("configuration", "certificate", "connect", True)


def test_a_port_without_tls_is_named_and_nothing_is_in_doubt(server: ApiServer) -> None:
    answers = attempt(ses_transport(server.url.replace("http:", "https:")))
    assert failure_of(answers) == ("configuration", "not-tls", "connect", True)


def test_what_before_dot_raises_comes_out_as_it_is_and_nothing_is_sent(server: ApiServer) -> None:
    full = OSError(28, "No space left on device")

    def fail(_: list[str]) -> None:
        raise full

    transport = ses_transport(server.url)
    transport.open()
    with pytest.raises(OSError) as raised:
        transport.deliver("site@site.test", ["a@x.test"], MIME, smtputf8=False, before_dot=fail)
    assert raised.value is full and server.requests == []


def test_a_client_without_keys_says_so_before_any_message(server: ApiServer) -> None:
    answers = attempt(ses_transport(server.url, keys=None))
    assert failure_of(answers) == ("configuration", "bad-login", "auth", True)
    assert "AWS keys" in answers[0].text


def test_a_client_without_a_region_says_so_before_any_message(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = attempt(SesTransport(keys=KEYS))
    assert failure_of(answers) == ("configuration", "bad-transport", "connect", True)
    assert "region" in answers[0].text


def test_keys_and_region_are_found_where_boto3_finds_them(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS[1])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    transport = SesTransport(endpoint_url=server.url)
    assert attempt(transport)[0].failure is None
    assert "/us-east-1/ses/" in server.requests[0].headers["authorization"]
    assert transport.name == "ses://default"


def test_a_connection_is_kept_from_one_message_to_the_next(server: ApiServer) -> None:
    transport = ses_transport(server.url)
    for _ in range(3):
        assert attempt(transport)[0].failure is None
    assert (len(server.requests), server.connections) == (3, 1)


def test_nothing_shown_holds_the_secret_key(server: ApiServer) -> None:
    server.replies = [refusal(403, "AccessDeniedException", f"the key {KEYS[1]} is wrong")]
    transport = ses_transport(server.url, label="bulk")
    answers = attempt(transport)
    assert KEYS[1] not in repr(answers) + repr(transport) + transport.name
    assert transport.name == "ses://eu-west-1#bulk"


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ses, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'mailqueue\[ses\]'"):
        SesTransport("eu-west-1")

"""Delivery over the APIs of providers, by Anymail's backends, against stand-ins of each."""

from __future__ import annotations

import io
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from mailqueue import words
from mailqueue.compose import Attachment, Composed, compose
from mailqueue.delivery import hand_over
from mailqueue.errors import MissingExtra
from mailqueue.transports import anymail
from mailqueue.transports.anymail import AnymailTransport
from mailqueue.transports.anymail_providers import API_PROVIDERS
from mailqueue.transports.base import Answer
from support.api_providers import FAKES, SECRET, Received, api_transport
from support.api_server import CUT, HANG, ApiServer, Reply
from support.smtp_server import ScriptedServer, refused_port

PICTURE, TABLE = b"\x89PNG\x00\xff", b"\x00\x01a,b\r\n"
EVERY = sorted(API_PROVIDERS)


def composed(**given: Any) -> Composed:
    usual: dict[str, Any] = {
        "to": ["Ann Änn <ann@x.test>", "bob@x.test"],
        "cc": '"Cid, Jr." <cid@x.test>',
        "bcc": "dan@x.test",
        "sender": "Site <site@site.test>",
        "subject": "Hällo",
        "text": "tëxt",
        "html": None,
        "domain": "site.test",
        "now": 0.0,
    }
    return compose(**{**usual, **given})


def sent(transport: AnymailTransport, message: Composed, dots: list[list[str]] | None = None) -> list[Answer]:
    transport.open()
    dots = [] if dots is None else dots
    return hand_over(transport, message.envelope, message.mime, None, dots.append)


@pytest.fixture
def stand_in() -> Iterator[Callable[[str], ApiServer]]:
    servers: list[ApiServer] = []

    def start(provider: str) -> ApiServer:
        servers.append(ApiServer(FAKES[provider].accept).__enter__())
        return servers[-1]

    yield start
    for server in servers:
        server.__exit__()


def received(provider: str, server: ApiServer) -> list[Received]:
    return [FAKES[provider].read(request) for request in server.requests]


def one_received(provider: str, server: ApiServer) -> Received:
    (only,) = received(provider, server)
    return only


def test_there_is_a_stand_in_for_every_provider() -> None:
    assert sorted(FAKES) == EVERY


# --- what arrives ----------------------------------------------------------------------------
@pytest.mark.parametrize("provider", EVERY)
def test_everybody_gets_it_and_only_who_may_is_seen(provider: str, stand_in: Any) -> None:
    server = stand_in(provider)
    message = composed()
    dots: list[list[str]] = []
    answers = sent(api_transport(provider, server.url), message, dots)
    got = received(provider, server)
    if API_PROVIDERS[provider].most_recipients == 1:
        assert [one.everybody for one in got] == [["ann@x.test"]]
        assert [answer.failure and answer.failure.rule for answer in answers] == [
            None, *["too-many-recipients"] * 3
        ]  # fmt: skip
        return
    (one,) = got
    assert (one.to, one.cc, one.bcc) == (["ann@x.test", "bob@x.test"], ["cid@x.test"], ["dan@x.test"])
    assert [answer.failure for answer in answers] == [None] * 4
    assert all(answer.provider_id for answer in answers)
    assert dots == [["ann@x.test", "bob@x.test", "cid@x.test", "dan@x.test"]]


@pytest.mark.parametrize("provider", EVERY)
def test_a_whole_message_arrives_in_its_parts(provider: str, stand_in: Any) -> None:
    server, refuses = stand_in(provider), FAKES[provider].refuses
    files = [Attachment(io.BytesIO(TABLE), "tabelle.bin")]
    if "images" not in refuses:
        picture = io.BytesIO(PICTURE)
        files.append(Attachment(picture, "p.png", content_id="pic@x", content_type="image/png"))
    headers = {"X-Custom": "one", "List-Unsubscribe": "<https://site.test/u>", "X-Tag": "newsletter"}
    headers |= {"X-Mailer": "site", "List-Id": "<news.site.test>"}
    if "metadata" not in refuses:
        headers["X-Metadata-Order"] = "42"
    message = composed(
        to="Ann Änn <ann@x.test>",
        cc=None,
        bcc=None,
        reply_to="Desk <desk@site.test>",
        html="<p>tëxt <img src='cid:pic@x'></p>",
        headers=headers,
        attachments=files,
    )
    (answer,) = sent(api_transport(provider, server.url), message)
    assert answer.failure is None
    got = one_received(provider, server)
    assert (got.sender, got.to, got.reply_to) == ("site@site.test", ["ann@x.test"], ["desk@site.test"])
    assert (got.subject, got.text, got.html) == (
        "Hällo", "tëxt\n", "<p>tëxt <img src='cid:pic@x'></p>\n"
    )  # fmt: skip
    assert got.files == {"tabelle.bin": TABLE}
    assert got.images == ({} if "images" in refuses else {"pic@x": PICTURE})
    assert (got.tags, got.metadata.get("order")) == (
        ["newsletter"], None if "metadata" in refuses else "42"
    )  # fmt: skip
    shown = {name.lower(): value for name, value in got.headers.items()}
    assert (shown["x-custom"], shown["list-unsubscribe"]) == ("one", "<https://site.test/u>")
    told = {"auto-submitted", "x-mailer", "list-id"} - API_PROVIDERS[provider].withheld
    assert {"auto-submitted", "x-mailer", "list-id"} & set(shown) == told
    kept = API_PROVIDERS[provider].keeps_message_id
    assert shown.get("message-id") == (message.message_id if kept else None)
    assert not {"from", "subject", "date", "mime-version", "content-type", "x-tag"} & set(shown)


@pytest.mark.parametrize("provider", EVERY)
def test_a_message_of_html_alone_has_no_text(provider: str, stand_in: Any) -> None:
    server = stand_in(provider)
    message = composed(to="ann@x.test", cc=None, bcc=None, text=None, html="<p>x</p>")
    assert sent(api_transport(provider, server.url), message)[0].failure is None
    got = one_received(provider, server)
    assert (got.text or None, got.html) == (None, "<p>x</p>\n")


@pytest.mark.parametrize("provider", EVERY)
def test_the_key_goes_where_the_provider_wants_it_and_nothing_else_of_the_settings(
    provider: str, stand_in: Any
) -> None:
    server = stand_in(provider)
    sent(api_transport(provider, server.url), composed(to="ann@x.test", cc=None, bcc=None))
    (request,) = server.requests
    told = str(request.headers) + request.body.decode("utf-8", "replace")
    basic = {"mailgun": "YXBpOnRvcC1zZWNyZXQta2V5", "mailjet": "cHVibGljLWtleTp0b3Atc2VjcmV0LWtleQ=="}
    assert basic.get(provider, SECRET) in told and SECRET not in request.path


@pytest.mark.parametrize(
    ("provider", "given", "said"),
    [
        ("brevo", {"images": True}, "Brevo does not support inline attachments"),
        ("scaleway", {"images": True}, "Scaleway does not support inline attachments"),
        ("postal", {"images": True}, "Postal does not support inline attachments"),
        ("mailersend", {"headers": {"X-Metadata-A": "1"}}, "MailerSend does not support metadata"),
        ("brevo", {"headers": {"X-Name": "Grün"}}, "Brevo does not support non-ASCII characters in"),
        ("mailjet", {"reply_to": ["a@x.test", "b@x.test"]}, "does not support Multiple reply_to"),
    ],
)
def test_what_a_provider_has_no_place_for_is_said_and_nothing_is_sent(
    provider: str, given: dict[str, Any], said: str, stand_in: Any
) -> None:
    server = stand_in(provider)
    if given.pop("images", False):
        picture = Attachment(io.BytesIO(PICTURE), "p.png", content_id="p", content_type="image/png")
        given = {"html": "<img src='cid:p'>", "attachments": [picture]}
    dots: list[list[str]] = []
    answers = sent(api_transport(provider, server.url), composed(**given), dots)
    failure = answers[0].failure
    assert failure and (failure.kind, failure.rule) == (words.MESSAGE, "not-supported")
    assert said in failure.text and failure.surely_not_sent
    assert (server.requests, dots) == ([], [])


# --- to whom, in how many requests -----------------------------------------------------------
def only_to(message: Composed, *addresses: str) -> Composed:
    """The message, of whose recipients these are left."""
    left = tuple(pair for pair in message.envelope.recipients if pair[1] in addresses)
    return replace(message, envelope=message.envelope._replace(recipients=left))


def test_who_is_in_the_header_but_not_in_the_envelope_gets_nothing(stand_in: Any) -> None:
    server = stand_in("resend")
    answers = sent(api_transport("resend", server.url), only_to(composed(), "bob@x.test", "dan@x.test"))
    got = one_received("resend", server)
    assert (got.to, got.cc, got.bcc) == (["bob@x.test"], [], ["dan@x.test"])
    assert [answer.failure for answer in answers] == [None, None]


def test_where_no_to_is_left_those_in_cc_take_its_place(stand_in: Any) -> None:
    server = stand_in("mailjet")
    sent(api_transport("mailjet", server.url), only_to(composed(), "cid@x.test", "dan@x.test"))
    got = one_received("mailjet", server)
    assert (got.to, got.cc, got.bcc) == (["cid@x.test"], [], ["dan@x.test"])


def test_blind_recipients_that_are_left_get_it_one_by_one(stand_in: Any) -> None:
    server = stand_in("sendgrid")
    message = only_to(composed(bcc=["dan@x.test", "eve@x.test"]), "dan@x.test", "eve@x.test")
    dan, eve = sent(api_transport("sendgrid", server.url), message)
    assert one_received("sendgrid", server).everybody == ["dan@x.test"]
    assert dan.failure is None and eve.failure
    assert (eve.failure.rule, eve.failure.split) == ("too-many-recipients", True)


def test_more_recipients_than_a_request_takes_are_left_for_the_next(stand_in: Any) -> None:
    server = stand_in("postmark")
    people = [f"p{number}@x.test" for number in range(53)]
    answers = sent(api_transport("postmark", server.url), composed(to=people, cc=None, bcc=None))
    assert one_received("postmark", server).to == people[:50]
    assert [answer.recipient for answer in answers if answer.failure] == people[50:]
    assert {answer.failure.rule for answer in answers if answer.failure} == {"too-many-recipients"}


def test_in_doubt_are_those_only_who_were_in_the_request(stand_in: Any) -> None:
    server = stand_in("postmark")
    server.replies = [CUT]
    people = [f"p{number}@x.test" for number in range(52)]
    answers = sent(api_transport("postmark", server.url), composed(to=people, cc=None, bcc=None))
    kinds = [answer.failure and answer.failure.kind for answer in answers]
    assert kinds == [words.IN_DOUBT] * 50 + [words.TRANSIENT] * 2


def test_a_refusal_of_the_whole_request_holds_for_those_it_had_no_place_for(stand_in: Any) -> None:
    server = stand_in("postmark")
    server.replies = [Reply(401, {"ErrorCode": 10, "Message": "Bad or missing API token."})]
    people = [f"p{number}@x.test" for number in range(52)]
    answers = sent(api_transport("postmark", server.url), composed(to=people, cc=None, bcc=None))
    assert {answer.failure and answer.failure.rule for answer in answers} == {"auth-rejected"}


# --- what became of each ---------------------------------------------------------------------
def outcomes(answers: list[Answer]) -> dict[str, tuple[str, str] | None]:
    return {
        answer.recipient: (answer.failure.kind, answer.failure.rule) if answer.failure else None
        for answer in answers
    }


REFUSED = (words.RECIPIENT, "recipient-refused")
TWO = {"to": ["ann@x.test", "Bob@x.test"], "cc": None, "bcc": None}


@pytest.mark.parametrize(
    ("provider", "reply", "expected"),
    [
        (
            "mandrill",
            Reply(200, [
                {"email": "ann@x.test", "status": "sent", "_id": "1"},
                {"email": "bob@x.test", "status": "rejected", "reject_reason": "hard-bounce"},
            ]),
            [None, REFUSED],
        ),
        (
            "mandrill",
            Reply(200, [
                {"email": "ann@x.test", "status": "invalid"},
                {"email": "bob@x.test", "status": "rejected"},
            ]),
            [REFUSED, REFUSED],
        ),
        (
            "mandrill",
            Reply(200, [{"email": "ann@x.test", "status": "sent", "_id": "1"}]),
            [None, (words.IN_DOUBT, "nothing-said")],
        ),
        (
            "postmark",
            Reply(200, {
                "To": "ann@x.test, Bob@x.test", "MessageID": "1", "ErrorCode": 0,
                "Message": "Message OK, but will not deliver to these inactive addresses: bob@x.test. "
                           "Inactive recipients are ones that have generated a hard bounce.",
            }),
            [None, REFUSED],
        ),
        (
            "postmark",
            Reply(422, {"ErrorCode": 300, "Message": "Error parsing 'To': Illegal email domain 'x' "
                                                    "in address 'bob@x.test'."}),
            [(words.TRANSIENT, "unexpected-reply"), REFUSED],
        ),
        (
            "mailersend",
            Reply(200, {"message": "m", "warnings": [{"type": "SOME_SUPPRESSED", "recipients": [
                {"email": "bob@x.test", "reason": ["hard_bounced"]}]}]}, {"X-Message-Id": "7"}),
            [None, REFUSED],
        ),
        (
            "unisender-go",
            Reply(200, {"status": "success", "job_id": "1", "emails": ["ann@x.test"],
                        "failed_emails": {"Bob@x.test": "temporary_unavailable"}}),
            [None, (words.TRANSIENT, "unexpected-reply")],
        ),
        (
            "mailjet",
            Reply(400, {"Messages": [{"Status": "error", "Errors": [
                {"ErrorCode": "mj-0013", "StatusCode": 400, "ErrorMessage": "Bob is no address."}]}]}),
            [(words.MESSAGE, "message-refused")] * 2,
        ),
    ],
)  # fmt: skip
def test_each_recipient_gets_an_answer_of_their_own(
    provider: str, reply: Reply, expected: list[Any], stand_in: Any
) -> None:
    server = stand_in(provider)
    server.replies = [reply]
    answers = sent(api_transport(provider, server.url), composed(**TWO))
    assert list(outcomes(answers).values()) == expected


def test_what_one_provider_of_several_recipients_took_is_never_guessed(stand_in: Any) -> None:
    server = stand_in("sparkpost")
    server.replies = [
        Reply(200, {"results": {"total_accepted_recipients": 0, "total_rejected_recipients": 1, "id": "1"}})
    ]
    ann, bob = sent(api_transport("sparkpost", server.url), composed(**TWO))
    assert outcomes([ann, bob]) == {
        "ann@x.test": REFUSED, "Bob@x.test": (words.TRANSIENT, "too-many-recipients")
    }  # fmt: skip


# --- what goes wrong on the way --------------------------------------------------------------
ANN = {"to": "ann@x.test", "cc": None, "bcc": None}


@pytest.mark.parametrize("provider", EVERY)
@pytest.mark.parametrize("fault", [CUT, HANG])
def test_a_request_without_an_answer_is_in_doubt(provider: str, fault: str, stand_in: Any) -> None:
    server = stand_in(provider)
    server.replies = [fault]
    dots: list[list[str]] = []
    transport = api_transport(provider, server.url, timeout=0.2 if fault == HANG else 20.0)
    (answer,) = sent(transport, composed(**ANN), dots)
    assert answer.failure and (answer.failure.kind, answer.failure.rule) == (
        words.IN_DOUBT, "no-reply-to-dot"
    )  # fmt: skip
    assert dots == [["ann@x.test"]] and len(server.requests) == 1


@pytest.mark.parametrize("provider", EVERY)
def test_where_nobody_listens_nothing_is_sent_and_nothing_is_in_doubt(provider: str) -> None:
    dots: list[list[str]] = []
    with refused_port() as port:
        transport = api_transport(provider, f"http://127.0.0.1:{port}/")
        (answer,) = sent(transport, composed(**ANN), dots)
    failure = answer.failure
    assert failure and (failure.rule, failure.stage) == ("connect-refused", words.CONNECT)
    assert failure.surely_not_sent and dots == []


def test_a_certificate_that_nobody_vouches_for_gets_neither_key_nor_mail(certificates: Any) -> None:
    with ScriptedServer(tls="implicit", certificate=certificates.server) as server:
        url = f"https://127.0.0.1:{server.port}/"
        transport = AnymailTransport("resend", [SECRET], {"api_url": url}, timeout=20.0)
        dots: list[list[str]] = []
        (answer,) = sent(transport, composed(**ANN), dots)
    assert answer.failure and (answer.failure.kind, answer.failure.rule) == (
        words.CONFIGURATION, "certificate"
    )  # fmt: skip
    assert dots == []


def test_a_port_without_tls_is_named(stand_in: Any) -> None:
    url = stand_in("resend").url.replace("http:", "https:")
    transport = AnymailTransport("resend", [SECRET], {"api_url": url}, timeout=20.0)
    (answer,) = sent(transport, composed(**ANN))
    assert answer.failure and answer.failure.rule in ("not-tls", "tls-error")
    assert answer.failure.surely_not_sent


def test_a_redirect_is_not_followed(stand_in: Any) -> None:
    server, other = stand_in("postmark"), stand_in("postmark")
    server.replies = [Reply(307, "", {"Location": other.url})]
    (answer,) = sent(api_transport("postmark", server.url), composed(**ANN))
    assert answer.failure and answer.failure.rule == "bad-server-address"
    assert other.requests == []


def test_what_before_dot_raises_comes_out_as_it_is_and_nothing_is_sent(stand_in: Any) -> None:
    server = stand_in("resend")
    transport = api_transport("resend", server.url)
    transport.open()
    full = OSError(28, "No space left on device")

    def fail(_: list[str]) -> None:
        raise full

    with pytest.raises(OSError) as raised:
        transport.deliver(
            "site@site.test", ["ann@x.test"], composed(**ANN).mime, smtputf8=False, before_dot=fail
        )
    assert raised.value is full and server.requests == []


def test_behind_a_proxy_it_is_on_record_before_the_proxy_is_asked(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = stand_in("postmark")
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    transport = api_transport("postmark", "http://api.x.test/")
    dots: list[list[str]] = []
    (answer,) = sent(transport, composed(**ANN), dots)
    assert answer.failure is None and dots == [["ann@x.test"]]
    assert proxy.requests[0].path == "http://api.x.test/email"
    with pytest.raises(OSError, match="No space left"):
        transport.deliver("a@x.test", ["a@x.test"], composed().mime, smtputf8=False, before_dot=no_space)
    assert len(proxy.requests) == 1


def no_space(_: list[str]) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("provider", EVERY)
def test_no_answer_shows_the_key(provider: str, stand_in: Any) -> None:
    server = stand_in(provider)
    server.replies = [Reply(401, {"message": f"the key {SECRET} is not known"})]
    transport = api_transport(provider, server.url)
    (answer,) = sent(transport, composed(**ANN))
    assert answer.failure and answer.failure.rule == "auth-rejected"
    assert SECRET not in repr(answer) + repr(transport) + transport.name


def test_an_answer_that_nobody_can_read_is_in_doubt(stand_in: Any) -> None:
    server = stand_in("resend")
    server.replies = [Reply(200, "<html>"), Reply(200, {"surprise": 1})]
    for _ in range(2):
        (answer,) = sent(api_transport("resend", server.url), composed(**ANN))
        assert answer.failure and answer.failure.rule == "senseless-reply-to-dot"


def test_a_fault_of_anymail_itself_is_the_messages_and_stops_no_other(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = stand_in("resend")
    transport = api_transport("resend", server.url)
    transport.open()
    monkeypatch.setattr(transport._backend, "build_message_payload", lambda *_: {}["missing"])
    (answer,) = sent(transport, composed(**ANN))
    assert answer.failure and (answer.failure.kind, answer.failure.rule) == (
        words.MESSAGE, "message-not-built"
    )  # fmt: skip


def test_a_control_character_in_a_damaged_row_goes_nowhere(stand_in: Any) -> None:
    server = stand_in("sendgrid")
    message = composed(**ANN)
    mime = b"X-Evil: =?utf-8?q?a=0ABcc:_eve=40x.test?=\r\n" + message.mime
    transport = api_transport("sendgrid", server.url)
    transport.open()
    (answer,) = hand_over(transport, message.envelope, mime, None)
    assert answer.failure and answer.failure.rule == "message-not-built"
    assert server.requests == []


# --- the same request twice ------------------------------------------------------------------
def keys(provider: str, server: ApiServer) -> list[str]:
    if provider == "resend":
        return [request.headers["idempotency-key"] for request in server.requests]
    return [request.json["headers"]["idempotencyKey"] for request in server.requests]


@pytest.mark.parametrize("provider", ["resend", "brevo"])
def test_the_same_message_to_the_same_people_has_the_same_key_and_no_other_has(
    provider: str, stand_in: Any
) -> None:
    server = stand_in(provider)
    message, another = composed(), composed()
    server.replies = [CUT]
    for each in (message, message, only_to(message, "ann@x.test"), another):
        sent(api_transport(provider, server.url), each)  # each time as a new process would
    first, again, fewer, other = keys(provider, server)
    assert first == again and len({first, fewer, other}) == 3
    assert str(uuid.UUID(first)) == first


@pytest.mark.parametrize("provider", sorted({*EVERY} - {"resend", "brevo"}))
def test_no_other_provider_is_told_a_key(provider: str, stand_in: Any) -> None:
    server = stand_in(provider)
    sent(api_transport(provider, server.url), composed(**ANN))
    (request,) = server.requests
    assert "idempotency" not in (json.dumps(request.headers) + request.body.decode()).lower()


def test_a_request_that_the_provider_knows_already_is_in_doubt(stand_in: Any) -> None:
    server = stand_in("resend")
    text = "Same idempotency key used with a different request payload."
    server.replies = [Reply(409, {"name": "invalid_idempotent_request", "message": text})]
    (answer,) = sent(api_transport("resend", server.url), composed(**ANN))
    assert answer.failure and (answer.failure.kind, answer.failure.rule) == (
        words.IN_DOUBT, "already-given"
    )  # fmt: skip


# --- connections, threads, the extra ---------------------------------------------------------
def test_a_connection_is_kept_from_one_message_to_the_next(stand_in: Any) -> None:
    server = stand_in("postmark")
    transport = api_transport("postmark", server.url)
    for _ in range(3):
        assert sent(transport, composed(**ANN))[0].failure is None
    assert (len(server.requests), server.connections) == (3, 1)
    transport.close()
    assert sent(transport, composed(**ANN))[0].failure is None
    assert server.connections == 2


def test_transports_of_several_threads_do_not_disturb_each_other(stand_in: Any) -> None:
    server = stand_in("postmark")
    answers: list[Answer] = []

    def work() -> None:
        transport = api_transport("postmark", server.url)
        for _ in range(5):
            answers.extend(sent(transport, composed(**ANN)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.failure for answer in answers] == [None] * 20 and len(server.requests) == 20


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anymail, "find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'mailqueue\[anymail\]'"):
        AnymailTransport("resend", ["key"], {})


def test_nothing_of_django_is_loaded_before_the_first_transport_opens() -> None:
    import subprocess
    import sys

    seen = "import sys, mailqueue.transports.urls; print('django' in sys.modules, 'boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]

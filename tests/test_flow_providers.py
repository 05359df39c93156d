"""Whole journeys over providers' APIs: what is kept, paused, tried again, and given to another transport."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, check, queries, trial
from mailqueue.administration import said
from mailqueue.compose import Attachment
from mailqueue.findings import NOTE
from mailqueue.timeline import timeline
from mailqueue.transports import anymail, ses
from support.api_providers import FAKES
from support.api_server import CUT, ApiServer, Reply
from support.mail import Clock, make_mail, open_causes, rows, statuses
from support.smtp_server import ScriptedServer

UNKNOWN_KEY = Reply(401, {"message": "API key is invalid"})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stand_in() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda provider: stack.enter_context(ApiServer(FAKES[provider].accept))


@pytest.fixture
def make(tmp_path: Path, clock: Clock) -> Any:
    made = []

    def make(*transports: Any, **options: Any) -> QueuedMailer:
        made.append(make_mail(tmp_path, clock=clock, transports=list(transports), **options))
        return made[-1]

    yield make
    for mail in made:
        mail.db.close()


def url(provider: str, server: ApiServer, key: str = "KEY") -> str:
    return f"{provider}+api://{key}?api_url={server.url}"


def test_what_a_provider_calls_a_message_is_kept_for_each_recipient_and_shown(
    make: Any, stand_in: Any
) -> None:
    mail = make(url("mailtrap", stand_in("mailtrap")))
    mail.send(["ann@x.test", "bob@x.test"], "Hello", "Text")
    assert mail.process_queue()["sent"] == 1
    found = queries.message(mail.db, 1)
    assert found
    ids = ["id-of-ann@x.test", "id-of-bob@x.test"]
    assert [row["provider_id"] for row in found["recipients_list"]] == ids
    assert "(its id there: id-of-ann@x.test)" in said(found["recipients_list"][0])
    (attempt,) = [event for event in timeline(found, []) if event.attempts]
    assert sorted(row["provider_id"] for row in attempt.attempts) == ids
    assert "Mailtrap: queued" in said(attempt.attempts[0])


def test_an_attempt_in_vain_has_no_id_of_a_later_one(make: Any, stand_in: Any, clock: Clock) -> None:
    server = stand_in("resend")
    server.replies = [Reply(500, "oops")]
    mail = make(url("resend", server))
    mail.send("ann@x.test")
    mail.process_queue()
    clock.advance(100)
    mail.process_queue()
    found = queries.message(mail.db, 1)
    assert found and [(row["outcome"], row["provider_id"]) for row in found["attempts_list"]] == [
        ("sent", "re-1"), ("deferred", None)
    ]  # fmt: skip


def test_a_doubt_is_tried_again_with_the_same_key(make: Any, stand_in: Any, clock: Clock) -> None:
    server = stand_in("resend")
    server.replies = [CUT]
    mail = make(url("resend", server))
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["in_doubt"]
    clock.advance(100)
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    first, second = (request.headers["idempotency-key"] for request in server.requests)
    assert first == second


@pytest.mark.parametrize(
    ("reply", "cause"),
    [(UNKNOWN_KEY, "auth-rejected"), (Reply(404, ""), "bad-server-address")],
    ids=["key", "address"],
)
def test_a_setting_that_is_refused_is_one_problem_until_a_message_goes_out(
    make: Any, stand_in: Any, clock: Clock, reply: Reply, cause: str
) -> None:
    server = stand_in("resend")
    server.accept = lambda _: reply
    mail = make(url("resend", server))
    for number in range(3):
        mail.send(f"user{number}@x.test")
    for _ in range(4):
        mail.process_queue()
        clock.advance(600)
    assert (statuses(mail), open_causes(mail)) == (["queued"] * 3, [cause])
    # Each probe is one message; that the transport could be made proves nothing.
    assert len(server.requests) == 4
    (problem,) = rows(mail, "problem")
    assert problem["seen"] == 4 and problem["resolved_on"] is None
    assert [row["attempts"] for row in rows(mail, "recipient")] == [0] * 3
    server.accept = FAKES["resend"].accept
    for _ in range(2):
        mail.process_queue()
        clock.advance(60)
    assert (statuses(mail), open_causes(mail)) == (["sent"] * 3, [])


def test_another_key_ends_the_pause_at_once(make: Any, stand_in: Any) -> None:
    server = stand_in("resend")
    server.replies = [UNKNOWN_KEY]
    mail = make(url("resend", server))
    mail.send("ann@x.test")
    mail.process_queue()
    mail.settings.transports = [url("resend", server, "ANOTHER")]
    for _ in range(2):
        mail.process_queue()
    assert statuses(mail) == ["sent"]
    assert server.requests[-1].headers["authorization"] == "Bearer ANOTHER"


@pytest.mark.parametrize(
    "reply",
    [
        UNKNOWN_KEY,
        Reply(403, {"message": "domain is not verified"}),
        Reply(429, {"message": "Too many requests"}),
        Reply(402, {"message": "no credit"}),
        Reply(503, "busy"),
        Reply(413, ""),
    ],
    ids=lambda reply: str(reply.status),
)
def test_what_a_provider_surely_did_not_send_the_next_one_takes_at_once(
    make: Any, stand_in: Any, reply: Reply
) -> None:
    first, second = stand_in("resend"), stand_in("postmark")
    first.replies = [reply]
    mail = make(url("resend", first), url("postmark", second))
    mail.send("ann@x.test")
    assert mail.process_queue()["sent"] == 1
    assert len(second.requests) == 1
    assert [row["provider_id"] for row in rows(mail, "recipient")] == ["pm-1"]


@pytest.mark.parametrize("reply", [CUT, Reply(500, "oops"), Reply(502, ""), Reply(400, {"message": "bad"})])
def test_what_a_provider_may_have_sent_or_refused_for_good_the_next_one_is_not_given(
    make: Any, stand_in: Any, reply: Any
) -> None:
    first, second = stand_in("resend"), stand_in("postmark")
    first.replies = [reply]
    mail = make(url("resend", first), url("postmark", second))
    mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail)[0] in ("in_doubt", "deferred", "failed") and second.requests == []


def test_a_message_that_a_provider_has_no_place_for_goes_by_one_that_has(make: Any, stand_in: Any) -> None:
    brevo = stand_in("brevo")
    with ScriptedServer() as smtp:
        mail = make(url("brevo", brevo), f"smtp://127.0.0.1:{smtp.port}?tls=none")
        picture = Attachment(io.BytesIO(b"\x89PNG"), "p.png", content_id="p", content_type="image/png")
        mail.send("ann@x.test", "x", ("text", "<img src='cid:p'>"), attachments=[picture])
        assert mail.process_queue()["sent"] == 1
    assert brevo.requests == [] and b"Content-ID: <p>" in smtp.messages[0].data


def test_where_it_has_no_other_way_it_fails_and_says_why(make: Any, stand_in: Any) -> None:
    mail = make(url("brevo", stand_in("brevo")))
    picture = Attachment(io.BytesIO(b"\x89PNG"), "p.png", content_id="p", content_type="image/png")
    mail.send("ann@x.test", "x", ("text", "<img src='cid:p'>"), attachments=[picture])
    mail.send("bob@x.test", "x", "text")
    mail.process_queue()
    assert statuses(mail) == ["failed", "sent"]
    assert "Brevo does not support inline attachments" in rows(mail, "message")[0]["error"]


def test_many_recipients_go_out_in_one_drain_each_once(make: Any, stand_in: Any) -> None:
    server = stand_in("sparkpost")
    mail = make(url("sparkpost", server))
    mail.send([f"user{number}@x.test" for number in range(4)])
    mail.process_queue()
    assert statuses(mail) == ["sent"]
    assert sorted(
        one for request in server.requests for one in FAKES["sparkpost"].read(request).everybody
    ) == [f"user{number}@x.test" for number in range(4)]
    assert [row["attempts"] for row in rows(mail, "recipient")] == [1] * 4


def test_a_wish_to_be_left_alone_is_heeded(make: Any, stand_in: Any, clock: Clock) -> None:
    server = stand_in("resend")
    server.replies = [Reply(429, {"message": "Too many requests"}, {"Retry-After": "900"})]
    mail = make(url("resend", server))
    mail.send("ann@x.test")
    mail.process_queue()
    clock.advance(600)
    mail.process_queue()
    assert len(server.requests) == 1
    clock.advance(400)
    for _ in range(3):
        mail.process_queue()
        clock.advance(60)
    assert (statuses(mail), len(server.requests)) == (["sent"], 2)


@pytest.mark.parametrize(
    ("options", "module", "extra"),
    [
        ({"transports": ["resend+api://KEY"]}, anymail, "anymail"),
        ({"transports": ["ses://AKIA:SECRET@eu-west-1"]}, ses, "ses"),
        ({"server": "aws"}, ses, "ses"),
    ],
)
def test_a_missing_extra_is_named_when_the_site_starts_and_mail_is_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], module: Any, extra: str
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    mail = make_mail(tmp_path, **options)
    (problem,) = rows(mail, "problem")
    assert problem["cause"].startswith("missing-extra") and f"mailqueue[{extra}]" in problem["detail"]
    assert "KEY" not in str(problem) and "SECRET" not in str(problem)
    assert mail.send("ann@x.test")
    mail.process_queue()
    assert statuses(mail) == ["queued"]


def test_trying_a_provider_says_what_was_not_tried(make: Any, stand_in: Any) -> None:
    server = stand_in("resend")
    mail = make(url("resend", server))
    (tried,) = trial.try_transports(mail)
    assert [(step.label, step.result) for step in tried.steps] == [
        ("Settings", trial.WORKS), ("Connection", trial.NOT_TRIED), ("Login", trial.NOT_TRIED)
    ]  # fmt: skip
    assert (tried.failure, tried.is_proven, server.requests) == (None, False, [])
    finding = check.examine(mail, check.Wanted("127.0.0.1:9"))[0]
    assert finding.level == NOTE and "shows with the first message" in finding.said


def test_trying_amazon_ses_without_keys_says_what_is_missing(
    make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    (tried,) = trial.try_transports(make("ses://eu-west-1"))
    assert [step.result for step in tried.steps] == [trial.WORKS, trial.NOT_TRIED, trial.FAILS]
    assert tried.failure and "no AWS keys" in tried.failure.text and tried.remedy


def test_what_is_sent_directly_tells_of_a_refusal(make: Any, stand_in: Any) -> None:
    server = stand_in("resend")
    mail = make(url("resend", server))
    assert mail.send_direct_email("ann@x.test", "x", "text") is True
    server.replies = [Reply(422, {"message": "no such field"})]
    assert mail.send_direct_email("ann@x.test", "x", "text") is False
    assert "no such field" in str(mail.error)

"""The SMTP transport over real sockets: the dialogue, and what every stage's failure becomes."""

from __future__ import annotations

import socket
from dataclasses import replace

import pytest
from mailqueue import words
from mailqueue.transports.smtp import SmtpTransport, Timeouts
from support.smtp_client import HASTY, MIME, SENDER, attempt, outcomes, smtp_to
from support.smtp_server import EXTENSIONS, Close, Hang, Raw, Reply, Reset, ScriptedServer, nth, refused_port

A, B, C = "a@x.test", "b@x.test", "c@x.test"
LATER = Reply(451, "4.3.0 later")
CLOSING = Reply(421, "4.3.2 closing", then=Close())
NONSENSE = Raw(b"hello, nice to meet you\r\n")
OVER_LONG = Raw(b"9" * 100_000 + b"\r\n")
MULTI = Reply(554, "5.7.1 we do not like you\n5.7.1 at all")
BYTES = Reply(451, b"4.3.0 sp\xe4ter")
HANG, CLOSE, RESET = Hang(), Close(), Reset()

T, CONF, R, M, D = words.TRANSIENT, words.CONFIGURATION, words.RECIPIENT, words.MESSAGE, words.IN_DOUBT

# stage, what the server does there -> kind, rule, code
EVERYWHERE = [
    (LATER, T, "server-deferred", 451),
    (BYTES, T, "server-deferred", 451),
    (CLOSING, T, "service-closing", 421),
    (NONSENSE, T, "senseless-reply", None),
    (OVER_LONG, T, "senseless-reply", None),
    (HANG, T, "timed-out", None),
    (CLOSE, T, "connection-lost", None),
    (RESET, T, "connection-lost", None),
]
OWN = [
    ("banner", MULTI, T, "banner-refused", 554),
    ("ehlo", MULTI, CONF, "ehlo-rejected", 554),
    ("auth", Reply(535, "5.7.8 no"), CONF, "auth-rejected", 535),
    ("auth", Reply(454, "4.7.0 later"), T, "server-deferred", 454),
    ("auth", Reply(334, "no base64!"), T, "senseless-reply", None),
    ("mail", Reply(550, "5.7.1 not you"), CONF, "sender-rejected", 550),
    ("mail", Reply(552, "5.3.4 too big"), M, "too-big", 552),
    ("mail", Reply(354, "already?"), T, "senseless-reply", 354),
    ("rcpt", Reply(550, "5.1.1 no such user"), R, "unknown-address", 550),
    ("rcpt", Reply(550, "5.7.1 relaying denied"), CONF, "relay-denied", 550),
    ("rcpt", Reply(452, "4.5.3 too many"), T, "too-many-recipients", 452),
    ("data", MULTI, M, "content-refused", 554),
    ("data", Reply(250, "ok, but where is 354?"), T, "senseless-reply", 250),
    ("dot", Reply(451, "4.3.0 later"), T, "deferred-after-dot", 451),
    ("dot", MULTI, M, "content-refused", 554),
    ("dot", CLOSING, T, "service-closing", 421),
    ("dot", NONSENSE, D, "senseless-reply-to-dot", None),
    ("dot", OVER_LONG, D, "senseless-reply-to-dot", None),
    ("dot", Raw(b"354 still going on\r\n"), D, "senseless-reply-to-dot", 354),
    ("dot", HANG, D, "no-reply-to-dot", None),
    ("dot", CLOSE, D, "no-reply-to-dot", None),
    ("dot", RESET, D, "no-reply-to-dot", None),
    ("dot", Raw(b"250-half a reply\r\n"), D, "no-reply-to-dot", None),
]


@pytest.fixture(params=[True, False], ids=["pipelining", "in turn"], autouse=True)
def pipelining(request, monkeypatch):
    """Every test here runs with a server that offers PIPELINING, and with one that does not."""
    if not request.param:
        monkeypatch.setattr(ScriptedServer, "offered", tuple(set(EXTENSIONS) - {"PIPELINING"}))
    return request.param


CELLS = [(stage, *row) for stage in ("banner", "ehlo", "auth", "mail", "rcpt", "data") for row in EVERYWHERE]


@pytest.mark.parametrize(("stage", "fault", "kind", "rule", "code"), CELLS + OWN)
def test_a_fault_becomes_the_right_failure_and_the_next_message_goes_out(
    stage, fault, kind, rule, code, pipelining
):
    silent = fault == HANG or (isinstance(fault, Raw) and fault.data.startswith(b"250-"))
    with ScriptedServer(auth={"me": "secret"}, script={stage: fault}) as server:
        transport = smtp_to(server, login=("me", "secret"))
        if silent:
            transport._timeouts = HASTY
        (answer,) = attempt(transport, A)
        failure = answer.failure
        assert failure is not None
        if (stage, fault) == ("banner", RESET) and failure.stage == "connect":
            stage = "connect"  # the reset may arrive before the connection is seen to be made
        if pipelining and fault == RESET and stage in ("rcpt", "data"):
            assert failure.stage in ("mail", "rcpt", "data")
            stage = failure.stage  # the reset may overtake the replies that were sent before it
        assert (failure.kind, failure.rule, failure.stage, failure.code) == (kind, rule, stage, code)
        assert (answer.stage, answer.code) == (stage, code)
        assert failure.surely_not_sent is (kind != D)
        assert server.messages == []
        server.script.clear()
        server.release()
        repaired = smtp_to(server, login=("me", "secret")) if silent else transport
        assert outcomes(attempt(repaired, A)) == {A: "sent"}
        repaired.close()


# --- the way to the server -------------------------------------------------------------------
def test_nobody_listening_is_a_refused_connection():
    with refused_port() as port:
        (answer,) = attempt(SmtpTransport("127.0.0.1", port))
    assert answer.failure and (answer.failure.rule, answer.stage) == ("connect-refused", "connect")


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70 + ".test", "a\0b"])
def test_a_name_that_cannot_be_found_is_a_failure_to_connect(host):
    (answer,) = attempt(SmtpTransport(host, 25, timeouts=HASTY))
    assert answer.failure and answer.stage == "connect"
    assert answer.failure.rule in {"name-not-known", "name-lookup-failed", "bad-server-address"}


def test_mail_goes_out_over_ipv6_too():
    class OnIpv6(ScriptedServer):
        host = "::1"

    with OnIpv6() as server:
        transport = smtp_to(server)
        assert outcomes(attempt(transport)) == {A: "sent"}
        assert transport.name == f"smtp://[::1]:{server.port}"


# --- greeting --------------------------------------------------------------------------------
def test_a_server_that_does_not_know_ehlo_is_greeted_with_helo():
    def no_ehlo(_session, line):
        return Reply(502, "5.5.1 what?") if line.startswith("EHLO") else None

    with ScriptedServer(script={"ehlo": no_ehlo}) as server:
        assert outcomes(attempt(smtp_to(server))) == {A: "sent"}
        assert server.commands[1].startswith("HELO ")
        assert server.messages[0].mail_parameters == ()


def test_the_configured_host_name_is_said_in_ehlo(smtp):
    attempt(smtp_to(smtp, hostname="web.site.test"))
    assert smtp.commands[0] == "EHLO web.site.test"


def test_without_a_full_host_name_the_address_is_said_in_ehlo(smtp, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "localhost")
    attempt(smtp_to(smtp))
    assert smtp.commands[0] == "EHLO [127.0.0.1]"


# --- envelope and text -----------------------------------------------------------------------
def test_the_size_is_announced_where_the_server_offers_it(smtp):
    attempt(smtp_to(smtp))
    assert smtp.messages[0].mail_parameters == (f"SIZE={len(MIME)}",)


def test_a_message_over_the_servers_limit_is_refused_before_it_is_sent():
    with ScriptedServer(size_limit=100) as server:
        transport = smtp_to(server)
        (answer,) = attempt(transport, mime=MIME + b"x" * 100)
        assert answer.failure and (answer.failure.rule, answer.failure.kind) == ("too-big", M)
        assert not any(line.startswith("MAIL") for line in server.commands)
        assert outcomes(attempt(transport)) == {A: "sent"}


@pytest.mark.parametrize("offer", ["SIZE", "SIZE 0", "SIZE lots"])
def test_a_limit_that_names_no_number_is_none(offer):
    with ScriptedServer(script={"ehlo": Reply(250, f"scripted.test\n{offer}")}) as server:
        assert outcomes(attempt(smtp_to(server))) == {A: "sent"}


def test_an_international_address_goes_out_with_smtputf8(smtp):
    answers = attempt(smtp_to(smtp), "grüße@x.test", sender="ich@ä.test", smtputf8=True)
    assert outcomes(answers) == {"grüße@x.test": "sent"}
    received = smtp.messages[0]
    assert (received.mail_from, received.rcpt_tos) == ("ich@ä.test", ("grüße@x.test",))
    assert received.mail_parameters[1:] == ("BODY=8BITMIME", "SMTPUTF8")


def test_an_international_address_is_refused_where_smtputf8_is_not_offered():
    with ScriptedServer(extensions=("8BITMIME",)) as server:
        (answer,) = attempt(smtp_to(server), "grüße@x.test", smtputf8=True)
        assert answer.failure and answer.failure.rule == "smtputf8-not-offered"
        assert not any("grüße" in line for line in server.commands)


@pytest.mark.parametrize(
    ("text", "received"),
    [
        (b"S: x\r\n\r\n.\r\n", None),
        (b".\r\n..\r\n...\r\n.a\r\n", None),
        (b"S: x\r\n\r\n.\r\n.\r\n.\r\n\r\n.", b"S: x\r\n\r\n.\r\n.\r\n.\r\n\r\n.\r\n"),
        (b"S: x\r\n\r\nno line end", b"S: x\r\n\r\nno line end\r\n"),
        (b"", b"\r\n"),
        # bare line ends would hide a second message from servers that take them for line ends
        (
            b"S: x\r\n\r\na\n.\nMAIL FROM:<evil@x.test>\r\n",
            b"S: x\r\n\r\na\r\n.\r\nMAIL FROM:<evil@x.test>\r\n",
        ),
        (b"S: x\r\n\r\na\n.\r\nb\r.\rc\r", b"S: x\r\n\r\na\r\n.\r\nb\r\n.\r\nc\r\n"),
        (b"\xff\x00\x80\r\n", None),
    ],
)
def test_the_text_arrives_as_it_is_whatever_dots_it_holds(smtp, text, received):
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport, mime=text)) == {A: "sent"}
    assert outcomes(attempt(transport, B)) == {B: "sent"}  # and nothing of it was read as a command
    assert [message.data for message in smtp.messages] == [received or text, MIME]


def test_ten_megabytes_of_dots_arrive_intact():
    mime = b"S: x\r\n\r\n" + b".\r\n..x\r\n" * 1_250_000
    with ScriptedServer(size_limit=20_000_000) as server:
        assert outcomes(attempt(smtp_to(server), mime=mime)) == {A: "sent"}
        assert server.messages[0].data == mime


@pytest.mark.parametrize("bad", ["a\r\nRCPT TO:<evil@x.test>", "a\nb@x.test", "a\0b@x.test", "\ud800@x.test"])
def test_an_address_that_cannot_be_written_harms_nobody_else(smtp, bad):
    answers = attempt(smtp_to(smtp), A, bad, C)
    assert outcomes(answers)[A] == outcomes(answers)[C] == "sent"
    assert answers[1].failure and answers[1].stage == "rcpt"
    assert smtp.messages[0].rcpt_tos == (A, C)
    assert smtp.commands.count("DATA") == 1 and not any("evil" in line for line in smtp.commands)


def test_a_sender_that_cannot_be_written_never_reaches_the_wire(smtp):
    transport = smtp_to(smtp)
    (answer,) = attempt(transport, sender="a@x.test>\r\nRCPT TO:<evil@x.test")
    assert answer.failure and answer.stage == "mail"
    assert outcomes(attempt(transport)) == {A: "sent"}
    assert not any("evil" in line for line in smtp.commands)


@pytest.mark.parametrize("code", [504, 555])
def test_a_size_that_is_offered_and_then_refused_is_left_out(smtp, code):
    smtp.script["mail"] = lambda _session, line: Reply(code, "5.5.4 what?") if "SIZE" in line else None
    transport = smtp_to(smtp)
    assert outcomes(attempt(transport)) == outcomes(attempt(transport)) == {A: "sent"}
    said = [line for line in smtp.commands if line.startswith("MAIL")]
    assert ["SIZE" in line for line in said] == [True, False, False]


# --- one answer for each recipient -----------------------------------------------------------
def test_a_refused_recipient_does_not_stop_the_others_and_only_they_are_in_before_dot(smtp):
    smtp.script["rcpt"] = {B: Reply(550, "5.1.1 no such user")}
    dots: list[list[str]] = []
    answers = attempt(smtp_to(smtp), A, B, C, dots=dots)
    assert outcomes(answers) == {A: "sent", B: "unknown-address", C: "sent"}
    assert [answer.recipient for answer in answers] == [A, B, C]
    assert dots == [[A, C]]
    assert (answers[0].code, answers[0].enhanced, answers[0].text) == (250, "2.0.0", "taken")
    assert smtp.messages[0].rcpt_tos == (A, C)


def test_when_all_are_refused_nothing_is_sent_and_the_connection_serves_the_next_message(smtp, pipelining):
    smtp.script["rcpt"] = {A: Reply(550, "5.1.1 no such user"), B: Reply(450, "4.2.0 busy")}
    dots: list[list[str]] = []
    transport = smtp_to(smtp)
    answers = attempt(transport, A, B, dots=dots)
    assert outcomes(answers) == {A: "unknown-address", B: "server-deferred"}
    assert smtp.commands.count("DATA") == int(pipelining) and dots == []
    assert outcomes(attempt(transport, C)) == {C: "sent"}
    assert smtp.connections == 1


@pytest.mark.parametrize("fault", [Reply(500, "5.5.1 what?"), CLOSE, RESET, HANG], ids=repr)
def test_where_rset_fails_the_next_message_gets_a_new_connection(smtp, fault):
    smtp.script.update({"rcpt": {A: LATER}, "rset": fault})
    transport = smtp_to(smtp, timeouts=HASTY if fault == HANG else Timeouts())
    assert outcomes(attempt(transport, A)) == {A: "server-deferred"}
    assert outcomes(attempt(transport, B)) == {B: "sent"}
    assert smtp.connections == 2


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        (CLOSING, "service-closing"),
        (CLOSE, "connection-lost"),
        (RESET, "connection-lost"),
        (HANG, "timed-out"),
    ],
)
def test_a_dialogue_that_ends_at_one_recipient_leaves_nobody_sent(smtp, fault, rule, pipelining):
    smtp.script["rcpt"] = {A: Reply(550, "5.1.1 no such user"), C: fault}
    transport = smtp_to(smtp, timeouts=replace(HASTY, connect=20) if fault == HANG else Timeouts())
    answers = attempt(transport, A, B, C, "d@x.test")
    overtaken = pipelining and fault == RESET  # the reset may overtake the refusal
    assert outcomes(answers)[A] in ("unknown-address", *[rule] * overtaken)
    assert outcomes(answers[1:]) == {B: rule, C: rule, "d@x.test": rule}
    assert [answer.recipient for answer in answers] == [A, B, C, "d@x.test"]
    assert smtp.messages == []


@pytest.mark.parametrize("stage", ["data", "dot"])
def test_what_goes_wrong_with_the_text_is_nothing_to_those_refused_before(smtp, stage):
    smtp.script.update({"rcpt": {A: Reply(550, "5.1.1 no such user")}, stage: CLOSE})
    answers = attempt(smtp_to(smtp), A, B)
    lost = {"data": "connection-lost", "dot": "no-reply-to-dot"}[stage]
    assert outcomes(answers) == {A: "unknown-address", B: lost}


# --- the dot ---------------------------------------------------------------------------------
def test_a_message_is_not_sent_where_before_dot_fails():
    def fail(_accepted):
        raise OSError(28, "No space left on device")

    with ScriptedServer() as server:
        transport = smtp_to(server)
        transport.open()
        (answer,) = transport.deliver(SENDER, [A], MIME, smtputf8=False, before_dot=fail)
        server.wait_for_stage("text")
    assert server.messages == []
    assert answer.failure and (answer.failure.kind, answer.stage) == (T, "data")


def test_an_exit_in_before_dot_leaves_a_connection_that_nothing_is_said_on():
    def stop(_accepted):
        raise KeyboardInterrupt

    with ScriptedServer() as server:
        transport = smtp_to(server)
        transport.open()
        with pytest.raises(KeyboardInterrupt):
            transport.deliver(SENDER, [A], MIME, smtputf8=False, before_dot=stop)
        assert outcomes(attempt(transport, B)) == {B: "sent"}
    assert [message.rcpt_tos for message in server.messages] == [(B,)]


@pytest.mark.parametrize(
    ("verdict", "rule", "kind"),
    [
        (b"250 2.0.0 taken", "senseless-reply", T),
        (b"552 5.3.4 too big", "too-big", M),
        (b"421 4.3.2 closing", "service-closing", T),
        (b"nonsense", "senseless-reply", T),
    ],
)
def test_a_verdict_ahead_of_the_dot_is_never_a_yes_and_never_in_doubt(smtp, verdict, rule, kind):
    smtp.script["data"] = Raw(b"354 go ahead\r\n" + verdict + b"\r\n")
    dots: list[list[str]] = []
    (answer,) = attempt(smtp_to(smtp), dots=dots)
    assert answer.failure and (answer.failure.rule, answer.failure.kind) == (rule, kind)
    assert answer.failure.surely_not_sent and answer.stage == "data" and dots == []


@pytest.mark.parametrize("fault", [CLOSE, RESET], ids=["close", "reset"])
def test_a_connection_lost_in_the_middle_of_the_text_is_not_in_doubt(smtp, fault, pipelining):
    smtp.script["text"] = fault
    dots: list[list[str]] = []
    (answer,) = attempt(smtp_to(smtp, timeouts=Timeouts()), mime=MIME * 200_000, dots=dots)
    assert answer.failure and answer.failure.rule == "connection-lost"
    overtaken = pipelining and fault == RESET  # the reset may overtake the replies before it
    assert answer.stage == "data" or (overtaken and answer.stage in ("mail", "rcpt"))
    assert dots == []


@pytest.mark.parametrize("stage", ["banner", "ehlo", "mail", "rcpt"])
def test_a_server_that_answers_twice_is_hung_up_on_before_answers_are_mixed_up(smtp, stage, pipelining):
    texts = {"banner": "220 hi", "ehlo": "250 hi", "mail": "250 ok", "rcpt": "550 5.1.1 no such user"}
    once = texts[stage].encode() + b"\r\n"
    smtp.script[stage] = {A: Raw(once * 2)} if stage == "rcpt" else Raw(once * 2)
    answers = attempt(smtp_to(smtp), A, B)
    if stage == "rcpt" and pipelining:  # it shows at the end only, and by then no answer counts
        assert outcomes(answers) == {A: "senseless-reply", B: "senseless-reply"}
        return
    assert outcomes(answers)[B] == "connection-lost"
    assert outcomes(answers)[A] == ("unknown-address" if stage == "rcpt" else "connection-lost")


def test_a_second_answer_to_the_dot_is_not_the_next_messages(smtp):
    smtp.script["dot"] = nth(Reply(250, "2.0.0 taken", times=2), 1)
    transport = smtp_to(smtp)
    smtp.script["rcpt"] = {B: Reply(550, "5.1.1 no such user")}
    assert outcomes(attempt(transport, A)) == {A: "sent"}
    assert outcomes(attempt(transport, B)) == {B: "unknown-address"}

"""Proof that the tests' own support works, with smtplib as the client and py4web's own mailer."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydal import DAL, Field
from support import services
from support.browser import PASSWORD
from support.certificates import Certificates
from support.scaffold import make_site, queue_mail
from support.smtp_faults import Late
from support.smtp_server import (
    Close,
    Fault,
    Hang,
    Raw,
    Reply,
    Reset,
    ScriptedServer,
    free_port,
    nth,
    refused_port,
)

MAIL = "Subject: hello\r\n\r\nfirst\r\n.hidden dot\r\n..\r\n"
PEOPLE = {"ann": "p\u00e4ssword"}


@contextlib.contextmanager
def client(server: ScriptedServer, timeout: float = 5.0) -> Iterator[smtplib.SMTP]:
    link = smtplib.SMTP(server.host, server.port, local_hostname="client.test", timeout=timeout)
    try:
        yield link
    finally:
        link.close()


def send(server: ScriptedServer, *to: str) -> dict[str, tuple[int, bytes]]:
    with client(server) as link:
        return link.sendmail("from@x.test", list(to) or ["to@x.test"], MAIL)


# --- the server as a decent one -----------------------------------------------------------------
def test_a_mail_is_received_as_it_was_sent_without_dot_stuffing(smtp: ScriptedServer) -> None:
    assert send(smtp, "a@x.test", "b@x.test") == {}
    (mail,) = smtp.wait_for(1)
    assert (mail.mail_from, mail.rcpt_tos) == ("from@x.test", ("a@x.test", "b@x.test"))
    assert mail.data == MAIL.encode()
    assert mail.mail_parameters == (f"size={len(MAIL)}",)
    assert (mail.tls, mail.user, mail.connection) == (False, None, 1)
    assert mail.parsed()["Subject"] == "hello"


def test_several_mails_go_over_one_connection(smtp: ScriptedServer) -> None:
    with client(smtp) as link:
        for number in range(3):
            link.sendmail(f"{number}@x.test", ["to@x.test"], MAIL)
        link.quit()
    assert [mail.mail_from for mail in smtp.messages] == ["0@x.test", "1@x.test", "2@x.test"]
    assert smtp.connections == 1
    assert smtp.commands[0] == "ehlo client.test"
    assert smtp.commands[-1] == "quit"


def test_an_empty_mail_is_empty(smtp: ScriptedServer) -> None:
    with socket.create_connection((smtp.host, smtp.port), timeout=5) as raw:
        raw.sendall(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n.\r\nQUIT\r\n")
        assert [line[:3] for line in raw.makefile("rb")] == [b"220", *[b"250"] * 3, b"354", b"250", b"221"]
    assert (smtp.messages[0].mail_from, smtp.messages[0].data) == ("", b"")
    assert smtp.pipelined == 4  # nothing came behind QUIT


def test_a_lonely_line_feed_ends_neither_a_command_nor_the_text(smtp: ScriptedServer) -> None:
    with client(smtp) as link:
        link.ehlo()
        link.mail("a@x.test")
        link.rcpt("b@x.test")
        link.docmd("DATA")
        link.send("one\n.\nMAIL FROM:<evil@x.test>\r\n.\r\n")
        assert link.getreply()[0] == 250
    assert smtp.messages[0].data == b"one\n.\nMAIL FROM:<evil@x.test>\r\n"


def test_pipelining_is_refused_where_it_is_not_offered() -> None:
    with (
        ScriptedServer(extensions=("SIZE",)) as server,
        socket.create_connection((server.host, server.port), timeout=5) as raw,
    ):
        raw.sendall(b"EHLO x\r\nNOOP\r\n")
        replies = raw.makefile("rb")
        assert replies.readline().startswith(b"220")
        assert replies.readline().startswith(b"503")


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("MAIL FROM:<a@x.test> SIZE=1001", 552),
        ("MAIL FROM:<a@x.test> SIZE=1000", 250),
        ("MAIL FROM:<a@x.test> SMTPUTF8", 555),
        ("MAIL FROM:<a@x.test> BODY=8BITMIME", 555),
        ("MAIL FROM:a@x.test", 501),
        ("RCPT TO:<a@x.test>", 503),
        ("DATA", 503),
        ("BOGUS", 500),
        ("STARTTLS", 502),
    ],
)
def test_what_was_not_offered_is_refused(command: str, code: int) -> None:
    with ScriptedServer(extensions=("SIZE",), size_limit=1000) as server, client(server) as link:
        link.ehlo()
        assert link.docmd(command)[0] == code


def test_an_address_beyond_ascii_needs_smtputf8(smtp: ScriptedServer) -> None:
    with client(smtp) as link:
        link.ehlo()
        link.command_encoding = "utf-8"
        assert link.docmd("MAIL FROM:<\u00e4@x.test>")[0] == 553
        assert link.docmd("MAIL FROM:<\u00e4@x.test> SMTPUTF8")[0] == 250


def test_a_server_comes_back_on_its_port_with_its_mails() -> None:
    server = ScriptedServer()
    for _outage in range(2):
        with server:
            send(server)
        with pytest.raises(ConnectionRefusedError):
            send(server)
    assert len(server.messages) == 2


# --- AUTH and TLS -------------------------------------------------------------------------------
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5"])
def test_a_user_logs_in_by_each_mechanism(mechanism: str) -> None:
    users = {"ann": "password"}
    with ScriptedServer(auth=users, mechanisms=(mechanism,)) as server, client(server) as link:
        link.login("ann", "password")
        link.sendmail("a@x.test", ["b@x.test"], MAIL)
        assert server.messages[0].user == "ann"
        with client(server) as other, pytest.raises(smtplib.SMTPAuthenticationError) as refused:
            other.login("ann", "wrong")
        assert refused.value.smtp_code == 535


def test_without_a_login_no_mail_is_taken() -> None:
    with ScriptedServer(auth=PEOPLE) as server, pytest.raises(smtplib.SMTPSenderRefused) as refused:
        send(server)
    assert refused.value.smtp_code == 530


def test_starttls_is_verified_and_login_is_offered_behind_it_only(certificates: Certificates) -> None:
    server = ScriptedServer(tls="starttls", certificate=certificates.server, auth={"ann": "secret"})
    with server, client(server) as link:
        link.ehlo()
        assert not link.has_extn("auth")
        link.starttls(context=certificates.client_context())
        link.login("ann", "secret")
        link.sendmail("a@x.test", ["b@x.test"], MAIL)
        assert not link.has_extn("starttls")
    assert (server.messages[0].tls, server.messages[0].user) == (True, "ann")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_implicit_tls_is_verified(host: str, certificates: Certificates) -> None:
    with (
        ScriptedServer(tls="implicit", certificate=certificates.server) as server,
        smtplib.SMTP_SSL(host, server.port, context=certificates.client_context(), timeout=5) as link,
    ):
        link.sendmail("a@x.test", ["b@x.test"], MAIL)
        assert server.messages[0].tls


@pytest.mark.parametrize("kind", ["self_signed", "wrong_host", "expired"])
def test_each_bad_certificate_is_bad(kind: str, certificates: Certificates) -> None:
    context = certificates.client_context()
    with ScriptedServer(tls="starttls", certificate=getattr(certificates, kind)) as server:
        with client(server) as link, pytest.raises(ssl.SSLCertVerificationError):
            link.starttls(context=context)
        with client(server) as link:  # unverified it works: the certificate is all that is wrong
            assert link.starttls(context=ssl._create_unverified_context())[0] == 220


def test_what_was_sent_in_the_clear_does_not_count_under_tls(certificates: Certificates) -> None:
    with ScriptedServer(tls="starttls", certificate=certificates.server) as server, client(server) as link:
        link.ehlo()
        link.send(b"STARTTLS\r\nMAIL FROM:<evil@x.test>\r\n")
        assert link.getreply()[0] == 220
        link.sock = certificates.client_context().wrap_socket(link.sock, server_hostname="localhost")
        link.file = None
        assert link.docmd("RCPT TO:<a@x.test>")[0] == 503


# --- the script of faults -----------------------------------------------------------------------
CONVERSATION = ["banner", "ehlo", "auth", "mail", "rcpt", "data", "dot", "rset", "quit"]


def talk(server: ScriptedServer, until: str) -> tuple[int, bytes]:
    """The answer to stage `until`, all stages before it done."""
    with client(server) as link:
        steps: dict[str, Callable[[], tuple[int, bytes]]] = {
            "ehlo": link.ehlo,
            "auth": lambda: link.login("ann", "secret"),
            "mail": lambda: link.docmd("MAIL FROM:<a@x.test>"),
            "rcpt": lambda: link.docmd("RCPT TO:<b@x.test>"),
            "data": lambda: link.docmd("DATA"),
            "dot": lambda: (link.send("text\r\n.\r\n"), link.getreply())[1],
            "rset": lambda: link.docmd("RSET"),
            "quit": lambda: link.docmd("QUIT"),
        }
        for stage in CONVERSATION[1 : CONVERSATION.index(until) + 1]:
            answer = steps[stage]()
    return answer


@pytest.fixture
def guarded() -> Iterator[ScriptedServer]:
    with ScriptedServer(auth={"ann": "secret"}, mechanisms=("PLAIN",)) as server:
        yield server


@pytest.mark.parametrize("stage", CONVERSATION[3:])
def test_any_stage_answers_what_the_script_says(stage: str, guarded: ScriptedServer) -> None:
    guarded.script[stage] = Reply(451, "4.7.1 not now\n4.7.1 later")
    assert talk(guarded, stage) == (451, b"4.7.1 not now\n4.7.1 later")
    guarded.script.clear()
    assert talk(guarded, stage)[0] < 400


@pytest.mark.parametrize("fault", [Close(), Reset()])
@pytest.mark.parametrize("stage", CONVERSATION[1:])
def test_any_stage_ends_the_connection(stage: str, fault: Fault, guarded: ScriptedServer) -> None:
    guarded.script[stage] = fault
    with pytest.raises(smtplib.SMTPServerDisconnected):
        talk(guarded, stage)
    assert len(guarded.messages) == (stage in ("rset", "quit"))  # at the dot it was never answered


@pytest.mark.parametrize("stage", CONVERSATION[1:])
def test_any_stage_hangs_until_it_is_released(stage: str, guarded: ScriptedServer) -> None:
    guarded.script[stage] = Hang()
    answers: list[int] = []
    talker = threading.Thread(target=lambda: answers.append(talk(guarded, stage)[0]))
    talker.start()
    guarded.wait_for_stage(stage)
    assert answers == []
    guarded.script.clear()
    guarded.release()
    talker.join(5)
    assert answers and answers[0] < 400


def test_the_banner_can_fail() -> None:
    with ScriptedServer(script={"banner": Reply(554, "5.3.2 go away")}) as server:
        with pytest.raises(smtplib.SMTPConnectError) as refused:
            send(server)
        assert (refused.value.smtp_code, refused.value.smtp_error) == (554, b"5.3.2 go away")
        server.script["banner"] = Hang()
        with pytest.raises(smtplib.SMTPServerDisconnected, match="timed out"), client(server, timeout=0.05):
            pass


def test_ehlo_and_auth_can_be_refused(guarded: ScriptedServer) -> None:
    guarded.script["ehlo"] = Reply(502, "5.5.1 what is EHLO")
    with client(guarded) as link:
        assert link.ehlo()[0] == link.helo()[0] == 502
    guarded.script.clear()
    guarded.script["auth"] = Reply(454, "4.7.0 temporary failure")
    with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
        talk(guarded, "auth")
    assert refused.value.smtp_code == 454


@pytest.mark.parametrize("fault", [Close(), Reset(), Raw(b"not a handshake at all\r\n")])
def test_the_handshake_can_fail(fault: Fault, certificates: Certificates) -> None:
    with ScriptedServer(tls="starttls", certificate=certificates.server) as server:
        server.script["tls"] = fault
        with client(server) as link, pytest.raises(OSError):
            link.starttls(context=certificates.client_context())
        server.script.clear()
        server.script["starttls"] = Reply(454, "4.7.0 no TLS today")
        with client(server) as link, pytest.raises(smtplib.SMTPResponseException, match="no TLS today"):
            link.starttls(context=certificates.client_context())


def test_one_recipient_is_refused_and_the_others_are_not(smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = {"bad@x.test": Reply(550, "5.1.1 no such user")}
    refused = send(smtp, "a@x.test", "bad@x.test", "b@x.test")
    assert refused == {"bad@x.test": (550, b"5.1.1 no such user")}
    assert smtp.messages[0].rcpt_tos == ("a@x.test", "b@x.test")


def test_the_second_time_only(smtp: ScriptedServer) -> None:
    smtp.script["dot"] = nth(Reply(452, "4.3.1 full"), 2)
    send(smtp)
    with pytest.raises(smtplib.SMTPDataError):
        send(smtp)
    send(smtp)
    assert len(smtp.messages) == 2


def test_a_function_decides(smtp: ScriptedServer) -> None:
    smtp.script["mail"] = lambda session, line: Reply(421, "no") if session.number == 1 else None
    with pytest.raises(smtplib.SMTPSenderRefused):
        send(smtp)
    assert send(smtp) == {}


def test_421_then_close(smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = Reply(421, "4.3.2 closing", then=Close())
    with client(smtp) as link:
        link.ehlo()
        link.mail("a@x.test")
        assert link.docmd("RCPT TO:<b@x.test>") == (421, b"4.3.2 closing")
        with pytest.raises(smtplib.SMTPServerDisconnected):
            link.docmd("RSET")


def test_a_mail_that_was_begun_is_forgotten_only_where_rset_is_granted(smtp: ScriptedServer) -> None:
    smtp.script["rset"] = nth(Reply(451, "4.3.0 not now"), 1)
    with client(smtp) as link:
        link.ehlo()
        assert link.docmd("MAIL FROM:<a@x.test>")[0] == 250
        assert link.docmd("RSET")[0] == 451
        assert link.docmd("MAIL FROM:<b@x.test>")[0] == 503
        assert link.docmd("RSET")[0] == 250
        assert link.docmd("MAIL FROM:<b@x.test>")[0] == 250


def test_a_late_answer_is_the_usual_one(smtp: ScriptedServer) -> None:
    smtp.script["dot"] = Late(0.05)
    begun = time.monotonic()
    assert send(smtp) == {}
    assert time.monotonic() - begun >= 0.05 and len(smtp.messages) == 1


def test_half_an_answer_may_be_the_last_word(smtp: ScriptedServer) -> None:
    smtp.script["rcpt"] = Raw(b"25", then=Close())
    with socket.create_connection((smtp.host, smtp.port), timeout=5) as raw:
        raw.sendall(b"HELO x\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n")
        assert raw.makefile("rb").readlines()[-1] == b"25"


def test_a_login_that_the_script_says_yes_to_counts(guarded: ScriptedServer) -> None:
    guarded.script["auth"] = Reply(235, "whoever you are")
    assert talk(guarded, "dot")[0] == 250
    assert guarded.messages[0].user == "ann"


def test_a_mail_may_be_taken_without_an_answer(smtp: ScriptedServer) -> None:
    smtp.script["dot"] = Close(taken=True)
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(smtp)
    assert smtp.wait_for(1)


def test_a_mail_taken_before_a_hang_is_there_while_it_hangs(smtp: ScriptedServer) -> None:
    smtp.script["dot"] = Hang(taken=True)
    with client(smtp, timeout=0.2) as link, pytest.raises(smtplib.SMTPServerDisconnected):
        link.sendmail("a@x.test", ["b@x.test"], MAIL)
    assert len(smtp.messages) == 1


@pytest.mark.parametrize("fault", [Close(), Reset()])
def test_the_connection_breaks_amid_the_text(fault: Fault, smtp: ScriptedServer) -> None:
    smtp.script["text"] = fault
    with client(smtp) as link, pytest.raises((smtplib.SMTPServerDisconnected, OSError)):
        link.sendmail("a@x.test", ["b@x.test"], "x" * 20_000_000)
    assert smtp.messages == []
    assert smtp.reached["dot"] == 0


def test_a_close_is_orderly_even_with_bytes_unread(smtp: ScriptedServer) -> None:
    unread = threading.Event()
    smtp.script["text"] = lambda _session, _line: Close() if unread.wait(5) else None
    with socket.create_connection((smtp.host, smtp.port), timeout=5) as raw:
        raw.sendall(b"HELO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@x>\r\nDATA\r\n")
        replies = raw.makefile("rb")
        assert [replies.readline()[:3] for _reply in range(5)][-1] == b"354"
        raw.sendall(b"text that nobody reads")
        unread.set()
        assert replies.readline() == b""


def test_a_reset_is_a_reset_even_with_nothing_unread(smtp: ScriptedServer) -> None:
    smtp.script["quit"] = Reset()
    with socket.create_connection((smtp.host, smtp.port), timeout=5) as raw:
        replies = raw.makefile("rb")
        assert replies.readline().startswith(b"220")
        raw.sendall(b"QUIT\r\n")
        with pytest.raises(ConnectionResetError):
            replies.readline()


def test_a_mail_may_be_taken_and_denied(smtp: ScriptedServer) -> None:
    smtp.script["dot"] = Reply(451, "4.3.0 so sorry", taken=True)
    with pytest.raises(smtplib.SMTPDataError):
        send(smtp)
    assert len(smtp.messages) == 1


def test_answers_may_be_twofold_malformed_and_endless(smtp: ScriptedServer) -> None:
    smtp.script["mail"] = Reply(250, "2.1.0 ok", times=2)
    with client(smtp) as link:
        link.ehlo()
        assert link.docmd("MAIL FROM:<a@x.test>") == link.getreply() == (250, b"2.1.0 ok")
        smtp.script["mail"] = Raw(b"25x \xff nonsense\r\n")
        assert link.docmd("MAIL FROM:<a@x.test>") == (-1, b"\xff nonsense")
        smtp.script["mail"] = Reply(250, b"\xe4" * 9000)
        with pytest.raises(smtplib.SMTPResponseException, match="too long"):
            link.docmd("MAIL FROM:<a@x.test>")


def test_a_stage_that_does_not_exist_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        ScriptedServer(script={"recipient": Close()})


def test_waiting_in_vain_tells_what_was_seen(smtp: ScriptedServer) -> None:
    send(smtp)
    with pytest.raises(AssertionError, match="1 messages, 1 connections"):
        smtp.wait_for(2, timeout=0.01)


def test_stopping_ends_idle_and_hanging_clients() -> None:
    before = threading.active_count()
    server = ScriptedServer(script={"mail": Hang()})
    with server, client(server) as idle:
        hanging = smtplib.SMTP(server.host, server.port, timeout=5)
        hanging.ehlo()
        hanging.putcmd("MAIL FROM:<a@x.test>")
        server.wait_for_stage("mail")
        server.stop()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            hanging.getreply()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            idle.noop()
    assert threading.active_count() == before


def test_a_refused_port_refuses_and_a_free_port_is_free() -> None:
    with refused_port() as port, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    socket.create_server(("127.0.0.1", free_port())).close()


# --- services -----------------------------------------------------------------------------------
def test_every_kind_of_database_starts_empty_and_works(empty_uri: str, tmp_path: Path) -> None:
    db = DAL(empty_uri, migrate_enabled=True, folder=str(tmp_path))
    try:
        db.define_table("thing", Field("name"), migrate=True)
        db.thing.insert(name="\u00e4\u20ac")
        db.commit()
        assert [row.name for row in db(db.thing).select()] == ["\u00e4\u20ac"]
    finally:
        db.close()


def test_a_database_goes_away_although_a_connection_is_open(tmp_path: Path) -> None:
    for kind in ("postgres", "mariadb"):
        with services.fresh_database(kind, tmp_path) as uri:
            db = DAL(uri, migrate=False)
            db.executesql("CREATE TABLE thing (id INT)")
            db.commit()
            db.executesql("SELECT * FROM thing")
        with pytest.raises(Exception, match=r"does not exist|Unknown database"):
            DAL(uri, attempts=1).executesql("SELECT 1")


def test_an_absent_service_skips_or_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(services._MISSING, "browser", lambda: "not here")
    monkeypatch.setattr(services, "REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="browser: not here"):
        services.needs("browser")
    monkeypatch.setattr(services, "REQUIRED", True)
    with pytest.raises(pytest.fail.Exception, match="browser is required: not here"):
        services.needs("browser")


# --- the scaffold -------------------------------------------------------------------------------
USERS = "SELECT email, action_token FROM auth_user"


@pytest.mark.parametrize("way", ["register", "register_by_api"])
def test_without_a_mailer_a_visitor_registers(tmp_path: Path, way: str) -> None:
    site = make_site(tmp_path, mailer="stock")
    with site.serve() as served:
        answer = getattr(served.browser(), way)("ann@x.test")
        assert answer.status_code == 200, answer.text
        assert "Mock send to ann@x.test" in served.log
    (user,) = site.rows(USERS)
    assert user["email"] == "ann@x.test"
    assert user["action_token"].startswith("pending-registration:")


@pytest.mark.parametrize("way", ["register", "register_by_api"])
def test_the_stock_mailer_breaks_every_registration(tmp_path: Path, smtp: ScriptedServer, way: str) -> None:
    server = {"SMTP_SERVER": f"{smtp.host}:{smtp.port}", "SMTP_LOGIN": None}
    site = make_site(tmp_path, mailer="stock", settings=server)
    with site.serve() as served:
        assert getattr(served.browser(), way)("ann@x.test").status_code == 500
        assert "add_charset" in served.log
    assert site.rows(USERS) == []
    assert smtp.messages == []


def test_a_visitor_verifies_and_logs_in(tmp_path: Path) -> None:
    site = make_site(tmp_path, mailer="stock")
    with site.serve() as served:
        visitor = served.browser()
        visitor.register("ann@x.test")
        visitor.login("ann@x.test")
        assert "Hello Ann" not in visitor.get("index").text
        token = site.rows(USERS)[0]["action_token"].partition(":")[2]
        visitor.get("auth/verify_email", params={"token": token})
        assert "Hello Ann" in visitor.login("ann@x.test", PASSWORD).text
        assert "Hello Ann" not in served.browser().get("index").text
    assert site.rows(USERS)[0]["action_token"] in (None, "")


def test_a_killed_site_starts_again_where_it_was(tmp_path: Path) -> None:
    site = make_site(tmp_path, mailer="stock", extra_common="print('extra', settings.SMTP_SENDER)")
    with site.serve() as served:
        served.browser().register("ann@x.test")
        served.kill()
        with pytest.raises(OSError):
            served.browser().get("index")
        served.start()
        assert served.browser().get("index").status_code == 200
        assert served.log.count("extra you@example.com") == 2
    assert len(site.rows(USERS)) == 1


def test_a_site_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    site = make_site(tmp_path, mailer="stock", extra_common="raise SystemExit('no way')")
    with pytest.raises(AssertionError, match="no way"), site.serve():
        pass


def test_the_dal_of_a_site_sees_what_the_site_wrote(tmp_path: Path) -> None:
    site = make_site(tmp_path, mailer="stock")
    with site.serve() as served:
        served.browser().register("ann@x.test")
        db = site.dal()
        assert db.executesql("SELECT email FROM auth_user") == [("ann@x.test",)]
        db.close()


def test_the_mailer_is_all_that_the_edit_changes(tmp_path: Path) -> None:
    shipped = (make_site(tmp_path, mailer="stock").folder / "common.py").read_text()
    edited = queue_mail(shipped).splitlines()
    gone = [line for line in shipped.splitlines() if line not in edited]
    new = [line for line in edited if line not in shipped.splitlines()]
    assert gone == [
        "from py4web.utils.mailer import Mailer",
        "if settings.SMTP_SERVER:",
        "    auth.sender = Mailer(",
    ]
    assert new == ["from mailqueue import QueuedMailer", "mail = auth.sender = QueuedMailer(", "        db,"]
    compile(queue_mail(shipped), "common.py", "exec")
    with pytest.raises(AssertionError, match="no longer"):
        queue_mail(queue_mail(shipped))

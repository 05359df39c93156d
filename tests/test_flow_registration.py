"""A visitor registers on the scaffold app that py4web ships, whatever the state of its mail server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.certificates import Certificates
from support.scaffold import ServedSite, Site, make_site
from support.smtp_faults import Hang
from support.smtp_server import ScriptedServer, refused_port

SENDER = "Site <noreply@site.test>"
GOOD_LOGIN = "site:secret-of-the-site"
SCHEDULED = "mail.settings.timeout = 1\nmail.enable_scheduler(scheduler)"


@dataclass
class Case:
    """A way in which mail is configured, and how an administrator puts it right."""

    settings: dict[str, Any]
    cause: str | None  # what the problem log names
    repair: dict[str, Any] = field(default_factory=dict)
    mend: Callable[[], None] = lambda: None


def _login_server(stack: ExitStack, certificates: Certificates, name: str = "server") -> ScriptedServer:
    return stack.enter_context(
        ScriptedServer(
            tls="starttls",
            certificate=getattr(certificates, name),
            auth=dict([GOOD_LOGIN.split(":")]),
        )
    )


def _settings(port: int, **other: Any) -> dict[str, Any]:
    good = {
        "SMTP_SERVER": f"127.0.0.1:{port}",
        "SMTP_SENDER": SENDER,
        "SMTP_LOGIN": GOOD_LOGIN,
        "SMTP_TLS": True,
    }
    return {**good, **other}


def _no_server(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    return Case({**_settings(good.port), "SMTP_SERVER": None}, "no-server", _settings(good.port))


def _example_sender(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    example = _settings(good.port, SMTP_SENDER="you@example.com")
    return Case(example, "example-sender", _settings(good.port))


def _connection_refused(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    port = stack.enter_context(refused_port())
    return Case(_settings(port), "connect-refused", _settings(good.port))


def _wrong_password(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    return Case(_settings(good.port, SMTP_LOGIN="site:wrong"), "auth-rejected", _settings(good.port))


def _unverifiable_certificate(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    bad = _login_server(stack, certificates, "self_signed")
    return Case(_settings(bad.port), "certificate", _settings(good.port))


def _hanging_server(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    hanging = _login_server(stack, certificates)
    hanging.script["banner"] = Hang()
    return Case(_settings(hanging.port), "timed-out", _settings(good.port))


def _working_server(stack: ExitStack, good: ScriptedServer, certificates: Certificates) -> Case:
    return Case(_settings(good.port), None)


CASES = [
    _no_server,
    _example_sender,
    _connection_refused,
    _wrong_password,
    _unverifiable_certificate,
    _hanging_server,
    _working_server,
]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def good(stack: ExitStack, certificates: Certificates) -> ScriptedServer:
    return _login_server(stack, certificates)


def eventually(check: Callable[[], Any], what: str, log: Callable[[], str], patience: float = 60) -> Any:
    """Wait for another process: the site's scheduler works on its own time."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what}\n{log()[-3000:]}")


def open_problems(site: Site) -> list[dict[str, Any]]:
    return site.rows("SELECT * FROM mailqueue_problem WHERE status = 'open'")


def link_in(message: Any) -> str:
    found = re.search(r"https?://\S+verify_email\S+", message.parsed().get_content())
    assert found, message.data
    return found[0]


@pytest.mark.parametrize("make_case", CASES, ids=lambda case: case.__name__.strip("_"))
def test_registration_succeeds_and_the_mail_arrives_once_it_can(
    make_case: Callable[..., Case],
    tmp_path: Path,
    stack: ExitStack,
    good: ScriptedServer,
    certificates: Certificates,
) -> None:
    case = make_case(stack, good, certificates)
    site = make_site(tmp_path, settings={**case.settings, "USE_SCHEDULER": True}, extra_common=SCHEDULED)
    served = site.serve(SSL_CERT_FILE=str(certificates.ca_file))
    with served:
        _register_both_ways(served)
        users = site.rows("SELECT email, action_token FROM auth_user ORDER BY email")
        assert [user["email"] for user in users] == ["ann@visitor.test", "bob@visitor.test"]
        assert all(user["action_token"].startswith("pending-registration") for user in users)
        if case.cause:
            _the_cause_is_named_once(site, served, case.cause)
            assert not good.messages
            assert not site.rows("SELECT id FROM mailqueue_attempt")
    if case.cause:
        site.configure(**case.repair)
    with served:
        assert good.wait_for(2, timeout=60), served.log
        _the_links_verify(site, served, good)
        eventually(lambda: not open_problems(site), "the problem is resolved", lambda: served.log)
        sent = site.rows("SELECT status, attempts FROM mailqueue_message")
        assert sent == [{"status": "sent", "attempts": 1}] * 2


def _register_both_ways(served: ServedSite) -> None:
    page = served.browser().register("ann@visitor.test")
    assert [step.status_code for step in page.history] == [303]
    assert (page.status_code, page.url) == (200, f"{served.url}/index")
    answer = served.browser().register_by_api("bob@visitor.test")
    assert answer.status_code == 200
    assert answer.json()["status"] == "success"


def _the_cause_is_named_once(site: Site, served: ServedSite, cause: str) -> None:
    eventually(lambda: open_problems(site), f"the problem {cause}", lambda: served.log)
    problem = open_problems(site)
    assert [entry["cause"].split("@")[0] for entry in problem] == [cause]
    assert "secret" not in str(problem)
    eventually(lambda: problem[0]["summary"] in served.log, "the cause in the log", lambda: served.log)


def _the_links_verify(site: Site, served: ServedSite, good: ScriptedServer) -> None:
    for message in good.messages:
        page = served.browser().get(link_in(message))
        assert page.status_code == 200
    eventually(
        lambda: not site.rows("SELECT 1 FROM auth_user WHERE action_token LIKE 'pending%'"),
        "both accounts are verified",
        lambda: served.log,
    )
    assert {message.mail_from for message in good.messages} == {"noreply@site.test"}
    assert all(message.tls and message.user == "site" for message in good.messages)


@pytest.mark.parametrize("make_case", CASES, ids=lambda case: case.__name__.strip("_"))
def test_stock_mailer_fails_every_registration(
    make_case: Callable[..., Case],
    tmp_path: Path,
    stack: ExitStack,
    good: ScriptedServer,
    certificates: Certificates,
) -> None:
    """Why this plugin exists. When upstream mends it, this fails, and the README is to be corrected."""
    case = make_case(stack, good, certificates)
    site = make_site(tmp_path, mailer="stock", settings=case.settings)
    common = site.folder / "common.py"
    text = common.read_text(encoding="utf-8")
    common.write_text(text.replace("if settings.SMTP_SERVER:", "if True:"), encoding="utf-8")
    with site.serve(SSL_CERT_FILE=str(certificates.ca_file)) as served:
        assert served.browser().register("ann@visitor.test").status_code == 500
        assert served.browser().register_by_api("bob@visitor.test").status_code == 500
    assert site.rows("SELECT * FROM auth_user") == []
    assert not good.messages

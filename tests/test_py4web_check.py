"""`mailqueue check` says what is wrong with an app's mail, and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailqueue.cli import main
from support.dns_server import NameServer
from support.signing_keys import dkim_ed25519, make_person
from support.smtp_server import Reply, ScriptedServer, free_port
from support.worker_process import Worker

COMMAND = [sys.executable, "-c", "from mailqueue.cli import main; main()", "check"]
MAILER = 'mail = QueuedMailer(db, "127.0.0.1:{port}", {sender!r}, tls=False)'
WITH_AUTH = """
from py4web import Session
from py4web.utils.auth import Auth
auth = Auth(Session(secret="a-long-secret-for-this-test-alone-7319"), db)
"""


@pytest.fixture
def smtp() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def examined(site: Worker, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    with NameServer() as names:
        return subprocess.run(
            [*COMMAND, str(site.apps), "site", "--nameserver", names.address, *options],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "PY4WEB_DOMAINS": "", **variables},
        )


def test_where_all_is_well_it_says_so(tmp_path: Path, smtp: ScriptedServer) -> None:
    answer = examined(Worker(tmp_path, smtp.port))
    assert answer.returncode == 0, answer
    assert "PROBLEM" not in answer.stdout
    assert "ok      The mail server can be reached" in answer.stdout
    assert "ok      No mail waits for a worker." in answer.stdout
    assert smtp.messages == []


def test_monitoring_gets_json_or_only_what_is_wrong(tmp_path: Path, smtp: ScriptedServer) -> None:
    site = Worker(tmp_path, smtp.port)
    told = json.loads(examined(site, "--json").stdout)
    assert told["status"] == "ok" and {"level", "said", "remedy"} == set(told["findings"][0])
    quiet = examined(site, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    smtp.script["banner"] = Reply(554, "5.7.1 go away")
    broken = examined(site, "--quiet")
    assert broken.returncode == 1
    assert broken.stdout.startswith("PROBLEM The mail server turns this machine away")
    assert "ok " not in broken.stdout


def test_the_command_is_known_by_its_older_name_too() -> None:
    assert main.commands["doctor"] is main.commands["check"]


@pytest.mark.parametrize(
    ("sender", "said", "remedy"),
    [
        ("site@site.test", "The mail server refuses the connection.", "Check host and port"),
        ("you@example.com", "The sender address is still the example", "SMTP_SENDER"),
    ],
)
def test_what_is_wrong_with_the_settings_is_named_with_what_to_do(
    tmp_path: Path, sender: str, said: str, remedy: str
) -> None:
    mailer = f'mail = QueuedMailer(db, "127.0.0.1:{{port}}", "{sender}", tls=False)'
    answer = examined(Worker(tmp_path, free_port(), mailer))
    assert answer.returncode == 1
    assert f"PROBLEM {said}" in answer.stdout
    assert remedy in answer.stdout
    assert answer.stdout.count("PROBLEM") == 1
    assert "Traceback" not in answer.stderr


KEYS = """
from mailqueue import dkim_key
mail.settings.dkim = [
    dkim_key(domain="site.test", selector="good", key={good!r}),
    dkim_key(domain="site.test", selector="gone", key="/nowhere/dkim.pem"),
]
mail.settings.cipher_type, mail.settings.encrypt = "x509", False
mail.settings.x509_sign_keyfile, mail.settings.x509_sign_certfile = {key!r}, {certificate!r}
mail.settings.sign_passphrase = {passphrase!r}
"""


def test_keys_that_cannot_be_used_are_told_and_nothing_of_what_is_in_them(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    own, signer = dkim_ed25519(), make_person(tmp_path, "noreply", password=b"the-right-one")
    keys = {"good": own.pem, "key": str(signer.key_file), "certificate": str(signer.cert_file)}
    told = {}
    for passphrase in ("the-right-one", "another-one"):
        mailer = MAILER.replace("{sender!r}", repr("site@site.test")) + KEYS.format(
            **keys, passphrase=passphrase
        )
        folder = tmp_path / passphrase
        folder.mkdir()
        told[passphrase] = examined(Worker(folder, smtp.port, mailer))
    answer = told["the-right-one"]
    assert answer.returncode == 1
    assert "ok      DKIM key good._domainkey.site.test can be used." in answer.stdout
    assert "PROBLEM DKIM key gone._domainkey.site.test: A key for DKIM cannot be used" in answer.stdout
    assert "/nowhere/dkim.pem: No such file" in answer.stdout and "dkim= of the mailer" in answer.stdout
    assert "ok      Keys for S/MIME can be used." in answer.stdout
    assert "PROBLEM Keys for S/MIME: " in told["another-one"].stdout
    assert "sign_passphrase is wrong" in told["another-one"].stdout
    said = "".join(one.stdout + one.stderr for one in told.values())
    assert "PRIVATE" not in said and "-one" not in said.replace(str(tmp_path), "")


def test_links_that_would_lead_nowhere_are_told_until_the_address_is_configured(
    tmp_path: Path, smtp: ScriptedServer
) -> None:
    site = Worker(tmp_path, smtp.port, f"{WITH_AUTH}{MAILER}\nmail.enable_auth(auth)")
    answer = examined(site)
    assert answer.returncode == 1
    assert "localhost only" in answer.stdout and "base_url" in answer.stdout
    assert examined(site, PY4WEB_DOMAINS="site.test").returncode == 0


def test_mail_that_nobody_sends_and_open_problems_are_told(tmp_path: Path, smtp: ScriptedServer) -> None:
    site = Worker(tmp_path, smtp.port)
    site.mail.send("ann@x.test", send_at=time.time() - 3600)
    site.mail.db.executesql("UPDATE mailqueue_message SET due = due - 3600")
    site.mail.db.commit()
    answer = examined(site)
    assert answer.returncode == 1
    assert "PROBLEM In the problem log: " in answer.stdout
    assert "No mail waits for a worker." not in answer.stdout


def test_an_app_that_is_not_there_is_a_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "apps").mkdir()
    answer = subprocess.run(
        [*COMMAND, str(tmp_path / "apps"), "nosuch"], capture_output=True, text=True, timeout=60, check=False
    )
    assert answer.returncode == 2
    assert answer.stderr == f"Error: There is no app 'nosuch' in the folder {tmp_path / 'apps'}.\n"


@pytest.mark.parametrize(
    ("mailers", "options", "said"),
    [
        (
            "import sys; sys.exit('no smtp://me:s3cret@h.test')",
            (),
            "it calls sys.exit('no smtp://***@h.test')",
        ),
        ("import sys; sys.exit(0)", (), "cannot be loaded: it calls sys.exit('0')"),
        (MAILER, ("--nameserver", "bogus"), "'bogus' is no name server"),
        (MAILER, ("--selector", "../x"), "'../x' is no selector"),
    ],
)
def test_what_could_not_be_looked_at_is_said_to_people_and_to_monitoring(
    tmp_path: Path, mailers: str, options: tuple[str, ...], said: str
) -> None:
    answer = examined(Worker(tmp_path, free_port(), mailers), "--json", *options)
    assert answer.returncode == 2
    assert said in answer.stderr and said in json.loads(answer.stdout)["error"]
    assert "Traceback" not in answer.stderr and "s3cret" not in answer.stderr

"""Every transport keeps to the contract of transports/base.py."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from mailqueue.transports.capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from mailqueue.transports.lmtp import LmtpTransport
from mailqueue.transports.smtp import IMPLICIT, PLAIN, STARTTLS
from mailqueue.transports.structured import structured
from mailqueue.transports.urls import transport_of_url
from support import api_ses
from support.api_providers import FAKES, SECRET, api_transport
from support.api_server import ApiServer
from support.smtp_client import smtp_to
from support.smtp_server import ScriptedServer
from support.transport_contract import TransportContract, Way

PASSWORD = "top-secret"


class TestSmtp(TransportContract):
    @pytest.fixture(params=[PLAIN, STARTTLS, IMPLICIT])
    def way(self, request, certificates):
        tls = {PLAIN: "none"}.get(request.param, request.param)
        with ScriptedServer(tls=tls, certificate=certificates.server, auth={"me": PASSWORD}) as server:

            def make(password: str = PASSWORD):
                ca_file = str(certificates.ca_file)
                return smtp_to(server, security=request.param, login=("me", password), ca_file=ca_file)

            yield Way(
                make,
                lambda: [(one.mail_from, one.rcpt_tos, one.data) for one in server.messages],
                secrets=(PASSWORD,),
                broken=lambda: make(f"no longer {PASSWORD}"),
            )


class TestLmtp(TransportContract):
    @pytest.fixture
    def way(self, tmp_path):
        path = str(tmp_path / "lmtp")
        with ScriptedServer(path=path) as server:
            yield Way(
                lambda: LmtpTransport(path, 0, security=PLAIN),
                lambda: [(one.mail_from, one.rcpt_tos, one.data) for one in server.messages],
                broken=lambda: LmtpTransport(f"{path}-is-not-here", 0, security=PLAIN),
            )


class TestByUrl(TransportContract):
    @pytest.fixture
    def way(self, certificates):
        with ScriptedServer(tls="starttls", certificate=certificates.server, auth={"me": PASSWORD}) as server:
            settings = SimpleNamespace(timeout=None, hostname=None, ca_file=str(certificates.ca_file))

            def make(password: str):
                return transport_of_url(f"smtp://me:{password}@127.0.0.1:{server.port}", settings, [])

            yield Way(
                lambda: make(PASSWORD),
                lambda: [(one.mail_from, one.rcpt_tos, one.data) for one in server.messages],
                secrets=(PASSWORD,),
                broken=lambda: make(f"no-longer-{PASSWORD}"),
            )


class TestSes(TransportContract):
    @pytest.fixture
    def way(self, monkeypatch, tmp_path):
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        with ApiServer(api_ses.accept) as server:
            yield Way(
                lambda: api_ses.ses_transport(server.url),
                lambda: [api_ses.arrived(request) for request in server.requests],
                secrets=api_ses.KEYS[1:],
                broken=lambda: api_ses.ses_transport(server.url, keys=None),
            )


class TestAnymail(TransportContract):
    @pytest.fixture(params=["mailgun", "postmark", "resend", "sendgrid"])
    def way(self, request):
        fake = FAKES[request.param]

        def arrived():
            found = map(fake.read, server.requests)
            return [(one.sender, tuple(one.everybody), str(one.text).encode()) for one in found]

        with ApiServer(fake.accept) as server:
            yield Way(
                lambda: api_transport(request.param, server.url),
                arrived,
                secrets=(SECRET,),
                alike=lambda text, mime: text.decode() == structured(mime, []).text,
            )


class TestLogging(TransportContract):
    @pytest.fixture
    def way(self):
        return Way(lambda: LoggingTransport(logging.getLogger("site")))


class TestFile(TransportContract):
    @pytest.fixture
    def way(self, tmp_path):
        return Way(
            lambda: FileTransport(str(tmp_path / "mail.log")),
            broken=lambda: FileTransport(str(tmp_path / "no-such-folder" / "mail.log")),
        )


class TestMemory(TransportContract):
    @pytest.fixture
    def way(self):
        kept: list[Captured] = []
        return Way(
            lambda: MemoryTransport(kept), lambda: [(one.sender, one.recipients, one.mime) for one in kept]
        )

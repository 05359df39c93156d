"""Every transport keeps to the contract of transports/base.py."""

from __future__ import annotations

import logging

import pytest
from mailqueue.transports.capture import Captured, FileTransport, LoggingTransport, MemoryTransport
from mailqueue.transports.smtp import IMPLICIT, PLAIN, STARTTLS
from support.smtp_client import smtp_to
from support.smtp_server import ScriptedServer
from support.transport_contract import TransportContract, Way

SECRET = "top-secret"


class TestSmtp(TransportContract):
    @pytest.fixture(params=[PLAIN, STARTTLS, IMPLICIT])
    def way(self, request, certificates):
        tls = {PLAIN: "none"}.get(request.param, request.param)
        with ScriptedServer(tls=tls, certificate=certificates.server, auth={"me": SECRET}) as server:

            def make(password: str = SECRET):
                ca_file = str(certificates.ca_file)
                return smtp_to(server, security=request.param, login=("me", password), ca_file=ca_file)

            yield Way(
                make,
                lambda: [(one.mail_from, one.rcpt_tos, one.data) for one in server.messages],
                secrets=(SECRET,),
                broken=lambda: make(f"no longer {SECRET}"),
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

"""A name server on 127.0.0.1 that answers from a table, or not at all."""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

GOOD = {
    ("site.test", "MX"): ["10 mail.site.test."],
    ("site.test", "TXT"): ['"unrelated"', '"v=spf1 include:provider." "test -all"'],
    ("_dmarc.site.test", "TXT"): ['"v=DMARC1; p=quarantine"'],
    ("s1._domainkey.site.test", "TXT"): ['"v=DKIM1; k=rsa; " "p=MIIBkey=="'],
    ("8.8.8.8.in-addr.arpa", "PTR"): ["mail.site.test."],
}


class NameServer:
    """The server, as a context manager.

    Args:
        records: name and type -> records as in a zone file; what is not there does not exist.
        broken: a name that it knows of, and has lost.

    Attributes:
        address: what to ask, as "address:port".
        asked: the questions, as name and type.
    """

    def __init__(self, records: dict[tuple[str, str], list[str]] | None = None, broken: str = ""):
        self._broken = broken
        self.records = dict(GOOD if records is None else records)
        self.asked: list[tuple[str, str]] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(data)).to_wire(), client)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        (question,) = query.question
        name, kind = (
            question.name.to_text(omit_final_dot=True).lower(),
            dns.rdatatype.to_text(question.rdtype),
        )
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        found = self.records.get((name, kind))
        if name == self._broken:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif found:
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, *found))
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

"""What the DNS says of a domain that mail is sent from: SPF, DKIM, DMARC, where answers go, reverse names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from .errors import MailQueueError
from .findings import NOTE, OK, PROBLEM, Finding

PATIENCE = 5.0  # seconds for an answer of the DNS


class Unreachable(Exception):
    """No name server answers, or the package that asks them is not installed."""


class BadNameserver(MailQueueError):
    """What is given as a name server is none."""


@dataclass(frozen=True)
class Dkim:
    """What is to be published of the key that a domain's mail is signed with.

    Args:
        selector: the key's name, so that it is at selector._domainkey.domain (RFC 6376 section 3.6.2.1).
        public_key: what "p=" must say (base64); None: any key will do.
    """

    selector: str
    public_key: str | None = None


def address_and_port(nameserver: str) -> tuple[str, int]:
    """Read "address", "address:port", "[IPv6]:port".

    Raises:
        BadNameserver: it is none of these.
    """
    host, port = nameserver, "53"
    if re.search(r"\]:|^[^:]*:[^:]*$", nameserver):  # else any colon is one of an IPv6 address
        host, _, port = nameserver.rpartition(":")
    try:
        address = str(ip_address(re.sub(r"\[(.*)\]", r"\1", host)))
    except ValueError:
        address = ""
    if not address or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise BadNameserver(f"{nameserver!r} is no name server: expected an IP address, or address:port")
    return address, int(port)


class Records:
    """Asks the DNS.

    Args:
        nameserver: the one to ask, as address_and_port() reads it, instead of the system's.

    Raises:
        BadNameserver: it is none.
        Unreachable: the package dnspython is missing, or the system names no name server.
    """

    def __init__(self, nameserver: str | None = None):
        try:
            import dns.exception
            import dns.resolver
        except ImportError as error:
            raise Unreachable("the package dnspython is not installed: pip install dnspython") from error
        self._dns: Any = dns
        try:
            self._resolver = dns.resolver.Resolver(configure=nameserver is None)
        except dns.exception.DNSException as error:
            raise Unreachable(f"no name server is known here: {error}") from error
        self._resolver.lifetime = PATIENCE
        if nameserver is not None:
            address, self._resolver.port = address_and_port(nameserver)
            self._resolver.nameservers = [address]

    def texts(self, name: str) -> list[str]:
        """The TXT records of a name, each put together; none where the name does not exist.

        Raises:
            Unreachable: no name server answers.
        """
        return [b"".join(record.strings).decode("utf-8", "replace") for record in self._ask(name, "TXT")]

    def has_any(self, name: str, *kinds: str) -> bool:
        """Whether a name has a record of one of these kinds.

        Raises:
            Unreachable: no name server answers.
        """
        return any(self._ask(name, kind) for kind in kinds)

    def reverse_names(self, address: str) -> list[str]:
        """What an IP address is called (PTR).

        Raises:
            Unreachable: no name server answers.
        """
        name = self._dns.reversename.from_address(address).to_text()
        return [record.target.to_text(omit_final_dot=True) for record in self._ask(name, "PTR")]

    def _ask(self, name: str, kind: str) -> list[Any]:
        resolver, names = self._dns.resolver, self._dns.name
        try:
            return list(self._resolver.resolve(name, kind))
        except (resolver.NXDOMAIN, resolver.NoAnswer):
            return []
        except (names.EmptyLabel, names.BadEscape, names.LabelTooLong, names.NameTooLong):
            return []  # nothing can be published at what is no name
        except (self._dns.exception.DNSException, OSError) as error:
            raise Unreachable(f"no name server answers for {name}: {error}") from error


def examine_domain(records: Records, domain: str, keys: Sequence[Dkim] = ()) -> list[Finding]:
    """What is well and what is not with a domain that mail is sent from.

    Args:
        domain: of the sender's address, which is in From: and in the envelope.
        keys: those that its mail is signed with, as far as they are known.

    Raises:
        Unreachable: no name server answers.
    """
    found = [_answers(records, domain), _spf(records.texts(domain), domain)]
    found += [_dkim_or_why_not(records, domain, key) for key in keys or (None,)]
    return [*found, *_dmarc(records, domain)]


def _answers(records: Records, domain: str) -> Finding:
    if records.has_any(domain, "MX", "A", "AAAA"):
        return Finding(OK, f"{domain} can be written to.")
    return Finding(
        PROBLEM,
        f"{domain} has neither an MX record nor an address: answers and bounces cannot arrive.",
        "Send from a domain that has a mailbox, or publish its MX record.",
    )


def _spf(texts: list[str], domain: str) -> Finding:
    """RFC 7208: one record, that does not let everybody send (section 4.5)."""
    policies = [text for text in texts if re.match(r"v=spf1( |$)", text, re.IGNORECASE)]
    if not policies:
        return Finding(
            PROBLEM,
            f"{domain} publishes no SPF record, so that many receivers refuse its mail or take it for spam.",
            f'Publish a TXT record at {domain} such as "v=spf1 include:your-provider.example -all"; your mail'
            " provider says which.",
        )
    if len(policies) > 1:
        return Finding(
            PROBLEM,
            f"{domain} publishes {len(policies)} SPF records, which counts as an error.",
            "Put them together into one.",
        )
    if re.search(r"(^| )\+?all( |$)", policies[0], re.IGNORECASE):
        return Finding(
            PROBLEM,
            f"The SPF record of {domain} lets everybody send in its name ({policies[0]}).",
            "End it with -all or ~all.",
        )
    return Finding(OK, f"{domain} publishes an SPF record ({policies[0]}). See that it names your provider.")


def _dkim_or_why_not(records: Records, domain: str, dkim: Dkim | None) -> Finding:
    """A key may lie in a zone of its own, whose fault is not to hide what else was found."""
    try:
        return _dkim(records, domain, dkim)
    except Unreachable as error:
        return Finding(NOTE, f"A DKIM key could not be looked up: {error}.")


def _dkim(records: Records, domain: str, dkim: Dkim | None) -> Finding:
    """RFC 6376 section 3.6."""
    if dkim is None:
        return Finding(
            NOTE, f"Whether the mail of {domain} is signed (DKIM) is not known here: your provider may do it."
        )
    name = f"{dkim.selector}._domainkey.{domain}"
    texts = records.texts(name)
    if not texts:
        return Finding(
            PROBLEM,
            f"No DKIM key is published at {name}.",
            "Publish it there, as a TXT record, or wait for it.",
        )
    published = _tags(texts[0]).get("p", "").replace(" ", "")
    if not published:
        return Finding(PROBLEM, f"The DKIM key at {name} is revoked.", "Sign with another key.")
    if dkim.public_key and published != "".join(dkim.public_key.split()):
        return Finding(
            PROBLEM,
            f"The DKIM key published at {name} is not the one that mail is signed with.",
            "Publish the public half of the key that is configured.",
        )
    return Finding(OK, f"A DKIM key is published at {name}.")


def _dmarc(records: Records, domain: str) -> Iterator[Finding]:
    """RFC 7489: the record of the domain itself, or of the nearest one above it."""
    place, policy = _policy_of(records, domain)
    if policy is None:
        yield Finding(
            PROBLEM,
            f"{domain} publishes no DMARC record, which the large receivers ask for.",
            f'Publish a TXT record at _dmarc.{domain}, to begin with "v=DMARC1; p=none".',
        )
        return
    yield Finding(OK, f"DMARC: {place} asks for p={policy.get('p', 'none')}.")
    strict = [tag for tag in ("aspf", "adkim") if policy.get(tag, "r").lower() == "s"]
    if strict and place != domain:
        yield Finding(
            NOTE,
            f"{place} wants strict alignment ({', '.join(strict)}): what signs for {domain}, and its"
            " envelope, must be of exactly that domain.",
        )
    else:
        yield Finding(OK, f"Sender and envelope are both of {domain}: aligned for DMARC where SPF passes.")


def _policy_of(records: Records, domain: str) -> tuple[str, dict[str, str] | None]:
    labels = domain.split(".")
    for first in range(max(len(labels) - 1, 1)):
        place = ".".join(labels[first:])
        for text in records.texts(f"_dmarc.{place}"):
            if re.match(r"v=DMARC1\s*(;|$)", text, re.IGNORECASE):
                return place, _tags(text)
    return domain, None


def examine_address(records: Records, host: str, address: str) -> Finding:
    """Whether a mail server's public address has a name, as receivers expect.

    Args:
        host: the server's name.
        address: its IP address.

    Raises:
        Unreachable: no name server answers.
    """
    names = records.reverse_names(address)
    if names:
        return Finding(OK, f"{host} [{address}] is called {names[0]} (PTR).")
    return Finding(
        NOTE,
        f"{host} [{address}] has no reverse name (PTR).",
        "If it delivers to the receivers itself, ask whoever owns the address to give it one.",
    )


def _tags(text: str) -> dict[str, str]:
    """A list of "tag=value" parted by semicolons (RFC 6376 section 3.2)."""
    pairs = (part.partition("=") for part in text.split(";"))
    return {tag.strip().lower(): value.strip() for tag, _, value in pairs if tag.strip()}

"""What is wrong with a site's mail, and what to do: its ways out, its domain, who sends, the problem log."""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from . import database, problems, queries, sender_domain, trial
from .classify import DeliveryError, SiteFault
from .errors import MailQueueError
from .findings import NOTE, OK, PROBLEM, Finding, as_json, as_text, exit_code
from .limits import domain_of
from .mailer import MailQueue
from .sender_domain import Dkim, Records, Unreachable
from .signing import dkim
from .transports.configured import check_sender

_SLOW_KEYS = "See that gpg, and the functions that give keys for DKIM, answer at once."


class BadSelector(MailQueueError):
    """What is given as the selector of a DKIM key is none."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    Args:
        nameserver: "address" or "address:port" of the one to ask, instead of the system's.
        selector: of the DKIM key that mail is signed with.

    Raises:
        BadNameserver: the name server is none.
        BadSelector: the selector is none.
    """

    nameserver: str | None = None
    selector: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be asked, before anything is looked at."""
        if self.nameserver is not None:
            sender_domain.address_and_port(self.nameserver)
        if self.selector is not None and not dkim.is_selector(self.selector):
            raise BadSelector(
                f"{self.selector!r} is no selector: expected the name of a DKIM key, such as 's1'"
            )


def report(
    findings: list[Finding], tell: Callable[[str], object], *, json: bool = False, quiet: bool = False
) -> int:
    """Tell what was found.

    Args:
        json: as one object, for monitoring.
        quiet: problems only, and nothing where there is none.

    Returns:
        findings.ALL_WELL or SOMETHING_WRONG, for the exit code.
    """
    told = as_json(findings) if json else as_text(findings, problems_only=quiet)
    if told:
        tell(told)
    return exit_code(findings)


def run(mails: Iterable[MailQueue], tell: Callable[[str], object] = print) -> int:
    """Examine mailers, and tell what is found: for a script of web2py.

    Returns:
        The exit code.
    """
    return report([finding for mail in mails for finding in examine(mail)], tell)


def run_and_exit(mails: Iterable[MailQueue]) -> NoReturn:
    """run(), and end the process with its exit code.

    At once: web2py's shell prints a traceback of any sys.exit().
    """
    status = run(mails)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def examine(mail: MailQueue, wanted: Wanted = Wanted()) -> list[Finding]:
    """What is well and what is not with the mail of one mailer. Connects to its servers; sends nothing."""
    with database.own_transaction(mail.db):
        tried = trial.try_transports(mail)
        keys = trial.try_keys(mail)
        found = [finding for one in tried for finding in _way_out(one)]
        found += [*_limits(mail, tried), *_keys(keys)]
        if mail.silence() is None:  # else that is in the problem log now
            found.append(Finding(OK, "No mail waits for a worker."))
        found += _logged(mail, {*map(_cause, tried), *map(_cause, keys)})
    return [*found, *_dns(mail, tried, wanted)]


def _way_out(tried: trial.Trial) -> Iterator[Finding]:
    where = f" [{tried.transport}]" if tried.transport else ""
    if tried.failure is not None:
        yield Finding(PROBLEM, f"{tried.summary}{where} ({tried.failure.text})", tried.remedy)
        return
    if not tried.is_proven:
        text = "The settings are complete; whether the provider takes them shows with the first message."
        yield Finding(NOTE, f"{text}{where}")
        return
    yield Finding(OK, f"The mail server can be reached and accepts the settings.{where}")
    for finding in tried.findings:
        yield Finding(finding.level, f"{finding.said}{where}", finding.remedy)


def _limits(mail: MailQueue, tried: Iterable[trial.Trial]) -> Iterator[Finding]:
    known = {one.transport for one in tried}
    for name in mail.site.limits.transports or {}:
        if name not in known:
            yield Finding(
                PROBLEM,
                f"limits has an entry for the transport {name}, which there is not.",
                f"The transports are called {', '.join(sorted(known))}.",
            )


def _keys(keys: Iterable[trial.KeyTrial]) -> Iterator[Finding]:
    for tried in keys:
        subject = tried.step.label
        if tried.failure:
            text = f"{subject}: {tried.summary} ({tried.failure.text})"
            yield Finding(PROBLEM, text, tried.remedy)
        elif tried.step.result == trial.WORKS:
            yield Finding(OK, f"{subject} can be used.")
        else:
            yield Finding(PROBLEM, f"{subject}: no answer within {trial.PATIENCE:.0f} seconds.", _SLOW_KEYS)


def _cause(tried: trial.Trial | trial.KeyTrial) -> str:
    """The name under which the problem log has what was found; "" where nothing is wrong."""
    name = tried.transport if isinstance(tried, trial.Trial) else ""
    return problems.cause_of(tried.failure, name) if tried.failure else ""


def _logged(mail: MailQueue, said: Collection[str]) -> Iterator[Finding]:
    """The open entries of the problem log, but for causes that are said already."""
    for problem in queries.problems(mail.db, open_only=True):
        if problem["cause"] not in said:
            detail = f" ({problem['detail']})" if problem["detail"] else ""
            text = f"In the problem log: {problem['summary']}{detail}"
            yield Finding(PROBLEM, text, problem["remedy"])


def _signed_with(mail: MailQueue, domain: str, wanted: Wanted) -> list[Dkim]:
    """The keys that a domain's mail is signed with; one that cannot be used is no news here."""
    found = [Dkim(wanted.selector)] if wanted.selector else []
    with suppress(DeliveryError):
        for key in dkim.checked_keys(mail.settings.dkim or ()):
            if (key.domain or domain).lower() == domain:
                found.append(Dkim(key.selector, dkim.public_key(key, domain)))
    return found


def _dns(mail: MailQueue, tried: Iterable[trial.Trial], wanted: Wanted) -> list[Finding]:
    try:
        check_sender(mail.settings.sender)
    except SiteFault:  # found out by trying the way out
        return []
    address = trial.own_address(mail)
    if address is None:
        return []
    found = []
    try:
        records = Records(wanted.nameserver)
        domain = domain_of(address)
        found += sender_domain.examine_domain(records, domain, _signed_with(mail, domain, wanted))
        for host in {one.host for one in tried}:
            found += [
                sender_domain.examine_address(records, host, public) for public in _public_addresses(host)
            ]
    except Unreachable as error:
        found.append(Finding(NOTE, f"SPF, DKIM, DMARC and reverse names could not be looked up: {error}."))
    return found


def _public_addresses(host: str) -> list[str]:
    """The addresses of a host that the world can see; none of one on this network."""
    if not host or host.startswith("/"):
        return []
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return []
    return sorted(address for address in found if ipaddress.ip_address(address.partition("%")[0]).is_global)

"""Trying the ways out, step by step, and the keys, without sending anything and without telling a secret."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from . import breaker, words
from .classify import Failure, classify_exception
from .compose import parse_address
from .delivery import close
from .errors import BadAddress
from .findings import Finding
from .mailer import MailQueue
from .masking import HIDDEN
from .remedies import advice, without_waiting
from .signing.check import key_findings
from .stoppages import OTHERS_SEND, Passage
from .told import Told
from .transports import smtp_offers
from .transports.base import Transport
from .transports.smtp import SmtpTransport

PATIENCE = 20.0  # seconds; nobody waits longer in front of a page

WORKS, FAILS, NOT_TRIED = "works", "fails", "not tried"

_GREETING = ("Greeting", frozenset({words.BANNER, words.EHLO}))
_ENCRYPTION = ("Encryption and certificate", frozenset({words.STARTTLS, words.TLS}))
_BEFORE = (("Settings", frozenset({words.CONFIG})), ("Connection", frozenset({words.CONNECT})))
_LOGIN = ("Login", frozenset({words.AUTH}))


@dataclass(frozen=True)
class Step:
    """One step: what it is, and WORKS, FAILS or NOT_TRIED."""

    label: str
    result: str


@dataclass(frozen=True)
class Trial:
    """What came of it.

    Attributes:
        transport: its name; "" where none could be made.
        steps: in their order.
        failure: None: it works.
        summary, remedy: of the failure, in plain words.
        findings: what was seen of a server that can be used.
        host: its name or address, where it has one.
    """

    transport: str
    steps: tuple[Step, ...]
    failure: Failure | None
    summary: str = ""
    remedy: str = ""
    findings: tuple[Finding, ...] = ()
    host: str = ""

    @property
    def is_proven(self) -> bool:
        """Whether every step was tried, and worked."""
        return all(step.result == WORKS for step in self.steps)


@dataclass(frozen=True)
class KeyTrial:
    """What came of signing something with a key, or of looking at what belongs to it.

    Attributes:
        step: which key, and whether it can be used.
        failure: None: it can, or was not tried.
        summary, remedy: of the failure, in plain words.
    """

    step: Step
    failure: Failure | None = None
    summary: str = ""
    remedy: str = ""


def try_keys(mail: MailQueue) -> list[KeyTrial]:
    """Sign something with each key of the settings: those for DKIM, S/MIME and OpenPGP. Sends nothing."""
    found: list[KeyTrial] = []
    arguments = (mail.settings, mail.site.clock(), found)
    thread = threading.Thread(target=_look_at_keys, args=arguments, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    rest = [KeyTrial(Step(Told("Further keys"), NOT_TRIED))] if thread.is_alive() else []
    return [*found, *rest]


def _look_at_keys(settings: Any, now: float, found: list[KeyTrial]) -> None:
    for one in key_findings(settings, now):
        if one.failure is None:
            found.append(KeyTrial(Step(one.subject, WORKS)))
        else:
            found.append(KeyTrial(Step(one.subject, FAILS), one.failure, *advice(one.failure)))


def try_transports(mail: MailQueue) -> list[Trial]:
    """Connect to each transport and log in as a worker does. A pause ends at the next look where it works.

    Commits.
    """
    mail.db.commit()  # nobody waits for a lock while a server keeps us waiting
    try:
        plan, make = mail.site.ways_out()
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return [_not_made(mail, error)]
    tried = [_try(mail, partial(make, spec)) for spec in plan.leaves]
    passage = Passage(mail, [one.transport for one in tried if one.failure])
    return [_without_waiting(one) if passage.extent([one.transport]) == OTHERS_SEND else one for one in tried]


def _without_waiting(tried: Trial) -> Trial:
    return replace(tried, remedy=without_waiting(tried.remedy))


def _try(mail: MailQueue, make: Callable[[], Transport]) -> Trial:
    try:
        transport = make()
        name = str(transport.name)
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        return _not_made(mail, error)
    logins = _logins(transport)
    steps = partial(_steps, mail.settings, name, logins) if transport.opening_proves else _steps_of_provider
    outcome = _attempt(transport, own_address(mail))
    if isinstance(outcome, Failure):
        return _failed(mail, name, outcome, steps, logins, transport.place)
    breaker.probe_now(mail.db, name, mail.site.clock())
    mail.wake()
    host = transport.host if isinstance(transport, SmtpTransport) else ""
    return Trial(name, steps(None), None, findings=tuple(outcome), host=host)


def own_address(mail: MailQueue) -> str | None:
    """The site's sender as a bare address; None where it is none that SMTP can be asked about."""
    try:
        spec = parse_address(mail.site.sender()).spec
    except BadAddress:
        return None
    return spec if spec.isascii() else None


def _not_made(mail: MailQueue, error: Exception) -> Trial:
    steps = partial(_steps, mail.settings, "", ())
    return _failed(mail, "", classify_exception(words.CONFIG, error), steps, ())


def _failed(
    mail: MailQueue,
    name: str,
    failure: Failure,
    steps: Callable[[str | None], tuple[Step, ...]],
    logins: Sequence[tuple[str, str]],
    place: str = "",
) -> Trial:
    summary, remedy = advice(failure, name, place)
    known = [*logins, *_login_of(mail.settings)]
    said = failure
    for _, password in known:
        said = _without(said, password)
    return Trial(name, steps(failure.stage), said, summary, remedy)


def _logins(transport: Transport) -> list[tuple[str, str]]:
    """User and password, where a transport has them among its settings."""
    pairs = [value for value in transport.settings() if isinstance(value, tuple) and len(value) == 2]
    return [(str(user), str(password)) for user, password in pairs]


def _login_of(settings: Any) -> list[tuple[str, str]]:
    user, _, password = str(settings.login or "").partition(":")
    return [(user, password)] if settings.login else []


def _attempt(transport: Transport, sender: str | None) -> Failure | list[Finding]:
    """What went wrong, or what was seen where it works."""
    outcomes: list[Failure | list[Finding]] = []
    thread = threading.Thread(target=_look, args=(transport, sender, outcomes), daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if outcomes:
        return outcomes[0]
    return classify_exception(transport.stage, TimeoutError(f"no answer within {PATIENCE:.0f} seconds"))


def _without(failure: Failure, password: str) -> Failure:
    """The failure without a password, which some server may repeat."""
    return replace(failure, text=failure.text.replace(password, HIDDEN)) if password else failure


def _look(transport: Transport, sender: str | None, outcomes: list[Failure | list[Finding]]) -> None:
    """Open it, look at it and close it again; what came of it is the one entry of `outcomes`."""
    outcome: Failure | list[Finding]
    try:
        transport.open()
        outcome = list(smtp_offers.examine(transport, sender)) if isinstance(transport, SmtpTransport) else []
    except BaseException as error:  # noqa: BLE001 - it is what is asked for
        outcome = classify_exception(transport.stage, error)
    outcomes.append(outcome)
    close(transport)


def _steps(
    settings: Any, name: str, logins: Sequence[tuple[str, str]], failed_at: str | None
) -> tuple[Step, ...]:
    """The steps of a transport, up to the stage that failed; None: none did.

    Args:
        name: the transport's; where none could be made, the steps are those of the settings.
    """
    scheme = name.partition("://")[0]
    steps = list(_BEFORE)
    if scheme == "smtps" or (not scheme and settings.ssl):
        steps += [_ENCRYPTION, _GREETING]
    elif scheme == "smtp+starttls" or (not scheme and settings.tls):
        steps += [_GREETING, _ENCRYPTION]
    else:
        steps.append(_GREETING)
    if logins or (not name and settings.login):
        steps.append(_LOGIN)
    found, result = [], WORKS
    for label, stages in steps:
        if failed_at in stages:
            found.append(Step(label, FAILS))
            result = NOT_TRIED
        else:
            found.append(Step(label, result))
    return tuple(found)


def _steps_of_provider(failed_at: str | None) -> tuple[Step, ...]:
    """The steps of a transport that shows with a message only whether its key is right.

    Args:
        failed_at: the stage that failed; None: none did.
    """
    results = (WORKS, NOT_TRIED, NOT_TRIED)
    return tuple(
        Step(label, FAILS if failed_at in stages else result)
        for (label, stages), result in zip((*_BEFORE, _LOGIN), results, strict=True)
    )

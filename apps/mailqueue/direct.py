"""Sending one message now, past the queue: by the first of its transports that takes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from . import breaker, words
from .classify import Failure, classify_exception
from .compose import Composed, Envelope
from .delivery import close, hand_over
from .limits import domain_of
from .site import Site
from .transports.base import Answer, Transport
from .transports.plan import HEAVIEST, Parcel, Spec
from .ways import another_may, domain_of_sender

logger = logging.getLogger("mailqueue")


def send_directly(site: Site, composed: Composed) -> list[tuple[str, Answer]]:
    """Hand a message over.

    Returns:
        One answer for each recipient, with the name of the transport that was tried last for it.

    Raises:
        Exception: the settings are such that nothing can be made of them.
    """
    plan, make = site.ways_out()
    turn, envelope = site.rng.randrange(HEAVIEST), composed.envelope
    sender = domain_of(envelope.sender) if envelope.sender else domain_of_sender(site.sender())
    groups: dict[tuple[tuple[Spec, ...], bool], list[tuple[str, str]]] = {}
    for kind, address in envelope.recipients:
        order = plan.order(Parcel(turn, None, sender, domain_of(address)))
        groups.setdefault((order, address.isascii()), []).append((kind, address))
    answers: list[tuple[str, Answer]] = []
    for (order, _), recipients in groups.items():
        part = envelope._replace(recipients=tuple(recipients))
        try:
            name, given = _by_the_first(site, make, order, part, composed.mime)
        except Exception as error:  # noqa: BLE001 - none of these transports can be made; others may go another way
            name, given = "", _refused(part, classify_exception(words.CONFIG, error))
        answers += [(name, answer) for answer in given]
    return answers


def _refused(envelope: Envelope, failure: Failure) -> list[Answer]:
    return [Answer.refused(address, failure) for _, address in envelope.recipients]


def _by_the_first(
    site: Site, make: Callable[[Spec], Transport], order: tuple[Spec, ...], envelope: Envelope, mime: bytes
) -> tuple[str, list[Answer]]:
    *others, last = _usable(site, make, order)
    for transport in others:
        answers = _over(site, transport, envelope, mime)
        if not all(answer.failure and another_may(answer.failure) for answer in answers):
            return transport.name, answers
    return last.name, _over(site, last, envelope, mime)


def _usable(site: Site, make: Callable[[Spec], Transport], order: tuple[Spec, ...]) -> Sequence[Transport]:
    """The transports that are not paused; where all are, all that can be made, since they may work again.

    Raises:
        Exception: none can be made.
    """
    if len(order) == 1:
        return [make(order[0])]
    made = []
    for spec in order:
        try:
            made.append(make(spec))
        except Exception as error:
            logger.warning("a transport cannot be made: %s", classify_exception(words.CONFIG, error).text)
            if spec is order[-1] and not made:
                raise
    now = site.clock()
    working = [one for one in made if not breaker.is_paused(site.db, one.name, one.settings(), now)]
    return working or made


def _over(site: Site, transport: Transport, envelope: Envelope, mime: bytes) -> list[Answer]:
    try:
        transport.open()
    except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
        return _refused(envelope, classify_exception(transport.stage, error))
    try:
        return hand_over(transport, envelope, mime, site.sender(), seal=site.seal)
    finally:
        close(transport)

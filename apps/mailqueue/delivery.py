"""One message over one open transport: whatever the transport does, one answer for each recipient."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from . import words
from .classify import Failure, SiteFault, classify_exception
from .compose import Envelope, is_bare_address, parse_address, with_sender
from .errors import BadAddress
from .transports.base import Answer, Transport

logger = logging.getLogger("mailqueue")


def hand_over(
    transport: Transport,
    envelope: Envelope,
    mime: bytes,
    site_sender: str | None,
    before_dot: Callable[[list[str]], None] = lambda accepted: None,
) -> list[Answer]:
    """Hand a message to a transport that is open.

    Args:
        transport: any; it is closed if it raises.
        envelope: who it goes from and to.
        mime: the message as composed, perhaps without its From.
        site_sender: the site's own sender, for a message that brings none.
        before_dot: called with the recipients accepted right before the final dot.

    Returns:
        One answer for each recipient, in their order. An address or sender that is none, because its
        row is damaged, is never shown to the transport.

    Raises:
        BaseException: an exit (classify.EXITS); nothing else.
    """
    addresses = [address for _, address in envelope.recipients]
    refused = [_damaged(address) for address in addresses if not is_bare_address(address)]
    sound = [address for address in addresses if is_bare_address(address)]
    answers = _deliver(transport, envelope, sound, mime, site_sender, before_dot) if sound else []
    return _in_order(addresses, [*refused, *answers])


def _deliver(
    transport: Transport,
    envelope: Envelope,
    addresses: list[str],
    mime: bytes,
    site_sender: str | None,
    before_dot: Callable[[list[str]], None],
) -> list[Answer]:
    def mark_dot(accepted: list[str]) -> None:
        before_dot(accepted)
        transport.stage = words.DOT

    sender = ""
    try:
        transport.stage = words.MAIL
        sender = _checked(envelope.sender) if envelope.sender else _spec_of(site_sender)
        transport.stage = words.BUILD
        whole = with_sender(mime, site_sender) if site_sender else mime
        transport.stage = words.MAIL
        answers = transport.deliver(
            sender,
            addresses,
            whole,
            smtputf8=envelope.smtputf8 or not all(spec.isascii() for spec in (sender, *addresses)),
            before_dot=mark_dot,
        )
        return _one_each(addresses, answers, transport.stage)
    except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
        stage = transport.stage
        close(transport)
        if stage == words.MAIL and isinstance(error, UnicodeError) and sender.isascii():
            stage = words.DATA  # of a sender like this every character could be written
        failure = classify_exception(stage, error)
        return [Answer.refused(address, failure) for address in addresses]


def close(transport: Transport) -> None:
    """Close a transport, even one that breaks its promise not to raise then."""
    try:
        transport.close()
    except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
        failure = classify_exception(words.QUIT, error)
        logger.warning("%s could not be closed: %s", type(transport).__name__, failure.text)


def _damaged(address: str) -> Answer:
    text = f"the stored address {address!r} is damaged: it is not one e-mail address"
    return Answer.refused(address, Failure(words.RECIPIENT, words.RCPT, "damaged-address", text))


def _in_order(addresses: list[str], answers: list[Answer]) -> list[Answer]:
    by_address = {answer.recipient: answer for answer in answers}
    return [by_address[address] for address in addresses]


def _checked(sender: str) -> str:
    if not is_bare_address(sender):
        raise BadAddress(f"the stored sender {sender!r} is damaged: it is not one e-mail address")
    return sender


def _spec_of(site_sender: str | None) -> str:
    try:
        return parse_address(site_sender).spec if site_sender else ""
    except BadAddress as error:
        raise SiteFault("bad-sender", str(error)) from error


def _one_each(addresses: list[str], answers: Iterable[Answer], stage: str) -> list[Answer]:
    """The answers in the order of the addresses.

    An address without an answer was not delivered, as far as anybody knows at that stage. Where one
    answer says yes and another no, nobody knows at all.
    """
    given: dict[str, list[Answer]] = {address: [] for address in addresses}
    for answer in answers:
        if isinstance(answer, Answer):
            given.get(answer.recipient, []).append(answer)
    return [_only(address, given[address], stage) for address in addresses]


def _only(address: str, answers: list[Answer], stage: str) -> Answer:
    if len({answer.failure is None for answer in answers}) == 1:
        return answers[0]
    fault = LookupError("the transport gave " + ("answers that disagree" if answers else "no answer"))
    return Answer.refused(address, classify_exception(words.DOT if answers else stage, fault))

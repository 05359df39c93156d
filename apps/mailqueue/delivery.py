"""One message over one open transport: whatever the transport does, one answer for each recipient."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from functools import lru_cache

from . import words
from .classify import Failure, SiteFault, classify_exception
from .compose import Envelope, downgraded, is_bare_address, is_header_ascii, parse_address
from .errors import BadAddress, MailQueueError
from .rounds import Rounds
from .signing.seal import Seal
from .transports.base import Answer, Letter, Series, Transport

logger = logging.getLogger("mailqueue")

_NOTHING_CONFIGURED = Seal()
LATE = 0.01  # seconds without an answer, after which a server is taken for a slow one
_STOP_SECONDS = 0.1  # after which a stop is noticed

NOT_WAITED_FOR = Failure(words.TRANSIENT, words.CONNECT, "not-waited-for", "the work was to end meanwhile")


def hand_over(
    transport: Transport,
    envelope: Envelope,
    mime: bytes,
    site_sender: str | None,
    before_dot: Callable[[list[str]], None] = lambda accepted: None,
    seal: Seal = _NOTHING_CONFIGURED,
) -> list[Answer]:
    """Hand a message to a transport that is open.

    Args:
        transport: any; it is closed if it raises.
        envelope: who it goes from and to.
        mime: the message as stored, perhaps without its From.
        site_sender: the site's own sender, for a message that brings none.
        before_dot: called with the recipients accepted right before the final dot.
        seal: makes it the message that leaves.

    Returns:
        One answer for each recipient, in their order. An address or sender that is none, because its
        row is damaged, is never shown to the transport.

    Raises:
        BaseException: an exit (classify.is_exit); nothing else.
    """
    addresses = [address for _, address in envelope.recipients]
    refused = [_damaged(address) for address in addresses if not is_bare_address(address)]
    sound = [address for address in addresses if is_bare_address(address)]
    answers = _deliver(transport, envelope, sound, mime, site_sender, before_dot, seal) if sound else []
    return _in_order(addresses, [*refused, *answers])


def go_on(
    transport: Transport, series: Series, at_stake: Callable[[], str | None], rounds: Rounds
) -> list[Answer]:
    """Hand over the messages behind the one that a transport has just delivered, while all goes well.

    Args:
        transport: it is closed if it raises.
        series: the messages.
        at_stake: the recipient of the message that was begun last, if the series has not taken it.
        rounds: where it meets other connections.

    Returns:
        The answer for that recipient, if there is one.

    Raises:
        BaseException: an exit (classify.is_exit); nothing else.
    """
    try:
        rest = rounds.run(transport.go_on(series))
        answers, stage = rest(), transport.stage
    except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
        stage = transport.stage
        close(transport)
        failure, address = classify_exception(stage, error), at_stake()
        if address is None:
            logger.warning("%s broke off between two messages: %s", type(transport).__name__, failure.text)
            return []
        answers = [Answer.refused(address, failure)]
    address = at_stake()
    return [] if address is None else _one_each([address], answers, stage)


def letter_ahead(
    envelope: Envelope, mime: bytes, site_sender: str | None, seal: Seal = _NOTHING_CONFIGURED
) -> Letter | None:
    """What hand_over() will give a transport, as it seems now; None where its own turn must show.

    Args:
        envelope, mime, site_sender, seal: as for hand_over().
    """
    if not seal.is_ready_ahead(mime):
        return None
    sound = [address for _, address in envelope.recipients if is_bare_address(address)]
    try:
        return _letter(envelope, sound, mime, site_sender, seal) if sound else None
    except (MailQueueError, ValueError):
        return None


def _letter(
    envelope: Envelope,
    addresses: list[str],
    mime: bytes,
    site_sender: str | None,
    seal: Seal,
    at: Callable[[str], None] = lambda stage: None,
) -> Letter:
    at(words.MAIL)
    sender = _checked(envelope.sender) if envelope.sender else _spec_of(site_sender)
    smtputf8 = not (sender.isascii() and all(map(str.isascii, addresses)))
    at(words.BUILD)
    if envelope.smtputf8 and not smtputf8:
        mime = downgraded(mime)
        smtputf8 = not is_header_ascii(mime)
    whole = seal.finished(mime, site_sender, addresses)
    at(words.MAIL)
    return Letter(sender, tuple(addresses), whole, smtputf8)


def _deliver(
    transport: Transport,
    envelope: Envelope,
    addresses: list[str],
    mime: bytes,
    site_sender: str | None,
    before_dot: Callable[[list[str]], None],
    seal: Seal,
) -> list[Answer]:
    def at(stage: str) -> None:
        transport.stage = stage

    def mark_dot(accepted: list[str]) -> None:
        before_dot(accepted)
        at(words.DOT)

    sender = ""
    try:
        letter = _letter(envelope, addresses, mime, site_sender, seal, at)
        sender = letter.sender
        answers = transport.deliver(
            sender, letter.recipients, letter.mime, smtputf8=letter.smtputf8, before_dot=mark_dot
        )
        return _one_each(addresses, answers, transport.stage)
    except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
        stage = transport.stage
        close(transport)
        if stage == words.MAIL and isinstance(error, UnicodeError) and sender.isascii():
            stage = words.DATA  # of a sender like this every character could be written
        failure = classify_exception(stage, error)
        return [Answer.refused(address, failure) for address in addresses]


def opened(
    transport: Transport,
    stop: threading.Event | None = None,
    if_late: Callable[[], None] = lambda: None,
) -> Failure | None:
    """Open a transport, in a thread of its own, where an exit is surely the transport's doing.

    Args:
        stop: when it is set, nobody waits for a server any more that does not answer.
        if_late: called where it takes more than LATE seconds.

    Returns:
        What went wrong; it is closed then. NOT_WAITED_FOR: it closes itself, and is not to be used.

    Raises:
        BaseException: what if_late() raises, or an exit; the transport is as with NOT_WAITED_FOR.
    """
    opening = _Opening(transport)
    opening.start()
    try:
        return _outcome(opening, stop, if_late)
    except BaseException:
        if not opening.leave():
            close(transport)
        raise


def _outcome(opening: _Opening, stop: threading.Event | None, if_late: Callable[[], None]) -> Failure | None:
    opening.join(LATE)
    if opening.is_alive():
        if_late()
    while opening.is_alive():
        if stop and stop.is_set() and opening.leave():
            return NOT_WAITED_FOR
        opening.join(_STOP_SECONDS if stop else None)
    return opening.failure


class _Opening(threading.Thread):
    """Opens a transport, and closes it again where nobody waits for it any more."""

    def __init__(self, transport: Transport):
        super().__init__(name="mailqueue opening", daemon=True)
        self._transport = transport
        self._guard = threading.Lock()
        self._is_over = self._is_left = False
        self.failure: Failure | None = None

    def run(self) -> None:
        try:
            self._transport.open()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the transport's
            stage = self._transport.stage
            close(self._transport)
            self.failure = classify_exception(stage, error)
        with self._guard:
            self._is_over = True
        if self._is_left:
            close(self._transport)

    def leave(self) -> bool:
        """Wait for it no longer. False: it is over already."""
        with self._guard:
            self._is_left = not self._is_over
        return self._is_left


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


@lru_cache(maxsize=16)
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

"""One message over one open transport: whatever the transport does, one answer for each recipient."""

from __future__ import annotations

from collections.abc import Callable

from . import words
from .classify import classify_exception
from .compose import Envelope, parse_address, with_sender
from .transports.base import Answer, Transport


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
        One answer for each recipient, in their order.

    Raises:
        BaseException: an exit (KeyboardInterrupt and its like); nothing else.
    """
    addresses = [address for _, address in envelope.recipients]
    transport.stage = words.MAIL
    try:
        sender = envelope.sender or (parse_address(site_sender).spec if site_sender else "")
        answers = transport.deliver(
            sender,
            addresses,
            with_sender(mime, site_sender) if site_sender else mime,
            smtputf8=envelope.smtputf8 or not sender.isascii(),
            before_dot=before_dot,
        )
        by_address = {answer.recipient: answer for answer in answers}
        return [by_address[address] for address in addresses]
    except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
        failure = classify_exception(transport.stage, error)
        transport.close()
        return [Answer.refused(address, failure) for address in addresses]

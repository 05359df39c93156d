"""From a message in its parts to what Anymail's backends take: one of Django's messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from email.message import MIMEPart
from typing import Any

from django.core.mail import EmailMultiAlternatives

from .anymail_providers import MAIL_HEADER, ApiProvider
from .structured import Attached, Structured


def parted(parts: Structured, most: int) -> tuple[Structured, tuple[str, ...]]:
    """What one request can take, and the recipients who are left for another.

    Most providers want a To. Where none is left, those in Cc stand there; where none is left either, one
    blind recipient, alone, so that nobody sees another one.

    Args:
        most: how many recipients that can be.
    """
    if not parts.to and parts.cc:
        parts = replace(parts, to=parts.cc, cc={})
    if not parts.to:
        first, *others = parts.bcc
        return replace(parts, to={first: first}, bcc=()), tuple(others)
    everybody = recipients_of(parts)
    now = set(everybody[:most])
    return (
        replace(
            parts,
            to={address: written for address, written in parts.to.items() if address in now},
            cc={address: written for address, written in parts.cc.items() if address in now},
            bcc=tuple(address for address in parts.bcc if address in now),
        ),
        everybody[most:],
    )


def recipients_of(parts: Structured) -> tuple[str, ...]:
    """Everybody to whom a message goes."""
    return (*parts.to, *parts.cc, *parts.bcc)


def idempotency_key(parts: Structured) -> str:
    """A UUID that is the same for each attempt to give the same message to the same recipients."""
    told = "\n".join((parts.message_id, *sorted(recipients_of(parts))))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"mailqueue:{told}"))


def django_message(parts: Structured, provider: ApiProvider) -> Any:
    """The message as this provider is to get it."""
    message = EmailMultiAlternatives(
        subject=parts.subject,
        body=parts.text or "",
        from_email=parts.sender,
        to=list(parts.to.values()),
        cc=list(parts.cc.values()),
        bcc=list(parts.bcc),
        reply_to=list(parts.reply_to),
        headers=dict(_headers(parts, provider)),
    )
    if parts.html is not None and parts.text is None:
        message.body, message.content_subtype = parts.html, "html"
    elif parts.html is not None:
        message.attach_alternative(parts.html, "text/html")
    for content, content_type in parts.further:
        message.attach_alternative(content, content_type)
    message.attachments.extend(_attachment(file) for file in parts.attached)
    if parts.tags:
        message.tags = list(parts.tags)
    if parts.metadata:
        message.metadata = dict(parts.metadata)
    return message


def _headers(parts: Structured, provider: ApiProvider) -> Iterable[tuple[str, str]]:
    for name, value in parts.headers.items():
        if name.lower() not in provider.withheld:
            yield name, value
    if provider.keeps_message_id and parts.message_id:
        yield "Message-ID", parts.message_id
        yield from provider.beside_message_id.items()
    if provider.idempotency == MAIL_HEADER:
        yield MAIL_HEADER, idempotency_key(parts)


def _attachment(file: Attached) -> Any:
    if file.content_id is None:
        return file.filename, file.content, file.content_type
    maintype, _, subtype = file.content_type.partition("/")
    named: dict[str, Any] = {"filename": file.filename} if file.filename else {}
    part = MIMEPart()
    part.set_content(
        file.content, maintype, subtype, disposition="inline", cid=f"<{file.content_id}>", **named
    )
    return part

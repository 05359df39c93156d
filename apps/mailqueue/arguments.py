"""The arguments that both frameworks' mailers take, as those of compose()."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import BadMessage

# What both take for S/MIME and OpenPGP.
PROTECTION = (
    "cipher_type",
    "sign",
    "sign_passphrase",
    "encrypt",
    "x509_sign_keyfile",
    "x509_sign_chainfile",
    "x509_sign_certfile",
    "x509_crypt_certfiles",
    "x509_nocerts",
)


def neutral(
    settings: Any,
    *,
    to: Any,
    subject: Any = "[no subject]",
    text: str | None,
    html: str | None,
    sender: str | None = None,
    attachments: Any = None,
    cc: Any = None,
    bcc: Any = None,
    reply_to: Any = None,
    encoding: str = "utf-8",
    raw: bool = False,
    headers: Mapping[str, Any] | None = None,
    from_address: str | None = None,
    list_unsubscribe: str | None = None,
    dkim: Any = None,
    **protection: Any,
) -> dict[str, Any]:
    """The stock mailers' arguments as those of compose().

    Args:
        settings: the mailer's.
        text, html: the two bodies, as the framework tells them apart.
        protection: those of PROTECTION, for S/MIME and OpenPGP.

    Raises:
        BadMessage: they ask for what cannot be done.
    """
    if dkim and dkim is not settings.dkim:
        raise BadMessage("dkim: a key is not stored with a message; set it once, as mail.settings.dkim.")
    if raw:
        text, html = (html if text is None else text), None
    return {
        "to": to,
        "subject": "" if subject is None else as_text(subject, encoding),
        "text": text,
        "html": html,
        "sender": sender,
        "from_address": from_address,
        "cc": cc,
        "bcc": bcc,
        "reply_to": reply_to,
        "headers": _headers(headers, encoding) if headers else {},
        "attachments": [] if raw else _several(attachments),
        "list_unsubscribe": list_unsubscribe or settings.list_unsubscribe,
        "protection": protection,
    }


def text_and_html(body: Any, encoding: str) -> tuple[str | None, str | None]:
    """The two bodies; one alone is text.

    Raises:
        BadMessage: there are more than two, or one cannot be read.
    """
    bodies = body if isinstance(body, (list, tuple)) else (body, None)
    if len(bodies) != 2:
        raise BadMessage(f"body: expected text or (text, html), got {len(bodies)} bodies.")
    text, html = bodies
    return (
        None if text is None else as_text(text, encoding),
        None if html is None else as_text(html, encoding),
    )


def as_text(value: Any, encoding: str) -> str:
    """Text, bytes, a file-like object or a lazy translation as text.

    Raises:
        BadMessage: it cannot be read.
    """
    if type(value) is str:
        return value
    try:
        if hasattr(value, "read"):
            value = value.read()
        return value.decode(encoding) if isinstance(value, bytes) else str(value)
    except (OSError, TypeError, ValueError, LookupError) as error:
        raise BadMessage(f"This cannot be read as text in the encoding {encoding}: {error}") from error


def shown(value: Any) -> str:
    """A value for people to read, whatever it is."""
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - what cannot be read is shown by its type, and why
        return f"({type(value).__name__} that raises {type(error).__name__})"


def _headers(headers: Any, encoding: str) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise BadMessage(f"headers: expected a dictionary, got {type(headers).__name__}.")
    return {
        name: as_text(value, encoding) if isinstance(value, bytes) else value
        for name, value in headers.items()
    }


def _several(attachments: Any) -> list[Any]:
    if attachments is None:
        return []
    return list(attachments) if isinstance(attachments, (list, tuple)) else [attachments]

"""What is wrong with the keys that are configured, before a message shows it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import words
from ..classify import Failure, classify_exception
from ..compose import parse_address
from ..errors import BadAddress
from ..told import Told
from . import dkim, smime
from .faults import key_fault
from .pgp import PgpKeys
from .seal import chosen, require_sense
from .wanted import X509

_looked_at: set[bytes] = set()  # digests, since the settings hold secrets


@dataclass(frozen=True)
class KeyFinding:
    """What came of one look.

    Args:
        subject: what was looked at.
        failure: what is wrong with it; None: nothing.
    """

    subject: str
    failure: Failure | None


def key_findings(settings: Any, now: float, *, callables: bool = True) -> Iterator[KeyFinding]:
    """Whether the keys that the settings name can be used: those for DKIM, and those for the mail itself.

    Args:
        settings: the mailer's.
        now: epoch seconds.
        callables: as for dkim_findings().
    """
    yield from dkim_findings(settings.dkim, callables=callables)
    cipher = cipher_finding(settings, now)
    if cipher:
        yield cipher


def are_new(settings: Any) -> bool:
    """Whether what the settings say of keys is looked at for the first time in this process."""
    several = settings.dkim if isinstance(settings.dkim, (list, tuple)) else [settings.dkim]
    dkim_keys = [(getattr(one, "selector", one), getattr(one, "key", None)) for one in several]
    said = repr([chosen({}, settings), settings.gpg_home, settings.sender, dkim_keys])
    state = hashlib.sha256(said.encode("utf-8", "replace")).digest()
    is_new = state not in _looked_at
    _looked_at.add(state)
    return is_new


def dkim_findings(keys: Any, *, callables: bool = True) -> Iterator[KeyFinding]:
    """Whether each key of the setting `dkim` can be used.

    Args:
        keys: the setting.
        callables: whether to call the functions that give keys, too, which may take their time.
    """
    if not keys:
        return
    configured: list[dkim.DkimKey] = []
    failure = _failure_of(lambda: configured.extend(dkim.checked_keys(keys)))
    if failure:
        yield KeyFinding("DKIM", failure)
    for key in configured:
        if callables or not callable(key.key):
            where = Told("DKIM key {name}", name=f"{key.selector}._domainkey.{key.domain or '*'}")
            yield KeyFinding(where, _failure_of(lambda key=key: dkim.check(key)))  # type: ignore[misc]


def cipher_finding(settings: Any, now: float) -> KeyFinding | None:
    """Whether what the settings `cipher_type`, `sign`, `encrypt` and so on say can be done.

    Args:
        settings: the mailer's.
        now: epoch seconds.

    Returns:
        None: they ask for nothing.
    """
    if not settings.cipher_type:
        return None
    said = "S/MIME" if settings.cipher_type == X509 else "OpenPGP"
    return KeyFinding(
        Told("Keys for {method}", method=said), _failure_of(lambda: _check_cipher(settings, now))
    )


def _check_cipher(settings: Any, now: float) -> None:
    holds = chosen({}, settings)
    sign, encrypt = require_sense(holds)
    if holds["cipher_type"] == X509:
        keys = smime.SmimeKeys.of(holds)
        smime.protected(b"Content-Type: text/plain\r\n\r\n", keys, sign=sign, encrypt=encrypt)
        for subject, end in smime.expiries(keys, sign=sign, encrypt=encrypt):
            if smime.is_over(end, now):
                raise key_fault("smime-key", f"the certificate of {subject} has ended on {end:%Y-%m-%d}")
        return
    keyring = PgpKeys(settings.gpg_home, holds["sign_passphrase"])
    keyring.check_home()
    if sign:
        keyring.check(_spec_of(settings.sender))


def _spec_of(sender: Any) -> str:
    try:
        return parse_address(sender).spec if sender else ""
    except BadAddress:
        return ""


def _failure_of(look: Callable[[], object]) -> Failure | None:
    try:
        look()
    except BaseException as error:  # noqa: BLE001 - what cryptography's Rust panics with is one; exits go on
        return classify_exception(words.BUILD, error)
    return None

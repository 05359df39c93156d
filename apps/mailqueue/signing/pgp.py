"""OpenPGP in MIME (RFC 3156), by GnuPG: signed, encrypted, or both.

GnuPG, because it is what gpg_home names: secret keys lie with its agent, which no other library asks.
"""

from __future__ import annotations

import logging
import os
import re
import subprocess
import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from .entity import addresses_in, multipart, parted
from .faults import key_fault

PATIENCE = 60.0  # seconds; a process of gpg that needs longer hangs, such as at a lock, and is ended

_SIGNATURE = (
    b'Content-Type: application/pgp-signature; name="signature.asc"\r\nContent-Description: OpenPGP signature'
    b"\r\n\r\n"
)
_VERSION = b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
_ENCRYPTED = b'Content-Type: application/octet-stream; name="encrypted.asc"\r\n\r\n'
_AS_ENCRYPTED = 'multipart/encrypted; protocol="application/pgp-encrypted"'
_AS_SIGNED = 'multipart/signed; protocol="application/pgp-signature"; micalg=pgp-'
_HASHES = {"2": "sha1", "8": "sha256", "9": "sha384", "10": "sha512", "11": "sha224"}  # RFC 9580 section 9.5
# Only what lies in the keyring counts: nothing is looked up in the network, nobody is asked for anything.
_OPTIONS = ["--no-auto-key-locate", "--disable-dirmngr", "--pinentry-mode"]


class PgpKeys:
    """A keyring of GnuPG.

    Args:
        home: its folder; None: GNUPGHOME of the process, or gpg's own.
        passphrase: of the signer's key; None: it has none, or gpg-agent knows it.
        binary: the program.
    """

    def __init__(self, home: Any, passphrase: Any, binary: str = "gpg"):
        self._home, self._binary = home, binary
        self._passphrase = str(passphrase) if passphrase else None

    def protected(self, mime: bytes, recipients: Sequence[str], *, sign: bool, encrypt: bool) -> bytes:
        """A message signed, encrypted, or both, the latter in one (RFC 3156 section 6.2).

        Args:
            mime: with its From, whose key signs it.
            recipients: who is to read it; those that its To and Cc do not name stay hidden.

        Raises:
            DeliveryError: the keys cannot be used; says why, without secrets.
        """
        header, entity = parted(mime)
        signer = next(iter(addresses_in(mime, "from")), "") if sign else None
        if not encrypt:
            return header + self._signed(entity, signer or "")
        shown = {address.lower() for address in addresses_in(mime, "to", "cc")}
        named = [_exactly(address) for address in recipients if address.lower() in shown]
        hidden = [_exactly(address) for address in recipients if address.lower() not in shown]
        gpg = self._gpg()
        made = gpg.encrypt(
            entity,
            named,
            hidden_recipients=hidden,
            sign=sign,
            always_trust=True,  # as with the stock mailers: the keyring is the site's own
            passphrase=self._passphrase if sign else None,
            extra_args=_as_signer(signer) if sign else None,
        )
        _require(made, bool(made.ok), gpg)
        return header + multipart(_AS_ENCRYPTED, _VERSION, _ENCRYPTED + _lines(made.data))

    def check(self, signer: str) -> None:
        """Whether something can be signed in this name.

        Raises:
            DeliveryError: it cannot; says why, without secrets.
        """
        self._signed(b"\r\n", signer)

    def check_home(self) -> None:
        """Whether there is a keyring at all.

        Raises:
            DeliveryError: there is none, or no gpg; says why, without secrets.
        """
        self._gpg()

    def _signed(self, entity: bytes, signer: str) -> bytes:
        gpg = self._gpg()
        made = gpg.sign(
            entity, detach=True, clearsign=False, passphrase=self._passphrase, extra_args=_as_signer(signer)
        )
        _require(made, bool(made), gpg)
        algorithm = _HASHES.get(str(made.hash_algo), "sha256")
        return multipart(_AS_SIGNED + algorithm, entity, _SIGNATURE + _lines(made.data))

    def _gpg(self) -> Any:
        if re.search("[\r\n\0]", self._passphrase or ""):
            raise key_fault("pgp-key", "sign_passphrase holds a line break or a NUL")
        mode = "loopback" if self._passphrase else "error"
        home = os.fspath(self._home) if self._home else None
        try:
            gpg = _bounded()(gpgbinary=self._binary, gnupghome=home, options=[*_OPTIONS, mode])
        except (OSError, ValueError) as error:
            raise key_fault("pgp-key", f"gpg, or its folder gpg_home, cannot be used: {error}") from None
        gpg.encoding = "utf-8"
        return gpg


def _exactly(address: str) -> str:
    """How gpg is told a whole address: without the brackets it looks for a part of one."""
    return f"<{address}>"


def _as_signer(address: str | None) -> list[str]:
    # Not the library's keyid: where that key is not there, gpg takes any other.
    return ["--local-user", _exactly(address or "")]


def _lines(armored: bytes) -> bytes:
    return bytes(armored).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _require(made: Any, done: bool, gpg: Any) -> None:
    if done and made.data and made.returncode == 0:
        return
    if gpg.hung:
        raise key_fault("pgp-key", f"gpg did not end within {PATIENCE:.0f} seconds")
    raise key_fault("pgp-key", f"gpg says: {_reason(made)}"[:300])


def _reason(made: Any) -> str:
    """Why gpg gave up, in its own words, and whose key it is about, by its lines for programs (INV_…)."""
    lines = str(made.stderr or "").splitlines()
    said = [line.removeprefix("gpg: ").removeprefix("[stdin]: ") for line in lines if line[:5] == "gpg: "]
    named = [words[-1] for words in map(str.split, lines) if len(words) > 2 and words[1].startswith("INV_")]
    reason = said[-1] if said else str(made.status or "nothing")
    if not named:
        return reason
    # Of a key that has ended gpg itself says only that it is not there.
    ended = re.search("key (expired|revoked)", str(made.status))
    return f"{reason}, of {', '.join(named)}" + (f" ({ended[0]})" if ended else "")


@lru_cache(maxsize=1)
def _bounded() -> Any:
    """python-gnupg's GPG, whose processes do not live for ever.

    Raises:
        DeliveryError: it is not installed.
    """
    try:
        import gnupg
    except ImportError:
        raise key_fault("cipher-extra", "OpenPGP: pip install 'mailqueue[pgp]'") from None
    if gnupg.logger.level == logging.NOTSET:  # else the site wants to read it
        # What counts is raised. A gpg that ends early for want of a key leaves a traceback of its pipe.
        gnupg.logger.setLevel(logging.CRITICAL)

    class BoundedGpg(gnupg.GPG):  # type: ignore[misc]  # it has no type hints
        hung = False

        def _open_subprocess(self, *arguments: Any, **further: Any) -> Any:
            process = super()._open_subprocess(*arguments, **further)
            threading.Thread(target=self._watch, args=(process,), daemon=True).start()
            return process

        def _watch(self, process: Any) -> None:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.hung = True
                process.kill()

    return BoundedGpg

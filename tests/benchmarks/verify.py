"""Whether every contender really sends the same: each once, into a sink that keeps all of it."""

from __future__ import annotations

import email
import re
import shutil
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import drains
import messages
import services
from contenders import FAR, NEAR, NO_DATABASE, Cell
from gear import Gear

N = 20
_RECIPIENT = re.compile(rb"X-Rcpt-Args: <(user(\d+)@[^>]*)>")
_RECEIVED = re.compile(rb"(?m)^Received:.*\n(?:[ \t].*\n)*")  # the last header that smtp-sink adds


def verify(gear: Gear, databases: tuple[str, ...]) -> list[str]:
    """What is wrong with what arrived; nothing if all is well."""
    wrong = []
    for contender in {contender.name: contender for contender in (*NEAR, *FAR)}.values():
        for database in contender.databases:
            if database in (*databases, NO_DATABASE):
                faults = _one(gear, Cell(contender, database, 0, N))
                wrong += [f"{contender.name} on {database}: {fault}" for fault in faults]
                print(f"{contender.name:40} {database:10} {faults or 'ok'}", file=sys.stderr, flush=True)
    return wrong


def _one(gear: Gear, cell: Cell) -> list[str]:
    folder = gear.folder / "dump"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.chmod(0o777)  # the sink has a user of its own
    with closing(services.Sink(gear.folder, folder / "all")) as sink:
        measured = drains.one(replace(gear, sink=sink, ways={0: sink.port}), cell, 0)
    faults = [measured.error] if measured.error else _faults(folder / "all")
    shutil.rmtree(folder)
    return faults


def _faults(dump: Path) -> list[str]:
    arrived = re.split(rb"(?m)^X-Client-Addr: ", dump.read_bytes())[1:]
    recipients = [_RECIPIENT.search(one) for one in arrived]
    numbers = sorted(int(found[2]) for found in recipients if found)
    faults = [] if numbers == list(range(N)) else [f"{N} recipients were expected, these got one: {numbers}"]
    for one, found in zip(arrived, recipients, strict=True):
        if found:
            faults += _faults_of(one, found[1].decode(), int(found[2]))
    return faults


def _faults_of(dumped: bytes, recipient: str, number: int) -> list[str]:
    received = _RECEIVED.search(dumped)
    assert received
    mail = email.message_from_bytes(dumped[received.end() :])
    parts = {
        part.get_content_type(): part.get_payload(decode=True)
        for part in mail.walk()
        if not part.is_multipart()
    }
    token = messages.token(number).encode()
    checks = {
        "no token in the text": token in parts.get("text/plain", b""),
        "no token in the HTML": token in parts.get("text/html", b""),
        "no Date": bool(mail["Date"]),
        "no Message-ID": bool(mail["Message-ID"]),
        "not its recipient in To": recipient in (mail["To"] or ""),
    }
    return [f"{recipient}: {fault}" for fault, well in checks.items() if not well]

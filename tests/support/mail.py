"""A queued mailer on a database of its own, with a clock that tests set."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailqueue import QueuedMailer
from py4web.core import DAL

SENDER = "Site <noreply@site.test>"
START = 1_800_000_000.0


class Clock:
    """The time, as tests want it: epoch seconds."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def make_mail(
    folder: Path, *, uri: str = "sqlite://mail.db", clock: Callable[[], float] | None = None, **options: Any
) -> QueuedMailer:
    """A mailer with `sender` SENDER and no server, on a fresh SQLite database unless told otherwise."""
    db = DAL(uri, folder=str(folder), pool_size=0)
    options = {"sender": SENDER, "tls": False, "rng": random.Random(1), **options}
    return QueuedMailer(db, clock=clock or Clock(), **options)


def to_server(mail: QueuedMailer, server: Any) -> None:
    """Have the mailer send to a ScriptedServer."""
    mail.settings.server = f"127.0.0.1:{server.port}"


def rows(mail: QueuedMailer, table: str) -> list[dict[str, Any]]:
    """The rows of mailqueue_<table>, by id."""
    db = mail.db
    found: list[dict[str, Any]] = (
        db(db[f"mailqueue_{table}"].id > 0).select(orderby=db[f"mailqueue_{table}"].id).as_list()
    )
    db.commit()
    return found


def statuses(mail: QueuedMailer) -> list[str]:
    """The messages' statuses, by id."""
    return [row["status"] for row in rows(mail, "message")]


def open_causes(mail: QueuedMailer) -> list[str]:
    """The causes of the open problems, without their transports."""
    return [row["cause"].split("@")[0] for row in rows(mail, "problem") if row["status"] == "open"]

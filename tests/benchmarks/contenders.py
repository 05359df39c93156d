"""Who is measured, and over how many messages."""

from __future__ import annotations

from dataclasses import dataclass, field

from options import DATABASES, SQLITE, Plan

NO_DATABASE = "-"


@dataclass(frozen=True)
class Contender:
    """One way to send mail.

    Args:
        name: as shown.
        adapter: module in adapters/.
        environment: whose interpreter runs it, "ours" or "peers".
        databases: on which ones; NO_DATABASE for those that need none.
        options: for the adapter.
        n: messages; None: as many as the plan says. The slow ones get fewer over a far network:
            their rate does not depend on it.
    """

    name: str
    adapter: str
    environment: str
    databases: tuple[str, ...] = DATABASES
    options: dict[str, str] = field(default_factory=dict)
    n: int | None = None


OURS, OURS_10, OURS_50 = "mailqueue", "mailqueue, 10 connections", "mailqueue, 50 connections"
RAW, FLOOR, DJANGO_MAILER = "smtplib, ready-made", "insert of ready-made text", "django-mailer"
POST_OFFICE, TUNED = "post_office", "post_office, tuned"
THREADS_10, THREADS_50 = "post_office, 10 threads", "post_office, 50 threads"
CELERY = "celery-email"

_NONE = (NO_DATABASE,)

NEAR = (
    Contender(OURS, "ours", "ours"),
    Contender(RAW, "raw", "ours", _NONE),
    Contender("pipelining, ready-made, 4 connections", "pipe", "ours", _NONE, {"connections": "4"}),
    Contender(FLOOR, "floor", "ours", (SQLITE,)),
    Contender(POST_OFFICE, "post_office_", "peers"),
    Contender(TUNED, "post_office_", "peers", options={"batch": "2000", "threads": "10", "loglevel": "0"}),
    Contender(DJANGO_MAILER, "django_mailer", "peers"),
    Contender(CELERY, "celery_email", "peers", _NONE),
)


def _threads(number: int) -> dict[str, str]:
    return {"batch": "2000", "threads": str(number)}


FAR = (
    Contender(OURS_10, "ours", "ours", options={"connections": "10"}),
    Contender(OURS_50, "ours", "ours", options={"connections": "50"}),
    Contender(RAW, "raw", "ours", _NONE, n=100),
    Contender("pipelining, ready-made, 10 connections", "pipe", "ours", _NONE, {"connections": "10"}),
    Contender(THREADS_10, "post_office_", "peers", options=_threads(10), n=400),
    Contender(THREADS_50, "post_office_", "peers", options=_threads(50), n=1000),
    Contender(DJANGO_MAILER, "django_mailer", "peers", n=60),
)


@dataclass(frozen=True)
class Cell:
    """One thing to measure."""

    contender: Contender
    database: str
    rtt: int
    n: int


def cells(plan: Plan, databases: tuple[str, ...]) -> list[Cell]:
    """All that a round measures."""
    return [
        Cell(contender, database, rtt, min(contender.n or plan.n, plan.n))
        for rtt in plan.rtts
        for contender in (FAR if rtt else NEAR)
        for database in contender.databases
        if database in (*databases, NO_DATABASE)
    ]

"""What a worker needs to know of the site whose mail it sends."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .limits import Limits
from .outbox import Recovery, Retention
from .problems import Problem
from .retry import RetryPolicy
from .terms import RESEND
from .transports.base import Transport


@dataclass
class Site:
    """A site, as its worker sees it.

    Args:
        db: the site's DAL.
        make_transport: gives the way out by today's settings; raises SiteFault.
        sender: the site's own sender, for messages without one: "Name <a@b>", "a@b", or "".
        announce: takes a new entry of the problem log, after its commit.
        journals: folder for the journals of this host's workers.
        policy: when to try again.
        retention: how long to keep what ended.
        connections: how many connections to open at most.
        limits: what may be sent in which time, of all workers together.
        doubt: terms.RESEND or terms.HOLD, for messages that do not say.
        clock: the time, epoch seconds.
        rng: where jitter comes from.
    """

    db: Any
    make_transport: Callable[[], Transport]
    sender: Callable[[], str]
    announce: Callable[[Problem], None]
    journals: str
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    retention: Retention = field(default_factory=Retention)
    connections: int = 4
    limits: Limits = field(default_factory=Limits)
    doubt: str = RESEND
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)

    @property
    def recovery(self) -> Recovery:
        """How this site treats what a dead worker leaves behind."""
        return Recovery(self.policy, self.rng, self.doubt, self.retention)

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
from .signing.seal import Seal
from .terms import RESEND
from .transports.base import Transport
from .transports.plan import Plan, Spec


def _no_plan() -> None:
    return None


def _make_none(spec: Spec) -> Transport:
    raise LookupError(f"a site without a plan has no transport {spec!r}")


@dataclass
class Site:
    """A site, as its worker sees it.

    Args:
        db: the site's DAL.
        make_transport: gives the only way out by today's settings; raises SiteFault.
        plan: gives the ways out, where there are several, by today's settings; None: there is one.
        make_of_plan: makes a transport of the plan; raises SiteFault.
        sender: the site's own sender, for messages without one: "Name <a@b>", "a@b", or "".
        announce: takes a new entry of the problem log, after its commit.
        journals: folder for the journals of this host's workers.
        policy: when to try again.
        retention: how long to keep what ended.
        connections: how many connections to open at most.
        limits: what may be sent in which time, of all workers together.
        seal: signs and encrypts what leaves.
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
    seal: Seal = field(default_factory=Seal)
    plan: Callable[[], Plan | None] = _no_plan
    make_of_plan: Callable[[Spec], Transport] = _make_none
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)

    def ways_out(self) -> tuple[Plan, Callable[[Spec], Transport]]:
        """The ways out by today's settings, and what makes a transport of each.

        Raises:
            SiteFault: the settings make no sense.
        """
        plan = self.plan()
        if plan is not None:
            return plan, self.make_of_plan
        return Plan(self.make_transport), lambda _spec: self.make_transport()

    @property
    def recovery(self) -> Recovery:
        """How this site treats what a dead worker leaves behind."""
        return Recovery(self.policy, self.rng, self.doubt, self.retention)

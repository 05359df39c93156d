"""What a drain does besides sending: it shows itself, takes back, expires, does one verb
to many messages, and deletes what is old.
"""

from __future__ import annotations

import logging
import time
from functools import partial

from . import allowance, approvals, bulk, database, journal, leases, ledger, liveness, outbox, problems
from .signing.check import are_new, key_findings
from .signing.faults import OF_KEYS
from .site import Site
from .way import report

logger = logging.getLogger("mailqueue")


def note_presence(site: Site) -> None:
    """Say that mail is being sent: whoever waits for a worker sees it. Commits on the site's DAL."""
    liveness.seen(site.db, site.clock())
    if problems.any_open(site.db):
        problems.resolve_rule(site.db, "no-worker", site.clock())
    site.db.commit()


def recover(site: Site) -> None:
    """Take back what dead workers had claimed. Commits on the site's DAL."""
    machine, now = leases.this_machine(), site.clock()
    gone = leases.dead(
        site.db, now, lambda row: row.machine == machine and journal.owner_is_gone(row.journal)
    )
    for row in gone:
        # What a machine that crashed had not on its disk is missing in a journal of before.
        evidence = journal.read(row.journal) if row.machine == machine else None
        discard = partial(journal.discard, row.journal)
        taken = outbox.recover(site.db, row, evidence, site.recovery, now=now, forget=discard)
        if taken:
            logger.warning(
                "worker %s on %s left %d messages unfinished; they were taken back",
                row.pid,
                row.host_name,
                taken,
            )
    orphans = outbox.recover_orphans(site.db, site.recovery, now=now)
    if orphans:
        logger.warning("%d messages were claimed by no worker there is; they were taken back", orphans)


def expire(site: Site) -> None:
    """End what waits and is not worth sending any more. Commits on the site's DAL."""
    while outbox.expire(site.db, now=site.clock(), retention=site.retention):
        pass


def look_at_keys(site: Site) -> set[str]:
    """Tell of keys that cannot be used before a message shows it. Commits on the site's DAL.

    Returns:
        The rules of what is wrong with them (signing.faults.OF_KEYS).
    """
    settings = site.seal.settings
    if settings is None or not (settings.cipher_type or settings.dkim):
        return set()
    if not (are_new(settings) or problems.is_open(site.db, OF_KEYS)):
        return set()
    site.db.commit()  # gpg may take its time
    found = key_findings(settings, site.clock(), callables=False)
    failures = [one.failure for one in found if one.failure]
    for failure in failures:
        report(site, failure, "")
    return {failure.rule for failure in failures}


def tidy(site: Site) -> None:
    """Delete a bite of what is older than it is to be kept. Commits on the site's DAL."""
    outbox.purge(site.db, now=site.clock(), retention=site.retention)
    ledger.tidy(site.db, site.clock())
    allowance.tidy(site.db, site.clock())
    approvals.tidy(site.db, site.clock())
    bulk.tidy(site)


def work_in_bulk(site: Site, seconds: float) -> None:
    """Go on with what administrators began to do to many messages. Commits on the site's DAL.

    Args:
        seconds: after which no further bite is begun.
    """
    end = time.monotonic() + seconds
    while _bite(site) and time.monotonic() < end:
        pass


def _bite(site: Site) -> bool:
    try:
        return bulk.go_on(site)
    except database.faults(site.db) as error:
        if not database.is_conflict(error):
            raise
        database.roll_back(site.db)  # the next drain goes on with it
        return False

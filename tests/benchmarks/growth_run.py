"""One step of growth.py, in a process of its own: python growth_run.py SPEC.json.

fill: make a database with `size` rows of history, and 2,000 due; or with `size` due.
claim: claims on two databases, turn by turn, each given back before the next one.
retention: delete what ended long ago, bite by bite, while mail is queued beside it.
drain: work on a long queue for a while, as a worker does.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.ours import Adapter
from mailqueue import leases, outbox
from mailqueue.tables import ATTEMPT, CONTENT, MESSAGE, RECIPIENT, columns
from mailqueue.worker import BATCH
from options import MOST_SEEDED as SEED

DUE = 2000
AT_ONCE = 50_000  # rows copied in one statement
CLAIMS = 25
DRAIN_SECONDS = 15.0
APART = 0.001  # seconds between one message and the next, as long as they have waited
WAITED = 86_400.0  # seconds for which the first of them has
WITH_TEXT = 1_000_000  # as a site has them: retention deletes the text long before the record
OLD = 5_000  # messages to delete
BESIDE_SECONDS = 5.0


def _open(spec: dict[str, Any], url: str) -> Adapter:
    folder = Path(spec["folder"], url.rpartition("/")[2].partition("?")[0] + str(abs(hash(url))))
    folder.mkdir()
    return Adapter(url, "127.0.0.1", spec["port"], {}, folder)


def _queue(adapter: Adapter, n: int) -> None:
    for number in range(n):
        adapter.send(number)


# --- filling ---------------------------------------------------------------------------------


def fill(spec: dict[str, Any]) -> dict[str, Any]:
    """Make the rows."""
    adapter = _open(spec, spec["url"])
    _queue(adapter, SEED)
    if spec["kind"] == "history":
        adapter.drain()
    # In the order of their ids, as mail that comes while nobody sends.
    adapter.db.executesql(
        f"UPDATE {MESSAGE} SET due = {time.time() - WAITED} + id * {APART} WHERE due IS NOT NULL"
    )
    copy_up_to(adapter.db, spec["size"])
    if spec["kind"] == "history":
        _queue(adapter, DUE)
    return {}


def copy_up_to(db: Any, size: int) -> None:
    """Copy messages, with all that belongs to them, until there are so many."""
    have = SEED
    _close_gaps(db, ATTEMPT)
    _check(db, have)
    while have < size:
        more = min(have, AT_ONCE, size - have)
        for table in (MESSAGE, RECIPIENT, ATTEMPT, *([CONTENT] if have < WITH_TEXT else [])):
            _copy(db, table, upto=more, offset=have)
        db.commit()
        have += more
    _check(db, size)
    if db._adapter.dbengine == "postgres":
        for table in (MESSAGE, CONTENT, RECIPIENT, ATTEMPT):
            db.executesql(f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), {size})")
        db.commit()


def _copy(db: Any, table: str, *, upto: int, offset: int) -> None:
    names = ["id", *columns()[table]]
    moved = {"id", "message_ref", "recipient_ref"}
    later = {"due": f"due + {offset * APART}"}
    values = [f"{name} + {offset}" if name in moved else later.get(name, name) for name in names]
    chosen = f"SELECT {', '.join(values)} FROM {table} WHERE id <= {upto}"
    db.executesql(f"INSERT INTO {table} ({', '.join(names)}) {chosen}")


def _close_gaps(db: Any, table: str) -> None:
    """MariaDB leaves out numbers where several rows are inserted at once."""
    for number, (own_id,) in enumerate(db.executesql(f"SELECT id FROM {table} ORDER BY id"), 1):
        if number != own_id:
            db.executesql(f"UPDATE {table} SET id = {number} WHERE id = {own_id}")
    db.commit()


def _check(db: Any, size: int) -> None:
    """Copies find each other only if everything is numbered from 1 without a gap."""
    for table in (MESSAGE, RECIPIENT):
        (found,) = db.executesql(f"SELECT count(*), min(id), max(id) FROM {table}")
        if tuple(found) != (size, 1, size):
            raise ValueError(f"{table} has {found}, expected {size} rows from 1 on")
    db.commit()


# --- measuring -------------------------------------------------------------------------------


def claim(spec: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of claims, in pairs: the first database's, the second one's."""
    both = [_Claims(_open(spec, url)) for url in spec["urls"]]
    for claims in both:
        claims.one()  # not counted: caches are cold
    return {"claims": [[claims.one() for claims in both] for _ in range(CLAIMS)]}


class _Claims:
    def __init__(self, adapter: Adapter):
        self._db = adapter.db
        given = {"host_name": "here", "pid": 1, "journal": "none", "now": time.time()}
        self._worker = leases.register(self._db, token="growth", **given)

    def one(self) -> float:
        begun = time.perf_counter()
        claimed = outbox.claim(self._db, self._worker, limit=BATCH, now=time.time())
        taken = time.perf_counter() - begun
        if len(claimed) != BATCH:
            raise ValueError(f"{len(claimed)} messages were claimed")
        outbox.release(self._db, claimed, time.time())
        return taken * 1000


def retention(spec: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of each bite; of each enqueue beside a worker with nothing to delete, and with much."""
    adapter = _open(spec, spec["url"])
    adapter.drain()
    without = _queue_beside_worker(adapter)
    _age(adapter, upto=2 * OLD)
    beside = _queue_beside_worker(adapter)
    _age(adapter, upto=OLD, above=2 * OLD)
    return {"bites": list(_bites(adapter)), "without": without, "beside": beside}


def _age(adapter: Adapter, *, upto: int, above: int = 0) -> None:
    old = f"id > {above} AND id <= {above + upto} AND purge_on IS NOT NULL"
    adapter.db.executesql(f"UPDATE {MESSAGE} SET purge_on = 1.0 WHERE {old}")
    adapter.db.commit()


def _bites(adapter: Adapter) -> Iterator[float]:
    purged = 1
    while purged:
        begun = time.perf_counter()
        purged = outbox.purge(adapter.db, now=time.time(), retention=outbox.Retention())
        yield (time.perf_counter() - begun) * 1000


def _queue_beside_worker(adapter: Adapter) -> list[float]:
    with _Queueing(adapter) as queueing:
        end = time.monotonic() + BESIDE_SECONDS
        while time.monotonic() < end:
            adapter.mail.process_queue()
    return queueing.taken


class _Queueing:
    """Queues messages in a thread of its own, as a context manager, and times each."""

    def __init__(self, adapter: Adapter):
        self._adapter, self._stop = adapter, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.taken: list[float] = []

    def __enter__(self) -> _Queueing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            begun = time.perf_counter()
            self._adapter.send(0)
            self.taken.append((time.perf_counter() - begun) * 1000)
        self._adapter.db.close()


def drain(spec: dict[str, Any]) -> dict[str, Any]:
    """The peak of a worker's memory, bytes."""
    adapter = _open(spec, spec["url"])
    counts = adapter.mail.process_queue(until=time.time() + DRAIN_SECONDS)
    if not counts["sent"]:
        raise ValueError(f"nothing was sent: {counts}")
    return {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "sent": counts["sent"]}


def main() -> None:
    """Do the step that the specification says."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    figures = {"fill": fill, "claim": claim, "retention": retention, "drain": drain}[spec["do"]](spec)
    Path(spec["out"]).write_text(json.dumps(figures), encoding="utf-8")


main()

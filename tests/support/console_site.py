"""A site with the administrator's pages: its queue filled from outside, its visitors in groups."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mailqueue import audit, breaker, leases, liveness, outbox, problems, words
from mailqueue.classify import Failure
from mailqueue.compose import compose
from mailqueue.outbox import Finished, Outcome, Retention
from mailqueue.tables import TABLES
from mailqueue.terms import terms

from support.browser import Browser
from support.scaffold import ServedSite, Site, make_site

TRANSPORT = "smtp://mail.example.test:587"
MOUNT = "mail.enable_admin(auth, uses=(session, T, db), readers='auditors')"


class Queue:
    """The queue of a site, filled and emptied from outside."""

    def __init__(self, db: Any) -> None:
        self.db = db
        self.clock: Callable[[], float] = time.time

    def put(
        self,
        to: object = "ann@example.test",
        subject: str = "Hello",
        terms_given: Mapping[str, Any] | None = None,
        **content: Any,
    ) -> int:
        given = {"text": "Text", "html": None, "sender": "site@example.test", **content}
        composed = compose(to=to, subject=subject, domain="example.test", now=self.clock(), **given)
        agreed = terms(self.clock(), **(terms_given or {}))
        message_id = outbox.enqueue(self.db, composed, agreed, now=self.clock())
        self.db.commit()
        assert message_id
        return message_id

    def finish(self, message_id: int, **outcome: Any) -> int:
        """One attempt, with this outcome for every recipient."""
        now = self.clock()
        worker = leases.register(self.db, token="t", host_name="h", pid=1, journal="", now=now)
        everything = outbox.claim(self.db, worker, limit=1000, now=now + 1)
        [claimed] = [one for one in everything if one.id == message_id]
        outbox.release(self.db, [one for one in everything if one.id != message_id], now)
        outcomes = tuple(Outcome(recipient.id, **outcome) for recipient in claimed.recipients)
        done = Finished(message_id, claimed.token, TRANSPORT, now, 0.2345, outcomes)
        outbox.finish(self.db, [done], now, Retention())
        return message_id

    def failed(self, **message: Any) -> int:
        reply = "5.1.1 <script>alert('reply')</script>"
        return self.finish(
            self.put(**message),
            status=words.FAILED,
            stage=words.RCPT,
            failure_kind=words.RECIPIENT,
            code=550,
            enhanced="5.1.1",
            reply=reply,
        )

    def status(self, message_id: int) -> str:
        self.db.commit()
        return str(self.db.mailqueue_message(message_id).status)

    def recipients(self, message_id: int) -> dict[str, int]:
        """The recipients' rows by their addresses."""
        self.db.commit()
        table = self.db.mailqueue_recipient
        return {row.address: row.id for row in self.db(table.message_ref == message_id).select()}

    def clear(self) -> None:
        for table in TABLES:
            self.db(self.db[table].id > 0).delete()
        self.db.commit()

    @contextlib.contextmanager
    def paused(self, said: str = "5.7.8 <script>alert('detail')</script>") -> Iterator[None]:
        now = self.clock()
        failure = Failure(words.CONFIGURATION, words.AUTH, "auth-rejected", said, code=535)
        problems.report(self.db, failure, TRANSPORT, now)
        breaker.pause(self.db, TRANSPORT, [], stage=words.AUTH, reason=said, now=now)
        self.db.commit()
        try:
            yield
        finally:
            breaker.proved(self.db, TRANSPORT, self.clock())
            problems.resolve_way(self.db, TRANSPORT, self.clock())
            self.db.commit()


def registered(served: ServedSite, email: str, group: str = "") -> Browser:
    browser = served.browser()
    browser.register(email)
    if group:
        join(served.site, email, group)
    browser.login(email)
    return browser


def join(site: Site, email: str, group: str) -> None:
    with contextlib.closing(site.database()) as connection, connection:
        connection.execute(
            "INSERT INTO auth_user_tag_groups (tagpath, record_id) SELECT ?, id FROM auth_user WHERE email=?",
            (group, email),
        )


def make_console_site(folder: Path, clock: float | None = None, **settings: Any) -> Site:
    """A site without a layout of its own, so that the pages are in ours.

    Args:
        folder: a temporary one.
        clock: epoch seconds at which the time stands still; None: it goes on.
        settings: of the site.
    """
    still = f"mail.site.clock = lambda: {clock!r}\n" if clock is not None else ""
    site = make_site(folder, settings={"VERIFY_EMAIL": False, **settings}, extra_common=f"{still}{MOUNT}")
    layout = site.folder / "templates" / "layout.html"
    layout.rename(site.folder / "templates" / "another.html")
    auth = site.folder / "templates" / "auth.html"
    auth.write_text(auth.read_text(encoding="utf-8").replace("layout.html", "another.html"), encoding="utf-8")
    return site


def fill(queue: Queue, now: float) -> dict[str, int]:
    """A bit of everything that the pages show, at a time that stands still.

    Args:
        now: epoch seconds.

    Returns:
        The messages by what became of them.
    """
    queue.clock = lambda: now
    made = {}
    for age, subject, to in _SENT:
        queue.clock = lambda age=age: now - age - 1.4  # type: ignore[misc]
        message_id = queue.put(to=to, subject=subject)
        queue.clock = lambda age=age: now - age  # type: ignore[misc]
        made["sent"] = queue.finish(
            message_id,
            status=words.SENT,
            code=250,
            enhanced="2.0.0",
            reply="2.0.0 Ok: queued",
        )
    queue.clock = lambda: now - 5400
    refused = {"stage": words.RCPT, "code": 550, "enhanced": "5.1.1", "failure_kind": words.RECIPIENT}
    made["failed"] = queue.finish(
        queue.put(to="jon.smith@exmaple.test", subject="Your order 2041 has shipped"),
        status=words.FAILED,
        cause="unknown-address",
        reply="5.1.1 <jon.smith@exmaple.test>: Recipient address rejected: User unknown",
        **refused,
    )
    queue.clock = lambda: now - 2400
    made["deferred"] = queue.finish(
        queue.put(to="mia@busy.example.test", subject="Invoice 1187"),
        status=words.DEFERRED,
        due=now + 1260,
        stage=words.RCPT,
        failure_kind=words.TRANSIENT,
        cause="server-deferred",
        code=451,
        enhanced="4.3.2",
        reply="4.3.2 We are taking stock, please come back in half an hour",
    )
    queue.clock = lambda: now - 1500
    made["in_doubt"] = queue.finish(
        queue.put(to="leo@example.test", subject="Minutes of the meeting"),
        status=words.IN_DOUBT,
        failure_kind=words.IN_DOUBT,
        cause="no-reply-to-dot",
        reply="the connection ended before the server answered",
    )
    queue.clock = lambda: now - 95
    made["queued"] = queue.put(
        to=["ann@example.test", "bob@example.test"],
        subject="Welcome aboard",
        text="Hello Ann, hello Bob,\n\nwelcome aboard.\n",
        html='<h1 style="color:#a33">Hello Ann, hello Bob</h1><p>Welcome aboard.</p>',
    )
    queue.clock = lambda: now
    message, workers = queue.db.mailqueue_message, queue.db.mailqueue_worker
    for row in queue.db(message.id > 0).select():
        row.update_record(message_uid=f"<{row.id}@example.test>")
    queue.db(workers.id > 0).delete()
    workers.insert(pid=4711, host_name="web1", token="t", started_on=now - 7200, beat_on=now - 2)
    liveness.seen(queue.db, now - 2)
    audit.record(queue.db, "admin@example.test", audit.SHOW, now - 60, made["failed"])
    audit.record(queue.db, "admin@example.test", audit.RETRY, now - 30, made["deferred"])
    queue.db.commit()
    return made


_SENT = [
    (86400.0 * 4, "Newsletter, November", "ann@example.test"),
    (86400.0 * 2, "Newsletter, corrected", "bob@example.test"),
    *[(3600.0 * hour, f"Your ticket {2000 + hour}", f"guest{hour}@example.test") for hour in range(9, 0, -1)],
    (900.0, "Confirm your e-mail address", "zoe@example.test"),
]

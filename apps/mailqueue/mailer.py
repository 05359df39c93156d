"""What both frameworks' drop-in mailers share: queueing, sending now, draining, the administrator's log."""

from __future__ import annotations

import logging
import math
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from . import database, liveness, outbox, problems, queries, service, wakeup, words
from .classify import DeliveryError, Failure, SiteFault, classify_exception
from .compose import Composed, compose, parse_address
from .delivery import close, hand_over
from .limits import read_limits
from .outbox import Retention
from .problems import Problem
from .retry import RetryPolicy
from .site import Site
from .tables import define_tables
from .terms import DOUBTS, RESEND, Terms
from .transports.base import Answer, Transport
from .transports.capture import Captured
from .transports.configured import check_sender, transport_for
from .worker import drain

logger = logging.getLogger("mailqueue")

AUTH_EXPIRES_AFTER = 86400.0  # seconds; whoever waits for a link asks for another one by then
SILENCE_CHECK = 60.0  # seconds between two looks, by a process that queues, whether anybody sends


class MailQueue:
    """The queue behind a mailer, for a class that also inherits a framework's mailer.

    That class calls set_up_queue() once its `settings` are there, and translates its own send()'s
    arguments for queue() and send_now().
    """

    settings: Any
    db: Any
    captured: list[Captured]
    wakers: list[Callable[[int | None], object]]  # engines that wake() hints to

    def set_up_queue(
        self,
        db: Any,
        *,
        retry: RetryPolicy | None = None,
        retention: Retention | None = None,
        journals: str | None = None,
        connections: int = 4,
        limits: Mapping[str, str] | None = None,
        doubt: str = RESEND,
        auth_expires_after: float | None = AUTH_EXPIRES_AFTER,
        silence: float = liveness.SILENCE,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        """Define the tables and note what the worker needs; see the framework's mailer.

        Raises:
            TablesMissing: the tables are not there and the DAL may not create them.
            ValueError: doubt is neither "resend" nor "hold", connections is less than 1, or
                limits has an entry that makes no sense.
        """
        if isinstance(connections, bool) or not isinstance(connections, int) or connections < 1:
            raise ValueError(f"connections is {connections!r}, expected a whole number from 1 up")
        if doubt not in DOUBTS:
            raise ValueError(f"doubt is {doubt!r}, expected one of {DOUBTS}")
        limits_read = read_limits(limits)
        self.db = db
        self._auth_expires_after = auth_expires_after
        self._silence = silence
        self._looked_for_silence = -math.inf
        self.captured = []
        self.wakers = []
        self._of_thread = threading.local()
        define_tables(db)
        self.site = Site(
            db=db,
            make_transport=self._transport,
            sender=lambda: str(self.settings.sender or ""),
            announce=self.announce,
            journals=journals or _journal_folder(db),
            policy=retry or RetryPolicy(),
            retention=retention or Retention(),
            connections=connections,
            limits=limits_read,
            doubt=doubt,
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - jitter, nothing secret
        )

    def _transport(self) -> Transport:
        return transport_for(self.settings, self.captured)

    # --- results of this thread's last send ------------------------------------------------

    @property
    def error(self) -> Exception | None:
        """Why this thread's last send_direct_email() failed; None if it did not."""
        return getattr(self._of_thread, "error", None)

    @error.setter
    def error(self, error: Exception | None) -> None:
        self._of_thread.error = error

    @property
    def result(self) -> dict[str, tuple[int, str]]:
        """The recipients that this thread's last send_direct_email() did not reach: code and words."""
        return getattr(self._of_thread, "result", {})

    @result.setter
    def result(self, result: dict[str, tuple[int, str]]) -> None:
        self._of_thread.result = result

    # --- queueing --------------------------------------------------------------------------

    def compose(self, arguments: Mapping[str, Any]) -> Composed:
        """Make a message of framework-neutral arguments; see compose.compose().

        Raises:
            BadMessage: they cannot become a mail.
        """
        return compose(**arguments, domain=self._own_domain(), now=self.site.clock())

    def _own_domain(self) -> str:
        """The right side of a Message-ID: the sender's domain, or this host while there is none."""
        try:
            check_sender(self.settings.sender)
        except SiteFault:
            host = socket.gethostname()
            return host if host.isascii() and host else "localhost"
        return parse_address(self.settings.sender).spec.rpartition("@")[2].strip("[]")

    def queue(self, composed: Composed, terms: Terms) -> int | None:
        """Insert a message in the caller's transaction, and wake who sends it.

        Returns:
            Its id; None where another message holds its dedupe key.
        """
        message_id = outbox.enqueue(self.db, composed, terms, now=self.site.clock())
        if message_id is not None:
            self.wake(message_id)
        self._watch_for_silence()
        return message_id

    def wake(self, message_id: int | None = None) -> None:
        """Hint to whoever sends that there is something to do. In the caller's transaction, if there is one.

        Args:
            message_id: a message that the caller's transaction has queued; None: whatever is due.
        """
        with self.transaction():  # one left open would be taken for the host's by the next send()
            wakeup.announce(self.db)
        for waker in self.wakers:
            waker(message_id)

    def after_request(self, tell: Callable[[list[Any]], object], item: Any) -> bool:
        """Have `tell` called with all items noted for it, once this thread's request has committed.

        Returns:
            False where no request goes on, so that nobody tells when there is a commit.
        """
        return False

    def process_queue(
        self, until: float | None = None, stop: threading.Event | None = None
    ) -> dict[str, int]:
        """Send everything that is due. Commits on the site's DAL: not for the middle of a request.

        Args:
            until: epoch seconds after which no further message is begun.
            stop: when it is set, the messages at hand are finished and the rest is given back.

        Returns:
            How many messages came to which status: "sent", "deferred", "failed", "in_doubt", and
            "queued" for those given back untried.
        """
        return drain(self.site, until=until, stop=stop)

    def serve(self, stop: threading.Event) -> None:
        """Send mail as it comes, in this thread, until `stop` is set; see service.serve()."""
        service.serve(self.site, stop)

    def counts(self) -> dict[str, int]:
        """How many messages there are in each status."""
        return queries.counts(self.db)

    # --- whether anybody sends -------------------------------------------------------------

    def silence(self) -> float | None:
        """For how long mail has been due and no worker was seen, in seconds; None: all is well.

        Where it is not, that is entered in the problem log.
        """
        silent = liveness.silence(self.db, self.site.clock(), self._silence)
        if silent is not None:
            failure = Failure(words.CONFIGURATION, words.CONFIG, "no-worker", liveness.told(silent))
            self.note_problem(failure, "")
        return silent

    def _watch_for_silence(self) -> None:
        """Where nobody sends, a request that queues a mail may be the only one to notice."""
        if time.monotonic() - self._looked_for_silence < SILENCE_CHECK:
            return
        self._looked_for_silence = time.monotonic()
        try:
            with database.savepoint(self.db):
                self.silence()
        except Exception:
            logger.warning("whether anybody sends could not be told", exc_info=True)

    # --- sending now -----------------------------------------------------------------------

    def send_now(self, arguments: Mapping[str, Any]) -> bool:
        """Send a message at once, past the queue. Never raises; sets `error` and `result`.

        Returns:
            True if every recipient's server took it. A failure is entered in the problem log.
        """
        self.error, self.result = None, {}
        name = ""
        try:
            composed = self.compose(arguments)
            transport = self._transport()
            name = transport.name
            answers = self._over(transport, composed)
        except Exception as error:  # noqa: BLE001 - a visitor must never see a mail error
            return self.refuse_now(error, name)
        failed = [(answer.recipient, answer.failure) for answer in answers if answer.failure]
        self.result = {address: (failure.code or 0, failure.text) for address, failure in failed}
        if failed:
            self.error = DeliveryError(failed[0][1])
            self.note_problem(failed[0][1], name)
        return not failed

    def refuse_now(self, error: Exception, transport: str = "") -> bool:
        """Note why a message cannot be sent at once. Returns False."""
        self.error, self.result = error, {}
        self.note_problem(classify_exception(words.BUILD, error), transport)
        return False

    def _over(self, transport: Transport, composed: Composed) -> list[Answer]:
        try:
            transport.open()
        except BaseException as error:  # noqa: BLE001 - classify_exception raises it again if it is an exit
            failure = classify_exception(transport.stage, error)
            return [Answer.refused(address, failure) for _, address in composed.envelope.recipients]
        try:
            return hand_over(transport, composed.envelope, composed.mime, self.site.sender())
        finally:
            close(transport)

    # --- the administrator -----------------------------------------------------------------

    def note_problem(self, failure: Failure, transport: str) -> None:
        """Enter a failure in the problem log, in the caller's transaction or in one of its own.

        Never raises: what cannot be entered is logged.
        """
        try:
            with self.transaction(), database.savepoint(self.db):
                problem = problems.report(self.db, failure, transport, self.site.clock())
        except Exception:
            logger.exception("the problem log could not be written: %s", failure.text)
            return
        if problem:
            self.announce(problem)

    def note_refused(self, address: str, subject: str, reason: str, category: str) -> None:
        """Keep a message that could not be made as a failed one, for the administrator. Never raises."""
        try:
            with self.transaction(), database.savepoint(self.db):
                outbox.refuse(
                    self.db,
                    address=address,
                    subject=subject,
                    reason=reason,
                    category=category,
                    now=self.site.clock(),
                    retention=self.site.retention,
                )
        except Exception:
            logger.exception("a message that could not be made could not be noted either")

    def transaction(self) -> AbstractContextManager[None]:
        """The caller's transaction if there is one, else one of its own: a context manager."""
        return nullcontext() if self.in_host_transaction() else database.own_transaction(self.db)

    def in_host_transaction(self) -> bool:
        """Whether somebody else will commit or roll back what this thread writes."""
        return database.in_transaction(self.db)

    def announce(self, problem: Problem) -> None:
        """Tell the administrator of a new entry: Python's logging, at ERROR."""
        logger.error("%s", problem)


def _journal_folder(db: Any) -> str:
    folder = database.folder_of(db)
    if folder:
        return os.path.join(folder, "mailqueue_journals")
    return os.path.join(tempfile.gettempdir(), f"mailqueue_journals_{os.getuid()}_{db._uri_hash}")

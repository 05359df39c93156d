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
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from . import database, liveness, outbox, problems, queries, service, wakeup, words
from .arguments import shown
from .classify import DeliveryError, Failure, SiteFault, classify_exception
from .compose import Composed, compose, parse_address
from .direct import send_directly
from .errors import BadMessage
from .limits import read_limits
from .outbox import Retention
from .problems import Problem
from .retry import RetryPolicy, is_whole
from .signing.check import dkim_findings
from .signing.seal import Seal
from .signing.wanted import marked, wanted
from .site import Site
from .tables import define_tables
from .templated import TemplateMailer
from .terms import DOUBTS, RESEND, Terms, span, terms
from .transports.base import Transport
from .transports.capture import Captured
from .transports.configured import check_sender, described, server_described, transport_for, transport_of
from .transports.plan import Plan, Spec
from .worker import drain

logger = logging.getLogger("mailqueue")

AUTH_EXPIRES_AFTER = 86400.0  # seconds; whoever waits for a link asks for another one by then
SILENCE_CHECK = 60.0  # seconds between two looks, by a process that queues, whether anybody sends

_NONE = type(None)
_KINDS: Mapping[str, tuple[Any, str]] = {
    "retry": ((RetryPolicy, _NONE), "RetryPolicy(…)"),
    "retention": ((Retention, _NONE), "Retention(…)"),
    "journals": ((str, os.PathLike, _NONE), "the path of a folder"),
    "clock": (Callable, "a function without arguments"),
    "rng": ((random.Random, _NONE), "a random.Random"),
}


class MailQueue(TemplateMailer, ABC):
    """The queue behind a mailer, for a class that also inherits a framework's mailer.

    That class calls set_up_queue() once its `settings` are there, and translates its own send()'s
    arguments for queue() and send_now(), by neutral().
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
            UnsupportedDatabase: the site's database is of a kind that there is no SQL for.
            ValueError: an argument makes no sense; the text names it.
        """
        _require_kinds(retry=retry, retention=retention, journals=journals, clock=clock, rng=rng)
        if not is_whole(connections) or connections < 1:
            raise ValueError(f"connections is {connections!r}, expected a whole number from 1 up")
        if doubt not in DOUBTS:
            raise ValueError(f"doubt is {doubt!r}, expected one of {DOUBTS}")
        limits_read = read_limits(limits)
        self.db = db
        self._auth_expires_after = (
            None if auth_expires_after is None else span(auth_expires_after, "auth_expires_after")
        )
        self._silence = silence if silence == math.inf else span(silence, "silence")
        self._looked_for_silence = -math.inf
        self.captured = []
        self.wakers = []
        self._of_thread = threading.local()
        define_tables(db)
        self.site = Site(
            db=db,
            make_transport=self._transport,
            plan=self._plan,
            make_of_plan=self._transport_of,
            sender=lambda: str(self.settings.sender or ""),
            announce=self.announce,
            seal=Seal(self.configured),
            journals=os.fspath(journals) if journals else _journal_folder(db),
            policy=retry or RetryPolicy(),
            retention=retention or Retention(),
            connections=connections,
            limits=limits_read,
            doubt=doubt,
            clock=clock,
            rng=rng or random.Random(),  # noqa: S311 - jitter, nothing secret
        )

    # --- ways out --------------------------------------------------------------------------

    def configured(self) -> Any:
        """The settings as they were made."""
        return self.settings

    def _transport(self) -> Transport:
        return transport_for(self.configured(), self.captured)

    def _transport_of(self, spec: Spec) -> Transport:
        return self._placed(transport_of(spec, self.configured(), self.captured), spec)

    def _described(self, spec: Spec) -> Transport:
        return self._placed(described(spec, self.configured(), self.captured), spec)

    def _placed(self, made: Transport, spec: Spec) -> Transport:
        plan = self._plan()
        made.place = plan.place_of(spec) if plan else ""
        return made

    def _place_of(self, name: str) -> str:
        """The setting that describes the transport of this name; "" is the server."""
        with suppress(Exception):  # the settings may be spoilt meanwhile
            plan = self._plan()
            made = [self._described(spec) for spec in plan.leaves] if plan else []
            return next((one.place for one in made if one.name == name), "")
        return ""

    def _plan(self) -> Plan | None:
        settings = self.configured()
        if settings.transports is None and not settings.routes:
            return None
        if settings.transports is None:
            return Plan.of([self._transport], settings.routes, place="")
        return Plan.of(settings.transports, settings.routes)

    def known_ways(self) -> tuple[Plan, dict[Spec, str]]:
        """The ways out by today's settings, and the transports' names in their order.

        Of those only that a drain can use: it can make them, and no other before them has the same
        name. Where the settings make no sense, there is one way, and it has no name.
        """
        try:
            plan, make = self.site.ways_out()
        except SiteFault:
            return Plan(self._transport), {}
        names: dict[Spec, str] = {}
        for spec in plan.leaves:
            try:
                name = str(make(spec).name)
            except Exception as error:  # noqa: BLE001 - a drain enters it in the problem log
                logger.info("a transport has no name: %s", classify_exception(words.CONFIG, error).text)
                continue
            if name not in names.values():
                names[spec] = name
        return plan, names

    def transport_names(self) -> list[str]:
        """The names of the transports that a drain can use, in their order."""
        return list(self.known_ways()[1].values())

    def check_transports(self) -> None:
        """Enter in the problem log what is wrong with the ways out, dkim= and their files. Never raises."""
        for found in dkim_findings(self.settings.dkim, callables=False):
            if found.failure:
                self.note_problem(found.failure, "")
        try:
            plan = self._plan()
        except SiteFault as fault:
            self.note_problem(classify_exception(words.CONFIG, fault), "")
            return
        for make in self._known_so_far(plan):
            self._check_transport(make)

    def _check_transport(self, make: Callable[[], Transport]) -> None:
        name = ""
        try:
            made = make()
            name = str(made.name)
            made.check_files()
        except BaseException as error:  # noqa: BLE001 - whatever a function raises, the site starts
            self.note_problem(classify_exception(words.CONFIG, error), name)

    def _known_so_far(self, plan: Plan | None) -> list[Callable[[], Transport]]:
        """What makes the ways out that are set when the site starts; the sender may still be missing."""
        settings = self.configured()
        leaves = plan.leaves if plan else ()
        known: list[Callable[[], Transport]] = [
            partial(self._described, leaf) for leaf in leaves if leaf != self._transport
        ]
        if settings.transports is None and settings.server:
            known.append(partial(server_described, settings, self.captured))
        return known

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

        Args:
            arguments: those, and `protection`: the stock mailers' for S/MIME and OpenPGP.

        Raises:
            BadMessage: they cannot become a mail.
        """
        plain = {name: value for name, value in arguments.items() if name != "protection"}
        asked = wanted(arguments.get("protection", {}), self.settings)
        composed = compose(**plain, domain=self.own_domain(), now=self.site.clock())
        return composed if asked is None else replace(composed, mime=marked(composed.mime, asked))

    @abstractmethod
    def neutral(self, **given: Any) -> dict[str, Any]:
        """The arguments of the framework's send() as those of compose().

        Raises:
            BadMessage: they ask for what cannot be done.
        """

    def composed(self, given: Mapping[str, Any]) -> Composed:
        """Make a message of the arguments of the framework's send().

        Raises:
            BadMessage: they cannot become a mail, or an object among them raised something itself.
        """
        try:
            return self.compose(self.neutral(**given))
        except BadMessage:
            raise
        except Exception as problem:
            raise BadMessage(
                f"An argument of send() raised {type(problem).__name__} when it was read."
            ) from problem

    def own_domain(self) -> str:
        """The right side of a Message-ID: the sender's domain; while there is none, the site's or ours."""
        return _domain_of(str(self.settings.sender or "")) or self.site_host() or _this_host()

    def site_host(self) -> str:
        """The host that links in mails lead to; "" where that is not known here."""
        return ""

    def queue(self, composed: Composed, terms: Terms) -> int | None:
        """Insert a message in the caller's transaction, and wake who sends it.

        Returns:
            Its id; None where another message holds its dedupe key.
        """
        message_id = outbox.enqueue(self.db, composed, terms, now=self.site.clock())
        if message_id is not None:
            self.hint(message_id)
        self._watch_for_silence()
        return message_id

    def queue_for_auth(
        self, make: Callable[[], Mapping[str, Any]], on_terms: Mapping[str, Any], to: str = ""
    ) -> None:
        """Queue a mail of Auth's. Whatever is wrong with it is not the visitor's business.

        Args:
            make: returns the arguments of the framework's send() that make the mail.
            on_terms: those of terms.terms(); what Auth's mails usually have is added.
            to: whom it is for, should `make` fail.

        Raises:
            Exception: the database failed, and undid what the request did before.
        """
        usual = {"priority": words.URGENT, "category": "auth", "expires_after": self._auth_expires_after}
        on_terms = {**usual, **on_terms}
        given: Mapping[str, Any] = {"to": to, "subject": ""}
        in_host_transaction = self.in_host_transaction()
        try:
            given = make()
            composed = self.composed(given)
            agreed = terms(self.site.clock(), **on_terms)
            with self.transaction(), database.savepoint(self.db):
                self.queue(composed, agreed)
        except Exception as error:
            if in_host_transaction and database.has_undone_all(self.db, error):
                raise  # the account is gone too, and nobody may be told that it is there
            logger.exception("a mail of Auth could not be queued")
            failure = Failure(words.MESSAGE, words.BUILD, "auth-mail-not-queued", str(error)[:500])
            self.note_problem(failure, "")
            self.note_refused(
                shown(given["to"]), shown(given["subject"]), failure.text, shown(on_terms["category"])
            )

    def wake(self, message_id: int | None = None) -> None:
        """Hint to whoever sends that there is something to do. In the caller's transaction, if there is one.

        What enqueue() inserts has told our own workers by itself.

        Args:
            message_id: a message that the caller's transaction has queued; None: whatever is due.
        """
        with self.transaction():  # one left open would be taken for the host's by the next send()
            wakeup.announce(self.db)
        self.hint(message_id)

    def hint(self, message_id: int | None) -> None:
        """Hint to the engines beside our own workers. In the caller's transaction.

        Args:
            message_id: a message that the caller's transaction has queued; None: whatever is due.
        """
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
            True if every recipient's server took it. Each failure is entered in the problem log once.
        """
        self.error, self.result = None, {}
        try:
            answers = send_directly(self.site, self.compose(arguments))
        except Exception as error:  # noqa: BLE001 - a visitor must never see a mail error
            return self.refuse_now(error)
        failed = [(name, answer.recipient, answer.failure) for name, answer in answers if answer.failure]
        self.result = {address: (failure.code or 0, failure.text) for _, address, failure in failed}
        self.error = DeliveryError(failed[0][2]) if failed else None
        causes = {(name, failure.rule): failure for name, _, failure in failed}
        for (name, _), failure in causes.items():
            self.note_problem(failure, name)
        return not failed

    def refuse_now(self, error: Exception) -> bool:
        """Note why a message cannot be sent at once. Returns False."""
        self.error, self.result = error, {}
        self.note_problem(classify_exception(words.BUILD, error), "")
        return False

    # --- the administrator -----------------------------------------------------------------

    def note_problem(self, failure: Failure, transport: str) -> None:
        """Enter a failure in the problem log, in the caller's transaction or in one of its own.

        Never raises: what cannot be entered is logged.
        """
        try:
            with self.transaction(), database.savepoint(self.db):
                now, place = self.site.clock(), self._place_of(transport) if transport else ""
                problem = problems.report(self.db, failure, transport, now, place)
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


def _require_kinds(**given: object) -> None:
    for name, value in given.items():
        kind, expected = _KINDS[name]
        if not isinstance(value, kind):
            raise ValueError(f"{name} is {value!r}, expected {expected}")


@lru_cache(maxsize=16)  # a site has one sender, and thousands of messages
def _domain_of(sender: str) -> str:
    try:
        check_sender(sender)
    except SiteFault:
        return ""
    return parse_address(sender).spec.rpartition("@")[2].strip("[]")


def _this_host() -> str:
    host = socket.gethostname()
    return host if host.isascii() and host else "localhost"


def _journal_folder(db: Any) -> str:
    folder = database.folder_of(db)
    if folder:
        return os.path.join(folder, "mailqueue_journals")
    return os.path.join(tempfile.gettempdir(), f"mailqueue_journals_{os.getuid()}_{db._uri_hash}")

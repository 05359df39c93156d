"""QueuedMail: web2py's Mail, with a queue behind it."""

from __future__ import annotations

import inspect
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gluon import current
from gluon.tools import Auth, Mail

from .. import compose
from ..arguments import PROTECTION, neutral, text_and_html
from ..callers import called_by
from ..errors import BadMessage
from ..liveness import SILENCE
from ..mailer import AUTH_EXPIRES_AFTER, MailQueue
from ..outbox import Retention
from ..pending_accounts import EXPIRES_AFTER, Approvers
from ..rendering import templates_of
from ..retry import RetryPolicy
from ..signing.dkim import DkimKey
from ..tables import TABLES, attach_tables
from ..terms import RESEND, terms
from ..transports.plan import Route, Spec
from . import worker
from .approval import Approval
from .approval_pages import ApprovalPages
from .console import Console
from .pages import Pages
from .request import in_web_request
from .scheduler import SendingTask
from .settings import MailSettings

# Databases that this process has set up, and one of pydal's table files for each: web2py makes a DAL for
# every request, and a developer may delete all of its files meanwhile.
_set_up: dict[tuple[str, str], str | None] = {}


class QueuedMail(MailQueue, Mail):  # type: ignore[misc]  # web2py has no type hints
    """A drop-in for gluon.tools.Mail whose send() only inserts into the database.

    Args:
        db: the site's DAL, of this request; the tables mailqueue_* are made in it.
        server: host:port of the mail server; "aws" is Amazon SES; "logging" and "logging:FILE" send nothing.
        sender: the site's sender, "a@b.org" or "Site <a@b.org>".
        login: "user:password", or None.
        tls: STARTTLS. The certificate is verified.
        ssl: TLS from the start (port 465). The certificate is verified.
        transports: the ways out, in order of preference, instead of server, login, tls and ssl: URLs,
            functions that make a transport, failover(…) and roundrobin(…) of such; see transports/urls.py.
        routes: which messages go out over transports of their own: route(…), the first that fits.
        dkim: keys to sign what leaves with: dkim_key(…), see docs/signing.md.
        ca_file: path of the certificates to trust (PEM) instead of the system's.
        retry: when to try again, and when to give up.
        retention: how long sent and failed messages are kept.
        journals: a folder on this host's disk for the workers' journals; in the application's folder
            databases by default.
        connections: how many connections to the mail server a worker opens at most; as many as the
            waiting mail is worth.
        limits: what may be sent in which time, by all workers together; see limits.read_limits().
        doubt: what to do with a message that a server may have taken without saying so: "resend", at
            the risk of a duplicate, or "hold" until an administrator decides.
        auth_expires_after: seconds after which a mail of Auth's is not worth sending; None: never.
        silence: seconds without any worker, while mail is due, after which that is reported.
        clock: the time, epoch seconds.
        rng: where the jitter of delays comes from.

    All of the stock mailer's settings stay in `.settings` and may be changed in any model; they are read
    when mail is sent. `settings.timeout` is None: as long as RFC 5321 asks for. `settings.server` is
    true even where none is configured. Two more are for mails made of templates: `settings.site`, what
    they call the site, and `settings.language`, for recipients whose language is not known.

    Raises:
        TablesMissing: the DAL was opened with migrate=False and the tables are not there.
        ValueError: an argument from `retry` on makes no sense; the text names it.
    """

    Attachment = compose.Attachment

    def __init__(
        self,
        db: Any,
        server: str | None = None,
        sender: str | None = None,
        login: str | None = None,
        tls: bool = True,
        ssl: bool = False,
        *,
        transports: Sequence[Spec] | None = None,
        routes: Sequence[Route] | None = None,
        dkim: Sequence[DkimKey] | None = None,
        ca_file: str | None = None,
        retry: RetryPolicy | None = None,
        retention: Retention | None = None,
        journals: str | None = None,
        connections: int = 4,
        limits: Mapping[str, str] | None = None,
        doubt: str = RESEND,
        auth_expires_after: float | None = AUTH_EXPIRES_AFTER,
        silence: float = SILENCE,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ):
        first = not _is_set_up(db)
        if not first:
            attach_tables(db)
        self.set_up_queue(
            db,
            retry=retry,
            retention=retention,
            journals=journals,
            connections=connections,
            limits=limits,
            doubt=doubt,
            auth_expires_after=auth_expires_after,
            silence=silence,
            clock=clock,
            rng=rng,
        )
        _note_set_up(db)
        super().__init__(server=server, sender=sender, login=login, tls=tls)
        self.settings = MailSettings(self.settings)
        self.settings.add(ca_file=ca_file, transports=transports, routes=routes, dkim=dkim)
        self.settings.add(logger=logging.getLogger("web2py"), site=None, language=None)
        self.settings.ssl = ssl
        self.settings.timeout = None
        self.templates = templates_of(current.request.folder)
        if first:
            self.check_transports()

    def configured(self) -> Any:
        """The settings as they were made, a server that is not set being None."""
        return self.settings.configured()

    # --- the stock mailer's interface ------------------------------------------------------

    def send(self, *arguments: Any, **keywords: Any) -> bool:
        """Queue a message; it is sent after the request's transaction has committed.

        The arguments are those of this web2py's own Mail.send(), in its order and with its meaning, and
        `encoding`, which newer ones do not have. Secrets among them, sign_passphrase and keys, are refused
        unless they are the settings': they are not for the database. Outside of a web request, with no
        transaction open, the message is committed at once.

        Args:
            arguments, keywords: besides web2py's the terms of terms.terms(): priority, category,
                send_at, expires_after, dedupe, dedupe_window and doubt.

        Returns:
            True, also where `dedupe` says that the message is queued already, and for whatever Auth
            sends. False where the arguments cannot become a mail: `error` says why, and the problem log.
        """
        bound = _SIGNATURE.bind(self, *arguments, **keywords)
        bound.apply_defaults()
        given = {name: bound.arguments[name] for name in _TAKEN}
        wanted = {name: bound.arguments[name] for name in _TERMS}
        on_terms = {name: value for name, value in wanted.items() if value is not None}
        self.error, self.result = None, {}
        if called_by(Auth):
            self.queue_for_auth(lambda: given, on_terms)
            return True
        try:
            composed = self.composed(given)
            agreed = terms(self.site.clock(), **on_terms)
        except BadMessage as error:
            return self.refuse_now(error)
        with self.transaction():
            self.queue(composed, agreed)
        return True

    def send_direct_email(self, *arguments: Any, **keywords: Any) -> bool:
        """Send a message now, past the queue; the arguments are send()'s.

        Returns:
            True if every recipient's server took it; else False, with `error` and `result` set, and
            the failure in the problem log. Never raises.
        """
        try:
            bound = _SIGNATURE.bind(self, *arguments, **keywords)
            bound.apply_defaults()
            given = self.neutral(**{name: bound.arguments[name] for name in _TAKEN})
        except Exception as error:  # noqa: BLE001 - a visitor must never see a mail error
            return self.refuse_now(error)
        return self.send_now(given)

    def neutral(
        self, message: Any = "[no message]", encoding: str = "utf-8", **further: Any
    ) -> dict[str, Any]:
        """The stock mailer's arguments as those of compose().

        Raises:
            BadMessage: they ask for what cannot be done.
        """
        text, html = text_and_html(message, encoding)
        if html is None and text is not None and not isinstance(message, (list, tuple)) and _is_html(text):
            text, html = None, text
        return neutral(self.settings, text=text, html=html, encoding=encoding, **further)

    # --- the rest of a site ----------------------------------------------------------------

    def enable_scheduler(self, scheduler: Any, period: int = 60) -> Callable[[], dict[str, int] | None]:
        """Have web2py's Scheduler send the mail.

        Args:
            scheduler: the site's gluon.scheduler.Scheduler.
            period: seconds between two runs.

        Returns:
            The task. The model must give it the name scheduler.TASK, unless the scheduler was made with
            a dictionary of tasks.
        """
        return SendingTask(self, scheduler, period).enable()

    def work(self) -> None:
        """Send mail as it comes, until SIGTERM or SIGINT: for a script that `web2py.py -S -M -R` runs."""
        worker.work(self)

    def enable_admin(self, auth: Any, role: str = "admin", readers: str | None = None) -> None:
        """Show the queue to the members of a group: plugin_mailqueue and appadmin/manage/mailqueue.

        Args:
            auth: the site's Auth.
            role: the group whose members may see the pages, and act.
            readers: the group whose members may see plugin_mailqueue, but neither act nor see contents; None:
                there is none.
        """
        Pages(self, auth, role, readers).enable()

    def visitor_languages(self) -> str:
        """What the request at hand says in Accept-Language; "" where there is no request."""
        return str(current.request.env.http_accept_language or "")

    def enable_approval(
        self,
        auth: Any,
        approvers: Approvers,
        base_url: str,
        *,
        expires_after: float = EXPIRES_AFTER,
        per_client: str | None = "20/hour",
        role: str = "admin",
        readers: str | None = None,
    ) -> None:
        """Ask approvers by mail about accounts that wait for approval.

        Args:
            auth: the site's Auth, with its tables defined.
            approvers: addresses, a function that returns them, or "group:NAME".
            base_url: the address of the application that links begin with, such as
                "https://your-domain.org/yourapp"; never what a visitor's request claims.
            expires_after: seconds for which the links hold.
            per_client: how many one visitor's network address may ask for; None: any number.
            role: the group whose members may see the list of those who wait, and decide.
            readers: the group whose members may see it only; None: there is none.

        Raises:
            ValueError: an argument makes no sense.
        """
        approval = Approval(self, auth, approvers, base_url, expires_after, per_client)
        current.plugin_mailqueue_approval = ApprovalPages(approval, Console(self, auth, role, readers))

    # --- whose transaction it is -----------------------------------------------------------

    def in_host_transaction(self) -> bool:
        """In a web request, web2py's; elsewhere, one that is open on this thread's connection."""
        return in_web_request() or super().in_host_transaction()


def _is_html(text: str) -> bool:
    return text.strip().startswith("<html") and text.strip().endswith("</html>")


def _is_set_up(db: Any) -> bool:
    key = (db._adapter.uri, db._adapter.folder or "")
    if key not in _set_up:
        return False
    table_file = _set_up[key]
    return table_file is None or os.path.exists(table_file)


def _note_set_up(db: Any) -> None:
    uri = str(db._adapter.uri)
    if not uri.startswith("sqlite:memory"):
        _set_up.setdefault((uri, db._adapter.folder or ""), getattr(db[TABLES[-1]], "_dbt", None) or None)


_STOCK = list(inspect.signature(Mail.send).parameters.values())
_KEYWORD = inspect.Parameter.KEYWORD_ONLY
_TERMS = ("priority", "category", "send_at", "expires_after", "dedupe", "dedupe_window", "doubt")
_FURTHER = [inspect.Parameter(name, _KEYWORD, default=None) for name in _TERMS]
if "encoding" not in inspect.signature(Mail.send).parameters:
    _FURTHER.append(inspect.Parameter("encoding", _KEYWORD, default="utf-8"))
_SIGNATURE = inspect.Signature([*_STOCK, *_FURTHER])
_NEUTRAL = {*inspect.signature(neutral).parameters} - {"settings", "text", "html", "protection"}
_TAKEN = {"message", *_NEUTRAL, *PROTECTION} & {*_SIGNATURE.parameters}
QueuedMail.send.__signature__ = _SIGNATURE  # type: ignore[attr-defined]  # for help()

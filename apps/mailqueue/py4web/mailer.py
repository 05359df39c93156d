"""QueuedMailer: py4web's Mailer, with a queue behind it."""

from __future__ import annotations

import inspect
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from py4web.utils.auth import Auth
from py4web.utils.mailer import Mailer

from .. import compose
from ..arguments import PROTECTION, neutral, text_and_html
from ..callers import called_by
from ..liveness import SILENCE
from ..mailer import AUTH_EXPIRES_AFTER, MailQueue
from ..outbox import Retention
from ..problems import Problem
from ..rendering import templates_of
from ..retry import RetryPolicy
from ..signing.dkim import DkimKey
from ..terms import RESEND, terms
from ..transports.plan import Route, Spec
from . import links, tickets, worker
from .auth_mailer import AuthMailer
from .request import RequestTransaction, accepted_languages
from .scheduler import SendingTask


class QueuedMailer(AuthMailer, MailQueue, Mailer):  # type: ignore[misc]  # py4web has no type hints
    """A drop-in for py4web.utils.mailer.Mailer whose send() only inserts into the database.

    Args:
        db: the site's DAL; the tables mailqueue_* are made in it.
        server: host:port of the mail server; "aws" is Amazon SES, "logging", "logging:FILE" and "memory"
            send nothing.
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
        journals: a folder on this host's disk for the workers' journals; beside the database's
            table files by default.
        connections: how many connections to the mail server a worker opens at most; as many as the
            waiting mail is worth.
        limits: what may be sent in which time, by all workers together: {"gmail.com": "20/minute",
            "*": "100/minute, 4 connections", "transport": "500/hour"}; see limits.read_limits().
        doubt: what to do with a message that a server may have taken without saying so: "resend", at
            the risk of a duplicate, or "hold" until an administrator decides.
        auth_expires_after: seconds after which a mail of Auth's is not worth sending; None: never.
        silence: seconds without any worker, while mail is due, after which that is reported.
        clock: the time, epoch seconds.
        rng: where the jitter of delays comes from.

    All of the stock mailer's settings stay in `.settings` and may be changed at any time; they are
    read when mail is sent. `settings.timeout` is None: as long as RFC 5321 asks for. Two more are for mails
    made of templates: `settings.site`, what they call the site (the sender's name by default), and
    `settings.language`, such as "de", for recipients whose language is not known.

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
        super().__init__(server=server, sender=sender, login=login, tls=tls, ssl=ssl)
        self.settings.timeout = None
        self.settings.ca_file, self.settings.dkim = ca_file, dkim
        self.settings.transports, self.settings.routes = transports, routes
        self.settings.base_url = None
        self._request = RequestTransaction.of(db)
        self.settings.site = self.settings.language = None
        self._app_name = tickets.loading_app()
        self.templates = templates_of(_folder_of(self._app_name))
        self._task: SendingTask | None = None
        worker.note(self, self._app_name)
        self.check_transports()

    # --- the stock mailer's interface ------------------------------------------------------

    def send(
        self,
        to: Any,
        subject: Any = "[no subject]",
        body: Any = "[no body]",
        sender: str | None = None,
        attachments: Any = None,
        cc: Any = None,
        bcc: Any = None,
        reply_to: Any = None,
        encoding: str = "utf-8",
        raw: bool = False,
        headers: Mapping[str, Any] = {},
        from_address: str | None = None,
        dkim: Any = None,
        list_unsubscribe: str | None = None,
        cipher_type: str | None = None,
        sign: Any = None,
        sign_passphrase: Any = None,
        encrypt: Any = None,
        x509_sign_keyfile: Any = None,
        x509_sign_chainfile: Any = None,
        x509_sign_certfile: Any = None,
        x509_crypt_certfiles: Any = None,
        x509_nocerts: Any = None,
        *,
        priority: int | None = None,
        category: str | None = None,
        send_at: datetime | float | None = None,
        expires_after: timedelta | float | None = None,
        dedupe: str | None = None,
        dedupe_window: timedelta | float = 86400.0,
        doubt: str | None = None,
    ) -> bool:
        """Queue a message; it is sent after the request's transaction has committed.

        The arguments are the stock mailer's, with its meaning. Outside a request that uses the db
        fixture, and with no transaction open, the message is committed at once.

        Args:
            to: one address or several, as are cc and bcc.
            subject: one line; lazy translations become text here.
            body: text, (text, html), None, or file-like objects in their places.
            sender: the envelope sender and From of this message instead of the site's.
            attachments: file names, Attachment objects, one or a list.
            encoding: of what comes as bytes.
            raw: the body as plain text, without attachments.
            headers: further headers.
            from_address: for the From header only.
            list_unsubscribe: a URL or an address.
            dkim: only what settings.dkim is anyway.
            cipher_type: "gpg" or "x509", with sign, encrypt and x509_…: as the stock mailer's, done when
                the message is sent. What is not given is taken from the settings then. Secrets,
                sign_passphrase and a key's text, have to be there: they are not stored with a message.
            priority: one of words.PRIORITIES; NORMAL, for Auth's mails URGENT.
            category: a word to find it by; "site", for Auth's mails "auth".
            send_at: not before; a datetime (without a time zone: the server's local time) or epoch
                seconds.
            expires_after: a timedelta or seconds after which it is not worth sending.
            dedupe: a key; of several messages with the same key within `dedupe_window` (a timedelta
                or seconds) only the first is queued.
            doubt: "resend" or "hold" for this message, instead of the site's `doubt`.

        Returns:
            True, also where `dedupe` says that the message is queued already.

        Raises:
            BadMessage: the arguments cannot become a mail. Never for mails that Auth sends: those
                are entered in the problem log instead.
        """
        given = {
            "to": to,
            "subject": subject,
            "body": body,
            "sender": sender,
            "attachments": attachments,
            "cc": cc,
            "bcc": bcc,
            "reply_to": reply_to,
            "encoding": encoding,
            "raw": raw,
            "headers": headers,
            "from_address": from_address,
            "list_unsubscribe": list_unsubscribe,
            "dkim": dkim,
            "cipher_type": cipher_type,
            "sign": sign,
            "sign_passphrase": sign_passphrase,
            "encrypt": encrypt,
            "x509_sign_keyfile": x509_sign_keyfile,
            "x509_sign_chainfile": x509_sign_chainfile,
            "x509_sign_certfile": x509_sign_certfile,
            "x509_crypt_certfiles": x509_crypt_certfiles,
            "x509_nocerts": x509_nocerts,
        }
        wanted: dict[str, Any] = {
            "priority": priority,
            "category": category,
            "send_at": send_at,
            "expires_after": expires_after,
            "dedupe": dedupe,
            "dedupe_window": dedupe_window,
            "doubt": doubt,
        }
        on_terms = {name: value for name, value in wanted.items() if value is not None}
        if called_by(Auth):
            self.queue_for_auth(lambda: given, on_terms)
            return True
        composed = self.composed(given)
        agreed = terms(self.site.clock(), **on_terms)
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
            given = {name: value for name, value in bound.arguments.items() if name in _NEUTRAL}
            neutral = self.neutral(**given)
        except Exception as error:  # noqa: BLE001 - a visitor must never see a mail error
            return self.refuse_now(error)
        return self.send_now(neutral)

    # --- the rest of a site ----------------------------------------------------------------

    def enable_scheduler(self, scheduler: Any, period: int = 60) -> None:
        """Have pydal's Scheduler send the mail; see scheduler.enable().

        Args:
            scheduler: the host's pydal.tools.scheduler.Scheduler; None (not in use) is fine.
            period: seconds between two runs while no mail is sent.
        """
        if scheduler is not None:
            self._task = SendingTask(self, scheduler, period, self._app_name)

    def hint(self, message_id: int | None) -> None:
        """Have the scheduler's task, if there is one, run now, and tell other engines."""
        if self._task:
            self._task.wake()
        super().hint(message_id)

    # --- translation -----------------------------------------------------------------------

    def neutral(self, body: Any = "[no body]", encoding: str = "utf-8", **further: Any) -> dict[str, Any]:
        """The stock mailer's arguments as those of compose().

        Raises:
            BadMessage: they ask for what cannot be done.
        """
        text, html = _text_and_html(body, encoding)
        return neutral(self.settings, text=text, html=html, encoding=encoding, **further)

    # --- what of the request and the app matters to mails ---------------------------------

    def visitor_languages(self) -> str:
        """What the request at hand says in Accept-Language; "" where there is no request."""
        return accepted_languages()

    def site_host(self) -> str:
        """The host that links lead to: settings.base_url's, or the request's where it is trusted."""
        return links.host(self.settings.base_url)

    # --- whose transaction, and whose log --------------------------------------------------

    def in_host_transaction(self) -> bool:
        """In a request, the db fixture's; elsewhere, one that is open on this thread's connection."""
        return self._request.active or super().in_host_transaction()

    def after_request(self, tell: Callable[[list[Any]], object], item: Any) -> bool:
        """Have `tell` called with all items noted for it, once the db fixture has committed."""
        return self._request.after_success(tell, item)

    def announce(self, problem: Problem) -> None:
        """Tell the administrator: Python's logging at ERROR, and a ticket on py4web's dashboard."""
        super().announce(problem)
        tickets.issue(self._app_name, problem)


_SIGNATURE = inspect.signature(QueuedMailer.send)
_NEUTRAL = frozenset(inspect.signature(neutral).parameters) | {"body", *PROTECTION}


def _folder_of(app_name: str) -> Path | None:
    apps = os.environ.get("PY4WEB_APPS_FOLDER")
    return Path(apps, app_name) if apps else None


def _text_and_html(body: Any, encoding: str) -> tuple[str | None, str | None]:
    """The two bodies, as the stock mailer tells them apart, which takes only <html>…</html> for HTML."""
    text, html = text_and_html(body, encoding)
    if text is None and html is not None and not html.lstrip().startswith("<"):
        return html, None  # what is no HTML is text, wherever it stands
    return text, html

"""The administrator's pages: messages, one message, its content, the problem log.

They are mounted in the host, below its own URL and inside its own layout. One function for each
page and one for each verb. The pages only read; a verb is one POST of a signed URL, one call of
the outbox, one flash, and a redirect back.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ombott import static_file
from py4web import HTTP, URL, action, redirect, request, response
from py4web.core import Fixture, Session, Template, Translator
from py4web.utils.url_signer import URLSigner
from pydal.tools.tags import Tags
from yatl.helpers import BUTTON, FORM, SPAN, A

from .. import ledger, liveness, outbox, queries, words
from ..tables import local_time
from ..version import __version__

PACKAGE = Path(__file__).resolve().parent.parent
TEMPLATES = PACKAGE / "templates"
STATIC = PACKAGE / "static"

# Each page and where it is, below the route; each verb is a POST below a message's page.
PAGES = {
    "messages": "",
    "message": "/message/<message_id:int>",
    "content": "/message/<message_id:int>/content",
    "problems": "/problems",
    "held": "/held",
}
VERBS = ("retry", "cancel", "arrived")
FORGET = "/held/<lesson_id:int>/forget"  # the verb of the page of what is held back
HEALTH = "/health"  # for monitoring: no login

ROWS = 50  # messages on one page
SIGNATURE_LIFESPAN = 3600  # seconds: how long after loading a page its buttons work

LABELS = {
    words.QUEUED: "queued",
    words.SENDING: "sending",
    words.DEFERRED: "deferred",
    words.SENT: "sent",
    words.FAILED: "failed",
    words.IN_DOUBT: "in doubt",
    words.SUPPRESSED: "suppressed",
    words.CANCELLED: "cancelled",
    words.EXPIRED: "expired",
}
CAN_RETRY = frozenset({words.DEFERRED, words.FAILED, words.IN_DOUBT, words.CANCELLED, words.EXPIRED})
CAN_CANCEL = words.PENDING

MEANINGS = {
    words.QUEUED: "It waits for a worker.",
    words.SENDING: "A worker is sending it at this moment.",
    words.DEFERRED: "It could not be delivered to everybody yet and is tried again by itself.",
    words.SENT: "A mail server took it for every recipient.",
    words.FAILED: "Somebody will not get it unless you retry.",
    words.IN_DOUBT: "It was sent, but the server's answer never came. Ask a recipient whether it arrived:"
    " retrying may deliver it twice.",
    words.CANCELLED: "It was stopped before everybody had it.",
    words.EXPIRED: "Its time was over before it could be delivered.",
}

# Put before a mail's HTML: nothing of it is fetched from anywhere, so that no sender learns of the look.
_NOTHING_REMOTE = (
    '<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"'
    " content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)


def enable(mail: Any, auth: Any, uses: Sequence[Any], route: str, role: str) -> None:
    """Mount the pages in the app that is being loaded.

    Args:
        mail: the QueuedMailer.
        auth: the host's Auth.
        uses: the host's fixtures; its Session signs the buttons, its Translator is for its layout.
        route: the path of the first page, below the app's own.
        role: the group (`Tags(db.auth_user, "groups")`) whose members may see the pages.
    """
    AdminPages(mail, auth, uses, route, role).mount()


class MembersOnly(Fixture):  # type: ignore[misc]  # py4web has no type hints
    """Lets the members of a group pass, sends anonymous visitors to the login page, refuses others.

    Args:
        auth: the host's Auth.
        role: the name of the group; membership in a group below it does not count.
    """

    def __init__(self, auth: Any, role: str):
        self.__prerequisites__ = [auth.user]
        self._auth = auth
        self._role = role

    def on_request(self, context: Any) -> None:
        """Refuse whoever is not a member.

        Raises:
            HTTP: 403.
        """
        # Looked up now: the host may make its groups after it has enabled the pages.
        db = self._auth.db
        table = f"{db.auth_user}_tag_groups"
        if table in db.tables:
            groups = Tags(db.auth_user, "groups", tag_table=db[table])
            if self._role in groups.get(self._auth.user_id):
                return
        raise HTTP(403, "These pages are for the administrators of this site's mail.")


@dataclass(frozen=True)
class Filter:
    """What the list of messages is to show; the names are those of the page's own URL."""

    status: str | None = None
    search: str | None = None
    before: int | None = None
    after: int | None = None

    @classmethod
    def of_request(cls) -> Filter:
        """What the URL asks for; what makes no sense is ignored."""
        query = request.query
        status = query.get("status")
        search = "".join(letter for letter in query.get("search", "") if letter.isprintable()).strip()
        return cls(
            status=status if status in words.MESSAGE_STATUSES else None,
            search=search[:200] or None,
            before=_id(query.get("before")),
            after=_id(query.get("after")),
        )


class AdminPages:
    """The pages of one host; see enable(). In the templates it is `mq`."""

    def __init__(self, mail: Any, auth: Any, uses: Sequence[Any], route: str, role: str):
        self._mail, self._auth, self._route = mail, auth, route.rstrip("/")
        session = next((fixture for fixture in uses if isinstance(fixture, Session)), auth.session)
        self._translator = next((fixture for fixture in uses if isinstance(fixture, Translator)), None)
        self._signer = URLSigner(session, lifespan=SIGNATURE_LIFESPAN)
        self._uses = [*uses, mail.db, auth.flash, MembersOnly(auth, role)]

    # --- mounting --------------------------------------------------------------------------

    def mount(self) -> None:
        """Bind every page and verb to its URL in the app that is being loaded."""
        for name, path in PAGES.items():
            self._mount_page(path, getattr(self, name), f"{name}.html")
        for name in VERBS:
            self._mount_verb(getattr(self, name))
        self._mount_forget()
        action(f"{self._route}/static/<fp:path>", method="GET")(_static)
        action(self._route + HEALTH, method="GET")(action.uses(self._mail.db)(self.health))

    def _mount_page(self, path: str, page: Callable[..., dict[str, Any]], template: str) -> None:
        @functools.wraps(page)
        def shown(**arguments: int) -> dict[str, Any]:
            response.headers["Cache-Control"] = "no-store"
            title = f"Mail: {page.__name__}"
            shown_now = SimpleNamespace(**page(**arguments))
            return {"mq": self, "page": shown_now, "title": title, "T": self._translator or str}

        # The template comes first, so that it is filled in last and has the host's flash and user.
        fixtures = action.uses(_template(template), *self._uses, self._signer)
        action(self._route + path, method="GET")(fixtures(shown))

    def _mount_verb(self, verb: Callable[[int], tuple[bool, str]]) -> None:
        @functools.wraps(verb)
        def done(message_id: int) -> None:
            changed, told = verb(message_id)
            self._auth.flash.set(told, _class="success" if changed else "warning")
            redirect(self._way_back(message_id))

        def asked_for(message_id: int) -> None:
            # Where the login page leads to when a button was pressed after the login had expired.
            back = A("message", _href=self.link("message", message_id))
            raise HTTP(405, f"Please use the button on the page of this {back}.", {"Allow": "POST"})

        path = f"{self._route}/message/<message_id:int>/{verb.__name__}"
        action(path, method="POST")(action.uses(*self._uses, self._signer.verify())(done))
        action(path, method="GET")(action.uses(*self._uses)(asked_for))

    def _mount_forget(self) -> None:
        def done(lesson_id: int) -> None:
            changed, told = self.forget(lesson_id)
            self._auth.flash.set(told, _class="success" if changed else "warning")
            redirect(self.link("held"))

        action(self._route + FORGET, method="POST")(action.uses(*self._uses, self._signer.verify())(done))

    def _way_back(self, message_id: int) -> str:
        if request.query.get("back") == "list":
            return self.link(**asdict(Filter.of_request()))
        return self.link("message", message_id)

    # --- monitoring ------------------------------------------------------------------------

    def health(self) -> dict[str, str]:
        """200, or 503 and the reason where mail is due and no worker was seen. Open to everybody."""
        response.headers["Cache-Control"] = "no-store"
        silent = self._mail.silence()
        if silent is None:
            return {"status": "ok"}
        response.status = 503
        return {"status": "failing", "reason": liveness.told(silent)}

    # --- pages -----------------------------------------------------------------------------

    def messages(self) -> dict[str, Any]:
        """The messages by status, the newest first."""
        db, chosen = self._mail.db, Filter.of_request()
        found = queries.messages(db, **{**asdict(chosen), "search": chosen.search or ""}, limit=ROWS + 1)
        more = len(found) > ROWS
        backwards = chosen.after is not None
        rows = found[1:] if more and backwards else found[:ROWS]
        newer = more if backwards else chosen.before is not None
        older = bool(rows) and (more or backwards)
        return {
            **self._state(),
            "chosen": chosen,
            "filter": asdict(chosen),
            "counts": queries.counts(db),
            "rows": rows,
            "newer": rows[0]["id"] if rows and newer else None,
            "older": rows[-1]["id"] if older else None,
        }

    def message(self, message_id: int) -> dict[str, Any]:
        """One message with its recipients and attempts, without its text."""
        return {**self._state(), "message": self._found(message_id)}

    def content(self, message_id: int) -> dict[str, Any]:
        """The text of one message, for whoever asked for it."""
        message = self._found(message_id)
        # Nor may a link in the mail lead the frame to another site.
        response.headers["Content-Security-Policy"] = "frame-src 'none'"
        response.headers["Referrer-Policy"] = "no-referrer"
        mime = self._stored(message_id)
        readable = _readable(mime) if mime is not None else None
        return {**self._state(), "message": message, "content": readable}

    def problems(self) -> dict[str, Any]:
        """The problem log, open entries first."""
        return {**self._state(), "rows": queries.problems(self._mail.db)}

    def held(self) -> dict[str, Any]:
        """What is held back for a limit, or because a server asked for less mail."""
        return {**self._state(), "rows": queries.held_back(self._mail.db, self._mail.site.clock())}

    def _state(self) -> dict[str, Any]:
        db = self._mail.db
        self._mail.silence()  # where nobody sends, that is an entry to be shown
        return {
            "stoppages": queries.stoppages(db),
            "open_problems": queries.open_problems(db),
            "any_held": queries.any_held_back(db, self._mail.site.clock()),
        }

    def _found(self, message_id: int) -> dict[str, Any]:
        message = queries.message(self._mail.db, message_id)
        if message is None:
            raise HTTP(404, "There is no message with this number, or not any more.")
        return message

    def _stored(self, message_id: int) -> bytes | None:
        try:
            return outbox.content(self._mail.db, message_id)
        except ValueError:
            return None  # purged, or damaged

    # --- verbs -----------------------------------------------------------------------------

    def retry(self, message_id: int) -> tuple[bool, str]:
        """Send again to whom it was not sent. Whether it changed anything, and what to tell."""
        if not outbox.retry(self._mail.db, message_id, self._mail.site.clock()):
            return False, "Nothing was changed: the message is sent, on its way, or its text is deleted."
        self._mail.wake()
        return True, f"Message {message_id} is back in the queue."

    def cancel(self, message_id: int) -> tuple[bool, str]:
        """Stop what is still waiting. Whether it changed anything, and what to tell."""
        site = self._mail.site
        if not outbox.cancel(self._mail.db, message_id, site.clock(), site.retention):
            return False, "Nothing was changed: the message is being sent, or not waiting any more."
        return True, f"Message {message_id} is cancelled."

    def arrived(self, message_id: int) -> tuple[bool, str]:
        """Take what is in doubt for sent. Whether it changed anything, and what to tell."""
        site = self._mail.site
        if not outbox.settle_doubt(self._mail.db, message_id, site.clock(), site.retention):
            return False, "Nothing was changed: nothing of this message is in doubt, or it is being sent."
        return True, f"Message {message_id} is marked as arrived."

    def forget(self, lesson_id: int) -> tuple[bool, str]:
        """Forget what a server's replies taught. Whether there was anything, and what to tell."""
        db, now = self._mail.db, self._mail.site.clock()
        name = ledger.forget(db, lesson_id)
        if name is None:
            return False, "Nothing was changed: it was forgotten already."
        outbox.let_through(db, name, now)
        self._mail.wake()
        return True, f"{held_name(name)} is sent to at full speed again."

    # --- parts of the pages ----------------------------------------------------------------

    def link(self, *parts: Any, **query: Any) -> str:
        """The absolute URL of a page; a layout may have a <base>. What is None is left out."""
        return str(URL(self._route, *parts, vars=query))

    def badge(self, status: str) -> Any:
        """A status in its colour."""
        return SPAN(LABELS.get(status, status), _class=f"mq-badge mq-{status}")

    def buttons(self, message: dict[str, Any], **query: Any) -> list[Any]:
        """What can be done with a message now; `query` goes with the signed URL."""
        verbs = []
        if message["status"] in CAN_RETRY and message["has_content"]:
            verbs.append(("retry", "Retry"))
        if message["status"] == words.IN_DOUBT:
            verbs.append(("arrived", "It arrived"))
        if message["status"] in CAN_CANCEL:
            verbs.append(("cancel", "Cancel"))
        return [self._button(message["id"], verb, label, query) for verb, label in verbs]

    def _button(self, message_id: int, verb: str, label: str, query: dict[str, Any]) -> Any:
        url = URL(self._route, "message", message_id, verb, vars=query, signer=self._signer)
        name = f"{label} message {message_id}"
        button = BUTTON(label, _class=f"mq-button mq-{verb}", _title=name, **{"_aria-label": name})
        return FORM(button, _method="post", _action=url)

    def forget_button(self, row: dict[str, Any]) -> Any:
        """The button that forgets the lesson of a row of held_back()."""
        url = URL(self._route, "held", row["lesson"]["id"], "forget", signer=self._signer)
        name = f"Forget what {held_name(row['name'])} taught"
        button = BUTTON("Forget", _class="mq-button", _title=name, **{"_aria-label": name})
        return FORM(button, _method="post", _action=url)

    def waiting(self, number: int) -> str:
        """How many recipients wait, as people read it."""
        return str(number) if number <= queries.MOST_COUNTED else f"more than {queries.MOST_COUNTED}"

    def now(self) -> float:
        """The site's time, epoch seconds."""
        return float(self._mail.site.clock())

    def ago(self, moment: float | None) -> str:
        """A stored time as seen from now; "" for None."""
        return "" if moment is None else relative(moment - self._mail.site.clock())

    def next_try(self, due: float) -> str:
        """When a waiting message is tried again, as seen from now."""
        return "now" if due <= self._mail.site.clock() else self.ago(due)

    def answer(self, row: dict[str, Any]) -> str:
        """What the mail server said of a recipient: code, enhanced code, its own words."""
        reply, enhanced = row["reply"] or "", row["enhanced"] or ""
        said = (row["code"], "" if reply.startswith(enhanced) else enhanced, reply)
        return " ".join(str(part) for part in said if part)

    def kilobytes(self, size: int | None) -> str:
        """A size in bytes as people read it."""
        return f"{(size or 0) / 1024:.1f} kB"

    def framed(self, html: str) -> str:
        """The HTML part of a mail as a document for a sandboxed frame."""
        return _NOTHING_REMOTE + html

    @property
    def stylesheet(self) -> str:
        """The URL of the pages' own style sheet, a new one for every version."""
        return self.link("static", "admin.css", v=__version__)

    local_time = staticmethod(local_time)
    labels = LABELS
    meanings = MEANINGS
    statuses = words.MESSAGE_STATUSES


def relative(seconds: float) -> str:
    """A span of time in words, such as "3 min ago" or "in 2 h".

    Args:
        seconds: from now; negative in the past.
    """
    span = abs(seconds)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if span >= size:
            told = f"{span // size:.0f} {unit}"
            return f"in {told}" if seconds > 0 else f"{told} ago"
    return "in a moment" if seconds > 0 else "just now"


def held_name(name: str) -> str:
    """A transport or domain of a limit as people read it."""
    return name.partition(":")[2]


def _id(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else None


def _static(fp: str) -> Any:
    return static_file(fp, root=str(STATIC))


def _template(name: str) -> Any:
    """A page inside the host's layout, or inside ours if the host has none."""
    layout = Path(os.environ["PY4WEB_APPS_FOLDER"], action.app_name, "templates", "layout.html")
    return Template(str(TEMPLATES / "admin" / name), path=None if layout.exists() else str(TEMPLATES))


def _readable(mime: bytes) -> dict[str, Any]:
    """The decoded headers and parts of a mail."""
    mail = message_from_bytes(mime, _class=EmailMessage, policy=policy.default)
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    return {
        "headers": [(name, str(value)) for name, value in mail.items()],
        "text": text.get_content() if text else None,
        "html": html.get_content() if html else None,
        "attachments": [
            (part.get_filename() or "?", part.get_content_type()) for part in mail.iter_attachments()
        ],
    }

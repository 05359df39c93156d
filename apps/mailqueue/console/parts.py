"""What the templates of the administrator's pages are put together from; there it is `mq`."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yatl.helpers import BUTTON, FORM, SPAN

from .. import queries, rulebook, words
from ..administration import LABELS, STORED, relative, said
from ..remedies import NO_MAIL_LOST, NO_WORKER, OF_TRANSPORTS, without_waiting
from ..stoppages import stoppages
from ..tables import local_time
from ..told import Told
from .refusals import Refusal
from .speech import Speech

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

# Put before a mail's HTML: nothing of it is fetched from anywhere, so that no sender learns of the look.
_NOTHING_REMOTE = (
    '<!DOCTYPE html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy"'
    " content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)

# The policy stops what these would load, but only after the browser has connected to the host.
_LOADING = re.compile(r"(</?)(?=(?:i?frame|object|embed|link|base|meta|portal)\b)", re.IGNORECASE)
_LEADING = re.compile(r"\bhref\s*=", re.IGNORECASE)

FAILURES = {
    words.CONFIGURATION: "configuration of the site",
    words.TRANSIENT: "temporary",
    words.RECIPIENT: "recipient",
    words.MESSAGE: "message",
    words.IN_DOUBT: "in doubt",
}
_VALUES: dict[str, dict[str, str]] = {"status": LABELS, "failure": FAILURES}
SPANS = {"hour": "The last hour", "day": "The last day", "week": "The last week"}

TITLES = {
    "overview": "Mail: overview",
    "messages": "Mail: messages",
    "problems": "Mail: problems",
    "held": "Mail: held back",
    "replies": "Mail: replies",
    "accounts": "Mail: pending accounts",
    "actions": "Mail: actions",
    "templates": "Mail: templates",
}
# Nobody may put a page into one of their own, and no form may lead elsewhere; no link in a mail may lead its
# frame anywhere. What else a page loads is the affair of the layout around it.
HOSTS_POLICY = "frame-ancestors 'none'; form-action 'self'; object-src 'none'; frame-src 'none'"


class Parts(Speech):
    """Links, buttons, times and texts, for a class that knows the framework.

    Args:
        mail: the mailer.
        translations: folders with the site's own translations.

    Attributes:
        has_accounts: whether there is a page of pending accounts, for this visitor.
        has_queue: whether there are the other pages, for this visitor.
    """

    def __init__(self, mail: Any, translations: Sequence[Path]):
        super().__init__(translations)
        self.mail = mail
        self.has_accounts, self.has_queue = False, True

    # --- what each framework does its own way ----------------------------------------------

    @abstractmethod
    def link(self, *parts: Any, **query: Any) -> str:
        """The absolute URL of a page; a layout may have a <base>. What is None is left out."""

    @abstractmethod
    def signed(self, *parts: Any, **query: Any) -> str:
        """The absolute URL of a verb; it holds for this visitor, for a while."""

    @abstractmethod
    def head(self, page: Any) -> Any:
        """What a page puts into the head of the layout around it."""

    @abstractmethod
    def may_act(self) -> bool:
        """Whether whoever makes this request may press buttons and see contents."""

    @abstractmethod
    def whose(self) -> str:
        """The address of the administrator whose request this is."""

    @abstractmethod
    def flash(self, told: str, changed: bool) -> None:
        """Have the next page tell what was done."""

    @abstractmethod
    def refusal(self, refusal: Refusal) -> Exception:
        """What to raise where something cannot be done: a page that says why, and what to do."""

    # --- where to go -----------------------------------------------------------------------

    def menu(self, page: Any) -> list[tuple[str, str, str]]:
        """The entries of the menu: the section's name, its label, its URL."""
        queue, held = self.has_queue, page.any_held or page.section == "held"
        entries = [
            (queue, "overview", "Overview", self.link("overview")),
            (queue, "messages", "Messages", self.link()),
            (queue, "problems", "Problems", self.link("problems")),
            (queue and held, "held", "Held back", self.link("held")),
            (queue, "replies", "Replies", self.link("replies")),
            (self.has_accounts, "accounts", "Pending accounts", self.link("accounts")),
            (queue, "actions", "Actions", self.link("actions")),
            (queue, "templates", "Templates", self.link("templates")),
        ]
        return [(section, label, url) for is_shown, section, label, url in entries if is_shown]

    def state(self) -> dict[str, Any]:
        """What every page shows."""
        db = self.mail.db
        self.mail.silence()  # where nobody sends, that is an entry to be shown
        return {
            "stoppages": stoppages(self.mail),
            "open_problems": queries.open_problems(db),
            "any_held": queries.any_held_back(db, self.now()),
            "may_act": self.may_act(),
        }

    # --- what to press ---------------------------------------------------------------------

    def button(self, label: str, name: str, url: str, kind: str = "", *fields: Any) -> Any:
        """A form with one button.

        Args:
            label: what it says.
            name: what it does, for those who do not see what stands around it.
            url: where it goes: a signed one.
            kind: its class.
            fields: inputs before the button.

        Returns:
            The form; "" for those who may only look.
        """
        if not self.may_act():
            return ""
        shown, does = self.say(label), self.say(name)
        if shown.casefold() not in does.casefold():  # WCAG 2.5.3: whoever speaks says what is to be seen
            does = f"{shown}: {does}"
        told = {"_aria-label": does, "_title": does}
        pressed = BUTTON(shown, _class=f"mq-button mq-{kind}" if kind else "mq-button", **told)
        return FORM(*fields, pressed, _method="post", _action=url)

    def badge(self, status: str) -> Any:
        """A status in its colour."""
        return SPAN(self.say(LABELS.get(status, status)), _class=f"mq-badge mq-{status}")

    # --- times and sizes -------------------------------------------------------------------

    def now(self) -> float:
        """The site's time, epoch seconds."""
        return float(self.mail.site.clock())

    def ago(self, moment: float | None) -> str:
        """A stored time as seen from now; "" for None."""
        return "" if moment is None else self.say(relative(moment - self.now()))

    def span(self, seconds: float) -> str:
        """How long something took, as people read it."""
        for size, text in ((86400, "{number} d"), (3600, "{number} h"), (60, "{number} min")):
            if seconds >= size:
                return self.say(text, number=int(seconds // size))
        return self.say("{seconds} s", seconds=f"{seconds:.1f}")

    def next_try(self, due: float) -> str:
        """When a waiting message is tried again, as seen from now."""
        return self.say("now") if due <= self.now() else self.ago(due)

    def waiting(self, number: int) -> str:
        """How many recipients wait, as people read it."""
        if number <= queries.MOST_COUNTED:
            return str(number)
        return self.say("more than {number}", number=queries.MOST_COUNTED)

    def many(self, number: int) -> str:
        """How many messages there are, as people read it."""
        return str(number) if number <= queries.MOST_LISTED else f"{queries.MOST_LISTED}+"

    def kilobytes(self, size: int | None) -> str:
        """A size in bytes as people read it."""
        return f"{(size or 0) / 1024:.1f} kB"

    # --- texts -----------------------------------------------------------------------------

    def framed(self, html: str) -> str:
        """The HTML part of a mail as a document for a sandboxed frame."""
        return _NOTHING_REMOTE + _LOADING.sub(r"\1x-", _LEADING.sub("x-href=", html))

    def remedy(self, remedy: str | None, waits: bool = True) -> str:
        """A stored remedy, in the language of this request.

        Args:
            remedy: as it is stored.
            waits: whether mail may wait for it, so that it is to be said that none is lost.
        """
        stored = remedy or ""
        own = without_waiting(stored)
        said = self.say(Told.read(own, OF_TRANSPORTS))
        return f"{said} {self.say(NO_MAIL_LOST)}" if waits and own != stored else said

    def stored(self, text: str | None) -> str:
        """A sentence that was stored with its values in it, in the language of this request."""
        return self.say(Told.read(text or "", STORED))

    def filters(self, asked: Mapping[str, str]) -> list[tuple[str, str]]:
        """What is asked for of messages, as people read it: names and values of Selection.query()."""
        return [(self.say(name), self._value(name, value)) for name, value in asked.items()]

    def _value(self, name: str, value: str) -> str:
        """What a filter looks for: a word of ours, or what somebody has typed."""
        label = _VALUES.get(name, {}).get(value)
        return value if label is None else self.say(label)

    local_time = staticmethod(local_time)
    answer = staticmethod(said)
    constant_part = staticmethod(rulebook.constant_part)
    to_have_a_worker = NO_WORKER.remedy
    labels = LABELS
    statuses = words.MESSAGE_STATUSES
    failures = FAILURES
    spans = SPANS


def posted(given: Mapping[str, Any], name: str) -> str:
    """A text of a form; "" where there is none, or a file was posted in its place."""
    value = given.get(name)
    return value if isinstance(value, str) else ""


def number(text: object) -> int | None:
    """A number of a URL or form; None: it is none, or greater than any id."""
    given = str(text or "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None

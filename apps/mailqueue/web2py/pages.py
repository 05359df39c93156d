"""The administrator's pages in web2py: the controller plugin_mailqueue, and appadmin/manage/mailqueue.

The pages only read; what an argument behind a page's name asks for is one POST of a button's URL, one call of
the queue, one flash, and a redirect back.
"""

from __future__ import annotations

import json
from typing import Any

from gluon import HTTP, current

from .. import administration, liveness
from ..console.actions import Actions
from ..console.bulk import REFRESHED, Bulk
from ..console.content import Content
from ..console.held import Held
from ..console.message import Message
from ..console.messages import Messages
from ..console.overview import Overview
from ..console.parts import number
from ..console.problems import Problems
from ..console.refusals import NO_ACTION
from ..console.replies import Replies
from ..console.templates import Templates
from ..mailer import MailQueue
from ..masking import masked
from ..tables import MESSAGE, PROBLEM, RECIPIENT
from .console import Console, asked

# web2py's grid exports in spite of csv=False, where its URL asks for it.
_EXPORTS = ("csv", "csv_with_hidden_cols", "tsv", "tsv_with_hidden_cols", "xml", "html", "json")
_READ_ONLY = {
    "create": False,
    "editable": False,
    "deletable": False,
    "csv": False,
    "exportclasses": {"*": dict.fromkeys(_EXPORTS, False)},  # of every table
}


class Pages:
    """The pages of one application, in one request.

    Args:
        mail: the mailer.
        auth: the application's Auth.
        role: the group whose members may see them, and act.
        readers: the group whose members may see them, but neither act nor see contents; None: there is none.
    """

    def __init__(self, mail: MailQueue, auth: Any, role: str, readers: str | None):
        self._mail, self._auth, self._role = mail, auth, role
        self.console = Console(mail, auth, role, readers)

    def enable(self) -> None:
        """Have the controller and appadmin find them."""
        current.plugin_mailqueue = self
        self._mail.db[MESSAGE].subject.represent = lambda subject, _row: masked(subject or "", "auth")
        # A new dictionary: the one that is there may be shared by every Auth of the process.
        self._auth.settings.manager_actions = dict(
            self._auth.settings.manager_actions or {},
            mailqueue={
                "role": self._role,
                "heading": "Mail queue",
                "tables": [MESSAGE, RECIPIENT, PROBLEM],
                "db": self._mail.db,
                "smartgrid_args": {"DEFAULT": {**_READ_ONLY, "linked_tables": []}},
            },
        )

    # --- how things stand ------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """Transports, workers, the queue, and the figures of the last hour, day and week."""
        self.console.admit()
        return self.console.page("overview", "overview", Overview(self.console).page(asked()))

    def test(self) -> dict[str, Any]:
        """What came of trying the ways out, and the keys."""
        self.console.admit()
        self.console.hold_to_buttons()
        self.console.release_session()  # a server may keep us waiting
        return self.console.page("test", "overview", Overview(self.console).test())

    def held(self) -> dict[str, Any]:
        """What is held back, and why."""
        self.console.admit()
        content, args = Held(self.console), current.request.args
        if not args:
            return self.console.page("held", "held", content.page())
        self.console.hold_to_buttons()
        if args(1) != "forget":
            raise self.console.refusal(NO_ACTION)
        raise self.console.done(content.forget(number(args(0)) or 0), self.console.link("held"))

    def actions(self) -> dict[str, Any]:
        """What administrators did, the latest first."""
        self.console.admit()
        return self.console.page("actions", "actions", Actions(self.console).page(asked()))

    def templates(self) -> dict[str, Any]:
        """Which mail templates there are, and in which languages."""
        self.console.admit()
        return self.console.page("templates", "templates", Templates(self.console).page())

    def template(self) -> dict[str, Any]:
        """One mail in one language, with made-up variables."""
        self.console.admit()
        name, language = (str(current.request.args(place) or "") for place in (0, 1))
        self.console.shows_mail()
        return self.console.page("template", "templates", Templates(self.console).one(name, language))

    def health(self) -> str:
        """200, or 503 and the reason where mail is due and no worker was seen. Open to everybody, as JSON."""
        current.response.headers["Cache-Control"] = "no-store"
        current.response.headers["Content-Type"] = "application/json"
        silent = self._mail.silence()
        current.response.status = 200 if silent is None else 503
        return json.dumps(liveness.health(silent))

    # --- messages --------------------------------------------------------------------------

    def messages(self) -> dict[str, Any]:
        """The messages by whatever is asked for, the newest first."""
        self.console.admit()
        content, wanted = Messages(self.console), asked()
        current.response.flash = content.misread(wanted) or current.response.flash
        return self.console.page("messages", "messages", content.page(wanted))

    def message(self) -> dict[str, Any]:
        """One message, with its recipients and attempts; its text, which may hold live links, on request."""
        self.console.admit()
        content, args = Message(self.console), current.request.args
        message_id = number(args(0)) or 0
        if len(args) < 2:
            return self.console.page("message", "messages", content.page(message_id))
        if args(1) == "content":
            return self._content(message_id)
        self.console.hold_to_buttons()
        if args(3) == "correct":
            return self._corrected(content, message_id, number(args(2)) or 0)
        done = content.do(args(1), message_id, current.request.post_vars)
        raise self.console.done(done, content.way_back(message_id, asked()))

    def _content(self, message_id: int) -> dict[str, Any]:
        content = Content(self.console)
        if current.request.env.request_method == "GET":
            self.console.hold_to_acting()
            return self.console.page("content", "messages", content.page(message_id))
        self.console.hold_to_buttons()
        self.console.shows_mail()
        return self.console.page("content", "messages", content.asked_for(message_id))

    def _corrected(self, content: Message, message_id: int, recipient_id: int) -> dict[str, Any]:
        shown = content.correct(message_id, recipient_id, current.request.post_vars)
        if shown is None:
            raise HTTP(303, Location=self.console.link("message", message_id))
        return self.console.page("message", "messages", shown)

    def export(self) -> str:
        """The messages of a selection as CSV."""
        self.console.admit()
        self.console.hold_to_buttons()
        headers = current.response.headers
        headers["Content-Type"] = "text/csv; charset=utf-8"
        headers["Content-Disposition"] = 'attachment; filename="mails.csv"'
        chosen = Bulk(self.console).chosen(asked())
        return administration.export(self._mail, chosen, self.console.whose())

    def bulk(self) -> dict[str, Any]:
        """What can be done to the messages of a selection at once, and to how many of them."""
        self.console.admit()
        self.console.hold_to_acting()
        content, verb = Bulk(self.console), current.request.args(0)
        if verb is None:
            return self.console.page("bulk", "messages", content.page(asked()))
        self.console.hold_to_buttons()
        raise HTTP(303, Location=content.begin(verb, asked()))

    def progress(self) -> dict[str, Any]:
        """How far one of them came."""
        self.console.admit()
        self.console.hold_to_acting()
        content, bulk_id = Bulk(self.console), number(current.request.args(0)) or 0
        if current.request.args(1) == "stop":
            self.console.hold_to_buttons()
            raise self.console.done(content.stop(bulk_id), self.console.link("progress", bulk_id))
        found = content.progress(bulk_id)
        if found["running"]:
            current.response.headers["Refresh"] = str(REFRESHED)
        return self.console.page("progress", "messages", found)

    # --- what is wrong, and what it means --------------------------------------------------

    def problems(self) -> dict[str, Any]:
        """The problem log, open entries first; failures, the most frequent first."""
        self.console.admit()
        content, args = Problems(self.console), current.request.args
        if not args:
            return self.console.page("problems", "problems", content.page())
        self.console.hold_to_buttons()
        verbs = {"acknowledge": content.acknowledge, "resolve": content.resolve}
        if args(1) not in verbs:
            raise self.console.refusal(NO_ACTION)
        raise self.console.done(verbs[args(1)](number(args(0)) or 0), self.console.link("problems"))

    def replies(self) -> dict[str, Any]:
        """What replies mean: the form to try one, the site's own rules, and what no rule knew."""
        self.console.admit()
        content = Replies(self.console)
        if not current.request.args:
            return self.console.page("replies", "replies", content.page())
        self.console.hold_to_buttons()
        match current.request.args:
            case ["try"]:
                return self.console.page("replies", "replies", content.tried(current.request.post_vars))
            case ["add"]:
                done = content.add(current.request.post_vars)
            case [rule, "remove"]:
                done = content.remove(number(rule) or 0)
            case _:
                raise self.console.refusal(NO_ACTION)
        raise self.console.done(done, self.console.link("replies"))

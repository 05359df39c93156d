"""The frame of the administrator's pages in web2py: who may come in, where links lead, filling in a page.

A verb is one POST of a URL that web2py signs for this visitor's login, one call of the queue, one flash, and
a redirect back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from gluon import HTTP, URL, current, redirect
from gluon.html import XML

from ..console.parts import HOSTS_POLICY, TEMPLATES, TITLES, Parts
from ..console.refusals import MAY_NOT_ACT, NO_MEMBER, NOT_SIGNED, Refusal
from ..filling import filled_in
from ..languages import Language
from ..rendering import escaped
from ..version import __version__

CONTROLLER = "plugin_mailqueue"
_ADMIN = TEMPLATES / "admin"
_LAYOUT = "layout.html"  # what the templates extend: here the application's, which web2py puts around them


class Console(Parts):
    """The frame of one application's pages, in one request. In the templates it is `mq`.

    Args:
        mail: the mailer.
        auth: the application's Auth.
        role: the group whose members may see the pages, and act.
        readers: the group whose members may see them, but neither act nor see contents; None: there is none.
    """

    def __init__(self, mail: Any, auth: Any, role: str, readers: str | None = None):
        super().__init__(mail, [Path(current.request.folder, "translations")])
        self._auth, self._role, self._readers = auth, role, readers
        self._memberships: dict[str, bool] = {}
        self._language: Language | None = None

    def language(self) -> Language:
        """The language of this request."""
        if self._language is None:
            self._language = self.best_language(self.mail.visitor_languages())
        return self._language

    # --- who -------------------------------------------------------------------------------

    def admit(self) -> None:
        """Go on only for whoever may see the pages.

        Raises:
            HTTP: to the login page and from there back, or 403.
        """
        if not self._auth.is_logged_in():
            # To the page itself: a path of this application's. To a button's URL nobody can be led.
            is_page = current.request.env.request_method == "GET"
            back = self._auth.here() if is_page else self.link()
            redirect(f"{self._auth.settings.login_url}?_next={quote(back, safe='')}")
        if not self.may_look():
            raise self.refusal(NO_MEMBER)
        headers = current.response.headers
        headers["Cache-Control"] = "no-store"
        headers["Content-Security-Policy"] = HOSTS_POLICY
        headers["Referrer-Policy"] = "same-origin"
        headers["Content-Language"] = self.language_tag
        current.response.view = f"{CONTROLLER}/page.html"

    def hold_to_acting(self) -> None:
        """Go on only for an administrator who may act.

        Raises:
            HTTP: 403.
        """
        if not self.may_act():
            raise self.refusal(MAY_NOT_ACT)

    def hold_to_buttons(self) -> None:
        """Go on only for a button that was made for this visitor, who may act.

        Raises:
            HTTP: 403.
        """
        self.hold_to_acting()
        request = current.request
        if request.env.request_method != "POST" or not URL.verify(request, user_signature=True):
            raise self.refusal(Refusal(NOT_SIGNED.status, NOT_SIGNED.told))

    def release_session(self) -> None:
        """Have no other request of this visitor wait for this one: a session in a file is locked meanwhile.

        What is put into the session afterwards is not kept.
        """
        current.session.forget(current.response)

    def shows_mail(self) -> None:
        """Have nobody learn the address of a page that shows a mail."""
        current.response.headers["Referrer-Policy"] = "no-referrer"

    def head(self, page: Any) -> str:
        """What a page puts into the head of the layout around it: nothing, web2py's have response.title."""
        return ""

    def may_act(self) -> bool:
        """Whether whoever makes this request may press buttons and see contents."""
        return self._is_member(self._role)

    def may_look(self) -> bool:
        """Whether whoever makes this request may see the pages."""
        return self.may_act() or bool(self._readers and self._is_member(self._readers))

    def _is_member(self, group: str) -> bool:
        """Whether whoever makes this request is in a group; web2py would ask the database for each button."""
        if group not in self._memberships:
            self._memberships[group] = bool(self._auth.has_membership(group))
        return self._memberships[group]

    def whose(self) -> str:
        """The address of the administrator whose request this is."""
        return str(self._auth.user.email)

    # --- where to go -----------------------------------------------------------------------

    def link(self, *parts: Any, **query: Any) -> str:
        """The URL of a page, by the function of the controller and its arguments."""
        return str(URL(CONTROLLER, _function(parts), args=parts[1:], vars=_given(query)))

    def signed(self, *parts: Any, **query: Any) -> str:
        """The URL of a verb; it holds for this visitor, for as long as the login does."""
        args, asked = parts[1:], _given(query)
        return str(URL(CONTROLLER, _function(parts), args=args, vars=asked, user_signature=True))

    def part(self, name: str) -> str:
        """The name of a template that others include."""
        return f"_{name}.html"

    @property
    def stylesheet(self) -> str:
        """The URL of the pages' own style sheet, a new one for every version."""
        return str(URL("static", f"{CONTROLLER}/admin.css", vars={"v": __version__}))

    @property
    def script(self) -> str:
        """The URL of the script that brings the overview anew."""
        return str(URL("static", f"{CONTROLLER}/refresh.js", vars={"v": __version__}))

    # --- what to answer --------------------------------------------------------------------

    def page(self, name: str, section: str, found: Mapping[str, Any]) -> dict[str, Any]:
        """A page for the view page.html.

        Args:
            name: of its template.
            section: the entry of the menu that it belongs to.
            found: what its template finds in `page`, besides state(); a "title" where it has its own.
        """
        self.has_queue = _is_open("plugin_mailqueue")
        self.has_accounts = _is_open("plugin_mailqueue_approval")
        page = {"title": TITLES[section], **self.state(), **found, "section": section}
        current.response.title = self.say(page["title"])
        given = {"mq": self, "page": SimpleNamespace(**page)}
        return {"page": XML(filled_in(f"{name}.html", given, _read, escaped))}

    def done(self, changed_and_told: tuple[bool, str], back: str) -> HTTP:
        """What to raise when a verb is done: the page to go back to, which says what came of it."""
        changed, told = changed_and_told
        self.flash(told, changed)
        return HTTP(303, Location=back)

    def flash(self, told: str, changed: bool) -> None:
        """Have the next page tell what was done."""
        current.session.flash = self.say(told)

    def refusal(self, refusal: Refusal) -> HTTP:
        """What to raise where something cannot be done: why, and what to do."""
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Cache-Control": "no-store",
            "Content-Language": self.language_tag,
        }
        body = f"{self.say(refusal.told)} {self.say(refusal.to_do)}".strip()
        return HTTP(refusal.status, body, **headers)


def asked() -> dict[str, str]:
    """The variables of this request's URL; of one that is there several times, the first."""
    found = current.request.get_vars
    return {name: str(found.getfirst(name, "")) for name in found}


def _is_open(name: str) -> bool:
    """Whether there are the pages of this name, and this visitor may see them."""
    pages = getattr(current, name, None)
    return pages is not None and bool(pages.console.may_look())


def _function(parts: tuple[Any, ...]) -> str:
    return str(parts[0]) if parts else "index"


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _read(file_name: str) -> str:
    return "[[include]]" if file_name == _LAYOUT else (_ADMIN / file_name).read_text(encoding="utf-8")

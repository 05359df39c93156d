"""What the administrator's pages have in common: mounting, the menu, the state on top of each."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ombott import static_file
from py4web import HTTP, action, redirect, response
from py4web.core import Session, Template, Translator
from py4web.utils.url_signer import URLSigner

from ... import liveness
from ...console.parts import HOSTS_POLICY, TEMPLATES, TITLES
from ...console.refusals import Refusal, not_by_link
from ...selection import Selection
from .fixtures import ActingOnly, MembersOnly, SignedOnly, Spoken
from .parts import Parts
from .refusals import answer

STATIC = TEMPLATES.parent / "static"
HEALTH = "/health"  # for monitoring: no login
SIGNATURE_LIFESPAN = 3600  # seconds: how long after loading a page its buttons work
SIGNED = [*Selection.__dataclass_fields__, "below", "shown"]  # what of a URL's variables says what is done
_SELF = "script-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'"
_OWN_POLICY = f"default-src 'none'; style-src 'self'; {_SELF}; {HOSTS_POLICY}"
# The frame that shows a mail inherits the policy of its page; a mail has its styles and pictures inside.
_OWN_POLICY_WITH_MAIL = (
    "default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; base-uri 'none'; "
    f"{HOSTS_POLICY}"
)

Verb = Callable[..., tuple[bool, str]]


class Console(Parts):
    """The pages of one host; see enable(). In the templates it is `mq`."""

    def __init__(self, mail: Any, auth: Any, uses: Sequence[Any], route: str, role: str, readers: str | None):
        session = next((fixture for fixture in uses if isinstance(fixture, Session)), auth.session)
        signer = URLSigner(session, variables_to_sign=SIGNED, lifespan=SIGNATURE_LIFESPAN)
        super().__init__(mail, route.rstrip("/"), signer, [app_folder() / "translations"])
        self.auth = auth
        self._translator = next((fixture for fixture in uses if isinstance(fixture, Translator)), None)
        members = MembersOnly(self, auth, role, readers)
        self._looking = [Spoken(self), *uses, mail.db, auth.flash, members]
        self._acting = [*self._looking, ActingOnly(self, members)]
        self._signed = [*self._acting, SignedOnly(self)]
        self._in_hosts_layout = host_has_layout()

    # --- mounting --------------------------------------------------------------------------

    def mount(self) -> None:
        """Bind what is no page to its URL in the app that is being loaded."""
        action(f"{self.route}/static/<fp:path>", method="GET")(static)
        action(self.route + HEALTH, method="GET")(action.uses(self.mail.db)(self.health))

    def mount_page(
        self, path: str, page: Callable[..., dict[str, Any]], template_name: str, section: str
    ) -> None:
        """Bind a page to its URL.

        Args:
            path: below the route.
            page: returns what its template finds in `page`, besides state(); a "title" where it has its own.
            template_name: in the folder of the administrator's templates.
            section: the entry of the menu that it belongs to.
        """
        self._mount_get(path, page, template_name, section, self._looking)

    def mount_acting_page(
        self, path: str, page: Callable[..., dict[str, Any]], template_name: str, section: str
    ) -> None:
        """Bind a page for those who may act only; the arguments are those of mount_page()."""
        self._mount_get(path, page, template_name, section, self._acting)

    def _mount_get(
        self,
        path: str,
        page: Callable[..., dict[str, Any]],
        template_name: str,
        section: str,
        uses: Sequence[Any],
    ) -> None:
        shown = self._filled_in(page, section)
        # The template comes first, so that it is filled in last and has the host's flash and user.
        fixtures = action.uses(template(f"admin/{template_name}"), *uses, self.signer)
        action(self.route + path, method="GET")(fixtures(shown))

    def mount_asked(
        self, path: str, page: Callable[..., dict[str, Any]], template_name: str, section: str
    ) -> None:
        """Bind a page that answers a POST of a signed URL; the arguments are those of mount_page()."""
        shown = self._filled_in(page, section)
        fixtures = action.uses(template(f"admin/{template_name}"), *self._signed, self.signer)
        action(self.route + path, method="POST")(fixtures(shown))

    def _filled_in(self, page: Callable[..., dict[str, Any]], section: str) -> Callable[..., dict[str, Any]]:
        @functools.wraps(page)
        def shown(**arguments: Any) -> dict[str, Any]:
            response.headers["Cache-Control"] = "no-store"
            response.headers["Content-Security-Policy"] = (
                HOSTS_POLICY if self._in_hosts_layout else _OWN_POLICY
            )
            response.headers["X-Frame-Options"] = "DENY"
            response.headers["Referrer-Policy"] = "same-origin"
            found = {"title": TITLES[section], **self.state(), **page(**arguments), "section": section}
            return {
                "mq": self,
                "page": SimpleNamespace(**found),
                "title": self.say(found["title"]),
                "T": self._translator or str,
            }

        return shown

    def mount_verb(self, path: str, verb: Verb, way_back: Callable[..., str]) -> None:
        """Bind a button that is one POST of a signed URL.

        Args:
            path: below the route, with numbers in it.
            verb: takes the numbers; returns whether it changed anything, and what to tell.
            way_back: takes the numbers; returns the page to go to.
        """

        def done(**numbers: int) -> None:
            changed, told = verb(*numbers.values())
            self.flash(told, changed)
            redirect(way_back(*numbers.values()))

        self.mount_post(path, done, way_back)

    def mount_post(self, path: str, does: Callable[..., Any], way_back: Callable[..., str]) -> None:
        """Bind what a POST of a signed URL does, and answers itself.

        Args:
            path: below the route.
            does: takes what the path holds.
            way_back: takes what the path holds; returns the page that the button is on.
        """
        action(self.route + path, method="POST")(action.uses(*self._signed)(does))
        self.mount_refusal(path, way_back)

    def mount_refusal(self, path: str, way_back: Callable[..., str]) -> None:
        """Bind what answers a GET of a button's URL; the arguments are those of mount_post()."""

        def refuse(**held: Any) -> None:
            # Where the login page leads to when a button was pressed after the login had expired.
            raise self.refusal(not_by_link(way_back(*held.values())))

        action(self.route + path, method="GET")(action.uses(*self._looking)(refuse))

    # --- monitoring ------------------------------------------------------------------------

    def health(self) -> dict[str, str]:
        """200, or 503 and the reason where mail is due and no worker was seen. Open to everybody."""
        response.headers["Cache-Control"] = "no-store"
        silent = self.mail.silence()
        response.status = 200 if silent is None else 503
        return liveness.health(silent)

    def shows_mail(self) -> None:
        """Let the page of this request show the HTML of a mail in its frame, and nobody learn its address."""
        response.headers["Referrer-Policy"] = "no-referrer"
        if not self._in_hosts_layout:
            response.headers["Content-Security-Policy"] = _OWN_POLICY_WITH_MAIL

    # --- on every page ---------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """What every page shows."""
        self.mail.check_base_url(self.auth)  # where links would lead nowhere, that is an entry to be shown
        return super().state()

    def flash(self, told: str, changed: bool) -> None:
        """Have the next page tell what was done."""
        self.auth.flash.set(self.say(told), _class="success" if changed else "warning")

    def refusal(self, refusal: Refusal) -> HTTP:
        """What to raise where something cannot be done: a page that says why, and what to do."""
        return answer(self, refusal)

    def whose(self) -> str:
        """The address of the administrator whose request this is."""
        return str(self.auth.get_user().get("email") or "an administrator")


def static(fp: str) -> Any:
    """One of the pages' own files."""
    return static_file(fp, root=str(STATIC))


def template(name: str) -> Any:
    """A page inside the host's layout, or inside ours if the host has none."""
    return Template(str(TEMPLATES / name), path=None if host_has_layout() else str(TEMPLATES))


def app_folder() -> Path:
    """The folder of the app that is being loaded."""
    return Path(os.environ["PY4WEB_APPS_FOLDER"], action.app_name)


def host_has_layout() -> bool:
    """Whether the app that is being loaded has a layout of its own."""
    return (app_folder() / "templates" / "layout.html").exists()

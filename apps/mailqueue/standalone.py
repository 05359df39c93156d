"""The stand-alone site: `py4web run apps` serves it with Auth, the queue, the task and the pages.

Its state lies in one folder: $MAILQUEUE_FOLDER, or `databases` beside this file.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from py4web import DAL, HTTP, URL, Field, Session, Translator, action, redirect
from py4web.core import required_folder
from py4web.utils.auth import Auth
from py4web.utils.factories import Inject
from py4web.utils.form import Form
from pydal.tools.scheduler import Scheduler
from pydal.tools.tags import Tags
from pydal.validators import CRYPT, IS_IN_SET

from .py4web.mailer import QueuedMailer
from .transports.smtp import IMPLICIT, PLAIN, STARTTLS

FOLDER = Path(required_folder(os.environ.get("MAILQUEUE_FOLDER") or str(Path(__file__).parent / "databases")))
ADMINISTRATOR = "admin@site.test"
# What a newcomer's site comes with: no server, and a sender that was never edited.
UNEDITED = {"server": "", "sender": "you@example.com", "user": "", "password": "", "security": STARTTLS}
_SECURITY = {
    STARTTLS: "STARTTLS (usually port 587)",
    IMPLICIT: "TLS from the start (usually port 465)",
    PLAIN: "none (only for a server on this machine)",
}

logger = logging.getLogger("mailqueue")

db = DAL("sqlite://storage.db", folder=str(FOLDER), pool_size=1)
session = Session(expiration=86400)
T = Translator(required_folder(str(FOLDER), "translations"))
auth = Auth(session, db, use_username=False, password_complexity={"entropy": 20})
groups = Tags(db.auth_user, "groups")
mail = QueuedMailer(db)
auth.sender = mail
flash = auth.flash  # a second one would delete the first one's cookie


def _stored_settings() -> dict[str, str]:
    path = FOLDER / "mail_server.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {**UNEDITED, **stored}


def _store_settings(chosen: dict[str, str]) -> None:
    """For the owner's eyes only, since it holds a password; in one step, so that it is never half."""
    path = FOLDER / "mail_server.json"
    following = path.with_suffix(".new")
    following.touch(mode=0o600)
    following.write_text(json.dumps(chosen), encoding="utf-8")
    following.replace(path)


def _apply(chosen: dict[str, str]) -> None:
    settings = mail.settings
    settings.server = chosen["server"] or None
    settings.sender = chosen["sender"] or None
    settings.login = f"{chosen['user']}:{chosen['password']}" if chosen["user"] else None
    settings.tls, settings.ssl = chosen["security"] == STARTTLS, chosen["security"] == IMPLICIT


def _make_administrator() -> None:
    """On the first start; the password is in a file that only this user can read."""
    if not db(db.auth_user.id > 0).isempty():
        return
    password = secrets.token_urlsafe(12)
    account = {"email": ADMINISTRATOR, "first_name": "Ada", "last_name": "Admin", "action_token": ""}
    user_id = db.auth_user.insert(**account, password=CRYPT()(password)[0])
    groups.add(user_id, "admin")
    db.commit()
    path = FOLDER / "administrator.txt"
    path.touch(mode=0o600)
    path.write_text(f"{ADMINISTRATOR}\n{password}\n", encoding="utf-8")
    logger.warning("The administrator is %s; the password is in %s.", ADMINISTRATOR, path)


def _make_scheduler() -> Any:
    quiet = logging.getLogger("mailqueue.scheduler")
    quiet.setLevel(logging.WARNING)
    try:
        scheduler = Scheduler(db, folder=str(FOLDER / "scheduler"), max_concurrent_runs=2, logger=quiet)
    except socket.gaierror:
        logger.error("No mail is sent: this machine's own name cannot be looked up; add it to /etc/hosts.")
        return None
    scheduler.start()
    return scheduler


_apply(_stored_settings())
_make_administrator()
mail.enable_scheduler(_make_scheduler())
_site = Inject(site="mailqueue")
auth.enable(uses=(session, T, db, _site), env={"T": T})
mail.enable_admin(auth, uses=(session, T, db, _site))


def _is_administrator() -> bool:
    return "admin" in groups.get(auth.user_id) if auth.user_id else False


@action("index")  # type: ignore[untyped-decorator]  # py4web has no type hints
@action.uses("standalone_index.html", session, db, auth, flash, _site)  # type: ignore[untyped-decorator]
def index() -> dict[str, Any]:
    """The front page: what one can do here."""
    return {"is_administrator": _is_administrator()}


@action("mail_server")  # type: ignore[untyped-decorator]
@action.uses("standalone_mail_server.html", session, db, auth.user, flash, _site)  # type: ignore[untyped-decorator]
def mail_server() -> dict[str, Any]:
    """Where the administrator says how mail leaves."""
    if not _is_administrator():
        raise HTTP(403, "This page is for the administrators of this site's mail.")
    now = _stored_settings()
    form = Form(
        [
            Field("server", default=now["server"], comment="host:port of your mail server"),
            Field("sender", default=now["sender"], comment="the address this site sends from"),
            Field("user", default=now["user"], comment="empty where the server wants no login"),
            # No validators: the default one would hash it.
            Field("password", "password", requires=[], comment="empty to keep the one that is stored"),
            Field("security", default=now["security"], requires=IS_IN_SET(_SECURITY)),
        ],
        form_name="mail_server",
        submit_value="Save",
    )
    if form.accepted:
        chosen = {name: str(form.vars.get(name) or "").strip() for name in UNEDITED}
        chosen["password"] = chosen["password"] or now["password"]
        _store_settings(chosen)
        _apply(chosen)
        mail.wake()
        flash.set("Saved. Mail that waits is tried now.")
        redirect(URL("mail_server"))
    return {"form": form}

"""The administrator's pages, mounted in the host, below its own URL and inside its own layout.

One file for each page. A page only reads; a verb is one POST of a signed URL, one call of
administration.py, one flash, and a redirect back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import actions, bulk, frame, held, message, messages, overview, problems, replies, templates
from .frame import Console

# Each page and where it is, below the route.
PAGES = {
    **overview.PAGES,
    **messages.PAGES,
    **bulk.PAGES,
    **message.PAGES,
    **problems.PAGES,
    **held.PAGES,
    **replies.PAGES,
    **actions.PAGES,
    **templates.PAGES,
}
HEALTH = frame.HEALTH

_ALL = (
    overview.OverviewPage,
    messages.MessagesPage,
    bulk.BulkPage,
    message.MessagePages,
    problems.ProblemsPage,
    held.HeldPage,
    replies.RepliesPage,
    actions.ActionsPage,
    templates.TemplatePages,
)


def enable(mail: Any, auth: Any, uses: Sequence[Any], route: str, role: str, readers: str | None) -> Console:
    """Mount the pages in the app that is being loaded.

    Args:
        mail: the QueuedMailer.
        auth: the host's Auth.
        uses: the host's fixtures; its Session signs the buttons, its Translator is for its layout.
        route: the path of the first page, below the app's own.
        role: the group (`Tags(db.auth_user, "groups")`) whose members may see the pages, and act.
        readers: the group whose members may see them, but neither act nor see contents; None: there is none.

    Returns:
        The console, for further pages to be mounted in it.
    """
    console = Console(mail, auth, uses, route, role, readers)
    console.mount()
    for pages in _ALL:
        pages(console).mount()
    return console

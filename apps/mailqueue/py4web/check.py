"""What is wrong with the mail of a py4web app, for the command line."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

from .. import check, remedies, words
from ..classify import Failure
from ..findings import OK, PROBLEM, Finding
from ..mailer import MailQueue
from .account_mail import NO_BASE_URL
from .worker import load


def run(
    apps_folder: str,
    app_name: str,
    tell: Callable[[str], object],
    wanted: check.Wanted,
    *,
    json: bool = False,
    quiet: bool = False,
) -> int:
    """Load an app, look at each of its mailers, and tell what is found.

    Args:
        wanted, json, quiet: see mailqueue.check.

    Returns:
        findings.ALL_WELL or SOMETHING_WRONG.

    Raises:
        NothingToServe: the app cannot be loaded, or has no mailer.
    """
    found: list[Finding] = []
    # What the app says is not to get between; cron mails what comes on stderr, too.
    with redirect_stdout(io.StringIO() if quiet else sys.stderr):
        for mail in load(apps_folder, app_name):
            found += check.examine(mail, wanted)
            if getattr(mail, "_accounts", None):
                found.append(_links(mail))
    return check.report(found, tell, json=json, quiet=quiet)


def _links(mail: MailQueue) -> Finding:
    if mail.settings.base_url:
        return Finding(OK, f"Links in mails about accounts begin with {mail.settings.base_url}.")
    if os.environ.get("PY4WEB_DOMAINS", "").strip(", "):
        return Finding(OK, "Links in mails about accounts lead to the domains in PY4WEB_DOMAINS.")
    _, remedy = remedies.advice(Failure(words.CONFIGURATION, words.CONFIG, NO_BASE_URL, ""))
    return Finding(
        PROBLEM, "Links in mails about accounts are made for localhost only, and not for a real site.", remedy
    )

"""Mails as they will look, with made-up variables, before any is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import BadTemplate
from .rendering import Rendered, Templates

_SITE = "https://www.example.org/app"
_LINK = f"{_SITE}/auth/verify?token=6d1f0c52-2b7e-4a43-8f0e-95c1e3b7a1d4"
_COMMON = {"site": "Example", "name": "Ann Example", "link": _LINK}
_SAMPLES: dict[str, dict[str, Any]] = {
    "verify_email": {"expires": 86400.0},
    "reset_password": {"expires": 3600.0},
    "two_factor": {"code": "493027", "expires": 600.0},
    "approval_request": {
        "applicant": "Bob Sample",
        "email": "bob@example.org",
        "approve": f"{_SITE}/approve/kX3vQ9",
        "deny": f"{_SITE}/deny/kX3vQ9",
        "expires": 604800.0,
    },
    "declined": {"note": "Only members of the club can have an account.\nPlease write to us."},
    "alert": {
        "summary": "The mail server rejects user name or password.",
        "remedy": "Correct the login of the mailer (SMTP_LOGIN in settings.py).",
    },
}


def sample(templates: Templates, name: str) -> dict[str, Any]:
    """Variables to show a template with.

    For a site's own template, or more of them for ours, they are in a file NAME.json beside it.

    Raises:
        BadTemplate: that file holds no variables.
    """
    variables = {**_COMMON, **_SAMPLES.get(name, {})}
    path = templates.find(f"{name}.json")
    if path is None:
        return variables
    try:
        return {**variables, **json.loads(path.read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError) as error:
        raise BadTemplate(f"{path} cannot be read as variables: {error}") from error


def preview(templates: Templates, name: str, language: str) -> Rendered:
    """One mail in one language.

    Raises:
        BadTemplate: there is no such template, or it cannot be filled in.
    """
    return templates.render(name, templates.best_language(language), sample(templates, name))


def shown(mail: Rendered, form: str) -> str:
    """A mail as "html", as "text", or its "subject" alone; ends in a line break."""
    return {"html": f"{mail.html}\n", "text": mail.text, "subject": f"{mail.subject}\n"}[form]


def write_all(templates: Templates, folder: Path) -> list[Path]:
    """Write each mail in each language, as NAME.LANGUAGE.html and NAME.LANGUAGE.txt.

    Returns:
        The files.

    Raises:
        BadTemplate: one cannot be filled in.
        OSError: one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in templates.names():
        for language in templates.languages():
            mail = preview(templates, name, language)
            for ending, form in (("html", "html"), ("txt", "text")):
                path = folder / f"{name}.{language}.{ending}"
                path.write_text(shown(mail, form), encoding="utf-8")
                written.append(path)
    return written

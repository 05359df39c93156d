"""plugin_manifest.json, read and compared with the code."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from . import tables
from .console.message import VERBS
from .outbox import Retention
from .py4web import approval_pages, console, scheduler
from .py4web.mailer import QueuedMailer
from .retry import RetryPolicy
from .version import __version__

NAME = "plugin_manifest.json"
# Arguments that stand for the surroundings of a test, not for a site's choice.
_NO_SETTINGS = frozenset({"self", "db", "clock", "rng"})


def manifest_text() -> str:
    """The manifest as it stands: beside the package's code, or at the top of the repository.

    Raises:
        OSError: it is in neither place.
    """
    package = Path(__file__).parent
    installed = package / NAME
    return (installed if installed.exists() else package.parents[1] / NAME).read_text(encoding="utf-8")


def differences() -> list[str]:
    """Where the manifest and the code differ: a line for each place; none where they agree.

    Raises:
        OSError: there is no manifest.
        ValueError: it is not JSON.
    """
    return list(_compare("", json.loads(manifest_text()), from_code()))


def from_code() -> dict[str, Any]:
    """What the code says of itself, in the manifest's form."""
    return {
        "name": "mailqueue",
        "version": __version__,
        **_from_package(),
        "tables": tables.columns(),
        "tasks": [scheduler.TASK],
        "settings": _settings(),
        "retry": asdict(RetryPolicy()),
        "retention": asdict(Retention()),
        "pages": {
            **console.PAGES,
            "accounts": approval_pages.ACCOUNTS,
            "health": console.HEALTH,
        },
        "verbs": list(VERBS),
        "mounting": _defaults(QueuedMailer.enable_admin, {"self", "auth", "uses"}),
        "accounts": _defaults(QueuedMailer.enable_auth, {"self", "auth"}),
        "approval": _defaults(QueuedMailer.enable_approval, {"self", "auth", "approvers", "uses"}),
        "scheduling": _defaults(QueuedMailer.enable_scheduler, {"self", "scheduler"}),
    }


def _settings() -> dict[str, Any]:
    objects = {"retry", "retention"}  # their own defaults are listed apart
    return _defaults(QueuedMailer.__init__, _NO_SETTINGS | objects)


def _defaults(function: Any, without: frozenset[str] | set[str]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in without}


def _from_package() -> dict[str, Any]:
    """What the installed package's metadata says; it is set down once, in setup.py.

    Raises:
        ValueError: the package is not installed, so that there is nothing to compare.
    """
    try:
        installed = metadata.metadata("mailqueue")
    except metadata.PackageNotFoundError as error:
        raise ValueError("mailqueue is not installed; pip install it to compare its metadata") from error
    needed = [line for line in metadata.requires("mailqueue") or [] if "extra ==" not in line]
    return {
        "python": installed["Requires-Python"],
        "frameworks": {
            line.partition(">=")[0]: line.partition(">=")[2] for line in needed if "py4web" in line
        },
        "requires": sorted(needed),
        "extras": sorted(installed.get_all("Provides-Extra") or []),
    }


def _compare(place: str, said: Any, true: Any) -> Iterator[str]:
    if isinstance(said, dict) and isinstance(true, dict):
        for key in sorted({*said, *true}):
            where = f"{place}.{key}".lstrip(".")
            if key not in true:
                yield f"{where}: the manifest has it, the code has not"
            elif key not in said:
                yield f"{where}: the code has it, the manifest has not"
            else:
                yield from _compare(where, said[key], true[key])
    elif said != true:
        yield f"{place}: the manifest says {json.dumps(said)}, the code {json.dumps(true)}"

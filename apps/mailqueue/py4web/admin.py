"""The administrator's pages: messages, one message, the problem log."""

from __future__ import annotations

from typing import Any


def enable(mail: Any, auth: Any, uses: Any, route: str, role: str) -> None:
    """Mount the pages in the app that is being loaded."""

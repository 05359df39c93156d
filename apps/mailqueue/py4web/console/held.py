"""The page of what is held back, mounted."""

from __future__ import annotations

from ...console.held import Held
from .frame import Console

PAGES = {"held": "/held"}
FORGET = "/held/<lesson_id:int>/forget"


class HeldPage:
    """What is held back.

    Args:
        console: what it is mounted in.
    """

    def __init__(self, console: Console):
        self._console = console
        self._held = Held(console)

    def mount(self) -> None:
        """Bind the page and its verb in the app that is being loaded."""
        self._console.mount_page(PAGES["held"], self._held.page, "held.html", "held")
        self._console.mount_verb(FORGET, self._held.forget, lambda lesson_id: self._console.link("held"))

"""What py4web does around an action: whose transaction it is, and who called."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from py4web.utils.auth import Auth

_ATTRIBUTE = "_mailqueue_request"


class RequestTransaction:
    """Knows whether this thread is in a request whose db fixture will commit or roll back.

    py4web keeps that to itself, so the fixture's own begin and end are watched.

    Args:
        db: the DAL that the host lists as a fixture; a plain pydal DAL has no requests.
    """

    def __init__(self, db: Any):
        self._of_thread = threading.local()
        if hasattr(db, "on_request"):
            self._watch(db, "on_request", begins=True)
            self._watch(db, "on_success", begins=False)
            self._watch(db, "on_error", begins=False)

    @classmethod
    def of(cls, db: Any) -> RequestTransaction:
        """The one watcher of a DAL."""
        if _ATTRIBUTE not in vars(db):
            setattr(db, _ATTRIBUTE, cls(db))
        watcher: RequestTransaction = vars(db)[_ATTRIBUTE]
        return watcher

    @property
    def active(self) -> bool:
        """Whether the fixture has begun and not ended."""
        return getattr(self._of_thread, "active", False)

    def after_success(self, tell: Callable[[list[Any]], object], item: Any) -> bool:
        """Note an item for `tell`, which is called with all of this request's after their commit.

        Returns:
            Whether there is a request; if not, nothing is noted.
        """
        if self.active:
            self._of_thread.noted.setdefault(tell, []).append(item)
        return self.active

    def _watch(self, db: Any, name: str, *, begins: bool) -> None:
        original = getattr(db, name)

        def watched(_db: Any, context: Any) -> Any:
            # What fails to begin is not ended by py4web either.
            self._of_thread.active = False
            answer = original(context)
            self._of_thread.active = begins
            noted = getattr(self._of_thread, "noted", {})
            self._of_thread.noted = {}
            if name == "on_success":
                for tell, items in noted.items():
                    tell(items)
            return answer

        # A method, since py4web's debug mode asks it for its __self__.
        setattr(db, name, types.MethodType(watched, db))


def called_by_auth() -> bool:
    """Whether a method of py4web's Auth called the method that calls this, or a subclass's before it."""
    frame: types.FrameType | None = sys._getframe(1)
    mailer = caller = sys._getframe(1).f_locals.get("self")
    while frame and caller is mailer:
        frame = frame.f_back
        caller = frame.f_locals.get("self") if frame else None
    return isinstance(caller, Auth)

"""What py4web does around an action: whose transaction it is, and what the visitor reads."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any

from py4web.core import request

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


def accepted_languages() -> str:
    """The Accept-Language field of this thread's request; "" where there is none.

    py4web's Translator goes by the same field. Its own choice is not asked for: it stays behind in the
    thread, where an action without a Translator would find the language of another visitor.
    """
    return str(request.headers.get("Accept-Language", "")) if request.environ is not None else ""

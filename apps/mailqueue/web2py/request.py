"""What web2py does around a controller: whose transaction it is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from gluon import current

from .. import database


def in_web_request() -> bool:
    """Whether this thread serves a web request, at whose end web2py commits or rolls back every DAL.

    Nobody does so at the end of a scheduler's task, or of a script that web2py runs.
    """
    request = getattr(current, "request", None)
    return request is not None and request.wsgi is not None


def transaction(db: Any) -> AbstractContextManager[None]:
    """The transaction that somebody else will end, if there is one, else one of its own."""
    joined = in_web_request() or database.in_transaction(db)
    return nullcontext() if joined else database.own_transaction(db)

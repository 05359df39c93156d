"""Whether whoever makes a request may act, or only look."""

from __future__ import annotations

from py4web import request

_MAY_ACT = "mailqueue.may_act"


def may_act() -> bool:
    """Whether whoever makes this request, which MembersOnly let pass, may press buttons and see contents."""
    return bool(request.environ.get(_MAY_ACT))


def let_act(may: bool) -> None:
    """Note for the rest of this request whether whoever makes it may act."""
    request.environ[_MAY_ACT] = may

"""Who calls: a framework's Auth, which must never see an error, or the site's own code."""

from __future__ import annotations

import sys
import types


def called_by(kind: type) -> bool:
    """Whether a method of such an object called the method that calls this, or a subclass's before it."""
    frame: types.FrameType | None = sys._getframe(1)
    mailer = caller = sys._getframe(1).f_locals.get("self")
    while frame and caller is mailer:
        frame = frame.f_back
        caller = frame.f_locals.get("self") if frame else None
    return isinstance(caller, kind)

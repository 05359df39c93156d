"""An outbound mail queue for py4web and web2py."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

# What a pack for web2py carries, for sites that have not installed it themselves.
_CARRIED = os.path.join(os.path.dirname(__file__), "carried")
if os.path.isdir(_CARRIED) and _CARRIED not in sys.path:
    sys.path.append(_CARRIED)

from .compose import Attachment  # noqa: E402
from .errors import (  # noqa: E402
    BadAddress,
    BadAttachment,
    BadHeader,
    BadMessage,
    MailQueueError,
    TablesMissing,
    UnsupportedDatabase,
)
from .outbox import Retention  # noqa: E402
from .retry import RetryPolicy  # noqa: E402
from .signing.dkim import dkim_key  # noqa: E402
from .tables import define_tables  # noqa: E402
from .transports.plan import failover, roundrobin, route  # noqa: E402
from .version import __version__  # noqa: E402

if TYPE_CHECKING:
    from .py4web.mailer import QueuedMailer as QueuedMailer
    from .web2py.mailer import QueuedMail as QueuedMail

__all__ = [
    "Attachment",
    "BadAddress",
    "BadAttachment",
    "BadHeader",
    "BadMessage",
    "MailQueueError",
    "Retention",
    "RetryPolicy",
    "TablesMissing",
    "UnsupportedDatabase",
    "__version__",
    "define_tables",
    "dkim_key",
    "failover",
    "roundrobin",
    "route",
]


def __getattr__(name: str) -> Any:
    """The drop-in of a framework is loaded when it is asked for: the other framework may be absent."""
    if name == "QueuedMailer":
        from .py4web.mailer import QueuedMailer

        return QueuedMailer
    if name == "QueuedMail":
        from .web2py.mailer import QueuedMail

        return QueuedMail
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# Only where py4web loads this folder as an app of its own: a library's actions would land on its host.
if __name__.startswith("apps."):
    from py4web.core import action as _action

    if __name__ == f"apps.{_action.app_name}":
        from . import standalone  # noqa: F401

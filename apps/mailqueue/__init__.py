"""An outbound mail queue for py4web and web2py."""

from __future__ import annotations

from py4web.core import action as _action

from .compose import Attachment
from .errors import BadAddress, BadAttachment, BadHeader, BadMessage, MailQueueError, TablesMissing
from .outbox import Retention
from .py4web.mailer import QueuedMailer
from .retry import RetryPolicy
from .tables import define_tables
from .version import __version__

__all__ = [
    "Attachment",
    "BadAddress",
    "BadAttachment",
    "BadHeader",
    "BadMessage",
    "MailQueueError",
    "QueuedMailer",
    "Retention",
    "RetryPolicy",
    "TablesMissing",
    "__version__",
    "define_tables",
]

# Only where py4web loads this folder as an app of its own: a library's actions would land on its host.
if __name__ == f"apps.{_action.app_name}":
    from . import standalone  # noqa: F401

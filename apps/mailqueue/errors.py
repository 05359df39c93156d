"""The exceptions of mailqueue.

    MailQueueError
    ├── BadMessage (ValueError)      send() was called with something that cannot become a mail
    │   ├── BadAddress               an address that is none, or hides a second one
    │   ├── BadHeader                a line break or control character where a header goes
    │   ├── BadAttachment            an attachment that cannot be read
    │   └── BadTemplate              a mail template that cannot be filled in
    ├── MissingExtra (ImportError)   an optional package is needed; names the pip extra
    ├── UnsupportedDatabase          the site's database is of a kind that mailqueue has no SQL for
    ├── TablesMissing                the database has no mailqueue tables and may not get them
    ├── DeliveryError                a failure on its way out of a transport     (classify.py)
    ├── NotOffered                   the server lacks an extension that is needed (classify.py)
    └── SiteFault                    settings that cannot be used                 (classify.py)

The last three never reach the caller of send(): they become a Failure in a recipient's row, or an
entry of the problem log.
"""

from __future__ import annotations


class MailQueueError(Exception):
    """Base of every exception that mailqueue raises on purpose."""


class BadMessage(MailQueueError, ValueError):
    """send() was called with arguments that cannot become a mail."""


class BadAddress(BadMessage):
    """Not one e-mail address."""


class BadHeader(BadMessage):
    """A header that must not be written as it stands."""


class BadAttachment(BadMessage):
    """An attachment that cannot be read or has no name."""


class BadTemplate(BadMessage):
    """A mail template that is not there, is broken, or lacks a variable."""


class MissingExtra(MailQueueError, ImportError):
    """An optional package is needed.

    Args:
        extra: the name of the pip extra that brings it.
        purpose: what needs it, in a few words.
    """

    def __init__(self, extra: str, purpose: str):
        super().__init__(f"{purpose} needs an extra: pip install 'mailqueue[{extra}]'")
        self.extra = extra


class TablesMissing(MailQueueError):
    """The tables of mailqueue are not in the database, and the DAL may not create them."""


class UnsupportedDatabase(MailQueueError):
    """The database is of a kind that mailqueue does not work on."""

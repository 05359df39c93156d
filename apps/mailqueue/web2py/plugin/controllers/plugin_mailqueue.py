"""The administrator's pages; the application's model allows them by mail.enable_admin(auth)."""

from gluon import HTTP, current


def index():
    """The messages, the newest first."""
    return __pages().messages()


def overview():
    """Whether mail goes out."""
    return __pages().overview()


def test():
    """What came of trying the connection to the mail server."""
    return __pages().test()


def held():
    """What is held back; below it, what its buttons do."""
    return __pages().held()


def actions():
    """What administrators did."""
    return __pages().actions()


def templates():
    """The mail templates."""
    return __pages().templates()


def template():
    """One mail template in one language."""
    return __pages().template()


def health():
    """Whether somebody sends, for monitoring."""
    return __pages().health()


def message():
    """One message, with its recipients and attempts; below it, its content, and what its buttons do."""
    return __pages().message()


def problems():
    """The problem log; below it, what its buttons do."""
    return __pages().problems()


def replies():
    """What replies mean; below it, what its buttons do."""
    return __pages().replies()


def export():
    """The messages of a selection as CSV."""
    return __pages().export()


def bulk():
    """What can be done to many messages at once; below it, doing it."""
    return __pages().bulk()


def progress():
    """How far one of them came."""
    return __pages().progress()


def accounts():
    """The accounts that wait for approval; below it, what its buttons do."""
    return __approval().accounts()


def approve():
    """Where an approver's link leads."""
    return __approval().approve()


def decline():
    """Where an approver's other link leads."""
    return __approval().decline()


def __pages():
    pages = getattr(current, "plugin_mailqueue", None)
    if pages is None:
        raise HTTP(404, "No model has called mail.enable_admin(auth).")
    return pages


def __approval():
    pages = getattr(current, "plugin_mailqueue_approval", None)
    if pages is None:
        raise HTTP(404, "No model has called mail.enable_approval(auth, …).")
    return pages

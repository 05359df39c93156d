"""A process of its own that sends the mail of one py4web app: loading the app, serving, ending."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import weakref
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from py4web.core import Reloader, action, install_args

from ..errors import MailQueueError
from ..mailer import MailQueue
from ..supervisor import END_SECONDS, ENDED, ENDED_BADLY

logger = logging.getLogger("mailqueue")


class NothingToServe(MailQueueError):
    """There is no such app, it cannot be loaded, or it has no mailer of ours; the text says which."""


# On py4web's own class: this package may be loaded twice, as a library and as an app.
def _mailers() -> dict[str, weakref.WeakSet[Any]]:
    if not hasattr(action, "mailqueue_mailers"):
        action.mailqueue_mailers = {}
    noted: dict[str, weakref.WeakSet[Any]] = action.mailqueue_mailers
    return noted


def note(mailer: MailQueue, app_name: str) -> None:
    """Note whose mailer it is, so that a worker finds it."""
    _mailers().setdefault(app_name, weakref.WeakSet()).add(mailer)


def load(apps_folder: str, app_name: str) -> list[MailQueue]:
    """Load an app as py4web's server does.

    Returns:
        Its mailers, at least one.

    Raises:
        NothingToServe: there are none; the text says why.
    """
    folder = Path(apps_folder)
    if Path(app_name).name != app_name or not (folder / app_name / "__init__.py").is_file():
        raise NothingToServe(f"There is no app {app_name!r} in the folder {folder}.")
    install_args({"apps_folder": apps_folder, "yes": True, "app_names": app_name})
    try:
        Reloader.import_apps()
    except SystemExit as end:
        ended = f"it calls sys.exit({_last_line(end.code)!r})"
        raise NothingToServe(f"The app {app_name} cannot be loaded: {ended}") from end
    if error := Reloader.ERRORS.get(app_name):
        raise NothingToServe(f"The app {app_name} cannot be loaded: {_last_line(error)}")
    mailers = list(_mailers().get(app_name, ()))
    if not mailers:
        raise NothingToServe(f"The app {app_name} makes no QueuedMailer when it is loaded.")
    return mailers


def _last_line(traceback: object) -> str:
    """What went wrong; the lines before it show the app's source, and may show what is secret in it."""
    lines = str(traceback).strip().splitlines() or [""]
    return re.sub(r"://[^/@\s]*@", "://***@", lines[-1])


def work(apps_folder: str, app_name: str) -> int:
    """Send an app's mail until standard input ends, or SIGTERM or SIGINT comes.

    Returns:
        The process's exit status.

    Raises:
        NothingToServe: the app has no mail to send.
    """
    told: SimpleQueue[str] = SimpleQueue()  # its put() may interrupt anything, unlike an Event's set()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.put("a signal"))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor's business
    threading.Thread(target=_await_end_of_input, args=(told,), daemon=True).start()
    stop = threading.Event()
    servings = [_Serving(mailer, stop, told) for mailer in load(apps_folder, app_name)]
    for serving in servings:
        serving.start()
    logger.info("sending the mail of %s", app_name)
    why = told.get()
    stop.set()
    logger.info("ending on %s: no further message is begun", why)
    for serving in servings:
        serving.join(END_SECONDS)
    return ENDED if all(serving.ended_well for serving in servings) else ENDED_BADLY


def _await_end_of_input(told: SimpleQueue[str]) -> None:
    while os.read(0, 1024):  # sys.stdin would be locked when the process is to end
        pass
    told.put("the end of standard input")


class _Serving(threading.Thread):
    """One mailer's service. Its end is that of the process: whoever supervises that starts another."""

    def __init__(self, mailer: MailQueue, stop: threading.Event, told: SimpleQueue[str]):
        super().__init__(name="mailqueue worker", daemon=True)
        self._mailer, self._stop_all, self._told = mailer, stop, told
        self.ended_well = False
        mailer.db.recycle_connection_in_pool_or_close("rollback")  # what loading the app left open

    def run(self) -> None:
        try:
            self._mailer.serve(self._stop_all)
            self.ended_well = True
        except BaseException:  # an exit in this thread, which nobody else would notice
            logger.critical("the worker ends", exc_info=True)
        finally:
            self._told.put("the end of a service")


def end_process(status: int) -> None:
    """Exit, even where threads of the app, such as its scheduler's, would go on for ever."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
        os._exit(status)
    sys.exit(status)

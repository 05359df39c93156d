"""A process of its own that sends an application's mail as it comes."""

from __future__ import annotations

import logging
import signal
import threading
from queue import SimpleQueue

from ..mailer import MailQueue

logger = logging.getLogger("mailqueue")

END_SECONDS = 12.0  # for the messages at hand, when the process is to end


def work(mail: MailQueue) -> None:
    """Send a mailer's queue until SIGTERM or SIGINT comes; the messages at hand are finished then.

    Call it from the main thread, since no other may wait for signals.
    """
    told: SimpleQueue[None] = SimpleQueue()  # its put() may interrupt anything, unlike an Event's set()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.put(None))
    mail.db.recycle_connection_in_pool_or_close("rollback")  # what the models left open
    serving = threading.Thread(target=_serve, args=(mail, stop, told), name="mailqueue worker", daemon=True)
    serving.start()
    told.get()
    stop.set()
    serving.join(END_SECONDS)


def _serve(mail: MailQueue, stop: threading.Event, told: SimpleQueue[None]) -> None:
    try:
        mail.serve(stop)
    except BaseException:  # an exit in this thread, which nobody else would notice
        logger.critical("the worker ends", exc_info=True)
    finally:
        told.put(None)

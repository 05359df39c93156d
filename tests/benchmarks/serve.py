"""A worker: python serve.py DATABASE_URL SMTP_PORT FOLDER. Serves the queue until SIGTERM."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from adapters.ours import Adapter
from mailqueue.service import serve


def main() -> None:
    """Serve."""
    url, port, folder = sys.argv[1:]
    adapter = Adapter(url, "127.0.0.1", int(port), {}, Path(folder))
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    serve(adapter.mail.site, stop)


main()

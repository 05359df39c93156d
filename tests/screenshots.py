"""Makes the pictures of the administrator's pages in docs/images: `python tests/screenshots.py [FOLDER]`.

The time stands still and the queue is always filled alike, so that pictures change only where pages do.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser
from support.chromium import HEIGHT, NARROW, WIDE, chromium
from support.console_site import Queue, fill, make_console_site, registered

NOW = 1796040000.0  # 2026-11-30 12:00 UTC
IMAGES = Path(__file__).parent.parent / "docs" / "images"
SAID = "5.7.8 Error: authentication failed"


PICTURES = (
    ("admin", "", WIDE, "light"),
    ("overview", "/overview", WIDE, "light"),
    ("overview-dark", "/overview", NARROW, "dark"),
    ("message", "/message/{failed}", WIDE, "light"),
    ("message-narrow", "/message/{in_doubt}", NARROW, "light"),
    ("problems", "/problems", WIDE, "light"),
    ("replies", "/replies", WIDE, "light"),
)


def make(browser: Browser, folder: Path) -> None:
    """Make them.

    Args:
        browser: a Chromium.
        folder: where to put them.
    """
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        served = stack.enter_context(make_console_site(Path(scratch), clock=NOW).serve(TZ="UTC"))
        visitor = registered(served, "admin@example.test", "/admin/")
        queue = Queue(stack.enter_context(contextlib.closing(served.site.dal())))
        messages = fill(queue, NOW)
        cookies = [{"name": c.name, "value": c.value, "url": served.url} for c in visitor.session.cookies]
        stack.enter_context(queue.paused(SAID))
        for name, path, width, scheme in PICTURES:
            context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            context.add_cookies(cookies)
            page = context.new_page()
            page.goto(f"{served.url}/mailqueue{path.format(**messages)}")
            page.screenshot(path=folder / f"{name}.png", full_page=name != "admin")
            context.close()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Makes the pictures of the administrator's pages.")
    parser.add_argument("folder", type=Path, nargs="?", default=IMAGES, help="docs/images by default")
    folder = parser.parse_args().folder
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    with chromium() as browser:
        make(browser, folder)


if __name__ == "__main__":
    main()

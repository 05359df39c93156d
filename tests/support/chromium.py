"""A real Chromium: pages as people see them, wide or narrow, dark or light, with or without scripts."""

from __future__ import annotations

import contextlib
import importlib.resources
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

WIDE, NARROW = 1280, 390  # CSS pixels
HEIGHT = 900
# Level A and AA of WCAG 2.0 to 2.2: what https://www.w3.org/TR/WCAG22/ asks for, as far as axe can see it.
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
_REFUSED = "Content Security Policy"


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this machine, without a window."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def violations(page: Page, within: str = "html") -> list[str]:
    """What axe finds on a page against WCAG 2.2 AA: the rule, what it is about, and where.

    Args:
        within: a selector of the part of the page that is looked at.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    options = {"runOnly": {"type": "tag", "values": WCAG}, "resultTypes": ["violations"]}
    found: dict[str, Any] = page.evaluate("given => axe.run(...given)", [within, options])
    return [
        f"{rule['id']}: {node['failureSummary']} {node['html'][:200]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def _axe() -> str:
    path = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js")
    return path.read_text(encoding="utf-8")


def scrolls_sideways(page: Page) -> bool:
    """Whether a page is wider than its window."""
    return bool(page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def refusals(page: Page) -> list[str]:
    """A list that fills with whatever the page's Content-Security-Policy refuses from now on."""
    found: list[str] = []
    page.on("console", lambda said: found.append(said.text) if _REFUSED in said.text else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found

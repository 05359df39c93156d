"""One step of console.py, in a process of its own: python console_run.py SPEC.json.

fill: make a database with a history of `size` messages.
pages: serve the pages of two such databases, and ask for each page turn by turn.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import history
from adapters.ours import open_dal
from lab import ROOT
from mailqueue.tables import define_tables

sys.path.insert(0, str(ROOT / "tests"))  # the site and the visitor of the tests

from support.browser import Browser
from support.scaffold import make_site

PERSON, ARCHIVE = history.PERSON, history.ARCHIVE
OLDEST, RARE = "until=2001-01-01", "category=rare"
# What is asked for, below the administrator's first page.
PAGES = {
    "overview": "/overview",
    "messages": "",
    "messages, the oldest": "?before={middle}",
    "messages, back": "?after={middle}",
    "status": "?status=sent",
    "status that few have": "?status=in_doubt",
    "status, back": "?status=failed&after={middle}",
    "address": f"?address={PERSON}",
    "address with much mail": f"?address={ARCHIVE}",
    "address and status": f"?address={ARCHIVE}&status=failed",
    "address and category": f"?address={ARCHIVE}&category=rare",
    "category": "?category=news",
    "category that few have": f"?{RARE}",
    "transport": "?transport=smtp%3A%2F%2Fb",
    "transport that few used": "?transport=smtp%3A%2F%2Fold",
    "failure": "?failure=recipient",
    "failure and transport": "?failure=configuration&transport=smtp%3A%2F%2Fa",
    "error": "?error=unknown",
    "error that nobody had": "?error=nowhere",
    "search": "?search=order",
    "search for an address": f"?search={PERSON}",
    "search in vain": "?search=nowhere",
    "search in vain, with a status": "?search=nowhere&status=failed",
    "time": "?since={since}&until={until}",
    "time and category": f"?since={{since}}&until={{until}}&{RARE}",
    "everything at once": "?search=order&status=failed&category=site&transport=smtp%3A%2F%2Fa"
    "&failure=recipient&error=unknown&since={since}&until={until}",
    "one message": "/message/{middle}",
    "many at once": "/bulk",
    "many at once, of an error": "/bulk?error=unknown",
    "many at once, by a search": "/bulk?search=nowhere",
    "problems": "/problems",
    "held back": "/held",
    "actions": "/actions",
}
ROUNDS = 9


def fill(spec: dict[str, Any]) -> dict[str, Any]:
    """Make the rows."""
    db = open_dal(spec["url"], Path(spec["folder"]), wal=True)
    define_tables(db)
    history.fill(db, spec["size"])
    return {}


def pages(spec: dict[str, Any]) -> dict[str, Any]:
    """Of each page the milliseconds of its answers: the few's and the many's, in pairs."""
    with contextlib.ExitStack() as stack:
        visitors = [
            (stack.enter_context(_administrator(Path(spec["folder"], str(size)), url)), _places(size))
            for url, size in zip(spec["urls"], spec["sizes"], strict=True)
        ]
        found: dict[str, list[list[float]]] = {name: [] for name in PAGES}
        for number in range(ROUNDS + 1):
            for name, page in PAGES.items():
                pair = [_taken(visitor, page.format(**places)) for visitor, places in visitors]
                if number:  # not the first one: caches are cold
                    found[name].append(pair)
    return found


def _places(size: int) -> dict[str, str]:
    days = [time.strftime("%Y-%m-%d", time.localtime(time.time() - ago * 86400)) for ago in (50, 40)]
    return {"middle": str(size // 2), "since": days[0], "until": days[1]}


@contextlib.contextmanager
def _administrator(folder: Path, url: str) -> Iterator[Browser]:
    settings = {"VERIFY_EMAIL": False, "DB_URI": url.partition("?journal")[0], "DB_POOL_SIZE": 1}
    extra = "mail.enable_admin(auth, uses=(session, T, db))"
    site = make_site(folder, settings=settings, extra_common=extra)
    with site.serve() as served:
        visitor = served.browser()
        visitor.register("admin@example.test")
        db = site.dal()
        person = db.executesql("SELECT id FROM auth_user WHERE email = 'admin@example.test'")[0][0]
        db.executesql(f"INSERT INTO auth_user_tag_groups (tagpath, record_id) VALUES ('/admin/', {person})")
        db.commit()
        db.close()
        visitor.login("admin@example.test")
        yield visitor


def _taken(visitor: Browser, page: str) -> float:
    begun = time.perf_counter()
    answer = visitor.get(f"mailqueue{page}")
    taken = (time.perf_counter() - begun) * 1000
    if answer.status_code != 200 or 'class="mq"' not in answer.text:
        raise ValueError(f"{page}: {answer.status_code}")
    return taken


def main() -> None:
    """Do the step that the specification says."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    figures = {"fill": fill, "pages": pages}[spec["do"]](spec)
    Path(spec["out"]).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main()

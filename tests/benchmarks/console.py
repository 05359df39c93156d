"""What the administrator's pages cost as the history grows: each page on a short and on a long one."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass

import children
from gear import Gear


@dataclass(frozen=True)
class Page:
    """One page on one database.

    Args:
        sizes: messages of the short and of the long history; twice as many recipients and attempts.
        small: milliseconds until the whole answer is there, over HTTP on this machine, the median.
        large: on the long history.
        ratio: the median of the ratios of one request on the long history to the one beside it.
        error: why the rest is not to be used.
    """

    database: str
    name: str
    sizes: tuple[int, int]
    small: float = 0.0
    large: float = 0.0
    ratio: float = 0.0
    error: str = ""


def measure(gear: Gear, sizes: tuple[int, int]) -> list[Page]:
    """Measure every page on every database."""
    found = []
    for database in gear.databases:
        try:
            found += _pages(gear, database, sizes)
        except children.Failed as error:
            found.append(Page(database, "all", sizes, error=str(error)))
        print(*found[-3:], sep="\n", file=sys.stderr, flush=True)
    return found


def _pages(gear: Gear, database: str, sizes: tuple[int, int]) -> list[Page]:
    server = gear.databases[database]
    with gear.database(database, "few") as few, gear.database(database, "many") as many:
        for url, size in zip((few, many), sizes, strict=True):
            spec = {"do": "fill", "url": url, "size": size}
            children.figures(gear.folder, "console_run.py", spec)
        server.settle("few")
        server.settle("many")
        spec = {"do": "pages", "urls": [few, many], "sizes": sizes}
        taken = children.figures(gear.folder, "console_run.py", spec)
    return [
        Page(
            database,
            name,
            sizes,
            small=statistics.median(small for small, _ in pairs),
            large=statistics.median(large for _, large in pairs),
            ratio=statistics.median(large / small for small, large in pairs),
        )
        for name, pairs in taken.items()
    ]

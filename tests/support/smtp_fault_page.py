"""docs/fault-matrix.md, made of the data of the fault matrix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import fault_matrix as data

from .smtp_cells import Fate, Row, Situation

_INTRODUCTION = """\
# The fault matrix

What mailqueue makes of each fault of a mail server, at each stage of SMTP. This page is made of
`tests/fault_matrix.py`; `tests/test_fault_matrix.py` runs every cell over real SMTP and compares the
statuses, the attempts, the pause, the problem log and what the server really took.

In each cell message A, to three recipients, meets the fault, and message B to somebody else is behind it
in the queue. The server has worked before. Up to AUTH the fault lasts until the server is repaired, later
it comes once. `Rule` is the name in `mailqueue/classify.py` and in the problem log.

| kind | means |
|---|---|
| C | configuration: the site's fault |
| T | transient: it may pass |
| R | permanent, for a recipient |
| M | permanent, for the message |
| D | in doubt: the server may have taken the message |
| | no harm |

A fault counts as 4xx or 5xx by its enhanced code, if it has one, else by its three digits; "any other"
means those that no other line of the stage names.

Problem entry: `at once`; `if it lasts` at the third failure in a row; `no`. Next message: B goes out `now`,
in the same run of the queue, or `after the repair`, by itself.

The server offers PIPELINING; what differs where it does not has [a section of its own](#without-pipelining).
"""
_HEADINGS = (
    "kind",
    "rule",
    "who gets A at once",
    "attempts spent in vain",
    "transport",
    "problem entry",
    "next message",
    "A in the end",
)
_IN_THE_END = {
    "sent": "sent",
    "waits": "sent after the repair",
    "failed": "failed",
    "in doubt": "sent again; may arrive twice, with one Message-ID",
}


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_INTRODUCTION, *_sections(), _in_turn(), _situations(), _shapes()]
    return "\n".join(parts)


def _sections() -> Iterator[str]:
    alike = groupby(data.STAGES, key=_lines_of)
    for lines, stages in alike:
        names = list(stages)
        about = " ".join(data.STAGES[name] for name in names)
        yield f"## {', '.join(names)}\n\n{about}\n\n{_table('the server answers', lines)}"


def _lines_of(stage: str) -> list[str]:
    here = [row for row in data.ROWS if stage in row.stage_names]
    return [_line(", ".join(map(_shown, row.fault_names)), row, stage) for row in here]


def _shown(fault: str) -> str:
    return f"`{fault}`" if fault in data.REPLIES else fault


def _table(first: str, lines: Iterable[str]) -> str:
    headings = (first, *_HEADINGS)
    return "\n".join([f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *lines, ""])


def _line(first: str, row: Row | Situation, stage: str) -> str:
    fate = row.fate
    cells = (
        first,
        row.kind,
        f"`{row.rule}`" if row.rule else "",
        _who_gets_it(fate, stage),
        str(fate.attempts),
        "paused" if fate.paused else "goes on",
        fate.entry,
        "after the repair" if fate.paused else "now",
        _in_the_end(fate),
    )
    return f"| {' | '.join(cells)} |"


def _who_gets_it(fate: Fate, stage: str) -> str:
    if fate.met == "sent" or _is_split(fate):
        return "everybody"
    if fate.met == "in doubt":
        return "everybody or nobody"
    return "the others" if stage.startswith("RCPT") and not fate.all_met else "nobody"


def _in_the_end(fate: Fate) -> str:
    if fate.met == "again":
        return "sent at once, in a second transaction" if _is_split(fate) else "sent later"
    return "failed; the address is dead" if fate.dead else _IN_THE_END[fate.met]


def _is_split(fate: Fate) -> bool:
    return fate.met == "again" and not fate.attempts


def _in_turn() -> str:
    lines = [
        _line(f"{stage}: {', '.join(map(_shown, row.fault_names))}", row, stage)
        for row in data.IN_TURN
        for stage in row.stage_names
    ]
    about = "Where commands go out one after the other, these cells are different."
    return f"## Without PIPELINING\n\n{about}\n\n{_table('the server answers', lines)}"


def _situations() -> str:
    lines = [_line(situation.what, situation, "") for situation in data.SITUATIONS]
    about = "What is wrong with a server for other reasons than one answer; it lasts until the repair."
    return f"## Extensions, certificates, logins\n\n{about}\n\n{_table('situation', lines)}"


def _shapes() -> str:
    lines = [f"| {name} | {what} |" for name, what in data.SHAPES.items()]
    about = "A reply in `this type` is sent as it stands. The others:"
    return "\n".join(
        [f"## The faults\n\n{about}\n", "| fault | what the server sends |", "|---|---|", *lines, ""]
    )

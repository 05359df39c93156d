"""The house: a file imports only from floors below its own, and inside its floor only as listed here."""

from __future__ import annotations

import ast
from pathlib import Path

import mailqueue
import pytest

PACKAGE = Path(mailqueue.__file__).parent

# One line for each file, floor by floor; behind it the files of its own floor that it may import.
# "folder/*" stands for every file in the folder, which may import each other.
HOUSE = [
    """
    words
    errors
    version
    supervisor
    tokens
    base_url
    told
    visitors
    findings
    rounds
    """,
    """
    compose
    terms
    database
    sql: database
    wakeup: database
    classify: masking
    retry: classify
    own_rules: classify
    pasted: classify
    limits: compose
    lessons: classify limits
    remedies: classify
    sender_domain
    languages
    plain_text
    filling
    rendering: filling languages plain_text
    masking
    resending: compose
    """,
    """
    tables
    leases: tables
    outbox/*: tables leases
    liveness: tables outbox/*
    ledger: tables
    allowance: tables
    approvals: tables
    audit: tables outbox/*
    journal: outbox/*
    problems: tables
    breaker: tables
    selection: tables
    finding: tables selection
    queries: tables problems selection finding
    statistics: tables selection
    rulebook: tables outbox/*
    paging: tables queries selection finding
    """,
    """
    transports/*
    signing/*
    """,
    """
    delivery
    kept: delivery
    reserve: delivery
    supply
    site
    way: delivery kept reserve site supply
    lines: delivery way
    ways: kept site way
    direct: delivery site ways
    shift: site
    ahead
    outcomes: site
    series: ahead shift site way
    sender: ahead delivery lines outcomes series site way ways shift
    pace: site
    bulk: site
    upkeep: bulk site way
    worker: ahead delivery kept lines outcomes series site ways shift sender pace supply upkeep
    service: kept site worker
    """,
    """
    arguments
    callers
    templated
    mailer: arguments templated
    administration: mailer export timeline
    export
    stoppages: mailer
    trial: mailer stoppages
    check: mailer trial
    replies: mailer
    timeline
    pending_accounts
    preview
    console/*: administration pending_accounts preview replies stoppages timeline trial
    """,
    """
    celery
    py4web/*
    web2py/*
    """,
    """
    standalone: catcher manifest
    catcher
    manifest
    demo: standalone catcher manifest
    cli: standalone catcher manifest demo
    """,
    """
    __init__
    """,
]
CORE = ("py4web", "gluon")  # what floors below py4web/ and web2py/ do not know
FRAMEWORKS_FLOOR = 7


def rooms() -> dict[str, tuple[int, set[str]]]:
    """Each room of the house: its floor, and its neighbours that it may import."""
    found = {}
    for floor, lines in enumerate(HOUSE, 1):
        for line in lines.split("\n"):
            name, _, neighbours = line.strip().partition(":")
            if name:
                found[name] = floor, set(neighbours.split())
    return found


ROOMS = rooms()


def room_of(module: str) -> str:
    """The room of a module, given as its path from the package without ".py"."""
    folder, slash, _ = module.partition("/")
    return f"{folder}/*" if slash or f"{folder}/*" in ROOMS else module


def modules(package: Path) -> dict[str, ast.Module]:
    return {
        path.relative_to(package).with_suffix("").as_posix(): ast.parse(path.read_text("utf-8"))
        for path in sorted(package.rglob("*.py"))
    }


def imports(module: str, tree: ast.Module, package: Path) -> set[str]:
    """The modules of the package that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [(0, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.level, node.module or "", alias.name) for alias in node.names]
        else:
            continue
        for level, origin, name in wanted:
            path = _absolute(module, level, origin)
            if path is not None:
                found.add(_module_at(package, path, name))
    return found - {module}


def _absolute(module: str, level: int, origin: str) -> list[str] | None:
    """The path in the package that an import starts from; None: it is not of this package."""
    if level:
        parts = module.split("/")
        return parts[: len(parts) - level] + [part for part in origin.split(".") if part]
    parts = origin.removeprefix("apps.").split(".")
    return parts[1:] if parts[0] == "mailqueue" else None


def _module_at(package: Path, path: list[str], name: str) -> str:
    for parts in ([*path, name], path):
        if name and package.joinpath(*parts, "__init__.py").is_file() and parts:
            return "/".join([*parts, "__init__"])
        if name and package.joinpath(*parts).with_suffix(".py").is_file() and parts:
            return "/".join(parts)
        if parts and package.joinpath(*parts[:-1], f"{parts[-1]}.py").is_file():
            return "/".join(parts)
    a_folder = package.joinpath(*path).is_dir()
    return "/".join([*path, "__init__"] if a_folder else path)


def complaints(package: Path) -> list[str]:
    """What is wrong with the imports of a package, one line each."""
    found = []
    trees = modules(package)
    for module, tree in trees.items():
        if room_of(module) not in ROOMS:
            found.append(f"{module} has no room in the house")
            continue
        for other in sorted(imports(module, tree, package)):
            if not may_import(module, other):
                found.append(f"{module} imports {other}")
    return found


def may_import(module: str, other: str) -> bool:
    room, target = room_of(module), room_of(other)
    if target not in ROOMS:
        return False
    floor, neighbours = ROOMS[room]
    return room == target or ROOMS[target][0] < floor or target in neighbours


def foreign_imports(tree: ast.Module) -> set[str]:
    """The top names of the absolute imports of a module."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").split(".")[0])
    return found


# --- the house as it stands ------------------------------------------------------------------


def test_every_file_has_its_room_and_imports_only_what_is_below() -> None:
    assert complaints(PACKAGE) == []


def test_the_core_knows_neither_framework() -> None:
    core = {
        module: foreign_imports(tree)
        for module, tree in modules(PACKAGE).items()
        if ROOMS[room_of(module)][0] < FRAMEWORKS_FLOOR
    }
    assert len(core) > 20
    assert {module: names for module, names in core.items() if names & set(CORE)} == {}
    assert ROOMS["py4web/*"][0] == ROOMS["web2py/*"][0] == FRAMEWORKS_FLOOR


def test_the_frameworks_do_not_know_each_other() -> None:
    for module, tree in modules(PACKAGE).items():
        names = foreign_imports(tree)
        assert not (module.startswith("py4web/") and "gluon" in names), module
        assert not (module.startswith("web2py/") and "py4web" in names), module


WRITING = {"insert", "update", "delete", "validate_and_insert", "update_or_insert", "bulk_insert"}
WRITING |= {"update_naive", "delete_record", "update_record", "validate_and_update", "truncate"}
WRITING |= {"change", "put", "insert_one"}  # of sql.py
GUARDED = {"MESSAGE", "RECIPIENT", "mailqueue_message", "mailqueue_recipient"}


def writes_of_statuses(tree: ast.Module) -> list[int]:
    """Lines of functions that write, and name the table of messages or that of recipients."""
    return [
        function.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.Lambda)
        and _writes(function)
        and GUARDED & {_name(node) for node in ast.walk(function)}
    ]


def _writes(function: ast.AST) -> bool:
    calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(isinstance(called, ast.Attribute) and called.attr in WRITING for called in calls)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    return str(node.value) if isinstance(node, ast.Constant) else ""


def test_only_the_outbox_changes_messages_and_recipients() -> None:
    trees = modules(PACKAGE)
    found = {module for module, tree in trees.items() if writes_of_statuses(tree)}
    assert found
    assert {module.partition("/")[0] for module in found} == {"outbox"}
    # Nobody else has even a way to name them in raw SQL.
    for module, tree in trees.items():
        texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        raw = [text for text in texts if isinstance(text, str) and "UPDATE mailqueue_" in text]
        assert raw == [], module


# --- the checkers themselves -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("words", "from .tables import MESSAGE", "words imports tables"),
        ("words", "def late():\n    from . import outbox", "words imports outbox"),
        ("outbox", "from . import words, worker", "outbox imports worker"),
        ("outbox", "from .journal import Journal", "outbox imports journal"),
        ("outbox", "import mailqueue.worker", "outbox imports worker"),
        ("outbox", "from mailqueue.worker import drain", "outbox imports worker"),
        ("outbox", "from apps.mailqueue import worker", "outbox imports worker"),
        ("outbox", "from . import QueuedMailer", "outbox imports __init__"),
        ("outbox", "from .transports.base import Transport", "outbox imports transports/base"),
        ("transports/base", "from ..worker import drain", "transports/base imports worker"),
        ("transports/base", "from .. import worker", "transports/base imports worker"),
        ("py4web/mailer", "from ..web2py import mail", "py4web/mailer imports web2py/mail"),
        ("surprise", "import os", "surprise has no room in the house"),
    ],
)
def test_an_upward_import_is_found(tmp_path: Path, module: str, line: str, complaint: str) -> None:
    sample = ["words", "tables", "outbox", "journal", "worker", "transports/base", "py4web/mailer"]
    for name in [*sample, "web2py/mail", "__init__", "transports/__init__", module]:
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("from __future__ import annotations\nimport os, json.decoder\n")
    (tmp_path / "worker.py").write_text("from . import outbox, words\nfrom .transports.base import Answer\n")
    (tmp_path / "outbox.py").write_text("from .tables import MESSAGE\nfrom .words import SENT\n")
    (tmp_path / "py4web" / "mailer.py").write_text("from .. import outbox\nfrom ..worker import drain\n")
    expected = [complaint] if module == "surprise" else []
    assert complaints(tmp_path) == expected
    (tmp_path / f"{module}.py").write_text(line)
    assert complaints(tmp_path) == [complaint]


@pytest.mark.parametrize(
    "source",
    [
        "def f(db):\n    db[MESSAGE].insert(status='sent')",
        "def f(db):\n    db(db[RECIPIENT].id == 1).update(status='sent')",
        "def f(db):\n    table = db.mailqueue_message\n    db(table.id > 0).delete()",
        "def f(db):\n    db['mailqueue_recipient'](1).update_record(status='sent')",
    ],
)
def test_a_write_of_statuses_is_found(source: str) -> None:
    assert writes_of_statuses(ast.parse(source)) == [1]


def test_reading_messages_and_writing_other_things_is_no_write_of_statuses() -> None:
    assert not writes_of_statuses(ast.parse("def f(db):\n    return db(db[MESSAGE].id > 0).select()"))
    assert not writes_of_statuses(ast.parse("def f(db):\n    db[PROBLEM].insert(seen=1)"))

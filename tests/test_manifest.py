"""plugin_manifest.json says what the code does."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mailqueue import manifest

TOP = Path(__file__).parent.parent


@pytest.fixture
def said() -> Any:
    return json.loads((TOP / manifest.NAME).read_text(encoding="utf-8"))


def test_the_manifest_and_the_code_agree() -> None:
    assert manifest.differences() == []


def _places(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(tree, dict):
        return [place for key in tree for place in _places(tree[key], (*path, key))]
    return [path]


def test_every_place_that_is_changed_is_found(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in _places(said):
        tampered = json.loads(json.dumps(said))
        holder = tampered
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = "something else"
        monkeypatch.setattr(manifest, "manifest_text", partial(json.dumps, tampered))
        (line,) = manifest.differences()
        assert line.startswith(".".join(place) + ": the manifest says")


def test_what_one_side_lacks_is_found(said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del said["tasks"]
    said["tables"]["mailqueue_unheard_of"] = []
    monkeypatch.setattr(manifest, "manifest_text", lambda: json.dumps(said))
    assert manifest.differences() == [
        "tables.mailqueue_unheard_of: the manifest has it, the code has not",
        "tasks: the code has it, the manifest has not",
    ]

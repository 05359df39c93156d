"""The story of the demo, walked over real HTTP and real SMTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mailqueue import demo
from support.smtp_server import free_port


@pytest.fixture
def running() -> Iterator[demo.Demo]:
    with demo.running(free_port()) as site:
        yield site


def test_the_story_holds_from_registration_to_the_link(running: demo.Demo) -> None:
    said: list[str] = []
    assert demo.Check(running, said.append).run(), "\n".join(said)
    assert [line.split()[0] for line in said] == ["ok"] * 6


def test_a_step_that_does_not_hold_fails_the_check_and_says_why(
    running: demo.Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "administrator", ("nobody@site.test", "wrong"))
    monkeypatch.setattr(demo.Check._wait, "__defaults__", (0.5,))
    said: list[str] = []
    assert not demo.Check(running, said.append).run()
    assert [line.split()[0] for line in said] == ["ok", "FAILED"]
    assert "not within" in said[-1]

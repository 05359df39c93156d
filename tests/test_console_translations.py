"""The texts of the administrator's pages: each is translated, whole, into every language."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import mailqueue
import pytest
from mailqueue import administration, audit, pending_accounts, remedies, replies, timeline, words
from mailqueue.classify import Failure
from mailqueue.console import bulk, buttons, content, message, overview, parts, refusals
from mailqueue.console import replies as replies_page
from mailqueue.console.speech import PAGES_TRANSLATIONS
from mailqueue.languages import Languages
from mailqueue.told import Told

PACKAGE = Path(mailqueue.__file__).parent
LANGUAGES = Languages([PAGES_TRANSLATIONS])
TABLES = (
    administration.LABELS,
    administration.MEANINGS,
    audit.LABELS,
    timeline._ENDS,
    timeline._NEXT,
    bulk.LABELS,
    bulk.MEANINGS,
    bulk.OFFERS,
    bulk.STATES,
    bulk.TOLD,
    buttons.MESSAGE_BUTTONS,
    parts.TITLES,
    parts.FAILURES,
    parts.SPANS,
    refusals.HEADINGS,
    replies.MEANINGS,
    replies_page.STAGES,
    pending_accounts.QUESTIONS,
    pending_accounts.EFFECTS,
    pending_accounts.BUTTONS,
    pending_accounts.INSTEAD,
    pending_accounts.OBSTACLES,
)
_SAID = re.compile(r'(?:mq|links)\.say\("((?:[^"\\]|\\.)*)"')


def texts() -> Iterator[str]:
    """What the pages say, as far as it stands in templates and code."""
    for path in (PACKAGE / "templates").glob("*/*.html"):
        yield from _SAID.findall(path.read_text(encoding="utf-8"))
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Told", "Refusal"):
                said = [one.value for one in node.args if isinstance(one, ast.Constant)]
                yield from [one for one in said if isinstance(one, str)]
    for table in TABLES:
        yield from table.values()
    for table in (remedies._ADVICE, remedies._OF_A_STAGE, remedies._OF_A_KIND):
        for advice in table.values():
            yield from advice
    yield from remedies._OTHERWISE
    yield from remedies.OF_TRANSPORTS
    yield remedies.NO_MAIL_LOST
    yield from (bulk.TITLE, message.TITLE, content.TITLE, overview.TEST_TITLE)
    yield refusals.NO_MEMBER.back[0]
    yield from administration.STORED
    yield from (words.TO, words.CC, words.BCC)
    yield from (pending_accounts.NOTE, pending_accounts.THANKS, pending_accounts.NO_QUESTION)


def test_every_text_of_the_pages_can_be_translated() -> None:
    assert sorted(set(texts()) - set(LANGUAGES["en"])) == []


@pytest.mark.parametrize("tag", LANGUAGES.tags())
def test_every_language_is_complete_with_the_same_values(tag: str) -> None:
    english, other = LANGUAGES["en"], LANGUAGES[tag]
    assert set(other) == set(english)
    for text in english:
        for form in other.forms(text).values():
            assert named(form) | {"n"} == named(text) | {"n"}, text


def named(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def test_what_to_do_with_a_transport_is_found_again_by_its_text() -> None:
    failure = Failure(words.CONFIGURATION, words.AUTH, "auth-rejected", "no")
    stored = remedies.advice(failure, "smtp://h.test:25#{n}", "routes=").remedy
    told = Told.read(remedies.without_waiting(stored), remedies.OF_TRANSPORTS)
    assert isinstance(told, Told)
    shown = str(LANGUAGES["de"](told.text).format(**told.values))
    assert shown.startswith(
        "Berichtigen Sie Benutzernamen und Passwort, oder den Schlüssel, von smtp://h.test"
    )
    assert "#{n} in routes= des Mailers" in shown
    assert Told.read("somebody else's words {n}", remedies.OF_TRANSPORTS) == "somebody else's words {n}"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("No worker was seen for {n} minutes while mail is due.", {"n": 6}),
        (
            "many at once ({number}, stopped by {who}): {which}",
            {"number": "5", "who": "a{b}", "which": "(y)"},
        ),
        ("over {transport}", {"transport": "smtp://a.test:25"}),
        ("server is not set", {}),
    ],
)
def test_a_stored_text_is_read_as_it_was_told(text: str, values: dict[str, object]) -> None:
    read = Told.read(str(Told(text, **values)), administration.STORED)
    assert isinstance(read, Told)
    assert (read.text, read.values) == (text, values)


def test_what_was_told_otherwise_stays_as_it_is() -> None:
    for text in ("535 5.7.8 {n}", "", "No worker was seen for ages minutes while mail is due."):
        assert not isinstance(Told.read(text, administration.STORED), Told)


def test_a_text_remembers_what_it_was_made_of() -> None:
    told = Told("Message {number} is cancelled.", number=7)
    assert told == "Message 7 is cancelled."
    assert str(LANGUAGES["de"](told.text).format(**told.values)) == "Nachricht 7 ist abgebrochen."
    assert Told.plain("{x}") == "{x}"

"""Which languages there are for mails, which one a person gets, and what translating does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mailqueue.errors import BadTemplate
from mailqueue.languages import Languages
from mailqueue.rendering import TRANSLATIONS

SHIPPED = ["cs", "de", "en", "es", "fr", "it", "ja", "pt"]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """The folder of a site's own translations."""
    return tmp_path


def translate(folder: Path, tag: str, texts: Any) -> None:
    (folder / f"{tag}.json").write_text(json.dumps(texts), encoding="utf-8")


def languages(*own: Path) -> Languages:
    return Languages([*own, TRANSLATIONS])


def test_eight_languages_are_shipped() -> None:
    assert languages().tags() == SHIPPED


@pytest.mark.parametrize(
    ("wanted", "tag"),
    [
        (["de"], "de"),
        (["de-AT"], "de"),
        (["DE_at"], "de"),
        (["fr-CH, fr;q=0.9, en;q=0.8, *;q=0.5"], "fr"),
        (["de-AT, en;q=0.9"], "de"),  # pluralize's own choice would be English here
        (["en;q=0.3, ja;q=0.9, cs;q=0.5"], "ja"),
        (["nl, sv;q=0.5"], "en"),
        (["nl", "it"], "it"),
        (["", "it"], "it"),
        (["de;q=0, pt"], "pt"),
        (["de;q=0", "pt"], "pt"),
        (["*"], "en"),
        ([";;,=,q=;q=q, es;q=x, cs"], "cs"),
        (["../../etc/passwd, -, \x00"], "en"),
        ([], "en"),
        (["x-" * 100_000], "en"),
    ],
)
def test_the_language_liked_best_of_those_there_are_is_chosen(wanted: list[str], tag: str) -> None:
    assert languages().best(*wanted) == tag


def test_a_site_translates_anew(own: Path) -> None:
    translate(own, "de", {"Log in": {"0": "Hereinspaziert"}})
    german = languages(own)["de"]
    assert str(german("Log in")) == "Hereinspaziert"
    assert str(german("Approve")) == "Freigeben"


def test_what_a_site_left_untranslated_is_taken_from_the_shipped_file(own: Path) -> None:
    translate(own, "de", {"Log in": {}, "Approve": ""})
    german = languages(own)["de"]
    assert (str(german("Log in")), str(german("Approve"))) == ("Anmelden", "Freigeben")


def test_a_site_adds_a_language(own: Path) -> None:
    texts = json.loads((TRANSLATIONS / "en.json").read_text(encoding="utf-8"))
    translate(own, "pl", {text: f"pl: {text}" for text in texts})
    found = languages(own)
    assert found.best("pl-PL, en") == "pl"
    assert str(found["pl"]("Log in")) == "pl: Log in"


def test_a_language_that_only_the_sites_pages_are_in_is_none_for_mails(own: Path) -> None:
    translate(own, "pl", {"Log in": "Zaloguj", "Welcome to our shop": "Witamy"})
    assert languages(own).best("pl, de;q=0.5") == "de"


def test_files_that_pluralize_does_not_read_are_not_read_either(own: Path) -> None:
    for name in ("app.json", "package.json", "de.json.bak", "de.txt"):
        (own / name).write_text("{", encoding="utf-8")
    assert languages(own).tags() == SHIPPED


@pytest.mark.parametrize("content", ["{", "[]", '{"Log in": 5}', '{"Log in": {"many": "x"}}', "\udcff"])
def test_a_broken_file_is_named(own: Path, content: str) -> None:
    (own / "de.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadTemplate, match=r"de\.json"):
        languages(own).tags()


@pytest.mark.parametrize(
    ("seconds", "czech", "english"),
    [
        (0, "1 minutu", "1 minute"),
        (119, "2 minuty", "2 minutes"),
        (600, "10 minut", "10 minutes"),
        (3600, "1 hodinu", "1 hour"),
        (5400, "90 minut", "90 minutes"),
        (7200, "2 hodiny", "2 hours"),
        (86_400, "24 hodin", "24 hours"),
        (86_399.7, "24 hodin", "24 hours"),
        (2 * 86_400, "2 dny", "2 days"),
        (7 * 86_400, "7 dní", "7 days"),
        (7.9 * 86_400, "7 dní", "7 days"),
    ],
)
def test_a_span_of_time_in_words(seconds: float, czech: str, english: str) -> None:
    assert (str(languages()["cs"].span(seconds)), str(languages()["en"].span(seconds))) == (czech, english)


def test_a_translation_with_a_wrong_name_in_it_is_a_broken_one(own: Path) -> None:
    translate(own, "de", {"Hello {name},": "Hallo {nmae},", "Log in": "Anmelden {"})
    german = languages(own)["de"]
    for phrase in (german("Hello {name},").format(name="Ann"), german("Log in")):
        with pytest.raises(BadTemplate, match="is wrong"):
            str(phrase)


def test_nothing_is_written_while_translating(own: Path) -> None:
    translate(own, "de", {"Log in": "Anmelden"})
    before = (own / "de.json").read_bytes()
    assert str(languages(own)["de"]("Never heard of {n}").format(n=3)) == "Never heard of 3"
    assert [(path.name, path.read_bytes()) for path in own.iterdir()] == [("de.json", before)]


@pytest.mark.parametrize("name", ["{x}", "{site}", "{0}", "{", "{expires.__class__}"])
def test_braces_in_a_value_are_text(name: str) -> None:
    greeting = languages()["de"]("Hello {name},").format(name=name, site="S", expires="E")
    assert str(greeting) == f"Guten Tag {name},"

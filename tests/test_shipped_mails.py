"""The mails that are shipped: each of them, in each language."""

from __future__ import annotations

import json
import re
import string
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from mailqueue import languages
from mailqueue.preview import sample
from mailqueue.rendering import SHIPPED, TRANSLATIONS, Rendered, templates_of
from pluralize import Translator

TEMPLATES = templates_of(None)
NAMES = TEMPLATES.names()
TAGS = TEMPLATES.languages()
EACH_MAIL = pytest.mark.parametrize(("name", "tag"), [(name, tag) for name in NAMES for tag in TAGS])
LINKS = ("link", "approve", "deny")
VOID = {"meta", "br", "link", "img", "hr", "input"}
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def texts(tag: str) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads((TRANSLATIONS / f"{tag}.json").read_text(encoding="utf-8"))
    return found


def texts_in_use() -> set[str]:
    """What the templates and the spans of time have translated."""
    spans = Translator.find_matches(str(SHIPPED.parent.parent), name="self", extensions=["py"])
    return {*Translator.find_matches(str(SHIPPED)), *(text for text in spans if text.startswith("{n} "))}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def mail_of(name: str, tag: str, **changed: Any) -> Rendered:
    return TEMPLATES.render(name, tag, {**sample(TEMPLATES, name), **changed})


class Document(HTMLParser):
    """Reads a document as strictly as XML; `complaints` says what is wrong with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.complaints: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.styles = ""
        self.feed(html)
        self.close()
        self.complaints += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.complaints.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.texts.append(data)

    def values(self, *names: str) -> list[str]:
        return [value for _, name, value in self.attributes if name in names]


# --- languages -------------------------------------------------------------------------------


def test_the_mails_of_accounts_are_all_there_in_eight_languages() -> None:
    account = (
        "verify_email reset_password password_changed email_changed already_registered unsubscribe two_factor"
    )
    assert set(NAMES) == {*account.split(), "approval_request", "approved", "declined", "alert"}
    assert len(TAGS) == 8


@pytest.mark.parametrize("tag", TAGS)
def test_every_text_is_translated_and_no_translation_is_without_use(tag: str) -> None:
    assert texts(tag).keys() == texts_in_use()
    assert len(texts_in_use()) > 40


@pytest.mark.parametrize("tag", TAGS)
def test_translations_hold_the_same_names_as_their_texts(tag: str) -> None:
    for text, forms in texts(tag).items():
        for number, form in forms.items():
            singular = text.startswith("{n} ") and number == "1"
            assert placeholders(form) == (set() if singular else placeholders(text)), (tag, text)
            assert form == form.strip()
            assert form
        assert "0" in forms, (tag, text)


@pytest.mark.parametrize("tag", [tag for tag in TAGS if tag != languages.ENGLISH])
def test_no_text_is_left_in_english(tag: str) -> None:
    alike = [text for text, forms in texts(tag).items() if text in forms.values()]
    assert alike == (["{n} minutes"] if tag == "fr" else [])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_but_translated_texts_and_variables_is_in_a_mail(name: str, tmp_path: Path) -> None:
    (tmp_path / "translations").mkdir()
    silent = {
        text: "".join(f"{{{key}}}" for key in sorted(placeholders(text))) + "." for text in texts_in_use()
    }
    (tmp_path / "translations" / "xx.json").write_text(json.dumps(silent), encoding="utf-8")
    given = {key: "..." for key in sample(TEMPLATES, name) if key != "expires"}
    mail = templates_of(tmp_path).render(name, "xx", {**given, "expires": 120})
    assert mail.fault == ""
    for said in (mail.subject, mail.text, *Document(mail.html).texts):
        assert re.findall(r"\w+", said) in ([], ["2"])


# --- text and HTML ---------------------------------------------------------------------------


@EACH_MAIL
def test_the_html_is_well_formed_and_says_its_language(name: str, tag: str) -> None:
    document = Document(mail_of(name, tag).html)
    assert document.complaints == []
    assert ("html", "lang", tag) in document.attributes


@EACH_MAIL
def test_nothing_is_fetched_from_anywhere(name: str, tag: str) -> None:
    html = mail_of(name, tag).html
    given = {value for key, value in sample(TEMPLATES, name).items() if key in LINKS}
    document = Document(html)
    assert set(document.values("href")) <= given
    assert document.values("src", "background", "srcset", "action", "data") == []
    assert not re.search(
        r"url\s*\(|@import|<(img|link|script|iframe|form|object|embed|svg)\b", html, re.IGNORECASE
    )


@EACH_MAIL
def test_a_link_is_in_the_text_once_and_in_full_and_in_the_html_as_button_and_text(
    name: str, tag: str
) -> None:
    mail = mail_of(name, tag)
    document = Document(mail.html)
    for link in document.values("href"):
        assert mail.text.split().count(link) == 1
        assert document.values("href").count(link) == 2
        assert document.texts.count(link) == 1


@EACH_MAIL
def test_styles_are_inlined_and_those_for_the_dark_stay(name: str, tag: str) -> None:
    document = Document(mail_of(name, tag).html)
    styled = {element for element, attribute, _ in document.attributes if attribute == "style"}
    assert {"body", "table", "td", "h1", "p"} <= styled
    assert re.match(r"\s*@media \(prefers-color-scheme: dark\)", document.styles)
    assert not re.search(r"^\.card", document.styles, re.MULTILINE)
    assert ("meta", "content", "light dark") in document.attributes
    assert re.search(r"\.card \{ background-color: #\w+ !important; \}", document.styles)


@EACH_MAIL
def test_it_is_small_and_fits_600_pixels(name: str, tag: str) -> None:
    html = mail_of(name, tag).html
    assert len(html.encode()) < 20_000
    assert "max-width: 600px" in html
    assert [int(width) for width in re.findall(r'(?<![-\w])width="(\d+)"', html) if int(width) > 600] == []


@EACH_MAIL
def test_the_text_reads_without_the_html(name: str, tag: str) -> None:
    mail = mail_of(name, tag)
    assert not re.search(r"[<>]|\{|\}|None|&\w+;", mail.text.replace("\n> ", ""))
    assert "\n\n\n" not in mail.text
    assert mail.subject not in ("", name)
    assert "Ann Example" in mail.text.splitlines()[0]


@EACH_MAIL
def test_variables_are_text_in_every_place(name: str, tag: str) -> None:
    attacked = {key: ATTACK for key in sample(TEMPLATES, name) if key != "name"}
    document = Document(TEMPLATES.render(name, tag, {**attacked, "name": "<b>Ann"}).html)
    assert not {"script", "img", "b"} & {tag for tag, _, _ in document.attributes}
    assert document.complaints == []
    assert any(ATTACK in text for text in document.texts)
    assert any("<b>Ann" in text for text in document.texts)


@pytest.mark.parametrize("name", ["password_changed", "email_changed", "approved", "declined", "alert"])
def test_links_and_notes_may_be_left_out(name: str) -> None:
    given = {
        key: value for key, value in sample(TEMPLATES, name).items() if key not in ("link", "note", "name")
    }
    mail = TEMPLATES.render(name, "en", given)
    assert "href" not in mail.html
    assert "note" not in mail.text
    assert mail.text.startswith("Hello,\n")


@pytest.mark.parametrize(
    ("name", "missing"),
    [(name, key) for name in NAMES for key in sample(TEMPLATES, name) if key not in ("name", "note", "link")]
    + [(name, "link") for name in ("verify_email", "reset_password", "already_registered")],
)
def test_what_a_mail_is_about_may_not_be_left_out(name: str, missing: str) -> None:
    given = sample(TEMPLATES, name)
    del given[missing]
    with pytest.raises(ValueError, match=f"'{missing}' is not defined"):
        TEMPLATES.render(name, "en", given)


@EACH_MAIL
def test_the_text_is_the_same_where_no_styles_are_put_into_elements(
    name: str, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the plugin for web2py, which has no css-inline."""
    usual = mail_of(name, tag).text
    monkeypatch.setitem(sys.modules, "css_inline", None)
    assert mail_of(name, tag).text == usual

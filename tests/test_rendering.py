"""Templates, a site's and the shipped ones: what is escaped, which file wins, what a broken one does."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from mailqueue.errors import BadMessage, BadTemplate
from mailqueue.rendering import TRANSLATIONS, Rendered, Templates, templates_of
from yatl.helpers import STRONG

EVIL = "<script>alert('x')</script>\"><img src=x onerror=y>&amp;"
LINK = "https://site.test/auth/verify?token=1&next=%2F"
VERIFY = {"site": "The Site", "name": "Ann", "link": LINK, "expires": 86400}


class Site:
    """An app with files of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("", {})

    def write(self, path: str, content: object) -> None:
        """A file of templates/mail; a dictionary is translations/<path>.json."""
        file = self.folder / "templates" / "mail" / path
        if isinstance(content, dict):
            file = self.folder / "translations" / f"{path}.json"
            content = json.dumps(content)
        file.parent.mkdir(parents=True, exist_ok=True)
        if path:
            file.write_text(str(content), encoding="utf-8")

    def render(self, template: str, /, tag: str = "en", **variables: Any) -> Rendered:
        return templates_of(self.folder).render(template, tag, variables)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


class Elements(HTMLParser):
    """The elements of a document, as a mail program would read it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# --- what a template is ----------------------------------------------------------------------


def test_the_title_is_the_subject_and_the_text_is_made_of_the_html(site: Site) -> None:
    site.write(
        "hello.html", "<title>Hi  [[=who]]\n!</title><style>p { color: red }</style><p>Dear [[=who]]</p>"
    )
    mail = site.render("hello", who="Ann & Bob")
    assert (mail.subject, mail.text, mail.fault) == ("Hi Ann & Bob !", "Dear Ann & Bob\n", "")
    assert '<p style="color: red;">Dear Ann &amp; Bob</p>' in mail.html


def test_a_text_template_is_the_text_part(site: Site) -> None:
    site.write("hello.html", "<title>Hi</title><p>[[=who]]</p>")
    site.write("hello.txt", "\n[[if True:]]\nDear [[=who]],\n\n\n\n[[pass]]\nx < y\n\n")
    assert site.render("hello", who="<Ann>").text == "Dear <Ann>,\n\nx < y\n"


def test_a_sites_templates_use_the_shipped_layout_and_button(site: Site) -> None:
    site.write(
        "order.html",
        '[[subject = T("Your order")]][[extend "layout.html"]]<p>It is there.</p>'
        '[[label, url = "Look", link]][[include "_button.html"]]',
    )
    mail = site.render("order", "de", site="Shop", link=LINK)
    assert mail.subject == "Your order"
    assert mail.text.startswith("Guten Tag,\n\nIt is there.\n\nLook:\nhttps://site.test/")
    assert "automatisch von Shop" in mail.text


def test_the_template_of_the_documentation_works(site: Site) -> None:
    documentation = (Path(__file__).parent.parent / "docs" / "templates.md").read_text(encoding="utf-8")
    (template,) = re.findall(r"```html\n(.*?)```", documentation, re.DOTALL)
    site.write("order.html", template)
    mail = site.render("order", "it", site="Shop", number=7, link=LINK)
    assert mail.subject == "Your order 7"
    assert "It is on its way to you.\n\nYou can follow it here.\n\nFollow the parcel:\nhttps" in mail.text


def test_spans_of_time_come_as_seconds_as_timedelta_or_as_text(site: Site) -> None:
    for given, shown in ((3600, "1 Stunde"), (timedelta(days=3), "3 Tage"), ("bis Montag", "bis Montag")):
        assert (
            f"Der Link gilt {shown}."
            in site.render("verify_email", "de", **{**VERIFY, "expires": given}).text
        )


def test_names_are_the_mails_and_not_their_parts(site: Site) -> None:
    site.write("order.html", "<title>x</title>")
    site.write("_footer.html", "x")
    names = templates_of(site.folder).names()
    assert {"order", "verify_email", "alert"} <= set(names)
    assert not {"layout", "_footer", "_button"} & set(names)


@pytest.mark.parametrize(
    "name", ["nope", "layout", "_button", "../mail/approved", "/etc/passwd", "", "a b", "approved\n"]
)
def test_what_is_no_template_is_refused(site: Site, name: str) -> None:
    with pytest.raises(BadTemplate):
        site.render(name, **VERIFY)


def test_a_language_that_is_not_there_is_refused() -> None:
    with pytest.raises(BadTemplate, match="'xx'"):
        templates_of(None).render("verify_email", "xx", VERIFY)


def test_a_mail_without_a_subject_is_refused(site: Site) -> None:
    site.write("hello.html", "<p>x</p>")
    with pytest.raises(BadMessage, match="subject"):
        site.render("hello")


@pytest.mark.parametrize("name", ["T", "span", "language", "write"])
def test_a_variable_cannot_take_the_place_of_a_part_of_the_machinery(site: Site, name: str) -> None:
    with pytest.raises(BadTemplate, match=name):
        site.render("verify_email", **VERIFY, **{name: "x"})


def test_a_variable_that_is_missing_is_named_at_the_call(site: Site) -> None:
    with pytest.raises(BadMessage, match=r"verify_email.*'link' is not defined"):
        site.render("verify_email", site="x", expires=60)


# --- escaping --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["[[=x]]", '[[=T("Hello {name},").format(name=x)]]', '<a title="[[=x]]">z</a>']
)
def test_a_variable_is_text_wherever_it_stands(site: Site, place: str) -> None:
    site.write("hello.html", f"<title>[[=x]]</title><p>{place}</p>")
    mail = site.render("hello", "de", x=EVIL)
    elements = Elements(mail.html)
    assert not {"script", "img"} & set(elements.tags)
    assert EVIL in elements.text or ("title", EVIL) in elements.attributes
    assert mail.subject == EVIL
    if "title=" not in place:
        assert EVIL in mail.text


def test_a_translation_is_text_too(site: Site) -> None:
    site.write("de", {"Log in": "<b>&amp;</b>"})
    site.write("hello.html", '<title>x</title><p>[[=T("Log in")]]</p>')
    mail = site.render("hello", "de")
    assert mail.text == "<b>&amp;</b>\n"
    assert "b" not in Elements(mail.html).tags


def test_yatls_helpers_are_html(site: Site) -> None:
    site.write("hello.html", "<title>x</title><p>[[=x]]</p>")
    assert "<p><strong>&lt;i&gt;</strong></p>" in site.render("hello", x=STRONG("<i>")).html


@pytest.mark.parametrize(
    "breaking", ["\r\nBcc: all@x.test", "\u2028Bcc: x", "\x00\x1b[31m", "\ud800", "\u202e", "\t"]
)
def test_a_subject_is_one_line_of_printable_letters(site: Site, breaking: str) -> None:
    site.write("hello.html", "<title>Hi [[=x]]!</title>")
    subject = site.render("hello", x=f"a{breaking}b").subject
    assert subject.isprintable()
    assert subject.startswith("Hi a")
    assert subject.endswith("b!")


@pytest.mark.parametrize("name", ["Ann", "J.R. Ewing", "Dr. Ann O'Neil-Müller", "山田 太郎", "Ann\n Smith"])
def test_a_person_is_greeted_by_name(site: Site, name: str) -> None:
    mail = site.render("verify_email", **{**VERIFY, "name": name})
    assert mail.text.startswith(f"Hello {' '.join(name.split())},\n")


@pytest.mark.parametrize(
    "name", [None, "", " ", "win at https://evil.test", "evil.test", "a@evil.test", "Buy now! " * 10]
)
def test_a_name_that_is_a_message_is_not_carried_to_a_stranger(site: Site, name: str | None) -> None:
    mail = site.render("verify_email", **{**VERIFY, "name": name})
    assert mail.text.startswith("Hello,\n")
    assert "evil" not in mail.html + mail.text


# --- a site's own files ----------------------------------------------------------------------


def test_a_sites_template_goes_before_the_shipped_one(site: Site) -> None:
    site.write("verify_email.html", "<title>Ours</title><p>[[=link]]</p>")
    mail = site.render("verify_email", **VERIFY)
    assert (mail.subject, mail.text, mail.fault) == ("Ours", f"{LINK}\n", "")
    assert site.render("approved", **VERIFY).subject == "Your account was approved"


def test_a_sites_text_alone_goes_with_the_shipped_html(site: Site) -> None:
    site.write("verify_email.txt", "Click [[=link]]")
    mail = site.render("verify_email", **VERIFY)
    assert (mail.subject, mail.text) == ("Confirm your e-mail address", f"Click {LINK}\n")


def test_a_text_does_not_go_with_a_template_of_another_folder(site: Site, tmp_path: Path) -> None:
    shipped = Site(tmp_path / "shipped")
    shipped.write("hello.html", "<title>x</title>shipped")
    shipped.write("hello.txt", "shipped text")
    site.write("hello.html", "<title>x</title>ours")
    folders = [place.folder / "templates" / "mail" for place in (site, shipped)]
    assert Templates(folders, [TRANSLATIONS]).render("hello", "en", {}).text == "ours\n"


def test_a_sites_layout_is_around_the_shipped_mails(site: Site) -> None:
    site.write("layout.html", "<title>[[=subject]]</title><h1>Our logo</h1><p>[[=lead]]</p>[[include]]")
    mail = site.render("verify_email", **VERIFY)
    assert mail.text.startswith("Our logo\n\nPlease confirm")
    assert LINK in mail.text


def test_a_sites_translation_goes_before_the_shipped_one(site: Site) -> None:
    site.write("de", {"Confirm your e-mail address": "Adresse bestätigen"})
    mail = site.render("verify_email", "de", **VERIFY)
    assert mail.subject == "Adresse bestätigen"
    assert "Der Link gilt 24 Stunden." in mail.text


SHIPPED = replace(templates_of(None).render("verify_email", "de", VERIFY), fault="")


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("verify_email.html", "<title>[[=lnk]]</title>", "'lnk' is not defined"),
        ("verify_email.html", "<title>x</title>[[if True:]]", 'missing "pass"'),
        ("verify_email.html", "<title>x</title>[[=1 +]]", "SyntaxError"),
        ("verify_email.html", "<title>x</title>[[=1 / 0]]", "ZeroDivisionError"),
        ("verify_email.html", '<title>x</title>[[extend "nowhere.html"]]', "nowhere.html"),
        ("verify_email.html", "<p>no subject</p>", "subject"),
        ("verify_email.txt", "[[=lnk]]", "'lnk' is not defined"),
        ("layout.html", "<title>[[=titel]]</title>[[include]]", "'titel' is not defined"),
        ("_button.html", "[[=adress]]", "'adress' is not defined"),
        ("de", {"Hello {name},": "Hallo {nmae},"}, "Hello {name},"),
        ("de", {"Log in": 5}, "de.json"),
    ],
)
def test_where_a_sites_own_file_is_broken_the_shipped_mail_goes_out(
    site: Site, path: str, content: object, told: str
) -> None:
    site.write(path, content)
    mail = site.render("verify_email", "de", **VERIFY)
    assert replace(mail, fault="") == SHIPPED
    assert told in mail.fault


ORDER = (
    '[[subject = T("Your order")]]\n[[extend "layout.html"]]\n<p>It is there.</p>\n[[include "_foot.html"]]\n'
)
LAYOUT = "<title>[[=subject]]</title>\n<h1>Logo</h1>\n{}\n[[include]]\n<p>End</p>\n"


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("layout.html", LAYOUT.format("[[if lead]]x"), " (layout.html, line 3)"),
        (
            "layout.html",
            LAYOUT.format("[[=lnk]]"),
            "NameError: name 'lnk' is not defined (layout.html, line 3)",
        ),
        ("layout.html", LAYOUT.format("[[=1 / 0]]"), "ZeroDivisionError (layout.html, line 3)"),
        (
            "layout.html",
            LAYOUT.format("[[\na = 1\nb = lnk\n]]"),
            "'lnk' is not defined (layout.html, line 5)",
        ),
        ("layout.html", LAYOUT.format("[[if True:]]"), 'missing "pass" in view (layout.html)'),
        ("layout.html", LAYOUT.format("[[end]]"), 'starting "block" tag (layout.html)'),
        ("layout.html", LAYOUT.format("[[include _foot.html]]"), "'_foot' is not defined (layout.html)"),
        ("layout.html", LAYOUT.format("[[try:]]x[[pass]]"), " (layout.html)"),
        ("_foot.html", "[[try:]]x[[pass]]", " (_foot.html)"),
        ("_foot.html", "[[=1 +]]", "(_foot.html, line 1)"),
        ("_foot.html", "[[if True:]]x", 'missing "pass" in view (_foot.html)'),
        ("_foot.html", '[[include "_foot.html"]]', "RecursionError (order.html, _foot.html)"),
        ("order.html", f"{ORDER}\n[[=lnk]]", "'lnk' is not defined (order.html, line 6)"),
        ("order.html", f"{ORDER}[[if True:]]x", 'missing "pass" in view (order.html)'),
        ("order.txt", "x\n[[=lnk]]", "'lnk' is not defined (order.txt, line 2)"),
    ],
)
def test_a_mistake_is_told_with_the_file_and_its_line(site: Site, path: str, content: str, told: str) -> None:
    site.write("layout.html", LAYOUT.format(""))
    site.write("order.html", ORDER)
    site.write("_foot.html", "<p>Foot</p>")
    assert site.render("order").text.startswith("Logo")
    site.write(path, content)
    with pytest.raises(BadTemplate, match=f"{re.escape(told)}$"):
        site.render("order")
    if path == "layout.html":
        assert site.render("verify_email", **VERIFY).fault.endswith(told)


def test_a_file_in_another_encoding_is_named(site: Site) -> None:
    site.write("order.html", ORDER)
    (site.folder / "templates" / "mail" / "_foot.html").write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(BadTemplate, match=r"_foot\.html .*UTF-8"):
        site.render("order")


def test_a_broken_file_of_translations_leaves_the_shipped_languages(site: Site) -> None:
    site.write("de", {"Log in": 5})
    templates = templates_of(site.folder)
    assert templates.languages() == templates_of(None).languages()
    assert templates.best_language("de-AT") == "de"


def test_a_fault_does_not_tell_the_values_of_variables(site: Site) -> None:
    site.write("verify_email.html", "<title>x</title>[[=int(link)]]")
    mail = site.render("verify_email", **VERIFY)
    assert "ValueError" in mail.fault
    assert "token" not in mail.fault


def test_a_broken_template_that_only_the_site_has_is_refused_at_the_call(site: Site) -> None:
    site.write("hello.html", "<title>x</title>[[=lnk]]")
    with pytest.raises(BadMessage, match=r"hello.*'lnk' is not defined"):
        site.render("hello")


def test_a_repaired_file_is_used_again(site: Site) -> None:
    templates = templates_of(site.folder)
    site.write("verify_email.html", "<title>x</title>[[=lnk]]")
    assert templates.render("verify_email", "en", VERIFY).fault
    site.write("verify_email.html", "<title>x</title>[[=link]]")
    assert not templates.render("verify_email", "en", VERIFY).fault


# --- many at once ----------------------------------------------------------------------------


def test_threads_make_mails_in_different_languages_at_the_same_time(site: Site) -> None:
    templates = templates_of(site.folder)
    expected = {tag: templates_of(None).render("verify_email", tag, VERIFY) for tag in templates.languages()}
    start, wrong = threading.Barrier(len(expected)), []

    def work(tag: str) -> None:
        start.wait()
        wrong.extend(tag for _ in range(10) if templates.render("verify_email", tag, VERIFY) != expected[tag])

    threads = [threading.Thread(target=work, args=(tag,)) for tag in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len({mail.subject for mail in expected.values()}) == len(expected) == 8

"""The administrator's pages of the mail templates, over HTTP, in the scaffold site."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailqueue.rendering import templates_of
from support.browser import Browser
from support.scaffold import ServedSite, make_site
from test_admin import HTML, MOUNT, registered

NAMES, TAGS = templates_of(None).names(), templates_of(None).languages()
LIST = "mailqueue/templates"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    site = make_site(tmp_path_factory.mktemp("pages"), settings={"VERIFY_EMAIL": False}, extra_common=MOUNT)
    with site.serve() as running:
        yield running


@pytest.fixture(scope="module")
def admin(served: ServedSite) -> Browser:
    return registered(served, "admin@example.test", "/admin/")


@pytest.fixture
def own(served: ServedSite) -> Iterator[Path]:
    """The folder of the site's own templates, empty again afterwards."""
    folder = served.site.folder / "templates" / "mail"
    folder.mkdir()
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("path", [LIST, "mailqueue/template/alert/en"])
def test_they_are_for_members_of_the_group_only(served: ServedSite, path: str) -> None:
    assert served.browser().get(path, headers=HTML, allow_redirects=False).status_code == 303
    assert registered(served, f"{len(path)}@example.test").get(path).status_code == 403


def test_the_list_leads_to_each_mail_in_each_language(admin: Browser) -> None:
    page = admin.get(LIST)
    links = set(re.findall(r'href="(/site/mailqueue/template/[^"]+)"', page.text))
    assert links == {f"/site/mailqueue/template/{name}/{tag}" for name in NAMES for tag in TAGS}
    assert admin.get("mailqueue").text.count('href="/site/mailqueue/templates"') == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_mail_is_shown_with_subject_text_and_sandboxed_html(admin: Browser, name: str) -> None:
    page = admin.get(f"mailqueue/template/{name}/de")
    assert page.status_code == 200
    (frame,) = re.findall(r"<iframe [^>]*>", page.text)
    assert 'sandbox=""' in frame
    assert "frame-src 'none'" in page.headers["Content-Security-Policy"].split("; ")
    document = html.unescape(re.findall(r'srcdoc="([^"]*)"', frame)[0])
    assert "default-src 'none'" in document
    assert '<html lang="de"' in document
    assert re.search(r"<pre [^>]*>Guten Tag Ann Example,\n", page.text)


@pytest.mark.parametrize("path", ["nope/en", "alert/xx", "layout/en", "_button/en", "..%2Falert/en", "alert"])
def test_what_is_not_there_is_not_found(admin: Browser, path: str) -> None:
    assert admin.get(f"mailqueue/template/{path}").status_code == 404


def test_a_sites_own_template_is_shown_as_soon_as_it_is_written(admin: Browser, own: Path) -> None:
    (own / "order.html").write_text("<title>Order of [[=name]]</title><p>Hi</p>", encoding="utf-8")
    assert "/site/mailqueue/template/order/en" in admin.get(LIST).text
    assert "Order of Ann Example" in admin.get("mailqueue/template/order/en").text


def test_a_broken_template_is_told_in_plain_words(admin: Browser, own: Path) -> None:
    (own / "alert.html").write_text("<title>[[=x]]</title>", encoding="utf-8")
    (own / "order.html").write_text("<title>[[=x]]</title>", encoding="utf-8")
    replaced = html.unescape(admin.get("mailqueue/template/alert/en").text)
    assert "'x' is not defined (alert.html, line 1). The shipped one is shown, and used." in replaced
    assert "The mail of Example needs your attention" in replaced
    alone = html.unescape(admin.get("mailqueue/template/order/en").text)
    assert "'x' is not defined" in alone
    assert "<iframe" not in alone

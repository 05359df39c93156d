"""Every mail of py4web's Auth is queued, over form and API, in the language of whoever asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email import message_from_string, policy
from email.message import EmailMessage
from typing import Any

import pytest
from support.browser import Browser
from support.mail import SENDER
from support.scaffold import ServedSite, make_site
from support.smtp_server import ScriptedServer

WORDS = {
    "Confirm email": "Bestätige die Adresse",
    "Welcome {first_name}, click {link} to confirm your email": "Willkommen {first_name}: {link}",
    "Password reset": "Neues Kennwort",
    "Hello {first_name}, click {link} to change password": "Hallo {first_name}, neues Kennwort: {link}",
    "Unsubscribe confirmation": "Abmeldung",
    "By {first_name}, you have been erased from our system": "Tschüs {first_name}",
}
# What py4web's own route does not reach: it fails before it sends.
UNSUBSCRIBE = """
@action("erase")
@action.uses(session, db, T, auth)
def _():
    auth.send("unsubscribe", db.auth_user(username="ann"))
    return "done"
"""
ENGLISH = {key: key for key in WORDS}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedSite]:
    with ScriptedServer() as smtp:
        settings = {"SMTP_SERVER": f"127.0.0.1:{smtp.port}", "SMTP_SENDER": SENDER}
        site = make_site(tmp_path_factory.mktemp("auth"), settings=settings, extra_common=UNSUBSCRIBE)
        translations = {english: {"0": german} for english, german in WORDS.items()}
        (site.folder / "translations" / "de.json").write_text(json.dumps(translations), encoding="utf-8")
        with site.serve() as served:
            yield served


@pytest.fixture(params=["de", "en"])
def visitor(request: pytest.FixtureRequest, served: ServedSite) -> Browser:
    browser = served.browser()
    browser.session.headers["Accept-Language"] = f"{request.param},en;q=0.5"
    return browser


def words_for(visitor: Browser) -> dict[str, str]:
    return WORDS if str(visitor.session.headers["Accept-Language"]).startswith("de") else ENGLISH


def queued_for(served: ServedSite, address: str) -> list[tuple[dict[str, Any], EmailMessage]]:
    """The messages to this address, by the rows of the queue."""
    rows = served.site.rows(
        "SELECT m.*, c.mime FROM mailqueue_message m JOIN mailqueue_recipient r ON r.message_ref = m.id"
        " JOIN mailqueue_content c ON c.message_ref = m.id WHERE r.address = ? ORDER BY m.id",
        address,
    )
    found = []
    for row in rows:
        message = message_from_string(row["mime"], policy=policy.default)
        assert isinstance(message, EmailMessage)
        found.append((row, message))
    return found


def is_auths(served: ServedSite, address: str, subject: str, text: str) -> None:
    """The last mail to this address is Auth's, and says this."""
    row, message = queued_for(served, address)[-1]
    assert (row["category"], row["status"], row["priority"]) == ("auth", "queued", 0)
    assert (row["subject"], message["Subject"]) == (subject, subject)
    before, link, after = text.partition("{link}")
    content = message.get_content().strip()
    assert content.startswith(before) and content.endswith(after)
    assert f"{served.url}/auth/" in content or not link


def address_of(visitor: Browser, kind: str) -> str:
    return f"{kind}-{str(visitor.session.headers['Accept-Language'])[:2]}@visitor.test"


@pytest.mark.parametrize("way", ["form", "api"])
def test_verify_email(served: ServedSite, visitor: Browser, way: str) -> None:
    address = address_of(visitor, f"new-{way}")
    answer = (visitor.register if way == "form" else visitor.register_by_api)(address)
    assert answer.status_code == 200
    words = words_for(visitor)
    text = words["Welcome {first_name}, click {link} to confirm your email"]
    is_auths(served, address, words["Confirm email"], text.replace("{first_name}", "Ann"))
    assert len(queued_for(served, address)) == 1


@pytest.mark.parametrize("way", ["form", "api"])
def test_reset_password(served: ServedSite, visitor: Browser, way: str) -> None:
    address = address_of(visitor, f"reset-{way}")
    visitor.register(address)
    if way == "form":
        answer = visitor.fill("auth/request_reset_password", email=address)
    else:
        answer = visitor.post("auth/api/request_reset_password", json={"email": address})
    assert answer.status_code == 200
    words = words_for(visitor)
    text = words["Hello {first_name}, click {link} to change password"]
    is_auths(served, address, words["Password reset"], text.replace("{first_name}", "Ann"))
    assert len(queued_for(served, address)) == 2


def test_unsubscribe(served: ServedSite, visitor: Browser) -> None:
    address = "gone@visitor.test"
    if not queued_for(served, address):
        visitor.register(address, username="ann")
    assert visitor.get("erase").status_code == 200
    words = words_for(visitor)
    text = words["By {first_name}, you have been erased from our system"]
    is_auths(served, address, words["Unsubscribe confirmation"], text.replace("{first_name}", "Ann"))


def test_nobody_is_written_to_for_an_address_that_is_unknown(served: ServedSite, visitor: Browser) -> None:
    visitor.fill("auth/request_reset_password", email="stranger@visitor.test")
    visitor.post("auth/api/request_reset_password", json={"email": "stranger@visitor.test"})
    assert queued_for(served, "stranger@visitor.test") == []


def test_a_registration_that_is_refused_sends_nothing(served: ServedSite, visitor: Browser) -> None:
    answer = visitor.register_by_api("weak@visitor.test", password="1")
    assert answer.json()["status"] == "error"
    assert queued_for(served, "weak@visitor.test") == []

"""What pauses of some of several transports mean for the mail, and what the pages say of them."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer, failover, queries, route, trial
from mailqueue.stoppages import A_ROUTE_WAITS, ALL_WAITS, OTHERS_SEND, is_held_up, stoppages
from support.browser import Browser
from support.console_site import MOUNT, registered
from support.mail import SENDER, Clock, make_mail
from support.scaffold import make_site
from support.smtp_server import ScriptedServer, refused_port

WAITS_FOR_REPAIR = "It goes out by itself once sending is no longer held up."


@pytest.fixture
def good(smtp: ScriptedServer) -> str:
    return f"smtp://127.0.0.1:{smtp.port}?tls=none"


@pytest.fixture
def refused() -> Iterator[list[str]]:
    with ExitStack() as stack:
        yield [f"smtp://127.0.0.1:{stack.enter_context(refused_port())}?tls=none" for _ in range(2)]


def news(*to: Any) -> Any:
    return route(failover(*to), category="newsletter")


def sent_over(folder: Path, transports: list[Any], routes: Any = None) -> QueuedMailer:
    """A mailer that has tried to send a mail of each kind."""
    mail = make_mail(folder, transports=transports, routes=routes)
    mail.send("ann@x.test", subject="usual")
    mail.send("ann@x.test", subject="news", category="newsletter")
    mail.process_queue()
    return mail


def extents(mail: QueuedMailer) -> list[tuple[str, str]]:
    """Of each transport that keeps mail waiting or another one busy, what it means."""
    return [(row["transport"].rpartition(":")[2], row["extent"]) for row in stoppages(mail)]


def held_up(mail: QueuedMailer) -> list[str]:
    """The subjects of the messages that are held up, were they to be sent now."""
    for category in (None, "newsletter"):
        mail.send("bob@x.test", subject=category or "usual", category=category)
    found = (queries.message(mail.db, row["id"]) for row in queries.messages(mail.db, limit=2))
    return sorted(row["subject"] for row in found if row and is_held_up(mail, row))


def port(url: str) -> str:
    return str(re.findall(r":(\d+)", url)[0])


def test_nothing_waits_while_another_transport_takes_the_mail(
    tmp_path: Path, good: str, refused: list[str]
) -> None:
    mail = sent_over(tmp_path, [refused[0], good])
    assert extents(mail) == [(port(refused[0]), OTHERS_SEND)]
    assert held_up(mail) == []


def test_all_waits_where_no_transport_is_left(tmp_path: Path, refused: list[str]) -> None:
    mail = sent_over(tmp_path, refused)
    assert extents(mail) == [(port(url), ALL_WAITS) for url in refused]
    assert held_up(mail) == ["newsletter", "usual"]


def test_the_only_transport_keeps_all_waiting(tmp_path: Path, refused: list[str]) -> None:
    mail = sent_over(tmp_path, refused[:1])
    assert extents(mail) == [(port(refused[0]), ALL_WAITS)]
    assert held_up(mail) == ["newsletter", "usual"]


def test_mail_of_a_route_waits_for_its_only_transport(tmp_path: Path, good: str, refused: list[str]) -> None:
    mail = sent_over(tmp_path, [good], [news(refused[0])])
    assert extents(mail) == [(port(refused[0]), A_ROUTE_WAITS)]
    assert held_up(mail) == ["newsletter"]


def test_a_route_with_another_transport_waits_for_none(tmp_path: Path, good: str, refused: list[str]) -> None:
    mail = sent_over(tmp_path, [good], [news(refused[0], good)])
    assert extents(mail) == [(port(refused[0]), OTHERS_SEND)]
    assert held_up(mail) == []


def test_the_worst_comes_first_and_a_route_that_works_is_not_held_up(
    tmp_path: Path, good: str, refused: list[str]
) -> None:
    mail = sent_over(tmp_path, [refused[1]], [news(refused[0], good)])
    assert extents(mail) == [(port(refused[1]), ALL_WAITS), (port(refused[0]), OTHERS_SEND)]
    assert held_up(mail) == ["usual"]


def test_a_message_is_not_held_up_where_an_administrator_chose_a_transport_that_works(
    tmp_path: Path, good: str, refused: list[str]
) -> None:
    mail = sent_over(tmp_path, [good], [news(refused[0])])
    message = queries.message(mail.db, 2)
    assert message and is_held_up(mail, message)
    assert not is_held_up(mail, {**message, "next_transport": f"smtp://127.0.0.1:{port(good)}"})


def test_a_transport_that_cannot_be_made_stops_the_mail_that_has_no_other(tmp_path: Path, good: str) -> None:
    mail = sent_over(tmp_path, ["gopher://h.test", good])
    assert extents(mail) == [("", OTHERS_SEND)]
    mail.settings.transports, mail.settings.routes = [good], [news("gopher://h.test")]
    assert (extents(mail), held_up(mail)) == ([("", A_ROUTE_WAITS)], ["newsletter"])
    mail.settings.transports, mail.settings.routes = ["gopher://h.test", "gopher://i.test"], None
    assert (extents(mail), held_up(mail)) == ([("", ALL_WAITS)], ["newsletter", "usual"])
    mail.settings.transports = "no list"
    assert (extents(mail), held_up(mail)) == ([("", ALL_WAITS)], ["newsletter", "usual"])


def test_without_a_worker_all_waits_however_many_transports_there_are(tmp_path: Path, good: str) -> None:
    clock = Clock()
    mail = make_mail(tmp_path, clock=clock, transports=[good, "memory"])
    mail.send("ann@x.test")
    clock.advance(3600)
    mail.silence()
    assert (extents(mail), held_up(mail)) == ([("", ALL_WAITS)], ["newsletter", "usual"])


def test_a_trial_says_that_mail_waits_only_where_it_does(
    tmp_path: Path, good: str, refused: list[str]
) -> None:
    mail = make_mail(tmp_path, transports=[refused[0], good], routes=[news(refused[1])])
    found = ["Nothing is lost" in tried.remedy for tried in trial.try_transports(mail)]
    assert found == [False, False, True]


def test_the_pages_say_whose_mail_waits(tmp_path: Path, good: str, refused: list[str]) -> None:
    ways = f"""
from mailqueue import route
mail.settings.transports = [{refused[0]!r}, {good!r}]
mail.settings.routes = [route({refused[1]!r}, category="newsletter")]
"""
    settings = {"VERIFY_EMAIL": False, "SMTP_SERVER": "", "SMTP_SENDER": SENDER}
    site = make_site(tmp_path, settings=settings, extra_common=MOUNT + ways)
    with site.serve() as served, closing(site.dal()) as db:
        admin = registered(served, "admin@example.test", "/admin/")
        usual = [refused[0], good]
        mail = QueuedMailer(db, transports=usual, routes=[news(refused[1])], sender=SENDER)
        mail.send("ann@x.test")
        mail.send("ann@x.test", send_at=mail.site.clock() + 7200)
        assert mail.process_queue()["sent"] == 1
        for path in ("mailqueue", "mailqueue/overview", "mailqueue/message/1"):
            page = told(admin, path)
            assert "Mail goes out over the other transports." in page
            assert "No mail is sent" not in page and "Nothing is lost" not in page
        problems = told(admin, "mailqueue/problems")
        assert "Mail goes out over the other transports. Next try:" in problems
        assert "Affected messages" not in problems and "Nothing is lost" not in problems
        assert WAITS_FOR_REPAIR not in told(admin, "mailqueue/message/2")
        mail.send("ann@x.test", category="newsletter")
        mail.process_queue()
        page = told(admin, "mailqueue")
        assert "Mail of a route waits: The mail server refuses the connection." in page
        assert "No mail is sent" not in page and "Nothing is lost" in page
        assert "Mail of a route waits because of this." in told(admin, "mailqueue/problems")
        assert WAITS_FOR_REPAIR in told(admin, "mailqueue/message/3")


def told(admin: Browser, path: str) -> str:
    """What a page says, without its tags."""
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", admin.get(path).text)).split())

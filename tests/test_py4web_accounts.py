"""Auth completed by a mailer, without a server: what is replaced, what the host decides, what is alike."""

from __future__ import annotations

import inspect
import itertools
import threading
import types
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mailqueue import QueuedMailer
from mailqueue.py4web import accounts
from py4web.core import Session, Translator, request
from py4web.utils.auth import Auth, b16e
from py4web.utils.mailer import Mailer
from support.mail import START, Clock, make_mail, open_causes, rows

SECRET = "2f1c8e0a-7b64-4d39-9a55"
BASE = "https://site.test/app"
PASSWORD, OTHER_PASSWORD = "Correct-Horse-Battery-1", "Another-Horse-Battery-2"
ANN = {"email": "Ann@Visitor.test", "password": PASSWORD, "first_name": "Ann", "last_name": "Other"}
ADDRESS = "ann@visitor.test"


@pytest.fixture
def mail(tmp_path: Path) -> QueuedMailer:
    return make_mail(tmp_path, server="memory", clock=Clock())


@pytest.fixture
def mail_anywhere(tmp_path: Path, empty_uri: str) -> QueuedMailer:
    """The mailer on every kind of database."""
    return make_mail(tmp_path, uri=empty_uri, server="memory", clock=Clock())


@pytest.fixture(autouse=True)
def in_a_request() -> Iterator[None]:
    request.__init__({"PATH_INFO": "/app/auth", "REMOTE_ADDR": "8.8.8.8"})
    request.app_name = "app"
    yield
    request.__init__(None)


def make_auth(mail: QueuedMailer, kind: type[Auth] = Auth, **options: Any) -> Auth:
    return kind(Session(secret=SECRET), mail.db, use_username=False, **options)


@pytest.fixture
def auth(mail: QueuedMailer) -> Auth:
    auth = make_auth(mail)
    mail.enable_auth(auth, BASE, mails_per_address=None, mails_per_client=None)
    return auth


ROUTES = (f"approval-{number}" for number in itertools.count())  # each can be mounted once in a process


def user(auth: Auth, email: str = ADDRESS) -> Any:
    return auth.db.auth_user(email=email)


def active(auth: Auth, **changes: Any) -> Any:
    """An account that may be logged in to, without a mail."""
    account = auth.register({**ANN, **changes}, send=False)["id"]
    auth.db(auth.db.auth_user.id == account).update(action_token=None)
    return auth.db.auth_user(account)


def subjects(mail: QueuedMailer) -> list[str]:
    mail.db.commit()
    return [row["subject"] for row in rows(mail, "message")]


# --- what is replaced ------------------------------------------------------------------------


def test_every_replaced_method_takes_auths_own_arguments(auth: Auth) -> None:
    for name in accounts._REPLACED:
        stock = inspect.signature(getattr(Auth, name)).parameters.values()
        ours = inspect.signature(getattr(auth, name)).parameters
        for parameter in list(stock)[1:]:
            assert parameter.name in ours or parameter.kind is parameter.VAR_KEYWORD, (name, parameter)
            if name != "request_reset_password" and parameter.kind is not parameter.VAR_KEYWORD:
                assert ours[parameter.name].default == parameter.default, (name, parameter)
        assert getattr(Auth, name) is not getattr(auth, name).__func__


def test_another_auth_is_left_alone(mail: QueuedMailer, auth: Auth) -> None:
    other = make_auth(mail)
    assert other.request_reset_password.__func__ is Auth.request_reset_password
    assert other.sender is None


def test_enabling_again_changes_the_terms_only(mail: QueuedMailer, auth: Auth) -> None:
    register = auth.register
    mail.enable_auth(auth, mails_per_address="1/day", mails_per_client=None, reset_expires_after=60)
    assert auth.register == register
    active(auth)
    for _ in range(3):
        auth.request_reset_password(ADDRESS)
    assert subjects(mail) == ["Choose a new password"]
    assert mail.settings.base_url == BASE


def test_the_pages_bring_it_along_but_not_to_a_host_that_mails_in_another_way(mail: QueuedMailer) -> None:
    auth = make_auth(mail)
    mail.enable_approval(auth, "boss@site.test", route=next(ROUTES))
    assert auth.sender is mail
    assert accounts.of(auth)
    another = make_auth(mail)
    another.sender = Mailer()
    mail.enable_approval(another, "boss@site.test", route=next(ROUTES))
    assert isinstance(another.sender, Mailer)
    assert accounts.of(another) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "site.test"},
        {"mails_per_address": "often"},
        {"mails_per_client": "2 connections"},
        {"proxies": "one"},
        {"proxies": -1},
    ],
)
def test_what_makes_no_sense_is_refused_at_once(mail: QueuedMailer, wrong: dict[str, str]) -> None:
    auth = make_auth(mail)
    with pytest.raises(ValueError, match="expected something like"):
        mail.enable_auth(auth, **wrong)
    assert accounts.of(auth) is None
    assert auth.sender is None


@pytest.mark.parametrize("wrong", [0, -1, "3 days", None, float("nan"), True])
def test_times_that_make_no_sense_are_refused_at_once(mail: QueuedMailer, wrong: Any) -> None:
    auth = make_auth(mail)
    for name in ("verify_expires_after", "reset_expires_after"):
        with pytest.raises(ValueError, match=name):
            mail.enable_auth(auth, BASE, **{name: wrong})
    with pytest.raises(ValueError, match="expires_after"):
        mail.enable_approval(auth, ["boss@site.test"], wrong)
    assert accounts.of(auth) is None


def test_times_may_be_timedeltas(mail: QueuedMailer) -> None:
    auth, hour = make_auth(mail), timedelta(hours=1)
    assert mail.two_factor_send({"email": ADDRESS}, "123456", expires_after=hour) == "123456"
    mail.enable_auth(auth, BASE, verify_expires_after=hour, reset_expires_after=hour)
    mail.enable_approval(auth, ["boss@site.test"], hour, route=next(ROUTES))
    auth.register(dict(ANN))
    auth.request_reset_password(active(auth, email="bob@visitor.test").email)
    user(auth).update_record(action_token="pending-approval")
    mail.db.commit()
    assert {row["expires_on"] for row in rows(mail, "message")} == {START + 3600}


def test_an_auth_without_tables_is_refused_at_once(mail: QueuedMailer) -> None:
    auth = make_auth(mail, define_tables=False)
    with pytest.raises(ValueError, match="define_tables"):
        mail.enable_auth(auth, BASE)
    with pytest.raises(ValueError, match="define_tables"):
        mail.enable_approval(auth, ["boss@site.test"])


@pytest.mark.parametrize("approvers", [[], "no address", ["a@x.test", "b"], "a@x.test, b@x.test"])
def test_approvers_that_are_none_are_refused_at_once(mail: QueuedMailer, approvers: Any) -> None:
    with pytest.raises(ValueError):
        mail.enable_approval(make_auth(mail), approvers)


# --- whose text ------------------------------------------------------------------------------


def test_the_hosts_own_text_wins(mail: QueuedMailer, auth: Auth) -> None:
    auth.param.messages["verify_email"]["body"] = "Hi {first_name}: {link}"
    auth.param.messages["news"] = {"subject": "News", "body": "For {first_name}"}
    auth.register(dict(ANN))
    auth.send("news", user(auth))
    auth.param.messages["reset_password"]["subject"] = "Forgotten?"
    active(auth, email="bob@visitor.test")
    auth.request_reset_password("bob@visitor.test")
    assert subjects(mail) == ["Confirm email", "News", "Forgotten?"]
    mail.process_queue()
    assert f"Hi Ann: {BASE}/auth/verify_email?token=".encode() in mail.captured[0].mime


@pytest.mark.parametrize("wrong", ["Hi {foo}: {link}", "Hi {: {link}", "Hi {0}", ("Hi", "<p>{link.x}</p>")])
def test_a_text_of_the_hosts_that_cannot_be_filled_in_refuses_nobody(
    mail: QueuedMailer, auth: Auth, wrong: Any
) -> None:
    auth.param.messages["verify_email"]["body"] = wrong
    assert auth.register(dict(ANN))["id"]
    assert subjects(mail) == ["Confirm your e-mail address"]
    assert open_causes(mail) == ["template-broken"]
    assert "auth.param.messages['verify_email']" in rows(mail, "problem")[0]["detail"]


def test_the_stock_text_is_replaced_translated_or_not(mail: QueuedMailer, tmp_path: Path) -> None:
    (tmp_path / "de.json").write_text('{"Confirm email": {"0": "Bestätige die Adresse"}}', encoding="utf-8")
    T = Translator(str(tmp_path))  # noqa: N806 - its usual name
    auth = make_auth(mail, T=T)
    mail.enable_auth(auth, BASE)
    request.environ["HTTP_ACCEPT_LANGUAGE"] = "fr"
    auth.register(dict(ANN))
    (subject,) = subjects(mail)
    assert "adresse" in subject
    assert not accounts.of(auth).mails.host_has_own_text("verify_email")  # type: ignore[union-attr]


def test_a_host_that_sends_in_its_own_way_goes_on(mail: QueuedMailer) -> None:
    sent = []

    class Own(Auth):  # type: ignore[misc]
        def send(self, name: str, user: Any, **attrs: Any) -> bool:
            sent.append((name, attrs["link"]))
            return True

    auth = make_auth(mail, Own)
    mail.enable_auth(auth, BASE)
    auth.register(dict(ANN))
    assert [name for name, _ in sent] == ["verify_email"]
    assert sent[0][1].startswith(BASE)
    assert subjects(mail) == []


def test_a_mail_that_cannot_be_made_is_the_administrators_business(mail: QueuedMailer, auth: Auth) -> None:
    account = active(auth)
    account.update_record(email="no address")
    auth.send("reset_password", account, link=f"{BASE}/x")
    assert open_causes(mail) == ["auth-mail-not-queued"]
    assert rows(mail, "message")[-1]["status"] == "failed"


def test_a_mail_is_worth_sending_for_as_long_as_its_link_holds(mail: QueuedMailer, auth: Auth) -> None:
    account = active(auth)
    auth.request_reset_password(ADDRESS)
    auth.change_password(user(auth), OTHER_PASSWORD, check_old_password=False)
    account.update_record(email="moved@visitor.test")
    mail.db.commit()
    now = mail.site.clock()
    assert [row["expires_on"] for row in rows(mail, "message")] == [now + 3600, None, None]


def test_a_base_url_that_was_spoilt_later_is_the_administrators_business(
    mail: QueuedMailer, auth: Auth
) -> None:
    mail.settings.base_url = "your site"
    assert auth.register(dict(ANN))["id"]
    active(auth, email="bob@visitor.test")
    assert auth.request_reset_password("bob@visitor.test")
    assert auth.request_reset_password("stranger@visitor.test")
    assert open_causes(mail) == ["no-base-url"]
    assert [row["status"] for row in rows(mail, "message")] == ["failed", "failed"]


def test_what_a_host_gives_to_its_own_mails_does_not_collide(mail: QueuedMailer, auth: Auth) -> None:
    auth.send("verify_email", active(auth), link=BASE, address="x", template="y", options=7)
    assert subjects(mail) == ["Confirm your e-mail address"]


# --- tokens ----------------------------------------------------------------------------------


def test_links_of_before_verify_but_do_not_reset(auth: Auth) -> None:
    account = active(auth)
    account.update_record(action_token="pending-registration:0b9d8f2e")
    assert auth.reset_password("0b9d8f2e", OTHER_PASSWORD, OTHER_PASSWORD)["errors"]
    assert auth.verify_email("0b9d8f2e")
    account.update_record(action_token="reset-password-request:0b9d8f2e")
    assert auth.reset_password("0b9d8f2e", OTHER_PASSWORD, OTHER_PASSWORD)["errors"]
    assert not auth.verify_email("0b9d8f2e")
    assert auth.login(ADDRESS, PASSWORD)[0]


@pytest.mark.parametrize(
    "token", [None, "", ".", "x", 7, "x.99999999999999999", "x.²", "x\0.9999999999", "None"]
)
def test_nonsense_is_no_token(auth: Auth, token: Any) -> None:
    active(auth)
    assert not auth.verify_email(token)
    assert auth.reset_password(token, OTHER_PASSWORD, OTHER_PASSWORD)["errors"]


@pytest.mark.parametrize("text", ["ann\0@visitor.test", "ann\ud800@visitor.test", "ann\0", None, 7])
def test_what_no_database_takes_is_no_address(auth: Auth, text: Any) -> None:
    assert auth.request_reset_password(text)
    assert auth.get_or_delete_existing_unverified_account(text) is None
    assert "email" in auth.register({**ANN, "email": text})["errors"]


def test_only_an_active_account_gets_a_token(auth: Auth) -> None:
    account = active(auth)
    for state in (
        "account-blocked",
        "pending-approval",
        "pending-registration:x.1",
        "gdpr-unsubscribed",
        "y",
    ):
        account.update_record(action_token=state)
        assert auth.request_reset_password(ADDRESS)
        assert user(auth).action_token == state
    account.update_record(action_token="reset-password-request:x")
    token = auth.request_reset_password(ADDRESS)
    assert user(auth).action_token == f"reset-password-request:{token}"


def test_the_page_to_go_to_is_kept_only_if_it_is_on_the_site(auth: Auth) -> None:
    active(auth)
    assert f"/{b16e('/app/basket')}." in auth.request_reset_password(ADDRESS, next="/app/basket")
    for page in ("//evil.test", "https://evil.test", "/\\evil.test", "\\\\evil.test", 7, None):
        assert "/" not in auth.request_reset_password(ADDRESS, next=page)


def test_a_token_is_spent_by_one_of_two_at_the_same_moment(mail_anywhere: QueuedMailer) -> None:
    auth = make_auth(mail_anywhere)
    mail_anywhere.enable_auth(auth, BASE)
    active(auth)
    token = auth.request_reset_password(ADDRESS)
    first, second = user(auth), user(auth)  # both have read the account before either writes
    assert auth.change_password(first, OTHER_PASSWORD, check_old_password=False).get("updated")
    assert auth.change_password(second, "Evil-Horse-Battery-33", check_old_password=False)["errors"]
    assert auth.login(ADDRESS, OTHER_PASSWORD)[0]
    assert not auth.verify_email(token)


def test_a_link_sent_to_an_address_ends_with_a_change_of_the_address(auth: Auth) -> None:
    account = active(auth)
    token = auth.request_reset_password(ADDRESS)
    auth.change_email(account, "other@visitor.test", check=False)
    assert auth.reset_password(token, OTHER_PASSWORD, OTHER_PASSWORD)["errors"]
    assert user(auth, "other@visitor.test").action_token is None


def test_notices_are_bounded_for_each_account_apart_from_all_else(mail: QueuedMailer) -> None:
    auth = make_auth(mail)
    mail.enable_auth(auth, BASE, mails_per_address="2/hour", mails_per_client="1/hour")
    account, bob = active(auth), active(auth, email="bob@visitor.test")
    for address in ("x@visitor.test", "victim@visitor.test") * 4:
        auth.change_email(account, address, check=False)
    for number in range(4):
        auth.change_password(
            user(auth, "victim@visitor.test"), f"Horse-{number}-Battery-1", check_old_password=False
        )
    auth.request_reset_password("bob@visitor.test")
    auth.request_reset_password("bob@visitor.test")
    auth.change_email(bob, "victim@site.test", check=False)
    changed, password, reset = "address was changed", "password was changed", "new password"
    expected = [changed, changed, password, password, reset, changed]
    assert all(part in told for part, told in zip(expected, subjects(mail), strict=True))
    assert open_causes(mail) == ["too-many-account-mails"]


def test_passwords_that_differ_change_nothing(auth: Auth) -> None:
    active(auth)
    token = auth.request_reset_password(ADDRESS)
    assert "new_password2" in auth.reset_password(token, OTHER_PASSWORD, "x")["errors"]
    assert auth.reset_password(token, OTHER_PASSWORD, OTHER_PASSWORD) == {}


# --- alike -----------------------------------------------------------------------------------


def statements(auth: Auth, work: Any) -> list[str]:
    """The kinds of statements that something takes, values apart."""
    seen: list[str] = []
    auth.db.commit()
    auth.db._adapter.connection.set_trace_callback(lambda sql: seen.append(" ".join(sql.split()[:3])))
    work()
    auth.db._adapter.connection.set_trace_callback(None)
    return [sql for sql in seen if sql.startswith(("INSERT", "UPDATE", "DELETE"))]


def test_a_reset_takes_the_same_work_for_everybody(mail: QueuedMailer, auth: Auth) -> None:
    active(auth)
    active(auth, email="pending@visitor.test").update_record(action_token="pending-approval")
    before = len(rows(mail, "message"))
    hints: list[int | None] = []
    mail.wakers.append(hints.append)
    known = statements(auth, lambda: auth.request_reset_password(ADDRESS))
    assert len(known) > 3
    for address in ("stranger@visitor.test", "pending@visitor.test"):
        assert statements(auth, lambda: auth.request_reset_password(address)) == known  # noqa: B023
    assert len(rows(mail, "message")) == before + 1
    assert len(hints) == 3


def test_a_registration_outside_of_auths_own_pages_says_that_an_address_is_taken(auth: Auth) -> None:
    assert auth.register(dict(ANN))["id"]
    assert "email" in auth.register(dict(ANN))["errors"]


def test_an_account_made_while_another_is_pretended_is_made(mail_anywhere: QueuedMailer) -> None:
    """The pretence is of one registration, and ends with it."""
    auth = make_auth(mail_anywhere)
    mail_anywhere.enable_auth(auth, BASE)
    active(auth)
    auth.get_or_delete_existing_unverified_account(ADDRESS)
    assert auth.register(dict(ANN)) == {"errors": {}, "success": True}
    assert auth.db.auth_user.insert(**{**ANN, "email": "bob@visitor.test"})
    assert auth.db(auth.db.auth_user.id > 0).count() == 2
    auth.request_reset_password("stranger@visitor.test")
    assert subjects(mail_anywhere) == ["You already have an account"]


def test_two_registrations_with_one_address_at_the_same_moment_are_answered_alike(
    mail_anywhere: QueuedMailer, empty_uri: str
) -> None:
    if empty_uri.startswith("sqlite"):
        pytest.skip("SQLite lets one of them wait")
    auth = make_auth(mail_anywhere)
    mail_anywhere.enable_auth(auth, BASE)
    db = auth.db
    db.commit()

    def register_first() -> None:
        db.executesql(f"INSERT INTO auth_user (email) VALUES ('{ADDRESS}')")
        db.commit()

    def in_between(_row: Any) -> None:
        other = threading.Thread(target=register_first)
        other.start()
        other.join()

    db.auth_user._before_insert.append(in_between)
    auth.get_or_delete_existing_unverified_account(ADDRESS)
    assert auth.register(dict(ANN)) == {"errors": {}, "success": True}
    db.commit()
    assert db(db.auth_user.email == ADDRESS).count() == 1
    assert subjects(mail_anywhere) == []


def test_a_login_tells_nothing_of_an_account_where_both_errors_say_the_same(auth: Auth) -> None:
    """What docs/accounts.md advises."""
    auth.register(dict(ANN))
    assert auth.login(ADDRESS, PASSWORD)[1] != auth.login(ADDRESS, OTHER_PASSWORD)[1]
    errors = auth.param.messages["errors"]
    errors["registration_is_pending"] = errors["invalid_credentials"]
    assert auth.login(ADDRESS, PASSWORD)[1] == auth.login(ADDRESS, OTHER_PASSWORD)[1]


# --- outside of requests ---------------------------------------------------------------------


def test_accounts_can_be_handled_by_a_script(mail_anywhere: QueuedMailer) -> None:
    mail = mail_anywhere
    auth = make_auth(mail)
    mail.enable_auth(auth, BASE)
    request.__init__(None)
    mail.enable_approval(auth, ["boss@site.test"], route=next(ROUTES))
    account = active(auth)
    auth.request_reset_password(ADDRESS)
    account.update_record(action_token="pending-approval")
    account.update_record(email="moved@visitor.test")
    auth.gdpr_unsubscribe(account)
    assert auth.is_gdpr_unsubscribed("moved@visitor.test")
    assert not auth.is_gdpr_unsubscribed(ADDRESS)
    assert subjects(mail) == [
        "Choose a new password",
        "A new account awaits your approval",
        "Your e-mail address was changed",
        "Your account was deleted",
    ]


def test_what_an_account_was_and_stays_is_told_to_nobody(mail: QueuedMailer, auth: Auth) -> None:
    mail.enable_approval(auth, ["boss@site.test"], route=next(ROUTES))
    account = active(auth)
    account.update_record(email=ADDRESS.upper(), first_name="Anna")
    account.update_record(action_token="pending-approval")
    account.update_record(action_token="pending-approval")
    auth.db(auth.db.auth_user.id > 0).update(action_token="pending-approval", email=ADDRESS)
    assert subjects(mail) == ["A new account awaits your approval"]


def test_old_counts_and_questions_are_tidied_by_whoever_sends(mail: QueuedMailer) -> None:
    auth = make_auth(mail)
    mail.enable_auth(auth, BASE)
    mail.enable_approval(auth, ["boss@site.test"], route=next(ROUTES))
    active(auth).update_record(action_token="pending-approval")
    auth.request_reset_password(ADDRESS)
    mail.db.commit()
    clock = mail.site.clock
    assert isinstance(clock, Clock)
    for days, kept in ((0, (2, 1)), (1, (0, 1)), (90, (0, 1)), (7, (0, 0))):
        clock.advance(days * 86400)
        mail.process_queue()
        assert (len(rows(mail, "allowance")), len(rows(mail, "approval"))) == kept


def test_the_hosts_own_overrides_are_called(mail: QueuedMailer) -> None:
    auth = make_auth(mail)
    seen = []
    stock = auth.register

    def register(self: Auth, fields: Any, *arguments: Any, **keywords: Any) -> Any:
        seen.append(fields["email"])
        return stock(fields, *arguments, **keywords)

    auth.register = types.MethodType(register, auth)
    mail.enable_auth(auth, BASE)
    auth.register(dict(ANN))
    assert seen == [ADDRESS]
    assert subjects(mail) == ["Confirm your e-mail address"]

"""From a URL to a transport that speaks a provider's own API, and what is wrong with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mailqueue.classify import SiteFault, classify_exception
from mailqueue.remedies import advice
from mailqueue.transports.anymail import AnymailTransport
from mailqueue.transports.anymail_providers import API_PROVIDERS
from mailqueue.transports.configured import described
from mailqueue.transports.ses import SesTransport


def made(url: str, timeout: float | None = None) -> Any:
    settings = SimpleNamespace(sender="a@site.test", timeout=timeout, hostname=None, ca_file=None)
    return described(url, settings, [])


def url_of(provider: str) -> str:
    known = API_PROVIDERS[provider]
    values = {"api_url": "https://api.x.test/v1/"}
    options = "&".join(f"{name}={values.get(name, 'x')}" for name in known.needed)
    return f"{provider}+api://{':'.join(['KEY'] * len(known.credentials))}?{options}"


@pytest.mark.parametrize("provider", sorted(API_PROVIDERS))
def test_every_provider_has_a_url_that_opens(provider: str) -> None:
    transport = made(url_of(provider))
    assert isinstance(transport, AnymailTransport)
    assert transport.name.startswith(f"{provider}+api://") and "KEY" not in transport.name
    transport.open()
    address = transport._backend.api_url
    assert address.startswith("https://") and address.endswith("/")
    transport.close()


@pytest.mark.parametrize(
    ("url", "name", "api_url"),
    [
        ("mailgun+api://KEY?sender_domain=mg.site.test", "mailgun+api://", "https://api.mailgun.net/v3/"),
        ("mailgun+api://KEY?region=eu", "mailgun+api://api.eu.mailgun.net", "https://api.eu.mailgun.net/v3/"),
        ("sparkpost+api://KEY?region=eu", "sparkpost+api://api.eu.sparkpost.com", "https://api.eu.sparkpost.com/"),
        ("sendgrid+api://KEY?region=eu", "sendgrid+api://api.eu.sendgrid.com", "https://api.eu.sendgrid.com/"),
        ("resend+api://KEY?name=bulk", "resend+api://#bulk", "https://api.resend.com/"),
        ("postmark+api://KEY?api_url=http://127.0.0.1:8025/", "postmark+api://127.0.0.1:8025", "http://127.0"),
        ("scaleway+api://KEY?project_id=p&region=nl-ams", "scaleway+api://", "https://api.scaleway.com/"),
    ],
)  # fmt: skip
def test_options_choose_the_api(url: str, name: str, api_url: str) -> None:
    transport = made(url)
    transport.open()
    assert transport.name == name and transport._backend.api_url.startswith(api_url)


def test_what_a_backend_wants_is_passed_on() -> None:
    backends = {}
    for url in (
        "mailjet+api://a%3Ab:c%2Fd",
        "mailgun+api://KEY?sender_domain=mg.site.test",
        "postmark+api://KEY?message_stream=broadcast&timeout=7",
        "scaleway+api://KEY?project_id=p&region=nl-ams",
        "mailtrap+api://KEY?sandbox_id=12",
        "sparkpost+api://KEY?subaccount=3",
    ):
        transport = made(url, timeout=5.0)
        transport.open()
        backends[url.partition("+")[0]] = transport._backend
    assert (backends["mailjet"].api_key, backends["mailjet"].secret_key) == ("a:b", "c/d")
    assert backends["mailgun"].sender_domain == "mg.site.test"
    assert (backends["postmark"].message_stream, backends["postmark"].timeout) == ("broadcast", 7.0)
    assert "nl-ams" in backends["scaleway"].api_url and backends["scaleway"].timeout == 5.0
    assert backends["mailtrap"].sandbox_id == "12" and backends["sparkpost"].subaccount == "3"


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("ses://eu-west-1", ("ses://eu-west-1", None, None, None)),
        ("ses://", ("ses://default", None, None, None)),
        (
            "ses://AKIA:a%2Fb%2Bc@eu-west-1?configuration_set=events&timeout=9&name=two",
            ("ses://eu-west-1#two", "AKIA", "a/b+c", "events", None, 9.0),
        ),
        ("ses://eu-west-1?endpoint_url=https://v.test", ("ses://eu-west-1", None, "https://v.test", None)),
    ],
)  # fmt: skip
def test_ses_has_a_url(url: str, settings: tuple[object, ...]) -> None:
    transport = made(url)
    assert isinstance(transport, SesTransport) and transport.settings() == settings


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("resend+api://", "the key is expected"),
        ("resend+api://a:b", "the key is expected"),
        ("mailjet+api://KEY", "the login is not user:password"),
        ("resend+api://KEY/emails", "something behind the server"),
        ("resend+api://KEY?regoin=eu", "the option … is unknown; there are api_url, name, timeout"),
        ("mailgun+api://KEY?regoin=eu", "the option regoin is unknown; there are sender_domain, region"),
        ("mailgun+api://KEY?region=moon", "region must be one of us, eu"),
        ("scaleway+api://KEY", "the option project_id is missing"),
        ("scaleway+api://KEY?project_id=p&region=../x", "region must be a name such as"),
        ("postal+api://KEY", "the option api_url is missing"),
        ("unisender-go+api://KEY", "the option api_url is missing"),
        ("postal+api://KEY?api_url=http://api.x.test", "must begin with https://"),
        ("postal+api://KEY?api_url=ftp://127.0.0.1", "must begin with https://"),
        ("postal+api://KEY?api_url=api.x.test", "must be an address such as"),
        ("postal+api://KEY?api_url=https://me:pw@api.x.test", "must be an address such as"),
        ("postal+api://KEY?api_url=https://api.x.test:port", "must be an address such as"),
        ("postal+api://KEY?api_url=https://a.test/%0d%0aX", "must be an address such as"),
        ("resend+api://KEY?timeout=soon", "timeout must be a number"),
        ("ses://eu-west-1/x", "something behind the server"),
        ("ses://EU_WEST", "region must be a name such as"),
        ("ses://AKIA:s3cret", "the keys stand before an @"),
        ("ses://KEY@eu-west-1", "the login is not user:password"),
        ("ses://eu-west-1?config_set=x", "is unknown; there are configuration_set"),
        ("ses://eu-west-1?endpoint_url=http://vpce.x.test", "must begin with https://"),
        ("nobody+api://KEY", "is of no kind that is known"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_url_is_said_without_its_key(url: str, said: str) -> None:
    with pytest.raises(SiteFault) as raised:
        made(url)
    failure = classify_exception("config", raised.value)
    assert (failure.kind, failure.rule) == ("configuration", "bad-transport") and advice(failure).remedy
    assert said in failure.text and "s3cret" not in failure.text and "me:pw" not in failure.text


@pytest.mark.parametrize(
    "url",
    ["resend+api://{}", "mailjet+api://{}:x", "mailjet+api://x:{}", "ses://x:{}@eu-west-1", "ses://{}:x@"],
)
@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("s3cret%0A", "a line's end before or behind it"),
        ("%20s3cret", "white space"),
        ("s3c%00ret", "a control character"),
        ("s3c%7Fret", "a control character"),
        ("s3c%0D%0Aret", "a control character"),
        ("s3c%C3%A4ret", "beyond ASCII"),
        ("s3cret…", "beyond ASCII"),
    ],
)
def test_a_key_that_no_field_of_http_can_hold_is_refused_without_showing_it(
    url: str, key: str, said: str
) -> None:
    with pytest.raises(SiteFault) as raised:
        made(url.format(key))
    assert raised.value.rule == "bad-transport" and said in raised.value.text
    assert "s3c" not in raised.value.text


def test_settings_differ_where_a_url_does() -> None:
    urls = [
        "resend+api://A",
        "resend+api://B",
        "resend+api://A?timeout=3",
        "ses://eu-west-1",
        "ses://a:b@eu-west-1",
    ]
    assert len({made(url).settings() for url in urls}) == len(urls)

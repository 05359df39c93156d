"""Links in mails lead to the site, whatever a request claims; and who a request comes from."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from mailqueue.base_url import read_base_url
from mailqueue.py4web.client import client
from mailqueue.py4web.links import NoBaseUrl, host, is_own, link
from py4web.core import request

APP = {"SERVER_PORT": "8000", "wsgi.url_scheme": "http"}


@pytest.fixture(autouse=True)
def no_request_after_it() -> Iterator[None]:
    yield
    request.__init__(None)


def a_request(app_name: str = "site", **environ: str) -> None:
    request.__init__({"PATH_INFO": f"/{app_name}/auth/register", **APP, **environ})
    request.app_name = app_name


def of_this_machine() -> str:
    """An address of this machine that is no loopback, if there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://site.test/app", "https://site.test/app"),
        ("https://site.test/app/", "https://site.test/app"),
        ("http://site.test:8000", "http://site.test:8000"),
    ],
)
def test_a_base_url_is_the_apps_own_address(given: str, read: str) -> None:
    assert read_base_url(given) == read
    assert link(given, "auth", "verify_email", token="a/b c") == f"{read}/auth/verify_email?token=a%2Fb%20c"


@pytest.mark.parametrize(
    ("base_url", "claimed", "called"),
    [
        ("https://club.test:8443/app", "evil.test", "club.test"),
        ("https://Club.test", "evil.test", "club.test"),
        ("https://bücher.test", "evil.test", ""),
        ("https://[2001:db8::1]/app", "evil.test", ""),
        ("club.test", "evil.test", ""),
        (None, "evil.test", ""),
        (None, "localhost:8000", "localhost"),
    ],
)
def test_the_host_of_links_is_never_what_a_request_claims(
    base_url: str | None, claimed: str, called: str
) -> None:
    a_request(HTTP_HOST=claimed)
    assert host(base_url) == called


@pytest.mark.parametrize(
    "given",
    [
        "",
        "site.test/app",
        "//site.test",
        "ftp://site.test",
        "https://",
        "https://a@site.test",
        "https://site.test/?x",
        "https://site.test/#x",
        "https://site.test/a b",
        "https:\\\\site.test",
        None,
        7,
    ],
)
def test_what_is_no_address_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="base_url is"):
        read_base_url(given)


def test_with_a_base_url_nothing_of_the_request_is_used() -> None:
    a_request(HTTP_HOST="evil.test", HTTP_ORIGIN="http://evil.test", HTTP_X_SCRIPT_NAME="@evil.test")
    assert link("https://site.test/app", "auth/login") == "https://site.test/app/auth/login"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("localhost:9999", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("site.test", False),
        ("localhost.evil.test", False),
        ("evil@localhost", False),
        ("localhost@evil.test", False),
        ("localhost/evil.test", False),
        ("localhost:8000@evil.test", False),
        ("localhost?evil.test", False),
        ("localhost\\evil.test", False),
        ("8.8.8.8:8000", False),
        ("0.0.0.0:8000", False),
        ("224.0.0.1:8000", False),
        ("localhost:port", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_host_is_trusted_that_can_only_be_this_machine(host: str, own: bool) -> None:
    assert is_own(host, "8000") is own


def test_an_address_of_this_machine_is_trusted_at_the_servers_port_only() -> None:
    mine = of_this_machine()
    assert is_own(f"{mine}:8000", "8000")
    assert not is_own(f"{mine}:9999", "8000")
    assert not is_own(mine, "8000")
    assert is_own(mine, "80")


def test_without_any_address_there_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PY4WEB_DOMAINS", raising=False)
    with pytest.raises(NoBaseUrl):
        link(None, "auth/login")
    a_request(HTTP_HOST="site.test")
    with pytest.raises(NoBaseUrl, match=r"site\.test"):
        link(None, "auth/login")
    a_request(HTTP_HOST="localhost:8000", HTTP_X_FORWARDED_HOST="site.test")
    assert link(None, "auth/login") == "http://localhost:8000/site/auth/login"


def test_the_domains_of_the_server_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PY4WEB_DOMAINS", "site.test, www.site.test")
    for environ, root in (
        ({"HTTP_HOST": "www.site.test"}, "http://www.site.test/site"),
        ({"HTTP_HOST": "127.0.0.1", "HTTP_X_FORWARDED_HOST": "www.site.test"}, "http://www.site.test/site"),
        ({"HTTP_HOST": "evil.test"}, "http://site.test/site"),
        ({"HTTP_HOST": "site.test", "HTTP_X_FORWARDED_PROTO": "https"}, "https://site.test/site"),
        ({"HTTP_HOST": "site.test", "HTTP_X_FORWARDED_PROTO": "javascript"}, "http://site.test/site"),
        ({"HTTP_HOST": "site.test", "SCRIPT_NAME": "/below"}, "http://site.test/below/site"),
        ({"HTTP_HOST": "site.test", "HTTP_X_SCRIPT_NAME": "@evil.test"}, "http://site.test/site"),
        ({"HTTP_HOST": "site.test", "HTTP_X_PY4WEB_APPNAME": "/site"}, "http://site.test"),
        ({"HTTP_HOST": "site.test", "HTTP_X_PY4WEB_APPNAME": "/other"}, "http://site.test/site"),
    ):
        a_request(**environ)
        assert link(None, "auth/login") == f"{root}/auth/login", environ
    a_request("_default", HTTP_HOST="site.test")
    assert link(None, "auth/login") == "http://site.test/auth/login"
    a_request(HTTP_HOST="site.test")
    assert link(None, "auth/login", use_appname=False) == "http://site.test/auth/login"


# --- who a request comes from ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "told", "proxies", "found"),
    [
        ("203.0.113.5", None, None, "203.0.113.5"),
        ("8.8.8.8", "198.51.100.1", None, "8.8.8.8"),
        ("127.0.0.1", "198.51.100.1", None, "198.51.100.1"),
        ("127.0.0.1", "192.0.2.66, 198.51.100.1", None, "198.51.100.1"),
        ("10.0.0.1", "192.0.2.66,198.51.100.1", None, "198.51.100.1"),
        ("127.0.0.1", None, None, None),
        ("10.0.0.9", None, None, "10.0.0.9"),
        ("", "198.51.100.1", None, "198.51.100.1"),
        ("", None, None, None),
        ("127.0.0.1", "not an address", None, None),
        ("127.0.0.1", "192.0.2.66, 198.51.100.1, 10.0.0.7", 2, "198.51.100.1"),
        ("127.0.0.1", "198.51.100.1", 2, None),
        ("203.0.113.5", "198.51.100.1", 1, "198.51.100.1"),
        ("10.0.0.9", "198.51.100.1", 0, "10.0.0.9"),
        ("2001:db8:1:2:3:4:5:6", None, None, "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", None, None, "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.5", None, None, "203.0.113.5"),
        ("fe80::1%eth0", None, None, "fe80::/64"),
    ],
)
def test_who_a_request_comes_from(
    peer: str, told: str | None, proxies: int | None, found: str | None
) -> None:
    a_request(REMOTE_ADDR=peer, **({"HTTP_X_FORWARDED_FOR": told} if told else {}))
    assert client(proxies) == found

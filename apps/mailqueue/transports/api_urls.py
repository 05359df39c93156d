"""From a URL to a transport that speaks a provider's own API.

ses://eu-west-1?configuration_set=…             ses://KEY:SECRET@eu-west-1
resend+api://KEY                                mailjet+api://KEY:SECRET
mailgun+api://KEY?region=eu&sender_domain=…     postal+api://KEY?api_url=https://…
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import unquote

from .anymail import SECONDS, AnymailTransport
from .anymail_providers import API_PROVIDERS, ApiProvider
from .base import Transport
from .ses import SesTransport
from .url_parts import (
    Url,
    Wrong,
    expect_no_path,
    expect_options,
    fit_for_http,
    key_of,
    label,
    region,
    seconds,
    user_and_password,
    web_address,
)


def _ses(url: Url, settings: Any) -> SesTransport:
    expect_no_path(url)
    expect_options(url, "configuration_set", "endpoint_url", "name", "timeout")
    login, at, place = url.authority.rpartition("@")
    if ":" in place:
        raise Wrong("the keys stand before an @, the region behind it: ses://KEY:SECRET@eu-west-1")
    return SesTransport(
        region(unquote(place) or None),
        keys=_two_keys(login) if at else None,
        configuration_set=url.options.get("configuration_set"),
        endpoint_url=web_address("endpoint_url", url.options.get("endpoint_url")),
        timeout=_timeout(url, settings),
        label=label(url.options.get("name")),
    )


def _api(provider: str, url: Url, settings: Any) -> AnymailTransport:
    expect_no_path(url)
    known = API_PROVIDERS[provider]
    regional = ["region"] if known.regions else []
    expect_options(url, *known.options, *regional, "api_url", "name", "timeout")
    missing = [name for name in known.needed if not url.options.get(name)]
    if missing:
        raise Wrong(f"the option {missing[0]} is missing")
    return AnymailTransport(
        provider,
        _two_keys(url.authority) if len(known.credentials) == 2 else (fit_for_http(key_of(url)),),
        dict(_options(url, known)),
        timeout=_timeout(url, settings) or SECONDS,
        label=label(url.options.get("name")),
    )


def _two_keys(login: str) -> tuple[str, str]:
    key, secret = user_and_password(login)
    return fit_for_http(key), fit_for_http(secret)


def _options(url: Url, known: ApiProvider) -> dict[str, str]:
    found = {name: url.options[name] for name in known.options if name in url.options}
    if "region" in found:
        region(found["region"])
    address = web_address("api_url", url.options.get("api_url"))
    wanted = url.options.get("region")
    if known.regions and wanted is not None:
        if wanted not in known.regions:
            raise Wrong(f"region must be one of {', '.join(known.regions)}")
        address = address or known.regions[wanted]
    return {**found, "api_url": address} if address else found


def _timeout(url: Url, settings: Any) -> float | None:
    given = url.options.get("timeout")
    return seconds(given) if given is not None else settings.timeout


API_SCHEMES: dict[str, Callable[[Url, Any], Transport]] = {
    "ses": _ses,
    **{f"{name}+api": partial(_api, name) for name in API_PROVIDERS},
}

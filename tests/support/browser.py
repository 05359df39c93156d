"""A visitor of a served site: pages, forms, cookies; no JavaScript."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import requests

PASSWORD = "Correct-Horse-Battery-1"


@dataclass
class Form:
    """A form of a page: where it goes, and what its inputs hold."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[str] = field(default_factory=list)


class _FormReader(HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if tag == "form":
            action = urljoin(self.url, given.get("action") or self.url)
            action = self.url if action.endswith("#") else action
            self.forms.append(Form(action, given.get("method", "get").upper()))
        elif self.forms and tag in ("input", "button") and given.get("type") == "submit":
            self.forms[-1].buttons.append(given.get("value", ""))
        elif self.forms and tag in ("input", "textarea", "select") and "name" in given:
            self.forms[-1].fields[given["name"]] = given.get("value", "")


class Browser:
    """One visitor, with cookies.

    Args:
        url: of the site; paths are relative to it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def _address(self, path: str) -> str:
        return path if "://" in path else f"{self.url}/{path}"

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.session.get(self._address(path), timeout=30, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.session.post(self._address(path), timeout=30, **options)

    def forms(self, page: requests.Response) -> list[Form]:
        reader = _FormReader(page.url)
        reader.feed(page.text)
        return reader.forms

    def submit(self, form: Form, **fields: str) -> requests.Response:
        return self.session.request(form.method, form.action, data={**form.fields, **fields}, timeout=30)

    def form_to(self, page: requests.Response, path: str) -> Form:
        """The one form of a page whose address holds this path."""
        (form,) = [form for form in self.forms(page) if path in form.action]
        return form

    def fill(self, path: str, **fields: str) -> requests.Response:
        """Open a page, fill in the form that has these fields, submit it, follow the redirects."""
        page = self.get(path)
        for form in self.forms(page):
            if set(fields) <= set(form.fields):
                return self.submit(form, **fields)
        raise AssertionError(
            f"no form with {sorted(fields)} on {page.url} ({page.status_code}):\n{page.text}"
        )

    # --- Auth's pages ----------------------------------------------------------------------
    def register(
        self,
        email: str,
        password: str = PASSWORD,
        first: str = "Ann",
        last: str = "Other",
        username: str = "",
    ) -> requests.Response:
        """Register on the site's form; the user name is the address unless given."""
        return self.fill(
            "auth/register",
            username=username or email,
            email=email,
            password=password,
            password_again=password,
            first_name=first,
            last_name=last,
        )

    def register_by_api(
        self,
        email: str,
        password: str = PASSWORD,
        first: str = "Ann",
        last: str = "Other",
        username: str = "",
    ) -> requests.Response:
        """Register with JSON at /auth/api/register."""
        user = {"username": username or email, "email": email, "password": password}
        return self.post("auth/api/register", json={**user, "first_name": first, "last_name": last})

    def login(self, email: str, password: str = PASSWORD) -> requests.Response:
        """Log in on the site's form, with the address or the user name."""
        return self.fill("auth/login", email=email, password=password)

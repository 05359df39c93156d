"""From a mail template and its variables to subject, text and HTML, in the recipient's language.

A template is one file NAME.html in yatl ([[=variable]]); its <title> is the subject. The text part is made of
it, unless a file NAME.txt beside it has it. The styles of its <style> are put into each element, because many
mail programs read no others, and only the @media rules stay behind. [[=T("Hello {name}").format(name=name)]]
is translated, and escaped as a whole. A site's own folder goes before the shipped one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

from yatl.helpers import xmlescape

from .errors import BadTemplate
from .filling import filled_in, mistake_in
from .languages import Languages
from .plain_text import plain_text

_PACKAGE = Path(__file__).resolve().parent
SHIPPED = _PACKAGE / "templates" / "mail"
TRANSLATIONS = _PACKAGE / "translations"

LAYOUT = "layout"  # what templates extend; it is no mail of its own, nor is what begins with "_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_RESERVED = frozenset({"T", "language", "span", "write"})
_LONGEST_NAME = 60  # characters
_NO_NAME = re.compile(r"[/\\@]|\w\.\w\w")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_EMPTY_LINES = re.compile(r"\n{3,}")
# Their texts name what is wrong in the template; those of others may hold the values of variables.
_TELLING = (NameError, AttributeError, SyntaxError, OSError)


@dataclass(frozen=True)
class Rendered:
    """A mail without its addresses.

    Attributes:
        subject: one line.
        text: the text part.
        html: the HTML part, a whole document.
        language: the tag of the language it is in.
        fault: why the site's own template was not used; "" if nothing is wrong.
    """

    subject: str
    text: str
    html: str
    language: str
    fault: str = ""


class Templates:
    """The mail templates of a site.

    Args:
        folders: where templates are looked for, the site's own folder first, the shipped one last.
        translations: the same for the files of translations.
    """

    def __init__(self, folders: Sequence[Path], translations: Sequence[Path]):
        self._folders = folders
        self._languages = Languages(translations)
        # What is used in the place of a site's own template that is broken.
        self._shipped = Templates(folders[-1:], translations[-1:]) if len(folders) > 1 else None

    def names(self) -> list[str]:
        """The names of all mails there are templates of."""
        stems = {path.stem for folder in self._folders for path in folder.glob("*.html")}
        return sorted(stem for stem in stems if stem != LAYOUT and _NAME.fullmatch(stem))

    def find(self, file_name: str) -> Path | None:
        """The file of this name that is used; None if there is none."""
        return next((folder / file_name for folder in self._folders if (folder / file_name).is_file()), None)

    def languages(self) -> list[str]:
        """The tags of the languages, such as ["cs", "de", "en"]."""
        return self._readable_languages().tags()

    def best_language(self, *wanted: str) -> str:
        """The language for a recipient; see languages.Languages.best()."""
        return self._readable_languages().best(*wanted)

    def _readable_languages(self) -> Languages:
        """The languages; the shipped ones alone where a file of the site's own cannot be read."""
        try:
            self._languages.tags()
        except BadTemplate:
            if self._shipped is None:
                raise
            return self._shipped._languages
        return self._languages

    def render(self, name: str, language: str, variables: Mapping[str, Any]) -> Rendered:
        """Fill in a template.

        Where the site's own template, layout or translation is broken, the shipped ones are used alone,
        and `fault` says why.

        Args:
            name: of the template, such as "verify_email".
            language: one of languages().
            variables: what the template asks for; texts are escaped in the HTML part.

        Raises:
            BadTemplate: there is none of this name, or it cannot be filled in with these variables.
        """
        try:
            return self._filled_in(name, language, variables)
        except Exception as error:
            if self._shipped is None or name not in self._shipped.names():
                raise BadTemplate(_told(name, error)) from error
            fault = _told(name, error)
        return replace(
            self._shipped.render(name, self._shipped.best_language(language), variables), fault=fault
        )

    def _filled_in(self, name: str, language: str, variables: Mapping[str, Any]) -> Rendered:
        if not _NAME.fullmatch(name):
            raise BadTemplate("that is no name of a mail template")
        if taken := _RESERVED & variables.keys():
            raise BadTemplate(f"a variable cannot be called {', '.join(sorted(taken))}")
        translate = self._languages[language]

        def span(holds: Any) -> Any:
            seconds = holds.total_seconds() if isinstance(holds, timedelta) else holds
            return translate.span(seconds) if isinstance(seconds, (int, float)) else holds

        person = plain_name(variables.get("name"))
        given = {**variables, "name": person, "T": translate, "span": span, "language": language}
        html = _inlined(self._filled(f"{name}.html", given, escaped).strip())
        return Rendered(_subject_of(html), self._text(name, given, html), html, language)

    def _text(self, name: str, given: Mapping[str, Any], html: str) -> str:
        if not self._has_text(name):
            return plain_text(html)
        text = self._filled(f"{name}.txt", given, str).replace("\r\n", "\n")
        return _EMPTY_LINES.sub("\n\n", text).strip("\n") + "\n"

    def _filled(self, file_name: str, given: Mapping[str, Any], escape: Callable[[Any], str]) -> str:
        sources: dict[str, str] = {}

        def read(name: str) -> str:
            sources[name] = self._read(name)
            return sources[name]

        try:
            return filled_in(file_name, given, read, escape)
        except BadTemplate:
            raise
        except Exception as error:
            mistake, place = mistake_in(file_name, given, sources, error)
            raise BadTemplate(f"{_said(mistake)} ({place})") from error

    def _has_text(self, name: str) -> bool:
        """Whether a text template goes with the HTML that is used, and not with one that this replaces."""
        for folder in self._folders:
            if (folder / f"{name}.txt").is_file():
                return True
            if (folder / f"{name}.html").is_file():
                return False
        return False

    def _read(self, file_name: str) -> str:
        path = self.find(file_name)
        if path is None:
            raise BadTemplate(f"there is no file {file_name}")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise BadTemplate(f"{file_name} cannot be read: it is not in UTF-8") from error
        except OSError as error:
            raise BadTemplate(f"{file_name} cannot be read: {error.strerror}") from error


def templates_of(app_folder: str | os.PathLike[str] | None) -> Templates:
    """The shipped templates, below those that an app has of its own.

    Args:
        app_folder: the app's folder; its own are in `templates/mail` and `translations`. None: no app.
    """
    own = [] if app_folder is None else [Path(app_folder)]
    return Templates(
        [*(app / "templates" / "mail" for app in own), SHIPPED],
        [*(app / "translations" for app in own), TRANSLATIONS],
    )


def _inlined(html: str) -> str:
    """The styles in each element; where css-inline is not there, as in a pack for web2py, unchanged."""
    try:
        import css_inline
    except ImportError:
        return html
    return str(css_inline.CSSInliner(keep_at_rules=True, load_remote_stylesheets=False).inline(html))


def escaped(value: Any) -> str:
    """The value as HTML: yatl's helpers are that already, all else is text."""
    return str(value.xml()) if hasattr(value, "xml") else str(xmlescape(str(value)))


def plain_name(name: Any) -> str:
    """A person's name on one line; "" where it is rather a message or an address to click.

    Whoever registers chooses the name and the address: our mail must not carry their text to a stranger.
    """
    name = " ".join(str(name or "").split())
    return "" if len(name) > _LONGEST_NAME or _NO_NAME.search(name) else name


def _subject_of(html: str) -> str:
    title = _TITLE.search(html)
    line = " ".join(unescape(title[1]).split()) if title else ""
    subject = "".join(letter for letter in line if letter.isprintable())
    if not subject:
        raise BadTemplate("it has no <title>, which is the subject")
    return subject


def _told(name: str, error: Exception) -> str:
    return f"The mail template {name!r} cannot be used: {_said(error)}"


def _said(error: Exception) -> str:
    if isinstance(error, BadTemplate):
        return str(error)
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    kind = type(error).__name__
    return f"{kind}: {said}" if said and isinstance(error, _TELLING) else kind

"""The text of an HTML mail, for its text part.

It knows what mails are made of: paragraphs, headings, lists, quotes, tables for the layout, links. What is
not displayed ("display:none", as a preheader is) is left out, and so is what is marked with the class
"html-only".
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_HEADINGS = frozenset(f"h{level}" for level in range(1, 7))
_SPACED = _HEADINGS | {"blockquote", "dl", "figure", "hr", "ol", "p", "pre", "table", "ul"}
_BLOCKS = _SPACED | {"article", "body", "dd", "div", "dt", "footer", "header", "li", "section", "tr"}
_WITHOUT_TEXT = frozenset({"head", "script", "style", "template", "title"})
_VOID = frozenset({"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
_HIDDEN = re.compile(r"display\s*:\s*none", re.IGNORECASE)
# Not the no-break space, which is there on purpose.
_SPACES = re.compile(r"[ \t\r\n\f]+")


def plain_text(html: str) -> str:
    """What a reader of an HTML mail reads, with a link's address behind its text.

    Args:
        html: a document or a piece of one.

    Returns:
        Lines that end in "\\n"; "" where there is nothing to read.
    """
    reader = _Reader()
    reader.feed(html)
    reader.close()
    lines = [line.rstrip() for line in "".join(reader.written).split("\n")]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n")
    return f"{text}\n" if text else ""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.written: list[str] = []
        self._hidden: list[str] = []  # the element that hides, and what is open inside of it
        self._line = ""  # the line at hand
        self._mark = ""  # what goes before it: of an item of a list
        self._links: list[tuple[str, bool, int]] = []  # address, whether a button, where its text begins
        self._lists: list[int | None] = []  # the number of the last item; None: a list without numbers
        self._preformatted = 0
        self._indent = ""

    # --- what the parser tells -------------------------------------------------------------

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if self._hidden or _is_hidden(tag, given):
            if tag not in _VOID:
                self._hidden.append(tag)
            return
        if tag in _BLOCKS:
            self._break(spaced=tag in _SPACED)
        if opened := getattr(self, f"_open_{tag}", None):
            opened(given)

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag in self._hidden:
                while self._hidden.pop() != tag:
                    pass
            return
        if closed := getattr(self, f"_close_{tag}", None):
            closed()
        if tag in _BLOCKS:
            self._break(spaced=tag in _SPACED)

    def handle_data(self, data: str) -> None:
        if self._hidden:
            return
        if self._preformatted:
            *whole, rest = data.split("\n")
            for line in whole:
                self._line += line
                self._end_line()
            self._line += rest
            return
        words = _SPACES.sub(" ", data)
        self._line += words.lstrip(" ") if self._line.endswith((" ", "\n")) or not self._line else words

    def close(self) -> None:
        super().close()
        self._break(spaced=False)

    # --- elements --------------------------------------------------------------------------

    def _open_br(self, _given: dict[str, str]) -> None:
        self._end_line()

    def _open_hr(self, _given: dict[str, str]) -> None:
        self._line = "-" * 20
        self._break(spaced=True)

    def _open_td(self, _given: dict[str, str]) -> None:
        if self._line and not self._line.endswith(" "):
            self._line += " "

    _open_th = _open_td

    def _open_img(self, given: dict[str, str]) -> None:
        self.handle_data(given.get("alt", ""))

    def _open_a(self, given: dict[str, str]) -> None:
        is_button = "button" in given.get("class", "").split()
        self._links.append((given.get("href", "").strip(), is_button, len(self._line)))

    def _close_a(self) -> None:
        if not self._links:
            return
        address, is_button, start = self._links.pop()
        said = self._line[start:].strip()
        if not address or address.startswith("#") or said in (address, address.removeprefix("mailto:")):
            return
        self._line = f"{self._line.rstrip()}{':' if said else ''}"
        if is_button:
            self._end_line()
        elif said:
            self._line += " "
        self._line += address

    def _open_ul(self, _given: dict[str, str]) -> None:
        self._lists.append(None)

    def _open_ol(self, _given: dict[str, str]) -> None:
        self._lists.append(0)

    def _close_ul(self) -> None:
        self._break(spaced=False)
        if self._lists:
            self._lists.pop()

    _close_ol = _close_ul

    def _open_li(self, _given: dict[str, str]) -> None:
        number = self._lists[-1] if self._lists else None
        if number is not None:
            self._lists[-1] = number + 1
        mark = "-" if number is None else f"{number + 1}."
        self._mark = f"{'  ' * (len(self._lists) - 1)}{mark} "

    def _open_blockquote(self, _given: dict[str, str]) -> None:
        self._indent += "> "

    def _close_blockquote(self) -> None:
        self._break(spaced=False)
        self._indent = self._indent[:-2]

    def _open_pre(self, _given: dict[str, str]) -> None:
        self._preformatted += 1

    def _close_pre(self) -> None:
        self._break(spaced=False)
        self._preformatted = max(0, self._preformatted - 1)

    # --- lines -----------------------------------------------------------------------------

    def _break(self, *, spaced: bool) -> None:
        """End the line, if one is begun; with an empty line behind it where the element stands apart."""
        if self._line.strip():
            self._end_line()
        self._line = ""
        if spaced and not self._lists:
            self.written.append("\n")

    def _end_line(self) -> None:
        self.written.append(f"{self._indent}{self._mark}{self._line}\n")
        self._line = self._mark = ""


def _is_hidden(tag: str, given: dict[str, str]) -> bool:
    return (
        tag in _WITHOUT_TEXT
        or "hidden" in given
        or "html-only" in given.get("class", "").split()
        or bool(_HIDDEN.search(given.get("style", "")))
    )

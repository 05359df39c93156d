"""From a yatl template and the files that it names to text; and in which of them a mistake is."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from yatl.template import TemplateParser

_TAG = re.compile(r"\[\[(.*?)\]\]", re.DOTALL)


def filled_in(
    file_name: str, given: Mapping[str, Any], read: Callable[[str], str], escape: Callable[[Any], str]
) -> str:
    """What the Python code writes that yatl makes of a template. What it raises is not caught.

    Args:
        file_name: of the template.
        given: what it finds by name.
        read: gives the text of a file, also of one that the template extends or includes.
        escape: makes text of a value.
    """
    written: list[str] = []

    def write(value: Any, escape: Any = escape) -> None:
        written.append(escape(value) if escape else value)

    context = {**given, "write": write}
    code = _code_of(file_name, read(file_name), context, read)
    exec(compile(code, file_name, "exec"), context)  # noqa: S102 - that is what a template is
    # A lone surrogate, which no encoding has, is no reason to lose all of it.
    return "".join(written).encode("utf-8", "replace").decode("utf-8")


def mistake_in(
    file_name: str, given: Mapping[str, Any], sources: Mapping[str, str], error: Exception
) -> tuple[Exception, str]:
    """What is wrong with a template, and where: yatl makes one piece of code of all its files.

    Args:
        file_name, given: as for filled_in().
        sources: the texts of the files that were read, by their names.
        error: what filled_in() raised.

    Returns:
        The mistake, and a file and its line, a file, or all of them, as far as that can be told.
    """
    line = _line_at_fault(file_name, given, sources, error)
    places = [
        f"{name}, line {number}"
        for name, source in sources.items()
        for number, code in _lines_of_code(source)
        if code == line
    ]
    if places:
        return error, " or ".join(places)
    for name, source in sources.items():
        try:
            compile(_code_of(name, source, given, lambda _: ""), name, "exec")
        except Exception as of_this_file:  # noqa: BLE001 - whatever it is, it is the mistake
            return of_this_file, name
    return error, ", ".join(sources)


def _line_at_fault(
    file_name: str, given: Mapping[str, Any], sources: Mapping[str, str], error: Exception
) -> str | None:
    """The line of Python code at which a template failed; None: it did not come to be code."""
    reached = traceback.walk_tb(error.__traceback__)
    numbers = [number for frame, number in reached if frame.f_code.co_filename == file_name]
    if isinstance(error, SyntaxError) and error.filename == file_name and error.lineno:
        numbers.append(error.lineno)
    if not numbers:
        return None
    code = _code_of(file_name, sources[file_name], given, sources.__getitem__)
    line = code.split("\n")[numbers[-1] - 1 : numbers[-1]]
    return line[0].strip() if line else None  # behind the last one stands nothing


def _lines_of_code(source: str) -> Iterator[tuple[int, str]]:
    """The lines of Python code that yatl makes of a file's tags, and the file's lines they stand in."""
    for tag in _TAG.finditer(source):
        code = tag[1].strip()
        first = source.count("\n", 0, tag.start(1) + tag[1].find(code)) + 1
        if code.startswith("="):
            code = f"write({code[1:].strip()})"
        for number, line in enumerate(code.split("\n"), first):
            yield number, line.strip()


def _code_of(file_name: str, text: str, context: Mapping[str, Any], read: Callable[[str], str]) -> str:
    return str(
        _Parser(text, name=file_name, context=context, path=read, writer="write", delimiters=("[[", "]]"))
    )


class _Parser(TemplateParser):  # type: ignore[misc]  # yatl has no type hints
    """yatl's own way to report an error is another one in each framework."""

    def _raise_error(self, message: str = "", text: str | None = None) -> None:
        raise SyntaxError(message)

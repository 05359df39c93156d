"""Entries of the problem log as tickets on py4web's dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4web.core import action, error_logger, get_error_snapshot, request

from ..problems import Problem


class MailProblem(Exception):
    """What a ticket shows: the entry in plain words."""


def loading_app() -> str:
    """The name of the app that py4web is loading at this moment."""
    return str(action.app_name)


def issue(app_name: str, problem: Problem) -> None:
    """Make a ticket of an entry, under the app whose mail it is about."""
    try:
        raise MailProblem(str(problem)) from None
    except MailProblem:
        with _some_request():
            error_logger.log(app_name, get_error_snapshot())


@contextmanager
def _some_request() -> Iterator[None]:
    """py4web's logger asks for the request's path; a worker has no request."""
    if request.environ is not None:
        yield
        return
    request.__init__({})
    try:
        yield
    finally:
        request.__init__(None)

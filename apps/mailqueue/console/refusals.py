"""What the administrator's pages answer where they do not do what was asked: why, what to do, a way back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

HEADINGS = {
    400: "This is not understood",
    403: "This is not allowed",
    404: "There is nothing here",
    405: "Nothing was changed",
}


@dataclass(frozen=True)
class Refusal:
    """Why something is refused, and what to do.

    Attributes:
        status: of HTTP, one of HEADINGS.
        told: why.
        to_do: what to do about it; "": nothing can be.
        back: where to go on: what the link says, and the URL or its parts behind the route; None: the site.
        headers: further ones.
    """

    status: int
    told: str
    to_do: str = ""
    back: tuple[str, str | tuple[Any, ...] | None] = ("Back to the list", ())
    headers: dict[str, str] = field(default_factory=dict)


def not_by_link(page: str) -> Refusal:
    """What a GET of a button's URL is answered with.

    Args:
        page: the URL of the page that the button is on.
    """
    told = "Please use the button on its page."
    return Refusal(405, told, back=("Back to that page", page), headers={"Allow": "POST"})


NO_MEMBER = Refusal(
    403,
    "These pages are for the administrators of this site's mail.",
    "If you are one of them, log in with that account, or ask whoever runs this site to let you in.",
    ("To the start of this site", None),
)
MAY_NOT_ACT = Refusal(
    403,
    "You may look at the mail of this site, but not act.",
    "Ask an administrator of this site's mail to do it.",
)
NO_ACTION = Refusal(404, "There is no such action.")
NOT_SIGNED = Refusal(
    403,
    "This button does not hold any more, or not for you. Nothing was changed.",
    "Load the page anew on which it is, and press it again: buttons hold for an hour.",
)

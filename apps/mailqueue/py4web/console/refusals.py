"""The answer of the administrator's pages where they do not do what was asked."""

from __future__ import annotations

from py4web import HTTP, URL
from py4web.core import render

from ...console.parts import TEMPLATES
from ...console.refusals import HEADINGS, Refusal
from .parts import Parts

# Nothing but our own style sheets; and no frame around it.
_POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": _POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


def answer(mq: Parts, refusal: Refusal) -> HTTP:
    """A small page, to be raised. In our own layout: a host's may lack what it needs by then.

    Args:
        mq: the pages that somebody asked for.
        refusal: what to say.
    """
    label, where = refusal.back
    if not isinstance(where, str):
        where = URL("index") if where is None else mq.link(*where)
    page = {
        "mq": mq,
        "refusal": refusal,
        "title": mq.say(HEADINGS[refusal.status]),
        "back": (label, where),
        "URL": URL,
    }
    name = TEMPLATES / "admin" / "refused.html"
    body = render(filename=str(name), path=str(TEMPLATES), context=page)
    return HTTP(refusal.status, body, {**_HEADERS, **refusal.headers})

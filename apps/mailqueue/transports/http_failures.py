"""What an answer of a provider's HTTP API means, or that there is none.

ROWS are read from top to bottom, and the first that fits decides. An answer in the 400s was no sending,
whatever it says; one in the 500s comes from a server that may have done half of its work.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

from .. import words
from ..classify import RULES, Failure, classify_exception, own_words
from ..masking import HIDDEN

_LONGEST_READ: Final = 2000  # characters of an answer that are looked at


@dataclass(frozen=True)
class Row:
    """How an answer is recognised: by its status, and by words in it if needed."""

    rule: str
    status: str
    stage: str
    said: str = ""
    surely_not_sent: bool = True

    def fits(self, status: int, text: str) -> bool:
        """Whether this row speaks of such an answer."""
        return bool(
            re.fullmatch(self.status, str(status)) and re.search(self.said, text, re.IGNORECASE | re.DOTALL)
        )


_REFUSAL = "4..|500"  # some refuse with 500 too
_BAD_KEY = r"invalid[ _-]?(server[ _]?)?(api)?[ _-]?(key|token)|unauthori[sz]ed|authentication failed"
_LIMIT = (
    r"\bcredits?\b|\bquota|too many requests|rate.?limit|limit (was |has been |is )?(exceeded|reached)"
    r"|(exceeded|reached).{0,40}\blimit|(daily|monthly|hourly|sending) (sending |message )?limit"
)
_UNVERIFIED = (
    r"not (been )?(verified|confirmed|found|allowed|authori[sz]ed|registered)|unverified|must be verified"
)
# Of a domain these words alone, since the recipient's may be called invalid.
_SENDER = (
    rf"(sender|from|identity|signature|domain).{{0,60}}({_UNVERIFIED})"
    r"|(sender|from|identity|signature).{0,60}(does not match|doesn't match|unconfigured|invalid)"
    r"|not an authori[sz]ed sender|unsigned|sandbox|verified sender"
)
_TOO_BIG = r"(too|exceed\w*).{0,40}\b(big|large|size)|(size|length).{0,40}\b(too|exceed\w*|limit|maximum)"
_KNOWN = r"idempoten.{0,80}(used|different|modif|processed|exists)|duplicate.?request|invalid_idempotent"

ROWS: Final = (
    Row("bad-server-address", "2..", words.CONNECT, "magnificent api"),  # Mailgun's for any wrong path
    # Postal's way to refuse
    Row("auth-rejected", "2..", words.AUTH, rf"status: (parameter-)?error.*({_BAD_KEY})"),
    Row("message-refused", "2..", words.DATA, r"status: (parameter-)?error"),
    Row("senseless-reply-to-dot", "2..", words.DOT, surely_not_sent=False),
    Row("bad-server-address", "3..", words.CONNECT),
    Row("already-given", "4..", words.DOT, _KNOWN, surely_not_sent=False),
    Row("server-deferred", "409|425", words.MAIL),
    Row("sending-limit", "402|429", words.MAIL),
    Row("sending-limit", "4..", words.MAIL, _LIMIT),
    Row("auth-rejected", "401", words.AUTH),
    Row("auth-rejected", _REFUSAL, words.AUTH, _BAD_KEY),
    Row("sender-rejected", "4..", words.MAIL, _SENDER),
    Row("auth-rejected", "403", words.AUTH),
    Row("bad-server-address", "404|405", words.CONNECT),
    Row("no-reply-to-dot", "408", words.DOT, surely_not_sent=False),
    Row("too-big", "413", words.DATA),
    Row("too-big", "4..", words.DATA, _TOO_BIG),
    Row("message-refused", "4..", words.DATA),
    Row("service-closing", "503|529", words.CONNECT),
    Row("server-deferred", "...", words.DOT, surely_not_sent=False),
)


def failure_of_answer(
    status: int, text: str, headers: Mapping[str, str], *, provider: str, secrets: Sequence[str]
) -> Failure:
    """What an answer means that is not the one hoped for.

    Args:
        status: of HTTP (RFC 9110).
        text: the body.
        headers: of the answer, by names in any case.
        provider: its name.
        secrets: what the text must not show.
    """
    said = own_words("\n".join(_leaves(text))[:_LONGEST_READ])
    row = next(row for row in ROWS if row.fits(status, said))
    return Failure(
        RULES[row.rule].kind,
        row.stage,
        row.rule,
        without(f"{provider}: {text[:_LONGEST_READ]}" if text else f"{provider} answers {status}", secrets),
        code=status,
        surely_not_sent=row.surely_not_sent,
        retry_after=retry_after(headers),
    )


def _leaves(text: str) -> Iterator[str]:
    """What stands in a JSON text, one value a line; another text as it is."""
    try:
        open_ends: list[tuple[str, Any]] = [("", json.loads(text))]
    except ValueError:
        yield text
        return
    while open_ends:
        name, value = open_ends.pop()
        if isinstance(value, dict):
            open_ends += reversed(value.items())
        elif isinstance(value, list):
            open_ends += [(name, inner) for inner in reversed(value)]
        else:
            yield f"{name}: {value}"


def failure_without_answer(
    stage: str, error: BaseException, *, provider: str, secrets: Sequence[str]
) -> Failure:
    """What it means that a request ended without an answer.

    Args:
        stage: words.DOT once the request went out.
        error: what ended it.
        provider, secrets: as for failure_of_answer().
    """
    cause = _cause_of(error)
    failure = classify_exception(stage, cause)
    return Failure(
        failure.kind,
        failure.stage,
        failure.rule,
        without(f"{provider}: {failure.text}", secrets),
        surely_not_sent=failure.surely_not_sent,
    )


def _cause_of(error: BaseException) -> BaseException:
    """What the system said, below all that libraries have wrapped around it."""
    telling = (ssl.SSLError, socket.gaierror, ConnectionError, TimeoutError)
    system = ("builtins", "ssl", "socket", "http.client")
    said = (each for each in _chain(error) if type(each).__module__ in system)
    return next((each for each in said if isinstance(each, telling)), error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        held = (*error.args, getattr(error, "reason", None))
        inner = next((each for each in held if isinstance(each, BaseException)), None)
        error = error.__cause__ or inner or error.__context__


def without(text: str, secrets: Sequence[str]) -> str:
    """A text without secrets, which some providers repeat, and some libraries as Python writes them."""
    for secret in filter(None, secrets):
        on_one_line = " ".join(secret.split())
        for written in filter(None, (secret, repr(secret)[1:-1], ascii(secret)[1:-1], on_one_line)):
            text = text.replace(written, HIDDEN)
    return text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a provider asks to be left alone for (RFC 9110 section 10.2.3)."""
    given = {name.lower(): value for name, value in headers.items()}
    wish = given.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,6}", wish):
        return float(wish)
    try:  # a date, by the provider's own clock
        return max((parsedate_to_datetime(wish) - parsedate_to_datetime(given["date"])).total_seconds(), 0.0)
    except (KeyError, ValueError, TypeError):
        return None

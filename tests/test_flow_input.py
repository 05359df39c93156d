"""Whatever send() is given: a clear error and nothing written, or a message that reads as it was meant.

From the arguments through the rows of a real database and a real SMTP dialogue to two readers that
are independent of each other (support/readers.py).
"""

from __future__ import annotations

import io
import re
from collections import UserList
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.mime.multipart import MIMEMultipart
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mailqueue import QueuedMailer, outbox
from mailqueue.compose import downgraded, is_bare_address, with_sender
from mailqueue.errors import BadMessage
from mailqueue.tables import TABLES
from py4web.core import Session
from py4web.utils.auth import Auth
from support.mail import SENDER, make_mail, to_server
from support.readers import Reading, readings, without_blanks
from support.smtp_server import ScriptedServer

# The same examples in every run: what one machine finds, every machine finds.
PROPERTY = settings(
    derandomize=True,
    print_blob=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
ALWAYS = {"from", "subject", "date", "message-id", "auto-submitted", "mime-version"}
SITE = ("Site", "noreply@site.test")


@pytest.fixture(scope="module")
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as running:
        yield running


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory, server: ScriptedServer) -> Iterator[QueuedMailer]:
    mail = make_mail(tmp_path_factory.mktemp("input"))
    to_server(mail, server)
    mail.db.executesql("PRAGMA synchronous = OFF")  # hundreds of commits, and no power cut to survive
    yield mail
    mail.db.close()


def everything(mail: QueuedMailer) -> dict[str, int]:
    """How many rows there are in each table."""
    counts = {table: mail.db(mail.db[table].id > 0).count() for table in TABLES}
    mail.db.rollback()
    return counts


def newest(mail: QueuedMailer) -> dict[str, Any]:
    """The row of the newest message, which may have been refused."""
    table = mail.db.mailqueue_message
    row = mail.db(table.id > 0).select(orderby=~table.id, limitby=(0, 1)).first()
    mail.db.rollback()
    return dict(row.as_dict())


def last_message(mail: QueuedMailer) -> dict[str, Any]:
    """The newest message, with its recipients as (kind, address) and the text as it is stored."""
    row, recipient = newest(mail), mail.db.mailqueue_recipient
    people = mail.db(recipient.message_ref == row["id"]).select(orderby=recipient.id)
    mime = outbox.content(mail.db, row["id"])
    mail.db.rollback()
    return {**row, "people": [(person.kind, person.address) for person in people], "mime": mime}


def ended(text: str | None) -> str:
    """A body with plain line ends, the last one too."""
    lines = (text or "").replace("\r\n", "\n").replace("\r", "\n")
    return lines if not lines or lines.endswith("\n") else f"{lines}\n"


# --- messages that mean something -------------------------------------------------------------


class Lazy:
    """Like a translation: known when it is asked for."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


one_line = st.one_of(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=120),
    st.text(" \"\\,;:<>()@=?._%'*ä日\U0001f469", max_size=50),
    st.sampled_from(
        ["=?utf-8?q?x?=", "Bcc: eve@x.test", "a" * 300, "é" * 200, "日" * 700, " blanks  inside ", "(c)", "="]
    ),
)
DOMAINS = {
    "x.test": "x.test",
    "a.b.example": "a.b.example",
    "bücher.test": "xn--bcher-kva.test",
    "日本.example": "xn--wgv71a.example",
    "localhost": "localhost",
    "[192.0.2.1]": "[192.0.2.1]",
    "[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]",
}
dot_atoms = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ü日-]{1,20}(\.[a-z0-9]{1,9})?", fullmatch=True)
local_parts = st.one_of(
    dot_atoms.filter(lambda local: "=?" not in local),
    st.text("ab @,;:().é", min_size=1, max_size=12).map(quoted),
)


@st.composite
def mailboxes(draw: Any) -> tuple[Any, tuple[str, str]]:
    """An address as it may be given, and the name (without blanks) and address that are meant."""
    local, domain = draw(local_parts), draw(st.sampled_from(sorted(DOMAINS)))
    name = draw(st.one_of(st.just(""), one_line))
    written = f"{quoted(name)} <{local}@{domain}>" if name else f"{local}@{domain}"
    given = draw(st.sampled_from([written, written.encode(), Lazy(written)]))
    local = re.fullmatch(r'"([a-zé]+(?:\.[a-zé]+)*)"', local)[1] if _needs_no_quotes(local) else local  # type: ignore[index]
    return given, (without_blanks(name), f"{local}@{DOMAINS[domain]}")


def _needs_no_quotes(local: str) -> bool:
    return re.fullmatch(r'"([a-zé]+(?:\.[a-zé]+)*)"', local) is not None


SHAPES: list[Callable[[list[Any]], Any]] = [
    list,
    tuple,
    iter,
    UserList,
    lambda items: dict(enumerate(items)).values(),
]
file_names = st.one_of(
    one_line.filter(str.strip),
    st.sampled_from(
        ["a;b.txt", 'quo"te.txt', "per%20cent.txt", "back\\slash.txt", "日本語" * 40, "*0*.txt", "a  b"]
    ),
)
files = st.tuples(
    file_names,
    st.sampled_from(["image/png", "application/pdf", "application/octet-stream"]),
    st.binary(max_size=400),
    st.sampled_from(["", "photo", "a.b@c"]),
)
bodies = st.one_of(st.text(max_size=300), st.text("a=\r\n.é \t\0", max_size=200), st.just("x" * 3000))


@st.composite
def letters(draw: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a send() that all are good, and what the message is to read like."""
    people = {kind: draw(st.lists(mailboxes(), max_size=3)) for kind in ("to", "cc", "bcc", "reply_to")}
    if not (people["to"] or people["cc"] or people["bcc"]):
        people["to"] = [draw(mailboxes())]
    shape = draw(st.sampled_from(SHAPES))
    sender, from_address = draw(st.none() | mailboxes()), draw(st.none() | mailboxes())
    subject, text = draw(one_line), draw(st.none() | bodies)
    html = draw(st.none() | bodies.map(lambda inner: f"<p>{inner}</p>"))
    own = draw(st.dictionaries(st.from_regex(r"X-[a-z]{1,12}", fullmatch=True), one_line, max_size=2))
    attached = draw(st.lists(files, max_size=3))
    arguments = {
        **{kind: shape([given for given, _ in items]) for kind, items in people.items()},
        "subject": draw(st.sampled_from([subject, subject.encode(), Lazy(subject)])),
        "body": draw(st.sampled_from(_bodies(text, html))),
        "sender": sender[0] if sender else None,
        "from_address": from_address[0] if from_address else None,
        "headers": own,
        "attachments": [
            QueuedMailer.Attachment(io.BytesIO(content), name, cid or None, type_)
            for name, type_, content, cid in attached
        ],
    }
    meant = {
        **{kind: [meant for _, meant in items] for kind, items in people.items()},
        "from": (from_address or sender or ("", SITE))[1],
        "mail_from": (sender or ("", SITE))[1][1],
        "subject": subject,
        "text": ended(text) if text or not (html or attached) else None,
        "html": html and ended(html),
        "own": own,
        "files": sorted((name.strip(), type_, content, cid) for name, type_, content, cid in attached),
    }
    return arguments, meant


def _bodies(text: str | None, html: str | None) -> list[Any]:
    """The ways to give these bodies."""
    pair = [(text, html), [text and text.encode(), html and io.StringIO(html, newline="")]]
    return pair if html else [*pair, text, text and text.encode(), text and io.BytesIO(text.encode())]


def _named(people: dict[str, list[tuple[str, str]]], reading: Reading) -> dict[str, list[tuple[str, str]]]:
    """The mailboxes, with their names only where this reader can read those."""
    return {
        field: [(name if reading.reads_names else "", address) for name, address in mailboxes]
        for field, mailboxes in people.items()
    }


def assert_reads_as_meant(reading: Reading, meant: dict[str, Any]) -> None:
    shown = {kind: meant[kind.replace("-", "_")] for kind in ("to", "cc", "reply-to")}
    people = {"from": [meant["from"]], **{kind: items for kind, items in shown.items() if items}}
    assert _named(reading.people, reading) == _named(people, reading)
    fields = [*ALWAYS, *(kind for kind in people if kind != "from"), *meant["own"]]
    present = [name for name in reading.fields if not name.startswith("content-")]
    assert present == sorted(name.lower() for name in fields)
    assert reading.texts["subject"] == meant["subject"]
    assert {name: reading.texts[name.lower()] for name in meant["own"]} == meant["own"]
    assert (reading.text or "", reading.html) == (meant["text"] or "", meant["html"])
    assert reading.files == meant["files"]


@settings(PROPERTY, max_examples=200)
@given(letter=letters())
def test_a_good_message_arrives_and_reads_as_it_was_meant(
    mail: QueuedMailer, server: ScriptedServer, letter: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    arguments, meant = letter
    assert mail.send(**arguments) is True
    stored = last_message(mail)
    kinds = {
        address: kind for kind in ("bcc", "cc", "to") for _, address in meant[kind]
    }  # the first kind counts
    everybody = dict.fromkeys(address for kind in ("to", "cc", "bcc") for _, address in meant[kind])
    assert stored["people"] == [(kinds[address], address) for address in everybody]
    assert all(is_bare_address(address) for address in everybody)
    assert mail.process_queue()["sent"] == 1
    # Who has an address beyond ASCII needs other servers than the rest, and gets it apart from them.
    parts = [[address for address in everybody if address.isascii() is plain] for plain in (True, False)]
    parts = sorted(filter(None, parts), key=lambda part: part[0] != next(iter(everybody)))
    for part, received in zip(parts, server.messages[-len(parts) :], strict=True):
        assert (received.mail_from, received.rcpt_tos) == (meant["mail_from"], tuple(part))
        assert max(map(len, received.data.split(b"\r\n"))) <= 998  # RFC 5322 section 2.1.1
        header = received.data.partition(b"\r\n\r\n")[0].decode()
        assert not any(f"<{one}>" in header or f" {one}" in header.split(",") for one in hidden_of(meant))
        if received.data.endswith(stored["mime"]):
            for reading in readings(received.data):
                assert_reads_as_meant(reading, meant)
        else:
            assert received.data.endswith(downgraded(stored["mime"]))
            assert part[0].isascii()


def hidden_of(meant: dict[str, Any]) -> set[str]:
    """The addresses that may not show in the header."""
    shown = {address for kind in ("from", "to", "cc", "reply_to") for _, address in _listed(meant[kind])}
    return {address for _, address in meant["bcc"]} - shown


def _listed(people: Any) -> list[tuple[str, str]]:
    return people if isinstance(people, list) else [people]


# --- hostile texts ------------------------------------------------------------------------------

PIECES = [
    "ann@x.test", "eve@x.test", ",", ";", ":", "\r\n", "\n", "\r", "\0", "\t", " ", "\x85", "\u2028",
    "\ud800", "<", ">", '"', "\\", "(", ")", "@", "=?utf-8?q?", "=?utf-8?b?Cg==?=", "=0D=0A", "?=", "é",
    "Bcc: e@x.test", "\r\nBcc: eve@x.test", "\r\n\r\n", "日本", "\u202e", "a" * 90, "Ann", ".", "..", "[",
]  # fmt: skip
hostile = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=4).map(lambda pieces: "".join(pieces) + "<ann@x.test>"),
    st.lists(st.sampled_from(PIECES), max_size=4).map(lambda pieces: "Ann" + "".join(pieces) + "@x.test"),
    st.text(st.characters(exclude_categories=()), max_size=80),
    st.sampled_from(
        ["x" * 100_000, '"' * 30_000, "<" * 30_000 + ">", "=?a?q?" * 5_000, "ann@x.test," * 5_000]
    ),
)
as_bytes = hostile.map(lambda text: text.encode("utf-8", "surrogatepass"))
one = st.one_of(hostile, as_bytes, hostile.map(Lazy))
some = st.one_of(
    one, st.lists(one, max_size=3), st.tuples(one, one), st.dictionaries(hostile, one, max_size=2)
)
junk = st.one_of(
    st.none(), st.integers(), st.floats(), st.booleans(), st.binary(max_size=9), st.just([[[]]]), some
)
ENCODINGS = ["utf-8", "latin-1", "utf-16", "idna", "hex", "\0", "", 7, None]
FIELDS = ["X-A", "x-a", "X-B", "Reply-To", "Sender", "Date", "Message-ID", "Bcc", "Subject", "From"]
anything = {
    "to": junk,
    "cc": junk,
    "bcc": junk,
    "subject": st.one_of(one, junk),
    "body": st.one_of(junk, st.tuples(junk, junk), one.map(lambda text: io.StringIO(str(text)))),
    "sender": st.one_of(one, junk),
    "from_address": one,
    "reply_to": junk,
    "encoding": st.one_of(hostile, st.sampled_from(ENCODINGS)),
    "raw": st.booleans(),
    "headers": st.one_of(junk, st.dictionaries(st.one_of(hostile, st.sampled_from(FIELDS)), one, max_size=3)),
    "list_unsubscribe": st.one_of(one, st.sampled_from(["https://x.test/u", "mailto:u@x.test", "u@x.test"])),
    "attachments": st.one_of(junk, st.lists(junk, max_size=2)),
}  # fmt: skip
KNOWN = {*ALWAYS, "to", "cc", "reply-to", "list-unsubscribe"}


def assert_consistent(reading: Reading, stored: dict[str, Any], given_: dict[str, Any]) -> None:
    """Nothing that was not asked for: no field, no mailbox, nobody's blind copy."""
    wanted = headers_of(given_)
    for name in reading.fields:
        assert name in KNOWN | wanted or name.startswith("content-"), name
    assert len(reading.fields) == len(set(reading.fields))
    for kind in ("to", "cc"):
        shown = [address for _, address in reading.people.get(kind, [])]
        assert len(shown) == number_of(given_.get(kind))
        kinds = dict(reversed([(address, kind) for kind, address in stored["people"]]))
        assert set(shown) <= set(kinds)
    count = sum(number_of(given_.get(kind)) for kind in ("to", "cc", "bcc"))
    assert len(stored["people"]) <= count
    visible = {address for kind in ("to", "cc") for _, address in reading.people.get(kind, [])}
    assert {address for kind, address in stored["people"] if kind != "bcc"} == visible


def headers_of(given_: dict[str, Any]) -> set[str]:
    headers = given_.get("headers")
    return {str(name).lower() for name in headers} if isinstance(headers, dict) else set()


def number_of(people: Any) -> int:
    """How many mailboxes were given."""
    if isinstance(people, (list, tuple, dict)):
        return len(people)
    return 0 if people is None or people in ("", b"", False, 0) else 1


@settings(PROPERTY, max_examples=1500)
@given(data=st.data())
def test_whatever_is_given_is_refused_without_a_trace_or_is_one_message(
    mail: QueuedMailer, data: st.DataObject
) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(anything)), min_size=1, max_size=3, unique=True))
    given_ = {"to": "ann@x.test", **{name: data.draw(anything[name], label=name) for name in names}}
    before = everything(mail)
    try:
        mail.send(**given_)
    except BadMessage as refusal:
        assert str(refusal)
        assert "argument of send() raised" not in str(refusal)  # of plain data, each has a message of its own
        assert everything(mail) == before
        return
    stored = last_message(mail)
    after = everything(mail)
    assert after["mailqueue_message"] == before["mailqueue_message"] + 1
    assert after["mailqueue_recipient"] == before["mailqueue_recipient"] + len(stored["people"])
    assert all(is_bare_address(address) for _, address in stored["people"])
    for reading in readings(with_sender(stored["mime"], SENDER)):
        assert_consistent(reading, stored, given_)


# --- objects that raise ---------------------------------------------------------------------------


class Raising:
    """Raises whatever is asked of it."""

    def __init__(self, error: BaseException, *methods: str) -> None:
        self.error, self.methods = error, methods

    def _play(self, method: str, usual: Any) -> Any:
        if method in self.methods:
            raise self.error
        return usual

    def __str__(self) -> str:
        return str(self._play("str", "ann@x.test"))

    def __bool__(self) -> bool:
        return bool(self._play("bool", True))

    def __iter__(self) -> Iterator[str]:
        return iter(self._play("iter", ["ann@x.test"]))

    def __fspath__(self) -> str:
        return str(self._play("fspath", "ann"))

    def read(self) -> bytes:
        return bytes(self._play("read", b"text"))


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


def deep(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def a_generator(error: Exception) -> Iterator[str]:
    yield "ann@x.test"
    raise error


def in_itself() -> MIMEMultipart:
    part = MIMEMultipart()
    part.attach(part)
    return part


def of_a_broken_payload() -> EmailMessage:
    part = EmailMessage()
    part.set_payload(Raising(RuntimeError("payload"), "str"))  # type: ignore[arg-type]
    return part


ERRORS = [RuntimeError("boom"), ValueError(), KeyError("x"), RecursionError(), MemoryError(), Unprintable()]
OBJECTS: dict[str, Callable[[], Any]] = {
    "object": object,
    "type": lambda: object,
    "deeply nested": lambda: deep(100_000),
    "set": lambda: {1, "x"},
    "itself": lambda: (loop := [], loop.append(loop))[0],  # type: ignore[func-returns-value]
    "message in itself": in_itself,
    "message of a broken payload": of_a_broken_payload,
    **{
        f"{method} raises {type(error).__name__}": lambda error=error, method=method: Raising(error, method)
        for error in ERRORS
        for method in ("str", "bool", "iter", "fspath", "read")
    },
    **{
        f"generator raises {type(error).__name__}": lambda error=error: a_generator(error) for error in ERRORS
    },
}


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize("argument", sorted(anything))
def test_an_object_that_raises_is_refused_or_read_and_never_raises_through(
    mail: QueuedMailer, argument: str, make: Callable[[], Any]
) -> None:
    for wrapped in (make, lambda: [make()], lambda: ("text", make()), lambda: {"X-A": make()}):
        before = everything(mail)
        given_ = {"to": "ann@x.test", argument: wrapped()}
        if argument == "encoding":
            given_["body"] = b"bytes"
        try:
            mail.send(**given_)
        except BadMessage as refusal:
            assert str(refusal)
            assert everything(mail) == before
        else:
            stored = last_message(mail)
            assert all(is_bare_address(address) for _, address in stored["people"])
            assert len(readings(with_sender(stored["mime"], SENDER))) > 0
        direct = mail.send_direct_email(
            **{**given_, argument: wrapped(), "to": given_.get("to", "ann@x.test")}
        )
        assert direct in (True, False)


def test_an_interruption_while_an_argument_is_read_is_passed_on(mail: QueuedMailer) -> None:
    before = everything(mail)
    with pytest.raises(KeyboardInterrupt):
        mail.send("ann@x.test", Raising(KeyboardInterrupt(), "read"))
    assert everything(mail) == before


# --- Auth -------------------------------------------------------------------------------------------


class Site(Auth):  # type: ignore[misc]
    """An Auth that sends what it is told."""

    def write(self, to: Any, subject: Any, body: Any) -> Any:
        return self.sender.send(to, subject=subject, body=body)


@pytest.fixture(scope="module")
def auth(mail: QueuedMailer) -> Site:
    auth = Site(Session(secret="2f1c8e0a-7b64-4d39-9a55"), mail.db, define_tables=False)
    auth.sender = mail
    return auth


@settings(PROPERTY, max_examples=200)
@given(to=junk, subject=st.one_of(one, junk), body=junk)
def test_whatever_auth_sends_is_queued_or_kept_as_failed_and_never_raises(
    mail: QueuedMailer, auth: Site, to: Any, subject: Any, body: Any
) -> None:
    before = everything(mail)["mailqueue_message"]
    assert auth.write(to, subject, body) is True
    assert everything(mail)["mailqueue_message"] == before + 1
    kept = newest(mail)
    assert kept["category"] == "auth"
    assert (kept["status"] == "queued") or (kept["status"] == "failed" and kept["error"])


@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_no_object_that_auth_sends_raises_through(
    mail: QueuedMailer, auth: Site, make: Callable[[], Any]
) -> None:
    for arguments in ((make(), "x", "x"), ("ann@x.test", make(), "x"), ("ann@x.test", "x", make())):
        assert auth.write(*arguments) is True
        assert newest(mail)["status"] in ("queued", "failed")

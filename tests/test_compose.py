from __future__ import annotations

import email
import io
import os
import random
import re
import time
from datetime import datetime, timezone
from email import policy
from email.header import Header, decode_header, make_header
from email.headerregistry import Address as ReadAddress
from email.message import EmailMessage
from email.mime.application import MIMEApplication
from email.mime.base import MIMEBase
from email.mime.text import MIMEText
from email.utils import format_datetime
from pathlib import Path

import email_validator
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mailqueue import compose as compose_module
from mailqueue.compose import (
    Address,
    Attachment,
    Composed,
    Envelope,
    compose,
    downgraded,
    parse_address,
    with_sender,
)
from mailqueue.errors import BadAddress, BadAttachment, BadHeader, BadMessage

OURS = ["To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version"]


def composed(**changes: object) -> Composed:
    arguments: dict[str, object] = {
        "to": "ann@example.com",
        "subject": "Hello",
        "text": "Hello Ann",
        "html": None,
        "domain": "site.test",
        "now": 0,
    }
    return compose(**{**arguments, **changes})  # type: ignore[arg-type]


def read(mime: bytes) -> EmailMessage:
    # A reader of a message with UTF-8 in its header decodes it first (RFC 6532).
    message = email.message_from_string(mime.decode("utf-8"), policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def read_raw(mime: bytes) -> EmailMessage:
    message = email.message_from_bytes(mime, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def specs(message: EmailMessage, field: str) -> list[str]:
    return [spec_of(address) for address in message[field].addresses] if message[field] else []


def spec_of(address: ReadAddress) -> str:
    # Python's own addr_spec forgets the quotes of "."@example.com.
    plain = re.fullmatch(r"[^ \"(),:;<>@\[\\\].]+(\.[^ \"(),:;<>@\[\\\].]+)*", address.username)
    return f"{address.username if plain else quoted(address.username)}@{address.domain}"


def quoted(name: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'


def names(message: EmailMessage, field: str) -> list[str]:
    return [address.display_name for address in message[field].addresses]


def body(message: EmailMessage, kind: str) -> str | None:
    part = message.get_body((kind,))
    return None if part is None else part.get_payload(decode=True).decode().replace("\r\n", "\n")


def without_blanks(text: str) -> str:
    return re.sub(r"\s", "", text)


def header_of(mime: bytes) -> bytes:
    return mime.partition(b"\r\n\r\n")[0]


def assert_fit_for_the_wire(result: Composed) -> None:
    mime = result.mime
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\x00", mime)
    assert mime.endswith(b"\r\n")
    assert max(map(len, mime.split(b"\r\n"))) <= 998
    assert result.envelope.smtputf8 or mime.isascii()
    # No reader can take a line of blanks for the end of the header.
    assert not re.search(rb"\r\n[ \t]+(\r\n|$)", header_of(mime))


class Lazy:
    """Like a translation: known when it is asked for."""

    def __init__(self, text: str):
        self.text = text

    def __str__(self) -> str:
        return self.text


# --- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("ann@example.com", "", "ann@example.com"),
        ("  ann@example.com ", "", "ann@example.com"),
        ("<ann@example.com>", "", "ann@example.com"),
        ("Ann <ann@example.com>", "Ann", "ann@example.com"),
        ("Dr. Ann   Lee <ann@example.com>", "Dr. Ann Lee", "ann@example.com"),
        ('"Lee, Ann" <ann@example.com>', "Lee, Ann", "ann@example.com"),
        (r'"The \"A\" \\ team" <a@example.com>', 'The "A" \\ team', "a@example.com"),
        ('"Ann" Lee <ann@example.com>', "Ann Lee", "ann@example.com"),
        ("Ann (Sales) <ann@example.com>", "Ann (Sales)", "ann@example.com"),
        ("Jürgen Größe <j@example.com>", "Jürgen Größe", "j@example.com"),
        ("=?utf-8?q?J=C3=BCrgen=2C_Dr?= <j@example.com>", "Jürgen, Dr", "j@example.com"),
        ("=?iso-8859-1?q?J=FC?= =?utf-8?b?cmdlbg==?= <j@example.com>", "Jürgen", "j@example.com"),
        ("ann@BÜCHER.Example", "", "ann@xn--bcher-kva.example"),
        ("Ann.Lee+tag@Example.COM", "", "Ann.Lee+tag@example.com"),
        ("ann@localhost", "", "ann@localhost"),
        ("ann@LOCALHOST", "", "ann@localhost"),
        ("ann@foo.local", "", "ann@foo.local"),
        ("ann@site.test", "", "ann@site.test"),
        ("ann@bücher.test", "", "ann@xn--bcher-kva.test"),
        ("ann@x.invalid", "", "ann@x.invalid"),
        ("ann@x.onion", "", "ann@x.onion"),
        ("ann@[192.0.2.1]", "", "ann@[192.0.2.1]"),
        ("ann@[IPv6:2001:db8::1]", "", "ann@[IPv6:2001:db8::1]"),
        ('"ann lee"@example.com', "", '"ann lee"@example.com'),
        ('"a<b>@c,d"@example.com', "", '"a<b>@c,d"@example.com'),
        ('X <"a<b>@c"@example.com>', "X", '"a<b>@c"@example.com'),
        ("jürgen@example.com", "", "jürgen@example.com"),
    ],
)
def test_one_address_is_read_as_name_and_spec(text: str, name: str, spec: str) -> None:
    assert parse_address(text) == Address(name, spec)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "<>",
        "ann",
        "ann@",
        "@example.com",
        "ann@example.com,bob@example.com",
        "ann@example.com, bob@example.com",
        "ann@example.com;bob@example.com",
        "ann@example.com bob@example.com",
        "Ann <ann@example.com>, Bob <bob@example.com>",
        "Ann <ann@example.com> <bob@example.com>",
        "ann@example.com <bob@example.com>",
        "Lee, Ann <ann@example.com>",
        "<ann@example.com,bob@example.com>",
        "<ann@example.com> bob@example.com",
        "team: ann@example.com;",
        "@relay.test:ann@example.com",
        'Ann" <ann@example.com>',
        "ann..lee@example.com",
        "ann@exa mple.com",
        "ann@-example.com",
        "ann@[300.0.0.1]",
        "ann@" + "a" * 64 + ".com",
        "a" * 250 + "@example.com",
        "ann@example.com\r\nBcc: eve@example.com",
        "Ann\n <ann@example.com>",
        "Ann\x00 <ann@example.com>",
        "Ann\u2028 <ann@example.com>",
        "Ann \ud800 <ann@example.com>",
        "=?utf-8?q?Ann=0D=0ABcc=3A_eve=40example=2Ecom?= <ann@example.com>",
        "=?nonsense?q?Ann?= <ann@example.com>",
        "=?utf-8?q?=FF?= <ann@example.com>",
        "=?utf-8?b?a?= <ann@example.com>",
        "=?utf-8?q?eve=40example=2Ecom=3E?=@example.com",
        "ann@example.com\u202e",
    ],
)
def test_anything_but_one_address_is_refused(text: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(text)


def test_a_second_address_in_one_string_is_refused_and_the_error_says_what_to_do() -> None:
    with pytest.raises(BadAddress, match=r"'ann@example.com,bob@example.com'.*[Pp]ass a list"):
        composed(to="ann@example.com,bob@example.com")


def test_a_very_long_wrong_address_is_shown_shortened() -> None:
    with pytest.raises(BadAddress) as refusal:
        parse_address("a" * 100_000)
    assert len(str(refusal.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        '"' * 50_000 + "\\" * 50_000 + ">",
        "<" * 50_000 + ">",
        "a" * 500_000 + "@example.com",
        "=?a?q?" * 20_000 + " <a@b>",
    ],
    ids=["quotes", "brackets", "long", "encoded"],
)
def test_a_hostile_address_is_judged_in_little_time(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(BadAddress):
        parse_address(text)
    assert time.perf_counter() - start < 2


def test_an_address_of_254_characters_is_the_longest() -> None:
    longest = f"{'a' * 64}@{'b' * 61}.{'c' * 61}.{'d' * 60}.test"
    assert len(longest) == 254
    assert parse_address(longest).spec == longest
    with pytest.raises(BadAddress, match="longer"):
        parse_address(f"a{longest}")


_WORD = st.text("abcXYZ019_+-", min_size=1, max_size=70)
_LABEL = st.text("abcXYZ019-", min_size=1, max_size=70)


@settings(deadline=None)
@given(st.lists(_WORD, min_size=1, max_size=4), st.lists(_LABEL, min_size=1, max_size=5))
def test_an_address_that_needs_no_closer_look_is_what_a_closer_look_makes_of_it(
    words: list[str], labels: list[str]
) -> None:
    spec = f"{'.'.join(words)}@{'.'.join(labels)}"
    unlooked = _read_or_refused(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mailqueue.compose._COMMON_SPEC", re.compile("(?!)"))
        assert _read_or_refused(spec) == unlooked


def _read_or_refused(spec: str) -> str | None:
    try:
        return parse_address(spec).spec
    except BadAddress:
        return None


def test_the_special_domains_stay_refused_for_the_host_itself() -> None:
    before = list(email_validator.SPECIAL_USE_DOMAIN_NAMES)
    parse_address("ann@site.test")
    assert before == email_validator.SPECIAL_USE_DOMAIN_NAMES
    with pytest.raises(email_validator.EmailNotValidError):
        email_validator.validate_email("ann@site.test", check_deliverability=False)


def test_only_a_local_part_beyond_ascii_needs_smtputf8() -> None:
    assert parse_address("jürgen@example.com").smtputf8
    assert not parse_address("Jürgen <j@bücher.example>").smtputf8


# --- envelope ------------------------------------------------------------------------------


def test_the_envelope_holds_everybody_and_the_header_no_bcc() -> None:
    result = composed(
        to=["Ann <ann@example.com>", "bob@example.com"],
        cc=("carl@example.com",),
        bcc=(address for address in ["dora@example.com"]),
        sender="Site <site@example.com>",
    )
    assert result.envelope == Envelope(
        "site@example.com",
        (
            ("to", "ann@example.com"),
            ("to", "bob@example.com"),
            ("cc", "carl@example.com"),
            ("bcc", "dora@example.com"),
        ),
        False,
    )
    message = read(result.mime)
    assert specs(message, "To") == ["ann@example.com", "bob@example.com"]
    assert specs(message, "Cc") == ["carl@example.com"]
    assert b"dora" not in result.mime
    assert "Bcc" not in message


def test_an_address_given_twice_is_one_recipient_of_the_first_kind() -> None:
    result = composed(
        to="Ann <ann@Example.com>", cc="ann@example.COM", bcc=["Bob@example.com", "bob@example.com"]
    )
    assert result.envelope.recipients == (
        ("to", "ann@example.com"),
        ("bcc", "Bob@example.com"),
        ("bcc", "bob@example.com"),
    )


def test_the_lists_of_the_caller_are_not_changed() -> None:
    to, cc, bcc = ["ann@example.com"], ["bob@example.com"], ["carl@example.com"]
    composed(to=to, cc=cc, bcc=bcc)
    assert (to, cc, bcc) == (["ann@example.com"], ["bob@example.com"], ["carl@example.com"])


def test_addresses_may_be_bytes_or_lazy() -> None:
    result = composed(
        to=[b"J\xc3\xbcrgen <j@example.com>", Lazy("bob@example.com")], cc=Lazy("carl@example.com")
    )
    message = read(result.mime)
    assert specs(message, "To") == ["j@example.com", "bob@example.com"]
    assert names(message, "To") == ["Jürgen", ""]
    assert specs(message, "Cc") == ["carl@example.com"]


@pytest.mark.parametrize("to", [None, "", [None], [""], ["ann@example.com", None], b"\xff@example.com", 7])
def test_a_recipient_without_an_address_is_refused(to: object) -> None:
    with pytest.raises(BadAddress):
        composed(to=to, cc="bob@example.com")


def test_no_recipient_at_all_is_refused() -> None:
    with pytest.raises(BadMessage, match="No recipient"):
        composed(to=[], cc=None, bcc=[])


def test_blind_copies_alone_are_a_message_without_a_to() -> None:
    result = composed(to=[], cc="", bcc="ann@example.com")
    assert result.envelope.recipients == (("bcc", "ann@example.com"),)
    assert "To" not in read(result.mime)


def test_ten_thousand_recipients_are_all_there() -> None:
    result = composed(to=[f"Nümber {n} <u{n}@example.com>" for n in range(10_000)])
    assert_fit_for_the_wire(result)
    assert len(result.envelope.recipients) == 10_000
    field = re.search(rb"^To: ((?:[^\r]|\r\n )*)", result.mime, re.MULTILINE)
    assert field
    assert len(set(re.findall(rb"<(u\d+@example\.com)>", field[1]))) == 10_000


# --- from ----------------------------------------------------------------------------------


def test_without_a_sender_there_is_no_from_until_it_is_sent() -> None:
    result = composed()
    assert result.envelope.sender is None
    assert "From" not in read(result.mime)
    mime = with_sender(result.mime, '"Größe, Site" <Site@example.com>')
    assert mime.startswith(b"From:")
    assert mime.endswith(result.mime)
    assert (names(read(mime), "From"), specs(read(mime), "From")) == (["Größe, Site"], ["Site@example.com"])


def test_a_from_that_is_there_stays() -> None:
    result = composed(sender="Ann <ann@example.com>")
    assert result.mime.startswith(b"From: Ann <ann@example.com>\r\n")
    assert with_sender(result.mime, "site@example.com") is result.mime


def test_a_default_sender_that_is_no_address_is_refused() -> None:
    with pytest.raises(BadAddress):
        with_sender(composed().mime, "a@example.com\r\nBcc: eve@example.com")


def test_from_address_is_shown_and_the_sender_is_in_the_envelope() -> None:
    result = composed(sender="bounce@example.com", from_address="Ann <ann@example.com>")
    assert result.envelope.sender == "bounce@example.com"
    assert specs(read(result.mime), "From") == ["ann@example.com"]


def test_from_address_alone_leaves_the_envelope_to_the_site() -> None:
    result = composed(from_address="Ann <ann@example.com>")
    assert result.envelope.sender is None
    assert result.mime.startswith(b"From: Ann <ann@example.com>\r\n")


@pytest.mark.parametrize(
    "changes",
    [
        {"to": "jürgen@example.com"},
        {"cc": "jürgen@example.com"},
        {"sender": "jürgen@example.com"},
        {"from_address": "jürgen@example.com"},
        {"reply_to": "jürgen@example.com"},
        {"headers": {"Sender": "jürgen@example.com"}},
    ],
)
def test_an_address_beyond_ascii_anywhere_in_the_header_needs_smtputf8(changes: dict[str, object]) -> None:
    result = composed(**changes)
    assert result.envelope.smtputf8
    assert "jürgen@example.com".encode() in result.mime


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bcc": "jürgen@example.com"},
        {"sender": "jürgen@example.com", "from_address": "a@example.com"},
    ],
)
def test_an_address_that_the_header_does_not_show_is_nothing_to_other_recipients(
    changes: dict[str, object],
) -> None:
    result = composed(**changes)
    assert not result.envelope.smtputf8
    assert result.mime.isascii()


LONG = "ж" * 60  # in more than one encoded word


@pytest.mark.parametrize(
    ("to", "shown"),
    [
        (["jürgen@x.test"], ["jürgen@x.test:;"]),
        (
            ["Ann <ann@x.test>", "Jürgen <jürgen@x.test>", "bob@x.test"],
            ["Ann <ann@x.test>", "Jürgenjürgen@x.test:;", "bob@x.test"],
        ),
        ([f"{LONG}@x.test", "bob@x.test"], [f"{LONG}@x.test:;", "bob@x.test"]),
        (['"a, ü"@x.test', '"c, d@e" <bob@x.test>'], ['"a,ü"@x.test:;', '"c, d@e" <bob@x.test>']),
        ([f"p{number}@x.test" for number in range(20)], [f"p{number}@x.test" for number in range(20)]),
    ],
    ids=["one", "among others", "long", "quoted", "none"],
)
@pytest.mark.parametrize("field", ["to", "cc"])
def test_for_recipients_in_ascii_others_are_named_as_groups_without_members(
    field: str, to: list[str], shown: list[str]
) -> None:
    given = {"to": "a@x.test", "subject": "Grüße", "text": "To: jürgen@x.test", field: to}
    mime = composed(**given).mime
    header, _, body = downgraded(mime).partition(b"\r\n\r\n")
    assert header.isascii()
    assert max(map(len, header.split(b"\r\n"))) <= 80
    assert body == mime.partition(b"\r\n\r\n")[2]
    message = read_raw(downgraded(mime))
    assert message["Subject"] == "Grüße"
    # Without blanks: this reader puts one between encoded words.
    assert [
        str(group.addresses[0]) if group.display_name is None else f"{group.display_name}:;".replace(" ", "")
        for group in message[field].groups
    ] == shown


def test_the_name_of_such_a_group_is_parted_from_its_address_for_readers_that_join_encoded_words() -> None:
    mime = downgraded(composed(to="Jürgen <jürgen@x.test>").mime)
    field = re.search(rb"To: (.*?)\r\n(?! )", mime, re.DOTALL)
    assert field is not None
    assert str(make_header(decode_header(field[1].decode()))) == "Jürgen jürgen@x.test :;"


@pytest.mark.parametrize(("to", "said"), [("ann", False), ("ann@x.test, bob@x.test", True)])
def test_who_gives_several_addresses_in_one_text_is_told_to_pass_a_list(to: str, said: bool) -> None:
    with pytest.raises(BadAddress) as refused:
        composed(to=to)
    assert ("Pass a list for several." in str(refused.value)) is said


# --- header --------------------------------------------------------------------------------


def test_the_fields_of_ours_are_there_once() -> None:
    message = read(composed(now=1_000_000_000.5).mime)
    assert list(message.keys()) == [*OURS, "Content-Type", "Content-Transfer-Encoding"]
    assert message["Date"] == "Sun, 09 Sep 2001 01:46:40 +0000"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["MIME-Version"] == "1.0"


@given(st.floats(min_value=0, max_value=250_000_000_000))
def test_the_date_is_that_of_the_standard_library(now: float) -> None:
    expected = format_datetime(datetime.fromtimestamp(int(now), timezone.utc))
    assert f"\r\nDate: {expected}\r\n".encode() in composed(now=now).mime


def test_a_message_id_is_made_for_each_message_and_reported() -> None:
    first, second = composed(), composed()
    assert re.fullmatch(r"<[0-9a-f]{32}@site\.test>", first.message_id)
    assert read(first.mime)["Message-ID"] == first.message_id != second.message_id


def test_a_message_id_of_the_caller_is_kept() -> None:
    result = composed(message_id="<mine@example.com>")
    assert result.message_id == read(result.mime)["Message-ID"] == "<mine@example.com>"
    result = composed(message_id="<mine@example.com>", headers={"message-id": "<other@example.com>"})
    assert result.message_id == read(result.mime)["Message-ID"] == "<other@example.com>"


@pytest.mark.parametrize(
    "bad", ["mine@example.com", "<mine>", "<a@b> <c@d>", "<a@b\r\nBcc: x>", "<é@b>", "<\ud800@b>"]
)
def test_a_malformed_message_id_is_refused(bad: str) -> None:
    with pytest.raises(BadHeader):
        composed(message_id=bad)
    with pytest.raises(BadHeader):
        composed(headers={"Message-ID": bad})


def test_a_forged_domain_cannot_write_a_header() -> None:
    with pytest.raises(BadHeader):
        composed(domain="site.test>\r\nBcc: <eve@example.com")


def test_headers_take_the_place_of_ours_whatever_their_case() -> None:
    given = {
        "date": "Thu, 01 Jan 2026 00:00:00 +0000",
        "AUTO-SUBMITTED": "no",
        "reply-to": "Jürgen <j@example.com>",
        "list-unsubscribe": "<https://example.com/u>",
    }
    message = read(
        composed(headers=given, reply_to="other@example.com", list_unsubscribe="u@example.com").mime
    )
    for name, value in given.items():
        assert message.get_all(name) == [value]
    assert specs(message, "Reply-To") == ["j@example.com"]


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("From", "sender="),
        ("to", "to="),
        ("CC", "cc="),
        ("Bcc", "bcc="),
        ("Subject", "subject="),
        ("Return-Path", "sender="),
        ("Resent-Bcc", "bcc="),
        ("MIME-Version", "text="),
        ("Content-Type", "attachments="),
        ("content-id", "attachments="),
    ],
)
def test_a_header_with_an_argument_of_its_own_is_refused_naming_it(name: str, argument: str) -> None:
    with pytest.raises(BadHeader, match=argument):
        composed(headers={name: "x@example.com"})


@pytest.mark.parametrize(
    "name", ["", "X A", "X:A", "X-A\r\nBcc", "X-Ä", "X-A ", "X\x7f", "X" * 77, None, b"X-A"]
)
def test_what_is_no_header_name_is_refused(name: object) -> None:
    with pytest.raises(BadHeader):
        composed(headers={name: "x"})


@pytest.mark.parametrize("bad", list("\r\n\t\x00\x0b\x0c\x1c\x1f\x7f\x85\u2028\u2029\ud800\udfff"))
def test_control_characters_are_refused_wherever_a_header_is_made(bad: str) -> None:
    for changes in (
        {"subject": f"a{bad}b"},
        {"headers": {"X-A": f"a{bad}b"}},
        {"headers": {"Reply-To": f"a{bad}b <a@example.com>"}},
        {"list_unsubscribe": f"https://example.com/{bad}"},
        {"to": f"a{bad}b <a@example.com>"},
        {"cc": f"a{bad}b <a@example.com>"},
        {"bcc": f"a@example.com{bad}"},
        {"sender": f"a{bad}b <a@example.com>"},
        {"from_address": f"a{bad}b <a@example.com>"},
        {"reply_to": f"a{bad}b <a@example.com>"},
    ):
        with pytest.raises((BadHeader, BadAddress)):
            composed(**changes)  # type: ignore[arg-type]


def test_a_refusal_does_not_repeat_a_header_that_may_be_secret() -> None:
    with pytest.raises(BadHeader) as refusal:
        composed(subject="your code is 4711\n")
    assert "4711" not in str(refusal.value)
    assert "U+000A" in str(refusal.value)


@pytest.mark.parametrize("headers", [{"X-A": None}, {"X-A": "1", "x-a": "2"}])
def test_a_header_without_a_value_or_twice_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadHeader):
        composed(headers=headers)


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "Hello",
        " leading and trailing ",
        "two  blanks",
        "Grüße",
        "Grüße " * 60,
        "x" * 5000,
        "x" * 800 + " y",
        "word " * 300 + "end",
        "a" + " " * 200 + "b",
        "שלום עולם",
        "e\u0301" * 100,
        "👩‍👩‍👧 " * 30,
        "=?utf-8?q?not_encoded?=",
        "a =?utf-8?b?eA==?= b",
        "a: b",
        "\ufeff",
    ],
)
def test_a_subject_comes_back_as_it_was(subject: str) -> None:
    result = composed(subject=subject, headers={"X-Copy": subject})
    assert_fit_for_the_wire(result)
    message = read_raw(result.mime)
    assert message["Subject"] == message["X-Copy"] == result.subject == subject


def test_a_lazy_subject_is_asked_for_its_text() -> None:
    result = composed(subject=Lazy("Grüße"), text=Lazy("Hallo"), html=Lazy("<p>Hallo</p>"))
    assert result.subject == read(result.mime)["Subject"] == "Grüße"
    assert (body(read(result.mime), "plain"), body(read(result.mime), "html")) == (
        "Hallo\n",
        "<p>Hallo</p>\n",
    )


def test_a_line_with_an_encoded_word_has_at_most_76_characters() -> None:
    result = composed(
        subject="ü" * 300, sender=f"{'ü' * 100} <a@example.com>", reply_to=f"{'ü' * 9} <a@example.com>"
    )
    for line in header_of(result.mime).split(b"\r\n"):
        assert b"=?" not in line or len(line) <= 76


def test_no_encoded_word_splits_a_character() -> None:
    for field in re.findall(rb"=\?utf-8\?b\?[^?]+\?=", composed(subject="a👩" * 100).mime):
        assert "\ufffd" not in str(make_header(decode_header(field.decode())))


def test_a_long_url_in_a_header_is_neither_encoded_nor_broken() -> None:
    url = "https://example.com/" + "x" * 700
    assert f"List-Unsubscribe: <{url}>\r\n".encode() in composed(list_unsubscribe=url).mime
    assert f"X-Url: {url}\r\n".encode() in composed(headers={"X-Url": url}).mime


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ("mailto:u@example.com?subject=stop", "<mailto:u@example.com?subject=stop>"),
        ("https://example.com/u?a=1,2", "<https://example.com/u?a=1,2>"),
        ("u+tag@example.com", "<mailto:u+tag@example.com>"),
        ("List <u@example.com>", "<mailto:u@example.com>"),
        ('"a b"@example.com', "<mailto:%22a%20b%22@example.com>"),
    ],
)
def test_list_unsubscribe_takes_a_url_or_an_address(given_: str, field: str) -> None:
    assert read(composed(list_unsubscribe=given_).mime)["List-Unsubscribe"] == field


@pytest.mark.parametrize(
    "bad", ["nonsense", "javascript:alert(1)", "https://e.com/> <x", "https://e.com/ü", "a@b.test,c@d.test"]
)
def test_list_unsubscribe_refuses_the_rest(bad: str) -> None:
    with pytest.raises(BadMessage):
        composed(list_unsubscribe=bad)


def test_reply_to_takes_one_or_several() -> None:
    assert specs(read(composed(reply_to="a@example.com").mime), "Reply-To") == ["a@example.com"]
    message = read(composed(reply_to=["a@example.com", '"B, C" <b@example.com>']).mime)
    assert specs(message, "Reply-To") == ["a@example.com", "b@example.com"]
    with pytest.raises(BadAddress):
        composed(reply_to="a@example.com, b@example.com")


@pytest.mark.parametrize(
    "name", ["Ann (Sales)", "A; B", "a@b", 'The "A"', "AC\\DC", "Ann:", "=?utf-8?q?x?=", "x" * 900]
)
def test_a_name_that_needs_care_comes_back_as_it_was(name: str) -> None:
    result = composed(to=f"{quoted(name)} <ann@example.com>", sender=f"{quoted(name)} <ann@example.com>")
    assert_fit_for_the_wire(result)
    for field in ("To", "From"):
        # Before 3.13.2 Python itself reads a blank between two encoded words of a name.
        assert [without_blanks(shown) for shown in names(read_raw(result.mime), field)] == [
            without_blanks(name)
        ]
        assert specs(read_raw(result.mime), field) == ["ann@example.com"]


def test_an_address_field_of_the_caller_is_written_as_addresses() -> None:
    message = read(composed(headers={"Sender": "Jürgen <j@example.com>"}).mime)
    assert (message["Sender"].address.display_name, message["Sender"].address.addr_spec) == (
        "Jürgen",
        "j@example.com",
    )
    with pytest.raises(BadAddress):
        composed(headers={"Reply-To": "a@example.com, b@example.com"})


# --- body ----------------------------------------------------------------------------------


def test_text_alone_is_plain() -> None:
    message = read(composed(text="Hello").mime)
    assert message.get_content_type() == "text/plain"
    assert body(message, "plain") == "Hello\n"


@pytest.mark.parametrize("text", [None, ""])
def test_html_alone_is_html(text: str | None) -> None:
    message = read(composed(text=text, html="<p>Hello</p>").mime)
    assert message.get_content_type() == "text/html"
    assert body(message, "html") == "<p>Hello</p>\n"


def test_text_and_html_are_alternatives_the_better_one_last() -> None:
    message = read(composed(text="Hello", html="<p>Hello</p>").mime)
    assert message.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(("text", "html"), [(None, None), ("", ""), (None, "")])
def test_no_body_is_an_empty_text(text: str | None, html: str | None) -> None:
    message = read(composed(text=text, html=html).mime)
    assert message.get_content_type() == "text/plain"
    assert body(message, "plain") in ("", "\n")


def test_an_empty_html_never_hides_the_text() -> None:
    assert read(composed(text="Hello", html="").mime).get_content_type() == "text/plain"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "one\ntwo\r\nthree\rfour",
        "nul \x00 bell \x07 form feed \x0c",
        "x" * 998 + "\nnext",
        "x" * 999 + "\nnext",
        "x" * 100_000,
        "trailing blanks  \n\ttab\t\n\n\n",
        "From here\n.\n..\n--=_\n",
        "=3D =",
        "Grüße, mostly ASCII, with one long line " * 40,
        "שלום \u202e עולם",
        "日本語" * 1000,
        "e\u0301\u2028\u2029\x85\ufeff\ufffe",
        "👩‍👩‍👧" * 200,
    ],
)
def test_a_body_comes_back_as_it_was_but_for_line_ends(text: str) -> None:
    meant = text.replace("\r\n", "\n").replace("\r", "\n")
    meant = meant if meant.endswith("\n") else f"{meant}\n"
    for attachments in ([], [Attachment(io.BytesIO(b"x"), "x.bin")]):
        result = composed(text=text, html=text, attachments=attachments)
        assert_fit_for_the_wire(result)
        message = read_raw(result.mime)
        assert (body(message, "plain"), body(message, "html")) == (meant, meant)


def test_a_body_of_bytes_is_utf8() -> None:
    assert body(read(composed(text="Grüße".encode()).mime), "plain") == "Grüße\n"


@pytest.mark.parametrize("bad", ["half \ud83d", "\udcff", b"\xff"])
def test_half_a_character_in_a_body_is_refused_naming_the_body(bad: object) -> None:
    with pytest.raises(BadMessage, match="html body"):
        composed(html=bad)
    with pytest.raises(BadMessage, match="text body"):
        composed(text=bad)


def test_the_encoding_fits_the_text() -> None:
    def encoding(text: str) -> str:
        return str(read(composed(text=text).mime)["Content-Transfer-Encoding"])

    assert encoding("https://example.com/" + "x" * 300) == "7bit"
    assert encoding("Grüße an alle, die mitlesen " * 9) == "quoted-printable"
    assert encoding("日本語") == "base64"
    assert encoding("naïve façade é " * 9) == "base64"


# --- attachments ---------------------------------------------------------------------------


def files(mime: bytes) -> list[tuple[str | None, str, bytes]]:
    return [
        # get_filename() would take quotes that belong to the name for quoting.
        (
            part["Content-Disposition"].params["filename"],
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in read_raw(mime).walk()
        if part.get_content_disposition()
    ]


def test_an_attachment_from_a_path_takes_its_name_and_type(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG\r\n\x00\n\r")
    for payload in (str(path), path):
        attachment = Attachment(payload)
        assert (attachment.my_filename, attachment.my_payload) == ("photo.png", b"\x89PNG\r\n\x00\n\r")
        assert isinstance(attachment, MIMEBase)
        assert attachment.get_payload(decode=True) == b"\x89PNG\r\n\x00\n\r"
        assert attachment.get_filename() == "photo.png"
        mime = composed(attachments=[attachment]).mime
        assert files(mime) == [("photo.png", "image/png", b"\x89PNG\r\n\x00\n\r")]


def test_the_arguments_of_an_attachment_have_the_order_of_the_stock_one() -> None:
    attachment = Attachment(io.StringIO("Grüße"), b"gr\xfc.txt", "id", "text/x-test", "latin-1")
    assert attachment.my_filename == "grü.txt"
    assert attachment.my_payload == "Grüße".encode("latin-1")
    assert attachment["Content-ID"] == "<id>"
    assert attachment.get_content_type() == "text/x-test"


def test_paths_become_attachments(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"A")
    (tmp_path / "b.pdf").write_bytes(b"B")
    mime = composed(attachments=[str(tmp_path / "a.txt"), tmp_path / "b.pdf"]).mime
    assert files(mime) == [("a.txt", "text/plain", b"A"), ("b.pdf", "application/pdf", b"B")]
    assert files(composed(attachments=str(tmp_path / "a.txt")).mime) == [("a.txt", "text/plain", b"A")]


@pytest.mark.parametrize(
    ("filename", "content_type"),
    [
        ("README", "application/octet-stream"),
        ("x.nobodyknows", "application/octet-stream"),
        ("x.csv.gz", "application/octet-stream"),
        ("letter.eml", "application/octet-stream"),
        ("data:text/html,x", "application/octet-stream"),
        ("x.html", "text/html"),
    ],
)
def test_the_type_is_guessed_from_the_name_and_never_missing(filename: str, content_type: str) -> None:
    mime = composed(attachments=[Attachment(io.BytesIO(b"From: a\n\nb"), filename)]).mime
    assert files(mime) == [(filename, content_type, b"From: a\n\nb")]


def test_a_type_may_have_parameters() -> None:
    attachment = Attachment(io.BytesIO(b"x"), "x.csv", content_type="text/csv; charset=utf-8; header=present")
    part = next(read(composed(attachments=[attachment]).mime).iter_attachments())
    assert (part.get_content_type(), part["Content-Type"].params["header"]) == ("text/csv", "present")


def test_a_missing_file_is_refused_naming_its_path(tmp_path: Path) -> None:
    for make in (Attachment, lambda path: composed(attachments=[path])):
        with pytest.raises(BadAttachment, match=r"gone\.txt"):
            make(str(tmp_path / "gone.txt"))
        with pytest.raises(BadAttachment):
            make(tmp_path)
    with pytest.raises(BadAttachment):
        Attachment("nul\x00.txt", "x")


@pytest.mark.parametrize("payload", [b"bytes", 7, None, io.BytesIO])
def test_what_cannot_be_read_is_refused(payload: object) -> None:
    with pytest.raises(BadAttachment):
        Attachment(payload, "x.bin")
    with pytest.raises(BadAttachment):
        composed(attachments=[payload])


def test_a_type_too_long_for_its_field_is_refused() -> None:
    for content_type in ("text/plain; x=" + "y" * 1000, 'text/plain; x="=?utf-8?q?y?="'):
        with pytest.raises(BadHeader):
            Attachment(io.BytesIO(b"x"), "a.txt", content_type=content_type)


def test_a_file_object_without_a_name_is_refused() -> None:
    for filename in (None, ""):
        with pytest.raises(BadAttachment, match="filename"):
            Attachment(io.BytesIO(b"x"), filename)


@pytest.mark.parametrize("bad", list("\r\n\t\x00\x7f\x85\u2028\ud800"))
def test_control_characters_are_refused_in_every_argument_of_an_attachment(bad: str) -> None:
    with pytest.raises(BadHeader):
        Attachment(io.BytesIO(b"x"), f"a{bad}b.txt")
    with pytest.raises(BadHeader):
        Attachment(io.BytesIO(b"x"), "a.txt", content_id=f"a{bad}b")
    with pytest.raises(BadHeader):
        Attachment(io.BytesIO(b"x"), "a.txt", content_type=f"text/plain{bad}; x=y")


@pytest.mark.parametrize(
    "content_type", ["", "text", "text/", "/plain", "te xt/plain", "text/plain, x", "tüxt/plain"]
)
def test_a_malformed_type_is_refused(content_type: str) -> None:
    with pytest.raises(BadHeader):
        Attachment(io.BytesIO(b"x"), "a.txt", content_type=content_type)


@pytest.mark.parametrize("content_id", ["", "a b", "a>b", "ü", "=?utf-8?q?x?="])
def test_a_malformed_content_id_is_refused(content_id: str) -> None:
    with pytest.raises(BadHeader):
        Attachment(io.BytesIO(b"x"), "a.txt", content_id=content_id)


@pytest.mark.parametrize(
    "filename",
    [
        "plain.txt",
        "two words.txt",
        'quo"te.txt',
        "back\\slash.txt",
        "per%20cent.txt",
        "semi;colon='.txt",
        "Grüße 👩.txt",
        "日本語" * 60 + ".txt",
        "x" * 200 + ".txt",
        "blanks  inside.txt",
        "=?utf-8?q?x?=.txt",
        "*0*.txt",
        "<a.txt>",
        "<>",
    ],
)
def test_a_file_name_comes_back_as_it_was(filename: str) -> None:
    result = composed(attachments=[Attachment(io.BytesIO(b"x"), filename)])
    assert_fit_for_the_wire(result)
    assert [name for name, _, _ in files(result.mime)] == [filename]


def test_a_file_name_beyond_ascii_is_one_piece_while_it_is_short() -> None:
    mime = composed(attachments=[Attachment(io.BytesIO(b"x"), "ü.txt")]).mime
    assert b"Content-Disposition: attachment; filename*=utf-8''%C3%BC.txt\r\n" in mime


def test_blanks_around_a_file_name_are_dropped() -> None:
    assert Attachment(io.BytesIO(b"x"), " a b.txt ").my_filename == "a b.txt"
    with pytest.raises(BadAttachment):
        Attachment(io.BytesIO(b"x"), " \xa0 ")


def test_attachments_are_mixed_with_the_bodies() -> None:
    message = read(
        composed(
            html="<p>Hello</p>", attachments=[Attachment(io.BytesIO(b"x"), f"{n}.bin") for n in "ab"]
        ).mime
    )
    assert message.get_content_type() == "multipart/mixed"
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "multipart/alternative",
        "application/octet-stream",
        "application/octet-stream",
    ]
    assert [part.get_filename() for part in message.iter_attachments()] == ["a.bin", "b.bin"]
    assert [part["MIME-Version"] for part in message.walk()] == ["1.0", None, None, None, None, None]


def test_attachments_alone_come_without_an_empty_body() -> None:
    message = read(composed(text=None, attachments=[Attachment(io.BytesIO(b"x"), "a.bin")]).mime)
    assert [part.get_filename() for part in message.iter_parts()] == ["a.bin"]


def test_a_picture_with_an_id_goes_inline_with_the_html() -> None:
    picture = Attachment(io.BytesIO(b"p"), "p.png", content_id="<photo>")
    message = read(
        composed(
            html='<img src="cid:photo">', attachments=[picture, Attachment(io.BytesIO(b"x"), "x.bin")]
        ).mime
    )
    mixed = list(message.iter_parts())
    related = list(mixed[0].iter_parts())[1]
    assert related.get_content_type() == "multipart/related"
    assert related["Content-Type"].params["type"] == "text/html"  # RFC 2387 section 3.1
    html, shown = related.iter_parts()
    assert html.get_content_type() == "text/html"
    assert (shown["Content-ID"], shown.get_content_disposition()) == ("<photo>", "inline")
    assert (shown.get_filename(), shown.get_content()) == ("p.png", b"p")
    assert mixed[1].get_content_disposition() == "attachment"
    assert picture.get_content_disposition() == "attachment"


def test_a_picture_with_an_id_but_no_html_is_attached() -> None:
    picture = Attachment(io.BytesIO(b"p"), "p.png", content_id="photo")
    message = read(composed(attachments=[picture]).mime)
    assert message.get_content_type() == "multipart/mixed"
    assert next(message.iter_attachments()).get_content_disposition() == "attachment"


def test_a_header_added_to_an_attachment_is_written_and_a_hostile_one_refused() -> None:
    attachment = Attachment(io.BytesIO(b"x"), "x.bin")
    attachment["X-Note"] = "Grüße"
    part = next(read(composed(attachments=[attachment]).mime).iter_attachments())
    assert part["X-Note"] == "Grüße"
    attachment["X-Bad"] = "a\r\nX-Injected: b"
    with pytest.raises(BadHeader):
        composed(attachments=[attachment])


def test_a_message_object_of_the_standard_library_is_attached_as_it_is() -> None:
    part = MIMEApplication(bytes(range(256)), Name="x.bin")
    part.add_header("Content-Disposition", "attachment", filename="x.bin")
    csv = MIMEText("Grüße;1\r\n", "csv", "utf-8")
    csv.add_header("Content-Disposition", "attachment", filename=("utf-8", "", "Grüße.csv"))
    result = composed(attachments=[part, csv])
    assert_fit_for_the_wire(result)
    assert files(result.mime) == [
        ("x.bin", "application/octet-stream", bytes(range(256))),
        ("Grüße.csv", "text/csv", "Grüße;1\r\n".encode()),
    ]
    assert files(composed(attachments=part).mime) == files(composed(attachments=[part]).mime)


def test_a_whole_message_is_attached_as_a_message() -> None:
    inner = EmailMessage()
    inner["From"], inner["Subject"] = "ann@example.com", Header("Grüße").encode()
    inner.set_content("Grüße\nFrom here")
    result = composed(attachments=[inner])
    assert_fit_for_the_wire(result)
    part = next(read_raw(result.mime).iter_attachments())
    assert part.get_content_type() == "message/rfc822"
    assert part.get_content()["Subject"] == "Grüße"
    assert part.get_content().get_content().replace("\r\n", "\n") == "Grüße\nFrom here\n"


def test_a_message_object_that_cannot_be_mailed_is_refused() -> None:
    hostile = MIMEBase("text", "plain")
    hostile["X-A"] = "a\r\nX-Injected: b"
    with pytest.raises(BadHeader):
        composed(attachments=[hostile])
    for payload in ("x" * 2000, "nul\x00", "grüße"):
        raw = MIMEBase("text", "plain")
        raw.set_payload(payload)
        with pytest.raises(BadAttachment):
            composed(attachments=[raw])


def test_25_megabytes_arrive_byte_for_byte() -> None:
    content = os.urandom(25_000_000)
    mime = composed(attachments=[Attachment(io.BytesIO(content), "big.bin")]).mime
    assert files(mime)[0][2] == content


# --- for any input -------------------------------------------------------------------------

anything = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=200),
    st.text(max_size=120),
    st.text(' "\\,;:<>()@=?._\tä日\U0001f469\r\n', max_size=60),
)
one_line = st.one_of(
    st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=150),
    st.text(" \"\\,;:<>()@=?._%'*ä日\U0001f469", max_size=60),
)
local_parts = st.text("abcXYZ019.!#$%&'*+/=?^_`{|}~-üж", min_size=1, max_size=30)
some_specs = st.one_of(
    st.emails(domains=st.sampled_from(["example.com", "a.b.example"])),
    st.builds(
        "{}@{}".format,
        local_parts,
        st.sampled_from(["example.com", "bücher.test", "localhost", "[192.0.2.1]"]),
    ),
    st.builds('"{}"@example.com'.format, st.text("ab <>@,;:().", min_size=1, max_size=20)),
)


mailboxes = st.one_of(
    some_specs,
    st.builds(lambda name, spec: f"{quoted(name)} <{spec}>", one_line, some_specs),
    st.builds("{} <{}>".format, one_line, some_specs),
)


def assert_reads_as_meant(result: Composed, to: list[str], cc: list[str]) -> EmailMessage:
    assert_fit_for_the_wire(result)
    message = read(result.mime)
    for field, given_ in (("To", to), ("Cc", cc)):
        meant = [parse_address(item) for item in given_]
        assert specs(message, field) == [address.spec for address in meant]
        if meant:
            shown = [without_blanks(name) for name in names(message, field)]
            assert shown == [without_blanks(address.name) for address in meant]
    assert {spec for _, spec in result.envelope.recipients} == {
        parse_address(item).spec for item in [*to, *cc]
    }
    return message


@settings(deadline=None, max_examples=300)
@given(
    to=st.lists(mailboxes, min_size=1, max_size=4),
    cc=st.lists(mailboxes, max_size=2),
    subject=one_line,
    value=one_line,
)
def test_addresses_and_texts_of_any_kind_come_back_as_meant(
    to: list[str], cc: list[str], subject: str, value: str
) -> None:
    try:
        result = composed(to=to, cc=cc, subject=subject, headers={"X-Any": value})
    except BadAddress:
        return
    message = assert_reads_as_meant(result, to, cc)
    assert len(message.keys()) == len(OURS) + 3 + bool(cc)
    assert (message["Subject"], message["X-Any"]) == (subject, value)


@settings(deadline=None, max_examples=300)
@given(name=one_line, spec=st.sampled_from(["ann@example.com", '"a b"@localhost']))
def test_any_quoted_name_is_accepted_and_never_becomes_an_address(name: str, spec: str) -> None:
    meant = re.sub(" +", " ", name).strip(" ")
    assert parse_address(f"{quoted(name)} <{spec}>") == Address(meant, spec)
    assert_reads_as_meant(composed(to=f"{quoted(name)} <{spec}>"), [f"{quoted(name)} <{spec}>"], [])


@settings(deadline=None, max_examples=400)
@given(
    to=anything,
    subject=anything,
    text=anything,
    html=anything,
    sender=anything,
    value=anything,
    filename=anything,
    content=st.binary(max_size=300),
)
def test_whatever_is_given_is_either_refused_or_one_message(
    to: str, subject: str, text: str, html: str, sender: str, value: str, filename: str, content: bytes
) -> None:
    for changes in (
        {"subject": subject},
        {"headers": {"X-Any": value}},
        {"to": to},
        {"to": f"{to} <ann@example.com>"},
        {"to": f"{to}@example.com"},
        {"sender": f"{sender} <ann@example.com>"},
        {"text": text, "html": html},
    ):
        try:
            attached = Attachment(io.BytesIO(content), filename)
        except BadMessage:
            attached = Attachment(io.BytesIO(content), "x.bin")
        try:
            result = composed(attachments=[attached], **changes)
        except BadMessage:
            continue
        assert_fit_for_the_wire(result)
        message = read(result.mime)
        assert len(message.keys()) == len(OURS) + 1 + ("headers" in changes) + ("sender" in changes)
        assert len(specs(message, "To")) == len(result.envelope.recipients) == 1
        assert specs(message, "To") == [result.envelope.recipients[0][1]]
        assert [(name, data) for name, _, data in files(result.mime)] == [(attached.my_filename, content)]


@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=2000), html=st.text(min_size=1, max_size=2000))
def test_any_bodies_come_back_as_they_were_but_for_line_ends(text: str, html: str) -> None:
    result = composed(text=text, html=html)
    assert_fit_for_the_wire(result)
    for kind, given_ in (("plain", text), ("html", html)):
        meant = given_.replace("\r\n", "\n").replace("\r", "\n")
        expected = meant if meant.endswith("\n") else f"{meant}\n"
        assert body(read_raw(result.mime), kind) == (expected if given_ else None)


def test_what_looks_like_a_common_address_stands_up_to_the_close_look_too():
    rng = random.Random(1)
    pieces = ["a", "B7", "-", ".", "_", "+", "x" * 31, "xn--", "com", "test", "onion", "1", "@", "de"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(1, 7))) for _ in range(20_000)]
    texts += [f"{local}@{domain}" for local in texts[:100] for domain in ("x.test", "a-b.co.uk", "1.2.de")]
    common = [text for text in texts if compose_module._COMMON_SPEC.fullmatch(text)]
    assert len(common) > 100
    for text in common:
        assert compose_module._validated_spec(text, text)

"""What the DNS says of a domain that mail is sent from, asked of a name server of the tests' own."""

from __future__ import annotations

import pytest
from mailqueue import check, sender_domain
from mailqueue.findings import NOTE, OK, PROBLEM, Finding
from mailqueue.sender_domain import Dkim, Records, Unreachable, examine_address, examine_domain
from support.dns_server import GOOD, NameServer
from support.smtp_server import free_port

Table = dict[tuple[str, str], list[str]]


def looked_at(records: Table, dkim: Dkim | None = None, domain: str = "site.test") -> list[Finding]:
    with NameServer(records) as server:
        return examine_domain(Records(server.address), domain, [dkim] if dkim else [])


def problems(found: list[Finding]) -> list[str]:
    assert all(one.remedy for one in found if one.level == PROBLEM)
    return [one.said for one in found if one.level == PROBLEM]


def test_a_domain_that_is_set_up_well_has_no_problem() -> None:
    found = looked_at(GOOD, Dkim("s1", "MIIBkey=="))
    assert {one.level for one in found} == {OK}
    assert "include:provider.test" in str(found), "pieces of a record are put together"


@pytest.mark.parametrize(
    ("name", "kind", "record", "said"),
    [
        ("site.test", "MX", None, "neither an MX record nor an address"),
        ("site.test", "TXT", None, "no SPF record"),
        ("site.test", "TXT", ['"v=spf1 -all"', '"v=spf1 mx -all"'], "2 SPF records"),
        ("site.test", "TXT", ['"v=spf1 +all"'], "lets everybody send"),
        ("site.test", "TXT", ['"v=spf10 -all"'], "no SPF record"),
        ("s1._domainkey.site.test", "TXT", None, "No DKIM key is published at s1._domainkey.site.test"),
        ("s1._domainkey.site.test", "TXT", ['"v=DKIM1; p="'], "is revoked"),
        ("s1._domainkey.site.test", "TXT", ['"v=DKIM1; p=other"'], "is not the one that mail is signed with"),
        ("_dmarc.site.test", "TXT", None, "no DMARC record"),
        ("_dmarc.site.test", "TXT", ['"v=DMARC2; p=none"'], "no DMARC record"),
    ],
)
def test_what_is_wrong_is_named_alone_and_with_what_to_do(
    name: str, kind: str, record: list[str] | None, said: str
) -> None:
    records = {place: value for place, value in GOOD.items() if place != (name, kind)}
    if record:
        records[name, kind] = record
    (problem,) = problems(looked_at(records, Dkim("s1", "MIIB key==")))
    assert said in problem


def test_the_dmarc_record_of_the_domain_above_counts_for_one_below() -> None:
    below: Table = {
        **GOOD,
        ("news.site.test", "A"): ["192.0.2.1"],
        ("news.site.test", "TXT"): ['"v=spf1 -all"'],
    }
    found = looked_at(below, domain="news.site.test")
    assert problems(found) == []
    assert "DMARC: site.test asks for p=quarantine." in [one.said for one in found]
    below["_dmarc.site.test", "TXT"] = ['"v=DMARC1; p=reject; aspf=s"']
    notes = [one.said for one in looked_at(below, domain="news.site.test") if one.level == NOTE]
    assert any("strict alignment (aspf)" in note for note in notes)


def test_without_a_selector_the_key_is_not_looked_for_and_that_is_said() -> None:
    with NameServer() as server:
        found = examine_domain(Records(server.address), "site.test")
        assert not [name for name, _ in server.asked if "_domainkey" in name]
    assert [one.level for one in found if "DKIM" in one.said] == [NOTE]


def test_a_key_whose_place_is_no_name_is_not_published() -> None:
    selector = ".".join(["s" * 63] * 3) + "." + "s" * 50
    (problem,) = problems(looked_at(GOOD, Dkim(selector)))
    assert problem.startswith("No DKIM key is published at sss")


def test_a_key_that_cannot_be_looked_up_hides_nothing_else() -> None:
    with NameServer(broken="s1._domainkey.site.test") as server:
        found = examine_domain(Records(server.address), "site.test", [Dkim("s1")])
    assert [one.level for one in found] == [OK, OK, NOTE, OK, OK]
    assert found[2].said.startswith("A DKIM key could not be looked up: no name server answers for s1.")


def test_an_address_has_a_reverse_name_or_that_is_noted() -> None:
    with NameServer() as server:
        records = Records(server.address)
        assert examine_address(records, "mail.site.test", "8.8.8.8").level == OK
        without = examine_address(records, "mail.site.test", "8.8.4.4")
    assert (without.level, bool(without.remedy)) == (NOTE, True)


def test_where_no_name_server_answers_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_domain, "PATIENCE", 0.2)
    with pytest.raises(Unreachable, match="no name server answers for site"):
        examine_domain(Records(f"127.0.0.1:{free_port()}"), "site.test")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("::1", ("::1", 53)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_a_name_server_is_an_address_and_may_have_a_port(given: str, read: tuple[str, int]) -> None:
    assert sender_domain.address_and_port(given) == read


@pytest.mark.parametrize(
    "given",
    ["", "bogus", "dns.x.test", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "192.0.2.1:x", "[::1", ":53"],
)
def test_what_is_no_name_server_is_refused_before_anything_is_looked_at(given: str) -> None:
    with pytest.raises(sender_domain.BadNameserver, match="expected an IP address"):
        check.Wanted(given)


@pytest.mark.parametrize(
    "given",
    ["", "../x", "x.", ".x", "a..b", "a b", "-a", "a-", "a@b", "s1\n", "ü", "s" * 64, "s." * 126 + "s2s"],
)
def test_what_is_no_selector_is_refused_before_anything_is_looked_at(given: str) -> None:
    with pytest.raises(check.BadSelector, match="is no selector"):
        check.Wanted(selector=given)


@pytest.mark.parametrize("given", ["s1", "2026", "a-b", "s1.mail", "my_key", "s" * 63])
def test_a_selector_is_one_name_or_several_parted_by_dots(given: str) -> None:
    assert check.Wanted(selector=given).selector == given

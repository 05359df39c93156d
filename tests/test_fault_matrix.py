"""Every cell of the fault matrix over real SMTP: who gets the mail, at what cost, and what follows."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from fault_matrix import (
    FAULTS,
    IN_TURN,
    IN_TURN_FAULTS,
    IN_TURN_STAGES,
    REPLIES,
    ROWS,
    SITUATIONS,
    STAGES,
)
from mailqueue import QueuedMailer, breaker, words
from mailqueue.classify import RULES
from mailqueue.transports.base import Transport
from support.certificates import Certificates
from support.mail import Clock, make_mail, open_causes, rows, to_server
from support.smtp_cells import AT_ONCE, GROUPS, IF_IT_LASTS, Row, Situation, covered_by, rows_of
from support.smtp_client import PATIENT
from support.smtp_fault_page import page
from support.smtp_faults import Fault, Reply, Step, nth
from support.smtp_server import ScriptedServer
from support.smtp_shapes import fault_named
from support.smtp_situations import LOGIN, SPOILT, Spoilt

PAGE = Path(__file__).parent.parent / "docs" / "fault-matrix.md"
KINDS = {
    "": "",
    "C": words.CONFIGURATION,
    "T": words.TRANSIENT,
    "R": words.RECIPIENT,
    "M": words.MESSAGE,
    "D": words.IN_DOUBT,
}
A = ("one@a.test", "two@a.test", "three@a.test")
B = "b@b.test"
EARLIER = "w@earlier.test"
WAITING = {
    "waits": words.QUEUED,
    "again": words.DEFERRED,
    "in doubt": words.IN_DOUBT,
    "failed": words.FAILED,
}
LATER = 3600.0  # seconds in which everything that waits has become due
MET = {"RCPT 1": A[:1], "RCPT 2": A[1:2], "RCPT 3": A[2:]}
PLACES = {"RCPT 1": 1, "RCPT 2": 2, "RCPT 3": 3, "kept MAIL": 2}
UNTIL_REPAIRED = ("banner", "EHLO", "STARTTLS", "TLS", "AUTH", "QUIT")
TIMEOUTS = {
    "banner": "greeting", "ehlo": "greeting", "starttls": "greeting", "tls": "connect", "auth": "greeting",
    "mail": "command", "rcpt": "command", "data": "data", "dot": "dot", "rset": "command", "quit": "quit",
}  # fmt: skip
CELLS = [(stage, fault, False) for stage in STAGES for fault in FAULTS]
CELLS += [(stage, fault, True) for stage in IN_TURN_STAGES for fault in IN_TURN_FAULTS]


# --- the data ------------------------------------------------------------------------------
@pytest.mark.parametrize("stage", STAGES)
def test_each_fault_has_exactly_one_row_at_each_stage(stage: str) -> None:
    found = {fault: len(rows_of(ROWS, stage, fault)) for fault in FAULTS}
    assert {fault: count for fault, count in found.items() if count != 1} == {}


def test_each_row_speaks_of_known_faults_and_decides_somewhere() -> None:
    for row in ROWS:
        assert set(row.stage_names) <= set(STAGES) and set(row.fault_names) <= {*FAULTS, *GROUPS}
        idle = [token for token in row.fault_names if not covered_by(row, token, ROWS, FAULTS)]
        assert not idle, f"{row} never decides for {idle}"


def test_each_row_without_pipelining_is_tried_and_says_something_else() -> None:
    for row in IN_TURN:
        assert set(row.stage_names) <= set(IN_TURN_STAGES) and set(row.fault_names) <= set(IN_TURN_FAULTS)
        for stage, fault in itertools.product(row.stage_names, row.fault_names):
            (other,) = rows_of(ROWS, stage, fault)
            assert (other.rule, other.fate) != (row.rule, row.fate)


@pytest.mark.parametrize("row", [*ROWS, *IN_TURN, *SITUATIONS])
def test_the_kind_of_each_row_is_that_of_its_rule_and_fits_what_follows(row: Row | Situation) -> None:
    assert KINDS[row.kind] == (RULES[row.rule].kind if row.rule else "")
    assert row.fate.dead == (RULES[row.rule].suppress if row.rule else False)
    follows = {"": {"sent"}, "C": {"waits"}, "T": {"waits", "again"}, "D": {"in doubt"}}
    assert row.fate.met in follows.get(row.kind, {"failed"})


def test_the_stages_are_those_of_the_server_and_the_faults_are_many() -> None:
    assert {script_name(stage) for stage in STAGES} == set(TIMEOUTS)
    assert len(set(FAULTS)) == len(FAULTS) > 70 and {reply[0] for reply in REPLIES} == {"4", "5"}
    assert [situation.what for situation in SITUATIONS] == list(SPOILT)


def test_the_published_page_is_made_of_the_data() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), (
        "run: python tests/fault_matrix.py > docs/fault-matrix.md"
    )


# --- a site, before and after the fault ----------------------------------------------------
def script_name(stage: str) -> str:
    """The name the scripted server has for a stage of the matrix."""
    return {"kept MAIL": "mail", "every RCPT": "rcpt"}.get(stage, stage.split(" ")[0].lower())


@dataclass
class Site:
    """A site that has sent a mail before, its server, its clock."""

    mail: QueuedMailer
    server: ScriptedServer
    clock: Clock
    repairs: dict[str, Any] = field(default_factory=dict)  # attributes of the server

    def spoil(self, **changes: Any) -> None:
        self.repairs = {name: getattr(self.server, name) for name in changes}
        vars(self.server).update(changes)

    def repair(self) -> None:
        self.server.script.clear()
        vars(self.server).update(self.repairs)

    def queue_both(self, recipients: Collection[str] = A) -> None:
        self.mail.send(list(recipients), subject="A", body="long " * 1000)
        self.mail.send(B, subject="B")

    def drain(self, later: float = 0.0) -> None:
        self.clock.advance(later)
        self.mail.process_queue()

    def taken(self) -> Counter[str]:
        """How often the server took a mail for each recipient."""
        return Counter(one for message in self.server.messages for one in message.rcpt_tos)

    def ids_taken(self, recipients: Collection[str]) -> set[str]:
        """The Message-IDs of what the server took for these."""
        messages = [message for message in self.server.messages if set(message.rcpt_tos) & set(recipients)]
        return {str(message.parsed()["Message-ID"]) for message in messages}

    def recipients(self) -> dict[str, tuple[str, int]]:
        """A's recipients: status and attempts."""
        found = [row for row in rows(self.mail, "recipient") if row["message_ref"] == self._id_of_a()]
        return {row["address"]: (row["status"], row["attempts"]) for row in found}

    def causes(self) -> dict[str, set[tuple[str, str]]]:
        """A's recipients whom an attempt failed for: kinds and rules."""
        addresses = {row["id"]: row["address"] for row in rows(self.mail, "recipient")}
        causes: dict[str, set[tuple[str, str]]] = {}
        for row in rows(self.mail, "attempt"):
            if row["message_ref"] == self._id_of_a() and row["cause"]:
                address = addresses[row["recipient_ref"]]
                causes.setdefault(address, set()).add((row["failure_kind"], row["cause"]))
        return causes

    def _id_of_a(self) -> int:
        return next(int(row["id"]) for row in rows(self.mail, "message") if row["subject"] == "A")

    def paused(self) -> bool:
        return rows(self.mail, "transport")[0]["paused_on"] is not None


@pytest.fixture(autouse=True)
def quick_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are slow on purpose, because they cover a password; a thousand cells need no such care."""
    monkeypatch.setattr(breaker, "fingerprint", lambda settings, salt: str(hash((repr(settings), salt))))


@contextlib.contextmanager
def site(folder: Path, server: ScriptedServer, **settings: Any) -> Iterator[Site]:
    """A site whose way out has worked."""
    clock = Clock()
    with server:
        mail = make_mail(folder, clock=clock, **settings)
        to_server(mail, server)
        mail.db.executesql("PRAGMA synchronous=OFF")  # a thousand cells need no disk
        made = Site(mail, server, clock)
        mail.send(EARLIER)
        made.drain()
        assert len(server.messages) == 1 and not made.paused() and not open_causes(mail)
        yield made
        mail.db.close()


def wait_briefly(mail: QueuedMailer, *stages: str) -> None:
    """Have the mailer wait for a short time at these stages, and for a long one at all others."""
    make = mail.site.make_transport

    def make_brief() -> Transport:
        transport: Any = make()
        transport._timeouts = replace(PATIENT, **{TIMEOUTS[stage]: 0.3 for stage in stages})
        return transport

    mail.site.make_transport = make_brief


# --- what must follow ----------------------------------------------------------------------
def check(at: Site, row: Row | Situation, met: Collection[str], *, doubly: bool = False) -> None:
    """Drain and compare with what must follow; repair, drain, and compare again.

    Args:
        met: the recipients of A whom the fault meets.
        doubly: whether the server took A without saying so.
    """
    at.drain()
    follows_at_once(at, row, met, doubly)
    if row.fate.entry == IF_IT_LASTS:
        is_told_if_it_lasts(at, row)
    at.repair()
    at.drain(LATER)
    follows_after_the_repair(at, row, met, doubly)


def follows_at_once(at: Site, row: Row | Situation, met: Collection[str], doubly: bool) -> None:
    fate = row.fate
    spared = fate.met == "sent" or (fate.met == "again" and not fate.attempts)
    for address, now in at.recipients().items():
        hit = address in met and not spared
        assert (address, now) == (address, (WAITING[fate.met], fate.attempts) if hit else (words.SENT, 1))
        assert (address, at.taken()[address]) == (address, int(doubly) if hit else 1)
    cause = {(KINDS[row.kind], row.rule)}
    assert at.causes() == (dict.fromkeys(met, cause) if row.kind and fate.attempts else {})
    assert at.paused() == fate.paused
    assert open_causes(at.mail) == ([row.rule] if fate.entry == AT_ONCE else [])
    assert at.taken()[B] == (0 if fate.paused else 1), "the next message goes out, or waits for the repair"


def is_told_if_it_lasts(at: Site, row: Row | Situation) -> None:
    for told in ([], [row.rule]):
        at.drain(LATER)
        assert open_causes(at.mail) == told
    assert set(at.recipients().values()) == {(words.QUEUED, 0)}


def follows_after_the_repair(at: Site, row: Row | Situation, met: Collection[str], doubly: bool) -> None:
    fate = row.fate
    for address, now in at.recipients().items():
        hit = address in met
        lost = hit and fate.met == "failed"
        spent = fate.attempts if hit and fate.met in ("again", "in doubt") else 0
        assert (address, now) == (address, (words.FAILED, 1) if lost else (words.SENT, spent + 1))
        assert (address, at.taken()[address]) == (address, 0 if lost else 2 if hit and doubly else 1)
    assert at.taken()[B] == 1
    assert not at.paused() and not open_causes(at.mail)
    assert len(at.ids_taken(at.recipients())) <= 1, "what may arrive twice has one Message-ID"


# --- the cells -----------------------------------------------------------------------------
def way_to(stage: str, certificates: Certificates) -> tuple[ScriptedServer, dict[str, Any]]:
    """A server on which a stage is reached, and the settings for it."""
    if stage in ("STARTTLS", "TLS"):
        server = ScriptedServer(tls="starttls", certificate=certificates.server)
        return server, {"tls": True, "ca_file": str(certificates.ca_file)}
    if stage == "AUTH":
        return ScriptedServer(auth=LOGIN, mechanisms=("PLAIN",)), {"login": "site:secret"}
    return ScriptedServer(), {}


def script_for(stage: str, fault: Fault) -> Mapping[str, Step]:
    if stage in UNTIL_REPAIRED:
        return {script_name(stage): fault}
    if stage == "every RCPT":
        return {"rcpt": dict.fromkeys(A, fault)}
    once = {script_name(stage): nth(fault, PLACES.get(stage, 1))}
    busy = dict.fromkeys(A, Reply(450, "4.2.0 busy"))
    return {**once, "rcpt": busy} if stage == "RSET" else once


def row_of(stage: str, fault: str, in_turn: bool) -> Row:
    found = rows_of(IN_TURN, stage, fault) if in_turn else []
    return (found or rows_of(ROWS, stage, fault))[0]


def variants(stage: str, fault: str, in_turn: bool) -> list[bool]:
    """Whether the server takes the message without saying so: where there is doubt, both."""
    return [False, True] if row_of(stage, fault, in_turn).kind == "D" else [False]


@pytest.mark.parametrize(
    ("stage", "fault", "in_turn", "doubly"),
    [
        pytest.param(*cell, doubly, id=f"{cell[0]}: {cell[1]}{', in turn' * cell[2]}{', taken' * doubly}")
        for cell in CELLS
        for doubly in variants(*cell)
    ],
)
def test_a_fault_has_the_consequences_that_the_matrix_says(
    stage: str, fault: str, in_turn: bool, doubly: bool, tmp_path: Path, certificates: Certificates
) -> None:
    row, name = row_of(stage, fault, in_turn), script_name(stage)
    server, settings = way_to(stage, certificates)
    if in_turn:
        server.extensions = tuple(set(server.extensions) - {"PIPELINING"})
    with site(tmp_path, server, **settings) as at:
        briefly = fault == "hangs" or (fault == "drips" and name != "tls")
        wait_briefly(at.mail, *[name] * briefly)
        if stage == "kept MAIL":
            at.mail.send(EARLIER)
        reached = server.reached[name]
        server.script.update(script_for(stage, fault_named(fault, name, taken=doubly)))
        at.queue_both()
        check(at, row, A if row.fate.all_met else MET.get(stage, A), doubly=doubly)
        assert server.reached[name] > reached
        assert not (in_turn and server.pipelined)


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.what)
def test_a_situation_has_the_consequences_that_the_matrix_says(
    situation: Situation, tmp_path: Path, certificates: Certificates
) -> None:
    spoilt: Spoilt = SPOILT[situation.what]
    server = ScriptedServer(tls=spoilt.tls, certificate=certificates.server, auth=spoilt.auth)
    with site(tmp_path, server, **spoilt.settings(certificates)) as at:
        wait_briefly(at.mail, *spoilt.brief)
        server.script.update(spoilt.script)
        at.spoil(**spoilt.changes_with(certificates))
        at.queue_both(spoilt.recipients)
        check(at, situation, spoilt.recipients)

"""What the mail server saw, against what the database says: lost, duplicate, in doubt, miscounted."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mailqueue import words

from .smtp_faults import Fault, Reply
from .smtp_server import ScriptedServer
from .smtp_session import Session

# Who the mail goes to, again and again. Their names tell what the server does to them.
PATTERN = (("ann",), ("bob", "dead"), ("grey",), ("carl",), ("busy",), ("dora",))
DEAD = Reply(550, "5.1.1 no such user")
GREY = Reply(450, "4.2.1 come back later")
BUSY = Reply(451, "4.3.0 try again")

_ADDRESS = re.compile("<(.*)>")


def addresses(number: int) -> list[str]:
    """The recipients of message `number`."""
    return [f"{name}{number}@x.test" for name in PATTERN[number % len(PATTERN)]]


def expected_end(address: str) -> str:
    """How it has to end for this recipient."""
    return words.FAILED if address.startswith("dead") else words.SENT


@dataclass
class Dialogue:
    """One MAIL command and what followed.

    Attributes:
        answers: address -> the server's code for its RCPT.
        text: the server's code for the whole text; None: the final dot never came.
        over: whether the client went on to something that shows that it knows the answers. The MAIL
            command of the next message does not, where it may have come with the final dot of this one.
        announced: whether it may have come so, and its text never did.
    """

    answers: dict[str, int] = field(default_factory=dict)
    text: int | None = None
    over: bool = False
    announced: bool = False

    def taken(self, address: str) -> bool:
        """Whether the server has the message for this recipient."""
        return self.text == 250 and self.answers.get(address) == 250

    def refused(self, address: str) -> bool:
        """Whether the server said no to this recipient, or to the text."""
        return self.answers.get(address, 0) >= 400 or (self.dotted(address) and not self.taken(address))

    def dotted(self, address: str) -> bool:
        """Whether the server got the whole text for this recipient."""
        return self.text is not None and self.answers.get(address) == 250


class Ledger:
    """Scripts a server, and keeps account of every dialogue with it.

    Attributes:
        in_doubt_before: the message that was in doubt before anybody was struck.
        struck_goes_on: whether new connections are those of the worker that was struck.
    """

    def __init__(self) -> None:
        self.in_doubt_before = 0
        self.dialogues: list[Dialogue] = []
        self._current: dict[int, Dialogue] = {}
        self._dotted: dict[int, Dialogue] = {}  # the one before, whose answer may be on its way
        self._put_off: set[str] = set()
        self.struck_goes_on = False
        self._known: set[int] = set()
        self._late: set[int] = set()
        self._guard = threading.Lock()

    def script(self, server: ScriptedServer) -> None:
        """Have a server defer some recipients once and refuse others for good."""
        server.script.update(
            mail=self._mail, rcpt=self._rcpt, dot=self._dot, rset=self._rset, quit=self._quit
        )

    def cut(self, connections: int) -> None:
        """The worker that opened the connections so far was struck: what it hears now is too late."""
        self._known.update(range(1, connections + 1))
        self._late.update(self._known)

    def _mail(self, session: Session, line: str) -> Fault | None:
        before = self._current.get(session.number)
        announced = before is not None and before.text is not None
        if before and announced:
            self._dotted[session.number] = before
        else:
            self._quit(session, line)
        with self._guard:
            if session.number not in self._known and self.struck_goes_on:
                self._late.add(session.number)
            self._known.add(session.number)
            self.dialogues.append(Dialogue(announced=announced))
            self._current[session.number] = self.dialogues[-1]
        return None

    def _quit(self, session: Session, line: str) -> Fault | None:
        self._rset(session, line)
        if session.number not in self._late and session.number in self._current:
            self._current[session.number].over = True
        return None

    def _rset(self, session: Session, _line: str) -> Fault | None:
        """The client knows the answers of this message, and of the one before for certain."""
        before = self._dotted.pop(session.number, None)
        if before and session.number not in self._late:
            before.over = True
        return None

    def _rcpt(self, session: Session, line: str) -> Fault | None:
        found = _ADDRESS.search(line)
        assert found, line
        address = found[1]
        fault = DEAD if address.startswith("dead") else self._once("grey", [address], GREY)
        self._current[session.number].answers[address] = fault.code if fault else 250
        return fault

    def _dot(self, session: Session, line: str) -> Fault | None:
        self._rset(session, line)
        fault = self._once("busy", session.rcpt_tos, BUSY)
        self._current[session.number].text = fault.code if fault else 250
        self._current[session.number].announced = False
        return fault

    def _once(self, name: str, recipients: list[str], fault: Reply) -> Reply | None:
        with self._guard:
            new = [one for one in recipients if one.startswith(name) and one not in self._put_off]
            self._put_off.update(new)
        return fault if new else None


@dataclass
class Account:
    """What came of the messages of one case.

    Attributes:
        lost: recipients who should have the message and do not.
        duplicates: recipients who have it more often than doubt explains.
        repeated: recipients who have it twice because it was in doubt.
        miscounted: recipients whose attempts are not what the server saw.
        in_doubt: the ids of the messages that were ever in doubt.
        left: what else is not as it must be, in words.
    """

    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    miscounted: list[str] = field(default_factory=list)
    in_doubt: set[int] = field(default_factory=set)
    left: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """What is wrong, in words; nothing if nothing is."""
        named = {"lost": self.lost, "duplicate": self.duplicates, "miscounted": self.miscounted}
        return [f"{name}: {', '.join(found)}" for name, found in named.items() if found] + self.left


def account(ledger: Ledger, tables: dict[str, list[dict[str, Any]]], *, ended: bool) -> Account:
    """Hold the rows of the tables against what the server saw.

    Args:
        tables: the rows by table: message, recipient, attempt, worker.
        ended: whether every message must have come to its end by now.
    """
    found = Account()
    attempts: dict[int, Counter[str]] = {row["id"]: Counter() for row in tables["recipient"]}
    for row in tables["attempt"]:
        if row["outcome"] == words.PASSED_ON:  # by a server that is not accounted for here
            continue
        attempts[row["recipient_ref"]][row["outcome"]] += 1
        if row["outcome"] == words.IN_DOUBT:
            found.in_doubt.add(row["message_ref"])
    for row in tables["recipient"]:
        _judge_recipient(found, row, attempts[row["id"]], ledger.dialogues, ended)
    _judge_messages(found, tables)
    return found


def _judge_recipient(
    found: Account, row: dict[str, Any], rows: Counter[str], dialogues: list[Dialogue], ended: bool
) -> None:
    address = row["address"]
    mine = [dialogue for dialogue in dialogues if address in dialogue.answers]
    taken = sum(dialogue.taken(address) for dialogue in mine)
    if row["status"] == words.SENT and not taken:
        found.lost.append(f"{address} is sent, and was not")
    if ended and row["status"] != expected_end(address):
        found.lost.append(f"{address} is {row['status']}")
    if taken > 1 + rows[words.IN_DOUBT]:
        found.duplicates.append(f"{address} {taken} times")
    elif taken > 1:
        found.repeated.append(address)
    found.miscounted += [f"{address}: {fault}" for fault in _faults_of_counting(row, rows, mine)]


def _faults_of_counting(row: dict[str, Any], rows: Counter[str], mine: list[Dialogue]) -> Iterator[str]:
    """What a recipient's attempts and the server's dialogues tell differently.

    A dialogue whose text came whole, or that the client went on from, counts once. One that was cut
    off before counts if the client knew a refusal already, or had noted that the dot would follow, or
    was stopped for so long that its time was over.
    """
    address = row["address"]
    taken = sum(dialogue.taken(address) for dialogue in mine)
    certain = sum(dialogue.over or dialogue.dotted(address) for dialogue in mine)
    refusals = sum(dialogue.refused(address) for dialogue in mine)
    broken = sum(not dialogue.over and not dialogue.dotted(address) for dialogue in mine)
    doubtful = sum(not dialogue.over and dialogue.answers[address] == 250 for dialogue in mine)
    if row["attempts"] != sum(rows.values()):
        yield f"attempts {row['attempts']}, but rows {dict(rows)}"
    if not certain <= row["attempts"] <= len(mine):
        yield f"attempts {row['attempts']}, seen {certain} to {len(mine)}"
    if rows[words.SENT] > 1 or not rows[words.SENT] <= taken <= rows[words.SENT] + rows[words.IN_DOUBT]:
        yield f"rows {dict(rows)}, taken {taken} times"
    if rows[words.FAILED] + rows[words.DEFERRED] > refusals + broken:
        yield f"rows {dict(rows)}, refused {refusals} times, broken off {broken} times"
    if rows[words.IN_DOUBT] > doubtful:
        yield f"rows {dict(rows)}, cut off {doubtful} times"


def _judge_messages(found: Account, tables: dict[str, list[dict[str, Any]]]) -> None:
    for message in tables["message"]:
        recipients = [row for row in tables["recipient"] if row["message_ref"] == message["id"]]
        if message["status"] == words.SENDING or message["claim"]:
            found.left.append(f"message {message['id']} is still claimed")
        elif message["status"] != words.summarize(row["status"] for row in recipients):
            found.left.append(f"message {message['id']} is {message['status']}, its recipients are not")
        attempts = [row["attempts"] for row in recipients]
        if not max(attempts) <= message["attempts"] <= sum(attempts):
            found.miscounted.append(f"message {message['id']}: {message['attempts']}, recipients {attempts}")
    found.left += [f"worker {row['id']} is still there" for row in tables["worker"]]

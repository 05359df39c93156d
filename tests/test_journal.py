"""The record of stages: written before it matters, readable after a kill, locked while its owner lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mailqueue
import pytest
from mailqueue import journal, words
from mailqueue.journal import Journal
from mailqueue.outbox import Evidence, Finished, Outcome
from support.database_faults import SmallDisk, small_disk

WORKER = """
import resource, sys
sys.path.insert(0, {apps!r})
from mailqueue.journal import Journal
mine = Journal(sys.argv[1])
"""
START = WORKER.format(apps=str(Path(mailqueue.__file__).parent.parent))


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Journal]:
    mine = Journal(str(tmp_path / "journals"))
    yield mine
    mine.abandon()


def result(message_id: int = 1, token: str = "t", *, reply: str = "queued as 7") -> Finished:
    taken = Outcome(11, words.SENT, code=250, enhanced="2.0.0", reply=reply)
    refused = Outcome(12, words.DEFERRED, due=99.5, failure_kind=words.TRANSIENT, cause="busy")
    return Finished(message_id, token, "smtp://s:25", 1.25, 0.5, (taken, refused))


def damage(mine: Journal, line: bytes) -> None:
    """Put a line between those that are there and those that follow."""
    with open(mine.path, "ab") as file:
        file.write(line + b"\n")


def test_what_was_started_and_not_answered_is_told(mine: Journal) -> None:
    mine.dot(1, [11, 12])
    mine.dot(2, [21])
    mine.answered(result(1))
    assert journal.read(mine.path) == Evidence({2: [21]}, [result(1)])


def test_an_answer_comes_back_as_it_was_whatever_the_server_said(mine: Journal) -> None:
    strange = result(reply='line\n break, "quotes", nul \0, 😀, alone \ud800')
    mine.answered(strange)
    evidence = journal.read(mine.path)
    assert evidence and evidence.answered == [strange]


@pytest.mark.parametrize(
    "unusual",
    [
        {"due": 99.5},
        {"counts": False},
        {"stage": words.RCPT},
        {"failure_kind": words.RECIPIENT},
        {"cause": "busy"},
        {"code": None},
        {"enhanced": None},
        {"enhanced": ""},
        {"reply": '"}]'},
        {"provider_id": "p-1"},
    ],
)
def test_nothing_of_an_outcome_is_lost_however_unusual(mine: Journal, unusual: dict[str, Any]) -> None:
    outcome = Outcome(11, words.SENT, code=250, enhanced="2.0.0", reply="queued")._replace(**unusual)
    told = result()._replace(outcomes=(outcome,), transport='plugin "x"')
    mine.answered(told)
    evidence = journal.read(mine.path)
    assert evidence and evidence.answered == [told]


def test_nothing_started_is_complete_evidence(mine: Journal) -> None:
    assert journal.read(mine.path) == Evidence({}, [])


def test_what_was_surely_not_sent_is_no_doubt(mine: Journal) -> None:
    mine.dot(1, [11])
    mine.released(1)
    assert journal.read(mine.path) == Evidence({}, [])


def test_what_a_worker_has_in_hand_when_it_ends_in_good_order_did_not_kill_it(mine: Journal) -> None:
    mine.begun(1)
    mine.begun(2)
    mine.dot(2, [21])
    assert journal.read(mine.path) == Evidence({2: [21]}, [], begun=frozenset({1, 2}))
    mine.ended()
    assert journal.read(mine.path) == Evidence({2: [21]}, [])


def test_two_dots_of_one_message_put_the_recipients_of_both_in_doubt(mine: Journal) -> None:
    mine.dot(1, [11])
    mine.dot(1, [12])
    assert journal.read(mine.path) == Evidence({1: [11, 12]}, [])


def test_a_second_hand_over_of_one_message_is_told_apart_from_the_first(mine: Journal) -> None:
    mine.dot(1, [11])
    mine.answered(result(1, "first"))
    mine.dot(1, [13])
    assert journal.read(mine.path) == Evidence({1: [13]}, [result(1, "first")])
    mine.answered(result(1, "second"))
    assert journal.read(mine.path) == Evidence({}, [result(1, "first"), result(1, "second")])


def test_a_line_cut_off_by_the_kill_counts_for_nothing(mine: Journal) -> None:
    mine.dot(1, [11])
    mine.answered(result(1))
    whole = Path(mine.path).read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        Path(mine.path).write_bytes(whole[:length])
        assert journal.read(mine.path) == Evidence({1: [11]}, [])


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"\xff\x00",
        b"7",
        b"null",
        b"[]",
        b"{}",
        b'"dot"',
        b'{"dot": "x", "recipients": []}',
        b'{"dot": null, "recipients": []}',
        b'{"dot": 5, "recipients": 7}',
        b'{"dot": 5}',
        b'{"answered": []}',
        b'{"answered": {"outcomes": [{}]}}',
        b'{"released": [1]}',
    ],
)
def test_a_damaged_line_leaves_the_others_standing_and_says_that_something_is_missing(
    mine: Journal, line: bytes
) -> None:
    mine.answered(result(1))
    damage(mine, line)
    mine.dot(2, [21])
    evidence = journal.read(mine.path)
    assert evidence and not evidence.complete
    assert evidence.answered == [result(1)]
    assert evidence.started[2] == [21]


def test_a_journal_out_of_reach_is_no_evidence(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.journal", tmp_path):  # a folder cannot be read
        assert journal.read(str(path)) is None
        assert not journal.owner_is_gone(str(path))
    assert not (tmp_path / "gone.journal").exists()


def test_what_is_committed_is_forgotten_when_the_file_grows(
    mine: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LARGEST", 2000)
    for message_id in range(50):
        mine.dot(message_id, [11])
        mine.answered(result(message_id))
        mine.dot(1000 + message_id, [message_id])
        mine.committed([message_id])
    assert os.path.getsize(mine.path) < 8000
    evidence = journal.read(mine.path)
    assert evidence and evidence.complete
    assert evidence.started == {1000 + number: [number] for number in range(50)}
    assert not journal.owner_is_gone(mine.path)
    assert os.listdir(os.path.dirname(mine.path)) == [os.path.basename(mine.path)]


def test_a_small_file_is_left_alone_by_a_commit(mine: Journal) -> None:
    mine.dot(1, [11])
    before = Path(mine.path).read_bytes()
    mine.committed([1])
    assert Path(mine.path).read_bytes() == before


def test_a_file_that_its_owner_replaced_meanwhile_proves_nothing(
    mine: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_too_late(file: object, flags: int) -> None:
        monkeypatch.undo()
        mine._rewrite()
        journal.portalocker.lock(file, flags)

    monkeypatch.setattr(journal.portalocker, "lock", lock_too_late)
    assert not journal.owner_is_gone(mine.path)
    assert Path(mine.path).exists()


def test_a_living_owner_is_seen_and_an_abandoned_journal_too(mine: Journal) -> None:
    assert not journal.owner_is_gone(mine.path)
    mine.abandon()
    assert journal.owner_is_gone(mine.path)
    assert journal.owner_is_gone(mine.path), "asking changes nothing"


def test_a_killed_owner_is_gone_and_what_it_wrote_is_there(tmp_path: Path) -> None:
    program = START + "mine.dot(5, [51, 52])\nprint(mine.path, flush=True)\nsys.stdin.read()\n"
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    path = owner.stdout.readline().strip()
    try:
        assert not journal.owner_is_gone(path)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate()
    assert journal.owner_is_gone(path)
    assert journal.read(path) == Evidence({5: [51, 52]}, [])
    journal.discard(path)
    journal.discard(path)
    assert os.listdir(tmp_path) == []
    assert not journal.owner_is_gone(path)


def test_a_full_disk_is_an_error_before_the_dot_and_never_a_silent_gap(tmp_path: Path) -> None:
    program = START + (
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))\n"
        "mine.dot(1, [11])\n"
        "try:\n    mine.dot(2, [21])\n"
        "except OSError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "the journal cannot take another line" in done.stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "small") as disk:
        yield disk


@pytest.fixture
def narrow(disk: SmallDisk) -> Iterator[Journal]:
    """A journal on a small disk, with room for a short line and none for a long one."""
    narrow = Journal(str(disk.folder / "journals"))
    narrow.dot(1, [11, 12])
    disk.fill()
    yield narrow
    narrow.abandon()


LONG = "x" * 5000


def test_half_a_line_is_taken_back_and_spoils_no_other(narrow: Journal, disk: SmallDisk) -> None:
    with pytest.raises(OSError):
        narrow.dot(2, range(2000))
    narrow.dot(3, [31])
    disk.free()
    narrow.answered(result(1))
    assert journal.read(narrow.path) == Evidence({3: [31]}, [result(1)])


def test_an_answer_the_disk_does_not_take_is_kept_and_said_once(
    narrow: Journal, disk: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        narrow.answered(result(number, reply=LONG))
    narrow.released(3)
    assert narrow.is_behind
    assert len(caplog.records) == 1
    for attempt in (narrow.catch_up, lambda: narrow.dot(4, [41])):
        with pytest.raises(OSError):
            attempt()
    disk.free()
    narrow.catch_up()
    assert not narrow.is_behind
    assert journal.read(narrow.path) == Evidence({}, [result(1, reply=LONG), result(2, reply=LONG)])


def test_an_answer_that_was_kept_is_not_taken_for_that_of_a_later_dot(
    narrow: Journal, disk: SmallDisk
) -> None:
    narrow.answered(result(1, reply=LONG))
    disk.free()
    narrow.dot(1, [13])
    assert journal.read(narrow.path) == Evidence({1: [13]}, [result(1, reply=LONG)])


def test_a_file_that_cannot_be_written_anew_stays_as_it_was(
    narrow: Journal, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LARGEST", 1)
    before = Path(narrow.path).read_bytes()
    narrow.committed([])
    assert Path(narrow.path).read_bytes() == before
    assert os.listdir(disk.folder / "journals") == [os.path.basename(narrow.path)]
    disk.free()
    narrow.committed([1])
    assert journal.read(narrow.path) == Evidence({}, [])


def test_what_was_kept_is_told_once_after_the_file_is_written_anew(
    narrow: Journal, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow.answered(result(1, reply=LONG))
    disk.free()
    monkeypatch.setattr(journal, "LARGEST", 1)
    narrow.committed([])
    narrow.dot(2, [21])
    assert journal.read(narrow.path) == Evidence({2: [21]}, [result(1, reply=LONG)])


def test_a_journal_that_somebody_removed_does_not_hold_up_the_end(mine: Journal) -> None:
    os.unlink(mine.path)
    mine.close()


def test_an_owner_that_ends_in_good_order_leaves_nothing(tmp_path: Path) -> None:
    mine = Journal(str(tmp_path / "deep" / "journals"))
    assert (tmp_path / "deep" / "journals").stat().st_mode & 0o777 == 0o700
    mine.close()
    assert os.listdir(tmp_path / "deep" / "journals") == []


def test_no_two_journals_share_a_name(tmp_path: Path) -> None:
    journals = [Journal(str(tmp_path)) for _ in range(20)]
    assert len({mine.path for mine in journals}) == len({mine.token for mine in journals}) == 20
    for mine in journals:
        mine.close()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Journal(str(tmp_path / "file" / "journals"))

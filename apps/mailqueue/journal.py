"""The worker's append-only record of stages: what was about to be sent, and what was answered.

One file for each worker, one line for each fact, written with one system call, so that it is
there after the process was killed at any point. It stands in for a database commit before and
after each message, which would cost many times the sending itself. The file is locked as long
as its worker lives: on the same host, a lock that can be had proves that the worker is gone.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as _text
from typing import Any

from pydal.contrib import portalocker

from .outbox import Evidence, Finished, Outcome

logger = logging.getLogger("mailqueue")

_encode = json.JSONEncoder(check_circular=False).encode  # in ASCII; made once, it takes half the time

LARGEST = 1024 * 1024  # octets of a journal before it is written anew


class Journal:
    """The record of one worker. Its connections may write to it from their threads.

    Args:
        folder: where the journals of this host lie; made if missing.
        token: the worker's; a new one by default.

    Raises:
        OSError: the folder or the file cannot be written.
    """

    def __init__(self, folder: str, token: str | None = None):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.token = token or new_token()
        self.path = path_of(folder, self.token)
        self._guard = threading.Lock()
        self._facts: dict[int, list[bytes]] = {}  # of messages that are not committed yet
        self._unwritten: deque[bytes] = deque()  # what the disk has not taken yet
        self._file = _open_locked(self.path)

    def begun(self, message_id: int) -> None:
        """Record that a message is taken in hand; nothing of it is sent yet.

        Raises:
            OSError: the disk does not take it; the message must not be begun.
        """
        self._write_now(message_id, b'{"begun": %d}\n' % message_id)

    def dot(self, message_id: int, recipient_ids: Iterable[int]) -> None:
        """Record that the final dot of a message to these recipients is about to be sent.

        Raises:
            OSError: the disk does not take it; the dot must not be sent.
        """
        self._write_now(message_id, _dot(message_id, recipient_ids))

    def answered(self, result: Finished) -> None:
        """Record what a hand-over brought, before it is in the database.

        What the disk does not take is kept in memory, for catch_up().
        """
        self._keep(result.message_id, _answer(result))

    def answered_and_dot(
        self, result: Finished | None, message_id: int, recipient_ids: Iterable[int]
    ) -> None:
        """answered(), if there is a result, and dot() of the message behind it, in one write.

        Raises:
            OSError: the disk does not take it, and keeps the result as answered() does; the dot must not
                be sent.
        """
        dot = _dot(message_id, recipient_ids)
        answer = _answer(result) if result else b""
        with self._guard:
            try:
                self._write_the_rest()
                _write(self._file, answer + dot)
            except OSError:
                self._unwritten.extend([answer] if result else [])
                raise
            finally:
                if result:
                    self._facts.setdefault(result.message_id, []).append(answer)
            self._facts.setdefault(message_id, []).append(dot)

    def released(self, message_id: int) -> None:
        """Record that a message was surely not sent, and goes back as it was; as answered() does."""
        self._keep(message_id, _line({"released": message_id}))

    def ended(self) -> None:
        """Record that the worker ends in good order: what it had in hand did not kill it."""
        self._keep(0, _line({"ended": True}))

    @property
    def is_behind(self) -> bool:
        """Whether there is something that the disk has not taken yet."""
        return bool(self._unwritten)

    def catch_up(self) -> None:
        """Write what the disk did not take before.

        Raises:
            OSError: it still does not.
        """
        with self._guard:
            self._write_the_rest()

    def committed(self, message_ids: Iterable[int]) -> None:
        """Forget what the database has; now and then the file is written anew without it."""
        with self._guard:
            for message_id in message_ids:
                self._facts.pop(message_id, None)
            if self._file.tell() > LARGEST:
                self._try_to_rewrite()

    def close(self) -> None:
        """Remove the record of a worker that holds no claims, unless whoever took them over has done so."""
        discard(self.path)
        self._file.close()

    def abandon(self) -> None:
        """Let go of it without removing it: whoever recovers this worker's claims needs it."""
        self._file.close()

    def _write_now(self, message_id: int, line: bytes) -> None:
        with self._guard:
            self._write_the_rest()  # in order, or an earlier answer would seem to be this dot's
            _write(self._file, line)
            self._facts.setdefault(message_id, []).append(line)

    def _keep(self, message_id: int, line: bytes) -> None:
        with self._guard:
            self._facts.setdefault(message_id, []).append(line)
            self._unwritten.append(line)
            try:
                self._write_the_rest()
            except OSError as error:
                if len(self._unwritten) == 1:
                    logger.error("%s takes no more (%s); answers are kept in memory", self.path, error)

    def _write_the_rest(self) -> None:
        while self._unwritten:
            _write(self._file, self._unwritten[0])
            self._unwritten.popleft()

    def _try_to_rewrite(self) -> None:
        try:
            self._rewrite()
        except OSError as error:  # the old one is as good, only longer
            logger.warning("%s could not be written anew: %s", self.path, error)
            _remove(self.path + ".new")

    def _rewrite(self) -> None:
        """Replace the file in one step, so that a kill at any moment finds the one or the other."""
        following = _open_locked(self.path + ".new")
        try:
            _write(following, b"".join(line for lines in self._facts.values() for line in lines))
            os.replace(self.path + ".new", self.path)
        except FileNotFoundError:  # this worker's claims were taken over, and its journal is gone
            following.close()
            return
        except OSError:
            following.close()
            raise
        self._file.close()
        self._file = following
        self._unwritten.clear()


def _line(fact: dict[str, Any]) -> bytes:
    return _encode(fact).encode("ascii") + b"\n"


def _dot(message_id: int, recipient_ids: Iterable[int]) -> bytes:
    ids = ", ".join(map(str, recipient_ids)).encode("ascii")
    return b'{"dot": %d, "recipients": [%b]}\n' % (message_id, ids)


def _answer(result: Finished) -> bytes:
    return f'{{"answered": {_stored(result)}}}\n'.encode("ascii")


def _stored(result: Finished) -> str:
    message_id, token, transport, started_on, duration, outcomes, in_vain = result
    return (  # by hand: in half the time that the encoder takes
        f'{{"message_id": {message_id}, "token": {_text(token)}, "transport": {_text(transport)},'
        f' "started_on": {started_on!r}, "duration": {duration!r},'
        f' "outcomes": [{", ".join(map(_outcome, outcomes))}],'
        f' "in_vain": [{", ".join(map(_stored, in_vain))}]}}'
    )


def _outcome(outcome: Outcome) -> str:
    recipient_id, status, due, counts, stage, kind, cause, code, enhanced, reply, provider_id = outcome
    unusual = (due, kind, cause, provider_id) != (None, None, None, None) or not counts
    if unusual or code is None:
        return _encode(outcome._asdict())
    return (  # of nearly every message
        f'{{"recipient_id": {recipient_id}, "status": {_text(status)}, "stage": {_text(stage)},'
        f' "code": {code:d}, "enhanced": {_or_null(enhanced)}, "reply": {_text(reply)}}}'
    )


def _or_null(text: str | None) -> str:
    return "null" if text is None else _text(text)


def new_token() -> str:
    """A name for a worker that no other has."""
    return secrets.token_hex(16)


def path_of(folder: str, token: str) -> str:
    """Where the journal of a worker lies."""
    return os.path.join(folder, f"{token}.journal")


def _open_locked(path: str) -> io.FileIO:
    file = open(path, "ab", buffering=0)  # noqa: SIM115 - it lives as long as the worker
    portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
    return file


def _write(file: io.FileIO, lines: bytes) -> None:
    written = file.write(lines)
    if written != len(lines):
        end = os.fstat(file.fileno()).st_size - (written or 0)
        os.ftruncate(file.fileno(), end)  # half a line proves nothing, and would spoil the next one
        raise OSError(errno.ENOSPC, "the journal cannot take another line")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.warning("%s could not be removed: %s", path, error)


def owner_is_gone(path: str) -> bool:
    """Whether the worker of this journal is seen to be gone; False where that cannot be told."""
    try:
        with open(path, "r+b") as file:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
            # Its owner may have put another file in this one's place just now.
            return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except OSError:  # not there, not ours to open, or locked
        return False


def abandoned(folder: str) -> frozenset[str]:
    """The journals in this folder whose workers are seen to be gone."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return frozenset()
    paths = (os.path.join(folder, name) for name in names if name.endswith(".journal"))
    return frozenset(path for path in paths if owner_is_gone(path))


def read(path: str) -> Evidence | None:
    """What the journal of a dead worker tells; None where it is out of reach (another host).

    A damaged line may have been any message's: what the others tell stands, but they are not all.
    """
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return None
    started: dict[int, list[int]] = {}
    answered: list[Finished] = []
    begun: set[int] = set()
    complete = True
    for line in filter(None, lines[:-1]):  # the last piece is empty, or cut off by the kill
        try:
            _take_in(json.loads(line), started, answered, begun)
        except (ValueError, TypeError, KeyError):
            complete = False
    return Evidence(started, answered, complete, frozenset(begun))


def _take_in(
    fact: dict[str, Any], started: dict[int, list[int]], answered: list[Finished], begun: set[int]
) -> None:
    if "begun" in fact:
        begun.add(int(fact["begun"]))
        return
    if "ended" in fact:
        begun.clear()
        return
    if "dot" in fact:
        started.setdefault(int(fact["dot"]), []).extend(fact["recipients"])
        return
    if "released" in fact:
        over = int(fact["released"])
    else:
        result = _finished(fact["answered"])
        answered.append(result)
        over = result.message_id
    started.pop(over, None)
    begun.discard(over)


def discard(path: str) -> None:
    """Remove the journal of a worker that was recovered."""
    for left in (path, f"{path}.new"):
        _remove(left)


def _finished(stored: dict[str, Any]) -> Finished:
    outcomes = tuple(Outcome(**outcome) for outcome in stored.pop("outcomes"))
    in_vain = tuple(_finished(earlier) for earlier in stored.pop("in_vain", ()))
    return Finished(**stored, outcomes=outcomes, in_vain=in_vain)

"""The MIME texts of messages, stored in chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import sql
from ..tables import CONTENT, MESSAGE
from .records import Claimed

# Largest piece of MIME text in one row: under every server's default limit for a statement.
CHUNK = 512 * 1024


def chunks(mime: bytes) -> list[str]:
    """The text in pieces that fit into rows, one at least."""
    text = mime.decode("utf-8")
    return [text[start : start + CHUNK] for start in range(0, max(len(text), 1), CHUNK)]


def has_content(db: Any, message_id: int) -> bool:
    """Whether the MIME text of a message is still stored."""
    return bool(sql.fetch(db, f"SELECT 1 FROM {CONTENT} WHERE message_ref = %s LIMIT 1", message_id))


def stored(db: Any, ids: Sequence[int]) -> list[int]:
    """Those of these messages whose MIME text is still stored, by their ids."""
    return sorted(
        message_id
        for some in sql.portions(ids)
        for (message_id,) in sql.fetch(
            db,
            f"SELECT DISTINCT message_ref FROM {CONTENT} WHERE message_ref IN ({sql.signs(some)})",
            *some,
        )
    )


def content(db: Any, message_id: int) -> bytes:
    """The MIME text of a message, as it was enqueued.

    Raises:
        ValueError: it is not complete any more.
    """
    sizes = sql.fetch(db, f"SELECT id, byte_size FROM {MESSAGE} WHERE id = %s", message_id)
    found = _whole(db, dict(sizes))
    if message_id not in found:
        raise ValueError("the stored text of this message is damaged or gone")
    return found[message_id]


def wipe(db: Any, ids: Sequence[int]) -> None:
    """Delete the MIME texts of messages. In the caller's transaction."""
    for some in sql.portions(list(ids)):
        sql.change(db, f"DELETE FROM {CONTENT} WHERE message_ref IN ({sql.signs(some)})", *some)


def contents(db: Any, claims: Iterable[Claimed]) -> dict[int, bytes]:
    """The MIME texts of claimed messages, by their ids; those that are not complete any more are left out.

    All of them are in memory at once: see Claimed.byte_size.
    """
    return _whole(db, {claimed.id: claimed.byte_size for claimed in claims})


def _whole(db: Any, sizes: Mapping[int, int | None]) -> dict[int, bytes]:
    pieces: dict[int, list[str]] = {message_id: [] for message_id in sizes}
    damaged = set()
    for some in sql.portions(list(sizes)):
        chosen = f"message_ref IN ({sql.signs(some)}) ORDER BY message_ref, chunk_no"
        rows = sql.fetch(db, f"SELECT message_ref, chunk_no, mime FROM {CONTENT} WHERE {chosen}", *some)
        for message_id, number, mime in rows:
            if number != len(pieces[message_id]):
                damaged.add(message_id)
            pieces[message_id].append(mime or "")
    whole = {message_id: "".join(pieces.pop(message_id)).encode("utf-8") for message_id in sizes}
    return {
        message_id: mime
        for message_id, mime in whole.items()
        if message_id not in damaged and len(mime) == sizes[message_id]
    }

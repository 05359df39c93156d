"""The tables of mailqueue in the host's database, and their indexes: define_tables(db).

What a claim looks at is in narrow rows of `mailqueue_message` with an index that holds only
what is waiting (`due` is NULL for everything else); the MIME text is in a table of its own.
No table refers to a table of the host. Times are seconds since the epoch (UTC), so that no
driver, server or session time zone can shift them.
"""

from __future__ import annotations

import datetime
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydal import Field
from pydal.contrib import portalocker

from . import database
from .errors import TablesMissing

MESSAGE = "mailqueue_message"
CONTENT = "mailqueue_content"
RECIPIENT = "mailqueue_recipient"
ATTEMPT = "mailqueue_attempt"
WORKER = "mailqueue_worker"
TRANSPORT = "mailqueue_transport"
PROBLEM = "mailqueue_problem"
DEDUPE = "mailqueue_dedupe"
PULSE = "mailqueue_pulse"
WINDOW = "mailqueue_window"
LESSON = "mailqueue_lesson"
ALLOWANCE = "mailqueue_allowance"
APPROVAL = "mailqueue_approval"
AUDIT = "mailqueue_audit"
BULK = "mailqueue_bulk"
RULE = "mailqueue_rule"

_WORDS = frozenset({"status", "outcome", "failure_kind", "stage"})  # columns with one of ours

# Length of an address: 64 octets of local part, "@", 255 of domain (RFC 5321 section 4.5.3.1).
ADDRESS = 320


def local_time(moment: float | None, row: Any = None) -> str:
    """A stored time as people read it, in the server's own time zone; "" for None."""
    if moment is None:
        return ""
    try:
        return datetime.datetime.fromtimestamp(moment).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # damaged: no page may break because of it
        return f"{moment:g}"


def _in_words(value: Any, row: Any = None) -> str:
    """A status or kind as people read it."""
    return str(value or "").replace("_", " ")


def _not_shown(value: Any, row: Any = None) -> str:
    """What stands for a text that holds live links and codes."""
    return f"({len(value or '')} characters, not shown here)"


def _in_seconds(value: float | None, row: Any = None) -> str:
    return "" if value is None else f"{value:.3f} s"


def _label(name: str) -> str:
    """The name of a column as people read it."""
    return name.removesuffix("_on").removesuffix("_ref").replace("_", " ").capitalize()


def _time(name: str, **options: Any) -> Any:
    return Field(name, "double", represent=local_time, **options)


def _message_fields() -> list[Any]:
    return [
        Field("status", length=16),
        Field("priority", "integer"),
        _time("due"),  # when a worker may claim it; NULL: not waiting, or claimed
        _time("expires_on"),  # when it is not to be sent any more; NULL also once it has ended
        Field("doubt", length=8),  # what to do in doubt: resend, hold; NULL: as the site does
        Field("wipe", "boolean"),  # whether its content is deleted as soon as it has ended
        Field("category", length=64),
        Field("sender", length=ADDRESS),  # envelope sender; NULL: the site's own
        Field("subject", length=255),
        Field("message_uid", length=255, label="Message-ID"),
        Field("smtputf8", "boolean"),
        Field("byte_size", "integer"),
        Field("recipients", "integer"),  # how many
        Field("attempts", "integer"),
        _time("created_on"),
        _time("tried_on"),  # its first attempt: what giving up is counted from
        _time("finished_on"),
        _time("purge_on"),  # when its content, or then its record, is to be deleted
        Field("worker", "integer"),  # who holds the claim
        Field("claim", length=32),  # the token of the claim
        _time("claimed_on"),
        Field("crashes", "integer"),  # workers that died while they had it in hand, one after the other
        Field("failure_kind", length=16),
        Field("error", "text"),  # the last failure, for lists
        Field("transport", length=255),  # the last one that was tried
        Field("next_transport", length=255),  # the one that an administrator chose for the next attempt
    ]


def _content_fields() -> list[Any]:
    # Several rows for a large message: servers limit the size of one statement.
    return [
        Field("message_ref", "integer"),
        Field("chunk_no", "integer"),
        Field("mime", "text", represent=_not_shown),
    ]


def _recipient_fields() -> list[Any]:
    return [
        Field("message_ref", "integer"),
        Field("address", length=ADDRESS),
        Field("kind", length=3),  # to, cc, bcc
        Field("status", length=16),
        _time("due"),
        Field("attempts", "integer"),
        Field("failure_kind", length=16),
        Field("code", "integer"),
        Field("enhanced", length=16),
        Field("reply", "text"),  # the server's own words
        Field("provider_id", length=255),  # what a provider calls the message
        Field("transport", length=255),
        _time("changed_on"),
        Field("held_by", length=190),  # the domain or transport whose limit it waits for, not for a retry
    ]


def _attempt_fields() -> list[Any]:
    return [
        Field("message_ref", "integer"),
        Field("recipient_ref", "integer"),
        Field("transport", length=255),
        Field("stage", length=16),
        Field("outcome", length=16),  # the recipient's status after it, or words.PASSED_ON
        Field("failure_kind", length=16),
        Field("cause", length=64),  # the classification rule that decided
        Field("code", "integer"),
        Field("enhanced", length=16),
        Field("reply", "text"),
        _time("started_on"),
        Field("duration", "double", represent=_in_seconds),  # seconds
    ]


def _worker_fields() -> list[Any]:
    return [
        Field("token", length=32),
        Field("host_name", length=255),
        Field("machine", length=64),  # which start of which machine: a journal is whole only within it
        Field("pid", "integer"),
        Field("journal", length=255),  # its file, on that host
        _time("started_on"),
        _time("beat_on"),
        _time("suspected_on"),  # when somebody saw that its heartbeat looked old
    ]


def _transport_fields() -> list[Any]:
    return [
        Field("name", length=190, unique=True),
        Field("salt", length=32),
        Field("fingerprint", length=64),  # of the settings that were tried last
        _time("connected_on"),  # when it last worked; NULL: never
        _time("paused_on"),
        _time("next_probe"),
        Field("failures", "integer"),  # in a row
        Field("stage", length=16),  # where the last one happened
        Field("reason", "text"),
    ]


def _problem_fields() -> list[Any]:
    return [
        Field("cause", length=190),
        Field("open_key", length=190, unique=True),  # the cause while open, NULL once resolved
        Field("status", length=16),  # open, resolved
        Field("failure_kind", length=16),
        Field("stage", length=16),
        Field("transport", length=255),
        Field("summary", "text"),
        Field("remedy", "text"),
        Field("detail", "text"),  # the server's own words
        Field("seen", "integer"),
        _time("first_seen"),
        _time("last_seen"),
        _time("resolved_on"),
        _time("acknowledged_on"),  # when an administrator said that it is seen to
        Field("acknowledged_by", length=ADDRESS),
    ]


def _dedupe_fields() -> list[Any]:
    return [
        Field("dedupe_key", length=64, unique=True),  # SHA-256
        _time("until_on"),
    ]


def _pulse_fields() -> list[Any]:
    return [Field("name", length=16, unique=True), _time("seen_on")]


def _window_fields() -> list[Any]:
    return [
        Field("name", length=210, unique=True),  # of what, and of which of its rates
        Field("held_by", length=190),  # of what: as in the recipients that wait
        Field("allowance", length=64),  # the rate, in words
        _time("opened_on"),
        Field("taken", "integer"),
        Field("line", "integer"),  # messages put off to the windows after it
        _time("over_on"),  # when nothing of it matters any more
    ]


def _lesson_fields() -> list[Any]:
    return [
        Field("name", length=190, unique=True),
        Field("strikes", "integer"),  # 0: only refusals that may come to a wish for less mail
        _time("rests_until"),
        Field("pace", "integer"),  # messages a minute
        _time("raised_on"),
        Field("refusals", "integer"),
        _time("refused_on"),
        Field("reason", "text"),  # the server's own words
    ]


def _allowance_fields() -> list[Any]:
    return [
        Field("name", length=64, unique=True),  # SHA-256 of who or what is counted, and in which window
        Field("taken", "integer"),
        _time("over_on"),  # when the window ends
    ]


def _approval_fields() -> list[Any]:
    return [
        Field("account", "integer"),  # the applicant's row in the site's auth_user
        Field("approver", length=ADDRESS),
        Field("token_hash", length=64, unique=True),  # SHA-256
        Field("spoken", length=16),  # the applicant's language
        _time("asked_on"),
        _time("expires_on"),
        Field("decision", length=16),  # approved, declined; NULL: none yet
        Field("decided_by", length=ADDRESS),
        _time("decided_on"),
    ]


def _audit_fields() -> list[Any]:
    return [
        _time("done_on"),
        Field("who", length=ADDRESS),
        Field("action_name", length=32),
        Field("message_ref", "integer"),  # NULL: it was done to none, or to many
        Field("detail", "text"),
    ]


def _bulk_fields() -> list[Any]:
    return [
        Field("action_name", length=32),
        Field("chosen", "text"),  # which messages: the variables of a selection's URL
        Field("who", length=ADDRESS),
        Field("status", length=16),  # running, done, stopped
        Field("first_below", "integer"),  # only messages with smaller ids
        Field("next_below", "integer"),  # the rest of them has smaller ids than this
        Field("expected", "integer"),  # how many there were at first; NULL: more than were counted
        Field("changed", "integer"),  # messages so far
        _time("begun_on"),
        _time("changed_on"),
        _time("ended_on"),
    ]


def _rule_fields() -> list[Any]:
    return [
        Field("stage", length=16),
        Field("code", "integer"),
        Field("enhanced", length=16),  # "": any
        Field("reply_text", length=200),  # part of the reply
        Field("meaning", length=64),  # a rule of classify.py
        Field("added_by", length=ADDRESS),
        _time("added_on"),
    ]


_FIELDS = {
    MESSAGE: _message_fields,
    CONTENT: _content_fields,
    RECIPIENT: _recipient_fields,
    ATTEMPT: _attempt_fields,
    WORKER: _worker_fields,
    TRANSPORT: _transport_fields,
    PROBLEM: _problem_fields,
    DEDUPE: _dedupe_fields,
    PULSE: _pulse_fields,
    WINDOW: _window_fields,
    LESSON: _lesson_fields,
    ALLOWANCE: _allowance_fields,
    APPROVAL: _approval_fields,
    AUDIT: _audit_fields,
    BULK: _bulk_fields,
    RULE: _rule_fields,
}
TABLES = tuple(_FIELDS)

# Session locks, so that hosts that share a database take turns too.
_DATABASE_LOCKS = {
    database.POSTGRES: ("SELECT pg_advisory_lock(7011953)", "SELECT pg_advisory_unlock(7011953)"),
    database.MYSQL: ("SELECT GET_LOCK('mailqueue_tables', 60)", "SELECT RELEASE_LOCK('mailqueue_tables')"),
}

# name -> table, columns, condition where the database has partial indexes
_INDEXES = {
    "mailqueue_message_due_idx": (MESSAGE, "priority, due, id", "due IS NOT NULL"),
    "mailqueue_message_worker_idx": (MESSAGE, "worker", "worker IS NOT NULL"),
    "mailqueue_message_expires_idx": (MESSAGE, "expires_on", "expires_on IS NOT NULL"),
    "mailqueue_message_purge_idx": (MESSAGE, "purge_on", "purge_on IS NOT NULL"),
    "mailqueue_message_status_idx": (MESSAGE, "status, id", ""),
    "mailqueue_content_message_idx": (CONTENT, "message_ref, chunk_no", ""),
    "mailqueue_recipient_message_idx": (RECIPIENT, "message_ref", ""),
    "mailqueue_recipient_mail_idx": (RECIPIENT, "address, message_ref", ""),
    "mailqueue_recipient_held_idx": (RECIPIENT, "held_by, due", "held_by IS NOT NULL"),
    "mailqueue_attempt_message_idx": (ATTEMPT, "message_ref", ""),
    "mailqueue_dedupe_until_idx": (DEDUPE, "until_on", ""),
    "mailqueue_allowance_over_idx": (ALLOWANCE, "over_on", ""),
    "mailqueue_approval_account_idx": (APPROVAL, "account", ""),
    "mailqueue_approval_expires_idx": (APPROVAL, "expires_on", ""),
    "mailqueue_audit_message_idx": (AUDIT, "message_ref", ""),
    "mailqueue_audit_done_idx": (AUDIT, "done_on", ""),
}


def columns() -> dict[str, list[str]]:
    """The tables and their columns, `id` apart."""
    return {name: [field.name for field in fields()] for name, fields in _FIELDS.items()}


@functools.cache
def lengths(table: str) -> dict[str, int]:
    """Of each column of a table, how many characters it takes."""
    return {field.name: field.length for field in _FIELDS[table]()}


def define_tables(db: Any) -> None:
    """Define the tables on a DAL, and create or migrate them where the DAL may.

    Several processes may do this at once on an empty database. Commits. Does nothing on a DAL
    that has the tables already.

    Args:
        db: the host's pydal DAL.

    Raises:
        TablesMissing: the tables are not there and the DAL was opened with migrate=False.
        UnsupportedDatabase: it is not SQLite, PostgreSQL, MariaDB or MySQL.
    """
    database.check_supported(db)
    if all(name in db.tables for name in TABLES):
        return
    database.speak_four_bytes(db)
    may_create = bool(db._migrate and db._migrate_enabled)
    with _one_process_at_a_time(db), _no_common_fields(db):
        for name in TABLES:
            _define(db, name, may_create)
        if may_create:
            _create_indexes(db)
    db.commit()


def attach_tables(db: Any) -> None:
    """Define the tables on a DAL whose database is known to have them.

    For a framework that makes a DAL for each request: it asks the database nothing, and commits nothing.

    Args:
        db: a pydal DAL.
    """
    database.speak_four_bytes(db)
    with _no_common_fields(db):
        for name in TABLES:
            _define_now(db, name, _FIELDS[name](), migrate=False)


def _define(db: Any, name: str, may_create: bool) -> None:
    fields = _FIELDS[name]()
    if not may_create:
        if not _exists(db, name):
            raise TablesMissing(
                f"The table {name} is not in the database, and this DAL was opened with migrate=False."
                " Start the site once with migrate=True (py4web: DB_MIGRATE in settings.py; web2py: migrate"
                " under [db] in private/appconfig.ini), or run define_tables(db) on a DAL that may migrate."
            )
        _define_now(db, name, fields, migrate=False)
        return
    try:
        _define_now(db, name, fields)
    except Exception:
        db.rollback()
        if hasattr(db, name):
            delattr(db, name)  # pydal leaves it half-defined
        if not _exists(db, name):
            raise
        # Another host, with table files of its own, was first: perhaps with older ones.
        _note_columns(db, name)
        _define_now(db, name, _FIELDS[name]())
    if database.engine(db) == database.MYSQL:
        _use_four_byte_characters(db, name)
    db.commit()


def _define_now(db: Any, name: str, fields: list[Any], **options: Any) -> None:
    for field in fields:
        if field.label == field.name.replace("_", " ").title():  # what pydal makes of a name
            field.label = _label(field.name)
        if field.name in _WORDS:
            field.represent = _in_words
    plural = name.removeprefix("mailqueue_").capitalize() + "s"
    db.define_table(name, *fields, redefine=True, plural=plural, **options)
    db[name]  # a DAL with lazy_tables does it only now


def _exists(db: Any, name: str) -> bool:
    db.commit()
    try:
        db.executesql(f"SELECT 1 FROM {name} WHERE 1=0")
    except Exception:  # noqa: BLE001 - each driver has its own exception for a missing table
        db.rollback()
        return False
    return True


def _note_columns(db: Any, name: str) -> None:
    """Have pydal's table file say what the table has, so that pydal adds what is missing."""
    db.executesql(f"SELECT * FROM {name} WHERE 1=0")
    columns = {column[0] for column in db._adapter.cursor.description}
    _define_now(db, name, [f for f in _FIELDS[name]() if f.name in columns], fake_migrate=True)


def _use_four_byte_characters(db: Any, name: str) -> None:
    """pydal creates MySQL tables in `utf8`, which has no emoji: a subject would be refused."""
    collation = db.executesql(
        "SELECT table_collation FROM information_schema.tables"
        f" WHERE table_schema = DATABASE() AND table_name = '{name}'"
    )
    if not str(collation[0][0]).startswith("utf8mb4"):
        db.executesql(f"ALTER TABLE {name} CONVERT TO CHARACTER SET utf8mb4")


def _create_indexes(db: Any) -> None:
    present = _index_names(db)
    partial = database.engine(db) in (database.SQLITE, database.POSTGRES)
    for name, (table, columns, condition) in _INDEXES.items():
        if name not in present:
            where = f" WHERE {condition}" if condition and partial else ""
            db.executesql(f"CREATE INDEX {name} ON {table} ({columns}){where}")


def _index_names(db: Any) -> set[str]:
    queries = {
        database.SQLITE: "SELECT name FROM sqlite_master WHERE type = 'index'",
        database.POSTGRES: "SELECT indexname FROM pg_indexes WHERE schemaname = ANY (current_schemas(false))",
        database.MYSQL: "SELECT index_name FROM information_schema.statistics"
        " WHERE table_schema = DATABASE()",
    }
    return {row[0] for row in db.executesql(queries[database.engine(db)])}


@contextmanager
def _one_process_at_a_time(db: Any) -> Iterator[None]:
    """Processes take turns: pydal's table files protect neither themselves nor the database."""
    db.commit()
    with _file_lock(db), _database_lock(db):
        yield


@contextmanager
def _no_common_fields(db: Any) -> Iterator[None]:
    """What a host adds to all of its tables, such as Auth's signature, refers to tables of its own."""
    common, db._common_fields = db._common_fields, []
    try:
        yield
    finally:
        db._common_fields = common


@contextmanager
def _file_lock(db: Any) -> Iterator[None]:
    folder = database.folder_of(db)
    if not folder or str(db._adapter.uri).startswith("sqlite:memory"):
        yield
        return
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "mailqueue.lock"), "a", encoding="utf-8") as lock:
        portalocker.lock(lock, portalocker.LOCK_EX)
        try:
            yield
        finally:
            portalocker.unlock(lock)


@contextmanager
def _database_lock(db: Any) -> Iterator[None]:
    lock, unlock = _DATABASE_LOCKS.get(database.engine(db), ("", ""))
    if lock:
        db.executesql(lock)
    try:
        yield
    except BaseException:
        db.rollback()  # a failed statement would refuse the unlocking too
        raise
    finally:
        if unlock:
            db.executesql(unlock)
            db.commit()

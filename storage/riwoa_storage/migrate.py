"""Numbered forward-only migrations: ``sql/NNNN_*.sql`` takes the schema from version N-1 to N."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from riwoa_storage.connect import (
    APPLICATION_ID,
    BUSY_TIMEOUT_S,
    SCHEMA_VERSION,
    file_uri,
    schema_version,
    translate,
)
from riwoa_storage.digest import canonical_json
from riwoa_storage.errors import JournalCorruptError, JournalUnwritableError
from riwoa_storage.seal import checksum
from riwoa_storage.shared import choices, genes, key_hash, leader_rest, split_leader
from riwoa_storage.tables import COLUMNS

SEALED_SINCE = 3  # the schema version that gave rows checksums
SQL_DIRECTORY = Path(__file__).with_name("sql")


def migrations() -> list[tuple[int, str]]:
    """(version, script) of every migration, ascending."""
    return [(int(file.name[:4]), file.read_text("utf-8")) for file in sorted(SQL_DIRECTORY.glob("[0-9]*.sql"))]


def migrate(path: Path) -> int:
    """Create the journal or bring it to the newest schema; returns the version it had before.

    Each migration is one transaction together with its version number: a kill or power loss leaves the journal at
    exactly the version before or after it, never between. A file that this code must not write (newer, or not a
    journal) is looked at read-only and left untouched to the byte.

    Raises:
        JournalVersionError: written by a newer riwoa.
        JournalCorruptError: not a database, damaged, or another program's.
        JournalUnwritableError, JournalLockedError: cannot be written, or not now.
    """
    name = os.path.abspath(path)
    _check_place(name)
    if os.path.exists(name) and os.path.getsize(name) > 0:
        with _connection(file_uri(name, "ro"), name) as connection:
            before = schema_version(connection, name)
            if before == SCHEMA_VERSION:
                return before
    with _connection(file_uri(name, "rwc"), name) as connection:
        before = schema_version(connection, name)
        _lend_functions(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for version, script in migrations():
            _apply(connection, version, script, name)
    return before


def _check_place(name: str) -> None:
    # SQLite calls all of these "unable to open database file".
    directory = os.path.dirname(name)
    if not os.path.isdir(directory):
        raise JournalUnwritableError(f"cannot write {name}: {directory} is not a directory; create it first")
    if os.path.exists(name) and not os.path.isfile(name):  # a pipe would never answer
        raise JournalUnwritableError(f"cannot write {name}: it is no file; remove it or use another --state")
    if not os.access(directory, os.W_OK | os.X_OK) or (os.path.exists(name) and not os.access(name, os.R_OK | os.W_OK)):
        raise JournalUnwritableError(f"cannot write {name}: make it and its directory writable for this user")


@contextlib.contextmanager
def _connection(uri: str, name: str) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        ) as connection:
            yield connection
    except sqlite3.Error as error:
        if "user-defined function" in str(error):  # JSON that is none: damage older than checksums
            raise JournalCorruptError(f"{name}: a row cannot be read: keep a copy, then restore a backup") from error
        raise translate(error, name) from error


def _apply(connection: sqlite3.Connection, version: int, script: str, name: str) -> None:
    """One migration in one transaction; nothing happens when the journal already has it."""
    connection.execute("PRAGMA foreign_keys = OFF")  # lets a migration rebuild a table; checked as a whole below
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Read under the lock: another process may have migrated since we looked.
        if connection.execute("PRAGMA user_version").fetchone()[0] < version:
            for statement in _statements(script):
                connection.execute(statement)
            if version == SEALED_SINCE:
                _seal_all(connection)
            if broken := connection.execute("PRAGMA foreign_key_check").fetchone():
                raise JournalCorruptError(
                    f"{name}: migration {version} found a dangling row in {broken[0]}; restore a backup"
                )
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _lend_functions(connection: sqlite3.Connection) -> None:
    """What the scripts of migrations call."""
    functions: dict[str, Callable[[Any], str | int | None]] = {
        "sha256": lambda data: hashlib.sha256(data).hexdigest(),
        "key_hash": lambda key: None if key is None else key_hash(key),
        "genes": lambda text: None if text is None else genes(json.loads(text)),
        "choices": lambda text: None if text is None else choices(json.loads(text)),
        "leader_architecture": _leader_architecture,
        "leader_rest": _leader_rest,
    }
    for name, function in functions.items():
        connection.create_function(name, 1, function, deterministic=True)


def _leader_architecture(leader: str | None) -> str | None:
    split = split_leader(json.loads(leader or "null"))
    return None if split is None else canonical_json(split[1])


def _leader_rest(leader: str | None) -> str | None:
    return leader if leader is None else canonical_json(leader_rest(json.loads(leader)))


def _seal_all(connection: sqlite3.Connection) -> None:
    """Give every row the checksum of what it holds at this moment; the chain's digests tell whether that is right."""
    for table, columns in COLUMNS.items():
        marks = ", ".join(columns)
        connection.create_function(f"seal_{table}", len(columns), partial(_seal, table), deterministic=True)
        connection.execute(f"UPDATE {table} SET checksum = seal_{table}({marks})")


def _seal(table: str, *values: object) -> int:
    return checksum(table, values)


def _statements(script: str) -> Iterator[str]:
    # executescript() would commit the transaction we are in. Two statements must not share a line.
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise ValueError(f"a migration ends within a statement: {statement.strip()[:60]!r}")

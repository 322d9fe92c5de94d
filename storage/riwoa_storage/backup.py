"""A consistent copy of a journal beside its live writer, and room made in one that nobody writes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from riwoa_storage.connect import BUSY_TIMEOUT_S, WRITER_PRAGMAS, connect_reader, file_uri, journal_path, translate
from riwoa_storage.durable import flush
from riwoa_storage.errors import JournalCorruptError, JournalUnwritableError
from riwoa_storage.replay import Verification, verify


def backup(path: Path, out: Path) -> Verification:
    """Copy one committed state of the journal to ``out``, verify the copy, and only then give it its name.

    What a power cut leaves is the whole copy or none (fsync before and after the rename). A live writer goes on
    meanwhile; its log grows until the copy is made.

    Raises:
        JournalUnwritableError: ``out`` exists, or cannot be written.
        JournalCorruptError: the journal is damaged; there is no copy of it then.
        StorageError: the journal cannot be read.
    """
    if out.exists():
        raise JournalUnwritableError(f"{out} exists: name another file, or move it away")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with closing(connect_reader(path)) as connection:
            _execute(connection, lambda db: db.execute("VACUUM INTO ?", (str(part.absolute()),)), str(out))
        verified = _verified(part, path)
        flush(part)
        part.rename(out)
        flush(out.parent)
    except OSError as error:
        raise JournalUnwritableError(f"cannot write {out} ({error.strerror}): name another place") from None
    finally:
        for left in (part, *(part.with_name(part.name + suffix) for suffix in ("-wal", "-shm", "-journal"))):
            with contextlib.suppress(OSError):
                left.unlink()
    return verified


def _verified(copy: Path, of: Path) -> Verification:
    """A damaged copy is a damaged original's, and that is the one to name."""
    try:
        return verify(copy)
    except JournalCorruptError as error:
        raise JournalCorruptError(str(error).replace(str(copy.absolute()), str(of))) from None


def compact(path: Path, *, adapters: int = 2) -> tuple[int, int]:
    """Drop the bytes of all but the last ``adapters`` adapters in service of each run, and give free pages back.

    Hashes and training records stay, and so does every digest: adapters are in none. Nobody else may write meanwhile.

    Returns:
        The journal's size in bytes before and after.

    Raises:
        JournalLockedError: somebody writes.
        StorageError: the journal is missing, damaged, or cannot be written.
    """
    name = journal_path(path)
    with closing(connect_reader(path)):
        pass  # a journal, of this version
    before = os.stat(name).st_size
    db = sqlite3.connect(file_uri(name, "rw"), uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    with closing(db):

        def work(db: sqlite3.Connection) -> None:
            for pragma, (value, _) in WRITER_PRAGMAS.items():
                db.execute(f"PRAGMA {pragma} = {value}").fetchall()
            db.execute(_DROP, (adapters,))
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        _execute(db, work, name)
    return before, os.stat(name).st_size


_DROP = """\
UPDATE adapters SET weights = NULL
WHERE weights IS NOT NULL AND adapter_id NOT IN (
  SELECT adapter_id FROM (
    SELECT adapter_id, row_number() OVER (PARTITION BY run_id ORDER BY adapter_id DESC) AS age
    FROM adapters WHERE status <> 'rejected'
  ) WHERE age <= ?
)"""


def _execute(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], object], name: str) -> None:
    try:
        work(db)
    except sqlite3.Error as error:
        raise translate(error, name) from error

"""How the journal is opened, for reading and for writing, and what SQLite's errors mean to a user.

Kept light on purpose: ``riwoactl status`` imports this file, and pathlib, typing or dataclasses would each cost it
more than the query does.
"""

from __future__ import annotations

import os
import sqlite3

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    from collections.abc import Mapping

APPLICATION_ID = 0x5269776F  # "Riwo", in the file's header: tells a journal from any other SQLite database
SCHEMA_VERSION = 3  # number of the newest migration in sql/
BUSY_TIMEOUT_S = 5.0

# What every writing connection sets and then reads back: a file system may refuse WAL without an error.
WRITER_PRAGMAS: Mapping[str, tuple[str, object]] = {
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),  # one fsync of the log per commit: a commit survives power loss
    "foreign_keys": ("ON", 1),
    "journal_size_limit": (str(64 << 20), 64 << 20),  # the log shrinks again after a reader held it back
}


def journal_path(path: str | os.PathLike[str]) -> str:
    """The path as an absolute string.

    Raises:
        JournalMissingError: there is no such file, or it is empty.
        JournalUnreadableError: this user may not look at it.
    """
    from riwoa_storage.errors import JournalMissingError, JournalUnreadableError

    name = os.path.abspath(os.fspath(path))
    try:
        info = os.stat(name)
    except (FileNotFoundError, NotADirectoryError):
        raise JournalMissingError(
            f"no journal at {name}: start riwoad (or make run) first, or name another file"
        ) from None
    except OSError as error:
        raise JournalUnreadableError(
            f"cannot read {name} ({error.strerror}): run as the daemon's user or in its group"
        ) from None
    if not os.path.isfile(name):
        raise JournalMissingError(f"{name} is not a file: name the journal itself, e.g. {name}/journal.db")
    if info.st_size == 0:
        raise JournalMissingError(f"{name} is empty: no run was journaled yet; start riwoad (or make run) first")
    return name


def connect_reader(path: str | os.PathLike[str]) -> sqlite3.Connection:
    """Open an existing journal read-only; works while a writer is open and after it was killed.

    After the writer's *clean* stop SQLite would make its -shm file anew even to read. Where that cannot be (read-only
    media, another's directory), the file is read as one that nobody changes (``immutable=1``), which is right as long
    as there is no -wal: that one holds commits which such a connection would miss in silence.

    Raises:
        JournalMissingError, JournalUnreadableError: see ``journal_path``.
        JournalCorruptError: the file is not a SQLite database, is damaged, or belongs to another program.
        JournalVersionError: written by a newer riwoa, or by an older one and not migrated yet.
    """
    from riwoa_storage.errors import JournalUnreadableError

    name = journal_path(path)
    try:
        return _opened(name, file_uri(name, "ro"))
    except JournalUnreadableError:
        if os.access(os.path.dirname(name), os.W_OK) or not os.access(name, os.R_OK):
            raise
        if os.path.exists(f"{name}-wal") and os.path.getsize(f"{name}-wal") > 0:
            raise JournalUnreadableError(
                f"cannot read {name}: commits are still in {name}-wal, and nothing can be written beside it; copy both "
                "to a directory of your own and name the copy"
            ) from None
        return _opened(name, f"{file_uri(name, 'ro')}&immutable=1")


def _opened(name: str, uri: str) -> sqlite3.Connection:
    from riwoa_storage.errors import JournalVersionError

    try:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
    except sqlite3.Error as error:
        raise translate(error, name, reading=True) from error
    try:
        version = schema_version(connection, name, reading=True)
        if version < SCHEMA_VERSION:
            raise JournalVersionError(
                f"{name} has schema version {version}, this riwoa reads {SCHEMA_VERSION}: "
                "start riwoad once to migrate it"
            )
    except BaseException:
        connection.close()
        raise
    return connection


def file_uri(name: str, mode: str) -> str:
    """SQLite's URI of an absolute path; mode is "ro", or "rwc" (create it)."""
    for character in "%?#":  # "%" first: the others are escaped with it
        name = name.replace(character, f"%{ord(character):02x}")
    return f"file:{name}?mode={mode}"


def schema_version(connection: sqlite3.Connection, name: str, *, reading: bool = False) -> int:
    """Version of the schema; 0 for a database without any table.

    Raises:
        JournalCorruptError: not a database, damaged, or another program's.
        JournalVersionError: the version is newer than this code.
    """
    from riwoa_storage.errors import JournalCorruptError, JournalVersionError, StorageError

    if sqlite3.sqlite_version_info < (3, 37):  # it would call STRICT tables a malformed schema
        raise StorageError(f"SQLite {sqlite3.sqlite_version} is too old: use a Python with SQLite 3.37 or newer")
    try:
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except (sqlite3.Error, UnicodeError) as error:  # a damaged schema is quoted by SQLite, whatever its bytes
        raise translate(error, name, reading=reading) from error
    if owner != APPLICATION_ID and (tables or version):
        raise JournalCorruptError(f"{name} is a database of another program: name riwoa's journal, or another --state")
    if version > SCHEMA_VERSION:
        raise JournalVersionError(
            f"{name} has schema version {version}, this riwoa knows {SCHEMA_VERSION}: "
            "install the newer riwoa again, or use another --state; the file was left untouched"
        )
    return int(version)


# SQLite's primary result codes (sqlite3.h)
_BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL, _CANTOPEN, _CONSTRAINT, _NOTADB = 5, 6, 8, 10, 11, 13, 14, 19, 26
_PERM, _AUTH = 3, 23


def translate(error: sqlite3.Error | UnicodeError, name: str, *, reading: bool = False) -> Exception:
    """The StorageError that a SQLite error means, its message saying what to do next.

    Not for an event loop: of a failure to write it tries the disk, to tell whether that passes.
    """
    from riwoa_storage import errors

    said = " ".join(str(error).split())[:300]  # it may quote a damaged schema
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == _NOTADB:
        return errors.JournalCorruptError(f"{name} is not a journal (not a database): name riwoa's journal.db")
    if (
        code == _CORRUPT or isinstance(error, UnicodeError) or (not code and "decode" in said)
    ):  # a TEXT that is no UTF-8 has no code of its own
        return errors.JournalCorruptError(
            f"{name} is damaged ({said}): keep a copy, then restore a backup or start afresh with another --state"
        )
    if code in (_BUSY, _LOCKED):
        return errors.JournalLockedError(f"{name} is locked by another process: stop that one, then try again")
    if code == _CONSTRAINT:
        return errors.JournalRefusedError(f"{name} refused a record ({said}): nothing was written; report this bug")
    if reading and code in (_CANTOPEN, _READONLY, _PERM, _AUTH, _IOERR):
        return errors.JournalUnreadableError(
            f"cannot read {name} ({said}): run as the daemon's user, or ask a running daemon (riwoactl status)"
        )
    if code == _FULL:
        return errors.JournalFullError(f"no space left for {name}: free some space, then start again; nothing is lost")
    if code in (_IOERR, _CANTOPEN) and (passing := _passing(name)) is not None:
        return passing
    if code in (_CANTOPEN, _READONLY, _PERM, _AUTH):
        return errors.JournalUnwritableError(
            f"cannot write {name} ({said}): create its directory and make it writable for this user"
        )
    if code == _IOERR:
        return errors.JournalUnwritableError(f"input/output error on {name}: check the disk (dmesg), then start again")
    return errors.StorageError(f"{name}: {said}")


def _passing(name: str) -> Exception | None:
    """What of an input/output error passes or can be mended: SQLite does not tell its cause, so it is looked for."""
    from riwoa_storage import errors, fault

    try:
        _try_to_write(name)
    except OSError as error:
        why = fault.reason(error, name)
        if fault.is_full(error):
            return errors.JournalFullError(
                f"no space left for {name} ({why}): free some space or raise the quota; nothing is lost"
            )
        if fault.fault(error) == fault.WAIT:
            return errors.JournalFullError(f"cannot write {name} at the moment ({why}): try again; nothing is lost")
    return None


_LEAST_PROBE_BYTES = 4 << 20


def _try_to_write(name: str) -> None:
    """Write a page beside the journal, at the offset where its files would grow, and flush it.

    Raises:
        OSError: what keeps a file there from being written: no space, a quota, a limit of this process on files' sizes.
    """
    import errno
    from pathlib import Path

    from riwoa_storage.durable import new_file

    space = os.statvfs(os.path.dirname(name))
    if space.f_bavail * space.f_frsize < 64 << 10:  # less than SQLite's shared-memory file grows by
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    files = [name, f"{name}-wal", f"{name}-shm"]
    # A log that was rolled back no longer shows how far it had grown.
    end = max(_LEAST_PROBE_BYTES, *(os.path.getsize(file) if os.path.exists(file) else 0 for file in files))
    probe = new_file(Path(name))
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, bytes(4096), end)  # a hole before it: this takes one page
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        probe.unlink()

"""A consistent copy of a journal beside its live writer, and room made in one that nobody writes."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from riwoa_storage.connect import (
    APPLICATION_ID,
    BUSY_TIMEOUT_S,
    WRITER_PRAGMAS,
    connect_reader,
    file_uri,
    journal_path,
    translate,
)
from riwoa_storage.durable import flush
from riwoa_storage.errors import JournalCorruptError, JournalUnwritableError
from riwoa_storage.replay import Verification, verify


def backup(path: Path, out: Path) -> Verification:
    """Copy one committed state of the journal to ``out``, verify the copy, and only then give it its name.

    A damaged adapter is copied as it is: a search can do without it, and ``verify`` tells.

    What a power cut leaves is the whole copy or none (fsync before and after the rename). A live writer goes on
    meanwhile; its log grows until the copy is made.

    Raises:
        JournalUnwritableError: ``out`` exists, or cannot be written.
        JournalCorruptError: the journal is damaged; there is no copy of it then.
        StorageError: the journal cannot be read.
    """
    if out.exists() or out.is_symlink():  # the journal itself too, by whatever name
        raise JournalUnwritableError(f"{out} exists: name another file, or move it away")
    _remove_left_over(out)
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
        for left in (part, *(part.with_name(part.name + suffix) for suffix in _SUFFIXES)):
            with contextlib.suppress(OSError):
                left.unlink()
    return verified


def unfinished_backups(folder: Path, name: str | None = None) -> list[Path]:
    """What killed backups left in a folder (of copies of this name): ours by name, by content, and nobody's work."""
    found = []
    for part in sorted(folder.glob(f".{'*' if name is None else glob.escape(name)}.*.part")):
        pid = part.suffixes[-2].removeprefix(".")
        if pid.isdecimal() and not os.path.exists(f"/proc/{pid}") and _is_journal(part):
            found += [part, *filter(Path.exists, (part.with_name(part.name + suffix) for suffix in _SUFFIXES))]
    return found


def _remove_left_over(out: Path) -> None:
    with contextlib.suppress(OSError):
        for left in unfinished_backups(out.parent, out.name):
            left.unlink(missing_ok=True)


def _is_journal(file: Path) -> bool:
    """Whether a regular file is a journal by its header, or an empty beginning of one."""
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as opened:
        header = opened.read(72)
    return not header or header[68:72] == APPLICATION_ID.to_bytes(4, "big")


_SUFFIXES = ("-wal", "-shm", "-journal")


def _verified(copy: Path, of: Path) -> Verification:
    """Verify a copy; where it is damaged, the error names the original."""
    try:
        return verify(copy, adapters=False)
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
            db.execute("BEGIN IMMEDIATE")
            kept = _in_service(db, adapters)
            marks = ",".join("?" * len(kept))
            db.execute(f"UPDATE adapters SET weights = NULL WHERE adapter_id NOT IN ({marks})", kept)
            db.execute("COMMIT")
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

        _execute(db, work, name)
    return before, os.stat(name).st_size


def reclaimable_bytes(path: Path, *, adapters: int = 2) -> int:
    """About how many bytes ``compact`` would give back.

    Raises:
        StorageError: the journal is missing, damaged or cannot be read.
    """
    with closing(connect_reader(path)) as db:
        try:
            kept = _in_service(db, adapters)
            marks = ",".join("?" * len(kept))
            (weights,) = db.execute(
                f"SELECT total(length(weights)) FROM adapters WHERE adapter_id NOT IN ({marks})", kept
            ).fetchone()
            ((pages,), (page_bytes,)) = (
                db.execute(f"PRAGMA {of}").fetchone() for of in ("freelist_count", "page_size")
            )
        except sqlite3.Error as error:
            raise translate(error, journal_path(path), reading=True) from error
    return int(weights) + int(pages) * int(page_bytes)


def _in_service(db: sqlite3.Connection, most: int) -> list[int]:
    """Ids of the last ``most`` adapters of each run that a search would use: accepted, whole, not refused.

    And of those that a run that goes on was begun with.
    """
    told = db.execute("SELECT run_id, payload FROM events WHERE kind = 'adapter_unusable'").fetchall()
    payloads = [(run, json.loads(payload)) for run, payload in told]
    refused = {(run, payload.get("sha256")) for run, payload in payloads if payload.get("refused")}
    pinned = set[str | None]()
    for (provenance,) in db.execute("SELECT provenance FROM runs WHERE status = 'running'"):
        inherited = json.loads(provenance).get("adapter") or {}
        pinned |= {inherited.get("sha256"), inherited.get("anchor")}
    kept: dict[int, list[int]] = {}
    rows = db.execute(
        "SELECT run_id, adapter_id, sha256, weights FROM adapters "
        "WHERE status <> 'rejected' AND weights IS NOT NULL ORDER BY adapter_id DESC"
    )
    for run, adapter_id, digest, weights in rows:
        whole = hashlib.sha256(weights).hexdigest() == digest
        useful = whole and (run, digest) not in refused
        if useful and (digest in pinned or len(kept.setdefault(run, [])) < most):
            kept.setdefault(run, []).append(adapter_id)
    return [adapter_id for ids in kept.values() for adapter_id in ids]


def _execute(db: sqlite3.Connection, work: Callable[[sqlite3.Connection], object], name: str) -> None:
    try:
        work(db)
    except sqlite3.Error as error:
        raise translate(error, name) from error

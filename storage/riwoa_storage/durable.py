"""Files that survive a power cut whole or not at all, as far as the disk honours fsync."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from riwoa_storage.failpoint import failpoint
from riwoa_storage.fault import LACKING, fault, reason

_log = logging.getLogger(__name__)
_told: set[str] = set()  # directories whose file system was named


def replace_durably(path: Path, data: bytes) -> None:
    """Have a file hold these bytes: written beside, flushed to the disk, renamed, the directory flushed."""
    with replacement(path) as stream:
        stream.write(data)


@contextlib.contextmanager
def replacement(path: Path) -> Iterator[BinaryIO]:
    """A new file to write to, which takes the place of ``path`` durably in the end; where writing fails, it is gone."""
    temporary = new_file(path)
    try:
        with temporary.open("wb") as stream:
            yield stream
        flush(temporary)
        failpoint("durable.before_rename")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    failpoint("durable.after_rename")
    flush(path.parent)


def new_file(beside: Path) -> Path:
    """An empty file with a name of its own beside another: what lies there already is somebody's."""
    while True:
        name = beside.with_name(f".{beside.name}.{secrets.token_hex(4)}.tmp")
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            continue
        return name


def flush(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, durable.

    A directory's flush is a courtesy: some file systems keep names in order by themselves and have no such thing. There
    it is left out, with a warning a directory; what a power cut leaves is then as that file system has it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if fault(error) != LACKING or not path.is_dir():
            raise
        if str(path) not in _told:
            _told.add(str(path))
            _log.warning(
                "%s cannot be flushed (%s): a power cut may undo what was named last", path, reason(error, path)
            )
    finally:
        os.close(descriptor)

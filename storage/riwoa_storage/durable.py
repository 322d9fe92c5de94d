"""Files that survive a power cut whole or not at all, as far as the disk honours fsync."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from riwoa_storage.failpoint import failpoint


def replace_durably(path: Path, data: bytes) -> None:
    """Write beside, flush to the disk, rename, flush the directory."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        flush(temporary)
        failpoint("durable.before_rename")
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    failpoint("durable.after_rename")
    flush(path.parent)


def flush(path: Path) -> None:
    """Make the bytes of a file, or the names in a directory, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

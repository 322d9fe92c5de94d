"""What a file is by its content: names say little, and what is no regular file must not hold the reader up."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path
from typing import IO

ZIP = b"PK"  # of every zip archive, and so of an .npz file and of what torch saves
_LOOKED_AT_BYTES = 4096


def opened_regular(path: Path) -> IO[bytes]:
    """The file, open. What was a file when it was listed may be a pipe by now: opening that must not wait.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file.
    """
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise ValueError("no regular file")
    return stream


def beginning(path: Path) -> bytes:
    """The first bytes of a regular file; none of anything else, and of what cannot be read."""
    try:
        with opened_regular(path) as stream:
            return stream.read(_LOOKED_AT_BYTES)
    except (OSError, ValueError):
        return b""


def is_text(start: bytes) -> bool:
    """Whether a file that begins so is text in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # whose last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in start

"""What a file is by its content: names say little, and what is no regular file must not hold the reader up."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import IO

from riwoa.errors import InputError
from riwoa.files.ownership import opened_file

ZIP = b"PK"  # of every zip archive, and so of an .npz file and of what torch saves
_LOOKED_AT_BYTES = 4096


def opened_regular(path: Path) -> IO[bytes]:
    """One of many files, open; what is wrong with it is said in words that name no path.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file.
    """
    try:
        return opened_file(path)
    except InputError:
        raise ValueError("no regular file") from None


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

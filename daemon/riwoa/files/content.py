"""Recognises files by their content, and opens regular files alone, so that no pipe or device holds a reader up."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import IO

from riwoa.errors import InputError
from riwoa.files.ownership import opened_file

ZIP = b"PK"  # of every zip archive, and so of an .npz file and of what torch saves
_LOOKED_AT_BYTES = 4096


def opened_regular(path: Path) -> IO[bytes]:
    """Open one of many files to be read; the message of an error names no path.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file.
    """
    try:
        return opened_file(path)
    except InputError:
        raise ValueError("no regular file") from None


def beginning(path: Path) -> bytes:
    """The first bytes of a regular file; b"" for anything else, and for what cannot be read."""
    try:
        with opened_regular(path) as stream:
            return stream.read(_LOOKED_AT_BYTES)
    except (OSError, ValueError):
        return b""


def is_text(start: bytes) -> bool:
    """Whether a file that begins with these bytes is text in UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # whose last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\0" not in start

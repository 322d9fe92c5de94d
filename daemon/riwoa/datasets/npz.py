"""Arrays of an ``.npz`` file from anywhere: nothing is unpickled, and nothing read before its header was checked."""

from __future__ import annotations

import contextlib
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.errors import InputError
from riwoa.files.ownership import opened_file

_MAX_REASON_CHARACTERS = 120  # numpy quotes whole headers
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


@dataclass(frozen=True, slots=True)
class Header:
    """What an array's header declares."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start_bytes: int  # of the values, behind the header

    @property
    def size_bytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; whatever reading it raises becomes one InputError."""
    try:
        with opened_file(path) as stream, zipfile.ZipFile(stream) as archive:
            yield archive
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:_MAX_REASON_CHARACTERS]
        raise InputError(f"{path} is no intact .npz file ({reason}); write it with numpy.savez") from error


def names(archive: zipfile.ZipFile) -> list[str]:
    """Names of the arrays."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def header(archive: zipfile.ZipFile, name: str, path: Path) -> Header:
    """The array's header, checked against the room that the archive declares for it; nothing else is read.

    Raises:
        InputError: not a plain array of numbers in row order, or not as large as it says.
    """
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):  # what numpy writes for plain arrays; its header is < 64 KiB
            raise InputError(f"{path}: {name} is no plain array; write it with numpy.savez")
        try:
            shape, column_major, dtype = np.lib.format.read_array_header_1_0(stream)
        # Of numpy's parsers, beside ValueError.
        except (SyntaxError, TypeError, MemoryError, RecursionError, OverflowError, tokenize.TokenError):
            raise ValueError(f"the header of {name} is damaged") from None
        if not all(type(length) is int for length in shape):  # numpy lets truth values pass
            raise ValueError(f"the header of {name} is damaged")
        found = Header(tuple(shape), dtype, stream.tell())
    if dtype.hasobject:
        raise InputError(f"{path}: {name} holds pickled objects, which are never loaded; make it an array of numbers")
    if column_major and len(shape) > 1:
        raise InputError(f"{path}: {name} is stored column by column; save numpy.ascontiguousarray({name})")
    if min(shape, default=0) < 0 or found.start_bytes + found.size_bytes != member.file_size:
        raise InputError(f"{path}: {name} declares {shape}, which is not what the file holds; write it again")
    return found


def values(archive: zipfile.ZipFile, name: str) -> Any:
    """The array, whole; its header must have been checked."""
    with archive.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)

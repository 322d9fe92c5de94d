"""Files that a user named: what may be read, and what may be replaced.

Nothing is replaced or removed that riwoa did not make. That is told by what lies in a file, or by a marker inside a
directory, and never by a name. ``riwoactl status`` imports this, so it imports nothing that is slow to start.
"""

from __future__ import annotations

import os
import stat

from riwoa.errors import FullDiskError, InputError, RiwoaError, StateDirectoryError, UsageError
from riwoa.parsing import MOST_JSON_BYTES, parse_json_object, read_once
from riwoa_storage.fault import is_full, reason

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import BufferedReader
    from pathlib import Path
    from typing import Any

_OTHERS_MAY_NOT_WRITE = 0o022
_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def deny_writing_to_others() -> None:
    """Set the umask so that nobody but the user may write what this process, or a child of it, makes."""
    os.umask(os.umask(0o077) | _OTHERS_MAY_NOT_WRITE)


def unwritable(path: str | os.PathLike[str], error: OSError, hint: str) -> RiwoaError:
    """The error to raise where something cannot be written; its message names the file system."""
    kind = FullDiskError if is_full(error) else StateDirectoryError
    hint = f"free some space, or {hint}" if is_full(error) else hint
    return kind(f"cannot write {os.fspath(path)} ({reason(error, path)}); {hint}")


# -- reading ---------------------------------------------------------------------------------------------------------


def regular_file(path: Path) -> Path:
    """The path itself, for a library that opens it and knows what to say where nothing lies.

    Raises:
        InputError: it is something that would block its reader, or never end: a pipe, a device, a directory.
    """
    if (kind := irregular(path)) is not None:
        raise InputError(f"{path} is {kind}; name a file")
    return path


def opened_file(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file to be read; a pipe that has taken its place meanwhile is not waited for.

    Raises:
        OSError: it cannot be opened.
        ValueError: its name has a NUL.
        InputError: as ``regular_file``.
    """
    kind = irregular(path)  # before it is opened: to open a device may do something
    if kind is None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        kind = _kind(os.fstat(descriptor).st_mode)
        if kind is None:
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
    raise InputError(f"{os.fspath(path)} is {kind}; name a file")


def irregular(path: str | os.PathLike[str]) -> str | None:
    """In words, what lies at a path instead of a file; None for a file, and where nothing lies."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    return _kind(mode)


def _kind(mode: int) -> str | None:
    if stat.S_ISREG(mode):
        return None
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "no file")


def json_object(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object that a JSON file holds; empty where it is missing, damaged or something else."""
    try:
        content, _ = read_once(path, MOST_JSON_BYTES)
        return parse_json_object(content)
    except (OSError, ValueError):
        return {}


def safetensors_notes(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The metadata of a safetensors file; empty where there is none."""
    try:
        with opened_file(path) as stream:
            length = int.from_bytes(stream.read(8), "little")
            notes = parse_json_object(stream.read(min(length, MOST_JSON_BYTES))).get("__metadata__", {})
    except (OSError, ValueError, InputError):
        return {}
    return notes if isinstance(notes, dict) else {}


def begins_with(path: str | os.PathLike[str], start: bytes) -> bool:
    """Whether a file begins with these bytes, or with as many of them as were written before a kill."""
    with open(path, "rb") as stream:
        return start.startswith(stream.read(len(start)))


# -- writing ---------------------------------------------------------------------------------------------------------


def output_file(
    out: Path,
    what: str,
    made: Callable[[Path], bool],
    *,
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    option: str = "--out",
) -> Path:
    """The file to write for ``out``: the one behind a symbolic link, so that the link stays.

    Args:
        out: as the user named it.
        what: is written, for the message.
        made: whether an existing file is such a one of riwoa's, and may be replaced.
        inputs: what is read meanwhile, where something is.
        option: that named it.

    Raises:
        UsageError: something lies there that is not riwoa's to replace.
    """
    from pathlib import Path

    place = Path(os.path.realpath(out))
    if any(given is not None and same_place(given, place) for given in inputs):
        raise UsageError(f"{option} {out} is read by this very command; name another file")
    if (kind := irregular(place)) is not None:
        raise UsageError(f"{option} {out} is {kind}; name a file")
    if place.exists() and place.stat().st_size > 0 and not made(place):
        raise UsageError(f"{option} {out} holds something else than {what}, and stays as it is; name another file")
    return place


def output_directory(out: Path, made: Callable[[Path], bool], *, option: str = "--out") -> Path:
    """The directory to write for ``out``, which does not exist yet, or is empty, or riwoa's.

    Raises:
        UsageError: it is a file, or holds something else.
    """
    from pathlib import Path

    place = Path(os.path.realpath(out))
    if place.exists() and not place.is_dir():
        raise UsageError(f"{option} {out} is a file; name a directory")
    if place.is_dir() and any(place.iterdir()) and not made(place):
        raise UsageError(f"{option} {out} holds files of something else; name an empty directory")
    return place


def same_place(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to the same file or directory, however they are spelt."""
    try:
        return os.path.samefile(one, other)
    except ValueError:  # a NUL in the name
        return False
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)

"""Results of an experiment that may be killed at any moment: a file of JSON lines that is only ever appended to.

A line is on the disk before ``append`` returns, as far as the disk honours fsync. What a kill or a power cut tore is at
most the last line; it is passed over, and what follows never glues to it. Each line is one write at the file's end, so
lines of two processes do not mix; whoever must be alone holds a lock of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from riwoa.errors import RiwoaError
from riwoa.files.ownership import begins_with, opened_file, output_file, unwritable
from riwoa.parsing import parse_json_object
from riwoa_storage.durable import flush


class ResultFile:
    """JSON objects, one a line, in the order in which they came.

    Args:
        path: of the file, as the user named it; made with its directory where there is none.
        what: its content in words, for a message.
        start: the bytes that every such file begins with: the first key of its objects.

    Raises:
        UsageError: something lies there that is not such a file.
        StateDirectoryError: it cannot be written (FullDiskError where there is no room).
    """

    def __init__(self, path: Path, what: str, start: bytes) -> None:
        self._path = output_file(path, what, partial(begins_with, start=start))
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = not self._path.exists()
            self._stream = self._path.open("ab", buffering=0)
            if new:
                flush(self._path.parent)
            self._end_torn_line()
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing depends on it."""
        self._stream.close()

    def rows(self) -> Iterator[dict[str, Any]]:
        """The objects in the file; a line that holds none is passed over."""
        with opened_file(self._path) as lines:
            for line in lines:
                try:
                    yield parse_json_object(line)
                except ValueError:
                    continue

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an object, durably.

        Raises:
            StateDirectoryError: it cannot be written (FullDiskError where there is no room).
        """
        try:
            self._write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:  # a disk that fills up takes a part before it says so
            left = left[self._stream.write(left) :]
        os.fsync(self._stream.fileno())

    def _end_torn_line(self) -> None:
        """Keep what follows apart from a line that has no end; where that is the whole file, make it empty."""
        with self._path.open("rb") as stream:
            first = stream.readline()
            if first.endswith(b"\n"):
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":
                    self._write(b"\n")
            elif first:  # the file would not be known as ours by a beginning of its first line
                self._stream.truncate(0)

    def _unwritable(self, error: OSError) -> RiwoaError:
        return unwritable(self._path, error, "name another --out")

"""Adapters as files, for the model's process: copies of what the journal holds, checked against their names.

The journal is the truth; a copy that is missing or damaged is written again from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from riwoa.errors import AdapterError
from riwoa_storage.durable import replace_durably
from riwoa_storage.reader import JournalReader

_KEPT = 4  # copies; older ones can be made again
_OURS = re.compile("[0-9a-f]{64}|training")  # what files are called here
Stored = Callable[[str], bytes | None]  # sha256 -> weights


class AdapterFiles:
    """The directory of copies, ``<sha256>.safetensors``.

    Args:
        directory: where they lie; made on first use. ``StatePaths.name("cache/adapters")``.
        stored: looks an adapter's bytes up (``journaled``); None where they are not to be had.
    """

    def __init__(self, directory: Path, stored: Stored) -> None:
        self._directory = directory
        self._stored = stored

    def new(self) -> Path:
        """Where a training writes its weights; one training at a time."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for left in self._directory.glob(".*.safetensors.*.tmp"):  # of processes that were killed while they wrote
            if _OURS.fullmatch(left.name.split(".")[1]):
                left.unlink(missing_ok=True)
        return self._directory / "training.safetensors"

    async def file(self, sha256: str) -> Path:
        """The file of an adapter, whole.

        Raises:
            AdapterError: neither a good copy nor good bytes in the journal.
        """
        return await asyncio.to_thread(self._file, sha256)

    async def content(self, sha256: str) -> bytes:
        """The bytes of an adapter, whole.

        Raises:
            AdapterError: as ``file``.
        """
        return await asyncio.to_thread(lambda: self._file(sha256).read_bytes())

    async def take(self, path: Path, sha256: str) -> bytes:
        """The weights that a training wrote to ``path``, which is then gone; a copy is kept.

        Raises:
            AdapterError: the file is missing or not the one that the training speaks of.
        """
        return await asyncio.to_thread(self._take, path, sha256)

    def _file(self, sha256: str) -> Path:
        path = self._path(sha256)
        if _digest(path) != sha256:
            data = self._stored(sha256)
            if data is None or hashlib.sha256(data).hexdigest() != sha256:
                state = "gone from" if data is None else "damaged in"
                raise AdapterError(f"adapter {sha256[:12]} is {state} the journal")
            self._write(path, data)
        path.touch()  # used: not the next one to go
        return path

    def _take(self, path: Path, sha256: str) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise AdapterError(f"the training left no weights: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise AdapterError("the training's weights are not those that it reported")
        self._write(self._path(sha256), data)
        path.unlink(missing_ok=True)
        return data

    def _path(self, sha256: str) -> Path:
        return self._directory / f"{sha256}.safetensors"

    def _write(self, path: Path, data: bytes) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        replace_durably(path, data)
        copies = sorted(self._directory.glob("?" * 64 + ".safetensors"), key=lambda p: p.stat().st_mtime_ns)
        for old in copies[:-_KEPT]:
            if _digest(old) == old.stem:  # a copy indeed
                old.unlink(missing_ok=True)


def journaled(journal_path: Path) -> Stored:
    """Looks adapters up in a journal, by a connection of its own."""

    def stored(sha256: str) -> bytes | None:
        found = None
        with JournalReader(journal_path) as reader:
            for _, name, data in reader.integrity.adapter_weights():
                if name == sha256 and data:  # of several runs, where one inherited it
                    found = data
                    if hashlib.sha256(data).hexdigest() == sha256:
                        break
        return found

    return stored


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None

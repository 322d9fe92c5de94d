"""What may go of a state directory: what killed processes left, copies that nothing needs, and caches.

Nothing here is what a resume, ``verify``, ``why`` or ``dump`` reads: the journal, the latency table, the supernet and
the exports stay. A file is told by its place and its form, and by its content where it has one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from riwoa.datasets.decoding import CachedPictures, cache_directory
from riwoa.files.lock import is_held
from riwoa.files.staging import MARKER, finish_left
from riwoa.paths import StatePaths
from riwoa_storage.backup import unfinished_backups
from riwoa_storage.reader import JournalReader

KEPT_BACKUPS = 7
_OLD_S = 3_600.0
_BACKUPS = "backups"  # where riwoa-backup.service lays them
_BACKUP = re.compile(r"riwoa-[0-9]{8}-[0-9]{6}\.db")  # of `riwoactl backup --into`
_STAGING = re.compile(r"\.(?P<target>export.*)\.[0-9a-f]{8}\.riwoa")
_UNWRITTEN = re.compile(  # what ``riwoa_storage.durable`` writes beside a file before it takes its place
    r"\.(supernet\.safetensors|finetuned\.safetensors|latency_lut\.json|init\.json)\.[0-9a-f]{8}\.tmp"
)
_COPY = re.compile(r"(?P<sha256>[0-9a-f]{64})\.safetensors")
_LEFT_ADAPTER = re.compile(r"training\.safetensors|\.(training|[0-9a-f]{64})\.safetensors\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something that may go.

    Attributes:
        path: of a file, or of a directory with all that is in it.
        size_bytes: of what goes.
        why: what it is, and why nobody misses it.
        remove: takes it away; raises OSError where that fails.
    """

    path: Path
    size_bytes: int
    why: str
    remove: Callable[[], object]


def find_leftovers(paths: StatePaths, *, kept_backups: int = KEPT_BACKUPS, caches: bool = False) -> list[Leftover]:
    """Everything that may go, looked at without changing anything.

    Args:
        paths: of the state directory; nobody writes in it when something of this is removed.
        kept_backups: how many of the newest backups stay.
        caches: also what is made again when it is needed, which takes time.

    Raises:
        StorageError: the journal cannot be read, so nobody knows what its runs need.
    """
    state = paths.state
    found = [
        *_staging(state),
        *_unwritten(state),
        *_trained(paths),
        *(_of(part, "a backup that was killed before it was whole") for part in unfinished_backups(state)),
        *_backups(state / _BACKUPS, kept_backups),
        *_adapters(paths, caches=caches),
    ]
    return [*found, *(_pictures(state) if caches else ())]


def backups_beyond(folder: Path, keep: int) -> list[Path]:
    """All but the newest backups in a folder; their names tell their age."""
    copies = sorted(file for file in _files(folder) if _BACKUP.fullmatch(file.name))
    return copies[: max(0, len(copies) - keep)]


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder, links left alone; none where it is not there."""
    if folder.is_dir():
        yield from (file for file in sorted(folder.iterdir()) if file.is_file() and not file.is_symlink())


def _of(path: Path, why: str) -> Leftover:
    return Leftover(path, path.stat().st_size, why, partial(path.unlink, missing_ok=True))


def _staging(state: Path) -> Iterator[Leftover]:
    """Exports that were killed; the one that stood there before comes back, if it stepped aside."""
    for place in sorted(state.iterdir()):
        named = _STAGING.fullmatch(place.name)
        if named is None or not (place / MARKER).is_file() or is_held(place / MARKER):
            continue
        from riwoa.export import made_export  # a second, where there is such a one

        finish = partial(finish_left, state / named["target"], made_export)
        yield Leftover(place, _tree_bytes(place), "an export that was killed before it was whole", finish)


def _unwritten(state: Path) -> Iterator[Leftover]:
    """What is old enough that nobody is at it any more: its writer may be a process without the directory's lock."""
    before = time.time() - _OLD_S
    for file in _files(state):
        if _UNWRITTEN.fullmatch(file.name) and file.stat().st_mtime < before:
            yield _of(file, "half written by a process that was killed")
    for folder in sorted(state.glob(".riwoa-doctor-*")):
        if folder.is_dir() and not folder.is_symlink() and folder.stat().st_mtime < before:
            yield Leftover(folder, _tree_bytes(folder), "a trial of `riwoactl doctor`", partial(shutil.rmtree, folder))


def _trained(paths: StatePaths) -> Iterator[Leftover]:
    """States of trainings that ended: each is older than the file that came of it."""
    for written in (paths.supernet, paths.finetuned):
        state = written.with_name(f"{written.name}.training.pt")
        if state.is_file() and written.is_file() and state.stat().st_mtime_ns <= written.stat().st_mtime_ns:
            yield _of(state, f"the state of a training that has ended: {written.name} came of it")


def _backups(folder: Path, keep: int) -> Iterator[Leftover]:
    for part in unfinished_backups(folder):
        yield _of(part, "a backup that was killed before it was whole")
    for copy in backups_beyond(folder, keep):
        yield _of(copy, f"a backup older than the newest {keep}")


def _adapters(paths: StatePaths, *, caches: bool) -> Iterator[Leftover]:
    """Copies of adapters, which the journal holds: those of no run that goes on, and with the caches the others."""
    folder = Path(paths.name("cache")) / "adapters"
    with JournalReader(paths.journal) as reader:
        unfinished = [run.run_id for run in reader.runs() if run.status == "running"]
        used = {a.sha256: a.adapter_id for run_id in unfinished for a in reader.adapters(run_id, weights=False)}
        for file in _files(folder):
            copy = _COPY.fullmatch(file.name)
            if _LEFT_ADAPTER.fullmatch(file.name):
                yield _of(file, "left by a training that was killed")
            elif copy is None or hashlib.sha256(file.read_bytes()).hexdigest() != copy["sha256"]:
                continue  # not riwoa's, or damaged
            elif copy["sha256"] not in used:
                yield _of(file, "a copy of an adapter; no run that goes on uses it")
            elif caches and reader.weights(used[copy["sha256"]]) is not None:
                yield _of(file, "a copy of an adapter, made again from the journal")


def _pictures(state: Path) -> Iterator[Leftover]:
    """Decoded pictures: of this user, and of a service that keeps them in its state directory."""
    for folder in dict.fromkeys((cache_directory(), state / "riwoa" / "pictures")):
        if found := CachedPictures.all_in(folder):
            why = (
                f"decoded pictures, {len(found)} set{'s' * (len(found) > 1)}, decoded again by the next search on them"
            )
            size_bytes = sum(_bytes(cached.files) for cached in found)
            yield Leftover(folder, size_bytes, why, partial(_remove_all, found))


def _remove_all(found: Sequence[CachedPictures]) -> None:
    for cached in found:
        cached.remove()


def _tree_bytes(folder: Path) -> int:
    """Bytes that go with a folder: a file with another name elsewhere stays."""
    return _bytes(Path(place, name) for place, _, names in os.walk(folder) for name in names)


def _bytes(files: Iterable[Path]) -> int:
    found = (file.lstat() for file in files)
    return sum(status.st_size for status in found if status.st_nlink == 1)

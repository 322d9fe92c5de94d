"""Replaces a directory as a whole, without losing what a user laid into it.

Meanwhile one hidden directory with a name of its own lies beside the target: ``new/`` is filled there, ``old/`` is what
stood in the target's place. A marker inside says that riwoa made it, and is locked while its maker lives: what a killed
process left is finished, or taken away, by the next one. Nothing without that marker is touched, whatever its name.

Linux renames no directory over a full one, so the old one steps aside first; a power cut in between leaves neither in
place, and the next call brings the old one back before it begins. A directory that is there and empty is filled
instead, for it may be where a shell stands, or where a disk is mounted; what a kill left half filled, the next call
fills to the end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from riwoa.errors import StateDirectoryError, UsageError
from riwoa.files.lock import Lock
from riwoa.files.ownership import json_object
from riwoa_storage.durable import flush
from riwoa_storage.failpoint import failpoint

MARKER = ".riwoa"
_FILLING = "filling"  # beside the marker, while an empty target is filled
_TRIES = 10
Made = Callable[[Path], Collection[str] | None]  # what riwoa wrote into a directory, None where it is not riwoa's


@contextmanager
def replacing(target: Path, made: Made) -> Iterator[Path]:
    """An empty directory that takes the place of ``target`` once the block has filled it.

    Files that lie in ``target`` and are not ``made`` by riwoa lie in the new one too, hard links to the same bytes.

    Raises:
        UsageError: one of those has a name that the block gave to a file of its own.
        StateDirectoryError: nothing can be locked beside ``target``.
        OSError: ``target`` cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    finish_left(target, made)
    with _new_place(target) as place:
        try:
            new = place / "new"
            new.mkdir(mode=0o755)
            yield new
            _carry(target, new, made)
            _put_in_place(place, target)
        finally:
            _tidy(place, target, made)


def made_here(directory: Path) -> Collection[str] | None:
    """The files that ``write_list`` listed; a ``Made`` for directories that have no list of their own."""
    listed = json_object(directory / MARKER).get("files")
    return [MARKER, *map(str, listed)] if isinstance(listed, list) else None


def write_list(directory: Path) -> None:
    """Mark a directory as riwoa's, and list the files that are in it now."""
    names = [path.relative_to(directory).as_posix() for path in sorted(directory.rglob("*")) if path.is_file()]
    (directory / MARKER).write_text(json.dumps({"files": names}))
    flush(directory / MARKER)


def claim(directory: Path, recognised: Callable[[Path], bool] = lambda path: False) -> None:
    """Make a directory for work that another process may continue, or check that it is such a one.

    Raises:
        StateDirectoryError: it holds something else.
        OSError: it cannot be written.
    """
    if directory.exists() and not (directory / MARKER).is_file() and not recognised(directory):
        if not directory.is_dir() or any(directory.iterdir()):
            raise StateDirectoryError(f"{directory} was not made by riwoa; move it away, or rename it")
    directory.mkdir(exist_ok=True, mode=0o755)
    (directory / MARKER).touch()


@contextmanager
def _new_place(target: Path) -> Iterator[Path]:
    """A new directory beside ``target``, marked and locked, so that no other process takes it for one left behind."""
    for _ in range(_TRIES):
        place = target.with_name(f".{target.name}.{secrets.token_hex(4)}.riwoa")
        place.mkdir(mode=0o755)
        with Lock(place / MARKER) as lock:
            if lock.take() and (place / MARKER).exists():
                yield place
                return
        shutil.rmtree(place, ignore_errors=True)
    raise StateDirectoryError(f"nothing can be locked in {target.parent}; name another directory")


def _carry(target: Path, new: Path, made: Made) -> None:
    """Link what is not riwoa's into the new directory; what cannot be linked is moved over later."""
    names = (made(target) or ()) if target.is_dir() else ()
    parents = {parent for name in names for parent in Path(name).parents}
    for relative in _contents(target):
        here, there = target / relative, new / relative
        if str(relative) in names or relative in parents:
            continue
        directory = here.is_dir() and not here.is_symlink()
        if os.path.lexists(there) and not (directory and there.is_dir()):
            raise UsageError(f"{here} is not riwoa's, and would be replaced; move it away, or name another directory")
        if directory:
            there.mkdir(exist_ok=True)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # a file system without links
                os.link(here, there, follow_symlinks=False)


def _contents(directory: Path) -> Iterator[Path]:
    """The paths of everything below a directory, relative to it, each directory before what it holds."""
    for folder, directories, files in os.walk(directory):
        for name in (*directories, *files):
            yield Path(folder, name).relative_to(directory)


def _put_in_place(place: Path, target: Path) -> None:
    new, old = place / "new", place / "old"
    for folder in (new, *(new / path for path in _contents(new) if (new / path).is_dir())):
        flush(folder)
    failpoint("export.before_rename")
    if target.is_dir() and not any(target.iterdir()):
        (place / _FILLING).touch()
        flush(place)
        _fill(target, new)
        failpoint("export.after_rename")
        return
    if target.exists():
        target.rename(old)
        failpoint("export.between_renames")
    new.rename(target)
    failpoint("export.after_rename")
    flush(target.parent)


def _fill(target: Path, new: Path) -> None:
    """Copy everything into ``target``, which may be another disk; a file that was half copied is copied again."""
    for relative in _contents(new):
        here, there = new / relative, target / relative
        if here.is_dir():
            there.mkdir(exist_ok=True)
            continue
        shutil.copyfile(here, there)
        failpoint("export.filling")
        there.chmod(here.stat().st_mode & 0o777)
        flush(there)
    for folder in (target, *(target / path for path in _contents(new) if (target / path).is_dir())):
        flush(folder)


def finish_left(target: Path, made: Made) -> None:
    """Finish or remove what killed processes left beside ``target``; what living ones work on stays.

    Raises:
        OSError: it cannot be written there.
    """
    if not target.parent.is_dir():
        return
    for place in target.parent.iterdir():
        ours = place.name.startswith(f".{target.name}.") and place.suffix == ".riwoa" and (place / MARKER).is_file()
        if not ours:
            continue
        with Lock(place / MARKER) as lock:
            if lock.take():
                _tidy(place, target, made)


def _tidy(place: Path, target: Path, made: Made) -> None:
    new, old = place / "new", place / "old"
    if (place / _FILLING).exists() and target.is_dir():
        _fill(target, new)
    if old.is_dir() and not os.path.lexists(target):
        old.rename(target)
    shutil.rmtree(new, ignore_errors=True)
    with contextlib.suppress(OSError):
        _empty(old, target, made(old) or ())
    if not old.exists():
        shutil.rmtree(place, ignore_errors=True)


def _empty(old: Path, target: Path, names: Collection[str]) -> None:
    """Remove what riwoa made and the other names of what lies in ``target``; whatever else is in it moves over."""
    for relative in sorted(_contents(old), reverse=True):  # what a directory holds before it
        here, there = old / relative, target / relative
        if here.is_dir() and not here.is_symlink():
            here.rmdir()
        elif str(relative) in names or _same_file(here, there):
            here.unlink()
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(_free_name(there))
    if old.is_dir():
        old.rmdir()


def _same_file(one: Path, other: Path) -> bool:
    return os.path.lexists(other) and os.path.samestat(os.lstat(one), os.lstat(other))


def _free_name(path: Path) -> Path:
    """The path, or one beside it where something else lies there, so that both are kept."""
    names = itertools.chain(("", ".kept"), (f".kept{n}" for n in itertools.count(2)))
    return next(free for name in names if not os.path.lexists(free := path.with_name(path.name + name)))

"""A disk in memory that forgets, when its power is cut, what was not synced. ``python -m tests.crash.disk FROM AT``.

The strictest reading of POSIX: bytes are safe after fsync of their file, names after fsync of a directory. Of what is
not, a cut keeps each write whole, torn at sectors, or not at all, independently of the others; names come and go in
order, as with a journaling file system. Starts with what lies in FROM; a line ``SEED OUT`` on standard input cuts the
power and writes what survived into OUT, and from then on every operation fails.
"""

from __future__ import annotations

import errno
import functools
import os
import random
import stat
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512
P_LOST, P_TORN = 0.35, 0.2  # of an unsynced write


@dataclass(eq=False)
class File:
    """A file, or a directory: its mode says which. What is not in ``synced`` is in ``unsynced``, in order."""

    mode: int
    live: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (length, None)
    owner: tuple[int, int] = (0, 0)
    mtime_ns: int = field(default_factory=time.time_ns)

    def write(self, offset: int, data: bytes) -> None:
        self.unsynced.append((offset, bytes(data)))
        _put(self.live, offset, data)
        self.mtime_ns = time.time_ns()

    def truncate(self, length: int) -> None:
        self.unsynced.append((length, None))
        _cut(self.live, length)
        self.mtime_ns = time.time_ns()

    def sync(self) -> None:
        self.synced = bytes(self.live)
        self.unsynced.clear()

    def survived(self, rng: random.Random) -> bytes:
        """What a cut leaves of it."""
        found = bytearray(self.synced)
        for offset, data in self.unsynced:
            fate = rng.random()
            if fate < P_LOST:
                continue
            if data is None:
                _cut(found, offset)
            elif fate < P_LOST + P_TORN:
                for start in range(0, len(data), SECTOR_BYTES):
                    if rng.random() < 0.5:
                        _put(found, offset + start, data[start : start + SECTOR_BYTES])
            else:
                _put(found, offset, data)
        return bytes(found)


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _cut(content: bytearray, length: int) -> None:
    if len(content) < length:
        content.extend(bytes(length - len(content)))
    del content[length:]


Names = dict[str, File]


class Disk:
    """Files by name, and what of the names is not synced yet."""

    def __init__(self, source: Path) -> None:
        self.names: Names = {"/": File(stat.S_IFDIR | 0o755)}
        for path in sorted(source.rglob("*")):
            name = "/" + str(path.relative_to(source))
            if path.is_dir():
                self.names[name] = File(stat.S_IFDIR | 0o755)
            else:
                content = path.read_bytes()
                self.names[name] = File(stat.S_IFREG | 0o644, bytearray(content), content)
        self.synced: Names = dict(self.names)
        self.unsynced: list[Callable[[Names], object]] = []
        self.dead = False

    def rename_all(self, change: Callable[[Names], object]) -> None:
        """Change names, here and, once a directory is synced, for good."""
        change(self.names)
        self.unsynced.append(change)

    def sync_names(self) -> None:
        for change in self.unsynced:
            change(self.synced)
        self.unsynced.clear()

    def cut(self, seed: int, out: Path) -> None:
        """Lose the power; what survives is written into ``out``."""
        self.dead = True
        rng = random.Random(seed)
        names = dict(self.synced)
        for change in self.unsynced[: rng.randint(0, len(self.unsynced))]:
            change(names)
        for name, file in sorted(names.items()):
            place = out / name.lstrip("/")
            if stat.S_ISDIR(file.mode):
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.survived(rng))


def _move(old: str, new: str, names: Names) -> None:
    for name in [n for n in names if n == old or n.startswith(f"{old}/")]:
        names[new + name[len(old) :]] = names.pop(name)


def _drop(name: str, names: Names) -> None:
    names.pop(name, None)


def _add(name: str, file: File, names: Names) -> None:
    names[name] = file


def serve(source: Path, mount: Path) -> None:
    """Mount, and obey standard input."""
    import mfusepy

    disk, lock = Disk(source), threading.RLock()

    def guarded(operation: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(operation)
        def run(*arguments: Any, **named: Any) -> Any:
            with lock:
                if disk.dead:
                    raise mfusepy.FuseOSError(errno.EIO)
                return operation(*arguments, **named)

        return run

    def file_of(path: str) -> File:
        if path not in disk.names:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return disk.names[path]

    def make(path: str, mode: int) -> None:
        disk.rename_all(functools.partial(_add, path, File(mode)))

    class Operations(mfusepy.Operations):  # type: ignore[misc, unused-ignore]
        use_ns = True

        @guarded
        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            file = file_of(path)
            user, group = file.owner
            return {
                **{"st_mode": file.mode, "st_size": len(file.live), "st_nlink": 1, "st_uid": user, "st_gid": group},
                **{key: file.mtime_ns for key in ("st_mtime", "st_atime", "st_ctime")},
            }

        @guarded
        def readdir(self, path: str, fh: int) -> list[str]:
            parent = path.rstrip("/")
            children = [n for n in disk.names if n != "/" and n.rpartition("/")[0] == parent]
            return [".", "..", *(n.rpartition("/")[2] for n in children)]

        @guarded
        def create(self, path: str, mode: int, fi: Any = None) -> int:
            make(path, stat.S_IFREG | stat.S_IMODE(mode))
            return 1

        @guarded
        def mkdir(self, path: str, mode: int) -> int:
            make(path, stat.S_IFDIR | stat.S_IMODE(mode))
            return 0

        @guarded
        def open(self, path: str, flags: int) -> int:
            if flags & os.O_TRUNC:
                file_of(path).truncate(0)
            return 1

        @guarded
        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return bytes(file_of(path).live[offset : offset + size])

        @guarded
        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            file_of(path).write(offset, data)
            return len(data)

        @guarded
        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            file_of(path).truncate(length)
            return 0

        @guarded
        def fsync(self, path: str, datasync: int, fh: int) -> int:
            file_of(path).sync()
            return 0

        @guarded
        def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
            disk.sync_names()
            return 0

        @guarded
        def rename(self, old: str, new: str) -> int:
            file_of(old)
            disk.rename_all(functools.partial(_move, old, new))
            return 0

        @guarded
        def unlink(self, path: str) -> int:
            file_of(path)
            disk.rename_all(functools.partial(_drop, path))
            return 0

        @guarded
        def rmdir(self, path: str) -> int:
            if any(n.startswith(f"{path}/") for n in disk.names):
                raise mfusepy.FuseOSError(errno.ENOTEMPTY)
            disk.rename_all(functools.partial(_drop, path))
            return 0

        @guarded
        def chmod(self, path: str, mode: int) -> int:
            file = file_of(path)
            file.mode = stat.S_IFMT(file.mode) | stat.S_IMODE(mode)
            return 0

        @guarded
        def chown(self, path: str, uid: int, gid: int) -> int:
            file = file_of(path)
            user, group = (
                old if new in (-1, 2**32 - 1) else new for old, new in zip(file.owner, (uid, gid), strict=True)
            )
            file.owner = (user, group)
            return 0

        @guarded
        def utimens(self, path: str, times: Any = None) -> int:
            file_of(path).mtime_ns = time.time_ns()
            return 0

        @guarded
        def statfs(self, path: str) -> dict[str, int]:
            return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 2**20, "f_bfree": 2**19, "f_bavail": 2**19}

    def obey() -> None:
        for line in sys.stdin:
            seed, _, out = line.strip().partition(" ")
            with lock:
                disk.cut(int(seed), Path(out))
            print("cut", flush=True)

    threading.Thread(target=obey, daemon=True).start()
    mfusepy.FUSE(Operations(), str(mount), foreground=True, nothreads=True, fsname="riwoa-test")


if __name__ == "__main__":
    serve(Path(sys.argv[1]), Path(sys.argv[2]))

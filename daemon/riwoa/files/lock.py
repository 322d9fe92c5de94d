"""Locks that one process holds at a time, also where a file system has none, and who holds them.

A lock goes with its process, however that dies. Three means, each where the one before is not to be had: flock, a POSIX
lock, and last the process id and start time that the file holds. ``riwoactl status`` imports this, so it imports
nothing that is slow to start.
"""

from __future__ import annotations

import os
import stat
import time

from riwoa.errors import StateDirectoryError, StateLockedError
from riwoa.files.ownership import json_object, unwritable
from riwoa_storage.fault import file_system

TYPE_CHECKING = False  # recognised by mypy; spares the import of typing
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from riwoa.paths import StatePaths

_FLOCK, _POSIX_LOCK, _PROCESS_ID = range(3)  # by what means it is known who has the lock; the first that works
_MEANS_IN_WORDS = ("flock", "a POSIX lock", "the process id in the lock file")
_MOST_BYTES = 8192
_TRIES = 10  # a reader that looks whether a daemon is alive holds the lock for an instant
_LOOK_EVERY_S = 0.2
_SETTLED_S = 0.05


class Lock:
    """A lock file, which this process holds once it has taken it; the file says who does.

    Raises:
        OSError: the file cannot be opened.
        StateDirectoryError: what lies there is no lock file of riwoa's.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = os.fspath(file)
        self._means = _FLOCK
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self.file, flags, 0o640)
        try:
            self._require_ours()
        except BaseException:
            self.close()
            raise

    def _require_ours(self) -> None:
        status = os.fstat(self._descriptor)
        small = stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES
        first = self._text().partition("\n")[0].strip() if small else ""
        if not small or (first and not first.isdigit()):
            raise StateDirectoryError(f"{self.file} is no lock file of riwoa's; name another directory")

    def _text(self) -> str:
        return _text(self._descriptor)

    @property
    def owner(self) -> str:
        """The id of the process that took the lock last, as text; "unknown" where the file does not say."""
        return self._text().split("\n")[0].strip() or "unknown"

    def take(self) -> bool:
        """Take the lock without waiting; False where another process has it."""
        taken, self._means = _take(self._descriptor, shared=False)
        if taken:
            self.tell()
        if taken and self._means == _PROCESS_ID:  # two may have found it free: it is whose word stands
            time.sleep(_SETTLED_S)
            taken = self.owner == str(os.getpid())
        return taken

    def wait(self, on_wait: Callable[[], object] = lambda: None) -> None:
        """Take the lock, however long that lasts; ``on_wait`` is called once if another process has it."""
        told = False
        while not self.take():
            if not told:
                on_wait()
            told = True
            time.sleep(_LOOK_EVERY_S)

    @property
    def warning(self) -> str | None:
        """What to tell the user where the file system has no flock; None where it has."""
        if self._means == _FLOCK:
            return None
        kind, place = file_system(self.file)
        where = f"the {kind} at {place}" if kind else self.file
        return f"no flock on {where}; {_MEANS_IN_WORDS[self._means]} must tell whether another daemon is alive"

    def tell(self, **facts: str) -> None:
        """Write into the file who holds the lock, and ``facts`` for others; on a full disk, only the lock holds."""
        lines = [str(os.getpid()), f"start={_start_ticks(os.getpid())}", *(f"{k}={v}" for k, v in facts.items())]
        data = ("\n".join(lines) + "\n").encode(errors="surrogateescape")
        try:  # never empty in between: where there are no locks, that is a free one
            os.ftruncate(self._descriptor, os.pwrite(self._descriptor, data, 0))
        except OSError:
            return

    def close(self) -> None:
        """Release the lock."""
        os.close(self._descriptor)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_of(folder: Path, doing: str, option: str) -> Lock:
    """The lock of a folder in which one process works at a time, held.

    Args:
        folder: the lock's file is ``.lock`` in it.
        doing: what the other process does there, for its error.
        option: of the command line, by which another folder is named.

    Raises:
        StateLockedError: another process has it.
    """
    lock = Lock(folder / ".lock")
    if lock.take():
        return lock
    owner = lock.owner
    lock.close()
    raise StateLockedError(f"process {owner} already {doing} {folder}; wait for it, or name another {option}")


def locked(paths: StatePaths) -> Lock:
    """Create the state directory and take its lock, which is a context manager.

    Raises:
        StateDirectoryError, FullDiskError: it cannot be created or written.
        StateLockedError: another daemon holds it; the message names the process.
    """
    _require_state(paths)
    try:
        os.makedirs(paths.directory, mode=0o750, exist_ok=True)
        lock = Lock(paths.name("lock"))
    except OSError as error:
        raise unwritable(paths.directory, error, "choose another with --state") from None
    for left in reversed(range(_TRIES)):
        if lock.take():
            return lock
        if left:
            time.sleep(0.02)
    owner = lock.owner
    lock.close()
    raise StateLockedError(
        f"process {owner} already serves {paths.directory}; `riwoactl --state {paths.directory} status` asks it"
    )


def _require_state(paths: StatePaths) -> None:
    """Refuse a directory whose status.json is not riwoa's, for a daemon would replace it."""
    status = json_object(paths.name("status.json"))
    if status and "state" not in status:
        raise StateDirectoryError(
            f"{paths.name('status.json')} is not riwoa's; name another directory for the state, with --state"
        )


def holder(paths: StatePaths) -> int | None:
    """Process id of the daemon that holds the state directory's lock; None when nobody does, 0 when it is not known."""
    return _holder(paths.name("lock"))


def is_held(file: str | os.PathLike[str]) -> bool:
    """Whether a process holds the lock of this file; nothing is written to find out."""
    return _holder(file) is not None


def _holder(file: str | os.PathLike[str]) -> int | None:
    """As ``holder``. A shared lock is tried for an instant: who takes it in this very instant must try twice."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        free, _ = _take(descriptor, shared=True)
        first = _text(descriptor).partition("\n")[0].strip()
        return None if free else int(first) if first.isdigit() else 0
    finally:
        os.close(descriptor)


def _take(descriptor: int, *, shared: bool) -> tuple[bool, int]:
    """Take the lock if it is free; returns whether it is taken now, and by what means that is known."""
    import fcntl

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    for means, lock in ((_FLOCK, fcntl.flock), (_POSIX_LOCK, fcntl.lockf)):
        try:
            lock(descriptor, kind | fcntl.LOCK_NB)
            return True, means
        except (BlockingIOError, PermissionError):  # POSIX lets lockf say either
            return False, means
        except OSError:  # none here, or one that fails: neither says that somebody has it
            continue
    return not _alive(_text(descriptor)), _PROCESS_ID


def _text(descriptor: int) -> str:
    """The text of a lock file. It is never synced, so a power cut may leave zeros of its length; they are left out."""
    try:
        return os.pread(descriptor, _MOST_BYTES, 0).replace(b"\0", b"").decode(errors="replace")
    except OSError:
        return ""


def _alive(text: str) -> bool:
    """Whether the process that wrote a lock file still lives: the same id, started at the same moment."""
    lines = text.split("\n")
    if not lines[0].strip().isdigit():
        return False
    process = int(lines[0])
    start = next((line[6:] for line in lines[1:] if line.startswith("start=")), None)
    return process != os.getpid() and start is not None and start == _start_ticks(process)


def _start_ticks(process: int) -> str | None:
    """When a process began, in clock ticks since the boot; None where there is no such process."""
    try:
        with open(f"/proc/{process}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[19].decode()  # field 22; the name before may hold anything
    except (OSError, IndexError):
        return None

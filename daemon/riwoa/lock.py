"""One daemon a state directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from riwoa.errors import StateDirectoryError, StateLockedError
from riwoa.paths import StatePaths


@contextlib.contextmanager
def locked(paths: StatePaths) -> Iterator[None]:
    """Create the state directory and hold it; an flock goes with its process, however that dies.

    Raises:
        StateDirectoryError: it cannot be created or written.
        StateLockedError: another daemon holds it; the message names the process.
    """
    try:
        paths.state.mkdir(parents=True, exist_ok=True, mode=0o750)
        handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise StateDirectoryError(
            f"the state directory {paths.state} cannot be written ({error.strerror}); choose another with --state"
        ) from None
    try:
        if not _take(handle):
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise StateLockedError(
                f"process {holder} already serves {paths.state}; `riwoactl --state {paths.state} status` asks it"
            )
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same, only its owner's name is lost
            os.ftruncate(handle, 0)
            os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    """Lock without waiting for a daemon, but for longer than riwoactl holds the lock to see whether one is there."""
    for _ in range(10):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False

"""What an error of the operating system means to a program that must not end: the one table, asked by everybody.

``WAIT``: it passes, or somebody mends it while we stay up: a full disk, a quota, too many open files.
``LACKING``: the file system cannot do this at all. Where what was asked is a courtesy (a lock besides SQLite's own, the
flush of a directory), go on and say so; where it is not, refuse and name the file system.
``REFUSED``: it will not work there, now or later: permissions, read-only media, a name that cannot be.
"""

from __future__ import annotations

import errno
import os

WAIT, LACKING, REFUSED = "wait", "lacking", "refused"

# A file may also be at its own limit (ulimit -f); to whoever writes, that is a disk which is full.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PASSING = frozenset(
    {
        *(errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETXTBSY, errno.ETIMEDOUT),
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS),
        errno.ESTALE,  # a network file system whose server came back
    }
)
_LACKING = frozenset(
    {
        *(errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENOTTY, errno.ENOLCK),
        *(errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT),
    }
)


def fault(error: OSError) -> str:
    """What an error means: ``WAIT``, ``LACKING`` or ``REFUSED``."""
    if error.errno in _FULL or error.errno in _PASSING:
        return WAIT
    return LACKING if error.errno in _LACKING else REFUSED


def is_full(error: OSError) -> bool:
    """Whether there is no room left, by the disk, a quota, or a limit of the process."""
    return error.errno in _FULL


def reason(error: OSError, path: str | os.PathLike[str]) -> str:
    """The cause of an error for the middle of a message: "Read-only file system, on the ext4 at /mnt"."""
    kind, place = file_system(path)
    why = error.strerror or (os.strerror(error.errno) if error.errno else type(error).__name__)
    return f"{why}, on the {kind} at {place}" if kind else why


def file_system(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Kind and mount point of the file system that a path lies on, existing or not; empty where nobody tells."""
    real = os.path.realpath(path)
    found = ("", "")
    try:
        with open("/proc/self/mountinfo", "rb") as lines:
            for line in lines:
                before, _, after = os.fsdecode(line).partition(" - ")
                place = _unescaped(before.split(" ")[4])
                holds = real == place or real.startswith(place.rstrip("/") + "/")
                if holds and len(place) >= len(found[1]):  # a later mount hides an earlier one
                    found = (after.split(" ")[0], place)
    except (OSError, IndexError, ValueError):
        return ("", "")
    return found


def _unescaped(field: str) -> str:
    """A path as it is; the kernel writes blanks, tabs, line ends and backslashes in octal."""
    for octal, character in (("040", " "), ("011", "\t"), ("012", "\n"), ("134", "\\")):
        field = field.replace(f"\\{octal}", character)
    return field

"""The cores and the memory that affinity and control groups leave to this process.

A container's limit is no property of the machine: it counts all its cores and its whole memory, and is stopped, or
killed, at the limit. Limits hold in each group from the process's own up to the root of what it sees; the least is the
one that counts. Version 2 of control groups (``cpu.max``, ``memory.max``) and version 1 (``cpu.cfs_quota_us``,
``memory.limit_in_bytes``) may be mounted side by side.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

ROOT = Path("/")


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that this process may use in all, and that part of it which is free or can be freed at once."""

    total_bytes: int
    available_bytes: int


@dataclass(frozen=True, slots=True)
class _Mount:
    """A mounted hierarchy of control groups.

    Attributes:
        place: the mount point.
        top: the group that the mount point shows.
        controllers: of version 1; empty for version 2, which holds them all.
    """

    place: Path
    top: PurePosixPath
    controllers: frozenset[str]


def usable_cores(root: Path = ROOT) -> float:
    """The share of the machine's processor time that this process may take, in cores.

    The least of what its affinity and the quotas of its groups allow.

    Args:
        root: where ``proc`` and the mount points of control groups are found.
    """
    return min([float(affine_cores()), *_quotas(root)])


def affine_cores() -> int:
    """Cores that this process may be scheduled on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def whole_cores(root: Path = ROOT) -> int:
    """How many processes of one thread can run at full speed, and at least 1."""
    return max(1, int(usable_cores(root)))


def memory(root: Path = ROOT) -> Memory:
    """The memory of this process: the least of what the machine has and what its groups allow.

    Raises:
        Exception: whatever psutil fails for, where the machine does not tell.
    """
    machine = psutil.virtual_memory()
    total_bytes, available_bytes = machine.total, machine.available
    for limit_bytes, used_bytes in _memory_limits(root):
        total_bytes = min(total_bytes, limit_bytes)
        available_bytes = min(available_bytes, max(0, limit_bytes - used_bytes))
    return Memory(total_bytes, available_bytes)


def _quotas(root: Path) -> Iterator[float]:
    """The quota of each group that has one, in cores."""
    for group in _groups(root, "cpu"):
        given = _words(group / "cpu.max") or [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        quota_us, period_us = [*map(_integer, given), None, None][:2]
        if quota_us is not None and period_us is not None and quota_us > 0 < period_us:
            yield quota_us / period_us


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use, in bytes, of each group that has a limit.

    File pages not used lately do not count as used: the kernel drops them first.
    """
    for group in _groups(root, "memory"):
        # Above memory.high a group is slowed down until it gives memory back: for a search, that is the end of it.
        given = [_first(group / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
        limits = [limit for limit in given if limit is not None and limit >= 0]
        used = [_first(group / name) for name in ("memory.current", "memory.usage_in_bytes")]
        used_bytes = next((value for value in used if value is not None), None)
        if limits and used_bytes is not None:
            yield min(limits), max(0, used_bytes - _droppable_bytes(group / "memory.stat"))


def _droppable_bytes(file: Path) -> int:
    found = dict(line.split(maxsplit=1) for line in _text(file).splitlines() if " " in line)
    return _integer(found.get("total_inactive_file", found.get("inactive_file", "0"))) or 0


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's groups, its own first, in each hierarchy that has the controller."""
    own = dict(_own_groups(root))
    for mount in _mounts(root):
        name = controller if mount.controllers else ""
        if name not in own or (name and name not in mount.controllers):
            continue
        with contextlib.suppress(ValueError):  # a group outside of what is mounted: its top is all that we see
            inner = own[name].relative_to(mount.top)
            yield from (mount.place / part for part in (inner, *inner.parents) if str(part) != ".")
        yield mount.place


def _own_groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Pairs of a controller and this process's group in its hierarchy; the controller is "" for version 2."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        for controller in controllers.split(","):
            yield controller, PurePosixPath(group)


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) > 4 and len(kind) > 2 and kind[0] in ("cgroup", "cgroup2"):
            controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else frozenset()
            yield _Mount(root / fields[4].lstrip("/"), PurePosixPath(fields[3]), controllers)


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _first(file: Path) -> int | None:
    return next(map(_integer, _words(file)), None)


def _integer(text: str) -> int | None:
    """The number that a text holds; None for "max" and anything else."""
    try:
        return int(text)
    except ValueError:
        return None


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""

"""Cores and memory that control groups leave us: on made file systems, and in real groups where root may make some."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from riwoa.config.kinds.supernet import SupernetSettings
from riwoa.config.schema import Oracle
from riwoa.hardware.probe import notes
from riwoa.ipc.child import child_environment
from riwoa.limits import affine_cores, memory, usable_cores, whole_cores
from riwoa.oracle.workers import worker_count
from riwoa.service.governor import read_machine

GIB = 2**30
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
V1_GROUPS = "5:memory:{group}\n3:cpu,cpuacct:{group}\n1:name=systemd:/x\n0::/x\n"


def machine(root: Path, mounts: str, groups: str, files: Mapping[str, str | int]) -> Path:
    contents = {"proc/self/mountinfo": mounts, "proc/self/cgroup": groups}
    contents |= {f"sys/fs/cgroup/{name}": f"{text}\n" for name, text in files.items()}
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8.0),
        ({"cpu.max": "max 100000"}, 8.0),
        ({"cpu.max": "50000 100000"}, 0.5),
        ({"cpu.max": "1000000 100000"}, 8.0),  # more than there are
        ({"a/b/cpu.max": "250000 100000"}, 2.5),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000", "cpu.max": "400000 100000"}, 1.5),
        ({"a/c/cpu.max": "50000 100000"}, 8.0),  # another's
        ({"a/b/cpu.max": "nonsense"}, 8.0),
        ({"a/b/cpu.max": "50000 0"}, 8.0),
    ],
)
def test_cores_are_the_smaller_of_affinity_and_every_quota_up_to_the_root(
    files: dict[str, str], cores: float, tmp_path: Path
) -> None:
    root = machine(tmp_path, V2, "0::/a/b\n", files)
    assert usable_cores(root) == cores
    assert whole_cores(root) == max(1, int(cores))
    assert notes(root)["usable_cores"] == cores


@pytest.mark.parametrize("top", ["/", "/docker/abc"])
@pytest.mark.parametrize("group", ["/docker/abc", "/docker/abc/inner", "/somewhere/else"])
def test_version_1_counts_too_with_or_without_a_namespace_of_its_own(top: str, group: str, tmp_path: Path) -> None:
    shown = group.removeprefix(top).strip("/") if group.startswith(top) else ""
    place = f"cpu,cpuacct/{shown}".rstrip("/")
    files = {f"{place}/cpu.cfs_quota_us": 50_000, f"{place}/cpu.cfs_period_us": 100_000}
    mounts, groups = V1.format(top=top), V1_GROUPS.format(group=group)
    assert usable_cores(machine(tmp_path, mounts, groups, files)) == 0.5
    files = {f"{place}/cpu.cfs_quota_us": -1, f"{place}/cpu.cfs_period_us": 100_000}
    assert usable_cores(machine(tmp_path, mounts, groups, files)) == 8.0


@pytest.mark.parametrize(
    ("files", "total", "available"),
    [
        ({"memory.max": "max"}, None, None),
        ({"memory.max": 2**60, "memory.current": GIB}, None, None),
        ({"memory.max": GIB // 2, "memory.current": GIB // 4}, GIB // 2, GIB // 4),
        ({"memory.max": "max", "memory.high": GIB // 2, "memory.current": GIB // 4}, GIB // 2, GIB // 4),
        ({"a/memory.max": GIB // 2, "a/memory.current": GIB, "memory.max": "max"}, GIB // 2, 0),
        (
            {"a/b/memory.max": GIB // 2, "a/b/memory.current": GIB // 2,
             "a/b/memory.stat": f"anon 5\ninactive_file {GIB // 8}\nactive_file 7"},
            GIB // 2, GIB // 8,
        ),
    ],
)  # fmt: skip
def test_memory_is_the_least_limit_and_what_may_be_dropped_is_available(
    files: dict[str, str | int], total: int | None, available: int | None, tmp_path: Path
) -> None:
    found = memory(machine(tmp_path, V2, "0::/a/b\n", files))
    assert found.total_bytes == (total or psutil.virtual_memory().total)
    if available is not None:
        assert found.available_bytes == available


def test_a_memory_limit_of_version_1_counts(tmp_path: Path) -> None:
    files: dict[str, str | int] = {
        "memory/x/memory.limit_in_bytes": GIB // 2,
        "memory/x/memory.usage_in_bytes": GIB // 4,
        "memory/x/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB // 16}",
        "memory/memory.limit_in_bytes": 9223372036854771712,
        "memory/memory.usage_in_bytes": GIB,
    }
    root = machine(tmp_path, V1.format(top="/"), V1_GROUPS.format(group="/x"), files)
    found = memory(root)
    assert (found.total_bytes, found.available_bytes) == (GIB // 2, GIB // 4 + GIB // 16)


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=50))
def test_nothing_that_these_files_hold_is_an_error(mounts: str, groups: str, limit: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        files = {"cpu.max": limit, "memory.max": limit, "memory.current": limit, "memory.stat": limit}
        for mount, group in ((mounts, groups), (V2 + mounts, "0::/\n" + groups)):
            mounted, grouped = (text.encode(errors="replace").decode() for text in (mount, group))
            encodable = {name: text.encode(errors="replace").decode() for name, text in files.items()}
            root = machine(Path(folder), mounted, grouped, encodable)
            assert 0 < usable_cores(root) <= 8
            assert memory(root).available_bytes >= 0


def test_without_proc_there_are_the_machines_own(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == affine_cores() == 8
    assert memory(tmp_path).total_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("cores", "gib", "kept", "workers"),
    [(0.5, 64, 0, 1), (2.5, 64, 0, 2), (8.0, 64, 2, 6), (8.0, 3, 0, 3), (8.0, 0.5, 0, 1)],
)
def test_automatic_workers_are_what_quota_and_memory_hold(
    cores: float, gib: float, kept: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = type("Limited", (), {"total_bytes": int(gib * GIB)})
    monkeypatch.setattr("riwoa.oracle.workers.usable_cores", lambda: cores)
    monkeypatch.setattr("riwoa.oracle.supernet.memory", lambda: limited)
    assert worker_count(Oracle(supernet=SupernetSettings(device="cpu")), kept) == workers


# -- real groups -----------------------------------------------------------------------------------------------------

_LOOK = (
    "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())) if len(sys.argv) > 1 else None;"
    "open(sys.argv[2], 'w').write(str(os.getpid())) if len(sys.argv) > 2 else None;"
    "from pathlib import Path; from riwoa.config.schema import Oracle;"
    "from riwoa.config.kinds.supernet import SupernetSettings;"
    "from riwoa.service.governor import read_machine;"
    "from riwoa.limits import memory, usable_cores; from riwoa.oracle.workers import worker_count;"
    "print(usable_cores(), memory().total_bytes, worker_count(Oracle(supernet=SupernetSettings(device='cpu'))),"
    " read_machine(Path('/')).memory_available_bytes)"
)


@pytest.fixture
def group() -> Iterator[Callable[[str, Mapping[str, str]], Path]]:
    """Makes a real group below a hierarchy's mount point; skips where that is not ours to do."""
    made: list[Path] = []

    def make(hierarchy: str, limits: Mapping[str, str]) -> Path:
        top = Path("/sys/fs/cgroup", hierarchy)
        place = top / f"riwoa-test-{os.getpid()}"
        if not (top / "cgroup.procs").exists():
            pytest.skip(f"this machine mounts no such groups at {top}")
        try:
            if (top / "cgroup.subtree_control").exists():
                (top / "cgroup.subtree_control").write_text("+cpu +memory")
            place.mkdir()
            made.append(place)
            for name, text in limits.items():
                (place / name).write_text(text)
        except OSError as error:
            pytest.skip(f"no group of one's own can be made here: {error}")
        return place

    yield make
    for place in made:
        place.rmdir()


def look(*groups: Path) -> list[float]:
    joined = [str(place / "cgroup.procs") for place in groups]
    command = [sys.executable, "-c", _LOOK, *joined]
    done = subprocess.run(command, env=child_environment(1), capture_output=True, text=True, timeout=60, check=True)
    return [float(word) for word in done.stdout.split()]


def test_in_a_real_group_of_version_1_half_a_core_is_one_worker(group: Callable[..., Path]) -> None:
    cpu = group("cpu", {"cpu.cfs_quota_us": "50000"})
    limited = group("memory", {"memory.limit_in_bytes": str(GIB // 2)})
    cores, total, workers, available = look(cpu, limited)
    assert (cores, total, workers) == (0.5, GIB // 2, 1)
    assert 0 < available < GIB // 2


def test_in_a_real_group_of_version_2_half_a_core_is_one_worker(group: Callable[..., Path]) -> None:
    place = group("", {"cpu.max": "50000 100000", "memory.max": str(GIB // 2)})
    cores, total, workers, available = look(place)
    assert (cores, total, workers) == (0.5, GIB // 2, 1)
    assert 0 < available < GIB // 2


def test_the_governor_reads_the_groups_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str | int] = {"memory.max": GIB // 2, "memory.current": GIB // 4}
    root = machine(tmp_path, V2, "0::/\n", files)
    monkeypatch.setattr("riwoa.service.governor.memory", lambda: memory(root))
    assert read_machine(tmp_path).memory_available_bytes == GIB // 4

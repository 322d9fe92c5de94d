"""The power is cut at random moments: what was reported committed is there, whole, and the search goes on.

SIGKILL keeps what the kernel has not written yet; a power cut does not. The state lies on a disk (``tests.crash.disk``)
on which each unsynced write may survive, tear or vanish.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from riwoa.ipc.child import child_environment
from riwoa_storage.errors import JournalMissingError, StorageError
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from tests.crash.test_crash import Hunt, fresh, uninterrupted
from tests.service.test_service import LEARNS, SMALL, command
from tests.service.test_service import table as table
from tests.service.test_service import whole as whole

CUTS = int(os.environ.get("TEST_CUTS", "40"))
ROOT = Path(__file__).resolve().parents[2]


def why_not() -> str | None:
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is not installed (it is in the extra dev)"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        return "no FUSE here; on Debian: apt install fuse3 libfuse3-3"
    return None


needs_fuse = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Mounted:
    """A mounted disk."""

    def __init__(self, source: Path, at: Path) -> None:
        self.at = at
        at.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.disk", str(source), str(at)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        end_s = time.monotonic() + 10
        while not os.path.ismount(at):
            assert self._server.poll() is None, "the disk did not mount"
            assert time.monotonic() < end_s
            time.sleep(0.02)

    def cut(self, seed: int, out: Path) -> None:
        """Lose the power; ``out`` gets what survived."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{seed} {out}\n")
        self._server.stdin.flush()
        assert self._server.stdout.readline() == "cut\n"

    def unmount(self) -> None:
        subprocess.run(["fusermount3", "-u", "-z", str(self.at)], check=False)
        self._server.kill()
        self._server.communicate()


@contextlib.contextmanager
def mounted(source: Path, at: Path) -> Iterator[Mounted]:
    disk = Mounted(source, at)
    try:
        yield disk
    finally:
        disk.unmount()


def committed(journal: Path) -> tuple[list[str], set[str]]:
    """Digests of the generations, and the evaluations, that a reader sees: what the daemon may have reported."""
    try:
        with JournalReader(journal) as reader:
            run = reader.latest_run()
            if run is None:
                return [], set()
            digests = [s.digest for s in reader.generation_summaries(run.run_id)]
            version = run.provenance["oracle_version"]
            return digests, {e.architecture_key for e in reader.evaluations(version)}
    except (JournalMissingError, StorageError):
        return [], set()  # not begun yet


def cut_once(state: Path, out: Path, settings: Sequence[str], rng: random.Random, runtime: str) -> bool:
    """One life on the disk ``state``, cut at a random moment; whether it was still alive then."""
    with mounted(state, out.with_name(f"{out.name}.mount")) as disk:
        environment = {**child_environment(1), "RUNTIME_DIRECTORY": runtime}
        process = subprocess.Popen(
            command(disk.at, settings=settings), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(2.0, 8.0))
            before = committed(disk.at / "journal.db")
            disk.cut(rng.randrange(2**32), out)
            alive = process.poll() is None
        finally:
            process.kill()
            process.communicate()
    after = committed(out / "journal.db")
    assert after[0][: len(before[0])] == before[0], "a committed generation is lost"
    assert before[1] <= after[1], "a stored evaluation is lost"
    if (out / "journal.db").exists() and after[0]:
        assert verify(out / "journal.db").ok
    return alive


def survive(tmp_path: Path, table: Path, settings: Sequence[str], whole: Path, cuts: int) -> None:
    seed = random.SystemRandom().randrange(2**32)
    rng, made, runs = random.Random(seed), 0, 0
    print(f"\nseed {seed}")
    with tempfile.TemporaryDirectory() as runtime:  # a socket's path is short
        while made < cuts:
            state, alive = fresh(tmp_path / f"run{runs}", table), True
            runs += 1
            while made < cuts and alive:
                out = tmp_path / f"run{runs}-{made}"
                alive = cut_once(state, out, settings, rng, runtime)
                made, state = made + alive, out
            hunt = Hunt(state, settings)
            assert hunt.live() == 0
            found = compare(whole / "journal.db", state / "journal.db")
            assert found.same, f"seed {seed}: {found.message}"
    print(f"{made} cuts in {runs} runs")


@needs_fuse
@pytest.mark.timeout(400)
def test_a_few_power_cuts_lose_nothing(tmp_path: Path, table: Path, whole: Path) -> None:
    survive(tmp_path, table, SMALL, whole, 2)


@needs_fuse
@pytest.mark.crash
@pytest.mark.timeout(3600)
def test_many_power_cuts_lose_nothing(tmp_path: Path, table: Path) -> None:
    survive(tmp_path, table, LEARNS, uninterrupted(tmp_path, table, LEARNS), CUTS)


@needs_fuse
def test_the_disk_itself_forgets_what_was_not_synced(tmp_path: Path) -> None:
    """A test that cannot fail is none: without fsync, bytes and names do get lost here; with it, never."""
    lost = 0
    for seed in range(12):
        source, out = tmp_path / f"in{seed}", tmp_path / f"out{seed}"
        source.mkdir()
        with mounted(source, tmp_path / f"mount{seed}") as disk:
            with (disk.at / "safe").open("wb") as stream:
                stream.write(b"s" * 100_000)
                stream.flush()
                os.fsync(stream.fileno())
            folder = os.open(disk.at, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
            (disk.at / "unsafe").write_bytes(b"u" * 100_000)
            with (disk.at / "safe").open("r+b") as stream:
                stream.write(b"x" * 4096)
            disk.cut(seed, out)
        content = (out / "safe").read_bytes()
        assert content[4096:] == b"s" * (100_000 - 4096)
        unsafe = (out / "unsafe").read_bytes() if (out / "unsafe").exists() else None
        lost += unsafe != b"u" * 100_000 or content[:4096] != b"x" * 4096
    assert lost >= 6

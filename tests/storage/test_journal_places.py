"""A journal on file systems that can do less, behind foreign locks, and on media that are read-only."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from riwoa_storage.backup import backup
from riwoa_storage.errors import JournalFullError, JournalLockedError, JournalMissingError, JournalUnwritableError
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import ENVIRONMENT, PYTHON, evaluation, generation, write_run
from tests.support.shim import NO_DIRECTORY_FSYNC, shim

QUOTA = """
import asyncio, pathlib, sys
from riwoa_storage.errors import JournalFullError
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import evaluation
async def main(path, quota):
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluation(evaluation("a"))
        quota.touch()
        try: await writer.put_evaluation(evaluation("b"))
        except JournalFullError as error: print(error)
        quota.unlink()
        await writer.put_evaluation(evaluation("c"))
asyncio.run(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
"""


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.ESTALE])
def test_a_quota_is_waited_out_as_a_full_disk_is(tmp_path: Path, number: int) -> None:
    place, quota = tmp_path / "state", tmp_path / "quota"
    place.mkdir()
    environment = {**shim(place, quota=str(quota), qerr=number), "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}
    command = [PYTHON, "-c", QUOTA, str(place / "journal.db"), str(quota)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "nothing is lost" in done.stdout
    assert number == errno.ENOSPC or os.strerror(number) in done.stdout  # SQLite tells that one by itself
    with JournalReader(place / "journal.db") as reader:
        assert {e.architecture_key for e in reader.evaluations("table-1")} == {"a", "c"}
    assert [p.name for p in place.iterdir() if p.suffix == ".tmp"] == []


async def test_a_limit_on_the_size_of_files_is_told_as_no_space(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with await JournalWriter.open(tmp_path / "journal.db") as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        try:
            with pytest.raises(JournalFullError, match="File too large"):
                await writer.put_evaluations([evaluation(f"k{n}") for n in range(5000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await writer.put_evaluation(evaluation("after"))
    assert verify(tmp_path / "journal.db").ok


def test_a_directory_that_cannot_be_flushed_is_told_once_and_gone_on_with(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom riwoa_storage.durable import replace_durably\n"
        "for n in b'ab': replace_durably(pathlib.Path(sys.argv[1]), bytes([n]))"
    )
    environment = {**shim(tmp_path, **NO_DIRECTORY_FSYNC), "PYTHONPATH": ENVIRONMENT["PYTHONPATH"]}
    command = [PYTHON, "-c", code, str(tmp_path / "file")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b"b"
    assert done.stderr.count("cannot be flushed (Invalid argument") == 1


async def test_a_foreign_lock_is_waited_out_by_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa_storage.transactions.BUSY_TIMEOUT_S", 0.05)
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(writer.put_evaluation(evaluation("a")))
        await asyncio.sleep(0.5)
        assert not waiting.done()
        other.execute("ROLLBACK")
        await asyncio.wait_for(waiting, 10)
        other.close()
    async with await JournalWriter.open(path, lock_patience_s=0.2) as writer:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalLockedError):
            await writer.put_evaluation(evaluation("b"))
        other.close()


async def test_on_read_only_media_a_journal_that_was_closed_cleanly_is_read(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("a mount of one's own needs root and unshare")
    digest = await write_run(tmp_path / "journal.db", 3)
    code = (
        "import sys\nfrom pathlib import Path\nfrom riwoa_storage.replay import verify\n"
        "from riwoa_storage.overview import overview\nfrom riwoa_storage.errors import StorageError\n"
        "path = Path(sys.argv[1])\n"
        "try: print(verify(path).final_digest, overview(path)['digest'])\n"
        "except StorageError as error: print(error)"
    )
    script = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77; exec "$2" -c "$3" "$1/journal.db"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(tmp_path), PYTHON, code]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode in (1, 32, 77):
        pytest.skip(f"cannot mount here: {done.stderr.strip()[-200:]}")
    assert done.stdout.split() == [digest, digest], done.stderr
    (tmp_path / "journal.db-wal").write_bytes(b"commits")
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert "copy both to a directory of your own" in done.stdout


async def test_what_a_killed_backup_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path, out = tmp_path / "journal.db", tmp_path / "copy.db"
    await write_run(path, 2)
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours, alive = tmp_path / f".copy.db.{dead.pid}.part", tmp_path / ".copy.db.1.part"
    for file in (ours, alive):
        shutil.copy(path, file)
    theirs = [tmp_path / ".copy.db.notes.part", tmp_path / f".copy.db.{2**22 + 7}.part"]
    for file in theirs:
        file.write_text("mine")
    backup(path, out)
    assert not ours.exists()
    assert all(file.exists() for file in (alive, *theirs))


async def test_a_backup_is_not_written_over_the_journal_through_a_link_either(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    digest = await write_run(path, 2)
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "dangling.db").symlink_to(tmp_path / "nowhere.db")
    for out in (path, tmp_path / "link.db", tmp_path / "dangling.db"):
        with pytest.raises(JournalUnwritableError, match="exists"):
            backup(path, out)
    assert verify(path).final_digest == digest


async def test_a_number_that_no_journal_can_hold_is_a_run_that_is_not_there(tmp_path: Path) -> None:
    await write_run(tmp_path / "journal.db", 1)
    with JournalReader(tmp_path / "journal.db") as reader:
        with pytest.raises(JournalMissingError, match="no run 99999999999999999999999"):
            reader.run(99999999999999999999999)
        assert reader.events(10**30) == []
        assert reader.generation(1, 0).individuals == generation(1, 0).individuals

"""What lies in a lock file decides whether it is riwoa's: also after the power was cut."""

import os
import random
from pathlib import Path

import pytest

from riwoa.errors import StateDirectoryError
from riwoa.files.lock import Lock
from tests.crash.disk import File

OLD, NEW = b"99\nstart=1234567\nsocket=/run/riwoa/control.sock\n", b"4194303\nstart=98765\n"


@pytest.mark.parametrize("synced", [b"", OLD])
def test_whatever_a_power_cut_leaves_of_a_lock_file_is_taken(tmp_path: Path, synced: bytes) -> None:
    left = set()
    for seed in range(200):
        disk = File(0o640, bytearray(synced), synced)
        for written in (OLD, NEW):  # as ``Lock.tell`` writes
            disk.write(0, written)
            disk.truncate(len(written))
        left.add(disk.survived(random.Random(seed)))
    assert bytes(len(NEW)) in left or synced  # the length is there and the bytes are not
    for content in left:
        (tmp_path / "lock").write_bytes(content)
        with Lock(tmp_path / "lock") as lock:
            assert lock.take()
            assert lock.owner == str(os.getpid())


@pytest.mark.parametrize("content", [b"my notes", bytes(100_000), b"\0" * 9 + b"my notes"])
def test_what_is_no_lock_file_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(StateDirectoryError, match="is no lock file of riwoa's"):
        Lock(tmp_path / "lock")
    assert (tmp_path / "lock").read_bytes() == content

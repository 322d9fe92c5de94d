from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from pathlib import Path

import pytest

from riwoa_storage.backup import backup, compact
from riwoa_storage.errors import JournalCorruptError, JournalLockedError, JournalUnwritableError
from riwoa_storage.events import AdapterUnusable
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import CONFIG, PROVENANCE, adapter, flip_byte, generation, write_run

REFUSED = b"refused by the model" * 10_000


async def test_a_copy_made_beside_a_live_writer_is_whole_and_verified(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    copies = []
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)

        async def write() -> None:
            for number in range(60):
                await writer.commit_generation(generation(run_id, number))

        async def copy() -> None:
            for i in range(3):
                copies.append(await asyncio.to_thread(backup, path, tmp_path / f"copy{i}.db"))
                await asyncio.sleep(0.01)

        await asyncio.gather(write(), copy())
    assert all(copied.ok for copied in copies)
    with JournalReader(path) as reader:
        chain = {g.digest for g in reader.generations(run_id)}
    for i, copied in enumerate(copies):
        last = copied.runs[0]
        assert last.generations == 0 or last.digest in chain
        assert verify(tmp_path / f"copy{i}.db").final_digest == copied.final_digest


async def test_a_copy_of_a_stopped_journal_is_the_same_history_and_can_be_gone_on_with(tmp_path: Path) -> None:
    await write_run(tmp_path / "journal.db", 4)
    backup(tmp_path / "journal.db", tmp_path / "copy.db")
    assert compare(tmp_path / "journal.db", tmp_path / "copy.db").same
    async with await JournalWriter.open(tmp_path / "copy.db") as writer:
        await writer.commit_generation(generation(1, 4))
    assert verify(tmp_path / "copy.db").runs[0].generations == 5
    assert sorted(p.name for p in tmp_path.iterdir() if ".part" in p.name) == []


async def test_a_damaged_journal_is_not_copied_over_anything(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 3)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE individuals SET fitness = 0.9 WHERE generation = 1")
    db.close()
    with pytest.raises(JournalCorruptError, match=r"journal\.db: .* generation 1"):
        backup(path, tmp_path / "copy.db")
    assert [p.name for p in tmp_path.iterdir() if "copy" in p.name] == []


async def test_an_existing_file_is_left_alone_and_a_missing_folder_is_told(tmp_path: Path) -> None:
    await write_run(tmp_path / "journal.db", 1)
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(JournalUnwritableError, match="exists"):
        backup(tmp_path / "journal.db", tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"
    with pytest.raises(JournalUnwritableError):
        backup(tmp_path / "journal.db", tmp_path / "no" / "copy.db")


async def test_compacting_drops_old_adapters_bytes_and_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def with_adapters(writer: JournalWriter, run_id: int) -> None:
        sha256 = hashlib.sha256(REFUSED).hexdigest()
        await writer.put_event(AdapterUnusable(run_id=run_id, sha256=sha256, reason="refused", refused=True))
        for i in range(5):
            await writer.put_adapter(
                adapter(
                    run_id, i, REFUSED if i == 2 else os.urandom(200_000), status="rejected" if i == 4 else "current"
                )
            )

    digest = await write_run(path, 3, before=with_adapters)
    before, after = compact(path)
    assert after < before - 400_000
    with JournalReader(path) as reader:
        rows = reader.adapters(1)
    assert [row.weights is not None for row in rows] == [False, True, False, True, False]
    assert all(len(row.sha256) == 64 for row in rows)
    assert verify(path).final_digest == digest
    async with await JournalWriter.open(path) as writer:
        await writer.commit_generation(generation(1, 3))
    assert compact(path)[1] > 0


async def test_old_adapters_are_retired_while_the_writer_lives_and_no_digest_changes(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        other = await writer.begin_run(PROVENANCE, CONFIG)
        ids = [await writer.put_adapter(adapter(run_id, number, bytes([number]) * 10_000)) for number in range(4)]
        theirs = await writer.put_adapter(adapter(other, 0, b"theirs" * 1000))
        before = verify(path).final_digest
        assert await writer.retire_adapters(run_id, ids[2:]) == 2
        assert await writer.retire_adapters(run_id, ids[2:]) == 0
        assert verify(path).final_digest == before
    with JournalReader(path) as reader:
        assert [reader.weights(i) is not None for i in ids] == [False, False, True, True]
        assert reader.weights(theirs) is not None
        assert all(row.sha256 for row in reader.adapters(run_id, weights=False))


async def test_nothing_is_compacted_under_a_writers_hands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa_storage.backup.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "journal.db"
    await write_run(path, 2)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalLockedError):
            compact(path)
        other.execute("ROLLBACK")
    assert verify(path).ok


async def test_a_damaged_adapter_keeps_nobody_from_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def with_adapter(writer: JournalWriter, run_id: int) -> None:
        await writer.put_adapter(adapter(run_id, 0, b"weights found once"))

    await write_run(path, 2, before=with_adapter)
    flip_byte(path, b"weights found once", 4)
    assert backup(path, tmp_path / "copy.db").ok
    with pytest.raises(JournalCorruptError, match="adapter 1"):
        verify(tmp_path / "copy.db")
    compact(path)
    with JournalReader(path) as reader:
        assert reader.adapters(1)[0].weights is None  # nothing would use it

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa_storage.errors import JournalCorruptError, JournalMissingError, JournalUnreadableError
from riwoa_storage.migrate import migrate
from riwoa_storage.overview import overview
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualStatus
from riwoa_storage.seal import is_intact
from riwoa_storage.tables import Row
from riwoa_storage.writer import JournalWriter
from tests.storage.samples import (
    CONFIG,
    ENVIRONMENT,
    PROVENANCE,
    PYTHON,
    adapter,
    buffer_entry,
    evaluation,
    generation,
    reply,
    request,
    write_run,
    write_semantic_run,
)

HEAVY = {"asyncio", "numpy", "torch", "aiosqlite", "scipy", "pydantic", "riwoa"}


def modules_loaded_by(module: str) -> set[str]:
    code = f"import sys; import {module}; print(*sorted(sys.modules))"
    done = subprocess.run([PYTHON, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["reader", "replay", "overview", "records", "digest"])
def test_reading_a_journal_loads_nothing_heavy(module: str) -> None:
    assert not modules_loaded_by(f"riwoa_storage.{module}") & HEAVY


def test_an_overview_for_status_does_not_even_load_dataclasses_typing_or_pathlib() -> None:
    bare = modules_loaded_by("sys")
    assert not (modules_loaded_by("riwoa_storage.overview") - bare) & {"dataclasses", "inspect", "typing", "pathlib"}


async def test_it_reads_while_the_writer_is_open_and_sees_each_commit(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        with JournalReader(path) as reader:
            assert reader.latest_run() is None
            run_id = await writer.begin_run(PROVENANCE, CONFIG)
            assert reader.last_generation(run_id) is None
            for number in range(3):
                await writer.commit_generation(generation(run_id, number))
                last = reader.last_generation(run_id)
                assert last is not None
                assert last.generation == number


async def test_it_reads_after_a_clean_close(tmp_path: Path) -> None:
    digest = await write_run(tmp_path / "journal.db", 2)
    with JournalReader(tmp_path / "journal.db") as reader:
        assert reader.digest_head(1) == digest


async def test_a_reader_that_stops_in_the_middle_holds_nobody_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 3)
    with JournalReader(path) as reader:
        unfinished = [reader.generations(1), reader.generation_summaries(1), reader.individuals(1)]
        for rows in unfinished:
            next(iter(rows))
        async with await JournalWriter.open(path) as writer:
            await writer.put_evaluation(evaluation("a"))
        assert os.path.getsize(f"{path}-wal") == 0


async def test_it_cannot_write(tmp_path: Path) -> None:
    await write_run(tmp_path / "journal.db", 1)
    with JournalReader(tmp_path / "journal.db") as reader, pytest.raises(JournalUnreadableError, match="readonly"):
        reader._tables.rows("DELETE FROM individuals")


async def test_summaries_and_evaluations_stream_past_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riwoa_storage.reader.PAGE_ROWS", 4)
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluations([evaluation(f"k{n}") for n in range(9)])
    await write_run(path, 9)
    with JournalReader(path) as reader:
        assert [s.generation for s in reader.generation_summaries(1)] == list(range(9))
        assert [s.generation for s in reader.generation_summaries(1, start=7)] == [7, 8]
        assert [e.architecture_key for e in reader.evaluations("table-1")] == [f"k{n}" for n in range(9)]


async def test_requests_and_what_came_of_them_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_semantic_run(path)
    with JournalReader(path) as reader:
        child, asked = reader.individual_of("1/0/2"), reader.request("1/0/2")
        assert child is not None
        assert child == reader.individual(1, 1, 3)
        assert child.request_id == "1/0/2"
        assert asked == request(1, 0, 2)
        assert reader.requests_joining(1, 1) == [asked]
        assert reader.requests_joining(1, 2) == []
        assert (reader.request("1/9/9"), reader.individual_of("1/9/9"), reader.individual(1, 9, 9)) == (None,) * 3


async def test_an_adapters_bytes_are_read_apart_from_its_record_and_the_buffer_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        await writer.put_requests([request(run_id, 0, slot) for slot in range(3)])
        ids = [await writer.put_buffer_entry(buffer_entry(run_id, f"{run_id}/0/{slot}", 0)) for slot in range(3)]
        adapter_id = await writer.put_adapter(adapter(run_id, 1, b"weights"))
    with JournalReader(path) as reader:
        (row,) = reader.adapters(run_id, weights=False)
        assert row.weights is None
        assert replace(row, weights=b"weights") == reader.adapters(run_id)[0]
        assert reader.weights(adapter_id) == b"weights"
        assert reader.weights(99) is None
        assert [e.entry_id for e in reader.buffer(run_id, after=ids[0])] == ids[1:]


async def test_seconds_count_what_was_worked_for_once_and_a_batch_as_one(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def before(writer: JournalWriter, run_id: int) -> None:
        each = [i for n in range(3) for i in generation(run_id, n).individuals]
        records = [evaluation(i.architecture_key, architecture=i.architecture, duration_s=2.0) for i in each]
        await writer.put_evaluations(records)
        await writer.put_requests([request(run_id, 0, slot) for slot in range(2)])
        await writer.put_replies([reply(f"{run_id}/0/{slot}", duration_s=5.0) for slot in range(2)])

    await write_run(path, 3, before=before)
    with JournalReader(path) as reader:
        worked = [(g, i) for g, i in reader.individuals(1) if not i.cache_hit]
        for start, end in ((0, 3), (1, 2)):
            found = reader.seconds.evaluating(1, "table-1", start, end)
            assert found == Counter(i.operator for g, i in worked for _ in range(2) if start <= g < end)
        assert reader.seconds.evaluating(1, "another oracle", 0, 3) == {}
        assert reader.seconds.writing(1, 0, 3) == 5.0
        assert reader.seconds.writing(1, 0, 1) == 0.0  # they join generation 1


async def test_a_search_asks_its_past_by_key_and_by_place_and_learns_what_was_committed(tmp_path: Path) -> None:
    def edit(g: GenerationRecord) -> GenerationRecord:
        changes: dict[int, dict[str, Any]] = {
            0: {"architecture_key": "same"},
            1: {"status": "failed", "metrics": {}, "fitness": None, "error": "no"},
            2: {"cache_hit": True},
        }
        return replace(g, individuals=tuple(replace(i, **changes[i.slot]) for i in g.individuals))

    path = tmp_path / "journal.db"
    await write_run(path, 4)
    await write_run(path, 3, edit=edit)
    with JournalReader(path) as reader:
        everyone = list(reader.individuals(2))
        found = reader.by_key.committed_outcomes(2, ["same", "k1-1", "never", "same"])
        assert found == {
            "same": [i for _, i in everyone if i.slot == 0],  # of three architectures that share it
            "k1-1": [i for g, i in everyone if (g, i.slot) == (1, 1)],
        }
        assert reader.by_key.committed_keys(2, ["same", "k1-1", "never"]) == {"same", "k1-1"}
        assert reader.by_key.committed_keys(2, ["k0-0"]) == set()  # another run's
        assert reader.by_key.committed_outcomes(2, (f"x{n}" for n in range(2000))) == {}
        assert reader.by_place.metrics_of(2, [(1, 0), (1, 1)]) == {
            (1, 0): next(i.metrics for g, i in everyone if (g, i.slot) == (1, 0)),
            (1, 1): None,
        }  # the second failed
        with pytest.raises(JournalCorruptError, match="individual 0 of generation 7 of run 2 is not there"):
            reader.by_place.metrics_of(2, [(1, 0), (7, 0)])
        in_full = [(g, i) for g, i in everyone if i.status == "ok"]
        scanned = reader.by_place.scan(2, 0, 3)
        assert [(json.loads(metrics), *place) for _, metrics, *place in scanned] == [
            (i.metrics, g, i.slot) for g, i in in_full
        ]
        assert reader.by_place.scan(2, 1, 2) == [row for row in scanned if row[2] == 1]
        assert reader.by_place.points_at(2, [(2, 2), (0, 0), (2, 2)]) == [
            (i.architecture_key, i.metrics, g, i.slot) for g, i in in_full if (g, i.slot) in ((0, 0), (2, 2))
        ]
        for place in ((1, 1), (7, 0)):  # failed; not there
            with pytest.raises(JournalCorruptError, match=f"individual {place[1]} of generation {place[0]} of run 2"):
                reader.by_place.points_at(2, [(0, 0), place])
        assert sorted(reader.by_place.architecture_keys({row[0] for row in scanned})) == sorted(
            "same" if i.slot == 0 else i.architecture_key for _, i in in_full
        )
        fresh = [i for _, i in everyone if i.slot == 0]
        assert reader.newest_fresh(2, 2) == fresh[-2:]
        assert reader.newest_fresh(2, 100) == fresh
        assert reader.newest_fresh(2, 0) == []
        every = [i for _, i in everyone if not i.cache_hit]
        assert reader.newest_fresh(2, 100, in_full=False) == every
        assert len(every) > len(fresh)


@pytest.mark.parametrize("dropped", [0, 2, 99])
async def test_what_is_read_of_an_architecture_does_not_grow_with_its_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: int
) -> None:
    def edit(g: GenerationRecord) -> GenerationRecord:
        """One architecture throughout: given up in the first generations, then evaluated, then hit."""
        status: IndividualStatus = "dropped" if g.generation < dropped else "ok"
        return replace(
            g,
            individuals=tuple(
                replace(i, architecture_key="same", architecture={"depth": 1}, status=status, cache_hit=i.slot > 0)
                for i in g.individuals
            ),
        )

    path = tmp_path / "journal.db"
    await write_run(path, 8, edit=edit)
    read: list[str] = []

    def counted(table: str, row: Row) -> bool:
        read.append(table)
        return is_intact(table, row)

    with JournalReader(path) as reader:
        everyone = [i for _, i in reader.individuals(1)]
        monkeypatch.setattr("riwoa_storage.checked.is_intact", counted)
        assert reader.by_key.committed_outcomes(1, ["same"]) == {"same": everyone[: 3 * dropped + 1]}
        assert read.count("individuals") == min(len(everyone), 3 * dropped + 1)
        read.clear()
        assert reader.by_key.committed_keys(1, ["same"]) == {"same"}
        assert read.count("individuals") == 1


async def test_an_overview_tells_what_the_reader_tells(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        assert overview(path) is None
        run_id = await writer.begin_run(PROVENANCE, CONFIG)
        seen = overview(path)
        assert seen is not None
        assert (seen["status"], seen["generations"], seen["leader"]) == ("running", 0, None)
        digest = await writer.commit_generation(generation(run_id, 0))
    seen = overview(path)
    g = generation(run_id, 0)
    assert seen is not None
    assert seen["digest"] == digest
    assert {key: seen[key] for key in ("counters", "leader", "phase")} == {
        "counters": g.counters, "leader": g.leader, "phase": g.phase,
    }  # fmt: skip


@pytest.mark.parametrize("look", [JournalReader, overview])
def test_what_cannot_be_read_says_what_to_do_next(tmp_path: Path, look: type[JournalReader]) -> None:
    (tmp_path / "empty.db").touch()
    for name, message in (
        ("missing.db", "start riwoad"),
        ("empty.db", "no run was journaled yet"),
        (".", "name the journal itself"),
    ):
        with pytest.raises(JournalMissingError, match=message) as caught:
            look(tmp_path / name)
        assert caught.value.exit_code == 66


async def test_a_path_with_characters_of_a_uri_is_read(tmp_path: Path) -> None:
    path = tmp_path / "50% #1?mode=x.db"
    digest = await write_run(path, 1)
    with JournalReader(path) as reader:
        assert reader.digest_head(1) == digest
    assert {name.removesuffix("-wal").removesuffix("-shm") for name in os.listdir(tmp_path)} == {path.name}


def test_another_user_is_told_to_use_the_daemons_group(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("dropping privileges needs root and setpriv")
    path = tmp_path / "journal.db"
    migrate(path)
    path.chmod(0o600)
    code = (
        "import sys\nfrom riwoa_storage.overview import overview\nfrom riwoa_storage.errors import StorageError\n"
        "try: overview(sys.argv[1])\nexcept StorageError as error: print(type(error).__name__, error)"
    )
    drop = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    done = subprocess.run([*drop, PYTHON, "-c", code, str(path)], env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the other user cannot even start Python here: {done.stderr.strip()[-200:]}")
    assert done.stdout.startswith("JournalUnreadableError cannot read")
    assert "daemon's user" in done.stdout


async def test_a_run_whose_configuration_is_gone_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 2)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE config_revisions SET run_id = 3")
    with JournalReader(path) as reader, pytest.raises(JournalCorruptError, match="run 1 has no configuration"):
        reader.config_revisions(1)

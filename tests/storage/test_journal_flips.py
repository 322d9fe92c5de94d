"""A damaged journal says so: whatever bit is flipped, ``verify`` reports it or every record reads as it was written."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from riwoa_storage.errors import JournalCorruptError, RowDamagedError, StorageError
from riwoa_storage.overview import overview
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import verify
from riwoa_storage.tables import COLUMNS
from riwoa_storage.writer import JournalWriter
from tests.golden import make_journal
from tests.storage.samples import alter, evaluation, generation, individual, reseal, write_run

UNSEALED = {  # column -> what proves it instead
    ("states", "run_id"): "the last generation lacks its state",
    ("states", "generation"): "the last generation lacks its state",
    ("states", "state"): "generations.state_sha256",
    ("adapters", "weights"): "adapters.sha256",
}
INVISIBLE = {("generations", "generation_id"), ("individuals", "individual_id")}  # in no record, named by nobody


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed journal with a row of every table."""

    async def make(path: Path) -> None:
        await make_journal.make(path)
        async with await JournalWriter.open(path) as writer:
            await writer.mark_verified(verify(path).runs)

    path = tmp_path_factory.mktemp("whole") / "journal.db"
    asyncio.run(make(path))
    return path


def everything(path: Path) -> list[Any]:
    """Whatever a reader returns."""
    with JournalReader(path) as reader:
        runs = reader.runs()
        found: list[Any] = [runs, reader.latest_run(), reader.events()]
        for run in runs:
            n = run.run_id
            found += [
                list(reader.generations(n)), list(reader.generation_summaries(n)), list(reader.individuals(n)),
                reader.config_revisions(n), reader.requests(n), reader.requests(n, unanswered=True), reader.replies(n),
                reader.buffer(n), reader.adapters(n), reader.newest_fresh(n, 99),
                reader.by_place.points_at(n, [(1, 1)]),
                reader.by_key.committed_outcomes(n, [f"k{g}-{slot}" for g in range(4) for slot in range(4)]),
                reader.integrity.verified(n), reader.by_place.metrics_of(n, [(1, 1)]), reader.requests_joining(n, 1),
            ]  # fmt: skip
        keys = [f"k0-{slot}" for slot in range(3)]
        evaluations = [
            [reader.by_key.evaluation("table-1", key) for key in keys],
            reader.by_key.evaluations_of("table-1", keys),
        ]
        return [*found, list(reader.evaluations("table-1")), evaluations]


def asked_by_a_search(reader: JournalReader, run_id: int) -> Iterator[Any]:
    """What a resumed search asks of its past, one by one; None where damage is told instead."""
    keys = [f"k{g}-{slot}" for g in range(4) for slot in range(4)]
    looks: list[Callable[[], Any]] = [
        lambda: reader.by_key.committed_outcomes(run_id, keys),
        lambda: reader.by_key.committed_keys(run_id, keys),
        lambda: reader.newest_fresh(run_id, 99),
        *(partial(reader.by_place.metrics_of, run_id, [(g, slot)]) for g in range(4) for slot in range(3)),
    ]
    for look in looks:
        try:
            yield look()
        except StorageError:
            yield None


def a_start_refuses(path: Path) -> bool:
    """Whether a daemon would not go on with it."""
    try:
        verify(path, adapters=False, since_last=True)
    except StorageError:
        return True
    return False


def reported(path: Path) -> bool:
    """Whether the full check refuses the journal; on one line that says what to do."""
    try:
        verify(path)
    except StorageError as error:
        return "\n" not in str(error)
    return False


def columns() -> Iterator[tuple[str, str]]:
    for table, names in COLUMNS.items():
        yield from ((table, name) for name in (*names, "checksum"))
    yield from UNSEALED


def another(value: Any) -> Any:
    """The value with its lowest bit, or one character, changed."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:]
    if isinstance(value, str):
        return value[:-1] + chr(ord(value[-1]) ^ 1) if value else "x"
    return 1 if value is None else value + 1 if isinstance(value, int) else value * 1.0000001 + 1e-9


@pytest.mark.parametrize(("table", "column"), list(columns()))
def test_a_change_in_any_column_of_any_table_is_reported(whole: Path, tmp_path: Path, table: str, column: str) -> None:
    path = Path(shutil.copy(whole, tmp_path / "journal.db"))
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA foreign_keys = OFF")
        db.execute("PRAGMA ignore_check_constraints = ON")
        names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        row = db.execute(f"SELECT * FROM {table}").fetchone()
        value = row[names.index(column)]
        where = " AND ".join(f"{name} IS ?" for name in names)
        for changed in (another(value), 77, "running"):  # the first that no UNIQUE refuses
            try:
                assert db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (changed, *row)).rowcount == 1
                break
            except sqlite3.IntegrityError:
                continue
        else:
            raise AssertionError("nothing could be changed")
    assert reported(path)
    overview(path)


def test_every_column_of_the_schema_is_covered_or_proved_otherwise(whole: Path) -> None:
    with closing(sqlite3.connect(whole)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        there = {(table, row[1]) for table in tables for row in db.execute(f"PRAGMA table_info({table})")}
        assert all(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    assert there == set(columns()) | INVISIBLE


def test_no_flipped_bit_of_the_file_changes_a_record_in_silence(whole: Path, tmp_path: Path) -> None:
    original, content = everything(whole), whole.read_bytes()
    path, told = tmp_path / "journal.db", 0
    used = [offset for offset, byte in enumerate(content) if byte]  # most pages of a small journal are empty
    draw = random.Random(12)
    for n in range(500):
        offset, bit = draw.choice(used) if n % 5 else draw.randrange(len(content)), draw.randrange(8)
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :])
        if reported(path):
            told += 1
        else:
            assert everything(path) == original, f"bit {bit} of byte {offset}"
        with suppress(StorageError):
            overview(path)
    assert told > 250  # or the flips met nothing but free space


def test_no_flipped_bit_that_a_start_accepts_tells_a_search_something_else_of_its_past(
    whole: Path, tmp_path: Path
) -> None:
    """A flip in an index would hide a committed outcome, and the search would evaluate it anew."""
    with JournalReader(whole) as reader:
        original = list(asked_by_a_search(reader, 1))
    assert all(original)
    content, path = whole.read_bytes(), tmp_path / "journal.db"
    used = [offset for offset, byte in enumerate(content) if byte]
    draw, accepted = random.Random(12), 0
    for _ in range(800):
        offset, bit = draw.choice(used), draw.randrange(8)
        path.write_bytes(content[:offset] + bytes([content[offset] ^ 1 << bit]) + content[offset + 1 :])
        if a_start_refuses(path):
            continue
        accepted += 1
        with JournalReader(path) as reader:
            for was, now in zip(original, asked_by_a_search(reader, 1), strict=True):
                assert now in (was, None), f"bit {bit} of byte {offset}"
    assert accepted > 100


async def test_a_damaged_evaluation_is_told_from_the_others_and_replaced_when_it_is_stored_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluations([evaluation(key, 0.69) for key in "ab"])
    alter(path, "UPDATE evaluations SET metrics = replace(metrics, '0.69', '0.99') WHERE architecture_id = 1")
    with JournalReader(path) as reader:
        with pytest.raises(RowDamagedError, match=r"evaluations .*architecture_id 1.*restore a backup"):
            reader.by_key.evaluation("table-1", "a")
        assert reader.by_key.evaluation("table-1", "b") == evaluation("b", 0.69)
    with pytest.raises(RowDamagedError):
        verify(path)
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluation(evaluation("a", 0.7))
        await writer.put_evaluation(evaluation("a", 0.8))
    with JournalReader(path) as reader:
        assert reader.by_key.evaluation("table-1", "a") == evaluation("a", 0.7)
    assert verify(path).ok


@pytest.mark.parametrize("what", ["text", "choices", "architecture_key", "key_hash"])
async def test_what_a_damaged_row_shares_is_stored_anew_beside_it(tmp_path: Path, what: str) -> None:
    path = tmp_path / "journal.db"
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluation(evaluation("a"))
    table = "texts" if what == "text" else "architectures"
    alter(path, f"UPDATE {table} SET {what} = {what} {'+ 1' if what == 'key_hash' else '|| 0'}")
    with pytest.raises(RowDamagedError):
        verify(path)
    async with await JournalWriter.open(path) as writer:
        await writer.put_evaluation(evaluation("a", 0.6))
    with JournalReader(path) as reader:
        assert reader.by_key.evaluation("table-1", "a") == evaluation("a", 0.6)


async def test_nothing_is_built_on_a_damaged_row(tmp_path: Path) -> None:
    """A new checksum for the whole row would hide the damage."""
    path = tmp_path / "journal.db"
    await write_run(path, 2)
    alter(path, "UPDATE runs SET created_unix_s = 1.0")
    async with await JournalWriter.open(path) as writer:
        with pytest.raises(RowDamagedError, match="runs with run_id 1"):
            await writer.commit_generation(generation(1, 2))
        with pytest.raises(RowDamagedError):
            await writer.finish_run(1)
    with pytest.raises(RowDamagedError):
        verify(path)


async def test_a_damaged_individual_is_found_when_it_is_looked_up_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 3)
    alter(path, "UPDATE individuals SET metrics = replace(metrics, '0.5', '0.9') WHERE generation = 1 AND slot = 1")
    with JournalReader(path) as reader:
        assert reader.by_key.committed_outcomes(1, ["k0-1"]) == {"k0-1": [individual(0, 1)]}
        for look in (
            lambda: reader.by_key.committed_outcomes(1, ["k1-1"]),
            lambda: reader.by_place.metrics_of(1, [(1, 1)]),
            lambda: reader.by_place.points_at(1, [(0, 1), (1, 1)]),
            lambda: reader.newest_fresh(1, 9),
            lambda: list(reader.individuals(1)),
        ):
            with pytest.raises(RowDamagedError, match="generation 1, slot 1"):
                look()


async def test_content_that_is_no_json_although_its_checksum_holds_is_reported(tmp_path: Path) -> None:
    """As damage that was there before rows had checksums."""
    path = tmp_path / "journal.db"
    await write_run(path, 2)
    alter(path, "UPDATE generations SET counters = ? WHERE generation = 1", "[" * 100_000)
    reseal(path)
    with JournalReader(path) as reader, pytest.raises(JournalCorruptError, match="counters of run_id 1, generation 1"):
        reader.last_generation(1)
    with pytest.raises(JournalCorruptError, match="generation 1"):
        verify(path)

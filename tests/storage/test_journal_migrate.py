from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa_storage import migrate as migrate_module
from riwoa_storage.connect import APPLICATION_ID, SCHEMA_VERSION
from riwoa_storage.digest import state_sha256
from riwoa_storage.errors import JournalCorruptError, JournalVersionError, StorageError
from riwoa_storage.events import kind_of
from riwoa_storage.migrate import migrate, migrations
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare, verify
from riwoa_storage.writer import JournalWriter
from tests.golden import make_journal
from tests.storage.samples import generation, individual, write_run

GOLDEN = Path(make_journal.__file__).parent
GOLDEN_DIGESTS = {
    1: "967f378337b8687242491e1482361d95e63b1d2d425f310bd31dca0064d6cee0",
    2: "39a0c7622ee16f9189fe4ef6c659b78f82f9e602e7bef7eb0571ba1911887080",
    3: "39a0c7622ee16f9189fe4ef6c659b78f82f9e602e7bef7eb0571ba1911887080",
}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def version_of(path: Path) -> tuple[int, ...]:
    with closing(sqlite3.connect(path)) as connection:
        return tuple(connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("application_id", "user_version"))


def test_migrations_are_numbered_without_a_gap_up_to_the_version_that_the_code_knows() -> None:
    assert [version for version, _ in migrations()] == list(range(1, SCHEMA_VERSION + 1))
    assert sorted(GOLDEN_DIGESTS) == list(range(1, SCHEMA_VERSION + 1))


def test_every_table_is_strict(tmp_path: Path) -> None:
    migrate(tmp_path / "journal.db")
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        tables = connection.execute("PRAGMA table_list").fetchall()
    ours = {
        name: strict for _, name, kind, _, _, strict in tables if kind == "table" and not name.startswith("sqlite_")
    }
    assert set(ours.values()) == {1}
    assert set(ours) == {
        "runs", "config_revisions", "generations", "individuals", "evaluations", "requests", "replies",
        "buffer_entries", "adapters", "events", "texts", "architectures", "states", "verified",
    }  # fmt: skip


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    assert migrate(path) == 0
    before = sha256(path)
    assert migrate(path) == SCHEMA_VERSION
    assert sha256(path) == before
    assert version_of(path) == (APPLICATION_ID, SCHEMA_VERSION)


def test_a_failing_migration_leaves_the_version_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal.db"
    broken = (SCHEMA_VERSION + 1, "CREATE TABLE half (a INTEGER) STRICT;\nINSERT INTO nowhere VALUES (1);")
    monkeypatch.setattr(migrate_module, "migrations", lambda: [*migrations(), broken])
    with pytest.raises(StorageError, match="nowhere"):
        migrate(path)
    assert version_of(path) == (APPLICATION_ID, SCHEMA_VERSION)
    with closing(sqlite3.connect(path)) as connection:
        assert not connection.execute("SELECT * FROM sqlite_schema WHERE name = 'half'").fetchall()


async def test_a_newer_journal_is_refused_and_left_untouched_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 2)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    before = sha256(path)
    with pytest.raises(JournalVersionError, match="install the newer riwoa again") as caught:
        await JournalWriter.open(path)
    assert caught.value.exit_code == 76
    with pytest.raises(JournalVersionError, match=f"schema version {SCHEMA_VERSION + 1}"):
        JournalReader(path)
    assert sha256(path) == before


async def test_a_database_of_another_program_is_refused_and_left_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    before = sha256(path)
    with pytest.raises(JournalCorruptError, match="another program"):
        await JournalWriter.open(path)
    with pytest.raises(JournalCorruptError, match="another program"):
        JournalReader(path)
    assert sha256(path) == before


@pytest.mark.parametrize("content", [b"not a database, but long enough to be read as a header" * 40, b"short"])
async def test_a_file_that_is_no_database_is_refused_and_left_untouched(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(content)
    with pytest.raises(JournalCorruptError, match="not a journal"):
        await JournalWriter.open(path)
    with pytest.raises(JournalCorruptError, match="not a journal"):
        JournalReader(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
async def test_a_truncated_journal_is_reported_as_damaged(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 12)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(JournalCorruptError, match=r"damaged.*restore a backup"):
        verify(path)
    with pytest.raises(JournalCorruptError, match="damaged"):
        await JournalWriter.open(path)


@pytest.fixture(params=sorted(GOLDEN_DIGESTS))
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path]:
    """A copy of a golden journal; small enough to be committed."""
    source = GOLDEN / f"journal_v{request.param}.db"
    assert source.stat().st_size < 150_000
    return request.param, Path(shutil.copy(source, tmp_path / "journal.db"))


async def test_a_journal_of_every_schema_version_still_opens_and_proves_its_digest(golden: tuple[int, Path]) -> None:
    version, path = golden
    assert version_of(path) == (APPLICATION_ID, version)
    await (await JournalWriter.open(path)).close()  # migrates it
    seen = verify(path)
    assert seen.final_digest == GOLDEN_DIGESTS[version]
    assert [(r.status, r.generations) for r in seen.runs] == [("finished", 4)]
    with JournalReader(path) as reader:
        g = reader.generation(1, 2)
        assert g.individuals[3] == individual(2, 3, operator="semantic", parent=(1, 1), request_id="1/1/1")
        assert g.joined_requests == ("1/1/1", "1/1/2")
        assert reader.generation(1, 3).state == generation(1, 3).state
        assert reader.generation(1, 0) == replace(
            generation(1, 0),
            state=None,
            state_sha256=state_sha256(generation(1, 0)),
            digest=reader.generation(1, 0).digest,
        )
        assert reader.buffer(1)[0].consumed_by == reader.adapters(1)[0].adapter_id == 1
        assert [r.status for r in reader.replies(1).values()] == ["ok", "timeout"]
        assert [r.revision for r in reader.config_revisions(1)] == [0, 1]
        assert len(list(reader.evaluations("table-1"))) == 3
        assert [kind_of(e) for e in reader.events()] == ["started"]


async def test_the_golden_script_still_makes_the_golden_journal(tmp_path: Path) -> None:
    digest = await make_journal.make(tmp_path / "journal.db")
    assert digest == GOLDEN_DIGESTS[SCHEMA_VERSION]
    shutil.copy(GOLDEN / f"journal_v{SCHEMA_VERSION}.db", tmp_path / "golden.db")
    assert compare(tmp_path / "journal.db", tmp_path / "golden.db").same


async def test_a_golden_journal_takes_another_run(golden: tuple[int, Path]) -> None:
    _, path = golden
    digest = await write_run(path, 2)
    assert [r.digest for r in verify(path).runs] == [GOLDEN_DIGESTS[golden[0]], digest]


def test_error_messages_are_one_line_and_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    migrate(path)
    path.write_bytes(b"x" * 5000)
    with pytest.raises(StorageError, match=re.escape(str(path))) as caught:
        migrate(path)
    assert "\n" not in str(caught.value)

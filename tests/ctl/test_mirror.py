"""``riwoactl mirror``: a journal in a real PostgreSQL server of Debian's, killed, cut off and restored."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.ctl import main
from riwoa.ipc.child import child_command, child_environment
from riwoa_storage.reader import JournalReader
from riwoa_storage.writer import JournalWriter

from .past_journal import generation, made, write_past

psycopg = pytest.importorskip("psycopg", reason="pip install 'riwoa[postgresql]'")
PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/none"))
PORT = 54_329


class Server:
    """A cluster of one's own, as the user postgres where one is root."""

    def __init__(self, folder: Path) -> None:
        self.data, self.socket = folder / "data", folder / "socket"
        self.socket.mkdir(mode=0o777)
        self.socket.chmod(0o777)
        self._as = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        self.data.mkdir(mode=0o700)
        if self._as:
            shutil.chown(self.data, "postgres")
        self._do("initdb", "--auth=trust", "--username=riwoa", "--no-sync")

    def _do(self, program: str, *words: str) -> None:
        command = [*self._as, str(PROGRAMS / program), "-D", str(self.data), *words]
        subprocess.run(command, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60)

    def start(self) -> None:
        options = f"-c listen_addresses='' -c unix_socket_directories={self.socket} -p {PORT} -c fsync=off"
        self._do("pg_ctl", "-w", "-o", options, "-l", "/dev/null", "start")

    def stop(self) -> None:
        self._do("pg_ctl", "-w", "-m", "immediate", "stop")

    def url(self, database: str) -> str:
        return f"postgresql://riwoa:secret@/{database}?host={self.socket}&port={PORT}"

    def rows(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(database)) as connection:
            return list(connection.execute(sql).fetchall())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not (PROGRAMS / "initdb").exists():
        pytest.skip("there is no PostgreSQL server (apt install postgresql)")
    made_here = Path(tempfile.mkdtemp(prefix="riwoa-postgresql-"))  # the user postgres may not enter pytest's folder
    made_here.chmod(0o755)
    try:
        there = Server(made_here)
        there.start()
        yield there
        there.stop()
    finally:
        shutil.rmtree(made_here, ignore_errors=True)


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    name = request.node.name.partition("[")[0][:60]
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return server.url(name)


def fetched(url: str, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return list(connection.execute(sql).fetchall())


def mirror(state: Path, url: str, code: int = 0) -> None:
    assert main(["--state", str(state), "mirror", url, "--once"]) == code


def counts(url: str) -> list[int]:
    tables = ("runs", "generations", "individuals", "replies", "events")
    return [fetched(url, f"SELECT count(*) FROM riwoa.{table}")[0][0] for table in tables]


def test_all_of_a_journal_lies_there_and_again_changes_nothing(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_past(tmp_path / "journal.db")
    mirror(tmp_path, url)
    with JournalReader(tmp_path / "journal.db") as reader:
        runs = reader.history.runs()
        generations = sum(run.record.generations for run in runs)
        individuals = sum(len(list(reader.individuals(run.record.run_id))) for run in runs)
        replies = sum(len(reader.requests(run.record.run_id)) for run in runs)
        events = len(reader.history.events())
        digests = [(run.record.run_id, run.record.digest, run.record.status) for run in runs]
    assert capsys.readouterr().out == f"copied {generations} generations\n"
    assert counts(url) == [len(runs), generations, individuals, replies, events]
    assert min(counts(url)) > 0
    assert fetched(url, "SELECT run_id, digest, status FROM riwoa.runs ORDER BY run_id") == digests
    best = "SELECT name, accuracy FROM riwoa.individuals WHERE accuracy IS NOT NULL ORDER BY accuracy DESC LIMIT 1"
    assert fetched(url, best) == [("54d3cf4bd61e9bd7", 0.86)]
    assert fetched(url, "SELECT verdict, count(*) FROM riwoa.replies GROUP BY 1 ORDER BY 1")
    before = fetched(url, "SELECT * FROM riwoa.individuals ORDER BY run, generation, slot")
    mirror(tmp_path, url)
    assert fetched(url, "SELECT * FROM riwoa.individuals ORDER BY run, generation, slot") == before
    assert counts(url) == [len(runs), generations, individuals, replies, events]


def write(state: Path, *numbers: int, accuracy: float = 0.5) -> None:
    """Commit generations of run 1, which begins with generation 0."""

    async def written() -> None:
        async with await JournalWriter.open(state / "journal.db") as journal:
            if 0 in numbers:
                await journal.begin_run({"seed": 0}, {"run": {"seed": 0}})
            for number in numbers:
                one = made(number, "init", {"depth": 2}, accuracy, 1.0)
                record = generation(1, number, (one,), (number, one))
                await journal.commit_generation(replace(record, committed_unix_s=1_000.0 + number))

    asyncio.run(written())


def test_killed_in_the_midst_it_goes_on_and_a_server_that_is_away_is_waited_for(
    server: Server, url: str, tmp_path: Path
) -> None:
    write(tmp_path, *range(300))
    command = child_command("riwoa.ctl", "--state", str(tmp_path), "mirror", url)
    with subprocess.Popen(command, env=child_environment(1), stderr=subprocess.PIPE, text=True) as first:
        until(lambda: begun(url))
        first.kill()
    (there,) = fetched(url, "SELECT count(*), max(generation) + 1 FROM riwoa.generations")
    assert there[0] == there[1]  # no gap
    assert fetched(url, "SELECT count(*) FROM riwoa.individuals") == [(there[0],)]
    with subprocess.Popen(command, env=child_environment(1), stderr=subprocess.PIPE, text=True) as second:
        try:
            until(lambda: counts(url)[1] == 300)
            server.stop()
            assert second.stderr is not None
            said = second.stderr.readline()
            assert "tried again in 5 s" in said
            assert "secret" not in said
            write(tmp_path, 300)
            server.start()
            until(lambda: counts(url)[1] == 301)
        finally:
            second.send_signal(signal.SIGKILL)
    assert counts(url)[:3] == [1, 301, 301]


def begun(url: str) -> bool:
    try:
        return fetched(url, "SELECT count(*) > 0 FROM riwoa.generations") == [(True,)]
    except psycopg.errors.UndefinedTable:
        return False


def until(true: Any, most_s: float = 60.0) -> None:
    end_s = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_two_devices_share_a_database_and_a_restored_journal_is_copied_anew(url: str, tmp_path: Path) -> None:
    for device in ("one", "two"):
        (tmp_path / device).mkdir()
        write(tmp_path / device, 0, 1, 2)
        mirror(tmp_path / device, url)
    assert counts(url)[:2] == [2, 6]
    saved = (tmp_path / "saved").absolute()
    assert main(["--state", str(tmp_path / "one"), "backup", str(saved)]) == 0
    write(tmp_path / "one", 3, 4)
    mirror(tmp_path / "one", url)
    (tmp_path / "one/journal.db").write_bytes(saved.read_bytes())
    for rest in ("-wal", "-shm"):
        (tmp_path / f"one/journal.db{rest}").unlink(missing_ok=True)
    write(tmp_path / "one", 3, 4, 5, accuracy=0.6)  # another history
    mirror(tmp_path / "one", url)
    assert counts(url)[:2] == [2, 9]
    better = "SELECT generation FROM riwoa.individuals WHERE accuracy = 0.6 ORDER BY 1"
    assert fetched(url, better) == [(3,), (4,), (5,)]
    mirror(tmp_path / "two", url)
    assert counts(url)[:2] == [2, 9]


def test_what_cannot_be_is_said_in_a_line(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 0)
    mirror(tmp_path, "mysql://me:secret@db/x", code=64)
    said = capsys.readouterr().err
    assert "'mysql://me:***@db/x' is no address of PostgreSQL" in said
    mirror(tmp_path, "postgresql://me:secret@127.0.0.1:1/x", code=74)
    said = capsys.readouterr().err
    assert said.startswith("riwoactl: postgresql://me:***@127.0.0.1:1/x: ")
    assert "secret" not in said
    mirror(tmp_path, url)
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE riwoa.mirror SET version = 99")
    mirror(tmp_path, url, code=74)
    assert "tables of version 99" in capsys.readouterr().err
    monkeypatch.setattr("riwoa.service.mirror.find_spec", lambda name: None)
    mirror(tmp_path, url, code=64)
    assert "pip install 'riwoa[postgresql]'" in capsys.readouterr().err

"""A run of any length: resuming does not hold the event loop up, memory does not grow, and what passes ends nothing."""

from __future__ import annotations

import asyncio
import itertools
import resource
import threading
import time
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.bench.past import lengthen
from riwoa.config.loading import load
from riwoa.config.reload import Reloader
from riwoa.config.schema import as_json
from riwoa.oracle.protocol import EvaluationResult
from riwoa.patience import BestEffort, is_transient, patiently
from riwoa.run.conductor import Conductor, Hooks
from riwoa.run.evaluations import Evaluations
from riwoa.run.journal import RunJournal
from riwoa.run.task import SearchTask
from riwoa_storage.checked import CheckedTables
from riwoa_storage.errors import JournalCorruptError, JournalUnreadableError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord
from riwoa_storage.replay import compare, verify
from riwoa_storage.seal import is_intact
from riwoa_storage.tables import Row, Values
from riwoa_storage.writer import JournalWriter
from tests.run.conduct import SMALL, SPACE, conduct, latency_ms
from tests.service.test_service import daemon, run, wait_for

SUPPORT = Path(__file__).resolve().parent.parent / "support"
SEMANTIC = ("cognition.provider=scripted", "search.p_semantic=0.9", "cognition.script=mixed", "cognition.lag=2")
RACED = ("oracle.rungs=[50,400]", "search.population=10", "run.generations=12", "search.riwoa.screened=4")


@pytest.fixture(autouse=True)
def _test_oracles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("RIWOA_TEST_ORACLES", "1")


async def begun(path: Path, generations: int) -> None:
    """A journal with a long past, as a killed daemon leaves it."""
    config = load(None, [*SMALL, "run.generations=100000"], {}).config
    provenance = {"seed": 0, "oracle_version": "landscape-1", "space": SPACE.to_json()}
    writer = await JournalWriter.open(path)
    await writer.begin_run(provenance, as_json(config))
    await writer.close()
    await conduct(path, "run.generations=100000", stop_after=1)
    await lengthen(path, generations)


async def longest_work_s(of: Any) -> float:
    """The most that the event loop's thread worked in one go while it awaited this.

    By the processor's clock: others may use this machine, and what waits for them holds nobody up.
    """
    worked = [0.0]

    async def tick() -> None:
        while True:
            before_s = time.thread_time()
            await asyncio.sleep(0.002)
            worked.append(time.thread_time() - before_s)

    ticking = asyncio.create_task(tick())
    try:
        await of
    finally:
        ticking.cancel()
    return max(worked)


async def test_resuming_a_long_run_leaves_the_event_loop_free_and_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.db"
    await begun(path, 500)
    restore = Conductor.restore
    told: list[tuple[int, int]] = []
    worked_s: list[float] = []

    async def watched(conductor: Conductor, *_: Any) -> None:
        worked_s.append(await longest_work_s(restore(conductor, lambda done, total: told.append((done, total)))))

    monkeypatch.setattr(Conductor, "restore", watched)
    await conduct(path, "run.generations=100000", stop_after=1)
    assert worked_s[0] < 0.05
    assert told == [(256, 500), (500, 500)]
    assert verify(path).ok


async def test_a_resumed_run_makes_no_record_of_every_individual_of_its_past(tmp_path: Path) -> None:
    """Records, with their architectures parsed, are what is large; of the rest a front needs two numbers each."""
    records: list[str] = []
    individual = CheckedTables.individual

    def counted(tables: CheckedTables, row: Values) -> IndividualRecord:
        records.append(row["architecture_key"])
        return individual(tables, row)

    made = []
    for generations in (40, 120):
        path = tmp_path / f"{generations}.db"
        await begun(path, generations)
        records.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CheckedTables, "individual", counted)
            await conduct(path, "run.generations=100000", stop_after=2)
        made.append(len(records))
    assert made[0] == made[1] > 0


async def test_a_resumed_run_checks_no_more_rows_of_a_longer_past(tmp_path: Path) -> None:
    """It scans them all, and checks those that it uses: the newest, the front, the leader."""
    checked: list[str] = []

    def counted(table: str, row: Row) -> bool:
        checked.append(table)
        return is_intact(table, row)

    found = []
    for generations in (60, 240):
        path = tmp_path / f"{generations}.db"
        await begun(path, generations)
        checked.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("riwoa_storage.checked.is_intact", counted)
            await conduct(path, "run.generations=100000", stop_after=1)
        found.append(checked.count("individuals"))
    assert 400 <= found[0] < 1000  # of 1200; what screens learns from the newest 400
    assert found[1] - found[0] < 200  # of 3600 more: a longer front


@pytest.mark.parametrize("settings", [(), ("cognition.provider=scripted", "search.p_semantic=0.9")], ids=["", "model"])
async def test_a_generation_opens_the_journal_as_often_whatever_its_population(
    settings: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    class Counted(JournalReader):
        def __init__(self, path: Any) -> None:
            opened.append(threading.get_ident())
            super().__init__(path)

    for module in ("journal", "evaluations"):
        monkeypatch.setattr(f"riwoa.run.{module}.JournalReader", Counted)
    counts = []
    for population in (6, 18):
        opened.clear()
        more = (f"search.population={population}", "run.generations=3", "run.polish_evaluations=0")
        await conduct(tmp_path / f"{population}.db", *settings, *more)
        counts.append(len(opened))
        assert threading.get_ident() not in opened  # never in the event loop's thread
    assert max(counts) <= 4 + 7 * 3  # a start's, and a generation's
    assert abs(counts[1] - counts[0]) <= 3  # only a generation with successes looks for them


@pytest.mark.parametrize("settings", [("search.strategy=woa",), SEMANTIC, RACED], ids=["woa", "semantic", "raced"])
async def test_what_is_not_held_is_looked_up_and_the_digest_stays(
    settings: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await conduct(tmp_path / "whole.db", *settings)
    monkeypatch.setattr("riwoa.run.history.KEPT", 1)
    assert await conduct(tmp_path / "forgetful.db", *settings) == whole


class Instant:
    """A backend without processes that answers at once."""

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        future: asyncio.Future[EvaluationResult] = asyncio.get_running_loop().create_future()
        accuracy = sum(hash((k, v)) % 97 for k, v in architecture.items()) / (97 * len(architecture))
        future.set_result(EvaluationResult(job_id, "ok", {"accuracy": accuracy, "images": 1.0}, None, 1, 0.0))
        return future


@pytest.mark.timeout(240)
async def test_the_memory_of_a_search_does_not_grow_with_its_evaluations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riwoa.run.history.KEPT", 250)
    path = tmp_path / "journal.db"
    settings = ("run.generations=60", "search.population=50", "search.strategy=random", "run.polish_evaluations=0")
    reloader = Reloader(load(None, [*SMALL, *settings], {}), [])
    held: list[int] = []
    async with await JournalWriter.open(path) as journal:
        run_id = await journal.begin_run({"seed": 0}, as_json(reloader.config))
        conductor = Conductor(
            journal=RunJournal(journal, path, run_id),
            task=SearchTask(SPACE, latency_ms, 4.5),
            evaluations=Evaluations(Instant(), journal, path, "instant", run_id=run_id),  # type: ignore[arg-type]
            reloader=reloader,
            hooks=Hooks(on_commit=lambda: held.append(tracemalloc.get_traced_memory()[0])),
        )
        tracemalloc.start()
        try:
            await conductor.run()
        finally:
            tracemalloc.stop()
    assert conductor.history.counters["evaluations"] == 3000
    assert (min(held[-5:]) - min(held[20:25])) / 1750 < 100  # bytes an evaluation


# -- what passes -----------------------------------------------------------------------------------------------------


def test_a_search_outlives_a_lack_of_file_descriptors_and_ends_in_the_same_digest(tmp_path: Path) -> None:
    ops = np.array(list(itertools.product(range(5), repeat=6)), dtype=np.uint8)
    np.savez(tmp_path / "cells.npz", ops=ops, acc=50.0 + ops.sum(axis=1) + np.cos(np.arange(len(ops))))
    settings = (
        "oracle.kind=table",
        f"oracle.table.file={tmp_path / 'cells.npz'}",
        "oracle.table.accuracy=acc",
        "oracle.workers=1",
        "run.generations=30",
        "run.polish_evaluations=10",
        "run.export=false",
        "cognition.provider=none",
        "governor.every_s=1",
    )
    whole, state = tmp_path / "whole", tmp_path / "state"
    assert run(whole, settings=settings).returncode == 0
    with daemon(state, settings=settings) as process:
        wait_for(state, lambda s: (s.get("run") or {}).get("generation", 0) >= 3)
        _, most = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (3, most))  # those that are open stay
        time.sleep(4)
        assert process.poll() is None
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
        assert process.wait(timeout=60) == 0
    found = compare(whole / "journal.db", state / "journal.db")
    assert found.same, found.message


def test_what_a_convenience_fails_for_is_said_once_until_it_works_again(capsys: pytest.CaptureFixture[str]) -> None:
    works = False

    def step() -> None:
        if not works:
            raise OSError(24, "Too many open files")

    told = BestEffort("status.json")
    assert [told.attempt(step) for _ in range(3)] == [False] * 3
    works = True
    assert told.attempt(step)
    works = False
    assert not told.attempt(step)
    assert capsys.readouterr().out.count("convenience_failed") == 2


async def test_a_look_that_fails_for_what_passes_is_tried_again_and_any_other_failure_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("riwoa.patience._AGAIN_S", 0.01)
    left = [OSError(24, "Too many open files"), JournalUnreadableError("unable to open database file")]

    def look() -> str:
        if left:
            raise left.pop()
        return "seen"

    assert await patiently(look) == "seen"

    def damaged() -> None:
        raise JournalCorruptError("damaged")

    assert not is_transient(JournalCorruptError("damaged"))
    with pytest.raises(JournalCorruptError):
        await patiently(damaged)

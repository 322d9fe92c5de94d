"""What is remembered of a run, from a real journal."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from riwoa.run.history import Best, History
from riwoa.run.scan import Scanned, scan
from riwoa.search.fitness import Objective
from riwoa.search.pareto import ParetoPoint
from riwoa_storage.errors import JournalCorruptError, RowDamagedError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord, IndividualStatus
from riwoa_storage.replay import verify
from tests.storage.samples import alter, write_run

OBJECTIVES = [Objective(None), Objective(12.0), Objective(10.0, -0.07), Objective(1.0)]  # nobody meets the last


def lived(reader: JournalReader, objective: Objective) -> History:
    """The history of a run as it was lived: every individual read, checked and taken in."""
    history = History(objective)
    for g in reader.generations(1):
        for i in g.individuals:
            if i.status == "ok":
                place = (g.generation, i.slot)
                point = ParetoPoint(i.architecture_key, i.metrics["accuracy"], i.metrics["latency_ms"], place)
                history.archive.add(point)
        history.absorb(g.generation, g.individuals)
        history.committed(g.generation, g.counters, g.digest)
    return history


def resumed(reader: JournalReader, objective: Objective) -> History:
    history = History(objective)
    last = reader.last_generation(1)
    assert last is not None
    history.restore(reader, last, scan(reader, 1, last.generation + 1, objective))
    return history


async def test_while_a_leader_is_chosen_anew_whoever_looks_sees_the_one_before(tmp_path: Path) -> None:
    seen: list[Best | None] = []

    class Watched(JournalReader):
        def individual(self, run_id: int, generation: int, slot: int) -> IndividualRecord | None:
            seen.append(history.best)
            return super().individual(run_id, generation, slot)

    path = tmp_path / "journal.db"
    await write_run(path, 4)
    history = History(Objective(None))
    with Watched(path) as reader:
        scanned = scan(reader, 1, 4, Objective(None))
        history.judge_by(Objective(None), reader, 1, scanned)
        before = history.best
        assert before is not None
        assert before.origin == (3, 2)  # the most accurate
        seen.clear()
        history.judge_by(Objective(10.0), reader, 1, scanned)
        assert seen
        assert all(best is before for best in seen)
        assert history.best is not None
        assert history.best.origin == (3, 0)  # the most accurate within 10 ms


async def drawn(path: Path, seed: int) -> None:
    """A run of few architectures with coarse metrics, so that ties, repeats and failures abound."""
    rng = random.Random(seed)
    metrics = {
        f"a{n}": {"accuracy": rng.randrange(5) / 7, "latency_ms": 10.0 + rng.randrange(6) / 3} for n in range(25)
    }
    met: set[str] = set()
    statuses: list[IndividualStatus] = ["ok", "ok", "ok", "failed", "dropped"]

    def one(i: IndividualRecord) -> IndividualRecord:
        key, status = f"a{rng.randrange(25)}", rng.choice(statuses)
        hit = key in met
        met.update([key] if status == "ok" else [])
        architecture = {"depth": int(key[1:])}
        fitness_version = Objective(12.0).version
        i = replace(i, architecture_key=key, architecture=architecture, fitness_version=fitness_version)
        if status == "ok":
            accuracy = metrics[key]["accuracy"]
            return replace(i, metrics=metrics[key], fitness=accuracy, cache_hit=hit)
        return replace(i, status=status, metrics={}, fitness=None, error="no" if status == "failed" else None)

    def edit(g: GenerationRecord) -> GenerationRecord:
        counters = {"evaluations": 3 * g.generation, "operators": {"spiral": {"proposals": g.generation, "wins": 1}}}
        return replace(g, individuals=tuple(map(one, g.individuals)), counters=counters, leader=None)

    await write_run(path, 20, edit=edit)


@pytest.mark.parametrize("seed", range(6))
async def test_front_leader_and_counters_are_those_of_the_full_reading_whatever_the_ties(
    seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    await drawn(path, seed)
    with JournalReader(path) as reader:
        for objective in OBJECTIVES:
            whole, short = lived(reader, objective), resumed(reader, objective)
            assert short.archive.front() == whole.archive.front()
            assert short.best == whole.best
            assert short.best is not None
            assert (short.counters, short.tallies, short.digest) == (whole.counters, whole.tallies, whole.digest)
            assert short.generations == whole.generations == 20


async def test_the_journaled_leader_is_taken_as_it_stands_under_the_same_objective(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    objective = Objective(12.5, -1.0)

    def edit(g: GenerationRecord) -> GenerationRecord:
        individuals = tuple(replace(i, fitness_version=objective.version) for i in g.individuals)
        return replace(g, individuals=individuals, leader={"generation": 0, "slot": 1})

    await write_run(path, 4, edit=edit)
    with JournalReader(path) as reader:
        assert (best := resumed(reader, objective).best) is not None
        assert best.origin == (0, 1)
        assert (judged := resumed(reader, Objective(11.5)).best) is not None
        assert judged.origin == (3, 1)


async def test_what_a_resumed_run_uses_is_checked_and_what_it_does_not_is_left_to_the_verification(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 4)
    worse = "UPDATE individuals SET metrics = replace(metrics, '0.5', '0.4') WHERE generation = ? AND slot = ?"
    with JournalReader(path) as reader:
        whole = resumed(reader, Objective(None)).archive.front()
    assert (0, 2) not in [point.origin for point in whole]
    alter(path, worse, 0, 2)  # far from the front, and farther now
    with JournalReader(path) as reader:
        assert resumed(reader, Objective(None)).archive.front() == whole
    with pytest.raises(JournalCorruptError, match="generation 0, slot 2"):
        verify(path)
    alter(path, "UPDATE individuals SET metrics = replace(metrics, '0.5', '0.9') WHERE generation = 0 AND slot = 1")
    with JournalReader(path) as reader, pytest.raises(RowDamagedError, match="generation 0, slot 1"):
        resumed(reader, Objective(None))  # it seems to be on the front


async def test_a_row_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    await write_run(path, 3)
    alter(path, "UPDATE individuals SET metrics = '{' WHERE generation = 1 AND slot = 1")
    with JournalReader(path) as reader, pytest.raises(RowDamagedError, match="generation 1, slot 1"):
        scan(reader, 1, 3, Objective(None))


def test_a_scan_of_nothing_has_no_front_and_no_rivals() -> None:
    assert Scanned().front() == []
    assert Scanned().rivals(Objective(None)) == []

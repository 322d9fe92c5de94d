"""A run's experience is a function of its committed generations, however often and whenever they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.run import earlier_steps as earlier
from riwoa.run import experience as room
from riwoa.run.earlier_steps import BEFORE, earlier_steps
from riwoa.run.experience import Experience
from riwoa.run.journal import RunJournal
from riwoa.run.task import SearchTask
from riwoa.search.fitness import Objective
from riwoa_storage.records import GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter
from tests.learning.support import SPACE
from tests.storage.samples import alter

GENERATIONS, SLOTS = 12, 4
OBJECTIVE = Objective(20.0)


def individual(generation: int, slot: int) -> IndividualRecord:
    indices = np.random.default_rng([generation, slot]).integers(0, 3, len(SPACE))
    failed = (generation, slot) == (3, 1)
    return IndividualRecord(
        slot=slot,
        operator="climb" if generation else "init",
        parent=(generation - 1, 0) if generation else None,
        genotype=b"",
        architecture=SPACE.architecture(indices),
        architecture_key=SPACE.key(indices),
        status="failed" if failed else "ok",
        metrics={} if failed else {"accuracy": 0.5 + 0.01 * float(indices.sum()), "latency_ms": 10.0 + indices[0]},
        fitness=None,
        fitness_version=OBJECTIVE.version,
        cache_hit=(generation, slot) == (4, 2),
    )


@pytest.fixture
async def journal(tmp_path: Path) -> RunJournal:
    path = tmp_path / "journal.db"
    writer = await JournalWriter.open(path)
    run_id = await writer.begin_run({"seed": 0}, {})
    await commit(writer, run_id, GENERATIONS)
    await writer.close()
    return RunJournal(writer, path, run_id)


async def commit(writer: JournalWriter, run_id: int, generations: int) -> None:
    for generation in range(generations):
        record = GenerationRecord(
            run_id=run_id,
            generation=generation,
            phase="search",
            config_revision=0,
            state=b"",
            counters={},
            leader=None,
            inputs={},
            individuals=tuple(individual(generation, slot) for slot in range(SLOTS)),
        )
        await writer.commit_generation(record)


def read_at(journal: RunJournal, *generations: int, objective: Objective = OBJECTIVE) -> Experience:
    found = Experience(journal, SPACE, 0)
    for generation in generations:
        found.read(generation, objective)
    return found


def same(a: Experience, b: Experience) -> bool:
    every = np.array([[0, 1, 2, 0], [2, 1, 0, 1]])
    expected = [e.order.expect(every, every[::-1], np.zeros(2), np.ones(2)) for e in (a, b)]
    assert expected[0] is not None
    assert expected[1] is not None
    told = [[(lesson.about, lesson.gain, lesson.tries) for lesson in e.lessons] for e in (a, b)]
    return a.steps == b.steps and told[0] == told[1] and expected[0].tobytes() == expected[1].tobytes()


async def test_it_knows_the_same_read_at_once_as_read_after_each_commit(journal: RunJournal) -> None:
    grown = read_at(journal, *range(GENERATIONS + 1))
    assert same(grown, read_at(journal, GENERATIONS))
    # Every child that was evaluated for the first time: neither the failed one nor the repeat, nor the first four.
    assert len(grown.steps) == SLOTS * (GENERATIONS - 1) - 2
    assert grown.order.count == len(grown.steps)
    assert grown.steps[0].before.value == individual(0, 0).metrics["accuracy"]
    assert grown.lessons


async def test_what_lies_more_than_a_block_back_is_forgotten_by_both(
    journal: RunJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "BLOCK", 4)
    grown, resumed = read_at(journal, *range(GENERATIONS)), read_at(journal, GENERATIONS - 1)
    assert same(grown, resumed)
    assert grown.steps[0].child[0] == 4
    assert grown.steps[0].parent == (3, 0)  # beyond the block: looked up


async def test_another_objective_judges_all_of_it_anew(journal: RunJournal) -> None:
    moved = read_at(journal, 8)
    moved.read(GENERATIONS, Objective(9.0))
    assert same(moved, read_at(journal, GENERATIONS, objective=Objective(9.0)))
    assert not same(moved, read_at(journal, GENERATIONS))


# -- what earlier runs knew --------------------------------------------------------------------------------------------

TASK = SearchTask(SPACE, lambda architecture: 2.0 * float(architecture["stage1.depth"]), 20.0)


async def second(journal: RunJournal, generations: int = 2, **provenance: Any) -> RunJournal:
    """Another run of the journal, which has just begun."""
    async with await JournalWriter.open(journal.path) as writer:
        run_id = await writer.begin_run({"seed": 1, **provenance}, {})
        await commit(writer, run_id, generations)
        return RunJournal(writer, journal.path, run_id)


def known(journal: RunJournal, task: SearchTask | None = TASK, generation: int = 2) -> Experience:
    found = Experience(journal, SPACE, 0, task)
    found.read(generation, OBJECTIVE)
    return found


async def test_a_run_begins_with_the_lessons_of_the_runs_that_it_remembers(journal: RunJournal) -> None:
    run = await second(journal, memory={"runs": [1]})
    alone, taught = known(run, None), known(run)
    assert alone.steps == taught.steps
    assert not alone.lessons  # too few of its own
    assert sum(lesson.tries for lesson in taught.lessons) > 2 * len(alone.steps)
    assert all(lesson.example.child[0] in (BEFORE, 1) for lesson in taught.lessons)
    again = known(run, generation=1)
    again.read(2, OBJECTIVE)
    assert same_lessons(again, taught)  # read in two lives or in one


async def test_earlier_steps_are_the_newest_with_the_latencies_of_this_device(
    journal: RunJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await second(journal, memory={"runs": [1]})
    with run.reader() as reader:
        whole = earlier_steps(reader, run.run_id, TASK, OBJECTIVE)
        own = known(journal, None, GENERATIONS).steps
        assert [(s.before.packed, s.after.packed) for s in whole] == [(s.before.packed, s.after.packed) for s in own]
        assert {s.after.latency_ms for s in whole} == {2.0, 4.0, 6.0}
        monkeypatch.setattr(earlier, "MOST", 5)
        assert [s.after for s in earlier_steps(reader, run.run_id, TASK, OBJECTIVE)] == [s.after for s in whole[-5:]]


async def test_a_run_that_remembers_nothing_learns_of_its_own_steps_alone(journal: RunJournal) -> None:
    run = await second(journal, generations=6)
    assert same_lessons(known(run, generation=6), known(run, None, 6))
    assert known(run, generation=6).lessons


async def test_damaged_generations_of_an_earlier_run_cost_its_steps_and_nothing_else(journal: RunJournal) -> None:
    run, whole = await second(journal, memory={"runs": [1]}), known(journal, None, GENERATIONS).steps
    alter(journal.path, "UPDATE individuals SET metrics = '{\"accuracy\": 1.0}' WHERE run_id = 1 AND generation = 5")
    with run.reader() as reader:
        found = earlier_steps(reader, run.run_id, TASK, OBJECTIVE)
    intact = [s for s in whole if s.child[0] >= 7]  # generation 6 descends from the damaged one
    assert [s.after.packed for s in found] == [s.after.packed for s in intact]
    assert len(known(run).steps) == len(known(run, None).steps)


def same_lessons(a: Experience, b: Experience) -> bool:
    told = [[(lesson.about, lesson.gain, lesson.tries) for lesson in e.lessons] for e in (a, b)]
    return told[0] == told[1]

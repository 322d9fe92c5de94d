"""A run's experience is a function of its committed generations, however often and whenever they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from riwoa.run import experience as room
from riwoa.run.experience import Experience
from riwoa.run.journal import RunJournal
from riwoa.search.fitness import Objective
from riwoa_storage.records import GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter
from tests.learning.support import SPACE

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
    for generation in range(GENERATIONS):
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
    await writer.close()
    return RunJournal(writer, path, run_id)


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

"""Evaluations raced up two rungs by bounds that the test sets; the journal is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.oracle.protocol import EvaluationResult
from riwoa.run.evaluations import EvaluationOutcome, EvaluationRequest, Evaluations
from riwoa.search.fitness import Objective
from riwoa.search.pareto import ParetoPoint
from riwoa.search.race import Bound, Cut, EliminationThreshold
from riwoa.search.racing import AUDITED_SHARE, Race
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord
from riwoa_storage.writer import JournalWriter

ALWAYS, NEVER = 0.9, 0.1  # what a rung says can be reached; 0.5 is needed


class Backend:
    """Answers at once; ``refused``: rungs on which the oracle has nothing to say."""

    def __init__(self, *refused: str) -> None:
        self.asked: list[str] = []
        self._refused = refused

    async def submit(
        self, job_id: str, architecture: Mapping[str, Any], rung: str | None = None
    ) -> asyncio.Future[EvaluationResult]:
        self.asked.append("full" if rung is None else rung)
        future: asyncio.Future[EvaluationResult] = asyncio.get_running_loop().create_future()
        refused = rung in self._refused
        future.set_result(
            EvaluationResult(
                job_id=job_id,
                status="failed" if refused else "ok",
                metrics={} if refused else {"accuracy": 0.6},
                reason="error: in the table, but without it" if refused else None,
                attempts=1,
                duration_s=0.0,
            )
        )
        return future

    def told(self) -> list[str]:
        """What was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


def bound(reaches: float) -> Bound:
    """A rung whose every architecture reaches so much."""
    values = np.full(30, reaches)
    return Bound(list(values), list(values), 0.9)


def race(on_50: float, on_400: float = ALWAYS) -> Race:
    return Race(("50", "400"), {"50": bound(on_50), "400": bound(on_400)})


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[JournalWriter]:
    writer = await JournalWriter.open(tmp_path / "journal.db")
    await writer.begin_run({"seed": 0}, {})
    yield writer
    await writer.close()


def evaluations(journal: JournalWriter, backend: Backend, tmp_path: Path) -> Evaluations:
    return Evaluations(backend, journal, tmp_path / "journal.db", "v", run_id=1)  # type: ignore[arg-type]


async def generation(
    journal: JournalWriter, of: Evaluations, by: Race, *added: Sequence[EvaluationRequest]
) -> list[EvaluationOutcome]:
    """Evaluate a generation and commit it."""
    async with of.round(by) as work:
        for wanted in added:
            await work.add(wanted)
    keys = [w.key for wanted in added for w in wanted]
    found = work.outcomes(keys)
    with JournalReader(journal._name) as reader:
        count = reader.generation_count(1)
    await journal.commit_generation(
        GenerationRecord(
            run_id=1,
            generation=count,
            phase="search",
            config_revision=0,
            state=b"",
            counters={},
            leader=None,
            inputs={},
            individuals=tuple(individual(slot, *row) for slot, row in enumerate(zip(keys, found, strict=True))),
        )
    )
    return found


def individual(slot: int, key: str, outcome: EvaluationOutcome) -> IndividualRecord:
    return IndividualRecord(
        slot=slot,
        operator="init",
        parent=None,
        genotype=b"",
        architecture={},
        architecture_key=key,
        status=outcome.status,
        metrics=outcome.metrics,
        fitness=None,
        fitness_version="v1",
        cache_hit=outcome.hit,
        error=outcome.error,
    )


def unaudited() -> str:
    """A key that no audit spares."""
    keys = (f"k{i}" for i in range(100))
    return next(k for k in keys if not Race().audits(k, 0.5))


async def test_one_given_up_is_raced_again_from_the_rungs_that_it_has(journal: JournalWriter, tmp_path: Path) -> None:
    backend, key = Backend(), unaudited()
    of, wanted = evaluations(journal, backend, tmp_path), [EvaluationRequest(key, {}, 0.5)]
    (first,) = await generation(journal, of, race(NEVER), wanted)
    assert (first.dropped, first.hit, backend.told()) == (True, False, ["50"])
    (same,) = await generation(journal, of, race(NEVER), wanted)
    assert (same.dropped, same.hit, backend.told()) == (True, True, [])
    (further,) = await generation(journal, of, race(ALWAYS, NEVER), wanted)
    assert (further.dropped, further.hit, backend.told()) == (True, False, ["400"])
    (again,) = await generation(journal, of, race(ALWAYS, NEVER), wanted)
    assert (again.dropped, again.hit, backend.told()) == (True, True, [])
    assert set(again.metrics) == {"accuracy_50", "accuracy_400"}
    (whole,) = await generation(journal, of, race(ALWAYS), wanted)
    assert (whole.ok, whole.hit, backend.told()) == (True, False, ["full"])
    (known,) = await generation(journal, of, race(NEVER), wanted)
    assert (known.ok, known.hit, backend.told()) == (True, True, [])


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("order", [(0.95, 0.5), (0.5, 0.95)])
async def test_of_two_equal_candidates_the_one_that_asks_less_decides(
    journal: JournalWriter, tmp_path: Path, together: bool, order: tuple[float, float]
) -> None:
    backend, key = Backend(), unaudited()
    pair = [EvaluationRequest(key, {}, needed) for needed in order]
    added = (pair,) if together else ([pair[0]], [pair[1]])
    found = await generation(journal, evaluations(journal, backend, tmp_path), race(ALWAYS), *added)
    assert [f.ok for f in found] == [True, True]
    assert [f.hit for f in found] == [False, True]
    assert backend.told() == ["50", "400", "full"]


async def test_one_that_nothing_would_save_is_given_up_without_an_audit(journal: JournalWriter, tmp_path: Path) -> None:
    backend = Backend()
    wanted = [EvaluationRequest(f"k{i}", {}, float("inf")) for i in range(int(4 / AUDITED_SHARE))]
    found = await generation(journal, evaluations(journal, backend, tmp_path), race(ALWAYS), wanted)
    assert all(f.dropped for f in found)
    assert set(backend.told()) == {"50"}


async def test_what_has_nothing_on_a_rung_is_evaluated_in_full(journal: JournalWriter, tmp_path: Path) -> None:
    backend = Backend("50")
    (found,) = await generation(
        journal, evaluations(journal, backend, tmp_path), race(NEVER), [EvaluationRequest("k", {}, 0.5)]
    )
    assert found.ok
    assert set(found.metrics) == {"accuracy", "accuracy_400"}
    assert backend.told() == ["50", "400", "full"]


async def test_a_child_that_beats_a_parent_below_the_cut_is_kept(journal: JournalWriter, tmp_path: Path) -> None:
    threshold = EliminationThreshold(Objective(10.0), Cut(0.95, 9.0), [ParetoPoint("a", 0.95, 5.0)])
    backend, key = Backend(), unaudited()
    weak, strong = (EvaluationRequest(key, {}, threshold.needed(8.0, fitness)) for fitness in (0.85, 0.94))
    of = evaluations(journal, backend, tmp_path)
    assert [f.dropped for f in await generation(journal, of, race(ALWAYS), [strong])] == [True]
    assert [f.ok for f in await generation(journal, of, race(ALWAYS), [weak])] == [True]


async def test_what_an_earlier_life_stored_in_full_is_not_asked_again_when_raced_on(
    journal: JournalWriter, tmp_path: Path
) -> None:
    key = unaudited()
    async with evaluations(journal, Backend(), tmp_path).round(race(ALWAYS)) as work:
        await work.add([EvaluationRequest(key, {}, 0.5)])  # and is killed before it commits
    backend = Backend()
    pair = ([EvaluationRequest(key, {}, 0.95)], [EvaluationRequest(key, {}, 0.5)])
    found = await generation(journal, evaluations(journal, backend, tmp_path), race(ALWAYS), *pair)
    assert [f.ok for f in found] == [True, True]
    assert backend.told() == []

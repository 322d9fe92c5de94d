"""Adapters in the role of a pool learn from every evaluated child, whoever made it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog

from riwoa.cognition.protocol import OnTrainingStep, Trained, TrainingJob
from riwoa.cognition.provider import ScriptedProvider
from riwoa_storage.reader import JournalReader
from riwoa_storage.replay import compare
from tests.run.conduct import JOINT, conduct

SETTINGS = (
    *JOINT,
    "cognition.provider=scripted",
    "cognition.role=pool",
    "cognition.lag=1",
    "cognition.train_after=18",
    "cognition.held_out_share=0.5",
    "run.seed=2",
    "run.generations=24",
    "run.polish_evaluations=0",
)


pytestmark = pytest.mark.usefixtures("landscape_oracles")


class Pupil(ScriptedProvider):
    """Keeps the jobs that it is given."""

    def __init__(self) -> None:
        super().__init__("good")
        self.jobs: list[TrainingJob] = []

    async def train(self, job: TrainingJob, on_progress: OnTrainingStep) -> Trained:
        self.jobs.append(job)
        return await super().train(job, on_progress)


async def run(path: Path, *more: str, **how: Any) -> list[TrainingJob]:
    provider = Pupil()
    await conduct(path, *SETTINGS, *more, provider=provider, target_ms=100.0, **how)
    return provider.jobs


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrainingJob]]:
    path = tmp_path_factory.mktemp("once") / "whole.db"
    return path, asyncio.run(run(path))


def adapters(path: Path) -> list[Any]:
    with JournalReader(path) as reader:
        return [(a.generation, a.sha256, a.status, a.training["trigger"]) for a in reader.adapters(1)]


def test_the_answers_are_patches_that_were_evaluated_with_what_they_gained(
    once: tuple[Path, list[TrainingJob]],
) -> None:
    path, jobs = once
    assert jobs
    with JournalReader(path) as reader:
        individuals = {(g, i.slot): i for g, i in reader.individuals(1)}
    by_key = {i.architecture_key: i for i in individuals.values() if i.status == "ok"}
    operators = set()
    for comparison in jobs[-1].comparisons:
        parent = by_key[comparison.id]
        assert len(set(comparison.answers)) == len(comparison.answers) >= 3
        children = list(by_key.values())
        for answer, gain in zip(comparison.answers, comparison.gains, strict=True):
            patch = json.loads(answer)
            assert 1 <= len(patch) <= 4
            (child,) = {
                c.architecture_key: c
                for c in children
                if all(c.architecture.get(gene) == choice for gene, choice in patch.items())
                and sum(parent.architecture.get(g) != v for g, v in c.architecture.items() if g in parent.architecture)
                == len(patch)
            }.values()
            assert child.fitness is not None
            assert parent.fitness is not None
            assert gain == pytest.approx(child.fitness - parent.fitness)
            operators.add(child.operator)
        assert comparison.lead.strip() == "</think>"
    assert operators - {"semantic"}  # the model learns from what others made, too


def test_networks_that_judge_never_train(once: tuple[Path, list[TrainingJob]]) -> None:
    path, jobs = once
    trained = {c.id for job in jobs for c in job.comparisons}
    judged = {c.id for job in jobs for c in job.judging}
    assert trained
    assert judged
    assert not trained & judged
    with JournalReader(path) as reader:
        known = {i.architecture_key: i.architecture for _, i in reader.individuals(1) if i.status == "ok"}
    for comparison in (c for job in jobs for c in job.comparisons):
        for answer in comparison.answers:  # nor are they what a patch of a parent that trains leads to
            given = {**known[comparison.id], **json.loads(answer)}
            assert given not in [known[key] for key in judged]


def test_more_parents_are_learned_from_than_have_children_within_a_patch(
    once: tuple[Path, list[TrainingJob]],
) -> None:
    """Most children differ from their parent in more genes than a patch has."""
    path, jobs = once
    with JournalReader(path) as reader:
        individuals = {(g, i.slot): i for g, i in reader.individuals(1)}
    families = Counter(
        individuals[i.parent].architecture_key
        for i in individuals.values()
        if i.parent is not None and 0 < differences(individuals[i.parent].architecture, i.architecture) <= 4
    )
    of_children = sum(count >= 3 for count in families.values())
    assert len(jobs[-1].comparisons) + len(jobs[-1].judging) > of_children


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    return sum(one[gene] != other[gene] for gene in one.keys() & other.keys())


def test_so_many_new_children_start_a_training(once: tuple[Path, list[TrainingJob]]) -> None:
    path, jobs = once
    with JournalReader(path) as reader:
        born = dict(reader.history.children_by_generation(1, before=24))
    rows = adapters(path)
    assert len(rows) == len(jobs) >= 2
    consumed = -1
    for generation, _, _, trigger in rows:
        assert generation == trigger + 2
        assert sum(count for g, count in born.items() if consumed < g <= trigger) >= 18
        consumed = trigger


async def test_a_run_knows_how_many_trainings_it_has_room_for(
    once: tuple[Path, list[TrainingJob]], tmp_path: Path
) -> None:
    found: list[int | None] = []

    def look(conductor: Any) -> None:
        found.extend(conductor.learning.trainings_possible(generations, 6) for generations in (18, 5))

    await run(tmp_path / "looked.db", at_commit=look, stop_after=1)
    # Eighteen children are there after generation 2; the last that may trigger is 14, one every third generation.
    assert found == [5, 0]
    assert len(once[1]) <= 5


@pytest.mark.parametrize(
    ("settings", "level", "said"),
    [
        ((), "info", "this search has room for 7 trainings of its language model"),
        (("run.evaluations=60",), "info", "this search has room for 2 trainings of its language model"),
        (("run.evaluations=24",), "warning", "no training of the language model fits into this search"),
        (("cognition.train=false",), None, ""),
    ],
)
async def test_a_run_says_at_its_start_how_often_its_model_can_learn(
    tmp_path: Path, settings: tuple[str, ...], level: str | None, said: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        await run(tmp_path / "said.db", *settings, stop_after=1)
    events = [entry["event"] for entry in logs]
    found = [entry for entry in logs if entry["event"] == "trainings_possible"]
    assert [entry["log_level"] for entry in found] == ([] if level is None else [level])
    if found:
        assert found[0]["message"].startswith(said)
        assert events.index("trainings_possible") < events.index("generation_committed")


@pytest.mark.parametrize("stop_after", [4, 7, 9])
async def test_a_resumed_run_trains_on_the_same(
    stop_after: int, once: tuple[Path, list[TrainingJob]], tmp_path: Path
) -> None:
    path = tmp_path / "killed.db"
    await run(path, stop_after=stop_after)
    await run(path)
    assert compare(once[0], path).same
    assert adapters(path) == adapters(once[0])

"""A training that the daemon runs: paused, stopped and cut short, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.ipc.job import run_job
from riwoa.service.parts import DaemonParts
from riwoa.service.state import DaemonState
from riwoa.service.trainings import Trainings
from riwoa.service.verbs import Verbs
from riwoa.supernet.job import TrainingJob
from riwoa.supernet.recipe import read_recipe
from riwoa.supernet.training import unfinished
from tests.support.tiny_training import tiny_training

from .support import daemon_parts

MODULE = "riwoa.supernet.job"


@pytest.fixture
def parts(tmp_path: Path) -> DaemonParts:
    return daemon_parts(tmp_path / "state")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    """A training that nobody disturbs, done."""
    job = tiny_training(tmp_path_factory.mktemp("whole"), epochs=8)
    asyncio.run(run_job(MODULE, [json.dumps(job.to_json())], 1, "training", lambda event: None))
    return job


def other(whole: TrainingJob, tmp_path: Path) -> TrainingJob:
    return replace(whole, out=tmp_path / "parts.safetensors")


async def trained(trainings: Trainings, job: TrainingJob, tell: Any = lambda event: None) -> dict[str, Any]:
    return await trainings.run(MODULE, [json.dumps(job.to_json())], 1, "training", tell)


async def test_a_person_pauses_a_training_which_leaves_its_state_and_ends_in_the_same_bytes(
    parts: DaemonParts, whole: TrainingJob, tmp_path: Path
) -> None:
    verbs, job = Verbs(parts.board, parts.pauses, parts.reloader, asyncio.Event()), other(whole, tmp_path)
    seen: list[int] = []
    parts.board.show("training", "starting")

    def tell(event: dict[str, Any]) -> None:
        seen.append(event["done"])
        parts.board.show("training", event["words"])

    task = asyncio.create_task(trained(Trainings(parts.pauses), job, tell))
    while not seen:
        await asyncio.sleep(0.01)
    assert await verbs.pause() == {"message": "pausing; the training saves its state first"}
    assert parts.board.shown == DaemonState("paused", "by riwoactl pause")
    while not unfinished(job.out).exists():
        await asyncio.sleep(0.01)
    told = len(seen)
    await asyncio.sleep(0.5)
    assert len(seen) == told
    assert not task.done()
    assert not job.out.exists()
    assert await verbs.resume() == {"message": "training on"}
    assert parts.board.shown.state == "training"
    await task
    assert job.out.read_bytes() == whole.out.read_bytes()
    assert parts.pauses.phase is None


async def test_a_training_waits_for_what_holds_it_and_a_stop_leaves_its_state(
    parts: DaemonParts, whole: TrainingJob, tmp_path: Path
) -> None:
    job, seen = other(whole, tmp_path), asyncio.Event()
    parts.pauses.governor.holds = {"temperature": "91 degrees Celsius"}
    parts.pauses.apply()
    parts.board.show("training", "starting")
    task = asyncio.create_task(trained(Trainings(parts.pauses), job, lambda event: seen.set()))
    await asyncio.sleep(0.3)
    assert parts.board.shown == DaemonState("paused", "91 degrees Celsius")
    assert not seen.is_set()
    parts.pauses.governor.holds = {}
    parts.pauses.apply()
    await seen.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    assert unfinished(job.out).exists()  # after some steps, long before it would have been saved


async def test_at_its_end_of_time_a_training_ends_with_what_it_has(
    parts: DaemonParts, whole: TrainingJob, tmp_path: Path
) -> None:
    job = other(whole, tmp_path)
    found = await trained(Trainings(parts.pauses, time.time()), job)
    recipe = read_recipe(job.out)
    epoch_steps = read_recipe(whole.out).steps // 8
    assert found["steps"] == recipe.steps == epoch_steps  # every picture was met, and no more
    assert "largest" in found["accuracy"]
    assert not unfinished(job.out).exists()


async def test_a_training_that_is_paused_at_its_end_of_time_ends_with_what_it_has(
    parts: DaemonParts, whole: TrainingJob, tmp_path: Path
) -> None:
    job = other(whole, tmp_path)
    parts.pauses.hold("control", "by riwoactl pause")
    async with asyncio.timeout(60):
        found = await trained(Trainings(parts.pauses, time.time() + 0.2), job)
    assert found["steps"] == read_recipe(job.out).steps


async def test_who_waits_for_the_end_of_a_pause_waits_through_the_next_one(parts: DaemonParts) -> None:
    parts.pauses.hold("control", "by riwoactl pause")
    waiting = asyncio.create_task(parts.pauses.wait_until_over())
    await asyncio.sleep(0)
    parts.pauses.release("control")
    parts.pauses.hold("control", "by riwoactl pause")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    parts.pauses.release("control")
    await waiting

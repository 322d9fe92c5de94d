"""A training in a process of its own, as the daemon runs it: killed and run again, it ends in the same bytes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any

import pytest

from riwoa.files.ownership import safetensors_notes
from riwoa.ipc.child import child_command, child_environment
from riwoa.supernet.job import TrainingJob, told_check
from riwoa.supernet.recipe import read_recipe
from riwoa.supernet.training import unfinished
from tests.support.tiny_pictures import CLASSES
from tests.support.tiny_training import tiny_training


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    return tiny_training(tmp_path_factory.mktemp("job"), epochs=12)


def start(job: TrainingJob) -> subprocess.Popen[str]:
    command = child_command("riwoa.supernet.job", json.dumps(job.to_json()))
    return subprocess.Popen(command, env=child_environment(1), stdout=subprocess.PIPE, text=True)


def events(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=150)
    return [json.loads(line) for line in output.splitlines()]


def test_a_job_survives_json(job: TrainingJob) -> None:
    assert TrainingJob.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_killed_and_run_again_it_ends_in_the_same_bytes(job: TrainingJob) -> None:
    told = events(start(job))
    assert told[-1]["event"] == "done", told[-1]
    assert {"done", "total", "left_s", "words"} <= told[0].keys()
    result = told[-1]["result"]
    assert result["accuracy"]["largest"]["validation"] > 1 / CLASSES
    assert told_check(job.out)["lead"] == result["lead"]
    assert json.loads(safetensors_notes(job.out)["classes"]) == ["red", "green", "blue"]
    assert read_recipe(job.out).steps == result["steps"] == 12 * (72 // read_recipe(job.out).batch_images)

    parts = replace(job, out=job.out.with_name("parts.safetensors"))
    with start(parts) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if unfinished(parts.out).exists() and json.loads(line)["event"] == "progress":
                break
        process.kill()
    assert not parts.out.exists()
    continued = events(start(parts))
    steps = [event["done"] for event in continued if event["event"] == "progress"]
    assert steps[0] > 1
    assert parts.out.read_bytes() == job.out.read_bytes()
    assert not unfinished(parts.out).exists()


def test_pictures_that_are_not_there_are_named(job: TrainingJob) -> None:
    gone = replace(job, judged=replace(job.judged, data="/nowhere/a.npz"))
    (told,) = events(start(gone))
    assert told["event"] == "error"
    assert "/nowhere/a.npz" in told["message"]

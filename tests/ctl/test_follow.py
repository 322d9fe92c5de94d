"""``riwoactl follow``: a tracking server is told of each committed generation, by its own client."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from riwoa.ctl import main
from riwoa_storage.writer import JournalWriter

from .past_journal import generation, made, write_past


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An MLflow store in files."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"file://{tmp_path}/tracked"


def client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str) -> list[Any]:
    there = client(uri)
    return list(there.search_runs([there.get_experiment_by_name("riwoa").experiment_id]))


def follow(state: Path, *words: str, code: int = 0) -> None:
    assert main(["--state", str(state), "follow", *words]) == code


def test_mlflow_is_told_settings_generations_and_the_end(
    mlflow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_past(tmp_path / "journal.db")
    follow(tmp_path, "mlflow", "--uri", mlflow)
    assert capsys.readouterr().out == "told 4 generations; the run is over\n"
    (run,) = runs(mlflow)
    assert (run.info.run_name, run.info.status) == ("riwoa run 2", "FINISHED")
    assert run.data.params == {"run.generations": "4", "run.seed": "0"}
    assert run.data.tags["riwoa.strategy"] == "riwoa"
    assert run.data.tags["riwoa.winner"] == "54d3cf4bd61e9bd7"
    assert run.data.metrics["test_accuracy"] == pytest.approx(0.85)
    best = client(mlflow).get_metric_history(run.info.run_id, "best_accuracy")
    assert [(one.step, one.value) for one in best][:4] == [(0, 0.80), (1, 0.82), (2, 0.85), (3, 0.86)]
    assert run.data.metrics["best_latency_ms"] == 1.9
    follow(tmp_path, "mlflow", "--uri", mlflow, "--run", "1")
    assert [one.info.status for one in runs(mlflow)] == ["KILLED", "FINISHED"]  # the first was given up


def test_begun_again_it_goes_on_and_what_was_not_kept_is_told_again(mlflow: str, tmp_path: Path) -> None:
    one = made(0, "init", {"depth": 2}, 0.5, 1.0)

    async def write(*numbers: int) -> None:
        async with await JournalWriter.open(tmp_path / "journal.db") as journal:
            if 0 in numbers:
                await journal.begin_run({"seed": 0}, {"run": {"seed": 0}})
            for number in numbers:
                record = generation(1, number, (one,), (number, one))
                await journal.commit_generation(replace(record, committed_unix_s=1_000.0 + number))

    def told() -> list[int]:
        (run,) = runs(mlflow)
        assert run.info.status == "RUNNING"
        return [one.step for one in client(mlflow).get_metric_history(run.info.run_id, "evaluations")]

    asyncio.run(write(0, 1))
    follow(tmp_path, "mlflow", "--uri", mlflow, "--once")
    asyncio.run(write(2))
    follow(tmp_path, "mlflow", "--uri", mlflow, "--once")
    assert told() == [0, 1, 2]
    ((_, cursor),) = json.loads((tmp_path / "told.json").read_text()).items()
    assert cursor == {"next": 3, "over": False}
    (tmp_path / "told.json").unlink()  # as by a kill before it was written
    follow(tmp_path, "mlflow", "--uri", mlflow, "--once")
    assert sorted(set(told())) == [0, 1, 2]  # of the same run there


def test_a_sink_that_fails_is_told_again_after_a_line(
    mlflow: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_past(tmp_path / "journal.db")
    (tmp_path / "tracked").touch()  # a file in the store's place
    follow(tmp_path, "mlflow", "--uri", mlflow, "--once", code=74)
    assert capsys.readouterr().err.startswith("riwoactl: mlflow")
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            (tmp_path / "tracked").unlink()

    monkeypatch.setattr("riwoa.ctl.follow.time.sleep", wait)
    follow(tmp_path, "mlflow", "--uri", mlflow)
    assert waits == [5.0, 10.0]
    said = capsys.readouterr()
    assert [line.rpartition("; ")[2] for line in said.err.splitlines()] == ["tried again in 5 s", "tried again in 10 s"]
    assert said.out == "told 4 generations; the run is over\n"


def test_wandb_is_told_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_past(tmp_path / "journal.db")
    follow(tmp_path, "wandb", "--project", "mine")
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    written = file.read_bytes()
    for words in (b"mine", b"run.generations", b"best_accuracy", b"test_accuracy", b"54d3cf4bd61e9bd7"):
        assert words in written
    ((place, cursor),) = json.loads((tmp_path / "told.json").read_text()).items()
    assert place.endswith(" wandb, project mine, offline")
    assert cursor == {"next": 4, "over": True}


def test_without_a_client_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("riwoa.service.sinks.find_spec", lambda name: None)
    follow(tmp_path, "wandb", code=64)
    assert "pip install 'riwoa[wandb]'" in capsys.readouterr().err
    follow(tmp_path, "mlfow", code=64)
    assert "'mlflow'" in capsys.readouterr().err

"""Who writes the proposals of a new run, and of one that is continued."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from riwoa.cognition.protocol import ModelSpec
from riwoa.config.schema import Cognition, Oracle
from riwoa.errors import ConfigError, ModelError
from riwoa.oracle.workers import worker_count
from riwoa.run.provision import Provision, provide
from riwoa_storage.events import CognitionProvided
from riwoa_storage.records import EvaluationRecord, RunRecord
from riwoa_storage.writer import JournalWriter
from tests.conftest import save_tiny_llama, train_tokenizer


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_tiny_llama(tmp_path / "mine", train_tokenizer)
    return tmp_path / "mine"


def begun(**provenance: Any) -> RunRecord:
    return RunRecord(
        run_id=1,
        created_unix_s=0.0,
        status="running",
        provenance=provenance,
        generations=3,
    )


async def provided(settings: Cognition, run: RunRecord | None = None, directory: Path | None = None) -> Provision:
    return await provide(lambda: settings, run, lambda _: None, str(directory))


async def test_without_a_model_the_search_is_geometric_and_says_why() -> None:
    found = await provided(Cognition(provider="model"))
    assert found.provider is None
    assert found.view()["state"] == "geometric only"
    assert "riwoactl model pull smollm2" in found.reason
    assert found.provenance()["model"] is None
    assert found.busy_cores == 0


async def test_none_and_scripted_ask_for_no_model() -> None:
    assert (await provided(Cognition(provider="none"))).provider is None
    found = await provided(Cognition(provider="scripted"))
    assert (found.state, found.provenance()["model"]) == ("scripted", "scripted:good")


async def test_a_model_is_journaled_by_name_and_keeps_its_cores_to_itself(model: Path) -> None:
    found = await provided(Cognition(provider="model", model=str(model), threads=2))
    assert found.state == "model"
    assert found.provenance()["model"].startswith("mine@")
    assert ModelSpec.from_json({**found.provenance()["model_spec"], "directory": str(model)}) == found.spec
    assert str(model) not in str(found.provenance())  # two places are no two searches
    assert CognitionProvided(**found.event()).directory == str(model)
    assert found.busy_cores == 2


def test_automatic_workers_leave_those_cores_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    assert [worker_count(Oracle(), kept) for kept in (0, 1, 3, 9)] == [4, 3, 1, 1]
    assert worker_count(Oracle(workers=4), 3) == 4
    assert worker_count(Oracle(threads=2), 1) == 1


async def test_a_run_goes_on_with_its_model_wherever_that_lies_now(model: Path, tmp_path: Path) -> None:
    before = await provided(Cognition(provider="model", model=str(model)))
    run = begun(**before.provenance())
    moved = shutil.move(model, tmp_path / "elsewhere")
    found = await provided(Cognition(provider="model", model=str(moved)), run)
    assert found.spec is not None
    assert found.spec.directory == str(moved)
    assert found.provenance()["model"] == before.provenance()["model"]


async def test_a_run_keeps_its_model_when_auto_has_come_to_mean_another(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(**(await provided(Cognition(provider="model", model=str(model)))).provenance())
    save_tiny_llama(tmp_path / "home" / "smollm2-135m-instruct", train_tokenizer, seed=1)
    monkeypatch.setenv("RIWOA_MODELS", str(tmp_path / "home"))
    found = await provided(Cognition(provider="model"), run, model)
    assert found.spec is not None
    assert found.spec.directory == str(model)
    assert (await provided(Cognition(provider="model"))).spec != found.spec


async def test_a_run_is_not_continued_with_another_model_and_the_ways_out_are_named(model: Path) -> None:
    run = begun(**(await provided(Cognition(provider="model", model=str(model)))).provenance())
    save_tiny_llama(model, train_tokenizer, seed=1)
    with pytest.raises(ConfigError, match="--new-run") as error:
        await provided(Cognition(provider="model", model=str(model)), run)
    assert run.provenance["model"] in str(error.value)


async def test_a_run_whose_model_is_gone_goes_on_with_every_request_failing(model: Path) -> None:
    run = begun(**(await provided(Cognition(provider="model", model=str(model)))).provenance())
    shutil.rmtree(model)
    found = await provided(Cognition(provider="model", model=str(model)), run)
    assert found.view()["state"] == "model gone"
    assert found.provider is not None
    assert found.provider.model == run.provenance["model"]
    with pytest.raises(ModelError, match="gone"):
        await found.provider.start()
    assert found.provider.stats().state == "unavailable"
    assert found.busy_cores == 0


@pytest.mark.parametrize("provenance", [{}, {"model": None}])
async def test_a_run_begun_without_a_model_stays_geometric_when_one_appears(
    provenance: dict[str, Any], model: Path
) -> None:
    found = await provided(Cognition(provider="model", model=str(model)), begun(**provenance))
    assert found.provider is None
    assert "--new-run" in found.reason


# -- only where it pays ------------------------------------------------------------------------------------------------


async def journaled(path: Path, evaluation_s: float) -> Path:
    """A journal in which one evaluation took so long."""
    writer = await JournalWriter.open(path)
    await writer.put_evaluation(
        EvaluationRecord(
            oracle_version="v",
            architecture_key="0",
            architecture={"gene": 0},
            status="ok",
            metrics={"accuracy": 0.5},
            error=None,
            attempts=1,
            worker="0",
            duration_s=evaluation_s,
            created_unix_s=1.0,
        )
    )
    await writer.close()
    return path


async def test_left_to_itself_a_model_is_asked_only_where_an_evaluation_takes_as_long_as_its_reply(
    model: Path, tmp_path: Path
) -> None:
    auto = Cognition(model=str(model))

    async def decided(journal: Path | None, run: RunRecord | None = None) -> Provision:
        return await provide(lambda: auto, run, lambda _: None, str(model), journal)

    unknown, fast = await decided(tmp_path / "none.db"), await decided(await journaled(tmp_path / "fast.db", 1e-6))
    slow = await decided(await journaled(tmp_path / "slow.db", 3600.0))
    assert (unknown.provider, fast.provider) == (None, None)
    assert "nobody knows yet what an evaluation takes" in unknown.reason
    assert "an evaluation takes" in fast.reason
    assert all('cognition.provider = "model" turns it on' in p.reason and not p.missed for p in (unknown, fast))
    assert slow.state == "model"
    # A run keeps to what was decided when it began.
    assert (await decided(tmp_path / "fast.db", begun(**slow.provenance()))).state == "model"
    assert (await decided(tmp_path / "slow.db", begun(**fast.provenance()))).provider is None

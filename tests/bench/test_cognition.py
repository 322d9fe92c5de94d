"""The cognition benchmark in miniature: every step on a real (tiny) model and OFA's real predictor."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.bench import cognition
from riwoa.bench.cognition import JUDGED_SEEDS, TRAINING_SEEDS, Settings, bench_cognition
from riwoa.bench.parents import collect_parents
from riwoa.bench.proposer import Outcome
from riwoa.bench.tasks import PredictorTask
from riwoa.cognition.protocol import ModelSpec
from riwoa.config.loading import load
from riwoa.errors import InputError, ModelError, UsageError
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import shipped_table
from tests.support.official import official_data

SMALL = Settings(proposals=6, trainings=2, round_proposals=8, probes=2, speed_requests=2, epochs=1)


@pytest.fixture(scope="module")
def task() -> PredictorTask:
    return PredictorTask(official_data("once-for-all"))


async def run(out: Path, model: ModelSpec, settings: Settings = SMALL) -> dict[str, Any]:
    writing = ["cognition.thinking_tokens=34", "cognition.template=compact"]
    config = load(None, [f"cognition.model={model.directory}", *writing], {}).config
    table = LatencyTable.load(shipped_table())
    return await bench_cognition(config, table, out, tasks=("predictor",), settings=settings)


@pytest.mark.timeout(400)
async def test_it_trains_judges_and_goes_on_where_it_was_stopped(
    tiny_llama: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIWOA_DATA", str(official_data("once-for-all").parent))
    result = await run(tmp_path, tiny_llama)
    rows = result["predictor"]["operators"]
    assert set(rows) == {"before", "after", "placebo", "listed", "greedy", "spiral"}
    for name, row in rows.items():
        assert row["proposals"] == SMALL.proposals, name
        assert row["valid"] == SMALL.proposals, name  # the grammar is on
        assert row["win_rate_95"][0] <= row["win_rate"] <= row["win_rate_95"][1]
    assert len(result["predictor"]["trainings"]) == SMALL.trainings
    assert result["speed"]["ratio"] > 0
    json.dumps(result, allow_nan=False)
    (tmp_path / "predictor" / "spiral.json").unlink()
    assert await run(tmp_path, tiny_llama) == result
    with pytest.raises(UsageError, match="other settings"):
        await run(tmp_path, tiny_llama, replace(SMALL, proposals=7))


async def test_without_a_model_it_says_how_to_get_one(tmp_path: Path) -> None:
    config = load(None, [], {}).config
    with pytest.raises(ModelError, match="riwoactl model pull"):
        await bench_cognition(config, LatencyTable.load(shipped_table()), tmp_path)


async def test_an_unknown_task_is_refused(tiny_llama: ModelSpec, tmp_path: Path) -> None:
    config = load(None, [f"cognition.model={tiny_llama.directory}"], {}).config
    with pytest.raises(InputError, match="no task 'imagenet'"):
        await bench_cognition(config, LatencyTable.load(shipped_table()), tmp_path, tasks=("imagenet",))


async def test_judging_and_training_parents_are_of_different_searches_and_all_different(task: PredictorTask) -> None:
    judged = await collect_parents(task, JUDGED_SEEDS[:2], (1, 3), 50)
    taught = await collect_parents(task, TRAINING_SEEDS[:2], (1, 3), 50)
    assert not {p.seed for p in judged} & {p.seed for p in taught}
    keys = {(p.seed, p.codec.space.key(p.codec.space.indices(p.architecture))) for p in judged}
    assert len(keys) == len(judged)
    again = await collect_parents(task, JUDGED_SEEDS[:2], (1, 3), 50)
    assert all(np.array_equal(a.genotype, b.genotype) for a, b in zip(judged, again, strict=True))


async def test_nothing_on_offer_was_evaluated_by_the_parents_search(task: PredictorTask) -> None:
    for parent in await collect_parents(task, JUDGED_SEEDS[:1], (3,), 10):
        assert parent.codec.space.key(parent.codec.space.indices(parent.architecture)) in parent.known
        for gene, choices in parent.choices.items():
            for choice in choices:
                child = parent.child({gene: choice})
                assert parent.codec.space.key(parent.codec.space.indices(child)) not in parent.known


def test_a_summary_counts_each_fresh_architecture_once() -> None:
    outcomes = [
        Outcome({"a": 1}, "1/x", 0.5, True),
        Outcome({"a": 1}, "1/x", 0.5, True),
        Outcome({"a": 2}, "1/y", -0.1, False),
        Outcome(None, None, None, False),
    ]
    row = cognition._summary({"outcomes": [asdict(o) for o in outcomes]})
    assert (row["proposals"], row["valid"], row["wins"], row["fresh"], row["different_patches"]) == (4, 3, 2, 1, 2)
    assert row["mean_gain"] == pytest.approx(0.25)

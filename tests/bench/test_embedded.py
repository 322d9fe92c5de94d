import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from riwoa.bench.arena import Arena, Found
from riwoa.bench.contest import Settings, search_all
from riwoa.bench.contestants import Contestant
from riwoa.bench.embedded import Task, bench_embedded, objective
from riwoa.bench.own import OwnSearch
from riwoa.bench.subnets import Evaluation, EvaluationFile, Evaluator, SubnetLandscape
from riwoa.bench.tasks import open_task
from riwoa.config.loading import load
from riwoa.config.schema import Config
from riwoa.errors import StateDirectoryError
from riwoa.hardware.target import auto_target_ms
from riwoa.search.fitness import Objective
from riwoa.supernet.space import ofa_config

from .support import BACKBONE, RESOLUTIONS, FakeOracle, a_table

TABLE = a_table()
AIM = Objective(auto_target_ms(TABLE))


def landscape_of(out: Path, fail_every: int = 0) -> SubnetLandscape:
    file = EvaluationFile(out)
    oracles = FakeOracle("validation", fail_every), FakeOracle("test")
    evaluator, judge = (Evaluator(lambda oracle=oracle: oracle, file) for oracle in oracles)  # type: ignore[misc]
    return SubnetLandscape(evaluator, judge, TABLE, AIM, RESOLUTIONS)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines()]


def searches(landscape: SubnetLandscape, strategies: tuple[str, ...], seeds: int, budget: int) -> list[Found]:
    return search_all(Settings(seeds, budget, strategies), landscape, None)


def test_the_best_is_the_most_accurate_within_the_target(tmp_path: Path) -> None:
    landscape = landscape_of(tmp_path / "e.jsonl")
    [found] = searches(landscape, ("random",), 1, 60)
    rows = rows_of(tmp_path / "e.jsonl")
    within = [r for r in rows if bool(AIM.feasible(TABLE.latency_ms(ofa_config(r["architecture"]))))]
    assert 0 < len(within) < len(rows) == found.queries == 60
    best = max(within, key=lambda r: r["accuracy"])
    assert found.improvements[-1][1] == 100 * best["accuracy"]
    assert found.row is not None
    indices = landscape.indices(found.row)
    assert landscape.space.architecture(indices) == best["architecture"]
    assert landscape.report(found.row) == pytest.approx(100 * best["accuracy"])


def test_every_architecture_has_a_number(tmp_path: Path) -> None:
    landscape = landscape_of(tmp_path / "e.jsonl")
    space = landscape.space
    drawn = space.canonical(np.random.default_rng(0).integers(0, space.cardinalities, (200, len(space))))
    numbers = [landscape.number(row) for row in drawn]
    assert len(set(numbers)) == len({space.key(row) for row in drawn})
    assert all((landscape.indices(number) == row).all() for number, row in zip(numbers, drawn, strict=True))


def test_what_one_strategy_evaluated_is_free_of_work_but_not_of_queries_or_seconds(tmp_path: Path) -> None:
    out = tmp_path / "e.jsonl"
    first = landscape_of(out)
    once = searches(first, ("riwoa", "random"), 2, 40)
    with out.open("a") as stream:
        stream.write('{"oracle_version": "validation", "ke')  # cut by a kill
    again = landscape_of(out)
    repeated = searches(again, ("riwoa", "random"), 2, 40)
    assert (first.evaluator.measured, again.evaluator.measured) == (len(rows_of_whole(out)), 0)
    assert [f.queries for f in repeated] == [f.queries for f in once] == [40] * 4
    assert [f.improvements for f in repeated] == [f.improvements for f in once]
    for f in repeated:
        measured_s = f.time - f.own_s
        assert measured_s == pytest.approx(sum(kept_seconds(out, again, f)), rel=1e-6)
        assert list(f.times) == sorted(f.times)
        assert f.times[-1] <= f.time


def rows_of_whole(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.read_text().splitlines() if line.endswith("}")]


def kept_seconds(out: Path, landscape: SubnetLandscape, f: Found) -> list[float]:
    """What the evaluations of a search took, told apart from those of others by searching again."""
    arena = Arena(landscape, 40)
    OwnSearch(Contestant.parse(f.strategy), f.seed, arena).run()
    return [row["seconds"] for row in rows_of_whole(out) if row["key"] in arena.known]


def test_a_failed_evaluation_is_a_query_and_is_tried_again_next_time(tmp_path: Path) -> None:
    [found] = searches(landscape_of(tmp_path / "e.jsonl", fail_every=4), ("woa",), 1, 40)
    assert (found.queries, found.failed) == (40, 10)
    assert len(rows_of(tmp_path / "e.jsonl")) == 30


@pytest.mark.parametrize("peer", ["optuna-tpe", "catcma", "nsga2"])
def test_peers_take_part_and_know_the_latency(peer: str, tmp_path: Path) -> None:
    pytest.importorskip({"optuna-tpe": "optuna", "catcma": "cmaes", "nsga2": "pymoo"}[peer])
    [found] = searches(landscape_of(tmp_path / "e.jsonl"), (peer,), 1, 25)
    assert found.queries == 25
    latencies = [TABLE.latency_ms(ofa_config(row["architecture"])) for row in rows_of(tmp_path / "e.jsonl")]
    assert max(latencies) <= AIM.limit  # type: ignore[operator]


def test_side_by_side_they_find_the_same_as_one_after_the_other(tmp_path: Path) -> None:
    settings = Settings(2, 30, ("riwoa", "random"))
    alone = search_all(settings, landscape_of(tmp_path / "a.jsonl"), None)
    make = partial(landscape_of, tmp_path / "b.jsonl")
    told: list[tuple[int, int]] = []
    both = search_all(settings, make(), tmp_path / "s.jsonl", lambda *n: told.append(n), make=make, workers=2)
    assert [(f.strategy, f.seed, f.improvements) for f in both] == [(f.strategy, f.seed, f.improvements) for f in alone]
    assert told == [(n, 4) for n in range(5)]
    assert search_all(settings, make(), tmp_path / "s.jsonl") == both


def test_the_automatic_target_lies_within_reach_and_a_named_one_is_taken() -> None:
    low, high = TABLE.range_ms()
    target = objective(Config(), TABLE).latency_target_ms
    assert target == pytest.approx(math.sqrt(low * high))
    assert objective(load(None, ["objective.latency_ms=3.5"], {}).config, TABLE).latency_target_ms == 3.5


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(StateDirectoryError, match="name another --out"):
        EvaluationFile(tmp_path / "blocked" / "e.jsonl")


def tiny_config(folder: Path) -> Config:
    """A supernet of random weights, judged on few pictures."""
    from riwoa.supernet.network import build_network
    from riwoa.supernet.training import write_safetensors

    weights = {k: v.contiguous() for k, v in build_network(BACKBONE).state_dict().items()}
    write_safetensors(weights, folder / "net.safetensors", {})
    few = {"checkpoint": folder / "net.safetensors", "validation_views": 1, "recalibration_images": 50}
    given = [f"oracle.supernet.{name}={value}" for name, value in {**few, "dtype": "float32"}.items()]
    return load(None, given, {}).config


def test_the_whole_benchmark_evaluates_a_supernet_and_judges_on_the_test_pictures(tmp_path: Path) -> None:
    task = Task(tiny_config(tmp_path), TABLE, tmp_path / "e.jsonl")
    result = bench_embedded(Settings(1, 3, ("riwoa", "random")), task)
    versions = {row["oracle_version"] for row in rows_of(task.evaluations)}
    assert len(versions) == 2  # validation and test never mix
    assert result["time_unit"] == "s"
    assert [row["strategy"] for row in result["rows"]] == ["riwoa", "random"]
    assert result["winners"]
    for winner in result["winners"]:
        assert 0 <= winner["test"] <= 100
        assert winner["latency_ms"] <= result["settings"]["target_ms"]
    json.dumps(result, allow_nan=False)


async def test_proposals_are_judged_by_the_same_evaluations(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    async with open_task("embedded", config, TABLE, tmp_path / "e.jsonl") as task:
        architectures = [task.space.architecture(task.space.cardinalities * 0 + choice) for choice in (0, 1)]
        accuracies = await task.accuracies([*architectures, architectures[0]])
    assert accuracies[2] == accuracies[0]
    assert [row["accuracy"] for row in rows_of(tmp_path / "e.jsonl")] == accuracies[:2]


def test_a_file_of_an_older_version_goes_on_and_what_has_no_seconds_is_measured_again(tmp_path: Path) -> None:
    out = tmp_path / "e.jsonl"
    before = (
        '{"oracle_version": "v", "key": "k", "architecture": {"a": 1}, "accuracy": 0.5}\n{"oracle_version": "v", "ke'
    )
    out.write_text(before)
    file = EvaluationFile(out)
    assert file.get("v", "k") is None
    file.put("v", "l", {"a": 2}, Evaluation(0.75, 0.1))
    file.close()
    assert out.read_text().startswith(before + "\n")
    file = EvaluationFile(out)
    assert (file.get("v", "l"), file.get("w", "l")) == (Evaluation(0.75, 0.1), None)
    file.close()

import asyncio
import json
import math
from pathlib import Path

import pytest

from riwoa.bench.embedded import (
    EvaluationFile,
    Evaluator,
    Found,
    Settings,
    bench_embedded,
    objective,
    search_all,
    summary,
)
from riwoa.config.loading import load
from riwoa.config.schema import Config
from riwoa.errors import StateDirectoryError
from riwoa.hardware.target import auto_target_ms
from riwoa.search.fitness import Objective
from riwoa.search.space import Space
from riwoa.supernet.space import mobilenet_space, ofa_config

from .support import RESOLUTIONS, FakeBackend, a_table, accuracy_of

TABLE = a_table()
SPACE = mobilenet_space(RESOLUTIONS)
AIM = Objective(auto_target_ms(TABLE))


async def run(settings: Settings, backend: FakeBackend, out: Path, space: Space = SPACE) -> tuple[list[Found], int]:
    file = EvaluationFile(out)
    try:
        evaluator = Evaluator(backend, "fake", file, space)
        return await search_all(settings, space, AIM, TABLE, evaluator), evaluator.measured
    finally:
        file.close()


async def test_every_search_spends_exactly_its_budget_of_distinct_architectures(tmp_path: Path) -> None:
    settings = Settings(seeds=2, budget=50, workers=2)
    backend = FakeBackend()
    found, measured = await run(settings, backend, tmp_path / "e.jsonl")
    assert [(f.strategy, f.seed) for f in found] == [(s, i) for s in settings.strategies for i in range(2)]
    assert {f.evaluations for f in found} == {50}
    assert len(set(backend.asked)) == len(backend.asked) == measured <= 6 * 50
    assert all(len(f.curve) == 2 and list(f.curve) == sorted(f.curve) for f in found)


async def test_the_best_is_the_most_accurate_within_the_target(tmp_path: Path) -> None:
    (found,), _ = await run(Settings(1, 60, 1, ("random",)), FakeBackend(), tmp_path / "e.jsonl")
    assert found.architecture is not None
    rows = [json.loads(line) for line in (tmp_path / "e.jsonl").read_text().splitlines()]
    feasible = [r for r in rows if bool(AIM.feasible(TABLE.latency_ms(ofa_config(r["architecture"]))))]
    assert 0 < len(feasible) < len(rows) == 60
    assert found.fitness == found.accuracy == max(r["accuracy"] for r in feasible) == accuracy_of(found.architecture)


async def test_run_again_it_measures_nothing_and_finds_the_same(tmp_path: Path) -> None:
    settings, out = Settings(2, 40, 2), tmp_path / "e.jsonl"
    first, _ = await run(settings, FakeBackend(), out)
    with out.open("a") as stream:
        stream.write('{"oracle_version": "fake", "ke')  # cut by a kill
    again, measured = await run(settings, FakeBackend(), out)
    assert measured == 0
    assert again == first


async def test_what_an_interrupt_cancels_is_not_kept(tmp_path: Path) -> None:
    out = tmp_path / "e.jsonl"
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(run(Settings(1, 40, 1, ("random",)), FakeBackend(cancel_after=10), out))
    assert 0 < len(out.read_text().splitlines()) <= 10


async def test_a_failed_evaluation_is_spent_but_tried_again_next_time(tmp_path: Path) -> None:
    (found,), _ = await run(Settings(1, 40, 1, ("woa",)), FakeBackend(fail_every=4), tmp_path / "e.jsonl")
    assert found.evaluations == 40
    assert len((tmp_path / "e.jsonl").read_text().splitlines()) == 30
    assert found.fitness > 0


async def test_a_search_that_only_repeats_itself_ends(tmp_path: Path) -> None:
    settings = Settings(1, 200, 1, ("random",))
    tiny = Space("tiny", tuple(g for g in SPACE.genes))
    file = EvaluationFile(tmp_path / "e.jsonl")
    from riwoa.bench.embedded import Search
    from riwoa.run.task import KeptLatencies
    from riwoa.search.base import Outcome, SearchParameters
    from riwoa.search.driver import Driver
    from riwoa.search.strategies import make_strategy

    class Stuck:
        """Asks one architecture for ever."""

        def __init__(self) -> None:
            self._real = make_strategy("random", tiny, AIM, 0, SearchParameters(population=4))
            self._proposals = self._real.ask()
            self.generation, self.name = 0, "random"
            self.codec, self.objective = self._real.codec, AIM

        def ask(self) -> list[object]:
            return [type(p)(p.slot, p.operator, self._proposals[0].genotype, None) for p in self._proposals]

        def tell(self, outcomes: list[Outcome]) -> None:
            self.generation += 1

    search = Search(Driver(Stuck()), 0, KeptLatencies(tiny, lambda a: TABLE.latency_ms(ofa_config(a))), settings.budget)  # type: ignore[arg-type]
    found = await search.run(Evaluator(FakeBackend(), "fake", file, tiny), lambda: None)
    file.close()
    assert found.evaluations == 1
    assert found.repeats > 100


def made(strategy: str, seed: int, fitness: float) -> Found:
    found = None if fitness == 0 else fitness
    return Found(strategy, seed, fitness, found, found, "k", {} if found else None, 200, 10, 0, (fitness,))


def test_the_summary_pairs_by_seed_and_names_its_tests() -> None:
    settings = Settings(seeds=8)
    gains = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.0, -0.005]
    found = [made("riwoa", i, 0.7 + g) for i, g in enumerate(gains)]
    found += [made(s, i, 0.7) for s in ("woa", "random") for i in range(8)]
    result = summary(settings, found, [0.6] * 24, {})
    (woa, random) = result["comparisons"]
    assert (woa["wins"], woa["ties"], woa["losses"]) == (6, 1, 1)
    assert woa == {**random, "against": "woa"}
    assert random["wilcoxon_p_one_sided_better"] < 0.05
    assert random["wilcoxon_p_one_sided_better"] < random["wilcoxon_p_two_sided"]
    assert result["ratio"] == pytest.approx((0.7 + 0.025) / 0.7)
    assert [row["test_accuracy_mean"] for row in result["rows"]] == [pytest.approx(0.6)] * 3
    json.dumps(result, allow_nan=False)


def test_equal_searches_differ_with_probability_one() -> None:
    found = [made(s, i, 0.7) for s in ("riwoa", "random") for i in range(3)]
    result = summary(Settings(3, strategies=("riwoa", "random")), found, [None] * 6, {})
    assert result["comparisons"][0]["wilcoxon_p_two_sided"] == 1.0
    assert result["ratio"] == 1.0


def test_a_search_that_met_no_target_counts_as_nothing_found() -> None:
    found = [made("riwoa", 0, 0.7), made("random", 0, 0.0)]
    result = summary(Settings(1, strategies=("riwoa", "random")), found, [0.6, None], {})
    assert result["ratio"] is None
    assert result["comparisons"][0]["wins"] == 1
    json.dumps(result, allow_nan=False)


def test_the_automatic_target_lies_within_reach_and_a_named_one_is_taken() -> None:
    low, high = TABLE.range_ms()
    target = objective(Config(), TABLE).latency_target_ms
    assert target == pytest.approx(math.sqrt(low * high))
    assert objective(load(None, ["objective.latency_ms=3.5"], {}).config, TABLE).latency_target_ms == 3.5


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("")
    with pytest.raises(StateDirectoryError, match="name another --out"):
        EvaluationFile(tmp_path / "blocked" / "e.jsonl")


async def test_the_whole_benchmark_runs_on_real_workers_and_judges_on_the_test_split(tmp_path: Path) -> None:
    from riwoa.supernet.network import build_network
    from riwoa.supernet.training import write_safetensors

    from .support import BACKBONE

    weights = {k: v.contiguous() for k, v in build_network(BACKBONE).state_dict().items()}
    write_safetensors(weights, tmp_path / "net.safetensors", {})
    overrides = [f"oracle.supernet.checkpoint={tmp_path / 'net.safetensors'}", "oracle.supernet.validation_views=1"]
    config = load(
        None, [*overrides, "oracle.supernet.recalibration_images=50", "oracle.supernet.dtype=float32"], {}
    ).config
    settings = Settings(seeds=1, budget=3, workers=1, strategies=("riwoa", "random"))
    out = tmp_path / "e.jsonl"
    result = await bench_embedded(settings, config, TABLE, out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len({row["oracle_version"] for row in rows}) == 2  # validation and test never mix
    assert result["settings"]["measured_now"] == len(
        [r for r in rows if r["oracle_version"] == rows[0]["oracle_version"]]
    )
    found = [s for s in result["searches"] if s["fitness"] > 0]
    assert all(0 <= s["test_accuracy"] <= 1 for s in found)


def test_a_file_of_before_there_was_one_kind_of_result_file_is_read_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "e.jsonl"
    before = (
        '{"oracle_version": "v", "key": "k", "architecture": {"a": 1}, "accuracy": 0.5}\n{"oracle_version": "v", "ke'
    )
    out.write_text(before)
    file = EvaluationFile(out)
    assert file.get("v", "k") == 0.5
    file.put("v", "l", {"a": 2}, 0.75)
    file.close()
    assert out.read_text().startswith(before + "\n")
    file = EvaluationFile(out)
    assert (file.get("v", "k"), file.get("v", "l"), file.get("w", "k")) == (0.5, 0.75, None)
    file.close()

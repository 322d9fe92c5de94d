"""RI-IWOA against the baselines on the embedded task: best feasible fitness after a fixed number of evaluations.

Fixed beforehand: population 20, the latency target that the configuration says (auto: the geometric mean of the
attainable range), the same seeds for every strategy, 200 unique evaluations counted in slot order (a repeated
architecture costs nothing), the schedule of RI-IWOA and WOA as long as the budget would last without repeats. The
winners meet the test split only afterwards.

Every evaluation is kept in a file of JSON lines, keyed by oracle version and architecture. A search is a function of
its seed and of these numbers, so a killed benchmark run again repeats the finished part in seconds and goes on, and
another strategy, or a changed one, pays only for architectures that nobody met before.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from riwoa.bench.arena import POPULATION
from riwoa.bench.contest import DEFAULT_STRATEGIES
from riwoa.bench.contestants import Contestant
from riwoa.bench.own import scheduled, screening_of
from riwoa.bench.paired import compare_all, median_ratio
from riwoa.config.schema import Config
from riwoa.errors import OracleError
from riwoa.files.results import ResultFile
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.obtain import obtain_table
from riwoa.hardware.target import auto_target_ms
from riwoa.oracle.pool import WorkerPool
from riwoa.oracle.protocol import EvaluationBackend
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.workers import pool_settings
from riwoa.run.task import KeptLatencies
from riwoa.search.base import Outcome
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space
from riwoa.search.strategies import make_strategy
from riwoa.supernet.space import mobilenet_space, ofa_config

_MOST_GENERATIONS = 20  # as many times the schedule: a search that only repeats itself has converged
_SEARCHES_A_WORKER = 2  # at once, so that no worker idles while a generation's last candidate is evaluated

Report = Callable[[int, int], None]
Architecture = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """What the benchmark compares, and how long."""

    seeds: int = 20
    budget: int = 200
    workers: int = 2
    strategies: tuple[str, ...] = tuple(DEFAULT_STRATEGIES.split(","))


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of one search; ``curve`` is the best feasible fitness after every 20 unique evaluations."""

    strategy: str
    seed: int
    fitness: float  # 0 where nothing met the target, and then the next four are None
    accuracy: float | None
    latency_ms: float | None
    key: str | None
    architecture: Architecture | None
    evaluations: int
    generations: int
    repeats: int
    curve: tuple[float, ...]


class EvaluationFile:
    """Accuracies that were measured before, by oracle version and architecture.

    Raises:
        UsageError, StateDirectoryError: as ``ResultFile``.
    """

    def __init__(self, path: Path) -> None:
        self._file = ResultFile(path, "evaluations of a benchmark", b'{"oracle_version": "')
        self._known: dict[tuple[str, str], float] = {}
        for row in self._file.rows():
            with contextlib.suppress(KeyError, TypeError, ValueError):  # a line of something else
                self._known[row["oracle_version"], row["key"]] = float(row["accuracy"])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get(self, version: str, key: str) -> float | None:
        """The accuracy, if it is known."""
        return self._known.get((version, key))

    def put(self, version: str, key: str, architecture: Architecture, accuracy: float) -> None:
        """Keep an accuracy, durably."""
        self._known[version, key] = accuracy
        row = {"oracle_version": version, "key": key, "architecture": dict(architecture), "accuracy": accuracy}
        self._file.append(row)


class Accuracies(Protocol):
    """Whoever tells accuracies."""

    async def accuracy(self, key: str, architecture: Architecture) -> float:
        """The accuracy of an architecture; NaN where its evaluation failed."""
        ...


class Evaluator:
    """Accuracies from the file or from a backend; nothing is measured twice, not even at the same time."""

    def __init__(self, backend: EvaluationBackend, version: str, file: EvaluationFile, space: Space) -> None:
        self._backend = backend
        self._version = version
        self._file = file
        self._space = space
        self._under_way: dict[str, asyncio.Task[float]] = {}
        self.measured = 0

    async def accuracy(self, key: str, architecture: Architecture) -> float:
        """The accuracy of an architecture; NaN where its evaluation failed.

        Raises:
            RiwoaError: the backend fails.
        """
        known = self._file.get(self._version, key)
        if known is not None:
            return known
        if key not in self._under_way:
            self._under_way[key] = asyncio.create_task(self._measure(key, architecture), name=f"evaluate-{key}")
        return await self._under_way[key]

    async def _measure(self, key: str, architecture: Architecture) -> float:
        result = await (await self._backend.submit(key, architecture))
        if result.status == "cancelled":  # the benchmark is being interrupted: nothing was learnt
            raise asyncio.CancelledError
        self.measured += 1
        if result.status == "failed":  # perhaps the machine's fault, so the next run tries again
            return math.nan
        accuracy = float(result.metrics["accuracy"])
        self._file.put(self._version, key, architecture, accuracy)
        return accuracy


async def load_table(named: Path | None, own: Path, config: Config) -> LatencyTable:
    """The named table as it is, else the daemon's.

    Raises:
        TableError: it is missing, damaged or does not fit.
    """
    return LatencyTable.load(named) if named is not None else await obtain_table(own, config)


def objective(config: Config, table: LatencyTable) -> Objective:
    """What the daemon would look for with this configuration on this device."""
    wanted = config.objective.latency_ms
    target_ms = auto_target_ms(table, config.oracle.supernet.resolutions) if wanted == "auto" else float(wanted)
    return Objective(target_ms, config.objective.exponent)


async def bench_embedded(
    settings: Settings, config: Config, table: LatencyTable, out: Path, progress: Report = lambda done, total: None
) -> dict[str, Any]:
    """Run every (strategy, seed), then judge the winners on the test split.

    Raises:
        RiwoaError: the oracle cannot be made, or ``out`` cannot be written.
    """
    space = mobilenet_space(config.oracle.supernet.resolutions)
    spec = supernet_spec(config.oracle)
    limits = replace(pool_settings(config.oracle), workers=settings.workers)
    file = EvaluationFile(out)
    try:
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(WorkerPool(spec, limits))
            evaluator = Evaluator(pool, (await pool.start()).version, file, space)
            found = await search_all(settings, space, objective(config, table), table, evaluator, progress)
            measured = evaluator.measured
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(WorkerPool(replace(spec, split="test"), limits))
            judge = Evaluator(pool, (await pool.start()).version, file, space)
            tested = await asyncio.gather(*(_test_accuracy(judge, one) for one in found))
    finally:
        file.close()
    facts = {
        "target_ms": objective(config, table).latency_target_ms,
        "latency_table_sha256": table.sha256,
        "oracle": spec.to_json(),
        "population": POPULATION,
        "measured_now": measured,
        "evaluations": str(out),
    }
    return summary(settings, found, tested, facts)


async def _test_accuracy(judge: Evaluator, one: Found) -> float | None:
    if one.key is None or one.architecture is None:
        return None
    accuracy = await judge.accuracy(one.key, one.architecture)
    return None if math.isnan(accuracy) else accuracy


async def search_all(
    settings: Settings,
    space: Space,
    aim: Objective,
    table: LatencyTable,
    evaluator: Evaluator,
    progress: Report = lambda done, total: None,
) -> list[Found]:
    """Every (strategy, seed), a few at a time; by strategy, then seed."""
    places = asyncio.Semaphore(_SEARCHES_A_WORKER * settings.workers)
    pairs = [(name, seed) for seed in range(settings.seeds) for name in settings.strategies]
    spent = 0

    def spend() -> None:
        nonlocal spent
        spent += 1
        progress(spent, len(pairs) * settings.budget)

    async def one(name: str, seed: int) -> Found:
        async with places:
            contestant = Contestant.parse(name)
            params = scheduled(contestant, settings.budget)
            # As in the daemon: whoever can use the table's latencies beforehand may, they cost nothing.
            latencies = KeptLatencies(space, lambda architecture: table.latency_ms(ofa_config(architecture)))
            strategy = make_strategy(contestant.base, space, aim, seed, params, latencies)
            driver = Driver(strategy, guide=screening_of(contestant, params, space))
            search = Search(driver, seed, latencies, settings.budget)
            return replace(await search.run(evaluator, spend), strategy=name)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(name, seed), name=f"{name}-{seed}") for name, seed in pairs]
    order = {name: i for i, name in enumerate(settings.strategies)}
    return sorted((t.result() for t in tasks), key=lambda f: (order[f.strategy], f.seed))


_Best = tuple[float, float | None, float | None, str | None, Architecture | None]


class Search:
    """One strategy spending one budget, driven as the daemon drives its own.

    Args:
        driver: of the strategy.
        seed: told with what is found.
        latency_of: of every architecture.
        budget: unique evaluations.
    """

    def __init__(self, driver: Driver, seed: int, latency_of: KeptLatencies[float], budget: int) -> None:
        self._driver = driver
        self._seed = seed
        self._latency_of = latency_of
        self._budget = budget
        self._accuracies: dict[str, float] = {}
        self._best: _Best = (0.0, None, None, None, None)
        self._curve: list[float] = []
        self._repeats = 0

    async def run(self, evaluator: Accuracies, spend: Callable[[], None]) -> Found:
        """Ask and tell until the budget is spent, or the search only repeats itself."""
        strategy = self._driver.strategy
        schedule = max(1, math.ceil(self._budget / POPULATION))
        while len(self._accuracies) < self._budget and strategy.generation < _MOST_GENERATIONS * schedule:
            proposals = await asyncio.to_thread(self._driver.ask)
            rows = self._driver.codec.decode(np.stack([p.genotype for p in proposals]))
            keys = [strategy.codec.space.key(row) for row in rows]
            fresh = await self._evaluate(dict(zip(keys, rows, strict=True)), keys, evaluator, spend)
            if len(self._accuracies) >= self._budget:
                break  # whatever of this generation lies beyond the budget was never evaluated
            evaluated = []
            for p, key, row in zip(proposals, keys, rows, strict=True):
                accuracy = self._accuracies[key]
                outcome = Outcome(p.slot, p.operator, p.genotype, accuracy, self._latency_of(row), p.parent)
                first = key in fresh and not math.isnan(accuracy)
                fresh.discard(key)
                evaluated.append(Evaluated(outcome, {"accuracy": accuracy}, first))
            self._driver.tell(evaluated)
        fitness, accuracy_, latency_ms, key_, architecture = self._best
        return Found(
            strategy=strategy.name,
            seed=self._seed,
            fitness=fitness,
            accuracy=accuracy_,
            latency_ms=latency_ms,
            key=key_,
            architecture=architecture,
            evaluations=len(self._accuracies),
            generations=strategy.generation,
            repeats=self._repeats,
            curve=tuple(self._curve),
        )

    async def _evaluate(
        self, rows: Mapping[str, IntArray], keys: Sequence[str], evaluator: Accuracies, spend: Callable[[], None]
    ) -> set[str]:
        """Evaluate the new ones among a generation, within the budget, counted in slot order; their keys.

        ``rows``: canonical indices by key.
        """
        wanted: dict[str, Architecture] = {}
        for key in keys:
            if key in self._accuracies or key in wanted:
                self._repeats += 1
            elif len(self._accuracies) + len(wanted) < self._budget:
                wanted[key] = self._driver.codec.space.architecture(rows[key])
        accuracies = await asyncio.gather(*(evaluator.accuracy(k, a) for k, a in wanted.items()))
        for (key, architecture), accuracy in zip(wanted.items(), accuracies, strict=True):
            self._accuracies[key] = accuracy
            self._judge(key, architecture, accuracy, self._latency_of(rows[key]))
            spend()
            if len(self._accuracies) % POPULATION == 0:
                self._curve.append(self._best[0])
        return set(wanted)

    def _judge(self, key: str, architecture: Architecture, accuracy: float, latency_ms: float) -> None:
        aim = self._driver.strategy.objective
        fitness = float(aim.fitness(accuracy, latency_ms))
        if bool(aim.feasible(latency_ms)) and fitness > self._best[0]:
            self._best = (fitness, accuracy, latency_ms, key, architecture)


# -- what came of it ---------------------------------------------------------------------------------------------------


def summary(
    settings: Settings, found: Sequence[Found], tested: Sequence[float | None], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """The result object.

    Raises:
        OracleError: no search found anything.
    """
    by_strategy = {name: [f for f in found if f.strategy == name] for name in settings.strategies}
    if not any(f.fitness > 0 for f in found):
        raise OracleError("no evaluation of any search succeeded within the latency target; see the workers' log")
    test = {(f.strategy, f.seed): accuracy for f, accuracy in zip(found, tested, strict=True)}
    rows = [_row(name, runs, [test[name, f.seed] for f in runs]) for name, runs in by_strategy.items()]
    best = {name: [f.fitness for f in runs] for name, runs in by_strategy.items()}
    ours = best.pop("riwoa", [])
    return {
        "bench": "embedded",
        "ratio": median_ratio(ours, best["random"]) if ours and "random" in best else None,
        "rows": rows,
        "comparisons": compare_all(ours, best) if ours else [],
        "searches": [{**asdict(f), "test_accuracy": test[f.strategy, f.seed]} for f in found],
        "settings": {**asdict(settings), **facts},
    }


def _row(name: str, runs: Sequence[Found], tested: Sequence[float | None]) -> dict[str, Any]:
    best = [f.fitness for f in runs]
    known = [accuracy for accuracy in tested if accuracy is not None]
    return {
        "strategy": name,
        "seeds": len(runs),
        "mean": statistics.fmean(best),
        "median": statistics.median(best),
        "sd": statistics.stdev(best) if len(best) > 1 else None,
        "test_accuracy_mean": statistics.fmean(known) if known else None,
        "evaluations": sorted({f.evaluations for f in runs}),
        "repeats_mean": statistics.fmean(f.repeats for f in runs),
        "curve_mean": [statistics.fmean(step) for step in zip(*(f.curve for f in runs), strict=False)],
    }

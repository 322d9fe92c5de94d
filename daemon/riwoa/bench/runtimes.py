"""What it is worth to search with the latencies of the runtime that will run the network, and not with eager torch's.

Fixed beforehand: both searches are RI-IWOA's, of the same seed and as many evaluations, on the embedded task, with the
population and schedule of ``embedded``. The first has torch's table and the target that "auto" stands for in it. Its
winner is timed in onnxruntime, and what it takes is the target of the second search, which has onnxruntime's table. So
both winners are within the same milliseconds, and the difference of their accuracies is that *at equal time*.

*At equal accuracy*: the level is the lesser of the two winners' accuracies on the validation pictures. From what each
search evaluated, its user takes the network that is the fastest by their own table among those at that level or above;
both are timed in onnxruntime. Whoever searched with which table, the rule is the same, so luck favours neither.

*Of the same networks*: what both searches of a seed evaluated is put together, and either table names the fastest of it
at that level. No luck of a search is in this ratio; it is what a table's own errors cost who chooses by it.

Times are onnxruntime's, of all networks among one another in one process. The test pictures are met only afterwards.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from riwoa.bench.contestants import Contestant
from riwoa.bench.embedded import Accuracies, EvaluationFile, Evaluator, Report, Search
from riwoa.bench.own import scheduled, screening_of
from riwoa.bench.paired import student_interval
from riwoa.config.schema import Config
from riwoa.errors import OracleError, TableError
from riwoa.hardware.build import build_table_in_child
from riwoa.hardware.deployed import DeployedNetwork, time_deployed
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.onnx_clock import network_items
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.runtime import TORCH, Runtime, runtime_of
from riwoa.hardware.target import auto_target_ms
from riwoa.oracle.pool import WorkerPool
from riwoa.oracle.supernet import supernet_spec
from riwoa.oracle.workers import pool_settings
from riwoa.run.task import KeptLatencies
from riwoa.search.driver import Driver
from riwoa.search.fitness import Objective
from riwoa.search.space import Space
from riwoa.search.strategies import make_strategy
from riwoa.supernet.space import mobilenet_space, ofa_config

STRATEGY = "riwoa"
_REPEATS = 100  # of torch's table
Architecture = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How much is searched."""

    seeds: int = 5
    budget: int = 200
    workers: int = 2


@dataclass(frozen=True, slots=True)
class Network:
    """A network that a search evaluated."""

    key: str
    architecture: Architecture
    accuracy: float
    predicted_ms: float  # by the table of its search


@dataclass(frozen=True, slots=True)
class Searched:
    """All that a search evaluated, and the best within its target."""

    networks: Sequence[Network]
    winner: Network

    def fastest(self, accuracy: float) -> Network:
        """The fastest by its own table of those that are at least so accurate, as its winner is."""
        return min((n for n in self.networks if n.accuracy >= accuracy), key=lambda n: n.predicted_ms)


@dataclass(slots=True)
class _Seen:
    """Accuracies from an evaluator, and what was asked for."""

    evaluator: Accuracies
    found: dict[str, tuple[Architecture, float]] = field(default_factory=dict)

    async def accuracy(self, key: str, architecture: Architecture) -> float:
        """See ``Accuracies``."""
        accuracy = await self.evaluator.accuracy(key, architecture)
        if not math.isnan(accuracy):
            self.found[key] = architecture, accuracy
        return accuracy


async def torch_table(path: Path, own: LatencyTable, progress: ProgressCallback | None = None) -> LatencyTable:
    """Eager torch's table of the same networks on this device; measured where there is none.

    Raises:
        RiwoaError: it cannot be measured, or what lies there is no table of theirs.
    """
    if not await asyncio.to_thread(path.exists):
        runtime = Runtime(TORCH, own.settings.threads)
        return await build_table_in_child(path, own.backbone, own.resolutions, runtime, _REPEATS, progress)
    table = LatencyTable.load(path)
    if missing := table.missing(own.resolutions, own.backbone):
        raise TableError(f"{path} lacks {len(missing)} operators of this space; name another with --torch-table")
    return table


async def bench_runtimes(
    settings: Settings,
    config: Config,
    tables: tuple[LatencyTable, LatencyTable],
    out: Path,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Search with both tables, a seed at a time in each, and compare what comes of it.

    Args:
        settings: how much.
        config: of the oracle.
        tables: torch's, and that of the runtime in which everything is timed.
        out: file of evaluations, which are not repeated.
        progress: told of each evaluation.

    Raises:
        RiwoaError: the oracle cannot be made, or ``out`` cannot be written.
    """
    space, spec = mobilenet_space(config.oracle.supernet.resolutions), supernet_spec(config.oracle)
    limits = replace(pool_settings(config.oracle), workers=settings.workers)
    spent, file = 0, EvaluationFile(out)

    def spend() -> None:
        nonlocal spent
        spent += 1
        progress(spent, 2 * settings.seeds * settings.budget)

    torch_table, own = tables
    target_ms = auto_target_ms(torch_table, config.oracle.supernet.resolutions)
    try:
        async with WorkerPool(spec, limits) as pool:
            judge = Evaluator(pool, (await pool.start()).version, file, space)
            places = asyncio.Semaphore(2 * settings.workers)

            async def search(table: LatencyTable, seed: int, most_ms: float) -> Searched:
                async with places:
                    return await _search(space, table, seed, most_ms, settings.budget, judge, spend)

            with_torch = await asyncio.gather(*(search(torch_table, s, target_ms) for s in range(settings.seeds)))
            winners_ms = _milliseconds([one.winner for one in with_torch], own)
            with_own = await asyncio.gather(
                *(search(own, s, winners_ms[one.winner.key]) for s, one in enumerate(with_torch))
            )
        pairs = list(zip(with_torch, with_own, strict=True))
        named = [_of_the_same(pair, tables) for pair in pairs]
        shown = [network for pair in pairs for network in (*(one.winner for one in pair), *_equals(*pair))]
        shown += [network for both in named for network in both]
        measured_ms = _milliseconds(shown, own)
        async with WorkerPool(replace(spec, split="test"), limits) as pool:
            test = await _accuracies(shown, Evaluator(pool, (await pool.start()).version, file, space))
    finally:
        file.close()
    ratios = [measured_ms[by_torch.key] / measured_ms[by_own.key] for by_torch, by_own in named]
    facts = {"target_ms_of_torch": target_ms, "table_sha256": own.sha256, "torch_table_sha256": torch_table.sha256}
    return summary(settings, pairs, measured_ms, test, ratios, facts)


async def _accuracies(networks: Sequence[Network], judge: Accuracies) -> dict[str, float]:
    """What networks are worth, by key, each asked for once."""
    unique = {network.key: network.architecture for network in networks}
    told = await asyncio.gather(*(judge.accuracy(key, architecture) for key, architecture in unique.items()))
    return dict(zip(unique, told, strict=True))


async def _search(
    space: Space, table: LatencyTable, seed: int, target_ms: float, budget: int, judge: Accuracies, spend: Any
) -> Searched:
    """One search with one table.

    Raises:
        OracleError: nothing that it evaluated is within the target.
    """
    latencies = KeptLatencies(space, lambda architecture: table.latency_ms(ofa_config(architecture)))
    contestant = Contestant.parse(STRATEGY)
    params = scheduled(contestant, budget)
    strategy = make_strategy(STRATEGY, space, Objective(target_ms), seed, params, latencies)
    driver, seen = Driver(strategy, guide=screening_of(contestant, params, space)), _Seen(judge)
    found = await Search(driver, seed, latencies, budget).run(seen, spend)
    networks = [
        Network(key, architecture, accuracy, table.latency_ms(ofa_config(architecture)))
        for key, (architecture, accuracy) in seen.found.items()
    ]
    if found.key is None:
        raise OracleError(f"nothing within {target_ms:.3f} ms was found by seed {seed}; evaluate more")
    return Searched(networks, next(network for network in networks if network.key == found.key))


def _equals(one: Searched, other: Searched) -> tuple[Network, Network]:
    """What both users take at the same accuracy."""
    level = min(one.winner.accuracy, other.winner.accuracy)
    return one.fastest(level), other.fastest(level)


def _of_the_same(pair: tuple[Searched, Searched], tables: tuple[LatencyTable, LatencyTable]) -> list[Network]:
    """What each table names as the fastest at the level of ``_equals`` among all that both searches evaluated."""
    level = min(one.winner.accuracy for one in pair)
    good = [network for one in pair for network in one.networks if network.accuracy >= level]
    return [min(good, key=lambda n: table.latency_ms(ofa_config(n.architecture))) for table in tables]


def _milliseconds(networks: Sequence[Network], table: LatencyTable) -> dict[str, float]:
    """Times in the runtime of a table, by key, all measured among one another."""
    unique = {network.key: ofa_config(network.architecture) for network in networks}
    items = network_items(list(unique.values()), table.backbone, table.settings.batch_size)
    deployed = [DeployedNetwork(item.model, _picture(item.shape), None) for item in items]
    expected_ms = [table.latency_ms(config) for config in unique.values()]
    times = time_deployed(deployed, expected_ms, table.settings, runtime_of(table.settings))
    return {key: time.ms for key, time in zip(unique, times, strict=True)}


def _picture(shape: tuple[int, ...]) -> tuple[int, int, int]:
    _, channels, height, width = shape
    return channels, height, width


# -- what came of it ---------------------------------------------------------------------------------------------------


def summary(
    settings: Settings,
    pairs: Sequence[tuple[Searched, Searched]],
    measured_ms: Mapping[str, float],
    test: Mapping[str, float],
    of_the_same: Sequence[float],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """The result object; ``ratio``: how many times as long the network of torch's table takes at equal accuracy.

    Args:
        settings: how much was searched.
        pairs: of each seed, with torch's table and with the runtime's.
        measured_ms: by key.
        test: accuracy on the test pictures, by key.
        of_the_same: the ratio of each seed where both tables chose among the same networks.
        facts: what the result depends on.
    """

    def told(network: Network) -> dict[str, Any]:
        return {
            "key": network.key,
            "validation": network.accuracy,
            "test": test[network.key],
            "predicted_ms": network.predicted_ms,
            "ms": measured_ms[network.key],
        }

    rows: list[dict[str, Any]] = []
    for seed, (torch, own) in enumerate(pairs):
        equals = _equals(torch, own)
        rows.append(
            {
                "seed": seed,
                "winners": {"torch": told(torch.winner), "runtime": told(own.winner)},
                "equal_accuracy": {"torch": told(equals[0]), "runtime": told(equals[1])},
                "ratio": measured_ms[equals[0].key] / measured_ms[equals[1].key],
            }
        )
    gains = {
        split: student_interval([row["winners"]["runtime"][split] - row["winners"]["torch"][split] for row in rows])
        for split in ("validation", "test")
    }
    at_level = [row["equal_accuracy"]["runtime"]["test"] - row["equal_accuracy"]["torch"]["test"] for row in rows]
    ratio, same = _ratio([row["ratio"] for row in rows]), _ratio(of_the_same)
    return {
        "bench": "runtime",
        "ratio": ratio[0],
        "ratio_between": ratio[1:],
        "of_the_same_networks": {"ratio": same[0], "ratio_between": same[1:], "ratios": list(of_the_same)},
        "test_difference_at_equal_accuracy": student_interval(at_level),
        "gain_at_equal_time": gains,
        "rows": rows,
        "settings": {"seeds": settings.seeds, "budget": settings.budget, **facts},
    }


def _ratio(ratios: Sequence[float]) -> list[float]:
    """Geometric mean, and where it lies with 95 %."""
    logs = student_interval([math.log(ratio) for ratio in ratios])
    return [math.exp(logs[name]) for name in ("mean", "low", "high")]

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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from riwoa.bench.arena import Arena
from riwoa.bench.contest import Report
from riwoa.bench.contestants import Contestant
from riwoa.bench.crew import work
from riwoa.bench.embedded import Task
from riwoa.bench.own import OwnSearch
from riwoa.bench.paired import student_interval
from riwoa.bench.subnets import Evaluator, SubnetLandscape
from riwoa.config.schema import Config
from riwoa.errors import OracleError, TableError
from riwoa.hardware.build import build_table_in_child
from riwoa.hardware.deployed import DeployedNetwork, time_deployed
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.onnx_clock import network_items
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.runtime import TORCH, Runtime, runtime_of
from riwoa.hardware.target import auto_target_ms
from riwoa.search.fitness import Objective
from riwoa.supernet.space import ofa_config

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


Search = tuple[LatencyTable, int, float]  # seed and target


def bench_runtimes(
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
        progress: told of each search.

    Raises:
        RiwoaError: the oracle cannot be made, or ``out`` cannot be written.
    """
    torch_table, own = tables
    target_ms = auto_target_ms(torch_table, config.oracle.supernet.resolutions)
    task, seeds, done = Task(config, own, out), range(settings.seeds), 0

    def searched(wanted: Sequence[Search]) -> list[Searched]:
        nonlocal done
        found = {}
        for (_, seed, _), one in work(task.landscape, partial(_search, settings.budget), wanted, settings.workers):
            found[seed] = one
            progress(done := done + 1, 2 * settings.seeds)
        return [found[seed] for seed in seeds]

    with_torch = searched([(torch_table, seed, target_ms) for seed in seeds])
    winners_ms = _milliseconds([one.winner for one in with_torch], own)
    with_own = searched([(own, seed, winners_ms[one.winner.key]) for seed, one in zip(seeds, with_torch, strict=True)])
    pairs = list(zip(with_torch, with_own, strict=True))
    named = [_of_the_same(pair, tables) for pair in pairs]
    shown = [network for pair in pairs for network in (*(one.winner for one in pair), *_equals(*pair))]
    shown += [network for both in named for network in both]
    measured_ms = _milliseconds(shown, own)
    test = _accuracies(shown, task.landscape().judge)
    ratios = [measured_ms[by_torch.key] / measured_ms[by_own.key] for by_torch, by_own in named]
    facts = {"target_ms_of_torch": target_ms, "table_sha256": own.sha256, "torch_table_sha256": torch_table.sha256}
    return summary(settings, pairs, measured_ms, test, ratios, facts)


def _accuracies(networks: Sequence[Network], judge: Evaluator) -> dict[str, float]:
    """What networks are worth, by key."""
    unique = {network.key: network.architecture for network in networks}
    return {key: judge.evaluation(key, architecture).accuracy for key, architecture in unique.items()}


def _search(budget: int, of: SubnetLandscape, search: Search) -> Searched:
    """One search with one table; ``of`` says how accurate a network is.

    Raises:
        OracleError: nothing that it evaluated is within the target.
    """
    table, seed, target_ms = search
    place = SubnetLandscape(of.evaluator, of.judge, table, Objective(target_ms), of.resolutions)
    arena = Arena(place, budget)
    found = OwnSearch(Contestant.parse(STRATEGY), seed, arena).run()
    if found.row is None:
        raise OracleError(f"nothing within {target_ms:.3f} ms was found by seed {seed}; evaluate more")
    networks = {
        m.row: Network(key, place.space.architecture(place.indices(m.row)), m.value / 100.0, m.load)
        for key, m in arena.known.items()
        if m.row is not None and not math.isnan(m.value)
    }
    return Searched(list(networks.values()), networks[found.row])


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

"""Measure again what a table speaks of, as it was measured: its operators among one another, and whole networks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from riwoa.errors import TableError
from riwoa.hardware import bench
from riwoa.hardware.calibration import KnownNetwork
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.probe import probe
from riwoa.hardware.process import ProgressCallback
from riwoa.hardware.runtime import TORCH, runtime_of
from riwoa.hardware.stand import measure_here, network_every, rounds_of
from riwoa.supernet.geometry import Operator, all_operators, operators
from riwoa.supernet.space import OfaConfig

_CALIBRATION_NETWORKS = 24  # of tables of format 1
CALIBRATION_SEED = "calibration"
_POOL_MS = 100.0
_FEWEST_OPERATORS = 8


@dataclass(frozen=True, slots=True)
class Remeasured:
    """Milliseconds of today: of operators (``rows`` says which row is whose), and of networks in the order asked."""

    samples: bench.Samples
    rows: Mapping[Operator, int]

    def operator_ratio(self, table: LatencyTable, op: Operator) -> float:
        """How many times the table's time an operator takes now."""
        row = self.samples.operators[self.rows[op]][None]
        return float(bench.undisturbed_ms(row)[0]) / table.operator_ms(op)

    def typical_ratio(self, table: LatencyTable) -> float:
        """The median of all operators' ratios: what most of them do, whatever a sort among them does."""
        ratios = sorted(self.operator_ratio(table, op) for op in self.rows)
        return ratios[len(ratios) // 2]

    def operators_ratio(self, table: LatencyTable) -> float:
        """How many times the table's time all measured operators take together."""
        now_ms = float(bench.undisturbed_ms(self.samples.operators).sum())
        return now_ms / sum(table.operator_ms(op) for op in self.rows)


def remeasure(
    table: LatencyTable,
    configs: Sequence[OfaConfig],
    rounds: int,
    progress: ProgressCallback | None = None,
    first: Sequence[Operator] = (),
) -> Remeasured:
    """Time operators and networks once a round each, under the table's settings.

    In torch, operators are kept company by as many others as 100 ms a round hold, ``first`` being among them: alone,
    the few that one network has stayed in the caches and took 0.82 to 0.91 times what they take among 237. Visits need
    no company.

    Raises:
        TableError: the table was measured on another device or card.
    """
    settings = table.settings
    require_here(table)
    runtime = runtime_of(settings)
    pool = _pool(table, first)
    rounds, every = rounds_of(runtime, rounds), network_every(runtime)
    samples = bench.Samples.empty(len(pool), len(configs), rounds, every)
    measure_here(settings, runtime, pool, configs, table.backbone, samples, progress=progress)
    return Remeasured(samples, {op: i for i, op in enumerate(pool)})


def require_here(table: LatencyTable) -> None:
    """Refuse a table of another device or card.

    Raises:
        TableError: it is one.
    """
    table.require(probe(), table.settings.threads)
    here = bench.accelerator(table.settings.compute)
    if table.settings.compute == "cuda" and here != table.settings.accelerator:
        there = table.settings.accelerator or "an unnamed card"
        raise TableError(
            f"the latency table was measured on {there}, not {here or 'a card that torch sees'}; rebuild it"
        )


def known_networks(table: LatencyTable) -> tuple[KnownNetwork, ...]:
    """The calibration networks and their times; for a table of format 1, which kept none, as it predicts them."""
    if table.known:
        return table.known
    count = max(_CALIBRATION_NETWORKS, table.calibration.networks)
    configs = bench.spread_configs(table.resolutions, count, CALIBRATION_SEED)
    return tuple(KnownNetwork(config, table.latency_ms(config)) for config in configs)


def spread(known: Sequence[KnownNetwork], count: int) -> list[KnownNetwork]:
    """``count`` networks spread evenly over the range of their times, the ends left out."""
    ordered = sorted(known, key=lambda network: network.ms)
    return [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(min(count, len(ordered)))]


def unseen_configs(table: LatencyTable, count: int, seed: str) -> list[OfaConfig]:
    """Random subnets, no two alike and none alike to a calibration network: the same operators are the same network.

    Raises:
        TableError: the space has not so many.
    """
    seen = {operators(network.config, table.backbone) for network in known_networks(table)}
    found: list[OfaConfig] = []
    for config in bench.random_configs(table.resolutions, 4 * count, seed):
        if len(found) < count and (key := operators(config, table.backbone)) not in seen:
            seen.add(key)
            found.append(config)
    if len(found) < count:
        raise TableError(f"the space has no {count} networks beside those of the calibration; ask for fewer")
    return found


def _pool(table: LatencyTable, first: Sequence[Operator]) -> tuple[Operator, ...]:
    others = [op for op in all_operators(table.resolutions, table.backbone) if op.key in table.entries]
    random.Random("company").shuffle(others)
    if table.settings.runtime != TORCH:
        return tuple(first) or tuple(others[:_FEWEST_OPERATORS])
    pool, total_ms = list(first), sum(table.operator_ms(op) for op in first)
    for op in others:
        if op in pool:
            continue
        total_ms += table.operator_ms(op)
        if total_ms > _POOL_MS and len(pool) >= _FEWEST_OPERATORS:
            break
        pool.append(op)
    return tuple(pool)

"""One search for several devices against a search a device, at the same number of queries together.

Accuracies do not depend on the device, so a query of the one search counts for all. Three ways to spend the queries:

- ``together``: one search with a target a device (``[[target]]``);
- ``apart``: a search a device, each with its share of the queries, none knowing of another;
- ``in turn``: these one after the other, each with what those before it evaluated as its memory (``search.memory``),
  and all that was evaluated counting for every device (``riwoactl answer``).

All go through the driver of the daemon's search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from riwoa.bench.contestants import Contestant
from riwoa.bench.earlier import Remembered
from riwoa.bench.own import screening_of
from riwoa.bench.paired import bootstrap_interval, compare, compare_all
from riwoa.bench.predictor import PredictorLandscape
from riwoa.bench.table import Question, TableLandscape
from riwoa.run.memory import START
from riwoa.search.base import Outcome, Proposal
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.fitness import Constraint, DeviceTarget, FloatArray, Objective
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space
from riwoa.search.strategies import make_strategy
from riwoa.surrogate.gaussian_process import Examples

Report = Callable[[int, int], None]
GROUNDS = ("predictor", "nas-bench-201")
DEVICES = {"raspi4": "raspi4_ms", "2080ti": "2080ti_1_ms", "eyeriss": "eyeriss_ms", "samsung": "samsung_s7_ms"}
MADE_UP = ("made-up 1", "made-up 2", "made-up 3")  # devices, of Note10's table with other factors a block
_SPREAD = 0.7  # of the logarithm of such a factor
FIRST_SEED = 100  # what the search asks for was chosen on others
_DRAWN = 2000  # uniform networks, of which a share keeps a device's limit
_MOST_REPEATS = 3  # budgets that a search may spend on repeats


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared; ``within`` is the share of uniform networks that keep each device's limit."""

    on: str = "predictor"
    seeds: int = 20
    budget: int = 400
    within: float = 0.25


class _Ground(Protocol):
    """Where it is compared."""

    @property
    def space(self) -> Space:
        """Of the architectures."""
        ...

    @property
    def devices(self) -> tuple[str, ...]:
        """Their names."""
        ...

    @property
    def best(self) -> FloatArray | None:
        """The best value within each device's limit, where that is known."""
        ...

    def value(self, indices: IntArray) -> float:
        """Of an architecture, in per cent; NaN where it does not exist."""
        ...

    def loads(self, indices: IntArray) -> FloatArray:
        """Shares of each device's limit, (devices,)."""
        ...


class _Predictor:
    """OFA's predictor, with the Note10 and devices made up of its table."""

    best: FloatArray | None = None

    def __init__(self, folder: Path, within: float) -> None:
        self._landscape = PredictorLandscape(folder)
        self.space = self._landscape.space
        self.devices = ("note10", *MADE_UP)
        self._factors: dict[str, FloatArray] = {}
        self._loads: dict[bytes, FloatArray] = {}
        drawn = generator(0, 0, "targets.limits").integers(0, self.space.cardinalities, (_DRAWN, len(self.space)))
        latencies_ms = np.stack([self._latencies_ms(row) for row in self.space.canonical(drawn)])
        self._limits_ms = np.quantile(latencies_ms, within, axis=0)

    def value(self, indices: IntArray) -> float:
        """See ``_Ground``."""
        return self._landscape.measure(indices).value

    def loads(self, indices: IntArray) -> FloatArray:
        """See ``_Ground``."""
        key = indices.tobytes()
        if key not in self._loads:
            self._loads[key] = self._latencies_ms(indices) / self._limits_ms
        return self._loads[key]

    def _latencies_ms(self, indices: IntArray) -> FloatArray:
        layers = self._landscape.layers_ms(self.space.architecture(indices))
        return np.asarray(np.sum([ms * self._factor(name) for name, ms in layers.items()], axis=0))

    def _factor(self, layer: str) -> FloatArray:
        if layer not in self._factors:
            z = generator(0, 0, f"targets.{layer}").standard_normal(len(MADE_UP))
            self._factors[layer] = np.exp(_SPREAD * np.append(0.0, z))
        return self._factors[layer]


class _Table:
    """NAS-Bench-201's CIFAR-100 validation accuracies, with four measured devices."""

    def __init__(self, data: Path, within: float) -> None:
        folder = data / "nas-bench-201"
        question = Question("ops", "nominal", "c100_val200", loads=tuple(DEVICES.values()))
        self._landscape = TableLandscape(folder / "accuracy.npz", question, folder / "latency.npz")
        self.space, self.devices = self._landscape.space, tuple(DEVICES)
        columns = np.stack([self._landscape.columns[name] for name in DEVICES.values()], axis=1)
        self._shares = columns / np.nanquantile(columns, within, axis=0)
        values = self._landscape.values[:, None]
        self.best: FloatArray | None = np.nanmax(np.where(self._shares <= 1.0, values, np.nan), axis=0)

    def value(self, indices: IntArray) -> float:
        """See ``_Ground``."""
        return self._landscape.measure(indices).value

    def loads(self, indices: IntArray) -> FloatArray:
        """See ``_Ground``."""
        row = self._landscape.table.row(indices)
        assert row is not None, "every cell is in this table"
        return np.asarray(self._shares[row])


@dataclass(frozen=True, slots=True)
class _Spent:
    """What a search evaluated: indices (n, genes), values (n,) and loads (n, devices)."""

    indices: IntArray
    values: FloatArray
    loads: FloatArray

    def join(self, other: _Spent) -> _Spent:
        return _Spent(
            np.concatenate((self.indices, other.indices)),
            np.concatenate((self.values, other.values)),
            np.concatenate((self.loads, other.loads)),
        )

    @property
    def best(self) -> FloatArray:
        """The best value within each device's limit, NaN where there is none, (devices,)."""
        within = (self.loads <= 1.0) & ~np.isnan(self.values)[:, None]
        found = np.max(np.where(within, self.values[:, None], -np.inf), axis=0)
        return np.where(np.isfinite(found), found, np.nan)


class _Search:
    """One search, of some of the devices, until its budget is spent."""

    def __init__(
        self, ground: _Ground, devices: Sequence[int], budget: int, seed: int, before: _Spent | None = None
    ) -> None:
        one = Contestant.parse("riwoa")
        params = one.parameters(20, 1)
        params = replace(params, generations=math.ceil(budget / params.offspring))
        self._ground, self._budget, self._devices = ground, budget, list(devices)
        objective, loads_each = Objective(1.0), None
        if len(self._devices) > 1:
            names = (ground.devices[d] for d in self._devices)
            targets = tuple(DeviceTarget(name, Constraint(f"load {name}", 1.0)) for name in names)
            objective, loads_each = Objective(None, targets=targets), self._loads_each
        self._objective = objective
        known = Remembered() if before is None else self._remembered(before)
        self._driver = Driver(
            make_strategy("riwoa", ground.space, objective, seed, params, self._load, loads_each),
            guide=screening_of(one, params, ground.space, known),
            start=known.start,
        )
        self._known: dict[str, tuple[IntArray, float]] = {}

    def spent(self) -> _Spent:
        """What it evaluates."""
        repeats = 0
        while len(self._known) < self._budget and repeats < _MOST_REPEATS * self._budget:
            asked = self._driver.ask(self._budget - len(self._known))
            before = len(self._known)
            self._driver.tell([self._evaluated(p) for p in asked])
            repeats += len(asked) - (len(self._known) - before)
        indices = np.stack([indices for indices, _ in self._known.values()])
        values = np.array([value for _, value in self._known.values()])
        return _Spent(indices, values, np.stack([self._ground.loads(row) for row in indices]))

    def _evaluated(self, p: Proposal) -> Evaluated:
        indices = self._driver.codec.decode(p.genotype[None])[0]
        key = self._ground.space.key(indices)
        fresh = key not in self._known
        if fresh:
            self._known[key] = indices, self._ground.value(indices)
        value = self._known[key][1]
        return Evaluated(
            Outcome(p.slot, p.operator, p.genotype, value, self._load(indices), p.parent), {"accuracy": value}, fresh
        )

    def _load(self, indices: IntArray) -> float:
        return float(self._ground.loads(indices)[self._devices].min())

    def _loads_each(self, indices: IntArray) -> FloatArray:
        return np.array([self._ground.loads(row)[self._devices] for row in indices])

    def _remembered(self, before: _Spent) -> Remembered:
        """As ``riwoa.run.memory`` hands it to a search."""
        loads = before.loads[:, self._devices].min(axis=1)
        start = before.indices[self._objective.survival(before.values, loads)[:START]]
        return Remembered(prior=Examples(self._ground.space, before.indices, before.values), start=start)


def _together(ground: _Ground, budget: int, seed: int) -> FloatArray:
    return _Search(ground, range(len(ground.devices)), budget, seed).spent().best


def _apart(ground: _Ground, budget: int, seed: int) -> FloatArray:
    many = len(ground.devices)
    found = [_Search(ground, [d], budget // many, seed).spent().best[d] for d in range(many)]
    return np.array(found)


def _in_turn(ground: _Ground, budget: int, seed: int) -> FloatArray:
    many, known = len(ground.devices), None
    for turn in range(many):  # another device first with each seed
        found = _Search(ground, [(turn + seed) % many], budget // many, seed, known).spent()
        known = found if known is None else known.join(found)
    assert known is not None, "there are devices"
    return known.best


WAYS: dict[str, Callable[[_Ground, int, int], FloatArray]] = {
    "together": _together,
    "apart": _apart,
    "in turn": _in_turn,
}


def bench_targets(settings: Settings, folder: Path, *, progress: Report = lambda done, total: None) -> dict[str, Any]:
    """The ways, over the same seeds: by the mean over devices of the best value within each one's limit, in per cent.

    ``ratio``: what the best within a limit lacks of 100 % apart by what it lacks together, over all seeds and devices.

    Args:
        settings: what is compared.
        folder: of OFA's files, or that of NAS-Bench-201's.
        progress: told how many seeds are done.

    Raises:
        RiwoaError: a file is missing or damaged.
    """
    made = _Predictor if settings.on == "predictor" else _Table
    ground: _Ground = made(folder, settings.within)
    found: dict[str, list[FloatArray]] = {way: [] for way in WAYS}
    for done in range(settings.seeds):
        progress(done, settings.seeds)
        for way, spend in WAYS.items():
            found[way].append(spend(ground, settings.budget, FIRST_SEED + done))
    progress(settings.seeds, settings.seeds)
    best = {way: np.stack(rows) for way, rows in found.items()}  # (seeds, devices) each
    means = {way: rows.mean(axis=1) for way, rows in best.items()}
    others = {way: rows.tolist() for way, rows in means.items() if way != "together"}
    return {
        "bench": "targets",
        "ratio": float((100.0 - best["apart"]).mean() / (100.0 - best["together"]).mean()),
        "settings": {**asdict(settings), "devices": list(ground.devices)},
        "rows": [_row(way, rows, ground.best) for way, rows in best.items()],
        "comparisons": compare_all(means["together"].tolist(), others),
        "by_device": {
            device: compare(best["together"][:, d].tolist(), "apart", best["apart"][:, d].tolist())
            for d, device in enumerate(ground.devices)
        },
        "searches": {way: rows.tolist() for way, rows in best.items()},
    }


def _row(way: str, rows: FloatArray, best: FloatArray | None) -> dict[str, Any]:
    means = rows.mean(axis=1)
    return {
        "way": way,
        "mean": float(means.mean()),
        "interval": bootstrap_interval(means),
        "by_device": rows.mean(axis=0).tolist(),
        "met": None if best is None else float((rows >= best).mean()),
    }

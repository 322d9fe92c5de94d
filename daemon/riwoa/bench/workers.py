"""Workers that are asked anew at each arrival, against generations that wait for their slowest, on a table.

Time is simulated: what a query takes is log-normal, with a mean of 1, by the seed and the architecture, so both ways
meet the same. The search's own computing takes none of it. Both go through the driver of the daemon's search.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.contestants import Contestant
from riwoa.bench.own import screening_of
from riwoa.bench.paired import bootstrap_interval, compare
from riwoa.bench.table import Question, TableLandscape
from riwoa.search.base import Outcome, Proposal
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.rng import generator
from riwoa.search.strategies import make_strategy

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared: ``spread`` is of the logarithm of what a query takes."""

    seeds: int = 10
    budget: int = 300
    workers: int = 4
    spread: float = 1.0


@dataclass(frozen=True, slots=True)
class Passed:
    """One search, until it met the best or spent its budget; ``busy``: the share of the workers' time."""

    seed: int
    met: bool
    queries: int
    time: float
    busy: float


class _Search:
    """One search of some workers."""

    def __init__(self, landscape: TableLandscape, settings: Settings, seed: int, *, asynchronous: bool) -> None:
        one = Contestant.parse("riwoa")
        params = replace(one.parameters(20, 1), offspring=settings.workers, asynchronous=asynchronous)
        params = replace(params, generations=math.ceil(settings.budget / settings.workers))
        space = landscape.space
        self._driver = Driver(
            make_strategy("riwoa", space, landscape.aim, seed, params, landscape.free_load),
            guide=screening_of(one, params, space),
        )
        assert landscape.best is not None
        self._landscape, self._best = landscape, landscape.best
        self._settings, self._seed = settings, seed
        self._known: set[str] = set()
        self._time = 0.0
        self._met = False

    def by_generations(self) -> Passed:
        """Wait for all that was asked."""
        busy = 0.0
        while not self._over:
            asked = self._driver.ask()
            takes, begun = [self._takes(p) for p in asked], self._time
            for when, p in sorted(zip(takes, asked, strict=True), key=lambda pair: pair[0]):
                if not self._over:
                    self._time = begun + when
                    self._note(p)
            busy += sum(min(when, self._time - begun) for when in takes)
            self._driver.tell([self._evaluated(p, p.slot) for p in asked])
        return self._passed(busy)

    def by_arrivals(self) -> Passed:
        """Ask for another as soon as one is there."""
        under_way: list[tuple[float, int, Proposal]] = []
        number, busy = count(), 0.0
        while not self._over:
            for p in self._driver.ask(under_way=[p.genotype for _, _, p in sorted(under_way, key=lambda u: u[1])]):
                heapq.heappush(under_way, (self._time + self._takes(p), next(number), p))
            at_work, begun = len(under_way), self._time
            self._time, _, p = heapq.heappop(under_way)
            busy += at_work * (self._time - begun)
            self._note(p)
            self._driver.tell([self._evaluated(p, 0)])
        return self._passed(busy)

    @property
    def _over(self) -> bool:
        return self._met or len(self._known) >= self._settings.budget

    def _passed(self, busy: float) -> Passed:
        share = busy / (self._settings.workers * self._time)
        return Passed(self._seed, self._met, len(self._known), self._time, share)

    def _key(self, p: Proposal) -> str:
        return self._landscape.space.key(self._driver.codec.decode(p.genotype[None])[0])

    def _takes(self, p: Proposal) -> float:
        """Of an architecture that is known it is free."""
        key, spread = self._key(p), self._settings.spread
        if key in self._known:
            return 0.0
        z = generator(self._seed, 0, f"workers {key}").standard_normal()
        return math.exp(spread * z - spread**2 / 2)

    def _note(self, p: Proposal) -> None:
        self._known.add(self._key(p))
        measured = self._landscape.measure(self._driver.codec.decode(p.genotype[None])[0])
        self._met |= measured.value >= self._best and bool(self._landscape.aim.feasible(measured.load))

    def _evaluated(self, p: Proposal, slot: int) -> Evaluated:
        m = self._landscape.measure(self._driver.codec.decode(p.genotype[None])[0])
        outcome = Outcome(slot, p.operator, p.genotype, m.value, m.load, p.parent)
        return Evaluated(outcome, {"accuracy": m.value}, fresh=math.isfinite(m.value))


def bench_workers(
    settings: Settings,
    path: Path,
    question: Question,
    *,
    join: Path | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Both ways, over the same seeds. ``ratio``: the geometric mean of the times to the best, by generations first.

    Raises:
        InputError: the table is missing or damaged, or nothing in it meets the constraints.
    """
    landscape = TableLandscape(path, question, join)
    ways: dict[str, list[Passed]] = {"generations": [], "asynchronous": []}
    for seed in range(settings.seeds):
        progress(seed, settings.seeds)
        ways["generations"].append(_Search(landscape, settings, seed, asynchronous=False).by_generations())
        ways["asynchronous"].append(_Search(landscape, settings, seed, asynchronous=True).by_arrivals())
    progress(settings.seeds, settings.seeds)
    before, after = ways["generations"], ways["asynchronous"]
    times = np.log([[a.time, b.time] for a, b in zip(before, after, strict=True)])
    return {
        "bench": "workers",
        "ratio": float(np.exp((times[:, 0] - times[:, 1]).mean())),
        "settings": {**asdict(settings), "table": path.name, "maximize": question.maximize},
        "rows": [_row(name, passed) for name, passed in ways.items()],
        "queries": compare([-p.queries for p in after], "generations", [-p.queries for p in before]),
        "time": compare([-p.time for p in after], "generations", [-p.time for p in before]),
        "searches": {name: [asdict(p) for p in passed] for name, passed in ways.items()},
    }


def _row(name: str, passed: list[Passed]) -> dict[str, Any]:
    queries, times = np.array([p.queries for p in passed], np.float64), np.array([p.time for p in passed])
    return {
        "asked": name,
        "missed": sum(not p.met for p in passed),
        "queries_mean": float(queries.mean()),
        "queries_interval": bootstrap_interval(queries),
        "time_mean": float(times.mean()),
        "time_interval": bootstrap_interval(times),
        "busy_mean": float(np.mean([p.busy for p in passed])),
    }

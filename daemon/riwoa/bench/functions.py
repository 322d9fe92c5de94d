"""Strategies on shifted, rotated functions of real numbers, where a search that is tied to its axes loses.

Ellipsoid (condition 10^6), Rosenbrock and Rastrigin in [-5, 5]^n, each turned by a random rotation and moved to a
random optimum that lies in the middle of a cell: of 2^18 cells a coordinate, which is as good as continuous, or of a
few, which is integer-binned. One instance each. What counts is -log10 of the value above the optimum, 8 at most.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.arena import POPULATION
from riwoa.bench.contest import Report, Settings, search_all
from riwoa.bench.landscape import Measured, Plain
from riwoa.bench.measures import summary
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.space import Gene, IntArray, Space

FINE_CELLS = 2**18
_HALF_WIDTH = 5.0
_PRECISION = 1e-8


def _ellipsoid(z: FloatArray) -> float:
    return float(np.sum(10.0 ** (6.0 * np.arange(len(z)) / max(1, len(z) - 1)) * z**2))


def _rosenbrock(z: FloatArray) -> float:
    y = z + 1.0
    return float(np.sum(100.0 * (y[:-1] ** 2 - y[1:]) ** 2 + (y[:-1] - 1.0) ** 2))


def _rastrigin(z: FloatArray) -> float:
    return float(10.0 * (len(z) - np.sum(np.cos(2.0 * np.pi * z))) + np.sum(z**2))


FUNCTIONS: Mapping[str, Callable[[FloatArray], float]] = {  # 0 at 0, and nowhere less
    "ellipsoid": _ellipsoid,
    "rosenbrock": _rosenbrock,
    "rastrigin": _rastrigin,
}


@dataclass(frozen=True, slots=True)
class Ground:
    """A function in so many dimensions, each cut into so many cells."""

    function: str
    dimensions: int
    cells: int = FINE_CELLS

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.function}, {self.dimensions} dimensions" + (
            "" if self.cells == FINE_CELLS else f" of {self.cells} cells"
        )


class FunctionLandscape(Plain):
    """One instance of a ground."""

    best = -math.log10(_PRECISION)
    worst = -99.0

    def __init__(self, ground: Ground) -> None:
        n = ground.dimensions
        self.space = Space(ground.name, tuple(Gene(f"x{i}", _choices(ground.cells)) for i in range(n)))
        self.aim = Objective(None)
        self.key = hashlib.sha256(json.dumps(asdict(ground)).encode()).hexdigest()
        self._ground = ground
        rng = np.random.default_rng([n, *ground.function.encode()])
        self._rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
        self._optimum = self._point(np.floor((0.1 + 0.8 * rng.random(n)) * ground.cells).astype(np.int64))

    def measure(self, indices: IntArray) -> Measured:
        """See ``Landscape``."""
        value = FUNCTIONS[self._ground.function](self._rotation @ (self._point(indices) - self._optimum))
        return Measured(-math.log10(max(value, _PRECISION)), 0.0)

    def free_load(self, indices: IntArray) -> float | None:
        """There is no limit."""
        return None

    def _point(self, cells: IntArray) -> FloatArray:
        """The middle of a cell."""
        return np.asarray(_HALF_WIDTH * (2.0 * (cells + 0.5) / self._ground.cells - 1.0))


def _report(progress: Report, before: int, total: int, done: int, of_ground: int) -> None:
    progress(before + done, total)


def _ratio(comparisons: Sequence[Mapping[str, Any]]) -> float | None:
    """How many times as far above the optimum random search ends, the median over seeds; None without it."""
    return next((10.0 ** c["median_difference"] for c in comparisons if c["against"] == "random"), None)


@cache
def _choices(cells: int) -> tuple[int, ...]:
    return tuple(range(cells))


def bench_functions(
    settings: Settings,
    grounds: tuple[Ground, ...],
    *,
    out: Path | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Run every (strategy, seed) on every ground; the budget is a dimension's.

    Raises:
        UsageError: a strategy cannot take part.
        StateDirectoryError: ``out`` cannot be written.
    """
    rows = []
    for n, ground in enumerate(grounds):
        landscape = FunctionLandscape(ground)
        own = Settings(settings.seeds, settings.budget * ground.dimensions, settings.strategies)
        each = len(own.strategies) * own.seeds
        report = partial(_report, progress, n * each, len(grounds) * each)
        found = search_all(own, landscape, out, report)
        result = summary(own, landscape, found)
        told = {**result, "ratio": _ratio(result["comparisons"]), "budget": own.budget}
        rows.append({"ground": ground.name, **asdict(ground), **told})
    ratios = [row["ratio"] for row in rows]
    return {
        "bench": "functions",
        "ratio": None if None in ratios else statistics.median(ratios),
        "grounds": rows,
        "settings": {"population": POPULATION, **asdict(settings)},
    }

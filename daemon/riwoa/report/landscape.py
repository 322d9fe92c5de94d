"""What a run's evaluations say of its whole space: a linear model of the genes, and what follows from it.

The model is a ridge regression on one-hot genes: it is learned in milliseconds, its error is known from networks that
were held out, and what it says of a gene can be read off. Random search's shadow, the genes that matter and the map of
what was visited all come from the same matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.report.facts import GeneShare, Shadow, Visited
from riwoa.search.fitness import FloatArray
from riwoa.search.rng import generator
from riwoa.search.space import Gene, IntArray, Space
from riwoa_storage.records import Json

_RIDGE = 1.0
_FEWEST = 40  # evaluations from which a model is learned
_LEAST_FIT = 0.5  # share of the held-out spread that it must explain, to be believed
_DRAWS = 8_000  # uniform architectures that stand for the space
_FEWEST_WITHIN = 200  # of these within the limits
_CURVE_POINTS = 40
_GENES_TOLD = 8
_LEVELS = (0.025, 0.5, 0.975)


def one_hot(space: Space, indices: IntArray) -> FloatArray:
    """A column a choice, (n, sum of choices); all 0 where a gene is inactive."""
    columns = [
        indices[:, [gene]] == np.arange(count)[None, :] for gene, count in enumerate(space.cardinalities.tolist())
    ]
    return np.concatenate(columns, axis=1).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear model of one-hot genes."""

    weights: FloatArray
    mean: float
    centre: FloatArray

    @classmethod
    def learn(cls, rows: FloatArray, values: FloatArray) -> Linear:
        """The ridge regression of values (n,) on rows (n, d)."""
        centre, mean = rows.mean(axis=0), float(values.mean())
        away = rows - centre
        gram = away.T @ away + _RIDGE * np.eye(rows.shape[1])
        return cls(np.linalg.solve(gram, away.T @ (values - mean)), mean, centre)

    def of(self, rows: FloatArray) -> FloatArray:
        """Values of rows (n, d)."""
        return np.asarray(self.mean + (rows - self.centre) @ self.weights)


@dataclass(frozen=True)
class Sample:
    """Evaluated networks of a run, spread evenly over it.

    Attributes:
        space: of the run.
        indices: canonical, (n, genes).
        values: (n,), larger is better.
        latencies_ms: (n,); 0 where none is known.
        generations: (n,).
        uniform: (n,), whether it was drawn before the search chose anything.
        limit_ms: which latency a network must keep; None for none.
    """

    space: Space
    indices: IntArray
    values: FloatArray
    latencies_ms: FloatArray
    generations: IntArray
    uniform: npt.NDArray[np.bool_]
    limit_ms: float | None

    @cached_property
    def rows(self) -> FloatArray:
        """One-hot genes."""
        return one_hot(self.space, self.indices)

    @cached_property
    def fit(self) -> float:
        """The share of the values' spread that a model of four fifths explains in the last; 0 for too few."""
        if len(self.values) < _FEWEST or np.ptp(self.values) == 0:
            return 0.0
        held = np.arange(len(self.values)) % 5 == 4
        model = Linear.learn(self.rows[~held], self.values[~held])
        away = self.values[held] - model.of(self.rows[held])
        spread = float(((self.values[held] - self.values[~held].mean()) ** 2).mean())
        return max(0.0, 1.0 - float((away**2).mean()) / spread) if spread > 0 else 0.0

    @cached_property
    def misses(self) -> FloatArray:
        """What the model misses of as many architectures as are drawn, by what it missed of those held out."""
        held = np.arange(len(self.values)) % 5 == 4
        model = Linear.learn(self.rows[~held], self.values[~held])
        away = self.values[held] - model.of(self.rows[held])
        return generator(0, 0, "report.misses").choice(away, _DRAWS)

    @cached_property
    def drawn(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """Uniform architectures as one-hot rows' indices, with the model's values and latencies (0 for unknown)."""
        rng = generator(0, 0, "report.shadow")
        raw = np.stack([rng.integers(0, n, _DRAWS) for n in self.space.cardinalities.tolist()], axis=1)
        indices = self.space.canonical(raw.astype(np.int64))
        rows = one_hot(self.space, indices)
        values = Linear.learn(self.rows, self.values).of(rows)
        if not np.all(self.latencies_ms > 0):
            return indices, values, np.zeros(_DRAWS)
        latencies = np.exp(Linear.learn(self.rows, np.log(self.latencies_ms)).of(rows))
        return indices, values, latencies


def shadow_of(sample: Sample | None, evaluations: int) -> Shadow:
    """What random search would have found with so many evaluations within the limit, by the best source there is."""
    if sample is None:
        return Shadow("")
    if sample.fit >= _LEAST_FIT:
        _, values, latencies = sample.drawn
        values = values + sample.misses  # a model says nothing of luck, which the best of many lives on
        within = np.ones(len(values), dtype=np.bool_) if sample.limit_ms is None else latencies <= sample.limit_ms
        if int(within.sum()) >= _FEWEST_WITHIN:
            source = (
                f"a linear model of this run's results, which explains {100 * sample.fit:.0f} % of how networks that "
                "it was not shown differ"
            )
            front = _random_front(latencies, values, evaluations) if latencies.any() else ()
            return replace(_curve(values[within], source, evaluations), front=front, fit=sample.fit)
    first = sample.uniform
    if sample.limit_ms is not None:
        first = first & (sample.latencies_ms <= sample.limit_ms)
    count = int(first.sum())
    if count < 2:
        return Shadow("")
    source = f"the run's own first {count} evaluations within the limit, which were drawn at random"
    return _curve(sample.values[first], source, count)


def _curve(values: FloatArray, source: str, evaluations: int) -> Shadow:
    """Percentiles of the best of n draws of these values, exactly: the k-th of K is not exceeded with (k/K)^n."""
    ordered = np.sort(values)
    numbers = np.unique(np.geomspace(1, max(1, evaluations), _CURVE_POINTS).round().astype(np.int64))
    low, middle, high = (_best_of(ordered, numbers, level) for level in _LEVELS)
    return Shadow(source, tuple(numbers.tolist()), tuple(low.tolist()), tuple(middle.tolist()), tuple(high.tolist()))


def _best_of(ordered: FloatArray, numbers: IntArray, level: float) -> FloatArray:
    at = np.ceil(len(ordered) * level ** (1.0 / numbers)).astype(np.int64) - 1
    return np.asarray(ordered[np.clip(at, 0, len(ordered) - 1)])


def _random_front(latencies: FloatArray, values: FloatArray, evaluations: int) -> tuple[tuple[float, float], ...]:
    """The median best value of random search within each latency, where it draws from the whole space."""
    order = np.argsort(latencies)
    found = []
    for share in np.linspace(0.02, 1.0, _CURVE_POINTS):
        count = max(1, int(share * len(order)))
        numbers = np.array([max(1, round(evaluations * count / len(order)))], dtype=np.int64)
        best = _best_of(np.sort(values[order[:count]]), numbers, _LEVELS[1])[0]
        found.append((float(latencies[order[count - 1]]), float(best)))
    return tuple(found)


def gene_shares(sample: Sample | None, chosen: Json) -> tuple[GeneShare, ...]:
    """The genes that explain most of the value over the whole space, by the model; none where it is not believed.

    A gene's share is the variance of the mean value given its choice (Sobol's first-order index).
    """
    if sample is None or sample.fit < _LEAST_FIT:
        return ()
    indices, values, _ = sample.drawn
    total, shares = float(values.var()), []
    for number, gene in enumerate(sample.space.genes):
        explained = 0.0
        for choice in np.unique(indices[:, number]):
            here = indices[:, number] == choice
            explained += float(here.mean()) * float(values[here].mean() - values.mean()) ** 2
        share = explained / total if total else 0.0
        shares.append(GeneShare(gene.name, share, chosen.get(gene.name), _end(gene, chosen.get(gene.name))))
    return tuple(sorted(shares, key=lambda s: -s.share)[:_GENES_TOLD])


def _end(gene: Gene, value: Any) -> str:
    """Which end of an ordered gene's range a choice is; "" where it is none."""
    if gene.kind != "ordered" or value is None:
        return ""
    return "largest" if value == gene.choices[-1] else "smallest" if value == gene.choices[0] else ""


def visited_map(sample: Sample | None, winner: Json, of: int) -> Visited | None:
    """The sample in the plane of its two largest components; None for too few."""
    if sample is None or len(sample.values) < 3:
        return None
    centre = sample.rows.mean(axis=0)
    away = sample.rows - centre
    variances, axes = np.linalg.eigh(away.T @ away / len(away))
    plane, total = axes[:, [-1, -2]] if axes.shape[1] > 1 else np.hstack([axes, axes * 0]), float(variances.sum())
    if total <= 0:
        return None
    at = away @ plane
    points = zip(at.tolist(), sample.values.tolist(), sample.generations.tolist(), strict=True)
    two = [*variances[::-1][:2].tolist(), 0.0]
    place = _place(sample, winner, centre, plane)
    told = tuple((x, y, value, generation) for (x, y), value, generation in points)
    return Visited(told, (two[0] / total, two[1] / total), of, place)


def _place(sample: Sample, architecture: Json, centre: FloatArray, plane: FloatArray) -> tuple[float, float] | None:
    row = one_hot(sample.space, sample.space.indices(architecture)[None, :])[0] - centre
    x, y = (row @ plane).tolist()
    return x, y


def spread_evenly(count: int, most: int) -> list[int]:
    """At most so many of the numbers below ``count``, evenly spread, the last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def largest(space: Space) -> dict[str, Any]:
    """The architecture of every ordered gene's last choice; nominal genes have no largest and are left out."""
    last = space.canonical(space.cardinalities - 1)
    nominal = {gene.name for gene in space.genes if gene.kind != "ordered"}
    return {name: value for name, value in space.architecture(last).items() if name not in nominal}


def same_space(data: Any) -> Space | None:
    """The space of a run's record; None where it holds none that can be read."""
    try:
        return Space.from_json(data)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def known_indices(space: Space, architectures: Sequence[Json]) -> IntArray:
    """Canonical indices (n, genes) of architectures."""
    return np.stack([space.indices(architecture) for architecture in architectures])

"""What evaluations by another oracle of the same space say of an architecture, followed only while it predicts.

A process of the other oracle's scores, scaled by a slope between 0 and 1, is the mean from which the run's own process
departs. It is followed from the run's fifth evaluation on, while the rank correlation with what the run has found is
above ``LEAST`` and beyond chance.

Measured on NAS-Bench-201, queries to the best cell, twelve seeds (`riwoactl bench table --after`), without and with the
other's search of 300 queries before: CIFAR-100 after CIFAR-10 44 and 2, CIFAR-10 after CIFAR-100 38 and 12; CIFAR-100
after CIFAR-10 with noise on its ranks (rank correlation 0.5) 40 and 19, with its cells shuffled 40 and 34 (p = 0.6). In
a trial before those, followed only from the tenth evaluation on, or judged by marginal likelihood, the search for
CIFAR-10's best took 16 queries and not 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray, Space
from riwoa.surrogate.gaussian_process import Examples
from riwoa.surrogate.mixture import MixtureLearner, MixtureProcess, Trend, mean_ranks, normal_scores

FEWEST = 5  # own evaluations
LEAST = 0.7  # rank correlation
CHANCE_SD = 1.64  # standard deviations of the rank correlation of what has nothing to do with each other
_SHRINKAGE = 1.0  # of the slope towards 0, in squared scores


@dataclass(frozen=True, slots=True)
class ScaledProcess:
    """What another process expects, as a straight line of it; ``correlation`` with what the run has found."""

    process: MixtureProcess
    level: float
    slope: float
    correlation: float

    @property
    def count(self) -> int:
        """See ``Trend.count``."""
        return self.process.count

    def scores(self, indices: IntArray) -> FloatArray:
        """See ``Trend.scores``."""
        return self.level + self.slope * self.process.mean(indices)


class RelatedOracles:
    """Other oracles of a space.

    Args:
        space: of all of them.
        examples: of each, first seen first.
    """

    def __init__(self, space: Space, examples: Sequence[Examples]) -> None:
        self._space = space
        self._examples = examples

    @cached_property
    def _processes(self) -> list[MixtureProcess]:
        different = [e for e in self._examples if float(np.ptp(e.accuracies)) > 1e-9]
        return [MixtureLearner(self._space).learn(e.indices, e.accuracies) for e in different]

    def trend(self, indices: IntArray, values: FloatArray) -> Trend | None:
        """What the one says that predicts these values (n,) of canonical indices (n, genes) best; None if none does."""
        if len(values) < FEWEST:
            return None
        least = max(LEAST, CHANCE_SD / float(np.sqrt(len(values) - 1)))
        ranks, best = mean_ranks(values), None
        for process in self._processes:
            means = process.mean(indices)
            found = _correlation(mean_ranks(np.round(means, 9)), ranks)
            if found > least:
                least, best = found, (process, means)
        return _scaled(*best, normal_scores(values), least) if best is not None else None


def _scaled(process: MixtureProcess, means: FloatArray, scores: FloatArray, correlation: float) -> ScaledProcess:
    away = means - means.mean()
    slope = float(np.clip(away @ scores / (away @ away + _SHRINKAGE), 0.0, 1.0))
    return ScaledProcess(process, float(scores.mean() - slope * means.mean()), slope, correlation)


def _correlation(a: FloatArray, b: FloatArray) -> float:
    """Pearson's; 0 where one of the two does not vary."""
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / norm if norm > 0.0 else 0.0

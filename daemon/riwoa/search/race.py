"""Racing: a candidate is given up as soon as, with confidence, it can change nothing (Maron & Moore, NeurIPS 1993).

A candidate matters if it would enter the population, the Pareto front, or win against its parent. Under a latency that
is known, each of these is an accuracy that it must exceed; the least of them is ``EliminationThreshold.needed``. A
cheap measurement on a lower *rung* (part of the images, a table's low fidelity) bounds from above what the full one
would give, as those tell that went through both.

RI-IWOA (with elitism, and without a screening predictor that would have learned from it) goes the same way whether such
a candidate is given up or evaluated. WOA and random search keep their leader and their places; what they would crown
after the target has moved is chosen among those evaluated.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from riwoa.search.fitness import Objective
from riwoa.search.pareto import ParetoPoint

FEWEST = 20  # that went through both rungs before one bounds the other
MOST = 200  # the newest: a search moves on, and what held far away need not hold here


@dataclass(frozen=True, slots=True)
class Cut:
    """The member of the population that a newcomer must beat to stay."""

    accuracy: float
    latency_ms: float


class EliminationThreshold:
    """What a candidate must reach to change anything, from committed individuals alone.

    Args:
        objective: how they are judged.
        cut: the population's last place; None where every newcomer is kept.
        front: the Pareto front, fastest first.
    """

    def __init__(self, objective: Objective, cut: Cut | None, front: Iterable[ParetoPoint]) -> None:
        points = sorted((p.latency_ms, p.accuracy) for p in front)
        self._objective = objective
        self._cut = cut
        self._latencies = [latency for latency, _ in points]
        self._best = list(itertools.accumulate((accuracy for _, accuracy in points), max))

    def needed(self, latency_ms: float | None, parent_fitness: float | None = None) -> float:
        """The accuracy that a candidate of this latency must exceed; −inf where any will do, +inf where none will.

        One of infinite latency is in no table: its evaluation fails, and no bound should stand in for that. Where the
        latency is not known beforehand (None), it may be the least, and the front is left out of account.
        """
        if latency_ms is None:
            reached, latency_ms = [self._to_stay(0.0)], 0.0
        elif not math.isfinite(latency_ms):
            return -math.inf
        else:
            reached = [self._to_stay(latency_ms), self._to_front(latency_ms)]
        if parent_fitness is not None:
            reached.append(self._objective.value_of(parent_fitness, latency_ms))
        return min(reached)

    def _to_stay(self, latency_ms: float) -> float:
        if self._cut is None:
            return -math.inf
        inside, cut_inside = (bool(self._objective.feasible(ms)) for ms in (latency_ms, self._cut.latency_ms))
        if inside != cut_inside:
            return -math.inf if inside else math.inf  # whatever is within the target goes before all that is not
        cut = float(self._objective.fitness(self._cut.accuracy, self._cut.latency_ms))
        return self._objective.value_of(cut, latency_ms)

    def _to_front(self, latency_ms: float) -> float:
        faster = bisect.bisect_right(self._latencies, latency_ms)
        return math.nextafter(self._best[faster - 1], -math.inf) if faster else -math.inf  # equals all stay on it


class Bound:
    """Bounds full accuracies by cheap ones: a line through those that are known of both, and its prediction interval.

    Args:
        cheap: accuracies on the lower rung, (n,).
        full: of the same architectures in full, (n,).
        confidence: that a full accuracy stays below ``upper``, one-sided.
    """

    def __init__(self, cheap: Sequence[float], full: Sequence[float], confidence: float) -> None:
        from scipy.special import stdtrit  # a tenth of what scipy.stats takes to import

        x, y = (np.asarray(values, dtype=np.float64)[-MOST:] for values in (cheap, full))
        self._n = len(x)
        self.usable = self._n >= FEWEST
        if not self.usable:
            return
        self._x_mean, self._y_mean = float(x.mean()), float(y.mean())
        level = float(np.ptp(x)) < 1e-9  # what is left then are the last bits of the mean
        self._sxx = 0.0 if level else float(((x - self._x_mean) ** 2).sum())
        self._slope = float(((x - self._x_mean) * (y - self._y_mean)).sum()) / self._sxx if self._sxx > 0 else 0.0
        residuals = y - self._y_mean - self._slope * (x - self._x_mean)
        self._sd = math.sqrt(float((residuals**2).sum()) / (self._n - 2))
        self._t = float(stdtrit(self._n - 2, confidence))

    def expected(self, cheap: float) -> float:
        """What the full accuracy is expected to be; of a usable bound."""
        return self._y_mean + self._slope * (cheap - self._x_mean)

    def upper(self, cheap: float) -> float:
        """What the full accuracy will not exceed, +inf while too few are known."""
        if not self.usable:
            return math.inf
        off = cheap - self._x_mean
        spread = 1.0 + 1.0 / self._n + (off * off / self._sxx if self._sxx > 0 else 0.0)
        return self._y_mean + self._slope * off + self._t * self._sd * math.sqrt(spread)

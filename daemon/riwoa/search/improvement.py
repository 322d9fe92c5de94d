"""What architectures promise: the expected improvement of the best, or of a front, by what is believed of scores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from riwoa.search.base import LatencyOf, Members, Posterior
from riwoa.search.fitness import FloatArray
from riwoa.search.hypervolume import Staircase
from riwoa.search.space import IntArray
from riwoa.search.targets import NOBODY, LoadsEach, leaders

BEYOND = 1.05  # of the largest load of interest: so far a front's last network counts, too
LITTLE = -7.0  # log of a thousandth
MEDIAN, QUARTILE = 0.0, -0.67  # scores of these, the lower quartile's


@dataclass(frozen=True, slots=True)
class BestImprovement:
    """Of the best score (an ``Acquisition``); the mean alone counts while there is none to improve on (−inf)."""

    top: float

    def promise(self, posterior: Posterior, indices: IntArray) -> FloatArray:
        """See ``Acquisition``: the logarithm of the expected improvement."""
        means, deviations = posterior.predict(indices)
        return log_expected_improvement(means, deviations, self.top) if np.isfinite(self.top) else means

    def believing(self, posterior: Posterior, indices: IntArray) -> BestImprovement:
        """The same: what is only believed is no better than what is known."""
        return self


@dataclass(frozen=True, slots=True)
class FrontImprovement:
    """Of a front's area in scores, where loads are known (an ``Acquisition``).

    The area needs a score above which it counts, and none suits alone: above the median's, fast networks are never
    looked for where to be fast is to be worse; above the worst, they take most of a search, for scores of ranks lie far
    apart where there are few; above the best, the slow end is looked for alone. So what is asked takes turns between
    those and the lower quartile's. Mean share of the hypervolume after 300 queries of NAS-Bench-201 (CIFAR-100,
    Raspberry Pi 4): 0.992 so, 0.988 the least of 12 seeds; without the best's turn 0.972, for one of these seeds ended
    at 0.80, its slow end not found, and 0.978 with 30 seeds. Median and worst alone: 0.985 (10 seeds), and of two
    searches of OFA's predictor neither found anything within 15 ms. Median and -0.8 alone, which leave the fast end
    out: 0.995 (8 seeds).

    Attributes:
        fronts: the same one, above each of these.
        load_of: a load, None where nobody knows it: nothing is then expected.
        turn: how many were asked before.
    """

    fronts: tuple[Staircase, ...]
    load_of: LatencyOf
    turn: int

    @classmethod
    def of(
        cls, members: Members, most_load: float, posterior: Posterior, load_of: LatencyOf, turn: int
    ) -> FrontImprovement:
        """That of the front of some individuals, up to a load."""
        known = members.take(np.flatnonzero(np.isfinite(members.accuracy) & (members.latency_ms <= most_load)))
        scores = np.array([posterior.score(value) for value in known.accuracy.tolist()])
        references = MEDIAN, QUARTILE, posterior.score(-np.inf), float(scores.max(initial=MEDIAN))
        fronts = (Staircase.of(scores, known.latency_ms, BEYOND * most_load, reference) for reference in references)
        return cls(tuple(fronts), load_of, turn)

    def promise(self, posterior: Posterior, indices: IntArray) -> FloatArray:
        """See ``Acquisition``: the logarithm of the area's expected growth, exact for known loads."""
        known = (self.load_of(row) for row in indices)
        loads = np.array([np.inf if load is None else load for load in known])
        front = self.fronts[self.turn % len(self.fronts)]
        means, deviations = posterior.predict(indices)
        gains = log_expected_improvement(means[:, None], deviations[:, None], front.levels)
        with np.errstate(divide="ignore"):
            return np.asarray(np.logaddexp.reduce(np.log(front.widths(loads)) + gains, axis=1))

    def believing(self, posterior: Posterior, indices: IntArray) -> FrontImprovement:
        """With the architecture on the front, if it is expected there."""
        expected, load = float(posterior.predict(indices)[0][0]), self.load_of(indices[0])
        fronts = tuple(f if load is None else f.with_network(expected, load) for f in self.fronts)
        return replace(self, fronts=fronts, turn=self.turn + 1)


@dataclass(frozen=True, slots=True)
class TargetsImprovement:
    """Of the best score for each of several devices, of those that a network serves (an ``Acquisition``).

    Every other network is asked for what it promises all targets together, each one in between for what it promises one
    of them, in turn; of the others a little, which decides where it promises nothing. Against searches of one device
    each with as many queries together, four devices, percentage points of the mean best: OFA's predictor, 400 queries
    and limits that a quarter of the space keeps (8 seeds): all together 0.46, the most improved 0.41, one in turn 0.39,
    half and half 0.51; limits that 2 to 50 per cent keep (6 seeds): 0.22, -, 0.36, 0.30. NAS-Bench-201, 200 queries (15
    seeds): 0.14, 0.14, 0.10, 0.07; 0.18, -, 0.20, 0.29. None is clearly the best, half and half never far from it:
    the sum goes where improvement is easy, and leaves tight limits behind.

    Attributes:
        tops: the best score for each target, the least there is where nobody serves it yet, (targets,).
        loads_each: loads for each target.
        turn: how many were asked before.
    """

    tops: FloatArray
    loads_each: LoadsEach
    turn: int = 0

    @classmethod
    def of(
        cls, values: FloatArray, loads: FloatArray, posterior: Posterior, loads_each: LoadsEach, turn: int = 0
    ) -> TargetsImprovement:
        """That of the best of some individuals, of values (n,) and loads (n, targets)."""
        best = (-np.inf if row == NOBODY else float(values[row]) for row in leaders(values, loads).tolist())
        return cls(np.array([posterior.score(value) for value in best]), loads_each, turn)

    def promise(self, posterior: Posterior, indices: IntArray) -> FloatArray:
        """See ``Acquisition``: the logarithm of expected improvements, −inf of what serves no target."""
        means, deviations = posterior.predict(indices)
        gains = log_expected_improvement(means[:, None], deviations[:, None], self.tops)
        gains = np.where(self.loads_each(indices) <= 1.0, gains, -np.inf)
        together = np.asarray(np.logaddexp.reduce(gains, axis=1))
        if self.turn % 2 == 0:
            return together
        return np.asarray(np.logaddexp(gains[:, self.turn // 2 % len(self.tops)], together + LITTLE))

    def believing(self, posterior: Posterior, indices: IntArray) -> TargetsImprovement:
        """With the architecture as the best for each target that it serves, if more is expected of it."""
        expected = float(posterior.predict(indices)[0][0])
        raised = (self.loads_each(indices)[0] <= 1.0) & (self.tops < expected)
        return replace(self, tops=np.where(raised, expected, self.tops), turn=self.turn + 1)


def log_expected_improvement(means: FloatArray, deviations: FloatArray, level: npt.ArrayLike) -> FloatArray:
    """Logarithm of what a normal variable is expected to exceed a level by; arrays that broadcast."""
    from scipy.special import erfcx, ndtr

    z = (means - np.asarray(level)) / deviations
    density = -0.5 * z**2 - 0.5 * np.log(2.0 * np.pi)
    # h(z) = pdf(z) + z cdf(z), and cdf(z) / pdf(z) = sqrt(pi / 2) erfcx(-z / sqrt 2): far below 0 nothing underflows.
    low = np.minimum(z, 0.0)
    ratio = np.maximum(1.0 + low * np.sqrt(np.pi / 2.0) * erfcx(-low / np.sqrt(2.0)), 1e-300)
    high = np.log(np.maximum(np.exp(density) + z * ndtr(z), 1e-300))
    return np.asarray(np.log(deviations) + np.where(z > 0.0, high, density + np.log(ratio)))

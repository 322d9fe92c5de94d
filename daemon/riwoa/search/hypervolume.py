"""The area that a front dominates, value to make larger against load to make smaller, and what is expected to join it.

Loads are known before an evaluation, so what a candidate adds has one unknown, its value y: with the front as a
staircase, a candidate of load l adds the integral over values v from the reference up to y of max(0, x(v) - l), where
x(v) is the load of the first step above v. x is constant between two levels of the front, so the expectation is exact,
a sum over these bands: width times what y is expected to have of the band, a difference of two expected improvements
(of the expected hypervolume improvement of Emmerich, Deutz & Klinkenberg, CEC 2011, the case of one known objective).

What is believed are scores, of which values are a growing function. As a line broken at some scores it changes nothing
but the weight of a band: by its slope there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from riwoa.search.improvement import FloatArray, log_expected_gain

IntArray = npt.NDArray[np.int64]
BREAKS = 12  # of the line from scores to values
_FLATTEST = 1e-3  # of its mean slope


@dataclass(frozen=True, slots=True)
class Staircase:
    """A front up to a reference: what lies beyond it in load, or not above it in value, counts for nothing.

    Attributes:
        loads: of its networks, ascending, (k,).
        values: of its networks, ascending, (k,).
        most_load: the reference's.
        least_value: the reference's.
    """

    loads: FloatArray
    values: FloatArray
    most_load: float
    least_value: float

    @classmethod
    def of(cls, values: FloatArray, loads: FloatArray, most_load: float, least_value: float) -> Staircase:
        """The front of some networks, (n,) each."""
        inside = (loads < most_load) & (values > least_value)
        values, loads = values[inside], loads[inside]
        steps = front_positions(values, loads)
        return cls(loads[steps], values[steps], most_load, least_value)

    @property
    def area(self) -> float:
        """The hypervolume."""
        widths = np.diff(np.append(self.loads, self.most_load))
        return float(widths @ (self.values - self.least_value))

    @property
    def contributions(self) -> FloatArray:
        """The area that each of its networks alone dominates, (k,)."""
        widths = np.diff(np.append(self.loads, self.most_load))
        return np.asarray(widths * np.diff(self.values, prepend=self.least_value))

    def with_network(self, value: float, load: float) -> Staircase:
        """The front with one more network."""
        values, loads = np.append(self.values, value), np.append(self.loads, load)
        return Staircase.of(values, loads, self.most_load, self.least_value)


@dataclass(frozen=True, slots=True)
class FrontImprovement:
    """The growth of a front's area, by candidates whose scores are believed (an ``Improvement``).

    Attributes:
        front: in scores.
        scores: where the line from scores to values is broken, ascending, (m,).
        slopes: values for a score, above 0, from each of these on, (m,).
    """

    front: Staircase
    scores: FloatArray
    slopes: FloatArray
    needs_loads: bool = True

    @classmethod
    def of(
        cls, front: Staircase, score_of: Callable[[float], float], value_of: Callable[[float], float]
    ) -> FrontImprovement:
        """That of a front in values, by the maps between these and scores."""
        scores = np.array([score_of(value) for value in front.values.tolist()])
        least = score_of(front.least_value)
        breaks = np.linspace(least, max(least + 1e-3, scores.max(initial=least)), BREAKS)
        slopes = np.diff([value_of(score) for score in breaks.tolist()]) / np.diff(breaks)
        floor = max(_FLATTEST * float(slopes.mean()), 1e-12)  # where values are tied a score is still worth something
        slopes = np.maximum(np.append(slopes, slopes[-1]), floor)
        return cls(Staircase.of(scores, front.loads, front.most_load, least), breaks, slopes)

    def log_expected(self, means: FloatArray, deviations: FloatArray, loads: FloatArray) -> FloatArray:
        """Logarithm of the expected growth by candidates of known loads and normal scores, all (n,)."""
        front = self.front
        levels = np.unique(np.concatenate(([front.least_value], front.values, self.scores)))
        levels = levels[levels >= front.least_value]
        reaches = np.append(front.loads, front.most_load)[np.searchsorted(front.values, levels, side="right")]
        slopes = self.slopes[np.maximum(np.searchsorted(self.scores, levels, side="right") - 1, 0)]
        beyond = log_expected_gain(means[:, None], deviations[:, None], levels[None, :])
        above = np.column_stack((beyond[:, 1:], np.full(len(beyond), -np.inf)))
        with np.errstate(divide="ignore"):
            within = beyond + np.log1p(-np.exp(np.minimum(above - beyond, 0.0)))
            widths = np.log(np.maximum(reaches[None, :] - loads[:, None], 0.0))
        return np.asarray(np.logaddexp.reduce(np.log(slopes) + widths + within, axis=1))

    def believing(self, score: float, load: float) -> FrontImprovement:
        """What it would be, had a network come out so."""
        return replace(self, front=self.front.with_network(score, load))


def front_positions(values: FloatArray, loads: FloatArray) -> IntArray:
    """Positions of those that no other beats in both, ascending in both; of equals the first. (n,) in, (k,) out."""
    order = np.lexsort((-values, loads))
    reached = np.maximum.accumulate(np.concatenate(([-np.inf], values[order])))
    return np.asarray(order[values[order] > reached[:-1]], dtype=np.int64)


def survivors(values: FloatArray, loads: FloatArray, most: int, most_load: float) -> IntArray:
    """Positions of the networks from which a front is searched on, (n,) in: the whole front, and others up to ``most``.

    Non-dominated sorting (Deb et al., NSGA-II, 2002); within a front the greatest contribution to its hypervolume comes
    first (Beume, Naujoks & Emmerich, SMS-EMOA, 2007).
    """
    left = np.arange(len(values))
    found: list[IntArray] = []
    while len(left) and (not found or sum(map(len, found)) < most):
        front = left[front_positions(values[left], loads[left])]
        stairs = Staircase(
            loads[front], values[front], max(most_load, float(loads[front[-1]])), float(values[left].min())
        )
        found.append(front[np.argsort(-stairs.contributions, kind="stable")])
        left = np.setdiff1d(left, front)
    order = np.concatenate(found) if found else left
    return order[: max(most, len(found[0]) if found else 0)]

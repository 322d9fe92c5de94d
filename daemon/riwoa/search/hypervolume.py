"""The area that a front dominates, value to make larger against load to make smaller, and what is expected to join it.

Loads are known before an evaluation, so the improvement of a candidate is an integral over one unknown: with a front
as a staircase ``f(x)``, the best value at loads up to x, a candidate of load l and value y adds

    integral from l to the reference load of max(0, y - f(x)) dx  =  sum over steps of width(l) * max(0, y - level),

whose expectation for a normal y is a sum of expected improvements, weighted by the widths of the steps beyond l. It is
exact (of Emmerich, Deutz & Klinkenberg's expected hypervolume improvement, CEC 2011, the case of one known objective).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.improvement import FloatArray, log_expected_gain

IntArray = npt.NDArray[np.int64]


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
    needs_loads: bool = True

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

    def log_expected(self, means: FloatArray, deviations: FloatArray, loads: FloatArray) -> FloatArray:
        """Logarithm of the expected growth of the area by candidates of known loads and normal values, all (n,)."""
        edges = np.concatenate(([-np.inf], self.loads, [self.most_load]))
        levels = np.concatenate(([self.least_value], self.values))
        widths = np.maximum(edges[None, 1:] - np.maximum(edges[None, :-1], loads[:, None]), 0.0)
        gains = log_expected_gain(means[:, None], deviations[:, None], levels[None, :])
        with np.errstate(divide="ignore"):
            return np.asarray(np.logaddexp.reduce(np.log(widths) + gains, axis=1))

    def believing(self, score: float, load: float) -> Staircase:
        """The front with one more network."""
        values, loads = np.append(self.values, score), np.append(self.loads, load)
        return Staircase.of(values, loads, self.most_load, self.least_value)


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

"""The area that a front dominates, value to make larger against load to make smaller, and what a candidate adds.

Loads are known before an evaluation, so what a candidate adds has one unknown. With the front as a staircase f, the
best value at loads up to x, a candidate of load l and value y adds

    integral from l to the reference load of max(0, y - f(x)) dx  =  sum over steps of width(l) * max(0, y - level),

whose expectation is a sum of expected improvements, weighted by the widths of the steps beyond l. It is exact (the
expected hypervolume improvement of Emmerich, Deutz & Klinkenberg, CEC 2011, in the case of one known objective).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
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

    @classmethod
    def of(cls, values: FloatArray, loads: FloatArray, most_load: float, least_value: float) -> Staircase:
        """The front of some networks, (n,) each."""
        inside = (loads < most_load) & (values > least_value)
        values, loads = values[inside], loads[inside]
        steps = front_positions(values, loads)
        return cls(loads[steps], values[steps], most_load, least_value)

    def with_network(self, value: float, load: float) -> Staircase:
        """The front with one more network."""
        values, loads = np.append(self.values, value), np.append(self.loads, load)
        return Staircase.of(values, loads, self.most_load, self.least_value)

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

    @property
    def levels(self) -> FloatArray:
        """What is to be exceeded, step by step: the reference's value, then the front's, (k + 1,)."""
        return np.append(self.least_value, self.values)

    def widths(self, loads: FloatArray) -> FloatArray:
        """How much of each step lies beyond some loads, (n,) in, (n, k + 1) out."""
        edges = np.concatenate(([-np.inf], self.loads, [self.most_load]))
        return np.asarray(np.maximum(edges[None, 1:] - np.maximum(edges[None, :-1], loads[:, None]), 0.0))


def front_positions(values: FloatArray, loads: FloatArray) -> IntArray:
    """Positions of those that no other beats in both, ascending in both; of equals the first. (n,) in, (k,) out."""
    order = np.lexsort((-values, loads))
    reached = np.maximum.accumulate(np.append(-np.inf, values[order]))
    return np.asarray(order[values[order] > reached[:-1]], dtype=np.int64)


def survival_order(values: FloatArray, loads: FloatArray, most_load: float) -> IntArray:
    """Positions in the order in which networks survive where a front is wanted, (n,) in and out.

    Non-dominated sorting (Deb et al., NSGA-II, 2002); within a front the greatest contribution to its hypervolume comes
    first (Beume, Naujoks & Emmerich, SMS-EMOA, 2007).
    """
    left, fronts = np.arange(len(values)), [np.empty(0, dtype=np.int64)]
    while len(left):
        front = left[front_positions(values[left], loads[left])]
        reference = max(most_load, float(loads[front[-1]])), float(values[left].min())
        contributions = Staircase(loads[front], values[front], *reference).contributions
        fronts.append(front[np.argsort(-contributions, kind="stable")])
        left = np.setdiff1d(left, front)
    return np.concatenate(fronts)

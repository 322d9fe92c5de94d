"""What steps gain, by what they do, cost and are expected to bring: a linear head, taught at each commit (loop A).

It tells what it has learned; it orders nothing, for the surrogate's mean alone does that better. Measured off the books
of searches of OFA's predictor within 25 ms (12 seeds, 250 queries): rank correlation with the real gains of all single
changes of one of the ten best, after 8 to 60, 60 to 150 and more steps: by this head 0.58, 0.69 and 0.80, by the
surrogate's mean 0.60, 0.76 and 0.85, by milliseconds alone 0.68, 0.74 and 0.74, by the sum of both ranks 0.70, 0.81 and
0.86. Of the children of the next generations 0.46, 0.63 and 0.57 by the head, 0.61, 0.64 and 0.54 by the mean. A head
of scores, tried on ten other seeds, had seemed better than the mean (0.83 and 0.78 in the middle) and was not on these
(0.73 and 0.76): it learns from what a search chose, where milliseconds tell less than where nobody has chosen yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from riwoa.learning.features import Part, StepFeatures
from riwoa.learning.head import LinearHead
from riwoa.learning.trajectories import Trajectory, both_ends
from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray, Space

FEWEST = 8  # steps before anything is expected: they tell the unit of gains
_MOST = 3.0  # units of a gain that counts: a failure of a network says no more than a bad one
_STEPS, _LOAD, _EXPECTED = 0.3, 30.0, 3.0  # how freely each kind of column is followed


class StepOrder:
    """Learns from steps, one at a time, what steps gain.

    Args:
        space: of the networks.
        limit: of the load; None for none.
    """

    def __init__(self, space: Space, limit: float | None) -> None:
        self._space = space
        self._limit = limit
        self._features = StepFeatures(space)
        self._head = LinearHead(len(self._features.parts) + 2)
        self._first: list[tuple[Trajectory, float]] = []
        self._unit = 0.0  # of gains, once it is known

    @property
    def count(self) -> int:
        """Steps learned from."""
        return self._head.count

    def learn(self, trajectory: Trajectory, gain: float) -> None:
        """Take in a step and what it gained in fitness."""
        if self._unit > 0.0:
            self._learn(trajectory, gain)
            return
        self._first.append((trajectory, gain))
        spread = float(np.std([value for t, _ in self._first for value in (t.before.value, t.after.value)]))
        if len(self._first) >= FEWEST and spread > 0.0:
            self._unit = spread
            for earlier in self._first:
                self._learn(*earlier)
            self._first = []

    def _learn(self, t: Trajectory, gain: float) -> None:
        before, after = both_ends([t], self._space)
        columns = self._columns(before, after, np.array([t.expected_gain]), np.array([t.after.load - t.before.load]))
        self._head.learn(columns[0], float(np.clip(gain / self._unit, -_MOST, _MOST)))

    def expect(
        self, before: IntArray, after: IntArray, expected_gains: FloatArray, added_loads: FloatArray
    ) -> FloatArray | None:
        """What steps are expected to gain, (n,), the more the better; None while too little is known.

        Args:
            before: canonical indices, (n, genes).
            after: likewise.
            expected_gains: of the value, by the surrogate, (n,); NaN where it expects nothing.
            added_loads: (n,); NaN where they are not known.
        """
        if not self._head.count:
            return None
        return self._unit * self._head.expect(self._columns(before, after, expected_gains, added_loads))

    def _columns(
        self, before: IntArray, after: IntArray, expected_gains: FloatArray, added_loads: FloatArray
    ) -> FloatArray:
        load = np.zeros(len(before)) if self._limit is None else np.nan_to_num(added_loads) / self._limit
        expected = np.nan_to_num(expected_gains) / self._unit
        steps = self._features.steps(before, after)
        return np.column_stack((_STEPS * steps, _LOAD * load, _EXPECTED * expected))

    def strongest(self) -> Sequence[tuple[Part, float]]:
        """Each part of the space with what more of it is expected to gain beside all else, the greatest first.

        Nothing while too little is known.
        """
        if not self._head.count:
            return []
        each = zip(self._features.parts, (self._unit * _STEPS * self._head.weights).tolist(), strict=False)
        return sorted(each, key=lambda pair: -abs(pair[1]))

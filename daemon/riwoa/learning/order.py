"""Which changes are worth a look: a linear head over what they do, cost and are expected to bring (loop A).

Measured off the books of searches of OFA's predictor within 25 ms and of NAS-Bench-201's CIFAR-100 (ten seeds each):
rank correlation with the real gains of all single changes of one of the ten best, after 60 to 150 steps: 0.83 by the
head, 0.78 by the surrogate's mean, 0.77 by milliseconds alone; later 0.88, 0.86 and 0.77; on the table, without a limit
of latency, 0.89 by head and surrogate alike. Of the children of the next generations, in which each is chosen by the
surrogate: 0.64 and 0.59, later 0.57 and 0.51; on the table 0.77 and 0.79. So it orders what somebody is to choose from
who does not see the surrogate; as the mean from which the surrogate departs, milliseconds brought a search nothing
(0.00 ± 0.05 points within 20 ms and 25 ms, -0.11 within 35, 12 seeds).
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
        """Each part of the space with what more of it is expected to gain beside all else, the greatest first."""
        each = zip(self._features.parts, (self._unit * _STEPS * self._head.weights).tolist(), strict=False)
        return sorted(each, key=lambda pair: -abs(pair[1]))

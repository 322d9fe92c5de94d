"""A linear model of what a step gains, learned one evaluation at a time (loop A).

Recursive least squares (Plackett, 1950): the inverse of the moment matrix takes a rank-one update a step, so that its
weights are those of a ridge regression on all steps so far.
"""

from __future__ import annotations

import numpy as np

from riwoa.search.fitness import FloatArray

RIDGE = 1.0


class LinearHead:
    """Expected gains of steps by their features.

    Args:
        columns: number of features.
        ridge: penalty of the squared weights.
    """

    def __init__(self, columns: int, ridge: float = RIDGE) -> None:
        self.count = 0
        self.weights: FloatArray = np.zeros(columns)
        self._inverse: FloatArray = np.eye(columns) / ridge

    def learn(self, features: FloatArray, gain: float) -> None:
        """Take in a step, (columns,)."""
        # einsum and no BLAS: the last bits must not depend on the number of cores.
        along = np.einsum("ij,j->i", self._inverse, features)
        rate = along / (1.0 + float(np.einsum("i,i->", along, features)))
        self.weights = self.weights + rate * (gain - float(np.einsum("i,i->", self.weights, features)))
        self._inverse = self._inverse - rate[:, None] * along[None, :]
        self.count += 1

    def expect(self, features: FloatArray) -> FloatArray:
        """Gains of steps (n, columns), (n,)."""
        return np.asarray(np.einsum("nk,k->n", features, self.weights))

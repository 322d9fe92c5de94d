"""What a run learns of its space while it goes on: a predictor that screens many children for each one evaluated.

The Gaussian process of ``riwoa.oracle.surrogate``, learned anew before each generation from what is committed, so every
confirmation is fed back and a resumed run screens alike. A strategy draws several children for a slot and asks the one
whose accuracy may well become the greatest: mean and ``OPTIMISM`` standard deviations (Srinivas et al., ICML 2010).
"""

from __future__ import annotations

from collections import deque

import numpy as np

from riwoa.oracle.surrogate import FEWEST, INTERVAL_SHARE, Examples, Surrogate, covers, learn
from riwoa.search.base import Screen
from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray, Space

OPTIMISM = 2.0  # 1 finds as much on OFA's predictor and is fooled now and then on NAS-Bench-201
NEWEST = 400  # evaluations to learn from: a third of a second
_JUDGED = 200  # of the newest predictions

Prediction = tuple[float, float]  # mean and standard deviation of an accuracy


class Screening:
    """A predictor that grows with its run.

    Args:
        space: of the run.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._indices: deque[IntArray] = deque(maxlen=NEWEST)
        self._accuracies: deque[float] = deque(maxlen=NEWEST)
        self._covered: deque[bool] = deque(maxlen=_JUDGED)
        self._surrogate: Surrogate | None = None

    def tell(self, indices: IntArray, accuracy: float, predicted: Prediction | None) -> None:
        """Take in a committed evaluation, once an architecture, and what had been predicted of it."""
        self._indices.append(indices)
        self._accuracies.append(accuracy)
        if predicted is not None:
            self._covered.append(covers(*predicted, accuracy))

    def learn(self) -> None:
        """Learn anew; a fraction of a second, so nobody's event loop should wait for it."""
        accuracies = np.array(self._accuracies, dtype=np.float64)
        enough = len(accuracies) >= FEWEST and float(np.ptp(accuracies)) > 1e-9
        examples = Examples(self._space, np.array(self._indices, dtype=np.int64), accuracies) if enough else None
        self._surrogate = learn(examples) if examples is not None else None

    @property
    def screen(self) -> Screen | None:
        """What a strategy chooses by; None while too little is known."""
        return self._upper if self._surrogate is not None else None

    def predict(self, indices: IntArray) -> list[Prediction] | None:
        """Of canonical indices (n, genes); None while too little is known."""
        if self._surrogate is None:
            return None
        means, deviations = self._surrogate.predict_indices(indices)
        return list(zip(means.tolist(), deviations.tolist(), strict=True))

    def _upper(self, indices: IntArray) -> FloatArray:
        assert self._surrogate is not None
        means, deviations = self._surrogate.predict_indices(indices)
        return means + OPTIMISM * deviations

    def view(self) -> dict[str, float | int | None]:
        """How it does: evaluations that it knows, and the share of its newest intervals that held."""
        share = sum(self._covered) / len(self._covered) if self._covered else None
        return {"examples": len(self._accuracies), "interval": INTERVAL_SHARE, "covered": share}

"""What a run learns of its space while it goes on: a predictor that screens many children for each one evaluated.

The Gaussian process of ``riwoa.surrogate.gaussian_process``, learned anew before each generation from what is
committed, so every confirmation is fed back and a resumed run screens alike. A strategy draws several children for a
slot and asks the one whose accuracy may well become the greatest: mean and ``OPTIMISM`` standard deviations (Srinivas
et al., ICML 2010).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from threadpoolctl import ThreadpoolController

from riwoa.errors import InputError
from riwoa.search.base import Posterior, Screen, Strategy
from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray, Space
from riwoa.surrogate.gaussian_process import FEWEST, INTERVAL_SHARE, Examples, Surrogate, covers, learn
from riwoa.surrogate.mixture import MixtureLearner, MixtureProcess
from riwoa.surrogate.related import RelatedOracles

OPTIMISM = 2.0  # 1 finds as much on OFA's predictor and is fooled now and then on NAS-Bench-201
NEWEST = 400  # evaluations that accuracies are learned from: a third of a second
NEWEST_SCORES = 20_000  # that scores are learned from, the best and the latest of them closely
FEWEST_SCORES = 4  # a prior says enough of the kernel
_JUDGED = 200  # of the newest predictions
_HALF = 0.5  # between a success, 0, and a failure, 1

_blas = functools.cache(ThreadpoolController)


def one_thread() -> AbstractContextManager[object]:
    """The last bits of sums depend on how many threads share them, and a resumed run may have other cores."""
    limit: AbstractContextManager[object] = _blas().limit(limits=1, user_api="blas")
    return limit


Prediction = tuple[float, float]  # mean and standard deviation of an accuracy


def prior_examples(predictor: str | None, space: Space) -> Examples | None:
    """What a file of ``riwoactl predictor train`` was learned from.

    Raises:
        InputError: it is missing, damaged, or of another space.
    """
    if predictor is None:
        return None
    examples = Surrogate.load(Path(predictor)).examples
    if examples.space.sha256 != space.sha256:
        raise InputError(
            f"the predictor {predictor} knows the space {examples.space.name!r}, this run's is {space.name!r} "
            "or has other choices; train one on a journal of this space"
        )
    return examples


class _OneThread:
    """A posterior that computes on one thread."""

    def __init__(self, process: MixtureProcess, failures: MixtureProcess | None) -> None:
        self._process = process
        self._failures = failures

    @property
    def count(self) -> int:
        """See ``Posterior.count``."""
        return self._process.count

    def predict(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """See ``Posterior.predict``."""
        with one_thread():
            return self._process.predict(indices)

    def believe(self, indices: IntArray) -> Posterior:
        """See ``Posterior.believe``."""
        with one_thread():
            return _OneThread(self._process.believe(indices), self._failures)

    def score(self, value: float) -> float:
        """See ``Posterior.score``."""
        return self._process.score(value)

    def log_success(self, indices: IntArray) -> FloatArray:
        """See ``Posterior.log_success``."""
        if self._failures is None:
            return np.zeros(len(indices))
        with one_thread():
            return self._failures.log_chance_below(_HALF, indices)


class Screening:
    """A predictor that grows with its run.

    Args:
        space: of the run.
        prior: what was known before it began, of the same oracle; the run's own evaluations go first.
        related: what other oracles of the space say, by one each; only scores of ranks make use of it.
        of_scores: learn scores of ranks (``riwoa.surrogate.mixture``), for a strategy that chooses by those.
        of_failures: learn where evaluations fail, too, for such a strategy: by least squares on 0 and 1 (Rasmussen &
            Williams, section 6.5), with a kernel of its own.

    Attributes:
        newest: evaluations that are learned from, at most.
        of_failures: see above.
    """

    def __init__(
        self,
        space: Space,
        prior: Examples | None = None,
        *,
        related: Sequence[Examples] = (),
        of_scores: bool = False,
        of_failures: bool = False,
    ) -> None:
        self._space = space
        self._scores = MixtureLearner(space, RelatedOracles(space, related).trend) if of_scores else None
        self.of_failures = of_failures
        self._failures = MixtureLearner(space) if of_failures else None
        self._failing: MixtureProcess | None = None  # None while nothing has failed
        self._prior = prior if prior is not None else Examples(space, np.empty((0, len(space)), np.int64), np.empty(0))
        self.newest = NEWEST_SCORES if of_scores else NEWEST
        self._indices: deque[IntArray] = deque(maxlen=self.newest)
        self._accuracies: deque[float] = deque(maxlen=self.newest)
        self._covered: deque[bool] = deque(maxlen=_JUDGED)
        self._surrogate: Surrogate | MixtureProcess | None = None
        self._from_prior = 0

    def tell(self, indices: IntArray, accuracy: float, predicted: Prediction | None) -> None:
        """Take in a committed evaluation, and what had been predicted of it; NaN for one that failed.

        One that was given up is told with what was expected of it; what is told of an architecture last, counts.
        """
        if math.isnan(accuracy) and self._failures is None:
            return
        self._indices.append(indices)
        self._accuracies.append(accuracy)
        if predicted is not None:
            self._covered.append(covers(*predicted, accuracy))

    def forget(self) -> None:
        """Forget what was told; what was known before the run began stays."""
        for told in (self._indices, self._accuracies, self._covered):
            told.clear()

    def learn(self) -> None:
        """Learn anew; a fraction of a second, so nobody's event loop should wait for it."""
        told = np.array(self._indices, dtype=np.int64).reshape(-1, len(self._space))
        values = np.array(self._accuracies)
        if self._failures is not None:
            last = sorted({row.tobytes(): n for n, row in enumerate(told)}.values())
            told, values = told[last], values[last]
        failed = np.isnan(values)
        indices = told[~failed]
        own = {row.tobytes() for row in indices}
        other = [i for i, row in enumerate(self._prior.indices) if row.tobytes() not in own]
        latest = other[max(0, len(other) - (self.newest - len(indices))) :]  # a search ends where it is worth knowing
        before = self._prior.rows(np.array(latest, dtype=np.int64))
        self._from_prior = len(before)
        accuracies = np.concatenate((before.accuracies, values[~failed]))
        examples = Examples(self._space, np.concatenate((before.indices, indices)), accuracies)
        enough = len(examples) >= (FEWEST if self._scores is None else FEWEST_SCORES)
        with one_thread():
            if not enough or not float(np.ptp(accuracies)) > 1e-9:
                self._surrogate = None
            elif self._scores is not None:
                self._surrogate = self._scores.learn(examples.indices, accuracies)
            else:
                self._surrogate = learn(examples)
            both = failed.any() and not failed.all()
            learner = self._failures if both else None
            self._failing = learner.learn(told, failed.astype(np.float64)) if learner is not None else None

    def guide(self, strategy: Strategy) -> None:
        """Learn anew, and have a strategy choose by it from now on."""
        self.learn()
        strategy.set_screen(self.screen)
        process = self._surrogate
        strategy.set_posterior(_OneThread(process, self._failing) if isinstance(process, MixtureProcess) else None)

    @property
    def screen(self) -> Screen | None:
        """What a strategy chooses by; None while too little is known."""
        return self._upper if self._surrogate is not None else None

    def predict(self, indices: IntArray) -> list[Prediction] | None:
        """Of canonical indices (n, genes); None while too little is known."""
        if self._surrogate is None:
            return None
        with one_thread():
            means, deviations = self._surrogate.predict_indices(indices)
        return list(zip(means.tolist(), deviations.tolist(), strict=True))

    def nearest(self, indices: IntArray, most: int) -> list[tuple[IntArray, float]]:
        """Other evaluated architectures than canonical indices (genes,), with their accuracies, each once.

        Those that differ in the fewest genes first, and of these the newest.
        """
        known = [*self._prior.indices, *self._indices]
        values = [*self._prior.accuracies.tolist(), *self._accuracies]
        if not known:
            return []
        distances = (np.stack(known) != indices).sum(axis=1)
        order = np.lexsort((-np.arange(len(known)), distances))
        found: dict[bytes, tuple[IntArray, float]] = {}
        for row in itertools.dropwhile(lambda i: distances[i] == 0, order.tolist()):
            if len(found) == most:
                break
            found.setdefault(known[row].tobytes(), (known[row], values[row]))
        return list(found.values())

    def _upper(self, indices: IntArray) -> FloatArray:
        assert self._surrogate is not None
        with one_thread():
            means, deviations = self._surrogate.predict_indices(indices)
        return means + OPTIMISM * deviations

    def view(self) -> dict[str, float | int | None]:
        """How it does: evaluations that it knows, and the share of its newest intervals that held."""
        share = sum(self._covered) / len(self._covered) if self._covered else None
        known = {"examples": len(self._accuracies) - sum(map(math.isnan, self._accuracies)), "prior": self._from_prior}
        trend = self._scores.trend if self._scores is not None else None
        followed = {"related": trend.correlation} if trend is not None else {}
        return {**known, "interval": INTERVAL_SHARE, "covered": share, **followed}

"""What a surrogate expects within a limit: the best network, how sure that is, and what it would take to be sure.

The process that a search chooses by (``riwoa.surrogate.mixture``) learns values of what was evaluated, and the search's
own rounds of children (``riwoa.search.joint``) climb by it, twice: by what is expected, which gives the best predicted
network, and by the upper bound, which looks for those that may be better than the best evaluated one. Everything
follows from the evaluations and a fixed seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from riwoa.search.base import Posterior
from riwoa.search.bayesian import CROSSINGS, ELITES, MUTANTS, UNIFORM
from riwoa.search.fitness import BoolArray, FloatArray
from riwoa.search.joint import JointChoice
from riwoa.search.pool import Excess, Pool, Variation
from riwoa.search.rng import generator
from riwoa.search.seen import Hashes, SeenPhenotypes
from riwoa.search.space import INACTIVE, IntArray, Space
from riwoa.surrogate.mixture import EXACT, MixtureProcess, learn_values, spread_rows
from riwoa.surrogate.screening import one_thread

LEVEL = 0.95  # of intervals
_Z = 1.959963984540054
FEWEST = 20  # evaluations to predict from
MOST_RIVALS, MOST_EVALUATIONS = 1000, 200  # that are counted
_SEED = 0


@dataclass(frozen=True, slots=True)
class Effort:
    """What it would take to be sure that nothing better is within a limit.

    Attributes:
        met: unevaluated networks within it that the climbs met.
        rivals: those of them whose upper bound is above the best evaluated value, at most ``MOST_RIVALS``.
        evaluations: of rivals, that with the highest upper bound first, until none is left, should each come out as
            expected; at most ``MOST_EVALUATIONS``. A least: five searches that were really carried on so, by OFA's
            predictor, four within other limits than before, took 41 to 114, 1.4 to 3.2 times as many as that.
    """

    met: int
    rivals: int
    evaluations: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """The network of which most is expected within a limit.

    Attributes:
        indices: canonical, (genes,).
        mean: the value that is expected of an evaluation.
        low: the lower end of that value's interval at ``LEVEL``.
        high: the upper end.
        effort: to be sure; None where nothing was evaluated within the limit.
    """

    indices: IntArray
    mean: float
    low: float
    high: float
    effort: Effort | None


class _Climb:
    """An acquisition that remembers whom it was asked about (``riwoa.search.joint.Acquisition``).

    Args:
        promise_of: what of means and standard deviations is to be large.
    """

    def __init__(self, promise_of: Callable[[FloatArray, FloatArray], FloatArray]) -> None:
        self._promise_of = promise_of
        self.met: list[IntArray] = []

    def promise(self, posterior: Posterior, indices: IntArray) -> FloatArray:
        """See ``Acquisition``."""
        self.met.append(indices)
        return self._promise_of(*posterior.predict(indices))

    def believing(self, posterior: Posterior, indices: IntArray) -> _Climb:
        """The same."""
        return self


def predict(
    space: Space, indices: IntArray, values: FloatArray, within: BoolArray, reach: FloatArray, excess: Excess
) -> Prediction | None:
    """What is expected within a limit; None where too little is known, or nothing within it was found.

    Args:
        space: of the architectures.
        indices: of those that were evaluated, canonical, oldest first, (n, genes).
        values: what they came to, the more the better, (n,).
        within: which of them keep the limit, (n,).
        reach: how much of the limit each uses, (n,).
        excess: by how much others exceed it.
    """
    if len(values) < FEWEST or not float(np.ptp(values)) > 1e-9:
        return None
    with one_thread():
        rows = _learned_from(values, within)
        process = learn_values(space, indices[rows], values[rows])
        return _Prediction(space, process, excess).best(indices, values, within, reach)


def _learned_from(values: FloatArray, within: BoolArray) -> IntArray:
    """Rows to learn from, in order: of many half the best within the limit, and others from all of the search."""
    if len(values) <= EXACT:
        return np.arange(len(values))
    inside = np.flatnonzero(within)
    best = inside[np.argsort(-values[inside], kind="stable")][: EXACT // 2]
    others = np.setdiff1d(np.arange(len(values)), best)
    return np.sort(np.concatenate((best, others[spread_rows(len(others), EXACT - len(best))])))


class _Prediction:
    """Climbs in one space by one process."""

    def __init__(self, space: Space, process: MixtureProcess, excess: Excess) -> None:
        self._space = space
        self._process = process
        self._excess = excess
        self._seen = SeenPhenotypes(space)
        self._variation = Variation(space)
        self._joint = JointChoice(space, self._seen, excess)
        self._z = _Z * max(1.0, float(np.sqrt(np.mean(process.left_out_z() ** 2))))  # wider where left-out errors are

    def best(self, indices: IntArray, values: FloatArray, within: BoolArray, reach: FloatArray) -> Prediction | None:
        """See ``predict``."""
        pool = self._pool(indices, values, within, reach)
        nobody = np.empty(0, dtype=np.uint64)
        expected = _Climb(lambda means, deviations: means)
        found = self._joint.choose(pool, 1, nobody, self._process, expected, self._draws("expected")).pool
        if not len(found):
            return None
        chosen = self._space.canonical(found.raw)
        low, mean, high = self._process.quantiles(chosen, (-self._z, 0.0, self._z))[:, 0].tolist()
        effort = None
        if within.any():
            hopeful = _Climb(lambda means, deviations: means + self._z * deviations)
            evaluated = self._seen.hash(indices)
            self._joint.choose(pool, 1, evaluated, self._process, hopeful, self._draws("hopeful"))
            met = np.concatenate((chosen, *expected.met, *hopeful.met))
            effort = self._effort(met, evaluated, float(values[within].max()))
        return Prediction(chosen[0], mean, low, high, effort)

    def _draws(self, purpose: str) -> Iterator[np.random.Generator]:
        return (generator(_SEED, 0, f"prediction.{purpose}", n) for n in itertools.count())

    def _pool(self, indices: IntArray, values: FloatArray, within: BoolArray, reach: FloatArray) -> Pool:
        """Where the climbs begin, as a search's pool: uniform ones, mutants and crossings of the best within."""
        draw = generator(_SEED, 0, "prediction.pool")
        order = np.flatnonzero(within)
        order = order[np.argsort(-values[order], kind="stable")][:ELITES]
        uniform = self._variation.uniform(draw, UNIFORM)
        if not len(order):  # the one that comes nearest is stepped to within the limit
            order = np.array([int(np.argmin(reach))])
        # A gene that an elite does not have may be anything in its children.
        elites = np.where(indices[order] == INACTIVE, self._variation.uniform(draw, len(order)), indices[order])
        if not within.any():
            elites = self._variation.stepped_within(elites[0], self._excess)[None, :]
        parents = draw.integers(len(elites), size=MUTANTS)
        mutants = self._variation.mutated(draw, elites[parents], draw.choice([1.0, 2.0, 4.0], size=MUTANTS))
        first, second = draw.integers(len(elites), size=(2, CROSSINGS))
        crossed = self._variation.mutated(
            draw, self._variation.crossed(draw, elites[first], elites[second]), np.ones(CROSSINGS)
        )
        return Pool.of(np.concatenate((elites, uniform, mutants, crossed)), "climb")

    def _effort(self, met: IntArray, evaluated: Hashes, top: float) -> Effort:
        """Counts rivals, and plays their evaluation; ``top`` is the best evaluated value."""
        hashes, first = np.unique(self._seen.hash(met), return_index=True)
        new = met[np.sort(first[~np.isin(hashes, evaluated)])]
        new = new[self._excess(new) == 0.0]
        (upper,) = self._process.quantiles(new, (self._z,))
        rivals = np.flatnonzero(upper > top)
        rivals = rivals[np.argsort(-upper[rivals], kind="stable")][:MOST_RIVALS]
        return Effort(len(new), len(rivals), self._evaluations(new[rivals], self._process.score(top)))

    def _evaluations(self, rivals: IntArray, top: float) -> int:
        """How many are evaluated until no upper bound is above the best score, if each comes out as expected."""
        means, covariance = self._process.outcomes(rivals)
        for done in range(min(len(rivals), MOST_EVALUATIONS)):
            upper = means + self._z * np.sqrt(np.maximum(np.diag(covariance), 0.0))
            one = int(np.argmax(upper))
            if upper[one] <= top:
                return done
            column = covariance[:, one] / np.sqrt(covariance[one, one])
            covariance = covariance - np.outer(column, column)  # what is known narrows what is like it
            top, means[one] = max(top, float(means[one])), -np.inf
        return min(len(rivals), MOST_EVALUATIONS)

"""A Gaussian process of normal scores of ranks, whose kernel learns which genes and which choices matter.

Kernels are added, of what two architectures share or what differs between them:

- *genes*: a product over genes of ``exp(-scale * w_gene * (w_a + w_b) / 2)`` where the choices a and b differ. Genes of
  the same choices share the weights of their choices: that a convolution is unlike a skip is learned once.
- *counts*: a squared exponential of how often each choice occurs in genes of the same choices, by the same weights.
- *order*: a squared exponential of the positions of ordered choices, for spaces that have some.
- *sum*: for those spaces too, a sum over genes of what each choice is worth by itself, by the weights of the genes.

Weights and scales are those of the greatest posterior density (Rasmussen & Williams, eq. 5.9, with normal priors on
their logarithms), found by L-BFGS from the priors' means. Scores of ranks forget by how much a bad network is bad,
which is what a search for the best need not know: on NAS-Bench-201 the best cell was met after 46 queries by scores
and after 70 by values (CIFAR-100, 20 seeds, ten uniform queries first, weights not yet learned). That weights are
learned, that counts are in and the sum is out for nominal genes was chosen on that benchmark's two tables; that it is
in for ordered ones on OFA's predictor within 25 ms.

An ordered gene of more than ``FEW_CHOICES`` choices is as good as a number: only its position counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from riwoa.search.fitness import FloatArray
from riwoa.search.space import Choice, IntArray, Space

FEW_CHOICES = 64
EXACT = 400  # examples to condition on; a fit is cubic in them
FITTED = 200  # examples to learn weights from, the best half and the latest half
_PRIOR_SD, _WEIGHT_SD = 1.5, 0.7  # of the logarithms of scales and of weights
_NOISE = 0.05  # variance of a score, before anything is learned
_JITTER = 1e-8
_MOST_STEPS = 30  # of L-BFGS


@dataclass(frozen=True, slots=True)
class _Part:
    """One kernel of the sum.

    Attributes:
        amplitude: number of the parameter that is the logarithm of its variance.
        columns: features of canonical indices (n, genes), (n, columns).
        scales: whether a parameter scales a column, 0 or 1, (columns, parameters).
        linear: whether it is the product of features and not a function of their distance.
    """

    amplitude: int
    columns: Callable[[IntArray], FloatArray]
    scales: FloatArray
    linear: bool = False

    def scaled(self, features: FloatArray, parameters: FloatArray) -> FloatArray:
        """Features (n, columns) such that their squared distances, or their products, are the kernel's."""
        return np.asarray(features * np.exp(0.5 * (self.scales @ parameters)))

    def covariance(self, a: FloatArray, b: FloatArray, parameters: FloatArray) -> FloatArray:
        """Between scaled features (n, columns) and (m, columns), (n, m)."""
        out = a @ b.T
        if self.linear:
            out *= np.exp(parameters[self.amplitude])
            return np.asarray(out)
        # The amplitude less the squared distance, in place: this is where a search spends its time.
        out *= 2.0
        out -= np.square(a).sum(axis=1)[:, None]
        out -= np.square(b).sum(axis=1)[None, :]
        np.minimum(out, 0.0, out=out)
        out += parameters[self.amplitude]
        return np.asarray(np.exp(out, out=out))

    def variance(self, a: FloatArray, parameters: FloatArray) -> FloatArray:
        """Of each architecture by its scaled features, (n,)."""
        signal = np.exp(parameters[self.amplitude])
        return np.asarray(signal * np.square(a).sum(axis=1) if self.linear else np.full(len(a), signal))

    def along(self, shared: FloatArray, a: FloatArray) -> FloatArray:
        """How a sum over pairs grows with the logarithm of each column's scale, (columns,).

        Args:
            shared: of each pair, the sum's slope times the kernel, (n, n); for a linear one its slope times the signal.
            a: scaled features.
        """
        inner = np.einsum("ik,ik->k", a, shared @ a)
        # Half the sum over pairs of the squared distance along each column, or of the product.
        return np.asarray(-0.5 * inner if self.linear else shared.sum(axis=1) @ a**2 - inner)


class MixtureKernel:
    """The kernel of a space as a function of its parameters, which are logarithms.

    Args:
        space: of the architectures.
    """

    def __init__(self, space: Space) -> None:
        self._means: list[float] = []
        self._sds: list[float] = []
        genes = len(space)
        gene_weights = [self._parameter(0.0, _WEIGHT_SD) for _ in range(genes)]
        alike: dict[tuple[Choice, ...], list[int]] = {}  # nominal genes of the same choices
        for i, gene in enumerate(space.genes):
            if gene.kind == "nominal":
                alike.setdefault(gene.choices, []).append(i)
        choice_weights = {choices: [self._parameter(0.0, _WEIGHT_SD) for _ in choices] for choices in alike}
        ordered = [i for i, gene in enumerate(space.genes) if gene.kind == "ordered"]
        amplitude = -float(np.log(1 + bool(alike) + bool(ordered)))

        few = [i for i, gene in enumerate(space.genes) if gene.kind == "nominal" or len(gene.choices) <= FEW_CHOICES]
        drafts: list[tuple[int, Callable[[IntArray], FloatArray], list[list[int]], bool]] = []
        if few:
            scale = self._parameter(-float(np.log(genes)), _PRIOR_SD)
            chosen = []
            for i in few:
                shared = choice_weights[space.genes[i].choices] if space.genes[i].kind == "nominal" else []
                chosen += [[scale, gene_weights[i], *shared[k : k + 1]] for k in range(len(space.genes[i].choices))]
            drafts.append((self._parameter(amplitude, _PRIOR_SD), _choices(np.array(few), space), chosen, False))
        if alike:
            scale = self._parameter(float(np.log(0.5 / genes)), _PRIOR_SD)
            counted = [[scale, weight] for weights in choice_weights.values() for weight in weights]
            counts = _counts([*alike.values()], space)
            drafts.append((self._parameter(amplitude, _PRIOR_SD), counts, counted, False))
        if ordered:
            scale = self._parameter(float(np.log(3.0 / genes)), _PRIOR_SD)
            placed = [[scale, gene_weights[i]] for i in ordered]
            positions = _positions(np.array(ordered), space)
            drafts.append((self._parameter(amplitude, _PRIOR_SD), positions, placed, False))
        if few and ordered:
            worth = [[gene_weights[i]] for i in few for _ in space.genes[i].choices]
            scaled = _choices(np.array(few), space, np.sqrt(2.0 / genes))
            drafts.append((self._parameter(amplitude, _PRIOR_SD), scaled, worth, True))
        self.noise = self._parameter(float(np.log(_NOISE)), _PRIOR_SD)
        self.means, self.sds = np.array(self._means), np.array(self._sds)
        every = np.eye(len(self.means))
        self.parts = [_Part(a, f, np.array([every[row].sum(axis=0) for row in by]), line) for a, f, by, line in drafts]

    def _parameter(self, mean: float, sd: float) -> int:
        self._means.append(mean)
        self._sds.append(sd)
        return len(self._means) - 1

    def features(self, indices: IntArray) -> list[FloatArray]:
        """Columns of each part, not yet scaled."""
        return [part.columns(indices) for part in self.parts]

    def scaled(self, indices: IntArray, parameters: FloatArray) -> list[FloatArray]:
        """Columns of each part, scaled by its parameters."""
        return [part.scaled(part.columns(indices), parameters) for part in self.parts]

    def covariance(self, a: list[FloatArray], b: list[FloatArray], parameters: FloatArray) -> FloatArray:
        """Between architectures by their scaled columns, (n, m); without noise."""
        first, *others = (part.covariance(x, y, parameters) for part, x, y in zip(self.parts, a, b, strict=True))
        for other in others:
            first += other
        return first

    def variance(self, a: list[FloatArray], parameters: FloatArray) -> FloatArray:
        """Of each architecture by its scaled columns, (n,); without noise."""
        each = [part.variance(x, parameters) for part, x in zip(self.parts, a, strict=True)]
        return np.asarray(np.sum(each, axis=0))

    def cost(self, parameters: FloatArray, features: list[FloatArray], scores: FloatArray) -> tuple[float, FloatArray]:
        """The negative log posterior density up to a constant, and its gradient."""
        scaled = [part.scaled(x, parameters) for part, x in zip(self.parts, features, strict=True)]
        kernels = [part.covariance(x, x, parameters) for part, x in zip(self.parts, scaled, strict=True)]
        noise = float(np.exp(parameters[self.noise]))
        covariance = np.sum(kernels, axis=0) + (noise + _JITTER) * np.eye(len(scores))
        lower = np.linalg.cholesky(covariance)
        inverse = _inverse_of(lower)
        weights = inverse @ scores
        away = (parameters - self.means) / self.sds
        log_determinant = 2.0 * float(np.log(np.diag(lower)).sum())
        cost = 0.5 * float(scores @ weights) + 0.5 * log_determinant + 0.5 * float(away @ away)
        slope = np.outer(weights, weights) - inverse
        gradient = away / self.sds
        for part, x, kernel in zip(self.parts, scaled, kernels, strict=True):
            shared = slope * kernel
            gradient[part.amplitude] -= 0.5 * float(shared.sum())
            slopes = slope * np.exp(parameters[part.amplitude]) if part.linear else shared
            gradient += part.along(slopes, x) @ part.scales
        gradient[self.noise] -= 0.5 * noise * float(np.trace(slope))
        return cost, gradient

    def fit(self, indices: IntArray, scores: FloatArray) -> FloatArray:
        """The parameters of the greatest posterior density, given scores (n,) of mean 0."""
        from scipy.optimize import minimize

        bounds = list(zip(self.means - 4 * self.sds, self.means + 4 * self.sds, strict=True))
        known = (self.features(indices), scores)
        options = {"maxiter": _MOST_STEPS}
        found = minimize(self.cost, self.means, args=known, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        return np.asarray(found.x, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Solution:
    """What examples say: their scaled columns, the inverse of their covariance's Cholesky factor, and their weights."""

    columns: list[FloatArray]
    inverse: FloatArray
    weights: FloatArray


class Trend(Protocol):
    """What is expected of scores without any of them; to be learned from."""

    @property
    def count(self) -> int:
        """Evaluations that it comes from."""
        ...

    @property
    def correlation(self) -> float:
        """Of ranks, with the examples that it was judged by."""
        ...

    def scores(self, indices: IntArray) -> FloatArray:
        """Of canonical indices (n, genes), (n,)."""
        ...


TrendOf = Callable[[IntArray, FloatArray], Trend | None]  # canonical indices (n, genes) and values (n,)


class MixtureProcess:
    """What is believed of scores, given some architectures' own.

    Args:
        kernel: of their space.
        parameters: of the kernel.
        indices: canonical, (n, genes).
        scores: normal scores of their ranks, (n,).
        values: what the scores are of, (n,).
        solution: of them, and of others that are believed; None to solve it when it is first asked for.
        trend: from which the scores depart; None for 0.
    """

    def __init__(
        self,
        kernel: MixtureKernel,
        parameters: FloatArray,
        indices: IntArray,
        scores: FloatArray,
        values: FloatArray,
        solution: _Solution | None = None,
        trend: Trend | None = None,
    ) -> None:
        self._kernel = kernel
        self._parameters = parameters
        self._indices = indices
        self._scores = scores
        self._values = values
        self._noise = float(np.exp(parameters[kernel.noise])) + _JITTER
        self._given = solution
        self._trend = trend

    @cached_property
    def _solution(self) -> _Solution:
        if self._given is not None:
            return self._given
        from scipy.linalg.lapack import dtrtri

        columns = self._kernel.scaled(self._indices, self._parameters)
        covariance = self._kernel.covariance(columns, columns, self._parameters)
        lower = np.linalg.cholesky(covariance + self._noise * np.eye(len(self._scores)))
        inverse, _ = dtrtri(lower, lower=1)
        inverse = np.ascontiguousarray(inverse)
        return _Solution(columns, inverse, inverse.T @ (inverse @ _apart(self._scores, self._indices, self._trend)))

    @property
    def count(self) -> int:
        """See ``Posterior.count``; what is only believed does not count."""
        return len(self._scores) + (self._trend.count if self._trend is not None else 0)

    def predict(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of scores without noise, each (n,)."""
        known = self._solution
        columns = self._kernel.scaled(indices, self._parameters)
        between = self._kernel.covariance(columns, known.columns, self._parameters)
        explained = np.square(between @ known.inverse.T).sum(axis=1)
        variance = np.maximum(self._kernel.variance(columns, self._parameters) - explained, 1e-9)
        return self._expected(indices, between), np.sqrt(variance)

    def mean(self, indices: IntArray) -> FloatArray:
        """Of ``predict``, the means alone."""
        known = self._solution
        columns = self._kernel.scaled(indices, self._parameters)
        return self._expected(indices, self._kernel.covariance(columns, known.columns, self._parameters))

    def _expected(self, indices: IntArray, between: FloatArray) -> FloatArray:
        """Means by the covariances with what is known, (n, known)."""
        departure = between @ self._solution.weights
        return np.asarray(departure if self._trend is None else departure + self._trend.scores(indices))

    def believe(self, indices: IntArray) -> MixtureProcess:
        """As if architectures (n, genes) had been evaluated and were what is expected of them (kriging believer).

        No mean changes by that, hence they weigh nothing; deviations do. The factor grows by their rows.
        """
        known = self._solution
        columns = self._kernel.scaled(indices, self._parameters)
        across = self._kernel.covariance(columns, known.columns, self._parameters) @ known.inverse.T
        own = self._kernel.covariance(columns, columns, self._parameters) + self._noise * np.eye(len(indices))
        corner = np.linalg.inv(np.linalg.cholesky(own - across @ across.T))
        above = np.zeros((len(known.inverse), len(indices)))
        inverse = np.block([[known.inverse, above], [-corner @ across @ known.inverse, corner]])
        joined = [np.concatenate(pair) for pair in zip(known.columns, columns, strict=True)]
        solution = _Solution(joined, inverse, np.concatenate((known.weights, np.zeros(len(indices)))))
        told = self._indices, self._scores, self._values
        return type(self)(self._kernel, self._parameters, *told, solution, self._trend)

    def score(self, value: float) -> float:
        """The score of a value, by those that are known."""
        order = np.argsort(self._values, kind="stable")
        return float(np.interp(value, self._values[order], self._scores[order]))

    def log_success(self, indices: IntArray) -> FloatArray:
        """See ``Posterior.log_success``: of failures it knows nothing."""
        return np.zeros(len(indices))

    def log_chance_below(self, value: float, indices: IntArray) -> FloatArray:
        """Logarithm of the chance that evaluations of canonical indices (n, genes) give less than a value, (n,)."""
        from scipy.special import log_ndtr

        means, deviations = self.predict(indices)
        return np.asarray(log_ndtr((self.score(value) - means) / np.sqrt(deviations**2 + self._noise)))

    def predict_indices(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of what evaluations would give, each (n,): scores read back as values.

        Beyond the known values the map goes on as steeply as between their tenths at that end.
        """
        low, mean, high = self.quantiles(indices, (-1.0, 0.0, 1.0))
        return mean, np.maximum(0.5 * (high - low), 1e-9)

    def quantiles(self, indices: IntArray, deviations: Sequence[float]) -> FloatArray:
        """What evaluations would give so many standard deviations from what is expected, (deviations, n)."""
        means, latent = self.predict(indices)
        spread = np.sqrt(latent**2 + self._noise)
        return np.stack([self._value(means + z * spread) for z in deviations])

    def outcomes(self, indices: IntArray) -> tuple[FloatArray, FloatArray]:
        """Means (n,) and covariances (n, n) of the scores that evaluations would have, their noise among these."""
        known = self._solution
        columns = self._kernel.scaled(indices, self._parameters)
        between = self._kernel.covariance(columns, known.columns, self._parameters)
        explained = between @ known.inverse.T
        covariance = self._kernel.covariance(columns, columns, self._parameters) - explained @ explained.T
        return self._expected(indices, between), covariance + self._noise * np.eye(len(indices))

    def left_out_z(self) -> FloatArray:
        """Each example's error in standard deviations, had it been left out (Rasmussen & Williams, eq. 5.12)."""
        known = self._solution
        return np.asarray(known.weights / np.sqrt(np.square(known.inverse).sum(axis=0)))

    def _value(self, scores: FloatArray) -> FloatArray:
        y, s = np.sort(self._values), np.sort(self._scores)
        tenth = max(1, len(y) // 10)
        below = (y[tenth] - y[0]) / max(s[tenth] - s[0], 1e-9)
        above = (y[-1] - y[-1 - tenth]) / max(s[-1] - s[-1 - tenth], 1e-9)
        beyond = below * np.minimum(scores - s[0], 0.0) + above * np.maximum(scores - s[-1], 0.0)
        return np.asarray(np.interp(scores, s, y) + beyond)


class ValueProcess(MixtureProcess):
    """Of values themselves: scores are a straight line of them, also beyond the best that is known."""

    def score(self, value: float) -> float:
        """See ``MixtureProcess.score``."""
        return (value - float(self._values.mean())) / float(self._values.std())

    def _value(self, scores: FloatArray) -> FloatArray:
        return np.asarray(self._values.mean() + self._values.std() * scores)


class MixtureLearner:
    """Learns processes of a growing number of examples.

    Weights are learned anew whenever a tenth has come in, from the examples up to then: a process that is learned at
    any moment is the same whether or not others were learned before it.

    Args:
        space: of the examples.
        trend_of: tells from some examples what their scores depart from; asked when weights are learned.
    """

    def __init__(self, space: Space, trend_of: TrendOf = lambda indices, values: None) -> None:
        self._kernel = MixtureKernel(space)
        self._trend_of = trend_of
        self._fitted: tuple[bytes, FloatArray] | None = None  # of which examples, and their parameters
        self._judged: tuple[bytes, Trend | None] | None = None  # of which examples, and what they depart from
        self.trend: Trend | None = None  # of the process that was learned last

    def learn(self, indices: IntArray, values: FloatArray) -> MixtureProcess:
        """A process of canonical indices (n, genes) and values (n,), oldest first; of many the best and latest."""
        kept = _best_and_latest(values, EXACT)
        known_at = _last_fit(len(values))
        self.trend = trend = self._judged_trend(indices[:known_at], values[:known_at])
        parameters = self._parameters(indices[:known_at], values[:known_at], trend)
        known = indices[kept], normal_scores(values[kept]), values[kept]
        return MixtureProcess(self._kernel, parameters, *known, trend=trend)

    def _judged_trend(self, indices: IntArray, values: FloatArray) -> Trend | None:
        """What these depart from; judged once, for that takes long where many are known."""
        content = indices.tobytes() + values.tobytes()
        if self._judged is None or self._judged[0] != content:
            self._judged = content, self._trend_of(indices, values)
        return self._judged[1]

    def _parameters(self, indices: IntArray, values: FloatArray, trend: Trend | None) -> FloatArray:
        chosen = _best_and_latest(values, FITTED)
        indices, values = indices[chosen], values[chosen]
        content = indices.tobytes() + values.tobytes()
        if self._fitted is None or self._fitted[0] != content:
            self._fitted = content, self._kernel.fit(indices, _apart(normal_scores(values), indices, trend))
        return self._fitted[1]


def learn_values(space: Space, indices: IntArray, values: FloatArray) -> ValueProcess:
    """A process of values as they are, for what is asked far from where a search has looked.

    Scores of ranks say nothing of how much better than the best a network may be. After four searches of OFA's
    predictor within 25 ms (100 to 1,500 queries), the 95 % interval of the network of which most is expected within 16
    to 36 ms held 30 times in 32 with values and 19 with scores, and that network was 0.28 points better in the mean.

    Args:
        space: of the architectures.
        indices: canonical, (n, genes); at most ``EXACT`` of them, for a fit is cubic in their number.
        values: of these, not all equal, (n,).
    """
    kernel, scores = MixtureKernel(space), (values - values.mean()) / values.std()
    fitted = spread_rows(len(values), FITTED)
    return ValueProcess(kernel, kernel.fit(indices[fitted], scores[fitted]), indices, scores, values)


def spread_rows(count: int, most: int) -> IntArray:
    """At most ``most`` of the positions below ``count``, evenly spread, in order."""
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.int64)


def _inverse_of(lower: FloatArray) -> FloatArray:
    """Of the matrix with this lower Cholesky factor (n, n); LAPACK's way takes a third of the time of a general one."""
    from scipy.linalg.lapack import dpotri

    half, _ = dpotri(lower, lower=1)
    return np.asarray(half + np.tril(half, -1).T)


def _apart(scores: FloatArray, indices: IntArray, trend: Trend | None) -> FloatArray:
    """By how much scores depart from a trend."""
    return scores if trend is None else scores - trend.scores(indices)


def normal_scores(values: FloatArray) -> FloatArray:
    """What a normal distribution would have at the ranks of values; equals share their mean rank. (n,) in and out."""
    from scipy.special import ndtri

    return np.asarray(ndtri((mean_ranks(values) - 0.5) / len(values)), dtype=np.float64)


def mean_ranks(values: FloatArray) -> FloatArray:
    """From 1 for the least; equals share the mean of theirs. (n,) in and out.

    A line here saves the daemon the memory of ``scipy.stats``, which a run would import for its ``rankdata`` alone.
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - 0.5 * (counts - 1))[places])


def _last_fit(count: int) -> int:
    """The largest number of examples at or below ``count`` at which weights are learned."""
    at = 2
    while at + max(1, at // 10) <= count:
        at += max(1, at // 10)
    return at


def _best_and_latest(values: FloatArray, most: int) -> IntArray:
    """Positions of at most ``most`` values, in order: half the best, the others the latest."""
    count = len(values)
    if count <= most:
        return np.arange(count)
    best = np.argsort(-values, kind="stable")[: most // 2]
    others = np.setdiff1d(np.arange(count), best)
    return np.sort(np.concatenate((best, others[-(most - len(best)) :])))


def _choices(genes: IntArray, space: Space, height: float = 0.5**0.5) -> Callable[[IntArray], FloatArray]:
    """A column for each choice of some genes, 0 where it is not chosen; by default choices are 1 apart, squared."""
    cardinalities = space.cardinalities[genes]
    starts = np.concatenate(([0], np.cumsum(cardinalities)))

    def columns(indices: IntArray) -> FloatArray:
        chosen = indices[:, genes]
        out = np.zeros((len(indices), int(starts[-1])))
        rows, places = np.nonzero(chosen >= 0)
        out[rows, starts[places] + chosen[rows, places]] = height
        return out

    return columns


def _counts(groups: list[list[int]], space: Space) -> Callable[[IntArray], FloatArray]:
    """How often each choice occurs in each group of genes; as in ``_choices``, halved in the square."""

    def columns(indices: IntArray) -> FloatArray:
        found = [
            (indices[:, genes] == choice).sum(axis=1)
            for genes in groups
            for choice in range(int(space.cardinalities[genes[0]]))
        ]
        return np.asarray(np.stack(found, axis=1) / np.sqrt(2))

    return columns


def _positions(ordered: IntArray, space: Space) -> Callable[[IntArray], FloatArray]:
    """Positions of ordered choices in [0, 1]; an inactive gene is in the middle."""
    steps = np.maximum(1, space.cardinalities[ordered] - 1)

    def columns(indices: IntArray) -> FloatArray:
        chosen = indices[:, ordered]
        return np.asarray(np.where(chosen < 0, 0.5, chosen / steps))

    return columns

"""Find a table's calibration from whole networks: a robust line, a correction where it pays, and how far off both are.

Choice and interval use leave-one-out predictions only: each calibration network is predicted by a fit without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from riwoa.hardware.calibration import FEATURES, Interval

LEVEL = 0.9
_LEAST_GAIN = 0.2
_RIDGES = tuple(10.0**i for i in range(-4, 3))

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Model:
    """``intercept + slope * sum + correction . features``, all in milliseconds."""

    intercept_ms: float
    slope: float
    correction: Mapping[str, float]

    def predict(self, sums: FloatArray, features: FloatArray) -> FloatArray:
        """Milliseconds of networks: ``sums`` (n,), ``features`` (n, features) in the order of FEATURES."""
        line = self.intercept_ms + self.slope * sums
        if not self.correction:
            return np.asarray(line)
        return np.asarray(line + features @ np.array([self.correction[name] for name in FEATURES]))


@dataclass(frozen=True, slots=True)
class Fitted:
    """The chosen model, the calibration networks as predicted without themselves, and both candidates' errors (%)."""

    model: Model
    left_out_ms: FloatArray
    line_error_percent: float
    correction_error_percent: float


Fit = Callable[[FloatArray, FloatArray, FloatArray], Model]  # sums, features, measured


def choose(
    sums: FloatArray,
    features: FloatArray,
    measured: FloatArray,
    least_sum_ms: float,
    usable: Callable[[Model], bool] = lambda model: True,
) -> Fitted:
    """The line, unless the correction is better by a fifth and by two standard errors of the comparison.

    The error compared is the mean relative leave-one-out error. The strength of the ridge is chosen by the same error,
    which favours the correction: where a line is the truth, by 4 % in the median of 100 made-up devices and by 26 % at
    most. Hence the fifth. ``usable`` says whether a corrected model may be used at
    all (no operator may take less than no time).

    Args:
        sums: (n,) milliseconds, the plain sums of the networks' operators.
        features: (n, features), what FEATURES count of them.
        measured: (n,) milliseconds.
        least_sum_ms: the least sum of the whole space; no line may give it less than no time.
        usable: refuses models.
    """

    def line(s: FloatArray, f: FloatArray, m: FloatArray) -> Model:
        return fit_line(s, m, least_sum_ms)

    def ridge(strength: float) -> Fit:
        return lambda s, f, m: fit_ridge(s, f, m, strength)

    plain = _left_out(line, sums, features, measured)
    plain_error = np.abs(plain / measured - 1)
    tried = [(fit, _left_out(fit, sums, features, measured)) for fit in map(ridge, _RIDGES)]
    fit, corrected = min(tried, key=lambda t: float(np.mean(np.abs(t[1] / measured - 1))))
    error = np.abs(corrected / measured - 1)
    gain = plain_error - error
    margin = max(_LEAST_GAIN * float(np.mean(plain_error)), 2 * float(np.std(gain, ddof=1)) / math.sqrt(len(gain)))
    model = fit(sums, features, measured)
    better = float(np.mean(gain)) > margin and model.slope > 0 and usable(model)
    return Fitted(
        model if better else line(sums, features, measured),
        corrected if better else plain,
        float(np.mean(plain_error)) * 100,
        float(np.mean(error)) * 100,
    )


def fit_line(sums: FloatArray, measured: FloatArray, least_sum_ms: float) -> Model:
    """Theil-Sen for relative errors: a few disturbed networks cannot tilt it, slow ones do not outvote fast ones.

    The slope is the weighted median of all pairs' slopes, a pair weighing as much as it is certain of its slope where
    noise is a share of the time (weights as in Sievers, JASA 1978); the intercept that of what is left. Through the
    origin where the line would give the fastest network no time.
    """
    first, second = np.triu_indices(len(sums), 1)
    distance = np.abs(sums[first] - sums[second])
    apart = distance > 0
    first, second = first[apart], second[apart]
    if len(first):
        slopes = (measured[first] - measured[second]) / (sums[first] - sums[second])
        slope = _weighted_median(slopes, distance[apart] / np.hypot(measured[first], measured[second]))
        intercept = _weighted_median(measured - slope * sums, 1 / measured)
        if slope > 0 and intercept + slope * least_sum_ms > 0:
            return Model(intercept, slope, {})
    return Model(0.0, float(np.median(measured / sums)), {})


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def fit_ridge(sums: FloatArray, features: FloatArray, measured: FloatArray, strength: float) -> Model:
    """Least squares of relative errors, with a penalty on the features alone: the stronger, the nearer to a line.

    Features are scaled to unit spread (one that does not vary gets no weight) and ``strength`` is per network.
    """
    spread = features.std(axis=0)
    scale = np.where(spread > 1e-9 * (1 + np.abs(features).max(axis=0)), spread, np.inf)
    centre = features.mean(axis=0)
    # Milliseconds over milliseconds: the columns are relative to the mean so that one penalty suits every device.
    level = float(np.mean(measured))
    columns = np.column_stack([np.full_like(sums, level), sums, level * (features - centre) / scale])
    weights = 1 / measured
    a = columns * weights[:, None]
    penalty = np.sqrt(strength * len(sums)) * np.eye(a.shape[1])[2:]
    b = np.concatenate([np.ones_like(measured), np.zeros(len(penalty))])
    solved = np.linalg.lstsq(np.vstack([a, penalty]), b, rcond=None)[0]
    per_unit = level * solved[2:] / scale
    intercept = level * solved[0] - float(per_unit @ centre)
    return Model(float(intercept), float(solved[1]), dict(zip(FEATURES, map(float, per_unit), strict=True)))


def interval(left_out_ms: FloatArray, sessions: FloatArray, level: float = LEVEL) -> Interval | None:
    """A prediction interval for a network that was not measured, in a process of its own; None with too few networks.

    Within a process: the ceil((n + 1) level)-th smallest of n relative leave-one-out errors, the process's own level
    taken out (conformal: Vovk et al., 2005; with leave-one-out residuals as in the jackknife+, Barber et al., Annals of
    Statistics 2021). Between processes: the prediction interval of Student's t for one more logarithmic level. A few
    processes say little about their spread, and t says so; pooled order statistics of three covered 18 % of a fourth.

    Args:
        left_out_ms: (n,) predictions of each network by a fit without it.
        sessions: (sessions, n) its measured times, a row for each process.
        level: share of networks to be within.
    """
    ratios = sessions / left_out_ms
    levels = np.median(ratios, axis=1)
    scores = np.sort(np.abs(ratios / levels[:, None] - 1).ravel())
    rank = math.ceil((len(scores) + 1) * level)
    if rank > len(scores):
        return None
    within, between, n = float(scores[rank - 1]), 0.0, len(levels)
    if n > 1:
        spread = float(np.std(np.log(levels), ddof=1)) * math.sqrt(1 + 1 / n)
        between = math.expm1(spread * float(stats.t.ppf((1 + level) / 2, n - 1)))
    half, within, between = (round(100 * part, 6) for part in (math.hypot(within, between), within, between))
    return Interval(level, half, within, between, len(scores), n)


def _left_out(fit: Fit, sums: FloatArray, features: FloatArray, measured: FloatArray) -> FloatArray:
    found = np.empty_like(measured)
    for i in range(len(measured)):
        rest = np.arange(len(measured)) != i
        model = fit(sums[rest], features[rest], measured[rest])
        found[i] = model.predict(sums[i : i + 1], features[i : i + 1])[0]
    return found


def halves(networks: FloatArray, of: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, FloatArray]:
    """The statistic over even and over odd rounds of (networks, rounds) milliseconds."""
    return of(networks[:, ::2]), of(networks[:, 1::2])


def spearman(a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray) -> float:
    """Rank correlation; 0 where one side is constant."""
    return _finite(stats.spearmanr(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def kendall(a: Sequence[float] | FloatArray, b: Sequence[float] | FloatArray) -> float:
    """Rank correlation (tau-b); 0 where one side is constant."""
    return _finite(stats.kendalltau(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else 0.0

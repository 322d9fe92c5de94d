"""Two strategies over the same seeds: what their differences say, and how large and how sure they are."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.float64]
_RESAMPLES = 10_000


def compare(ours: Sequence[float], name: str, theirs: Sequence[float]) -> dict[str, Any]:
    """Paired by seed, larger being better. One-sided asks whether ours is better, two-sided whether they differ.

    The effect is the matched-pairs rank-biserial correlation: 1 where every difference is for us, -1 where none is
    (Kerby, 2014). The interval is of the mean difference, 95 %, by bootstrap.
    """
    differences = np.array(ours, dtype=np.float64) - np.array(theirs, dtype=np.float64)
    return {
        "against": name,
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
        "median_difference": float(np.median(differences)),
        "mean_difference": float(differences.mean()),
        "mean_difference_interval": bootstrap_interval(differences),
        "rank_biserial": rank_biserial(differences),
        "wilcoxon_p_two_sided": _wilcoxon(differences, "two-sided"),
        "wilcoxon_p_one_sided_better": _wilcoxon(differences, "greater"),
    }


def compare_all(ours: Sequence[float], others: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """``compare`` with each; "wilcoxon_p_holm" is the two-sided p, corrected for their number (Holm, 1979)."""
    comparisons = [compare(ours, name, theirs) for name, theirs in others.items()]
    corrected = holm([c["wilcoxon_p_two_sided"] for c in comparisons])
    return [{**c, "wilcoxon_p_holm": p} for c, p in zip(comparisons, corrected, strict=True)]


def holm(ps: Sequence[float]) -> list[float]:
    """Each p by Holm's step-down correction, in the given order."""
    corrected, least = [0.0] * len(ps), 0.0
    for rank, place in enumerate(np.argsort(ps, kind="stable")):
        least = max(least, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = least
    return corrected


def rank_biserial(differences: Values) -> float:
    """Sum of the ranks of the differences above 0 less that of those below, by the sum of all; 0 where there are none.

    Pairs that are equal count for nothing, as in Wilcoxon's test.
    """
    apart = differences[differences != 0]
    if not len(apart):
        return 0.0
    ranks = stats.rankdata(np.abs(apart))
    return float((ranks * np.sign(apart)).sum() / ranks.sum())


def bootstrap_interval(values: Sequence[float] | Values) -> tuple[float, float] | None:
    """95 % interval of the mean, by percentiles over resamples (the same every time); None of fewer than two."""
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return None
    draws = np.random.default_rng(0).integers(len(sample), size=(_RESAMPLES, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def student_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean, and where it lies with 95 % by Student's t: anywhere, of one value."""
    mean, n = float(np.mean(values)), len(values)
    half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values)) if n > 1 else math.inf
    return {"mean": mean, "low": mean - half, "high": mean + half}


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median over seeds of ours by theirs, of those that are positive; None without any."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b > 0]
    return statistics.median(ratios) if ratios else None


def _wilcoxon(differences: Values, alternative: str) -> float:
    if not np.any(differences):
        return 1.0  # scipy has no answer where all pairs are equal
    return float(stats.wilcoxon(differences, alternative=alternative).pvalue)

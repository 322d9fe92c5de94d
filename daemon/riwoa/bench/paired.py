"""Two strategies over the same seeds: what their differences say."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats


def compare(ours: Sequence[float], name: str, theirs: Sequence[float]) -> dict[str, Any]:
    """Paired by seed. The test is named: one-sided asks whether ours is better, two-sided whether they differ."""
    differences = np.array(ours) - np.array(theirs)
    return {
        "against": name,
        "wins": int((differences > 0).sum()),
        "ties": int((differences == 0).sum()),
        "losses": int((differences < 0).sum()),
        "median_difference": float(np.median(differences)),
        "wilcoxon_p_two_sided": _wilcoxon(differences, "two-sided"),
        "wilcoxon_p_one_sided_better": _wilcoxon(differences, "greater"),
    }


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    """The median over seeds of ours by theirs, of those that are positive; None without any."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True) if b > 0]
    return statistics.median(ratios) if ratios else None


def _wilcoxon(differences: np.ndarray[Any, np.dtype[np.float64]], alternative: str) -> float:
    if not np.any(differences):
        return 1.0  # scipy has no answer where all pairs are equal
    return float(stats.wilcoxon(differences, alternative=alternative).pvalue)

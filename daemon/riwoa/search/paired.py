"""Two networks on the same pictures: how far they differ, how sure that is, and whether it may be chance.

Answers are (pictures, views): a picture that is shown several times is one picture, for its views agree, and taking
them for independent would make every error too small. Errors are those of a mean over pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

LEVEL = 0.05  # two networks are told apart where chance does as much in less than this share of the cases


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of right answers, its standard error, and of how many pictures in how many views."""

    value: float
    error: float
    pictures: int
    views: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One network's accuracy less another's on the same pictures.

    Attributes:
        value: positive where the first is better.
        error: standard error.
        p: of so large a difference, either way, where both are equally good.
    """

    value: float
    error: float
    p: float

    @property
    def is_clear(self) -> bool:
        """Whether the two can be told apart."""
        return self.p < LEVEL


def accuracy_of(right: BoolArray) -> Accuracy:
    """Accuracy by the answers (pictures, views).

    Where every picture is read alike the sample shows no spread; the error is then that of Wilson's interval.
    """
    pictures, views = right.shape
    error = max(_error_of_mean(right.mean(axis=1)), 0.5 / (pictures + 1))
    return Accuracy(float(right.mean()), error, pictures, views)


def difference_of(ours: BoolArray, theirs: BoolArray) -> Difference:
    """How far ours differs from theirs; both (pictures, views)."""
    differences = ours.sum(axis=1, dtype=np.int64) - theirs.sum(axis=1, dtype=np.int64)
    each = differences / ours.shape[1]
    return Difference(float(each.mean()), _error_of_mean(each), sign_flip_p(differences))


def sign_flip_p(differences: IntArray) -> float:
    """The exact two-sided p-value of paired differences in whole numbers, where each sign is a fair coin's.

    The share of all 2^n choices of signs whose sum is as far from 0 as the one found. Where no difference exceeds 1, as
    with one view a picture, this is McNemar's exact test (McNemar, 1947); with views it is Fisher's randomisation test.
    """
    sizes, counts = np.unique(np.abs(differences[differences != 0]), return_counts=True)
    shares = np.ones(1)  # of each sum from -reach to reach
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = _fair_binomial(count)
        shares = np.convolve(shares, steps)
    reach, found = len(shares) // 2, abs(int(differences.sum()))
    if found == 0:
        return 1.0
    return min(1.0, 2.0 * float(shares[reach + found :].sum()))


def _fair_binomial(n: int) -> FloatArray:
    """Chances of 0 to n heads of n fair coins."""
    ways = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)]
    return np.exp(np.array(ways) - n * math.log(2))


def _error_of_mean(values: FloatArray) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0

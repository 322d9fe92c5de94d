"""What is expected of an architecture beyond what is known, given a belief about its score; the greater, the better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Improvement(Protocol):
    """What a search wants to become greater."""

    @property
    def needs_loads(self) -> bool:
        """Whether it depends on the loads of candidates."""
        ...

    def log_expected(self, means: FloatArray, deviations: FloatArray, loads: FloatArray) -> FloatArray:
        """Logarithm of the expected improvement by scores of these means and deviations, at known loads; all (n,)."""
        ...

    def believing(self, score: float, load: float) -> Self:
        """What it would be, had a network come out so."""
        ...


@dataclass(frozen=True, slots=True)
class BestScore:
    """The best score alone; where there is none yet (−inf), the mean counts.

    What is only believed does not raise it: no belief is above the best that is known where it was learned.
    """

    top: float
    needs_loads: bool = False

    def log_expected(self, means: FloatArray, deviations: FloatArray, loads: FloatArray) -> FloatArray:
        """See ``Improvement``."""
        return log_expected_gain(means, deviations, np.array(self.top)) if np.isfinite(self.top) else means

    def believing(self, score: float, load: float) -> BestScore:
        """See ``Improvement``."""
        return self


def log_expected_gain(means: FloatArray, deviations: FloatArray, level: FloatArray) -> FloatArray:
    """Logarithm of what a normal variable is expected to exceed a level by; arrays that broadcast."""
    from scipy.special import erfcx, ndtr

    z = (means - level) / deviations
    density = -0.5 * z**2 - 0.5 * np.log(2.0 * np.pi)
    # h(z) = pdf(z) + z cdf(z), and cdf(z) / pdf(z) = sqrt(pi / 2) erfcx(-z / sqrt 2): far below 0 nothing underflows.
    low = np.minimum(z, 0.0)
    ratio = np.maximum(1.0 + low * np.sqrt(np.pi / 2.0) * erfcx(-low / np.sqrt(2.0)), 1e-300)
    high = np.log(np.maximum(np.exp(density) + z * ndtr(z), 1e-300))
    return np.asarray(np.log(deviations) + np.where(z > 0.0, high, density + np.log(ratio)))

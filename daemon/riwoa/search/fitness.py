"""The objective: accuracy under a latency target. Fitness is a number to make larger."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Objective:
    """Fitness = accuracy · (latency / target)^w, w = 0 within the target and ``exponent`` beyond it (Tan et al., 2019).

    Args:
        latency_target_ms: the target, None for none.
        exponent: w beyond the target, negative. −1 makes a network that is 10 % too slow lose 9 % of its accuracy;
            MnasNet's −0.07 is so soft that far slower networks win.

    Raises:
        ValueError: a target that is not positive and finite, or an exponent that is not negative and finite.
    """

    latency_target_ms: float | None
    exponent: float = -1.0

    def __post_init__(self) -> None:
        target = self.latency_target_ms
        if target is not None and not (np.isfinite(target) and target > 0):
            raise ValueError(f"latency_target_ms must be positive and finite, got {target!r}")
        if not (np.isfinite(self.exponent) and self.exponent < 0):
            raise ValueError(f"exponent must be negative and finite, got {self.exponent!r}")

    @property
    def version(self) -> str:
        """Stored with each fitness; two fitnesses are comparable only where their versions are equal."""
        target = "none" if self.latency_target_ms is None else repr(float(self.latency_target_ms))
        return f"v1:T={target}:w={float(self.exponent)!r}"

    def fitness(self, accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike) -> FloatArray:
        """Fitness of raw metrics, elementwise; −inf where the accuracy is NaN (a failed evaluation)."""
        accuracy = np.asarray(accuracy, dtype=np.float64)
        latency_ms = np.asarray(latency_ms, dtype=np.float64)
        if self.latency_target_ms is None:
            factor = np.ones_like(latency_ms)
        else:  # the maximum makes the factor exactly 1 within the target
            factor = np.maximum(latency_ms / self.latency_target_ms, 1.0) ** self.exponent
        return np.asarray(np.where(np.isnan(accuracy), -np.inf, accuracy * factor))

    def feasible(self, latency_ms: npt.ArrayLike) -> BoolArray:
        """Whether the latency is within the target, elementwise (the target itself is)."""
        latency_ms = np.asarray(latency_ms, dtype=np.float64)
        if self.latency_target_ms is None:
            return np.ones(latency_ms.shape, dtype=np.bool_)
        return np.asarray(latency_ms <= self.latency_target_ms)

    def ranking(self, accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike) -> IntArray:
        """Positions of the successful entries, best first: those within the target before all others, then by fitness.

        Ties keep their order; failed entries (NaN accuracy) are left out. Shapes (n,) in, (<= n,) out.
        """
        fitness = self.fitness(accuracy, latency_ms)
        order = np.lexsort((-fitness, ~self.feasible(latency_ms)))
        return np.asarray(order[np.isfinite(fitness[order])], dtype=np.int64)

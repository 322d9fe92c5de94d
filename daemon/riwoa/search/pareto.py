"""The archive of non-dominated networks: accuracy to make larger, latency to make smaller."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """One evaluated architecture; ``key`` names its phenotype, ``origin`` is (generation, slot)."""

    key: str
    accuracy: float
    latency_ms: float
    origin: tuple[int, int] = (-1, -1)


class ParetoArchive:
    """The front of the points added so far; its content does not depend on the order in which distinct points came.

    Points equal in both metrics all stay, once a key: they are different networks for the same price.
    """

    def __init__(self) -> None:
        # Both ascend strictly along the front, so a bisection finds a point's place: a run adds its points by the
        # ten thousand, and where accuracies are coarse the front itself is long.
        self._latencies_ms: list[float] = []
        self._accuracies: list[float] = []
        self._equal: list[dict[str, ParetoPoint]] = []  # by key, what stands at each place
        self._keys: set[str] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, point: ParetoPoint) -> bool:
        """Add a point; whether it is on the front now. A key that is on the front already is not replaced.

        Raises:
            ValueError: a metric is not finite; failed evaluations do not belong here.
        """
        if not (math.isfinite(point.accuracy) and math.isfinite(point.latency_ms)):
            raise ValueError(f"a Pareto point needs finite metrics, got {point!r}")
        if point.key in self._keys:
            return False
        no_slower = bisect_right(self._latencies_ms, point.latency_ms) - 1  # the most accurate of these
        if no_slower >= 0 and self._accuracies[no_slower] >= point.accuracy:
            place = (self._latencies_ms[no_slower], self._accuracies[no_slower])
            if place != (point.latency_ms, point.accuracy):
                return False
            self._equal[no_slower][point.key] = point
        else:
            begin = bisect_left(self._latencies_ms, point.latency_ms)
            end = max(begin, bisect_right(self._accuracies, point.accuracy))  # those between are dominated now
            self._keys -= {key for equal in self._equal[begin:end] for key in equal}
            self._latencies_ms[begin:end] = [point.latency_ms]
            self._accuracies[begin:end] = [point.accuracy]
            self._equal[begin:end] = [{point.key: point}]
        self._keys.add(point.key)
        return True

    def front(self) -> tuple[ParetoPoint, ...]:
        """Fastest first; ties by key."""
        return tuple(equal[key] for equal in self._equal for key in sorted(equal))

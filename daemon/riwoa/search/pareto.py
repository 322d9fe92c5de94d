"""The archive of non-dominated networks: accuracy to make larger, latency to make smaller."""

from __future__ import annotations

import math
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
        self._points: dict[str, ParetoPoint] = {}

    def __len__(self) -> int:
        return len(self._points)

    def add(self, point: ParetoPoint) -> bool:
        """Add a point; whether it is on the front now. A key that is on the front already is not replaced.

        Raises:
            ValueError: a metric is not finite; failed evaluations do not belong here.
        """
        if not (math.isfinite(point.accuracy) and math.isfinite(point.latency_ms)):
            raise ValueError(f"a Pareto point needs finite metrics, got {point!r}")
        if point.key in self._points or any(_dominates(p, point) for p in self._points.values()):
            return False
        self._points = {k: p for k, p in self._points.items() if not _dominates(point, p)}
        self._points[point.key] = point
        return True

    def front(self) -> tuple[ParetoPoint, ...]:
        """Fastest first; ties by key."""
        return tuple(sorted(self._points.values(), key=lambda p: (p.latency_ms, p.key)))


def _dominates(a: ParetoPoint, b: ParetoPoint) -> bool:
    """No worse in both metrics and better in one."""
    if a.accuracy < b.accuracy or a.latency_ms > b.latency_ms:
        return False
    return a.accuracy > b.accuracy or a.latency_ms < b.latency_ms

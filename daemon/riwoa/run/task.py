"""What a run searches: a space, what a latency is in it, and the objective that a configuration means there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from riwoa.config.schema import Config
from riwoa.search.catalogue import Catalogue
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space
from riwoa.surrogate.gaussian_process import Examples

LatencyMs = Callable[[Mapping[str, Any]], float]  # architecture -> milliseconds of one image
LayerMs = Callable[[Mapping[str, Any]], Mapping[str, float]]  # architecture -> layer -> milliseconds
KEPT_LATENCIES = 50_000


@dataclass(frozen=True, slots=True)
class SearchTask:
    """What a conductor must know of its problem.

    Attributes:
        space: the architectures.
        latency_ms: latency of an architecture, free to ask.
        auto_target_ms: the latency target that "auto" stands for on this device; None where there are no latencies.
        layer_ms: latency of an architecture's layers, for prompts; {} where only the sum is known.
        catalogue: the architectures that exist, where they can be counted; of this conductor alone.
        prior: what the screening predictor knows beforehand.
    """

    space: Space
    latency_ms: LatencyMs
    auto_target_ms: float | None
    layer_ms: LayerMs = lambda _: {}
    catalogue: Catalogue | None = None
    prior: Examples | None = None

    def target_ms(self, configured: float | str) -> float | None:
        """The target that a configured value stands for; without latencies none has a meaning."""
        return self.auto_target_ms if configured == "auto" or self.auto_target_ms is None else float(configured)

    def objective(self, config: Config) -> Objective:
        """The objective of a configuration."""
        return Objective(self.target_ms(config.objective.latency_ms), config.objective.exponent)


class KeptLatencies:
    """Latencies by choice indices (``riwoa.search.base.LatencyOf``): a search asks several times for a candidate.

    Args:
        space: of the indices.
        latency_ms: of an architecture; asked once for each that is kept.
        most: that are kept.
    """

    def __init__(self, space: Space, latency_ms: LatencyMs, most: int = KEPT_LATENCIES) -> None:
        self._space = space
        self._latency_ms = latency_ms
        self._most = most
        self._row = np.min_scalar_type(-int(space.cardinalities.max()))  # of indices, -1 among them, in few bytes
        self._known_ms: dict[bytes, float] = {}

    def __call__(self, indices: IntArray) -> float:
        """Milliseconds of canonical indices (genes,), int64."""
        key = indices.astype(self._row).tobytes()
        if key not in self._known_ms:
            if len(self._known_ms) >= self._most:
                self._known_ms.clear()
            self._known_ms[key] = self._latency_ms(self._space.architecture(indices))
        return self._known_ms[key]

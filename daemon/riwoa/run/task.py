"""What a run searches: a space, what a latency is in it, and the objective that a configuration means there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from riwoa.config.schema import Config
from riwoa.search.catalogue import Catalogue
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.space import IntArray, Space
from riwoa.surrogate.gaussian_process import Examples

LatencyMs = Callable[[Mapping[str, Any]], float]  # architecture -> milliseconds of one image
LayerMs = Callable[[Mapping[str, Any]], Mapping[str, float]]  # architecture -> layer -> milliseconds
MetricOf = Callable[[Mapping[str, Any]], float]  # architecture -> a metric
LoadOf = Callable[[Mapping[str, Any]], float | None]  # architecture -> load, None where nobody knows
_Ms = TypeVar("_Ms", float, float | None, tuple[float, ...])
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
        related: what other oracles of the space say, by one each.
        start: whom a run begins with, of what is known beforehand, canonical indices (n, genes).
        known: further metrics of an architecture that are free to ask, by name.
        answers_latency: whether latencies are among what an evaluation gives, instead.
    """

    space: Space
    latency_ms: LatencyMs
    auto_target_ms: float | None
    layer_ms: LayerMs = lambda _: {}
    catalogue: Catalogue | None = None
    prior: Examples | None = None
    related: tuple[Examples, ...] = ()
    start: IntArray | None = None
    known: Mapping[str, MetricOf] = field(default_factory=dict)
    answers_latency: bool = False

    def target_ms(self, configured: float | str) -> float | None:
        """The target that a configured value stands for."""
        return target_ms(configured, self.auto_target_ms, answers_latency=self.answers_latency)

    def prompt_target_ms(self, target_ms: float | None) -> float | None:
        """The target as a language model is told of it, who is to compare it with latencies that are known."""
        return None if self.answers_latency else target_ms

    def known_latency_ms(self, architecture: Mapping[str, Any]) -> float | None:
        """Latency of an architecture that is not evaluated yet; None where it is not free to ask."""
        return None if self.answers_latency else self.latency_ms(architecture)

    def objective(self, config: Config) -> Objective:
        """The objective of a configuration."""
        target_ms = self.target_ms(config.objective.wanted_ms)
        known = frozenset({*self.known, *(() if self.answers_latency else ("latency_ms",))})
        return config.objective.objective(target_ms, known, as_limit=self.answers_latency)

    def known_metrics(self, architecture: Mapping[str, Any], objective: Objective) -> dict[str, float]:
        """What an objective asks of an architecture that is known before it is evaluated."""
        latency_ms = self.known_latency_ms(architecture)
        found = {} if latency_ms is None else {"latency_ms": latency_ms}
        named = [name for name in objective.metrics if name in self.known]
        return {**{name: self.known[name](architecture) for name in named}, **found}

    def known_load(self, objective: Objective) -> LoadOf:
        """What an architecture's load is known to be at least, before it is evaluated."""
        if not objective.constraints and not objective.targets:
            return self.known_latency_ms
        return lambda architecture: objective.known_load(self.known_metrics(architecture, objective))


def target_ms(configured: float | str, auto_ms: float | None, *, answers_latency: bool) -> float | None:
    """The latency target that a configured value stands for; without latencies none has a meaning.

    Args:
        configured: ``objective.latency_ms``.
        auto_ms: what "auto" stands for; None where latencies are not known beforehand.
        answers_latency: whether evaluations give latencies.
    """
    if configured == "none":
        return None
    if answers_latency:
        return None if configured == "auto" else float(configured)
    return auto_ms if configured == "auto" or auto_ms is None else float(configured)


class KeptLatencies(Generic[_Ms]):
    """Latencies by choice indices (``riwoa.search.base.LatencyOf``): a search asks several times for a candidate.

    Args:
        space: of the indices.
        latency_ms: of an architecture, None where nobody knows; asked once for each that is kept.
        most: that are kept.
    """

    def __init__(
        self, space: Space, latency_ms: Callable[[Mapping[str, Any]], _Ms], most: int = KEPT_LATENCIES
    ) -> None:
        self._space = space
        self._latency_ms: Callable[[Mapping[str, Any]], _Ms] = latency_ms
        self._most = most
        self._row = np.min_scalar_type(-int(space.cardinalities.max()))  # of indices, -1 among them, in few bytes
        self._known_ms: dict[bytes, _Ms] = {}

    def __call__(self, indices: IntArray) -> _Ms:
        """Milliseconds of canonical indices (genes,), int64."""
        key = indices.astype(self._row).tobytes()
        if key not in self._known_ms:
            if len(self._known_ms) >= self._most:
                self._known_ms.clear()
            self._known_ms[key] = self._latency_ms(self._space.architecture(indices))
        return self._known_ms[key]


class KeptTargetLoads:
    """Loads for each target by choice indices (``riwoa.search.targets.LoadsEach``), by what is known beforehand.

    Args:
        task: what is searched.
        objective: with targets.
    """

    def __init__(self, task: SearchTask, objective: Objective) -> None:
        def loads(architecture: Mapping[str, Any]) -> tuple[float, ...]:
            known = task.known_metrics(architecture, objective)
            return objective.target_loads(known)

        self._count = len(objective.targets)
        self._loads = KeptLatencies(task.space, loads)

    def __call__(self, indices: IntArray) -> FloatArray:
        """Of canonical indices (n, genes), (n, targets)."""
        return np.array([self._loads(row) for row in indices]).reshape(len(indices), self._count)

    def least(self, indices: IntArray) -> float | None:
        """The least of them, of canonical indices (genes,): what a search takes for the latency."""
        return min(self._loads(indices))

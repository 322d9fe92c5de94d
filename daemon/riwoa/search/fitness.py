"""The objective: accuracy, or another metric, under a latency target and other limits. Fitness is to be made larger."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.search.hypervolume import front_positions, survival_order

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

METRIC_NAME = r"[A-Za-z_][A-Za-z0-9_.]{0,63}"
_CONSTRAINT = re.compile(rf"\s*({METRIC_NAME})\s*(<=|>=)\s*([-+0-9.eE_]+)\s*")
_MOST_LOAD = 1e9


@dataclass(frozen=True, slots=True)
class Constraint:
    """A limit of one metric.

    Attributes:
        metric: its name.
        limit: what it must not exceed; with ``at_least`` what it must reach.
        at_least: whether more is better.
    """

    metric: str
    limit: float
    at_least: bool = False

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """The constraint that a text such as ``parameters <= 2e6`` states.

        Raises:
            ValueError: it states none.
        """
        found = _CONSTRAINT.fullmatch(text)
        try:
            limit = float(found.group(3)) if found is not None else math.nan
        except ValueError:
            limit = math.nan
        if found is None or not math.isfinite(limit):
            raise ValueError("NAME <= NUMBER or NAME >= NUMBER, for example parameters <= 2e6")
        return cls(found.group(1), limit, at_least=found.group(2) == ">=")

    def __str__(self) -> str:
        return f"{self.metric} {'>=' if self.at_least else '<='} {self.limit!r}"

    def met(self, value: float) -> bool:
        """Whether a value keeps the limit; the limit itself does."""
        return value >= self.limit if self.at_least else value <= self.limit

    def load(self, value: float) -> float:
        """The share of the limit that a value uses: at most 1 where it is met. Of a limit of 8, 4 uses a half."""
        beyond = self.limit - value if self.at_least else value - self.limit
        share = 1.0 + beyond / (abs(self.limit) or 1.0)
        return min(max(share, 0.0), 1.0) if self.met(value) else min(max(share, math.nextafter(1.0, 2.0)), _MOST_LOAD)


@dataclass(frozen=True, slots=True)
class DeviceTarget:
    """A device that a network may serve, and what it may take there.

    Attributes:
        name: of the device.
        limit: of its latency.
    """

    name: str
    limit: Constraint

    def __str__(self) -> str:
        return f"{self.name}: {self.limit}"


@dataclass(frozen=True, slots=True)
class Objective:
    """Fitness = value · (load / limit)^w, w = 0 within the limit and ``exponent`` beyond it (Tan et al., 2019).

    As a rule the value is the accuracy, the load the latency and the limit its target. With constraints, of which the
    target then is one, the load is the greatest share of a limit that a network uses, and the limit is 1. A search
    knows of a network these two numbers, and calls them accuracy and latency.

    Of a front every trade between value and latency up to the target is wanted, not one network. Its load is the
    latency, or the share of the target that it takes; that of a further limit only where that is not kept.

    Of several devices the best network for each is wanted (``targets``). The load for one is the greatest share of its
    limit, or of one that all must keep; the load is the least of these, so what serves one device is within the limit.

    Args:
        latency_target_ms: the target, None for none.
        exponent: w beyond the limit, negative. −1 makes a network that is 10 % too slow lose 9 % of its accuracy;
            MnasNet's −0.07 is so soft that far slower networks win.
        raised: the metric that is the value.
        lowered: whether that metric is to be made smaller; the value is then its negative.
        constraints: limits of metrics.
        known: the metrics that are known of an architecture before it is evaluated.
        front: whether a front is wanted; the target is then the largest latency of interest.
        targets: devices, each of which is to have its best network; none where one network is wanted.

    Raises:
        ValueError: a target that is not positive and finite, an exponent that is not negative and finite, or a front
            without a target, or of several devices.
    """

    latency_target_ms: float | None
    exponent: float = -1.0
    raised: str = "accuracy"
    lowered: bool = False
    constraints: tuple[Constraint, ...] = ()
    known: frozenset[str] = frozenset({"latency_ms"})
    front: bool = False
    targets: tuple[DeviceTarget, ...] = ()

    def __post_init__(self) -> None:
        target = self.latency_target_ms
        if target is not None and not (np.isfinite(target) and target > 0):
            raise ValueError(f"latency_target_ms must be positive and finite, got {target!r}")
        if not (np.isfinite(self.exponent) and self.exponent < 0):
            raise ValueError(f"exponent must be negative and finite, got {self.exponent!r}")
        if self.front and target is None:
            raise ValueError("a front needs latency_target_ms, the largest latency of interest")
        if self.front and self.targets:
            raise ValueError("a front is of one device")

    @property
    def limit(self) -> float | None:
        """What a load must not exceed, in its unit; None for nothing."""
        return 1.0 if self.constraints or self.targets else self.latency_target_ms

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """Every limit that all must keep, the latency target among them."""
        if self.constraints or self.latency_target_ms is None:
            return self.constraints
        return (Constraint("latency_ms", self.latency_target_ms),)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that value and load follow from."""
        return tuple(dict.fromkeys((self.raised, *self._limited)))

    @property
    def is_known(self) -> bool:
        """Whether the load of a network is known before it is evaluated."""
        return self.known.issuperset(self._limited)

    @property
    def _limited(self) -> list[str]:
        return [c.metric for c in (*self.constraints, *(t.limit for t in self.targets))] or ["latency_ms"]

    def value(self, metrics: Mapping[str, Any]) -> float:
        """What is to be made larger of an evaluation's metrics; NaN where it is not there."""
        found = float(metrics.get(self.raised, math.nan))
        return -found if self.lowered else found

    def standing(self, metrics: Mapping[str, Any]) -> tuple[float, float]:
        """Value and load of an evaluated network; NaN where a metric is not there."""
        if self.targets:
            return self.value(metrics), min(self.target_loads(metrics))
        if not self.constraints:
            return self.value(metrics), float(metrics.get("latency_ms", math.nan))
        loads = {c: c.load(float(metrics.get(c.metric, math.nan))) for c in self.constraints}
        return self.value(metrics), self._joined(loads)

    def known_load(self, metrics: Mapping[str, float]) -> float | None:
        """Load by what is known before an evaluation; None where nothing is. The load itself may only be greater."""
        if self.targets:
            return min(self.target_loads({name: value for name, value in metrics.items() if name in self.known}))
        if not self.constraints:
            return metrics.get("latency_ms")
        loads = {c: c.load(metrics[c.metric]) for c in self.constraints if c.metric in self.known}
        return self._joined(loads) if loads else None

    def target_loads(self, metrics: Mapping[str, Any]) -> tuple[float, ...]:
        """The load for each target, at most 1 where a network serves it; of limits, those of metrics that are there."""
        kept = [c.load(float(metrics[c.metric])) for c in self.constraints if c.metric in metrics]
        shares = [t.limit.load(float(metrics.get(t.limit.metric, math.nan))) for t in self.targets]
        return tuple(max([share, *kept]) for share in shares)

    def _joined(self, loads: Mapping[Constraint, float]) -> float:
        """One load of several limits': the greatest; of a front the latency's, while every limit is kept."""
        greatest = max(loads.values())
        if not self.front or greatest > 1.0 or self.latency_target_ms is None:
            return greatest
        return loads.get(Constraint("latency_ms", self.latency_target_ms), greatest)

    @property
    def version(self) -> str:
        """Stored with each fitness; two fitnesses are comparable only where their versions are equal."""
        target = "none" if self.latency_target_ms is None else repr(float(self.latency_target_ms))
        plain = f"v1:T={target}:w={float(self.exponent)!r}"
        if (self.raised, self.lowered, self.constraints, self.targets) == ("accuracy", False, (), ()):
            return plain
        direction = f"{'min' if self.lowered else 'max'}={self.raised}"
        return ":".join((plain, direction, *map(str, self.constraints), *map(str, self.targets)))

    def fitness(self, accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike) -> FloatArray:
        """Fitness of values and loads, elementwise; −inf where the value is NaN (a failed evaluation)."""
        accuracy = np.asarray(accuracy, dtype=np.float64)
        factor = self.factor(latency_ms)
        # A value below 0 gets worse by division.
        fitness = np.where(accuracy < 0.0, accuracy / factor, accuracy * factor)
        return np.asarray(np.where(np.isnan(accuracy), -np.inf, fitness))

    def factor(self, latency_ms: npt.ArrayLike) -> FloatArray:
        """What is left of a value above 0 at a load, elementwise: 1 within the limit, less beyond it."""
        latency_ms = np.asarray(latency_ms, dtype=np.float64)
        if self.limit is None:
            return np.ones_like(latency_ms)
        # The maximum makes the factor exactly 1 within the limit.
        return np.asarray(np.maximum(latency_ms / self.limit, 1.0) ** self.exponent)

    def value_of(self, fitness: float, latency_ms: float) -> float:
        """The value that has a fitness at a load."""
        factor = float(self.factor(latency_ms))
        return fitness * factor if fitness < 0.0 else fitness / factor

    def feasible(self, latency_ms: npt.ArrayLike) -> BoolArray:
        """Whether the load is within the limit, elementwise (the limit itself is)."""
        latency_ms = np.asarray(latency_ms, dtype=np.float64)
        if self.limit is None:
            return np.ones(latency_ms.shape, dtype=np.bool_)
        return np.asarray(latency_ms <= self.limit)

    def ranking(self, accuracy: npt.ArrayLike, latency_ms: npt.ArrayLike) -> IntArray:
        """Positions of the successful entries, best first: those within the limit before all others, then by fitness.

        Ties keep their order; failed entries (NaN value) are left out. Shapes (n,) in, (<= n,) out.
        """
        fitness = self.fitness(accuracy, latency_ms)
        order = np.lexsort((-fitness, ~self.feasible(latency_ms)))
        return np.asarray(order[np.isfinite(fitness[order])], dtype=np.int64)

    def survival(self, accuracy: FloatArray, latency_ms: FloatArray) -> IntArray:
        """Positions of the successful entries, in the order in which a search lets them go last.

        Shapes (n,) in, (<= n,) out.
        """
        order = self.ranking(accuracy, latency_ms)
        if not self.front or self.limit is None:
            return order
        within = order[self.feasible(latency_ms[order])]
        return np.concatenate(
            (within[survival_order(accuracy[within], latency_ms[within], self.limit)], order[len(within) :])
        )

    def front_size(self, accuracy: FloatArray, latency_ms: FloatArray) -> int:
        """How many of these entries are a front within the limit; 0 where none is wanted."""
        if not self.front:
            return 0
        within = self.feasible(latency_ms) & ~np.isnan(accuracy)
        return len(front_positions(accuracy[within], latency_ms[within]))

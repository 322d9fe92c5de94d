"""The limits of a run's objective, each with what a network makes of it; known from the run's record alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from riwoa.config.schema import ObjectiveSection
from riwoa.search.fitness import Constraint, Objective

Range = tuple[float, float]  # least and greatest
_KEYS = ("kind", "maximize", "minimize", "constraints", "devices", "targets")


@dataclass(frozen=True, slots=True)
class LimitStanding:
    """A limit and a network.

    Attributes:
        limit: of one metric.
        value: the network's; None where it is not known.
        reached: what the run's evaluated networks have; None where none is known.
    """

    limit: Constraint
    value: float | None
    reached: Range | None

    @property
    def met(self) -> bool | None:
        """Whether the network keeps the limit; None where that is not known."""
        return None if self.value is None else self.limit.met(self.value)

    @property
    def load(self) -> float:
        """The share of the limit that the network uses; 0 where it is not known."""
        return 0.0 if self.value is None else self.limit.load(self.value)


def standings(
    objective: Objective, metrics: Mapping[str, Any], reached: Mapping[str, Range] | None = None
) -> tuple[LimitStanding, ...]:
    """Every limit, with what a network of these metrics makes of it."""

    def standing(limit: Constraint) -> LimitStanding:
        value = metrics.get(limit.metric)
        return LimitStanding(limit, None if value is None else float(value), (reached or {}).get(limit.metric))

    return tuple(map(standing, objective.limits))


def target_standings(objective: Objective, metrics: Mapping[str, Any]) -> tuple[LimitStanding, ...]:
    """The latency of each target, with what a network of these metrics makes of it."""
    limits = (target.limit for target in objective.targets)
    found = ((limit, metrics.get(limit.metric)) for limit in limits)
    return tuple(LimitStanding(limit, None if value is None else float(value), None) for limit, value in found)


def target_ranks(objective: Objective, metrics: Mapping[str, Any]) -> tuple[tuple[float, float] | None, ...]:
    """How good a network is for each target, the greater the better: its value, then how little it takes there.

    None where it does not serve the target.
    """
    value = objective.value(metrics)
    loads = objective.target_loads(metrics)
    return tuple(
        (value, -float(metrics[target.limit.metric])) if load <= 1.0 and math.isfinite(value) else None
        for target, load in zip(objective.targets, loads, strict=True)
    )


class ReachedRanges(dict[str, Range]):
    """Least and greatest of each limited metric among networks that were evaluated."""

    def take(self, objective: Objective, metrics: Mapping[str, Any]) -> None:
        """Count one more network."""
        for name in (limit.metric for limit in objective.limits):
            if name in metrics:
                value = float(metrics[name])
                least, greatest = self.get(name, (value, value))
                self[name] = (min(least, value), max(greatest, value))


def journaled_objective(provenance: Mapping[str, Any], target_ms: float | None) -> Objective:
    """What a run looks for, by its record; only its latency target, and the exponent, may change in a run."""
    given = provenance.get("objective", {})
    section = ObjectiveSection.model_validate({key: given[key] for key in _KEYS if key in given})
    return section.objective(target_ms)

"""Which limits of an objective no network of a space can keep, by what is known of its metrics beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from riwoa.errors import ConfigError, InfeasibleTargetError
from riwoa.search.fitness import Constraint
from riwoa.text import measured

if TYPE_CHECKING:
    from riwoa.config.schema import Config

Range = tuple[float, float]  # least and greatest of a space
_FRACTION = {"accuracy": (0.0, 1.0)}


def unattainable(config: Config, ranges: Mapping[str, Range]) -> list[str]:
    """One line each limit that nothing keeps; those of metrics without a range are not judged by themselves.

    Args:
        config: with the limits.
        ranges: by metric.
    """
    target = _target(config, ranges.get("latency_ms"))
    return [*target, *_targets(config, ranges), *_limits(config, ranges), *_contradictions(config)]


def check_attainable(config: Config, ranges: Mapping[str, Range]) -> None:
    """Refuse limits that nothing keeps.

    Raises:
        InfeasibleTargetError: says what is attainable.
    """
    found = unattainable(config, ranges)
    if found:
        more = f" (and {len(found) - 1} more; `riwoactl config check` lists them)" if len(found) > 1 else ""
        raise InfeasibleTargetError(found[0] + more)


def check_metrics(config: Config, given: frozenset[str] | None) -> None:
    """Refuse an objective about metrics that an oracle does not give; ``given`` is None where nobody can know.

    Raises:
        ConfigError: names each.
    """
    if given is None:
        return
    objective = config.objective
    given = given | set(objective.tables)
    metric, lowered = objective.optimised
    optimised = ("minimize" if lowered else "maximize", metric)
    named = [optimised, *(("constraints", Constraint.parse(text).metric) for text in objective.constraints)]
    unknown = dict.fromkeys(pair for pair in named if pair[1] not in given)
    if unknown:
        gives = f"an oracle of kind {config.oracle.kind} gives {', '.join(sorted(given))}"
        raise ConfigError(*(f"objective.{key}: there is no metric {metric}; {gives}" for key, metric in unknown))


def _target(config: Config, range_ms: Range | None) -> list[str]:
    wanted = config.objective.latency_ms
    if range_ms is None or wanted in ("auto", "none") or float(wanted) >= range_ms[0]:
        return []
    return [
        f"objective.latency_ms = {float(wanted):g} ms is out of reach: the space attains "
        f"{range_ms[0]:.3f} to {range_ms[1]:.3f} ms; set a target in this range"
    ]


def _targets(config: Config, ranges: Mapping[str, Range]) -> list[str]:
    """Of devices each of which is to have its best network."""
    found = []
    for target in config.objective.targets:
        least_ms, most_ms = ranges.get(target.metric, (0.0, math.inf))
        if target.latency_ms < least_ms:
            found.append(
                f"[[target]] {target.name}: latency_ms = {target.latency_ms:g} is out of reach: the space attains "
                f"{least_ms:.3f} to {most_ms:.3f} ms there; set a target in this range"
            )
    return found


def _limits(config: Config, ranges: Mapping[str, Range]) -> list[str]:
    found = []
    for limit in config.objective.limits:
        least, greatest = {**_FRACTION, **ranges}.get(limit.metric, (-math.inf, math.inf))
        if not limit.met(greatest if limit.at_least else least):
            ends = " to ".join(measured(limit.metric, end) for end in (least, greatest))
            found.append(f"objective: {limit} is out of reach: the space attains {ends}; set a limit in this range")
    return found


def _contradictions(config: Config) -> list[str]:
    """Limits of one metric that exclude each other."""
    limits = config.objective.limits
    return [
        f"objective: {low} and {high} exclude each other; take one out"
        for low in limits
        for high in limits
        if low.at_least and not high.at_least and low.metric == high.metric and low.limit > high.limit
    ]

"""The best network for each of several devices in the status object, and as lines. ``riwoactl status`` imports this."""

from __future__ import annotations

from riwoa.text import measured, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from riwoa.service.status_object import TargetStatus


def targets_view(objective: Mapping[str, Any], counters: Mapping[str, Any]) -> list[TargetStatus]:
    """Each target with the best network for it; empty where the run has no targets.

    Args:
        objective: of the run, as its provenance has it.
        counters: of the last committed generation.
    """
    leaders = counters.get("targets") or {}
    metric = objective.get("minimize") or objective.get("maximize") or "accuracy"
    return [_view(target, leaders.get(target["name"]), metric) for target in objective.get("targets") or []]


def _view(target: Mapping[str, Any], leader: Mapping[str, Any] | None, metric: str) -> TargetStatus:
    latency = "latency_ms" if target.get("table") is None else f"latency_ms_{target['name']}"
    metrics = leader["metrics"] if leader else {}
    return {
        "name": target["name"],
        "within_ms": target["latency_ms"],
        "metric": metric,
        "value": metrics.get(metric),
        "latency_ms": metrics.get(latency),
        "architecture_key": leader["architecture_key"] if leader else None,
        "origin": (leader["generation"], leader["slot"]) if leader else None,
    }


def target_line(row: TargetStatus) -> str:
    """A target and the best network for it."""
    value, latency_ms, origin = row.get("value"), row.get("latency_ms"), row.get("origin")
    within = f"{number(row['within_ms'])} ms"
    if value is None or latency_ms is None or origin is None:
        return f"{row['name']}: no network within {within} has been found yet"
    place = "{}/{}".format(*origin)
    return f"{row['name']}: {target_value(row)} at {latency_ms:.3f} of {within} ({place})"


def target_value(row: TargetStatus) -> str:
    """What the best network for a target has reached, in a word."""
    value = row.get("value")
    return "none yet" if value is None else measured(row.get("metric") or "accuracy", value)


def target_lines(rows: Sequence[TargetStatus]) -> list[str]:
    """A line each target."""
    return [target_line(row) for row in rows]

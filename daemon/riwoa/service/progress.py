"""How far a run is, what is left of it, and how its leader was found. ``riwoactl status`` imports this: it is quick."""

from __future__ import annotations

from riwoa.operators import operator_words
from riwoa.text import duration, measured

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from riwoa.service.status_object import ImprovementStatus, LeaderStatus, StatusObject

_TIMED = {  # what a time left is of, by state
    "measuring": "of this step; how long the search takes is known once it runs",
    "training": "of training",
    "paused": "of work, once it goes on",
}
_SEARCHED = "of search and polish; then the winner is judged, timed and exported"


def steps(status: StatusObject) -> tuple[int, int, str]:
    """How far the run is, how far it goes, and in what: whichever of its bounds is the nearer one.

    Those of the search are its generations, or evaluations where the run has a budget of them; the polish has one.
    """
    run, counts = status.get("run"), status.get("evaluations")
    if not run:
        return 0, 0, "generations"
    unique, most = counts["unique"] if counts else 0, run.get("most_evaluations")
    done, total = run["generation"], run.get("generations") or run["generation"]
    if most and unique * max(1, total) >= done * most:
        return min(unique, most), most, "evaluations"
    spent, budget = run.get("polish_spent"), run.get("polish_evaluations")
    if run["phase"] == "polish" and spent is not None and budget is not None:
        return spent, budget, "evaluations"
    return done, total, "generations"


def time_left_words(status: StatusObject) -> str:
    """How long the work under way takes yet; "unknown" where nobody can tell."""
    left_s, state = status.get("time_left_s"), status["state"]
    if left_s is None:
        return "unknown" + (" until the first generation is done" if _begins(status) else "")
    return f"about {duration(left_s)} {_TIMED.get(state, '' if status.get('message') else _SEARCHED)}".rstrip()


def _begins(status: StatusObject) -> bool:
    run = status.get("run")
    return status["state"] == "running" and run is not None and run["generation"] == 0


def improvement_view(found: dict[str, Any], leader: dict[str, Any], metric: str) -> ImprovementStatus:
    """How a leader was found.

    Args:
        found: as ``riwoa_storage.overview.leader_found`` has it.
        leader: as journaled.
        metric: that is optimised.
    """
    former = found["former"] or {}
    now, before = leader.get("metrics", {}), former.get("metrics", {})
    return {
        "generation": found["generation"],
        "found_unix_s": found["found_unix_s"],
        "operator": found["operator"],
        "metric": metric,
        "value": now.get(metric),
        "former_value": before.get(metric),
        "latency_ms": now.get("latency_ms"),
        "former_latency_ms": before.get("latency_ms"),
        "reached_target": bool(leader.get("feasible")) and former.get("feasible") is False,
    }


def improvement_words(found: ImprovementStatus, leader: LeaderStatus | None, when: str) -> str:
    """The last improvement, such as "12 min ago: +0.12 points, by guided step (climb) in generation 190"."""
    by = f"by {operator_words(found['operator'])} in generation {found['generation']}"
    if found.get("reached_target"):
        return f"{when}: the first within the target, {by}"
    gain = _gain_words(found, leader)
    return f"{when}: {gain}, {by}" if gain else f"{when}: the best so far was found, {by}"


def _gain_words(found: ImprovementStatus, leader: LeaderStatus | None) -> str:
    """What the leader is better by than the one before; empty where that is not known."""
    metric, value, former = found.get("metric") or "accuracy", found.get("value"), found.get("former_value")
    if value is None or former is None:
        return ""
    saved_ms = (found.get("former_latency_ms") or 0.0) - (found.get("latency_ms") or 0.0)
    if value == former:
        return f"{saved_ms:.3f} ms faster, as good" if saved_ms > 0 else ""
    if metric != "accuracy":
        return f"{metric} {measured(metric, former)} to {measured(metric, value)}"
    error = leader.get("accuracy_error") if leader else None
    small = " (less than its error)" if error is not None and abs(value - former) < error else ""
    return f"{100 * (value - former):+.2f} points{small}"

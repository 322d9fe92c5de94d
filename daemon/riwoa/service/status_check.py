"""The status object as somebody else wrote it, read with doubt: another version, a bad disk, an odd process.

What a reader may then rely on: the parts that are there have their required fields, and every known field is of its
kind. A field of another kind is left out as if it were not known; unknown fields stay. Light: ``riwoactl status``
imports this.
"""

from __future__ import annotations

import math

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Kind = Callable[[Any], Any]  # the value, or None where it is of another kind

_MOST_ROWS = 1024
_MOST_NUMBER = 1e15  # whatever is counted or timed stays below, and below it arithmetic is exact


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MOST_NUMBER else None


def _number(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return value if numeric and abs(value) <= _MOST_NUMBER and math.isfinite(value) else None


def _rows(kind: Kind) -> Kind:
    """A list without what is of another kind."""

    def read(value: Any) -> list[Any] | None:
        if not isinstance(value, list):
            return None
        return [row for row in map(kind, value[:_MOST_ROWS]) if row is not None]

    return read


def _named(kind: Kind) -> Kind:
    """An object of such values, without what is of another kind."""

    def read(value: Any) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        found = {name: kind(row) for name, row in list(value.items())[:_MOST_ROWS]}
        return {name: row for name, row in found.items() if row is not None}

    return read


def _origin(value: Any) -> list[Any] | None:
    pair = isinstance(value, list) and len(value) == 2 and all(_count(part) is not None for part in value)
    return value if pair else None


def _part(required: Mapping[str, Kind], optional: Mapping[str, Kind]) -> Kind:
    """An object: without its required fields it is none, without an optional one it is what remains."""
    kinds = {**required, **optional}

    def read(value: Any) -> dict[str, Any] | None:
        if not isinstance(value, dict):
            return None
        found = {}
        for name, given in value.items():
            kept = given if given is None or name not in kinds else kinds[name](given)
            if given is None or kept is not None:
                found[name] = kept
        return found if all(found.get(name) is not None for name in required) else None

    return read


_RUN = _part(
    {"run_id": _count, "generation": _count, "phase": _text, "generations": _count},
    {
        **dict.fromkeys(("seed", "resumed_from", "polish_spent", "polish_evaluations"), _count),
        **dict.fromkeys(("target_ms", "deadline_unix_s"), _number),
        **dict.fromkeys(("strategy", "digest"), _text),
    },
)
_EVALUATIONS = _part(
    {"unique": _count, "per_s": _number},
    dict.fromkeys(("cache_hits", "failed", "dropped", "audited", "missed", "queued"), _count),
)
_LEADER = _part(
    {"accuracy": _number, "feasible": _flag, "latency_ms": _number},
    {"accuracy_error": _number, "latency_interval": _number, "fitness": _number, "architecture_key": _text,
     "origin": _origin},
)  # fmt: skip
_WORKER = _part(
    {"name": _text, "state": _text, "done": _count},
    {"job": _text, "since_s": _number, "restarts": _count, "busy_share": _number, "pid": _count},
)
_LEARNING = _part(
    {},
    {
        **dict.fromkeys(("since_generation", "accepted", "rejected", "failed", "unconsumed", "swap"), _count),
        "adapter": _text,
        "unusable": _rows(_text),
    },
)
_PROPOSALS = _part(
    {"model": _text, "answered": _count, "waiting": _count},
    {
        **dict.fromkeys(
            ("breaker_left", "lag", "trainings_waiting", "restarts", "pid", "fallbacks", "successes"), _count
        ),
        **dict.fromkeys(("p_semantic", "busy_share", "tokens_per_s", "resident_bytes"), _number),
        **dict.fromkeys(("state", "reason"), _text),
        "learning": _LEARNING,
    },
)
_OPERATOR = _part(
    {
        **dict.fromkeys(("proposals", "valid", "wins"), _count),
        **dict.fromkeys(("win_rate", "win_rate_low", "win_rate_high", "mean_gain"), _number),
    },
    {"repeats": _count, "seconds": _number, "gain_per_s": _number},
)
_SCREENING = _part({"examples": _count, "prior": _count, "interval": _number}, {"covered": _number})
_STATUS = _part(
    {"state": _text},
    {
        **dict.fromkeys(("schema", "pid", "pareto"), _count),
        **dict.fromkeys(("version", "message", "state_directory", "source"), _text),
        **dict.fromkeys(("started_unix_s", "updated_unix_s", "time_left_s"), _number),
        "alive": _flag,
        "run": _RUN,
        "evaluations": _EVALUATIONS,
        "leader": _LEADER,
        "workers": _rows(_WORKER),
        "proposals": _PROPOSALS,
        "operators": _named(_OPERATOR),
        "cognition": _part({"state": _text}, {"model": _text, "reason": _text}),
        "config": _part({}, {"file": _text, "revision": _count, "error": _text, "restart_keys": _rows(_text)}),
        "governor": _part({}, {"holds": _named(_text), "readings": _named(_number)}),
        "screening": _SCREENING,
    },
)


def checked_status(found: Any) -> dict[str, Any] | None:
    """The status object that a JSON value holds; None where it is none."""
    status: dict[str, Any] | None = _STATUS(found)
    return status

"""Reads a status object that another process wrote: another version, a bad disk, something that is no daemon.

What passes has the types of ``StatusObject``: the parts that are there have their required fields, and every known
field is of its kind. A field of another kind is left out as if it were missing; unknown fields stay. ``riwoactl
status`` imports this, so it imports nothing that is slow to start.
"""

from __future__ import annotations

import math

from riwoa.service.status_object import ChampionStatus, StatusObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
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


def _tuple(kinds: list[Kind]) -> Kind:
    """A list of exactly these values."""

    def read(value: Any) -> list[Any] | None:
        whole = isinstance(value, list) and len(value) == len(kinds)
        return value if whole and all(kind(v) is not None for kind, v in zip(kinds, value, strict=True)) else None

    return read


def _part(fields: Any) -> Kind:
    """An object with the fields of a TypedDict: without a required one it is none, else it is what remains."""
    kinds = {name: _kind(annotation) for name, annotation in fields.__annotations__.items()}
    required: frozenset[str] = fields.__required_keys__

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


def _kind(annotation: Any) -> Kind:
    """The check for values of a type as ``status_object`` writes it."""
    if annotation in _PLAIN:
        return _PLAIN[annotation]
    if hasattr(annotation, "__required_keys__"):
        return _part(annotation)
    kinds = [_kind(argument) for argument in annotation.__args__ if argument is not type(None)]
    origin = getattr(annotation, "__origin__", None)
    if origin is list:
        return _rows(kinds[0])
    if origin is dict:  # its keys are text, as all keys of JSON
        return _named(kinds[1])
    if origin is tuple:
        return _tuple(kinds)
    (kind,) = kinds  # of `X | None`: whether None may stand is the field's affair
    return kind


_PLAIN: dict[type, Kind] = {str: _text, bool: _flag, int: _count, float: _number}
_STATUS, _CHAMPION = _kind(StatusObject), _kind(ChampionStatus)


def checked_status(found: Any) -> StatusObject | None:
    """The status object that a JSON value holds; None where it is none."""
    status: StatusObject | None = _STATUS(found)
    return status


def checked_champion(found: Any) -> ChampionStatus | None:
    """The champion's part of it that a JSON value holds; None where it is none."""
    champion: ChampionStatus | None = _CHAMPION(found)
    return champion

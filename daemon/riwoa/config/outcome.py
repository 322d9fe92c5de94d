"""What a reading of the configuration file came to, in one sentence: for log, status, journal and whoever asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from riwoa.text import printable

Changes = Mapping[str, tuple[Any, Any]]  # dotted key -> (old, new)

_MOST_CHARACTERS = 80  # of a value


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reading of the file came to.

    Attributes:
        accepted: changes that apply at the next generation.
        refused: changes that no run can have.
        ways_out: by refused key, what would bring it into force.
        error: why nothing of the file was accepted, with what to do; None where that is not so.
    """

    accepted: Changes = field(default_factory=dict)
    refused: Changes = field(default_factory=dict)
    ways_out: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def sentence(self) -> str:
        """The whole, before the generation at which it applies."""
        return self.told("applies at the next generation")

    def told(self, applied: str) -> str:
        """The whole in one sentence; ``applied`` says when the accepted changes apply, or applied."""
        if self.error is not None:
            return self.error
        parts = [f"{applied}: {changes_words(self.accepted)}"] if self.accepted else []
        parts += [f"refused: {self.refused_words}"] if self.refused else []
        return "; ".join(parts) or "nothing changed: the file asks for what is in force"

    @property
    def refused_words(self) -> str:
        """The refused changes, each with its way out."""
        return ", ".join(
            f"{change_words(key, *pair)} (needs {self.ways_out[key]})" for key, pair in self.refused.items()
        )


def changes_words(changes: Changes) -> str:
    """Such as ``run.generations 40 → 30, run.export true → false``."""
    return ", ".join(change_words(key, *pair) for key, pair in changes.items())


def change_words(key: str, old: Any, new: Any) -> str:
    """A key, what it was and what it becomes."""
    return f"{key} {_value_words(old)} → {_value_words(new)}"


def _value_words(value: Any) -> str:
    """A value as a person would write it; a key that is not set is "unset"."""
    if value is None:
        return "unset"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)
    return printable(text, _MOST_CHARACTERS)

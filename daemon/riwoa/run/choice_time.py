"""What choosing takes: fits of the surrogate and the search among children, charged to whom it was done for.

Whatever is asked stood in one pool that was chosen from, so every candidate of a generation is charged the same. Wall
time, of which no digest knows: it lies in events, one for some generations. A kill loses those since the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from riwoa_storage.events import ChoiceTimed, Event

JOURNAL_EVERY = 8  # commits


class ChoiceTime:
    """Adds up seconds by operator, and has them journaled."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._commits = 0

    @property
    def unjournaled(self) -> Mapping[str, float]:
        """Seconds by operator that no event holds yet."""
        return dict(self._seconds)

    def took(self, seconds: float, operators: Sequence[str]) -> None:
        """Take in what it took to choose candidates of these operators; nothing where none was asked."""
        for operator in operators:
            self._seconds[operator] = self._seconds.get(operator, 0.0) + seconds / len(operators)

    def due(self, run_id: int, generation: int) -> list[Event]:
        """What is to be journaled with a generation."""
        self._commits += 1
        if self._commits % JOURNAL_EVERY or not self._seconds:
            return []
        seconds = {operator: self._seconds[operator] for operator in sorted(self._seconds)}
        self._seconds.clear()
        return [ChoiceTimed(run_id=run_id, generation=generation, seconds=seconds)]

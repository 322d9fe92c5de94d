"""What the trainings of a run learn from: an interface with two answers.

``Successes``: replies that beat their parents, with their reasoning, to be imitated. ``Comparisons``: all that was
evaluated, whoever proposed it, winners and losers, to be preferred one to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from riwoa.cognition.protocol import Comparison, Example
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord


@dataclass(frozen=True, slots=True)
class Taken:
    """What a training takes: all up to a generation, or buffer entries, and those that judge its adapter."""

    generation: int
    entries: tuple[int, ...] = ()  # ids that its adapter will have consumed
    held_out: tuple[int, ...] = ()  # ids that judge it


@dataclass(frozen=True, slots=True)
class Material:
    """What a training's job holds of it."""

    examples: tuple[Example, ...] = ()
    held_out: tuple[Example, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    judging: tuple[Comparison, ...] = ()


class Lessons(Protocol):
    """What there is to learn from."""

    each: str  # what one of them is, in the plural
    after: int  # how many new ones start a training, where that is left open

    @property
    def unconsumed(self) -> int:
        """How many no training has consumed."""
        ...

    def committed(self, generation: int, individuals: Sequence[IndividualRecord], reader: JournalReader) -> None:
        """Take in a generation that was committed. For a thread."""
        ...

    def restore(self, reader: JournalReader, generation: int, consumed: int | None) -> None:
        """Take in what the journal holds before ``generation``; the last training took those up to ``consumed``."""
        ...

    def enough_since(self, count: int) -> int | None:
        """The generation from which on so many are unconsumed; None while there are fewer."""
        ...

    def take(self, generation: int, most: int) -> Taken:
        """What a training takes that is triggered by the commit of ``generation``; at most ``most`` of what is new."""
        ...

    def material(self, reader: JournalReader, taken: Taken) -> Material:
        """Its job's share. For a thread."""
        ...

    @property
    def trial_since(self) -> int | None:
        """The generation from which on an adapter of an earlier run can be judged; None while it cannot."""
        ...

    def trial_material(self, reader: JournalReader, taken: Taken) -> Material:
        """What judges it: nothing that it can have learned from. For a thread."""
        ...

    def consume(self, taken: Taken) -> None:
        """An adapter has learned from these."""
        ...

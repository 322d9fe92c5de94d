"""Of whom the language model is asked to make children."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from riwoa.search.base import Elite
from riwoa.search.rng import generator


class ParentChoice(Protocol):
    """Chooses the parent of a generation's request; what it decides follows from committed generations alone."""

    def choose(self, generation: int, elites: Sequence[Elite]) -> Elite:
        """One of the elites, best first and at least one."""
        ...


class UniformParents:
    """Each elite as often as any other.

    Args:
        seed: the run's.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def choose(self, generation: int, elites: Sequence[Elite]) -> Elite:
        """See ``ParentChoice.choose``."""
        return elites[int(generator(self._seed, generation, "pool.parent").integers(len(elites)))]

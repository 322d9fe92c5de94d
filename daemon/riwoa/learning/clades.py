"""Which parents deserve a costly call: by what came of all their descendants, not only by what they are.

An individual's clade is itself and everybody who descends from it (Wang et al., "Huxley-Gödel machine", 2025). A step
counts for the clades of all of its ancestors. Whose clade is asked next is drawn by Thompson's rule (1933).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from riwoa.learning.trajectories import Identity
from riwoa.search.fitness import FloatArray


class Clades:
    """Steps within each clade, and how many of them won."""

    def __init__(self) -> None:
        self._parents: dict[Identity, Identity] = {}
        self._tries: dict[Identity, int] = {}
        self._wins: dict[Identity, int] = {}

    def add(self, child: Identity, parent: Identity, *, won: bool) -> None:
        """Take in a step."""
        self._parents[child] = parent
        ancestor: Identity | None = parent
        while ancestor is not None:
            self._tries[ancestor] = self._tries.get(ancestor, 0) + 1
            self._wins[ancestor] = self._wins.get(ancestor, 0) + won
            ancestor = self._parents.get(ancestor)

    def counts(self, identity: Identity) -> tuple[int, int]:
        """(wins, tries) of a clade."""
        return self._wins.get(identity, 0), self._tries.get(identity, 0)

    def drawn(self, candidates: Sequence[Identity], draw: np.random.Generator) -> FloatArray:
        """A draw of each candidate's rate of wins, with a uniform prior, (n,): the greatest is to be asked."""
        counts = np.array([self.counts(c) for c in candidates], dtype=np.float64).reshape(-1, 2)
        return np.asarray(draw.beta(1.0 + counts[:, 0], 1.0 + counts[:, 1] - counts[:, 0]))

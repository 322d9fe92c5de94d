"""The phenotypes that a search has met, as hashes of 64 bits: what was evaluated costs nothing, and brings nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from riwoa.search.fitness import BoolArray
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space

Hashes = npt.NDArray[np.uint64]

REMEMBERED = 4096  # phenotypes that count as evaluated already; older ones are forgotten


class SeenPhenotypes:
    """What was met, the newest ``REMEMBERED`` of it.

    Attributes:
        hashes: of them, oldest first: all of the state.

    Args:
        space: of the phenotypes.
    """

    def __init__(self, space: Space) -> None:
        self.hashes: Hashes = np.empty(0, dtype=np.uint64)
        self._weights = generator(0, 0, "riwoa.hash").integers(0, 2**64, len(space), dtype=np.uint64)

    def hash(self, indices: IntArray) -> Hashes:
        """Of canonical indices (n, genes), (n,)."""
        return np.asarray((indices + 1).astype(np.uint64) @ self._weights)

    def hold(self, hashes: Hashes) -> BoolArray:
        """Which of some hashes (n,) are of phenotypes that were met."""
        return np.isin(hashes, self.hashes)

    def add(self, indices: IntArray) -> None:
        """Remember canonical indices (n, genes)."""
        self.hashes = np.concatenate((self.hashes, self.hash(indices)))[-REMEMBERED:]

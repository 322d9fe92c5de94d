"""Single steps that make children new and, where that is known for free, bring them within the target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from riwoa.search.codec import Codec
from riwoa.search.fitness import BoolArray, FloatArray
from riwoa.search.rng import generator
from riwoa.search.space import IntArray

MOST_REPAIRS = 100  # single-choice steps towards a new phenotype within the target


class Repair:
    """Steps single genes of children at random.

    Args:
        codec: of the space.
        seed: of the run.
        excess: by how much a limit is known to be exceeded, indices (n, G) in, (n,) out.
    """

    def __init__(self, codec: Codec, seed: int, excess: Callable[[IntArray], FloatArray]) -> None:
        self._codec = codec
        self._seed = seed
        self._excess = excess
        self._steppable = np.flatnonzero(codec.space.cardinalities > 1)

    def settle(
        self, vectors: FloatArray, repeated: Callable[[IntArray], BoolArray], generation: int, variant: int
    ) -> FloatArray:
        """Children, (n, D), with single genes stepped until each is within the target and none is ``repeated``.

        While a child is too slow, only steps that make it faster are taken. ``variant`` counts draws of a generation.
        """
        out = vectors.copy()
        indices = self._codec.decode(out)
        excess = self._excess(indices)
        for attempt in range(MOST_REPAIRS):
            slow = excess > 0.0
            rows = np.flatnonzero(slow | repeated(indices))
            if not len(rows):
                break
            stream = attempt + MOST_REPAIRS * variant
            draws = generator(self._seed, generation, "riwoa.repair", stream).random((len(out), 2))
            stepped = out[rows]
            for vector, row in zip(stepped, rows, strict=True):
                self._step(vector, indices[row], draws[row])
            new_indices = self._codec.decode(stepped)
            new_excess = self._excess(new_indices)
            taken = ~slow[rows] | (new_excess < excess[rows])
            out[rows[taken]] = stepped[taken]
            indices[rows[taken]] = new_indices[taken]
            excess[rows[taken]] = new_excess[taken]
        return out

    def _step(self, vector: FloatArray, indices: IntArray, draws: FloatArray) -> None:
        """Move one random active gene of a child, in place, to a neighbouring choice."""
        active = self._steppable[indices[self._steppable] >= 0]
        if len(active):
            gene = int(active[int(draws[0] * len(active))])
            choices = self._codec.space.neighbours(gene, int(indices[gene]))
            self._codec.set_choice(vector, gene, choices[int(draws[1] * len(choices))])

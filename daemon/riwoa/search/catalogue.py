"""The architectures that exist, where they can be counted, as the rows of a table: those evaluated, those left.

A search proposes combinations of choices. Where hardly any of them exists (``sparse``), nearly all of what it proposes
would fail; each proposal is then moved to the nearest row that is left, so that a search goes on among what exists.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from riwoa.search.fitness import BoolArray, FloatArray, Objective
from riwoa.search.space import INACTIVE, IntArray, Space

SPARSE = 0.01  # share of the combinations that exist, below which proposals are moved: of twenty hardly one would exist


class Catalogue:
    """What exists in a space, and what of it a run has evaluated.

    Args:
        space: of the run.
        indices: of each row, (rows, genes).
        usable: rows that can be evaluated, (rows,).
        latency_ms: of each row, (rows,).
        row_of: number of the row of some indices, (genes,); None where it has none.
    """

    def __init__(
        self,
        space: Space,
        indices: IntArray,
        usable: BoolArray,
        latency_ms: FloatArray,
        row_of: Callable[[IntArray], int | None],
    ) -> None:
        self.indices = indices
        self.sparse = bool(usable.sum() < SPARSE * math.prod(space.cardinalities.tolist()))
        self._usable = usable
        self._latency_ms = latency_ms
        self._row_of = row_of
        self._evaluated = np.zeros(len(indices), dtype=np.bool_)
        self._space = space
        self._nominal = np.array([gene.kind == "nominal" for gene in space.genes], dtype=np.bool_)
        self._steps = np.maximum(1, space.cardinalities - 1)

    def judge_by(self, latency_of: Callable[[IntArray], float | None]) -> None:
        """Take other latencies of the rows; one that nobody knows may be within any target."""
        self._latency_ms = np.array([latency_of(row) or 0.0 for row in self.indices])

    def holds(self, indices: IntArray) -> bool:
        """Whether an architecture exists and can be evaluated, by its indices (genes,)."""
        row = self._row_of(indices)
        return row is not None and bool(self._usable[row])

    def evaluated(self, key: str) -> None:
        """Take note of an architecture that was evaluated in full, and committed."""
        row = self._row_of(
            np.array([INACTIVE if part == "_" else int(part) for part in key.split(".")], dtype=np.int64)
        )
        if row is not None:
            self._evaluated[row] = True

    def members(self, objective: Objective) -> BoolArray:
        """The rows that can be evaluated and meet the target, (rows,)."""
        return self._usable & objective.feasible(self._latency_ms)

    def left(self, objective: Objective) -> IntArray:
        """Those of them that are not evaluated, by number."""
        return np.flatnonzero(self.members(objective) & ~self._evaluated)

    def key(self, row: int) -> str:
        """Of the architecture of a row."""
        return self._space.key(self.indices[row])

    def moved(self, indices: IntArray, objective: Objective, under_way: Iterable[IntArray] = ()) -> IntArray:
        """Each architecture that does not exist as the nearest row, by gene, that is left. (n, genes) in and out.

        No row is taken twice, nor one that is ``under_way``, each (genes,); where none is left, the nearest of all
        within the target stands in.
        """
        out = indices.copy()
        choices = (self.left(objective), np.flatnonzero(self.members(objective)), np.flatnonzero(self._usable))
        rows = next(rows for rows in choices if len(rows))
        free = ~np.isin(rows, [row for one in under_way if (row := self._row_of(one)) is not None])
        for n in [n for n, row in enumerate(indices) if not self.holds(row)]:
            among = np.flatnonzero(free) if free.any() else np.arange(len(rows))
            nearest = among[np.argmin(self._distances(indices[n], rows[among]))]
            free[nearest] = False
            out[n] = self.indices[rows[nearest]]
        return out

    def _distances(self, indices: IntArray, rows: IntArray) -> FloatArray:
        """From an architecture to some rows: a nominal gene is the same or not, an ordered one is so far away."""
        apart = np.abs(self.indices[rows] - indices)
        return np.asarray(np.where(self._nominal, apart > 0, apart / self._steps).sum(axis=1))

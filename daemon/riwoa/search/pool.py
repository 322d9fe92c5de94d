"""Architectures to choose from, and how others are made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.fitness import BoolArray, FloatArray
from riwoa.search.space import IntArray, Space

Excess = Callable[[IntArray], FloatArray]  # canonical indices (n, G) -> by how much a limit is exceeded, (n,)
SUGGESTED = -2  # and below: the parents' rows of suggestions, and of what descends from them


@dataclass(frozen=True, slots=True)
class Pool:
    """Architectures: indices of every gene (n, genes), rows of their parents (-1 for none), operators, each (n,)."""

    raw: IntArray
    parents: IntArray
    operators: npt.NDArray[np.str_]

    @staticmethod
    def of(raw: IntArray, operator: str, parents: npt.ArrayLike = -1) -> Pool:
        """All made by one operator."""
        rows = np.broadcast_to(np.asarray(parents, dtype=np.int64), len(raw))
        return Pool(raw, rows, np.full(len(raw), operator))

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def suggested(self) -> BoolArray:
        """Whether each is a suggestion, or descends from one by its first parent, (n,)."""
        return np.asarray(self.parents <= SUGGESTED)

    def take(self, rows: npt.ArrayLike) -> Pool:
        """Those at some rows, in that order."""
        index = np.asarray(rows, dtype=np.int64)
        return Pool(self.raw[index], self.parents[index], self.operators[index])

    def join(self, *others: Pool) -> Pool:
        """These, and the others after them."""
        pools = (self, *others)
        return Pool(
            np.concatenate([p.raw for p in pools]),
            np.concatenate([p.parents for p in pools]),
            np.concatenate([p.operators for p in pools]),
        )


class Variation:
    """Makes architectures of a space, uniform ones and others of some that are there.

    Args:
        space: of them.
    """

    def __init__(self, space: Space) -> None:
        self._space = space

    def uniform(self, draw: np.random.Generator, count: int) -> IntArray:
        """Each gene any of its choices, (count, genes)."""
        return np.asarray(draw.integers(0, self._space.cardinalities, (count, len(self._space))), dtype=np.int64)

    def mutated(self, draw: np.random.Generator, raw: IntArray, rates: FloatArray) -> IntArray:
        """Each gene gets another choice with a chance of rate / genes, and one gene at least does. Rates are (n,)."""
        cards = self._space.cardinalities
        moved = draw.random(raw.shape) < rates[:, None] / len(self._space)
        surely = draw.integers(len(self._space), size=len(raw))
        moved[np.arange(len(raw)), surely] |= ~moved.any(axis=1)
        other = draw.integers(0, np.maximum(1, cards - 1), raw.shape)
        return np.where(moved, np.minimum(other + (other >= raw), cards - 1), raw)

    def crossed(self, draw: np.random.Generator, mothers: IntArray, fathers: IntArray) -> IntArray:
        """Each gene from either, (n, genes)."""
        return np.where(draw.random(mothers.shape) < 0.5, mothers, fathers)

    def neighbours(self, raw: IntArray) -> IntArray:
        """Everything one step away from one architecture (genes,), (n, genes)."""
        out = []
        for gene in range(len(raw)):
            for choice in self._space.neighbours(gene, int(raw[gene])):
                out.append(raw.copy())
                out[-1][gene] = choice
        return np.array(out, dtype=np.int64).reshape(-1, len(raw))

    def stepped_within(self, raw: IntArray, excess: Excess) -> IntArray:
        """One architecture (genes,) stepped by single choices to where a limit is exceeded least."""
        beyond = excess(self._space.canonical(raw[None, :]))[0]
        while beyond > 0.0:
            steps = self.neighbours(raw)
            each = excess(self._space.canonical(steps))
            if not len(each) or not each.min() < beyond:
                break
            beyond, raw = each.min(), steps[int(np.argmin(each))]
        return raw

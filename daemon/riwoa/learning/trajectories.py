"""Every evaluated child beside its parent: the one place from which all that learns of steps reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space

Identity = tuple[int, int]  # (generation, slot)
_INDEX = "<i2"  # a search may have made tens of thousands of networks of hundreds of genes


@dataclass(frozen=True, slots=True)
class Network:
    """An evaluated network: canonical indices, packed, and what an objective makes of its metrics."""

    packed: bytes
    value: float
    load: float
    latency_ms: float  # NaN where it was not told

    @classmethod
    def of(cls, indices: IntArray, value: float, load: float, latency_ms: float) -> Network:
        """Of canonical indices (genes,)."""
        return cls(indices.astype(_INDEX).tobytes(), value, load, latency_ms)

    @property
    def indices(self) -> IntArray:
        """Canonical indices, (genes,)."""
        return np.frombuffer(self.packed, dtype=_INDEX).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Change:
    """A gene that is active in parent and child and chosen otherwise, by numbers of gene and choices."""

    gene: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A child that was evaluated for the first time, beside its parent."""

    child: Identity
    parent: Identity
    operator: str
    before: Network
    after: Network

    @property
    def value_gain(self) -> float:
        """Of the value, as a rule the accuracy."""
        return self.after.value - self.before.value

    @property
    def latency_change_ms(self) -> float:
        """NaN where either latency was not told."""
        return self.after.latency_ms - self.before.latency_ms

    def gain(self, objective: Objective) -> float:
        """Of fitness, by an objective of the same metrics."""
        values, loads = (self.before.value, self.after.value), (self.before.load, self.after.load)
        before, after = objective.fitness(values, loads).tolist()
        return float(after - before)

    @property
    def changes(self) -> tuple[Change, ...]:
        """What differs; a gene that only one of the two has follows from a change of another."""
        before, after = self.before.indices, self.after.indices
        genes = np.flatnonzero((before != after) & (before >= 0) & (after >= 0)).tolist()
        return tuple(Change(gene, int(before[gene]), int(after[gene])) for gene in genes)


def gains(trajectories: Sequence[Trajectory], objective: Objective) -> list[float]:
    """Of fitness, in order."""
    ends = [[(n.value, n.load) for n in (t.before, t.after)] for t in trajectories]
    pairs = np.array(ends, dtype=np.float64).reshape(-1, 2, 2)
    fitness = objective.fitness(pairs[:, :, 0], pairs[:, :, 1])
    return np.asarray(fitness[:, 1] - fitness[:, 0]).tolist()


def both_ends(trajectories: Sequence[Trajectory], space: Space) -> tuple[IntArray, IntArray]:
    """Canonical indices of the parents and of the children, each (n, genes)."""

    def rows(packed: Sequence[bytes]) -> IntArray:
        return np.frombuffer(b"".join(packed), dtype=_INDEX).astype(np.int64).reshape(-1, len(space))

    return rows([t.before.packed for t in trajectories]), rows([t.after.packed for t in trajectories])

"""RI-IWOA: whale optimisation whose search move is rotation-invariant."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from riwoa.search import whale
from riwoa.search.base import Members, PopulationStrategy, Proposal, SearchParameters, Snapshot
from riwoa.search.covariance import eigenbasis, shrunk_covariance
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space

MEMORY = 0.3  # weight of the newest elite covariance in the moving average


class RotationInvariantWhale(PopulationStrategy):
    """Whale optimisation that searches in the eigenbasis of its elites.

    Phases: p >= ½ attacks (spiral, or a language-model slot with the spiral as fallback); else |A| >= 1 searches; else
    encircles. *Search*, with elite mean m and eigenbasis B: y = Bᵀ(x − m), y' = y_r − A ⊙ |C ⊙ y_r − y|, x' = m + B y',
    with A and C drawn per eigen-axis.
    """

    name = "riwoa"

    def __init__(self, space: Space, objective: Objective, seed: int, params: SearchParameters) -> None:
        super().__init__(space, objective, seed, params)
        d = self.codec.dimension
        self._covariance: FloatArray = np.eye(d)
        self._basis: FloatArray = np.eye(d)

    def _propose(self) -> list[Proposal]:
        n, d = self.params.population, self.codec.dimension
        draw = generator(self.seed, self.generation, "riwoa.moves").random
        if not len(self._best):  # nothing is known yet, or everything failed
            return [Proposal(i, "init", g, None) for i, g in enumerate(draw((n, d)))]
        a = whale.control(self.tau)
        p, phase_r, turn, mate, semantic, placebo = draw((6, n, 1))
        coefficient_a = whale.coefficient_a(a, draw((n, d)))
        coefficient_c = whale.coefficient_c(draw((n, d)))
        x, leader = self.population.genotype, self._best.genotype
        other = (mate[:, 0] * n).astype(np.int64)
        attack, far = p >= 0.5, np.abs(whale.coefficient_a(a, phase_r)) >= 1.0
        moved = np.where(
            attack,
            whale.spiral(leader, x, 2.0 * turn - 1.0, self.params.spiral_b),
            np.where(
                far,
                self._search(x, other, coefficient_a, coefficient_c),
                whale.encircle(leader, x, coefficient_a, coefficient_c),
            ),
        )
        model = attack & (semantic < self.params.p_semantic)
        named = np.where(placebo < self.params.placebo_share, "placebo", "semantic")
        operators = np.where(model, named, np.where(attack, "spiral", np.where(far, "search", "encircle")))[:, 0]
        return [
            Proposal(i, str(operators[i]), g, self.origin(i), x[i].copy() if model[i, 0] else None)
            for i, g in enumerate(self.codec.reflect(moved))
        ]

    def _search(self, x: FloatArray, other: IntArray, a: FloatArray, c: FloatArray) -> FloatArray:
        """The rotation-invariant search move, shape (n, D)."""
        mean = self._elites().mean(axis=0)
        y = (x - mean) @ self._basis
        return mean + whale.search(y[other], y, a, c) @ self._basis.T

    def _elites(self) -> FloatArray:
        """Genotypes of the best ``elite_fraction`` of the successful members, at least two where there are."""
        order = self.objective.ranking(self.population.accuracy, self.population.latency_ms)
        count = max(2, round(self.params.elite_fraction * self.params.population))
        chosen = self.population.take(order[:count])
        return chosen.genotype if len(chosen) else self._best.genotype

    def _absorb(self, children: Members, parents: IntArray) -> None:
        self.population = children
        newest = shrunk_covariance(self._elites()) if len(self._elites()) else self._covariance
        self._covariance = (1.0 - MEMORY) * self._covariance + MEMORY * newest
        if self.generation % self.params.basis_every == 0:
            _, self._basis = eigenbasis(self._covariance)

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        return super().snapshot() | {"covariance": self._covariance.copy(), "basis": self._basis.copy()}

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        super().restore(snapshot)
        self._covariance = np.array(snapshot["covariance"], dtype=np.float64)
        self._basis = np.array(snapshot["basis"], dtype=np.float64)

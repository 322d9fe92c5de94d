"""Baselines behind the same face: uniform random search, and the standard whale optimisation algorithm."""

from __future__ import annotations

import numpy as np

from riwoa.search import whale
from riwoa.search.base import Members, PopulationStrategy, Proposal
from riwoa.search.rng import generator


class RandomSearch(PopulationStrategy):
    """Uniform over the unit cube, hence uniform over the choices of every gene."""

    name = "random"

    def _propose(self) -> list[Proposal]:
        shape = (self.params.population, self.codec.dimension)
        genotypes = generator(self.seed, self.generation, "random").random(shape)
        return [Proposal(i, "init", g, None) for i, g in enumerate(genotypes)]

    def _absorb(self, children: Members, late: Members) -> None:
        self.population = children


class Whale(PopulationStrategy):
    """WOA as published, with vector coefficients and RI-IWOA's bounds (reflection): every whale moves, better or not.

    p < ½ and |A| < 1 encircles the leader, p < ½ and |A| >= 1 searches around a random whale, p >= ½ spirals (Eq. 2.6).
    The phase takes its own scalar draw of A; the moves draw A and C per coordinate, as in RI-IWOA.
    """

    name = "woa"

    def _propose(self) -> list[Proposal]:
        n, d = self.params.population, self.codec.dimension
        draw = generator(self.seed, self.generation, "woa.moves").random
        if not len(self._best):  # nothing is known yet, or everything failed
            return [Proposal(i, "init", g, None) for i, g in enumerate(draw((n, d)))]
        a = whale.control(self.tau)
        p, phase_r, turn, mate = draw((4, n, 1))
        coefficient_a = whale.coefficient_a(a, draw((n, d)))
        coefficient_c = whale.coefficient_c(draw((n, d)))
        x, leader = self.population.genotype, self._best.genotype
        other = x[(mate[:, 0] * n).astype(np.int64)]
        attack, far = p >= 0.5, np.abs(whale.coefficient_a(a, phase_r)) >= 1.0
        moved = np.where(
            attack,
            whale.spiral(leader, x, 2.0 * turn - 1.0, self.params.spiral_b),
            np.where(
                far,
                whale.search(other, x, coefficient_a, coefficient_c),
                whale.encircle(leader, x, coefficient_a, coefficient_c),
            ),
        )
        operators = np.where(attack, "spiral", np.where(far, "search", "encircle"))[:, 0]
        return [Proposal(i, str(operators[i]), g, self.origin(i)) for i, g in enumerate(self.codec.reflect(moved))]

    def _absorb(self, children: Members, late: Members) -> None:
        self.population = children

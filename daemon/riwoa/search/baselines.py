"""Baselines behind the same face: uniform random search, the standard whale optimisation algorithm, two of the field.

Regularised evolution and local search move after every single evaluation, so they ask one candidate at a time
(evolution its first population at once): right for a table, a waste of several workers, and no choice of the daemon's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from riwoa.search import whale
from riwoa.search.base import Members, PopulationStrategy, Proposal, SearchParameters, parameter
from riwoa.search.race import Cut
from riwoa.search.rng import generator


class RandomSearch(PopulationStrategy):
    """Uniform over the unit cube, hence uniform over the choices of every gene."""

    name = "random"

    def _propose(self) -> list[Proposal]:
        shape = (self.params.population, self.codec.dimension)
        genotypes = generator(self.seed, self.generation, "random").random(shape)
        return [Proposal(i, "init", g, None) for i, g in enumerate(genotypes)]

    @property
    def cut(self) -> Cut | None:
        """The leader: nobody else is looked at."""
        return self._cut_at(self._best)

    def _absorb(self, children: Members, late: Members) -> None:
        self.population = self._replaced(children)


@dataclass(frozen=True, slots=True)
class WhaleParameters(SearchParameters):
    """Settings of whale optimisation."""

    spiral_b: float = parameter(1.0, "shape of the spiral: b in exp(b l) cos(2 pi l)", least=0, most=100)


class Whale(PopulationStrategy):
    """WOA as published, with vector coefficients and RI-IWOA's bounds (reflection): every whale moves, better or not.

    p < ½ and |A| < 1 encircles the leader, p < ½ and |A| >= 1 searches around a random whale, p >= ½ spirals (Eq. 2.6).
    The phase takes its own scalar draw of A; the moves draw A and C per coordinate, as in RI-IWOA.
    """

    name = "woa"
    parameters = WhaleParameters
    params: WhaleParameters

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

    @property
    def cut(self) -> Cut | None:
        """The leader: of all others only the places count."""
        return self._cut_at(self._best)

    def _absorb(self, children: Members, late: Members) -> None:
        self.population = self._replaced(children)


class RegularisedEvolution(PopulationStrategy):
    """Aging evolution (Real et al., AAAI 2019, Algorithm 1): of a random sample the best is mutated, the oldest dies.

    The sample is a quarter of the population, as in the paper (100, 25); a mutation gives one gene another choice.
    """

    name = "evolution"

    def _propose(self) -> list[Proposal]:
        n, draws = self.params.population, generator(self.seed, self.generation, "evolution")
        if not len(self.population):
            first = draws.random((n, self.codec.dimension))
            return [Proposal(i, "init", g, None) for i, g in enumerate(first)]
        sample = np.sort(draws.choice(n, max(2, n // 4), replace=False))
        contest = self.population.take(sample)
        order = self.objective.ranking(contest.accuracy, contest.latency_ms)
        parent = int(sample[order[0]] if len(order) else sample[0])  # where the whole sample failed, anybody
        child = self.population.genotype[parent].copy()
        indices = self.codec.decode(child[None, :])[0]
        movable = np.flatnonzero((indices >= 0) & (self.space.cardinalities > 1))
        if len(movable):
            gene = int(draws.choice(movable))
            other = int(draws.integers(self.space.cardinalities[gene] - 1))
            self.codec.set_choice(child, gene, other + (other >= indices[gene]))
        return [Proposal(0, "mutate", child, self.origin(parent))]

    def _absorb(self, children: Members, late: Members) -> None:
        told = self.population.join(children).join(late)  # oldest first
        self.population = told.take(np.arange(len(told))[-self.params.population :])


class LocalSearch(PopulationStrategy):
    """First-improvement hill climbing over single choices; where no neighbour is better, again from a random place.

    White et al. ("Local search is state of the art for NAS benchmarks", 2020) found it hard to beat on small spaces.
    """

    name = "local"

    def _propose(self) -> list[Proposal]:
        step = self._step()
        if step is None:
            start = generator(self.seed, self.generation, "local.start").random(self.codec.dimension)
            return [Proposal(0, "restart" if len(self.population) else "init", start, None)]
        child = self.population.genotype[0].copy()
        self.codec.set_choice(child, *step)
        return [Proposal(0, "mutate", child, self.origin(0))]

    def _absorb(self, children: Members, late: Members) -> None:
        told = children.join(late)
        rivals = told if self._step() is None else self.population.join(told)  # the present one first: it wins ties
        order = self.objective.ranking(rivals.accuracy, rivals.latency_ms)
        self.population = rivals.take(order[:1] if len(order) else [0])

    def _step(self) -> tuple[int, int] | None:
        """The next (gene, choice) to try from the present member; None where all were, or there is none.

        The member's neighbours come in an order that its generation gives, one a generation since then.
        """
        if not len(self.population):
            return None
        indices = self.codec.decode(self.population.genotype)[0]
        active = np.flatnonzero(indices >= 0)
        steps = [(int(g), choice) for g in active for choice in self.space.neighbours(int(g), int(indices[g]))]
        since = int(self.population.origin[0, 0])
        tried = self.generation - since - 1
        if tried >= len(steps):
            return None
        return steps[int(generator(self.seed, since, "local.order").permutation(len(steps))[tried])]

    @property
    def _size(self) -> int:
        return 1

"""Bayesian optimisation: asks the architectures of which most improvement is expected, by a process of all evaluations.

The expectation is of the score of a rank (``riwoa.surrogate.mixture``) above the leader's. Architectures to choose from
are mutants and crossings of the best and uniform ones; from the three most promising the choice climbs by single steps
while expected improvement grows. What is asked together is chosen one after another, each as if those before it had
come out as expected (Ginsbourger et al., "Kriging is well-suited to parallelize optimization", 2010). A limit that is
known beforehand is kept by everything that is asked, as far as anything within it is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.base import (
    LatencyOf,
    Members,
    PopulationStrategy,
    Posterior,
    Proposal,
    SearchParameters,
    Snapshot,
    parameter,
)
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.hypervolume import FrontImprovement
from riwoa.search.improvement import BestScore, Improvement
from riwoa.search.rng import generator
from riwoa.search.seen import Hashes, SeenPhenotypes
from riwoa.search.space import IntArray, Space

ELITES = 10  # of the best, from which children are made
UNIFORM, MUTANTS, CROSSINGS = 200, 300, 150  # architectures to choose from
CLIMBERS, MOST_STEPS = 3, 3  # of the most promising, and how far each goes
MOST_DRAWS = 20  # times so many uniform architectures are looked through for those within a limit


@dataclass(frozen=True, slots=True)
class BayesianParameters(SearchParameters):
    """Settings of Bayesian optimisation. The population is whom children are made from."""

    first: int = parameter(5, "uniform candidates, before anything is expected", least=2)
    offspring: int = parameter(4, "candidates asked at once; as many as can be evaluated at the same time", least=1)


@dataclass(frozen=True, slots=True)
class _Pool:
    """Architectures to choose from: indices of every gene (n, genes), parents' rows (-1 for none), operators."""

    raw: IntArray
    parents: IntArray
    operators: npt.NDArray[np.str_]

    def take(self, rows: npt.ArrayLike) -> _Pool:
        index = np.asarray(rows, dtype=np.int64)
        return _Pool(self.raw[index], self.parents[index], self.operators[index])


class BayesianSearch(PopulationStrategy):
    """Asks those of which most improvement is expected; uniform ones while too little is known."""

    name = "gp"
    parameters = BayesianParameters
    params: BayesianParameters
    uses_latency = True
    uses_predictor = True
    uses_posterior = True
    searches_front = True

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int,
        params: SearchParameters,
        latency_of: LatencyOf | None = None,
    ) -> None:
        super().__init__(space, objective, seed, params, latency_of)
        self._seen = SeenPhenotypes(space)

    # -- ask -----------------------------------------------------------------------------------------------------------

    def _propose(self) -> list[Proposal]:
        count = self.params.offspring if len(self.population) else self.params.first
        if self.posterior is None or not len(self._best):
            pool = self._uniform(count, self._seen.hashes)
        else:
            pool = self._promising(self.posterior, count)
        genotypes = self.codec.encode(pool.raw)
        return [
            Proposal(slot, str(pool.operators[slot]), genotype, self.origin(row) if row >= 0 else None)
            for slot, (genotype, row) in enumerate(zip(genotypes, pool.parents.tolist(), strict=True))
        ]

    def _uniform(self, count: int, taken: Hashes) -> _Pool:
        """Uniform architectures, new and within the limit as far as a number of draws finds them."""
        draw = generator(self.seed, self.generation, "gp.uniform")
        drawn = self._draw_uniform(draw, MOST_DRAWS * UNIFORM)
        canonical = self.space.canonical(drawn)
        _, first = np.unique(canonical, axis=0, return_index=True)
        first = np.sort(first)
        new = first[~np.isin(self._seen.hash(canonical[first]), taken)]
        within = (i for i in new if self._excess(canonical[[i]])[0] == 0.0)
        chosen = [drawn[i] for i in itertools.islice(within, count)]
        while len(chosen) < count:  # the space is asked out, or the limit is hard to meet
            chosen.append(self._stepped_within(drawn[len(chosen)]))
        return _Pool(np.stack(chosen), np.full(count, -1), np.full(count, "init"))

    def _stepped_within(self, raw: IntArray) -> IntArray:
        """Stepped by single choices to where the limit is exceeded least."""
        excess = self._excess(self.space.canonical(raw[None, :]))[0]
        while excess > 0.0:
            steps = self._neighbours(raw)
            beyond = self._excess(self.space.canonical(steps))
            if not len(beyond) or not beyond.min() < excess:
                break
            excess, raw = beyond.min(), steps[int(np.argmin(beyond))]
        return raw

    def _promising(self, posterior: Posterior, count: int) -> _Pool:
        """The best of the pool, one after another, each as if those before it had come out as expected."""
        pool = self._drawn()
        improvement = self._improvement(posterior)
        chosen: list[_Pool] = []
        taken = self._seen.hashes
        for _ in range(count):
            one = self._climb(posterior, pool, improvement, taken)
            if one is None:  # nothing new is within reach: what was met before costs nothing
                one = self._uniform(1, taken)
            canonical = self.space.canonical(one.raw)
            taken = np.concatenate((taken, self._seen.hash(canonical)))
            chosen.append(one)
            if improvement.needs_loads:
                improvement = improvement.believing(float(posterior.predict(canonical)[0][0]), self._load(canonical[0]))
            posterior = posterior.believe(canonical)
        parts = zip(*((c.raw, c.parents, c.operators) for c in chosen), strict=True)
        return _Pool(*(np.concatenate(part) for part in parts))

    def _improvement(self, posterior: Posterior) -> Improvement:
        """What is to grow: the front's area where one is wanted and loads are known, else the leader's score."""
        if self.objective.front and self.latency_of is not None:
            front = self.objective.staircase(self.population.accuracy, self.population.latency_ms)
            return FrontImprovement.of(front, posterior.score, posterior.value)
        is_led = bool(self.objective.feasible(self._best.latency_ms)[0])
        return BestScore(posterior.score(float(self._best.accuracy[0])) if is_led else -np.inf)

    def _load(self, indices: IntArray) -> float:
        """Of a phenotype, where it is known; none counts as boundless."""
        found = self.latency_of(indices) if self.latency_of is not None else None
        return np.inf if found is None else found

    def _climb(self, posterior: Posterior, pool: _Pool, improvement: Improvement, taken: Hashes) -> _Pool | None:
        """The architecture of most expected improvement that climbing from the pool finds; None for no new one."""
        found: tuple[float, _Pool] | None = None
        for _ in range(MOST_STEPS + 1):
            canonical = self.space.canonical(pool.raw)
            new = np.flatnonzero(~np.isin(self._seen.hash(canonical), taken))
            if not len(new):
                break
            loads = np.array([self._load(row) for row in canonical[new]]) if improvement.needs_loads else np.empty(0)
            promise = improvement.log_expected(*posterior.predict(canonical[new]), loads)
            order = np.argsort(-np.round(promise, 9), kind="stable")
            # Loads are asked for one at a time, the most promising first: a table of 46 genes takes a while to sum.
            within = (i for i in order if self._excess(canonical[new[[i]]])[0] == 0.0)
            best = list(itertools.islice(within, CLIMBERS)) or order[:CLIMBERS]
            if found is not None and not promise[best[0]] > found[0] + 1e-9:
                break
            climbers = pool.take(new[best])
            found = (float(promise[best[0]]), climbers.take([0]))
            pool = self._around(climbers)
        return found[1] if found is not None else None

    # -- where to choose from ------------------------------------------------------------------------------------------

    def _drawn(self) -> _Pool:
        draw = generator(self.seed, self.generation, "gp.pool")
        most = len(self.population) if self.objective.front else ELITES
        order = self.objective.survivors(self.population.accuracy, self.population.latency_ms, most)
        elites = self.codec.raw_indices(self.population.genotype[order])
        parents = draw.integers(len(order), size=MUTANTS)
        rates = draw.choice([1.0, 2.0, 4.0], size=(MUTANTS, 1))
        mutants = self._mutated(draw, elites[parents], rates)
        first, second = draw.integers(len(order), size=(2, CROSSINGS))
        crossed = np.where(draw.random((CROSSINGS, len(self.space))) < 0.5, elites[first], elites[second])
        crossings = self._mutated(draw, crossed, np.ones((CROSSINGS, 1)))
        counts = (UNIFORM, MUTANTS, CROSSINGS)
        return _Pool(
            np.concatenate((self._draw_uniform(draw, UNIFORM), mutants, crossings)),
            np.concatenate((np.full(UNIFORM, -1), order[parents], order[first])),
            np.repeat(["init", "mutate", "recombine"], counts),
        )

    def _draw_uniform(self, draw: np.random.Generator, count: int) -> IntArray:
        return np.asarray(draw.integers(0, self.space.cardinalities, (count, len(self.space))), dtype=np.int64)

    def _mutated(self, draw: np.random.Generator, raw: IntArray, rates: FloatArray) -> IntArray:
        """Each gene gets another choice with a chance of rate / genes, and one gene at least does."""
        cards = self.space.cardinalities
        moved = draw.random(raw.shape) < rates / len(self.space)
        surely = draw.integers(len(self.space), size=len(raw))
        moved[np.arange(len(raw)), surely] |= ~moved.any(axis=1)
        other = draw.integers(0, np.maximum(1, cards - 1), raw.shape)
        return np.where(moved, np.minimum(other + (other >= raw), cards - 1), raw)

    def _around(self, pool: _Pool) -> _Pool:
        """Everything one step away from each of a pool."""
        steps = [self._neighbours(raw) for raw in pool.raw]
        rows = np.repeat(np.arange(len(steps)), [len(s) for s in steps])
        around = pool.take(rows)
        operators = np.where(around.parents < 0, "init", around.operators)
        return _Pool(np.concatenate(steps) if len(rows) else pool.raw[:0], around.parents, operators)

    def _neighbours(self, raw: IntArray) -> IntArray:
        """Indices one step away, (n, genes)."""
        out = []
        for gene in range(len(raw)):
            for choice in self.space.neighbours(gene, int(raw[gene])):
                out.append(raw.copy())
                out[-1][gene] = choice
        return np.array(out, dtype=np.int64).reshape(-1, len(raw))

    # -- tell and state ------------------------------------------------------------------------------------------------

    def _absorb(self, children: Members, late: Members) -> None:
        told = children.join(late)
        self._seen.add(self.codec.decode(told.genotype))
        candidates = self.population.join(told)
        kept = self.objective.survivors(candidates.accuracy, candidates.latency_ms, self.params.population)
        self.population = candidates.take(kept)

    def _may_have(self, members: int) -> bool:
        return members <= self._size or self.objective.front  # a front stays whole

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        return super().snapshot() | {"seen": self._seen.hashes.copy()}

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        super().restore(snapshot)
        self._seen.hashes = np.array(snapshot["seen"], dtype=np.uint64)

"""Bayesian optimisation: asks the architectures of which most improvement is expected, by a process of all evaluations.

The expectation is of the score of a rank (``riwoa.surrogate.mixture``) above the leader's. Architectures to choose from
are mutants and crossings of the best and uniform ones, and what they lead to (``riwoa.search.joint``). A limit that is
known beforehand is kept by everything that is asked, as far as anything within it is found.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.bandit import PoolCredit, shares_of
from riwoa.search.base import (
    Elite,
    Identity,
    LatencyOf,
    Members,
    Outcome,
    PopulationStrategy,
    Posterior,
    Proposal,
    SearchParameters,
    Snapshot,
    parameter,
)
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.improvement import BestImprovement, FrontImprovement, TargetsImprovement
from riwoa.search.joint import Acquisition, JointChoice
from riwoa.search.pool import SUGGESTED, Excess, Pool, Variation
from riwoa.search.rng import generator
from riwoa.search.seen import Hashes, SeenPhenotypes
from riwoa.search.space import IntArray, Space
from riwoa.search.targets import LoadsEach

ELITES = 10  # of the best, from which children are made
UNIFORM, MUTANTS, CROSSINGS = 50, 150, 75  # architectures to choose from
MOST_DRAWN = 4_000  # uniform architectures looked through for those within a limit
MOST_STEPPED = 20  # of them are stepped to within it where too few are
LEAST_FIRST, MOST_FIRST = 5, 200


@dataclass(frozen=True, slots=True)
class BayesianParameters(SearchParameters):
    """Settings of Bayesian optimisation. The population is whom children are made from."""

    first: int = parameter(
        0, "evaluations before anything is expected of others; 0: one a gene, 5 to 200", least=0, most=400
    )
    learned_shares: bool = parameter(
        False, "operators whose children join the population get more places in the pool that is chosen from"
    )
    learn_failures: bool = parameter(
        True, "what fails, or is given up on a lower rung, teaches too; false: as earlier versions did"
    )


class BayesianSearch(PopulationStrategy):
    """Asks those of which most improvement is expected; uniform ones while too little is known."""

    name = "gp"
    parameters = BayesianParameters
    params: BayesianParameters
    uses_latency = True
    uses_predictor = True

    @classmethod
    def of_scores(cls, params: SearchParameters) -> bool:
        """Always: what is expected is a score."""
        return True

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int,
        params: SearchParameters,
        latency_of: LatencyOf | None = None,
        loads_each: LoadsEach | None = None,
    ) -> None:
        super().__init__(space, objective, seed, params, latency_of, loads_each)
        self._seen = SeenPhenotypes(space)
        self._variation = Variation(space)
        self._joint = JointChoice(space, self._seen, self._excess)
        self._rivals: Mapping[int, int] = {}  # of what is asked, by slot, the slots beside which they are
        # Those told last that failed, one after the other: uniform ones in between find back from beyond the border.
        self._failures = 0
        self._credit = PoolCredit.none()

    # -- ask -----------------------------------------------------------------------------------------------------------

    def elites(self, joining: int) -> Sequence[Elite]:
        """See ``Strategy.elites``."""
        if not self.of_scores(self.params):
            return ()
        known = max(len(self._seen.hashes), 0 if self.posterior is None else self.posterior.count)
        told_a_generation = 1 if self.params.asynchronous else self.params.offspring
        if not len(self._best) or known + (joining - self.generation) * told_a_generation < self._first:
            return ()
        order = self.ranking(self.population)[:ELITES]
        return [Elite(self.origin(int(row)), self.population.genotype[row].copy()) for row in order]

    def _propose(self) -> list[Proposal]:
        pool = self._chosen()
        genotypes = self.codec.encode(pool.raw)
        return [
            Proposal(
                slot,
                str(pool.operators[slot]),
                genotype,
                self._parent(row),
                suggested=SUGGESTED - row if row <= SUGGESTED else None,
                rival_of=self._rivals.get(slot),
            )
            for slot, (genotype, row) in enumerate(zip(genotypes, pool.parents.tolist(), strict=True))
        ]

    def _parent(self, row: int) -> Identity | None:
        """Whom a row of the pool names as parent: a member, a suggestion's, or nobody."""
        if row <= SUGGESTED:
            return self._suggestions[SUGGESTED - row].parent
        return self.origin(row) if row >= 0 else None

    def _suggested(self) -> Pool:
        """What others suggest; a suggestion's parent need not be a member any more."""
        genotypes = [s.genotype for s in self._suggestions]
        raw = self.codec.raw_indices(np.stack(genotypes)) if genotypes else np.empty((0, len(self.space)), np.int64)
        operators = np.array([s.operator for s in self._suggestions], dtype=np.str_)
        return Pool(raw, SUGGESTED - np.arange(len(raw)), operators)

    def _chosen(self) -> Pool:
        """What to ask: uniform architectures at first, then the most promising."""
        self._rivals = {}
        count, posterior = self._room, self.posterior
        taken = np.concatenate((self._seen.hashes, self._seen.hash(self._under_way)))
        unknown = posterior is None or not len(self._best) or posterior.count < self._first
        if posterior is None or unknown or self._failed:
            return self._uniform(count, taken)
        acquisition = self._acquisition(posterior)
        for row in self._under_way[:, None]:
            acquisition, posterior = acquisition.believing(posterior, row), posterior.believe(row)
        # Last: what other operators made, too, is theirs.
        pool = self._pool().join(self._suggested())
        asked = self._joint.choose(pool, count, taken, posterior, acquisition, self._draws(), self._rival_draws)
        found, self._rivals = asked.pool, asked.rivals
        if len(found) == count:
            return found
        # Nothing new is within reach: what was met before costs nothing.
        hashes = self._seen.hash(self.space.canonical(found.raw))
        return found.join(self._uniform(count - len(found), np.concatenate((taken, hashes))))

    @property
    def _failed(self) -> bool:
        """Whether everything failed that was told last; asynchronously, as many as are under way at a time."""
        return self._failures >= (self.params.offspring if self.params.asynchronous else 1)

    def _acquisition(self, posterior: Posterior) -> Acquisition:
        """What is to grow: the front's area where one is wanted and loads are known, else the leader's score."""
        limit = self.objective.limit
        if self.loads_each is not None:
            known = self.population.accuracy, self.target_loads(self.population)
            return TargetsImprovement.of(*known, posterior, self.loads_each, self._asked_before)
        if self.objective.front and limit is not None and self.latency_of is not None:
            return FrontImprovement.of(self.population, limit, posterior, self.latency_of, self._asked_before)
        return BestImprovement(posterior.score(float(self._best.accuracy[0])) if self._is_led else -np.inf)

    @property
    def _asked_before(self) -> int:
        """Candidates of the generations before."""
        return self._told if self.params.asynchronous else self.generation * self.params.offspring

    @property
    def _first(self) -> int:
        return self.params.first or min(max(LEAST_FIRST, len(self.space)), MOST_FIRST)

    @property
    def _is_led(self) -> bool:
        return bool(self.objective.feasible(self._best.latency_ms)[0])

    def _draws(self) -> Iterator[np.random.Generator]:
        return (generator(self.seed, self.generation, "gp.children", n) for n in itertools.count())

    def _rival_draws(self, slot: int) -> Iterator[np.random.Generator] | None:
        """Streams for what a slot would have asked without suggestions, in a share of the cases."""
        # Asynchronously one is asked at a time, and what is told together was not chosen together.
        share = 0.0 if self.params.asynchronous else self.params.counterfactual_share
        if generator(self.seed, self.generation, "gp.counterfactual", slot).random() >= share:
            return None
        return (generator(self.seed, self.generation, f"gp.rival.{slot}", n) for n in itertools.count())

    def _uniform(self, count: int, taken: Hashes) -> Pool:
        """Uniform architectures, new and within the limit as far as a number of draws finds them."""
        draw = generator(self.seed, self.generation, "gp.uniform")
        drawn = self._variation.uniform(draw, MOST_DRAWN)
        canonical = self.space.canonical(drawn)
        _, first = np.unique(canonical, axis=0, return_index=True)
        first = np.sort(first)
        new = first[~np.isin(self._seen.hash(canonical[first]), taken)]
        if self.loads_each is not None:
            return Pool.of(np.stack(self._in_turns(drawn, new, count, taken, self.loads_each)), "init")
        within = (i for i in new if self._excess(canonical[[i]])[0] == 0.0)
        chosen = [drawn[i] for i in itertools.islice(within, count)]
        if len(chosen) < count:
            met = self._seen.hash(self.space.canonical(np.array(chosen, dtype=np.int64).reshape(-1, len(self.space))))
            chosen += self._stepped(drawn, count - len(chosen), np.concatenate((taken, met)), self._excess)
        return Pool.of(np.stack(chosen), "init")

    def _in_turns(
        self, drawn: IntArray, new: IntArray, count: int, taken: Hashes, loads_each: LoadsEach
    ) -> list[IntArray]:
        """The first of those drawn that serves the next target, and so on: no target waits for chance to serve it."""
        left, chosen = new.tolist(), list[IntArray]()
        for turn in range(self._asked_before, self._asked_before + count):
            target = turn % len(self.objective.targets)

            def excess(indices: IntArray, target: int = target) -> FloatArray:
                return np.maximum(loads_each(indices)[:, target] - 1.0, 0.0)

            row = next((i for i in left if excess(self.space.canonical(drawn[[i]]))[0] == 0.0), None)
            if row is not None:
                left.remove(row)
            chosen += [drawn[row]] if row is not None else self._stepped(drawn, 1, taken, excess)
            taken = np.append(taken, self._seen.hash(self.space.canonical(chosen[-1][None, :])))
        return chosen

    def _stepped(self, drawn: IntArray, count: int, taken: Hashes, excess: Excess) -> list[IntArray]:
        """Architectures stepped to within a limit that is hard to meet, new ones first."""
        new: list[IntArray] = []
        old: list[IntArray] = []
        for raw in drawn[: max(count, MOST_STEPPED)]:
            one = self._variation.stepped_within(raw, excess)
            (met,) = self._seen.hash(self.space.canonical(one[None, :]))
            (old if met in taken else new).append(one)
            taken = np.append(taken, met)
            if len(new) == count:
                break
        return [*new, *old][:count]

    @property
    def shares(self) -> Mapping[str, float]:
        """See ``Strategy.shares``."""
        learned = self.params.learned_shares and self.of_scores(self.params)
        return shares_of(self._quotas()) if learned else {}

    def _quotas(self) -> list[int]:
        """Places of the pool, by ``riwoa.search.bandit.FAMILIES``."""
        usual = self._usual()
        return self._credit.places(usual) if self.params.learned_shares else usual

    def _usual(self) -> list[int]:
        """Places where none are learned: of uniform ones, mutants, crossings, and others that a strategy adds."""
        return [UNIFORM, MUTANTS, CROSSINGS]

    def _pool(self) -> Pool:
        """Architectures to choose from."""
        uniforms, mutations, crossings = self._quotas()[:3]
        draw = generator(self.seed, self.generation, "gp.pool")
        order = self.survival(self.population)
        order = order if self.objective.front else order[:ELITES]  # a front is searched along all of it
        elites = self.codec.raw_indices(self.population.genotype[order])
        uniform = self._variation.uniform(draw, uniforms)
        parents = draw.integers(len(order), size=mutations)
        mutants = self._variation.mutated(draw, elites[parents], draw.choice([1.0, 2.0, 4.0], size=mutations))
        first, second = draw.integers(len(order), size=(2, crossings))
        crossed = self._variation.crossed(draw, elites[first], elites[second])
        changed = self._variation.mutated(draw, crossed, np.ones(crossings))
        return Pool.of(uniform, "init").join(
            Pool.of(mutants, "mutate", order[parents]), Pool.of(changed, "recombine", order[first])
        )

    @property
    def avoids_repeats(self) -> bool:
        """See ``Strategy.avoids_repeats``."""
        return True

    # -- tell and state ------------------------------------------------------------------------------------------------

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy.tell``."""
        generation = self.generation
        super().tell(outcomes)
        lost = (np.isnan(o.accuracy) and not (o.given_up and self.params.learn_failures) for o in outcomes)
        self._failures = self._failures + len(outcomes) if self.of_scores(self.params) and all(lost) else 0
        if self.params.learned_shares:
            survivors = self.population.origin
            places = {int(slot): row for row, (of, slot) in enumerate(survivors) if of == generation}
            self._credit = self._credit.later(outcomes, places, len(survivors))

    def _absorb(self, children: Members, late: Members) -> None:
        told = children.join(late)
        self._seen.add(self.codec.decode(told.genotype))
        candidates = self.population.join(told)
        order = self.survival(candidates)
        self.population = candidates.take(order[: self._survivors_count(candidates)])

    def _survivors_count(self, candidates: Members) -> int:
        """How many of them survive: a front stays whole, however many it has."""
        return max(self.params.population, self.objective.front_size(candidates.accuracy, candidates.latency_ms))

    def _may_have(self, members: int) -> bool:
        return members <= self._size or self.objective.front

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        failures = np.array(self._failures if self.params.asynchronous else True)
        failed = {"failed": failures} if self._failures else {}
        credit = self._credit.columns() if self.params.learned_shares else {}
        return super().snapshot() | {"seen": self._seen.hashes.copy()} | failed | credit

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        super().restore(snapshot)
        self._seen.hashes = np.array(snapshot["seen"], dtype=np.uint64)
        self._failures = int(np.asarray(snapshot.get("failed", 0)))
        if self.params.learned_shares:
            self._credit = PoolCredit.of(snapshot)

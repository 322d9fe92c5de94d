"""RI-IWOA: whale optimisation whose moves do not care how the landscape is rotated, chosen by what a surrogate expects.

Whale moves, mutants and crossings of the best, and uniform architectures are one pool, from which those are asked of
which most improvement is expected (``riwoa.search.bayesian``, ``joint = true``). Without ``joint`` every member of the
population has a slot, for which the most promising of ``screened`` of its own children is asked: the search of earlier
versions, of which the tables below tell.

What is in and what is out was settled by ablation, each against the rest of the algorithm: 50 (in) and 40 (out) seeds,
population 20, best feasible accuracy after 200 unique evaluations. OFA's accuracy predictor with its Note10 latency
table at 20, 25 and 35 ms (46 genes), NAS-Bench-201 CIFAR-100 (6 nominal genes, no target): percentage points. A
shifted, rotated ellipsoid (20 genes of 64 choices): decades. Negative is a loss; * p < 0.05, ** p < 0.001, paired
Wilcoxon. (With at most 50 repairs a child; 100 leave none beyond a target that can be met.)

=============================  =======  =======  =======  ======  =========
taken out                        20 ms    25 ms    35 ms  NB-201  ellipsoid
=============================  =======  =======  =======  ======  =========
screen (screened = 16) †       -0.43**  -0.35**  -0.36**  -0.01
latency_of (free latency)      -0.85**  -0.52**  -0.23**     0        0
elitism                         -0.04    -0.03    -0.08*   0.02    -0.06
avoid_duplicates                -0.01     0.00    -0.02   -0.21*    0.00
signed_spiral                    0.00     0.02    -0.02    0.11    -0.09*
rotated_encircle                -0.03    -0.02    -0.09*   0.01    -0.06
both of these                   -0.04     0.02    -0.03   -0.03    -0.12**
p_recombine = 0.3               -0.02    -0.03    -0.09*  -0.03    -0.07*
=============================  =======  =======  =======  ======  =========

=============================  =======  =======  =======  ======  =========
stayed out                       20 ms    25 ms    35 ms  NB-201  ellipsoid
=============================  =======  =======  =======  ======  =========
a = 2(1 - tau^1.5)               0.00     0.00    -0.01    0.00     0.00
a = 2(1 - tau)^2                 0.09*    0.03     0.02   -0.03    -0.10*
opposition initialisation        0.04     0.01    -0.02    0.11    -0.06
adaptive weight of the leader    0.05     0.01    -0.03    0.01     0.06
Lévy flight on stagnation        0.02    -0.03    -0.01   -0.01     0.00
restart half on stagnation      -0.01    -0.05*    0.01   -0.01     0.00
shrinking population (to 8)      0.09*    0.10*    0.00    0.06    -0.04
three leaders                    0.00     0.00    -0.11*   0.10    -0.07
recombination in eigenbasis     -0.04    -0.03    -0.11*   0.04    -0.08*
parents from the top quarter     0.08     0.01    -0.02    0.00    -0.06
crossing each move with leader   0.13**   0.12*    0.05    0.01    -0.11**
one more ±1 step each child      0.03     0.04    -0.02   -0.02    -0.07*
p_recombine = 0.5                0.03     0.03    -0.04    0.13*    0.01
elite_fraction = 0.25            0.09*    0.07     0.05    0.01    -0.05
population 14                    0.07     0.10*    0.04    0.12     -0.01
population 10                    0.08*    0.18**   0.08*   0.17*    -0.20**
=============================  =======  =======  =======  ======  =========

† Later than the others: 30 seeds, of which five and ten had served to choose the number of children and the optimism.
On NAS-Bench-201 it brings the best cell sooner and is now and then misled; within 20 ms on a Raspberry Pi 4 it is worth
0.51*. All other rows are without it.

Crossing with the leader is tied to the axes, and is worth half as much with a population of 14; a smaller constant
population gives what shrinking one gives. Repairing a child by drawing its move again, up to 10 or 30 times, instead of
by single steps cost 0.1 to 0.3 points.

On 30 other seeds, mean best at 20 / 25 / 35 ms: RI-IWOA 80.14 / 81.10 / 82.22, WOA 79.15 / 80.45 / 81.84, WOA whose
children are repaired in the same way 79.94 / 80.80 / 82.06, random 78.53 / 80.06 / 81.46, regularised evolution (20, 5)
that mutates until within the target 79.55 / 80.86 / 82.30. Without ``latency_of`` RI-IWOA reaches 79.13 / 80.53 /
82.03: knowing the latency for free is worth more than everything else together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search import whale
from riwoa.search.base import LatencyOf, Members, Proposal, SearchParameters, Snapshot, parameter
from riwoa.search.bayesian import BayesianParameters, BayesianSearch
from riwoa.search.covariance import eigenbasis, shrunk_covariance
from riwoa.search.dreams import Dreams
from riwoa.search.fitness import BoolArray, FloatArray, Objective
from riwoa.search.pool import Pool
from riwoa.search.race import Cut
from riwoa.search.repair import Repair
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space
from riwoa.search.targets import NOBODY, LoadsEach, leaders

Children = tuple[FloatArray, npt.NDArray[np.str_], IntArray]  # vectors (n, D), operators and parents' rows (n,)
_ASKING = ("semantic", "placebo")
MOVES = 4  # of each member, to choose jointly from
ATTACKS = 0.5  # of the slots, of which ``p_semantic`` is a share
NEWEST = 0.3  # weight of the newest elite covariance in the moving average


@dataclass(frozen=True, slots=True)
class RiwoaParameters(BayesianParameters):
    """Settings of RI-IWOA beyond those of whale optimisation; the table above says what each is worth."""

    spiral_b: float = parameter(1.0, "shape of the spiral: b in exp(b l) cos(2 pi l)", least=0, most=100)
    joint: bool = parameter(True, "choose what is asked together, by expected improvement; false: a child a member")
    elite_fraction: float = parameter(0.5, "share of the population that shapes mean and covariance", least=0, most=1)
    basis_every: int = parameter(5, "generations between eigendecompositions", least=1)
    elitism: bool = parameter(True, "parents and children compete for a place, as always with joint = true")
    avoid_duplicates: bool = parameter(True, "step away from architectures evaluated before")
    signed_spiral: bool = parameter(True, "the spiral keeps the sign of the distance")
    rotated_encircle: bool = parameter(True, "encircle in the eigenbasis too")
    p_recombine: float = parameter(0.3, "share of geometric moves that cross two elites instead", least=0, most=1)
    dreams: float = parameter(
        0.0,
        "share of generations in which one candidate is a dream between distant elites; joint = true",
        least=0,
        most=1,
    )
    screened: int = parameter(
        16,
        "without joint: children drawn a member, of which a predictor learned from the run chooses; 1 = none",
        least=1,
        most=10_000,  # a generation's children are held in memory at once
    )


class RotationInvariantWhale(BayesianSearch):
    """Whale optimisation in the eigenbasis of its elites.

    Phases: p >= ½ attacks (spiral, or a language-model slot with the spiral as fallback); else |A| >= 1 searches; else
    encircles. *Search*, with elite mean m and eigenbasis B: y = Bᵀ(x − m), y' = y_r − A ⊙ |C ⊙ y_r − y|, x' = m + B y',
    with A and C drawn per eigen-axis.
    """

    name = "riwoa"
    parameters = RiwoaParameters
    params: RiwoaParameters

    @classmethod
    def screens(cls, params: SearchParameters) -> bool:
        """Where children are chosen jointly, or more than one is drawn for a slot."""
        given = RiwoaParameters.of(params)
        return given.joint or given.screened > 1

    @classmethod
    def of_scores(cls, params: SearchParameters) -> bool:
        """Where children are chosen jointly."""
        return RiwoaParameters.of(params).joint

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
        d = self.codec.dimension
        self._covariance: FloatArray = np.eye(d) / 12.0  # of the uniform distribution
        self._basis: FloatArray = np.eye(d)
        self._repair = Repair(self.codec, seed, self._excess)
        self._dreams = Dreams(space, self._seen, self._excess)

    # -- ask -----------------------------------------------------------------------------------------------------------

    def _propose(self) -> list[Proposal]:
        return self._together() if self.params.joint else self._by_slots()

    def _together(self) -> list[Proposal]:
        """What is chosen jointly; some of the slots ask the language model for a child of the same parent instead."""
        chosen = super()._propose()
        asks, placebo = generator(self.seed, self.generation, "riwoa.asks").random((2, len(chosen)))
        genotypes = {self.origin(row): genotype for row, genotype in enumerate(self.population.genotype)}
        out = []
        for p, ask, other in zip(chosen, asks.tolist(), placebo.tolist(), strict=True):
            if p.parent in genotypes and ask < ATTACKS * self.params.p_semantic:
                operator = "placebo" if other < self.params.placebo_share else "semantic"
                parent = genotypes[p.parent].copy()
                p = Proposal(p.slot, operator, p.genotype, p.parent, parent, fallback=p.operator)
            out.append(p)
        return out

    def _chosen(self) -> Pool:
        """See ``BayesianSearch``; now and then a dream takes the place of the last."""
        chosen, draw = super()._chosen(), generator(self.seed, self.generation, "riwoa.dreams")
        if self.posterior is None or draw.random() >= self.params.dreams or (chosen.operators == "init").all():
            return chosen
        rows, posterior, acquisition = self._elite_rows(), self.posterior, self._acquisition(self.posterior)
        elites = Pool.of(self.codec.raw_indices(self.population.genotype[rows]), "dream", rows)

        def promise(indices: IntArray) -> FloatArray:
            return acquisition.promise(posterior, indices) + posterior.log_success(indices)

        self._rivals = {slot: of for slot, of in self._rivals.items() if slot != len(chosen) - 1}
        return self._dreams.instead_of_last(chosen, elites, promise, draw)

    def _pool(self) -> Pool:
        """Whale moves of the whole population beside mutants, crossings and uniform architectures."""
        pools, moves = [], self._quotas()[-1]
        for variant in range(math.ceil(moves / len(self.population))):
            vectors, operators, parents = self._moves(variant)
            raw = self.codec.raw_indices(self.codec.reflect(vectors))
            pools.append(Pool(raw, parents, np.where(np.isin(operators, _ASKING), "spiral", operators)))
        others = super()._pool()
        return others.join(*pools).take(np.arange(len(others) + moves))

    def _usual(self) -> list[int]:
        return [*super()._usual(), MOVES * len(self.population)]

    def _by_slots(self) -> list[Proposal]:
        vectors, operators, parents = self._screened()
        return [
            Proposal(
                slot,
                str(operators[slot]),
                vector,
                None if operators[slot] == "init" else self.origin(int(parents[slot])),
                self.population.genotype[slot].copy() if operators[slot] in _ASKING else None,
            )
            for slot, vector in enumerate(vectors)
        ]

    def _screened(self) -> Children:
        """One child a slot: of those drawn, the one whose fitness may well become the greatest.

        A slot that asks the language model, or a placebo, still does; the spiral that stands in for its reply is chosen
        among spirals.
        """
        first = self._children()
        # Where a target's latencies are not free to know, the most accurate would all be too slow.
        blind = self.latency_of is None and self.objective.limit is not None
        if self.screen is None or self.params.screened == 1 or blind:
            return first
        drawn = [first, *(self._children(v) for v in range(1, self.params.screened))]
        vectors, operators, parents = (np.stack(part) for part in zip(*drawn, strict=True))  # (variants, n, ...)
        indices = self.codec.decode(vectors.reshape(-1, self.codec.dimension))
        places = self._places(indices).reshape(operators.shape)
        hashes = self._seen.hash(indices).reshape(operators.shape)
        asks = np.isin(operators, _ASKING)
        chosen = np.zeros(operators.shape[1], dtype=np.int64)
        taken: list[np.uint64] = []
        for slot in range(len(chosen)):
            eligible = asks[:, slot] | (operators[:, slot] == "spiral") if asks[0, slot] else ~asks[:, slot]
            new = eligible & ~np.isin(hashes[:, slot], taken) if self.params.avoid_duplicates else eligible
            among = np.flatnonzero(new if new.any() else eligible)
            chosen[slot] = among[np.argmin(places[among, slot])]
            taken.append(hashes[chosen[slot], slot])
        slots = np.arange(len(chosen))
        keep = np.where(asks[0], 0, chosen)
        return vectors[chosen, slots], operators[keep, slots], parents[keep, slots]

    def _places(self, indices: IntArray) -> IntArray:
        """Each phenotype's place, most promising first, those seen before behind all others. (n, G) in, (n,) out."""
        assert self.screen is not None
        upper = np.round(self.screen(indices), 9)  # what differs by less is no reason for a choice
        target_ms = self.objective.limit
        if self.latency_of is None or target_ms is None:
            latency_ms = np.zeros(len(indices))
        else:  # one that is not free to know is taken to be within the target
            found = [self.latency_of(row) for row in indices]
            latency_ms = np.array([target_ms if ms is None else ms for ms in found])
        order = np.lexsort((-self.objective.fitness(upper, latency_ms), ~self.objective.feasible(latency_ms)))
        if self.params.avoid_duplicates:
            order = order[np.argsort(self._seen.hold(self._seen.hash(indices[order])), kind="stable")]
        places = np.empty(len(order), dtype=np.int64)
        places[order] = np.arange(len(order))
        return places

    def _children(self, variant: int = 0) -> Children:
        """One draw of every slot's child, new and within the target as far as ``_settle`` gets it."""
        vectors, operators, parents = self._moves(variant)
        return self._settle(self.codec.reflect(vectors), variant), operators, parents

    def _moves(self, variant: int) -> Children:
        """Where the members go, by which operator, and from which row of the population. Not yet within the cube."""
        n, d = len(self.population), self.codec.dimension
        if not len(self._best):  # nothing is known yet, or everything failed
            n = self.params.population
            start = generator(self.seed, self.generation, "riwoa.init", variant).random((n, d))
            return start, np.full(n, "init"), np.zeros(n, dtype=np.int64)
        draw = generator(self.seed, self.generation, "riwoa.moves", variant).random
        p, phase_r, turn, mate, model, placebo, recombine, mother, father = draw((9, n, 1))
        a = whale.control(self.tau)
        axis_a, axis_c = whale.coefficient_a(a, draw((n, d))), whale.coefficient_c(draw((n, d)))
        attack, far = p >= 0.5, np.abs(whale.coefficient_a(a, phase_r)) >= 1.0
        crossed = recombine < self.params.p_recombine
        asked = attack & (model < self.params.p_semantic)
        elites = self._elite_rows()
        first, second = elites[_pick(mother, len(elites))], elites[_pick(father, len(elites))]
        x = self.population.genotype
        cases = [asked | (attack & ~crossed), crossed, far]
        moved = np.select(
            cases,
            [
                self._spiral(x, 2.0 * turn - 1.0),
                np.where(draw((n, d)) < 0.5, x[first], x[second]),
                self._search(x, _pick(mate, n), axis_a, axis_c),
            ],
            self._encircle(x, axis_a, axis_c),
        )
        asks = np.where(placebo < self.params.placebo_share, "placebo", "semantic")
        operators = np.select(cases, [np.where(asked, asks, "spiral"), "recombine", "search"], "encircle")
        parents = np.where((operators == "recombine")[:, 0], first, np.arange(n))
        return moved, operators[:, 0], parents

    def _spiral(self, x: FloatArray, turn: FloatArray) -> FloatArray:
        leader, b = self._led_by(), self.params.spiral_b
        return (
            whale.signed_spiral(leader, x, turn, b) if self.params.signed_spiral else whale.spiral(leader, x, turn, b)
        )

    def spirals(self, rows: IntArray, turns: FloatArray) -> FloatArray:
        """The children that the spiral makes of some members now, (n, D).

        ``turns`` in [-1, 1], (n, draws): of several the most promising, as a slot asks it, once there is a screen.
        """
        members, draws = self.population.genotype[rows], turns.shape[1]
        drawn = np.stack(
            [
                self._settle(self.codec.reflect(self._spiral(members, turns[:, [variant]])), variant)
                for variant in range(draws if self.screen is not None else 1)
            ]
        )  # (draws, n, D)
        if self.screen is None:
            return np.asarray(drawn[0])
        places = self._places(self.codec.decode(drawn.reshape(-1, self.codec.dimension))).reshape(drawn.shape[:2])
        return np.asarray(drawn[places.argmin(axis=0), np.arange(len(rows))])

    def _encircle(self, x: FloatArray, a: FloatArray, c: FloatArray) -> FloatArray:
        leader = self._led_by()
        if not self.params.rotated_encircle:
            return whale.encircle(leader, x, a, c)
        mean, basis = self._elite_mean(), self._basis
        return np.asarray(mean + whale.encircle((leader - mean) @ basis, (x - mean) @ basis, a, c) @ basis.T)

    def _led_by(self) -> FloatArray:
        """Whom the moves follow, (1, D): the leader; of several targets that of another one each generation."""
        if self.loads_each is None:
            return self._best.genotype
        turn = self.generation % len(self.objective.targets)
        row = int(leaders(self.population.accuracy, self.target_loads(self.population))[turn])
        return self._best.genotype if row == NOBODY else self.population.genotype[[row]]

    def _search(self, x: FloatArray, other: IntArray, a: FloatArray, c: FloatArray) -> FloatArray:
        """The rotation-invariant search move, shape (n, D)."""
        mean, basis = self._elite_mean(), self._basis
        y = (x - mean) @ basis
        return np.asarray(mean + whale.search(y[other], y, a, c) @ basis.T)

    def _settle(self, vectors: FloatArray, variant: int = 0) -> FloatArray:
        """Children, (n, D), stepped until each is new and within the target, as far as ``Repair`` gets them."""
        return self._repair.settle(vectors, self._repeated, self.generation, variant)

    def _repeated(self, indices: IntArray) -> BoolArray:
        """Whether each phenotype was evaluated before or stands in an earlier slot. (n, G) in, (n,) out."""
        if not self.params.avoid_duplicates:
            return np.zeros(len(indices), dtype=np.bool_)
        hashes = self._seen.hash(indices)
        repeated = np.ones(len(hashes), dtype=np.bool_)
        repeated[np.unique(hashes, return_index=True)[1]] = False
        return np.asarray(repeated | self._seen.hold(hashes))

    @property
    def cut(self) -> Cut | None:
        """The last member: what does not beat it is gone after the generation.

        None without elitism, while there are places left, and while a repeat holds one, which any other phenotype would
        take.
        """
        hashes = self._seen.hash(self.codec.decode(self.population.genotype))
        full = len(np.unique(hashes)) == self.params.population
        # A front has room for whatever widens it, and the worst of all may be the best for a device.
        keeps_best = self.params.elitism and not self.objective.front and not self.objective.targets
        return self._cut_at(self.population) if keeps_best and full else None

    @property
    def avoids_repeats(self) -> bool:
        """See ``Strategy.avoids_repeats``."""
        return self.params.joint or self.params.avoid_duplicates

    # -- tell ----------------------------------------------------------------------------------------------------------

    def _absorb(self, children: Members, late: Members) -> None:
        told = children.join(late)
        self._seen.add(self.codec.decode(told.genotype))
        keeps_best = self.params.elitism or self.params.joint
        self.population = self._survivors(self.population.join(told)) if keeps_best else self._replaced(children)
        elites = self.population.genotype[self._elite_rows()]
        if len(elites) >= 2:  # the covariance of one point would drag the average towards nothing
            self._covariance = (1.0 - NEWEST) * self._covariance + NEWEST * shrunk_covariance(elites)
        if self.generation % self.params.basis_every == 0:
            _, self._basis = eigenbasis(self._covariance)

    def _survivors(self, candidates: Members) -> Members:
        """The best ``population`` candidates of different phenotypes, best first; repeats and failures fill up."""
        order = self.survival(candidates)
        phenotypes = self.codec.decode(candidates.genotype[order])
        distinct = order[np.sort(np.unique(self._seen.hash(phenotypes), return_index=True)[1])]
        others = np.setdiff1d(np.arange(len(candidates)), distinct)
        return candidates.take(np.concatenate((distinct, others))[: self._survivors_count(candidates)])

    def _elite_rows(self) -> IntArray:
        """Rows of the best ``elite_fraction`` of the population, best first; failures only where all members are."""
        order = self.ranking(self.population)
        if not len(order):  # only without elitism: the leader lives on, its population failed
            return np.arange(len(self.population))
        size = len(self.population) if self.params.joint else self.params.population
        return order[: max(2, round(self.params.elite_fraction * size))]

    def _elite_mean(self) -> FloatArray:
        rows = self._elite_rows()
        return np.asarray(self.population.genotype[rows].mean(axis=0))

    # -- state ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        return super().snapshot() | {"covariance": self._covariance.copy(), "basis": self._basis.copy()}

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        super().restore(snapshot)
        self._covariance = np.array(snapshot["covariance"], dtype=np.float64)
        self._basis = np.array(snapshot["basis"], dtype=np.float64)


def _pick(uniform: FloatArray, count: int) -> IntArray:
    """Indices below ``count`` from uniform numbers, shape (n, 1) in, (n,) out."""
    return np.minimum((uniform[:, 0] * count).astype(np.int64), count - 1)

"""Polish: the neighbourhood of the leader, most promising first; asked and told like any strategy.

Its state is what it has evaluated: what it asks next follows from that and from what is believed, so a restored polish
goes on where it stood, and one that an older version began goes on around its leader.

Measured on OFA's predictor at 20 / 25 / 35 ms: gain in points by 60 evaluations after 200 of RI-IWOA, before that chose
jointly (24 seeds; of Bayesian optimisation, 8 seeds, in brackets).

- single changes in random order 0.01 / 0.05 / 0.09 (0 / 0 / 0.01): they are used up after 19 to 48 evaluations; with
  Nelder-Mead in two random directions first 0.01 / 0.06 / 0.09, so that is out;
- single changes by expected improvement 0.01 / 0.05 / 0.14 (0 / 0 / 0.01);
- of one change and of two, by expected improvement 0.10 / 0.14 / 0.34 (0.04 / 0.10 / 0.09), ahead of all of these with
  p < 0.001 each: within a target a gene must be traded against another;
- 60 more evaluations of the search instead 0.10 / 0.13 / 0.14 (0.04 / 0.08 / 0.09).

To stop where nothing near is believed to be better does not pay: where the greatest probability of an improvement fell
below 1e-8, half of the evaluations were saved and 0.03 / 0.03 / 0.09 points lost. The process is too sure of itself.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.base import (
    CallOrderError,
    Elite,
    LatencyOf,
    Leader,
    Outcome,
    Posterior,
    Proposal,
    Screen,
    SearchInputError,
    SearchParameters,
    Snapshot,
    Suggestion,
    arrange,
)
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.improvement import TargetsImprovement, log_expected_improvement
from riwoa.search.pool import Variation
from riwoa.search.race import Cut
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space
from riwoa.search.targets import NOBODY, LoadsEach, leaders, with_told

BATCH = 4  # asked at a time: fewer find more (first improvement), more keep workers busy
PAIRS = 1000  # of two changes, drawn anew for each batch


@dataclass(frozen=True, slots=True)
class _Record:
    """An evaluated phenotype."""

    genotype: FloatArray
    accuracy: float
    latency_ms: float
    origin: tuple[int, int]


class Polish:
    """Improves ``leader`` with at most ``budget`` evaluations of phenotypes that it has not asked before.

    Args:
        space: the space.
        objective: judges; a leader within the target is only replaced by networks within it.
        seed: the run's seed.
        leader: where to start; its metrics are taken as given, and the leader returned is never worse.
        budget: evaluations, 0 for none.
        start_generation: number of the first batch.
        latency_of: latency where it is free to know; candidates known to miss the target are then never asked.
        pairs: look at two changes at once, too, which is of use where something is believed of them.
        loads_each: loads for each target, where there are targets.
        others: the leaders for the other targets: of several devices what is near any of them is polished.

    Raises:
        SearchInputError: a negative budget.
    """

    name = "polish"
    avoids_repeats = True
    shares: Mapping[str, float] = types.MappingProxyType({})

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int,
        leader: Leader,
        *,
        budget: int,
        start_generation: int,
        latency_of: LatencyOf | None = None,
        pairs: bool = False,
        loads_each: LoadsEach | None = None,
        others: Sequence[Leader] = (),
    ) -> None:
        if budget < 0:
            raise SearchInputError(f"the polish budget must not be negative, got {budget}")
        self.codec = Codec(space, seed)
        self.seed = seed
        self.budget = budget
        self.generation = start_generation
        self.objective = objective
        self._variation = Variation(space)
        self._latency_of = latency_of
        self._pairs = pairs
        self._screen: Screen | None = None
        self._posterior: Posterior | None = None
        self._loads_each = loads_each if objective.targets else None
        self._starts = [_Record(one.genotype, one.accuracy, one.latency_ms, one.origin) for one in (leader, *others)]
        self._memo: dict[str, _Record] = {}  # of what was evaluated, by key
        self._asked = 0  # slots asked and not yet told
        self._look_around()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""
        able = self._fast_enough(np.arange(len(self._near)))
        return not self._asked and (self._left <= 0 or next(able, None) is None)

    @property
    def cut(self) -> Cut | None:
        """Nobody is given up: a polish asks little and compares closely."""
        return None

    @property
    def leader(self) -> Leader:
        """The best known; the one given until something better was found."""
        return self._leader

    def ask(self, most: int | None = None) -> list[Proposal]:
        """The next batch. See ``Strategy.ask``; a finished polish cannot be asked."""
        if self._asked:
            raise CallOrderError("asked twice; tell the outcomes of the first ask before asking again")
        if self.finished:
            raise CallOrderError("the polish is finished; take its leader")
        count = min(BATCH, self._left, BATCH if most is None else most)
        order = self._fast_enough(self._order())
        chosen = list(itertools.islice(order, count))
        self._asked = len(chosen)
        genotypes = self.codec.encode(self._near[chosen])
        parents = [self._around[around].origin for around in self._near_whom[chosen].tolist()]
        return [
            Proposal(slot, "polish", g, parent) for slot, (g, parent) in enumerate(zip(genotypes, parents, strict=True))
        ]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy.tell``. Late joiners compete for the lead."""
        if not self._asked:
            raise CallOrderError("nothing was asked; ask before telling")
        members = arrange(outcomes, self._asked, self.generation, self.codec)
        for row in range(len(members)):
            origin = (int(members.origin[row, 0]), int(members.origin[row, 1]))
            metrics = float(members.accuracy[row]), float(members.latency_ms[row])
            self._remember(_Record(members.genotype[row], *metrics, origin))
        self.generation += 1
        self._asked = 0
        self._look_around()

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        return {
            "strategy": np.array(self.name),
            "generation": np.array(self.generation),
            "pairs": np.array(self._pairs),  # missing where an older version began
            **_columns("start", self._starts),
            **_columns("memo", [*self._memo.values()], self.codec.dimension),
        }

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        if str(snapshot.get("strategy")) != self.name:
            raise SearchInputError(f"a snapshot of {snapshot.get('strategy')!s} cannot continue as {self.name}")
        starts = _records(snapshot, "start")
        if starts[0].genotype.shape != (self.codec.dimension,):
            raise SearchInputError(
                f"the snapshot has {starts[0].genotype.size} coordinates, this space {self.codec.dimension}"
            )
        self._starts = starts
        self._memo = {}
        for record in _records(snapshot, "memo"):
            self._remember(record)
        self.generation = int(np.asarray(snapshot["generation"], dtype=np.int64))
        self._asked = 0
        self._look_around()

    def set_objective(self, objective: Objective) -> None:
        """See ``Strategy.set_objective``."""
        self._require_told("objective")
        self.objective = objective
        self._look_around()

    def set_budget(self, budget: int) -> None:
        """Another budget, of which what was asked is spent.

        Raises:
            CallOrderError: outcomes are outstanding.
            SearchInputError: a negative budget.
        """
        self._require_told("budget")
        if budget < 0:
            raise SearchInputError(f"the polish budget must not be negative, got {budget}")
        self.budget = budget

    def set_under_way(self, genotypes: Sequence[FloatArray]) -> None:
        """A polish waits for all that it asks: nothing is."""

    def set_screen(self, screen: Screen | None) -> None:
        """See ``Strategy.set_screen``."""
        self._screen = screen

    def set_posterior(self, posterior: Posterior | None) -> None:
        """See ``Strategy.set_posterior``."""
        self._posterior = posterior

    def elites(self, joining: int) -> Sequence[Elite]:
        """Nobody: a polish looks at all that is near."""
        return ()

    def suggest(self, suggestions: Sequence[Suggestion]) -> None:
        """See ``Strategy.suggest``."""

    def set_parameters(self, params: SearchParameters) -> None:
        """Nothing in the settings of the search concerns the polish."""

    # -- what is near ----------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        """Find the leader of what is known, those for each target, and what is near them."""
        known = [*self._starts, *self._memo.values()]
        self._leader = self._best(known)
        lead = self._leader
        self._around = [_Record(lead.genotype, lead.accuracy, lead.latency_ms, lead.origin)]
        if self._loads_each is not None:
            values, loads = self._of_targets(known, self._loads_each)
            rows = [row for row in dict.fromkeys(leaders(values, loads).tolist()) if row != NOBODY]
            self._around = [known[row] for row in rows] or self._around
        self._near, self._near_whom = self._neighbourhood()

    def _best(self, known: Sequence[_Record]) -> Leader:
        """Of equals the first."""
        order = self.objective.ranking([r.accuracy for r in known], [r.latency_ms for r in known])
        best = known[int(order[0])]
        return Leader(
            genotype=best.genotype,
            indices=self.codec.decode(best.genotype[None, :])[0],
            accuracy=best.accuracy,
            latency_ms=best.latency_ms,
            fitness=float(self.objective.fitness(best.accuracy, best.latency_ms)),
            origin=best.origin,
        )

    def _of_targets(self, known: Sequence[_Record], loads_each: LoadsEach) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and loads for each target (n, targets)."""
        values, told = np.array([r.accuracy for r in known]), np.array([r.latency_ms for r in known])
        return values, with_told(loads_each(self.codec.decode(np.stack([r.genotype for r in known]))), told)

    def _neighbourhood(self) -> tuple[IntArray, IntArray]:
        """What is one change away from a leader, then what is two, without what was asked, (n, genes); near whom, (n,).

        A change is by ±1 or, where a gene is nominal, to any other choice.
        """
        draw = generator(self.seed, self.generation, "polish.near")
        all_near, whom = [], []
        for place, leader in enumerate(self._around):
            raw = self.codec.raw_indices(leader.genotype[None, :])[0]
            one = self._variation.neighbours(raw)
            near = one[draw.permutation(len(one))]
            if self._pairs and len(one):
                first, second = draw.integers(len(one), size=(2, PAIRS))
                near = np.concatenate((near, np.where(one[second] != raw, one[second], one[first])))
            all_near.append(near)
            whom += [place] * len(near)
        near = np.concatenate(all_near)
        known = {self._key(r.genotype) for r in (*self._starts, *self._around)} | {*self._memo}
        new = []
        for i, key in enumerate(map(self.codec.space.key, near)):
            if key not in known:
                new.append(i)
                known.add(key)
        return near[new], np.array(whom, dtype=np.int64)[new]

    def _order(self) -> IntArray:
        """Rows of what is near, most promising first; as they come while nothing is believed of them.

        Nothing that is believed of values helps a leader that is not within the target.
        """
        canonical = self.codec.space.canonical(self._near)
        if not self._is_led:
            return np.arange(len(canonical))
        if self._posterior is not None and self._loads_each is not None:
            known = [*self._starts, *self._memo.values()]
            values, loads = self._of_targets(known, self._loads_each)
            aim = TargetsImprovement.of(values, loads, self._posterior, self._loads_each)
            promise = aim.promise(self._posterior, canonical) + self._posterior.log_success(canonical)
        elif self._posterior is not None:
            top = self._posterior.score(self.leader.accuracy)
            promise = log_expected_improvement(*self._posterior.predict(canonical), top)
            promise = promise + self._posterior.log_success(canonical)
        elif self._screen is not None and self._loads_each is None:
            promise = self._screen(canonical)
        else:
            return self._as_they_come()
        return np.argsort(-np.round(promise, 9), kind="stable")  # what differs by less is no reason for a choice

    def _as_they_come(self) -> IntArray:
        """Rows of what is near, of each leader's in turn."""
        within = np.concatenate([np.arange(n) for n in np.bincount(self._near_whom, minlength=1)])
        return np.argsort(within, kind="stable")

    def _fast_enough(self, rows: IntArray) -> Iterator[int]:
        """Rows of what is near that are not known to be beyond the target, where the leader is within it."""
        latency_of = self._latency_of if self._is_led else None
        for row in rows.tolist():
            load = latency_of(self.codec.space.canonical(self._near[row])) if latency_of is not None else None
            if load is None or bool(self.objective.feasible(load)):
                yield row

    @property
    def _is_led(self) -> bool:
        return bool(self.objective.feasible(self._leader.latency_ms))

    @property
    def _left(self) -> int:
        """Evaluations that may still be asked."""
        return self.budget - len(self._memo)

    def _key(self, genotype: FloatArray) -> str:
        return self.codec.space.key(self.codec.decode(genotype[None, :])[0])

    def _remember(self, record: _Record) -> None:
        self._memo.setdefault(self._key(record.genotype), record)

    def _require_told(self, what: str) -> None:
        if self._asked:
            raise CallOrderError(f"the {what} changes between generations; tell the outcomes first")


def _columns(prefix: str, records: Sequence[_Record], dimension: int = 0) -> Snapshot:
    """Records as arrays for a snapshot."""
    n = len(records)
    return {
        f"{prefix}.genotype": np.array([r.genotype for r in records]).reshape(n, -1 if n else dimension),
        f"{prefix}.metrics": np.array([(r.accuracy, r.latency_ms) for r in records]).reshape(n, 2),
        f"{prefix}.origin": np.array([r.origin for r in records], dtype=np.int64).reshape(n, 2),
    }


def _records(snapshot: Mapping[str, npt.NDArray[np.generic]], prefix: str) -> list[_Record]:
    """Records from the arrays of a snapshot."""
    genotypes = np.array(snapshot[f"{prefix}.genotype"], dtype=np.float64)
    metrics = np.array(snapshot[f"{prefix}.metrics"], dtype=np.float64)
    origins = np.array(snapshot[f"{prefix}.origin"], dtype=np.int64)
    return [
        _Record(g, float(m[0]), float(m[1]), (int(o[0]), int(o[1])))
        for g, m, o in zip(genotypes, metrics, origins, strict=True)
    ]

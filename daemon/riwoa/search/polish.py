"""Polish: Nelder-Mead around the leader, then its ±1 neighbourhood; asked and told like any strategy.

The algorithm is a generator over a memo of evaluated phenotypes, so its whole state is that memo: a restored polish runs
the generator again from the start, answers it from the memo, and stands where it stood.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.base import (
    CallOrderError,
    Leader,
    Outcome,
    Proposal,
    SearchInputError,
    SearchParameters,
    Snapshot,
    arrange,
)
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space

LatencyOf = Callable[[IntArray], float | None]  # canonical indices (G,) -> ms, None where it is not known for free
Steps = Generator[list[FloatArray], None, None]  # yields genotypes to evaluate

REFLECT, EXPAND, CONTRACT, SHRINK = 1.0, 2.0, 0.5, 0.5  # Nelder & Mead (1965)
BATCH = 8  # neighbours asked at a time


class _BudgetSpent(Exception):
    """No further evaluation is allowed."""


@dataclass(frozen=True, slots=True)
class _Record:
    """An evaluated phenotype."""

    genotype: FloatArray
    accuracy: float
    latency_ms: float
    origin: tuple[int, int]


class Polish:
    """Improves ``leader`` with at most ``budget`` evaluations of phenotypes that it has not seen itself.

    Args:
        space: the space.
        objective: judges; only networks within the target replace a leader that is within it.
        seed: the run's seed.
        leader: where to start; its metrics are taken as given, and what is returned is never worse.
        budget: evaluations, 0 for none.
        start_generation: number of the first batch.
        directions: columns spanning the subspace of the simplex, shape (D, k): leading eigenvectors of the search.
            None takes random orthonormal ones.
        latency_of: latency where it is free to know; candidates known to miss the target are then not asked.
    """

    name = "polish"

    def __init__(
        self,
        space: Space,
        objective: Objective,
        seed: int,
        leader: Leader,
        *,
        budget: int,
        start_generation: int,
        directions: FloatArray | None = None,
        latency_of: LatencyOf | None = None,
    ) -> None:
        if budget < 0:
            raise SearchInputError(f"the polish budget must not be negative, got {budget}")
        self.space = space
        self.codec = Codec(space, seed)
        self.objective = objective
        self.seed = seed
        self.budget = budget
        self.generation = start_generation
        self._start = leader
        self._directions = self._orthonormal(directions)
        self._latency_of = latency_of if latency_of is not None else lambda _: None
        self._memo: dict[bytes, _Record] = {}
        self._rewind()

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""
        return self._batch is None

    @property
    def leader(self) -> Leader:
        """The best known; the one given until something better was found."""
        return self._leader

    def ask(self) -> list[Proposal]:
        """The next batch. See ``Strategy.ask``; a finished polish cannot be asked."""
        if self._batch is None:
            raise CallOrderError("the polish is finished; take its leader")
        if self._waiting:
            raise CallOrderError("asked twice; tell the outcomes of the first ask before asking again")
        self._waiting = True
        parent = self.leader.origin
        return [Proposal(i, "polish", g.copy(), parent) for i, g in enumerate(self._batch)]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy.tell``. Late joiners compete too."""
        if not self._waiting or self._batch is None:
            raise CallOrderError("nothing was asked; ask before telling")
        members, _ = arrange(outcomes, len(self._batch), self.generation, self.codec)
        for row in range(len(members)):
            origin = (int(members.origin[row, 0]), int(members.origin[row, 1]))
            record = _Record(
                members.genotype[row], float(members.accuracy[row]), float(members.latency_ms[row]), origin
            )
            self._memo.setdefault(self._key(record.genotype), record)
            self._consider(record)
        self.generation += 1
        self._advance()

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        records = list(self._memo.values())
        shape = (len(records), self.codec.dimension)
        return {
            "strategy": np.array(self.name),
            "generation": np.array(self.generation),
            "start.genotype": self._start.genotype.copy(),
            "start.metrics": np.array([self._start.accuracy, self._start.latency_ms]),
            "start.origin": np.array(self._start.origin, dtype=np.int64),
            "directions": self._directions.copy(),
            "memo.genotype": np.array([r.genotype for r in records]).reshape(shape),
            "memo.metrics": np.array([(r.accuracy, r.latency_ms) for r in records]).reshape(len(records), 2),
            "memo.origin": np.array([r.origin for r in records], dtype=np.int64).reshape(len(records), 2),
        }

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        if str(snapshot.get("strategy")) != self.name:
            raise SearchInputError(f"a snapshot of {snapshot.get('strategy')!s} cannot continue as {self.name}")
        genotype = np.array(snapshot["start.genotype"], dtype=np.float64)
        if genotype.shape != (self.codec.dimension,):
            raise SearchInputError(f"the snapshot has {genotype.size} coordinates, this space {self.codec.dimension}")
        accuracy, latency_ms = (float(v) for v in np.asarray(snapshot["start.metrics"], dtype=np.float64))
        g, s = (int(v) for v in np.asarray(snapshot["start.origin"], dtype=np.int64))
        self._start = self._judged(_Record(genotype, accuracy, latency_ms, (g, s)))
        self._directions = np.array(snapshot["directions"], dtype=np.float64)
        self.generation = int(np.asarray(snapshot["generation"], dtype=np.int64))
        self._memo = {}
        for row, metrics, origin in zip(
            np.asarray(snapshot["memo.genotype"], dtype=np.float64),
            np.asarray(snapshot["memo.metrics"], dtype=np.float64),
            np.asarray(snapshot["memo.origin"], dtype=np.int64),
            strict=True,
        ):
            record = _Record(row.copy(), float(metrics[0]), float(metrics[1]), (int(origin[0]), int(origin[1])))
            self._memo[self._key(row)] = record
        self._rewind()

    def set_objective(self, objective: Objective) -> None:
        """See ``Strategy.set_objective``; the polish plans anew over what it knows."""
        if self._waiting:
            raise CallOrderError("the objective changes between generations; tell the outcomes first")
        self.objective = objective
        self._start = self._judged(
            _Record(self._start.genotype, self._start.accuracy, self._start.latency_ms, self._start.origin)
        )
        self._rewind()

    def set_parameters(self, params: SearchParameters) -> None:
        """Nothing of the search's settings concerns the polish."""

    # -- the algorithm -------------------------------------------------------------------------------------------------

    def _rewind(self) -> None:
        """Run the algorithm from its start over what is known, up to the first batch that is not."""
        self._leader = self._start
        for record in self._memo.values():
            self._consider(record)
        self._steps = self._algorithm()
        self._advance()

    def _advance(self) -> None:
        self._waiting = False
        try:
            self._batch: list[FloatArray] | None = next(self._steps)
        except (StopIteration, _BudgetSpent):
            self._batch = None

    def _algorithm(self) -> Steps:
        best = yield from self._nelder_mead(self._start.genotype)
        yield from self._neighbours(best)

    def _nelder_mead(self, start: FloatArray) -> Generator[list[FloatArray], None, FloatArray]:
        """Nelder-Mead in the affine subspace of ``directions`` through ``start``; ends when the simplex is one phenotype."""
        return start
        yield []

    def _neighbours(self, genotype: FloatArray) -> Steps:
        """Move to the best of each batch of untried neighbours while one is better; ends at a local optimum."""
        order = generator(self.seed, 0, "polish.order")
        while True:
            candidates = self._single_changes(genotype)
            candidates = [candidates[i] for i in order.permutation(len(candidates))]
            for at in range(0, len(candidates), BATCH):
                batch = candidates[at : at + BATCH]
                values = yield from self._values(batch)
                best = int(np.argmax(values))
                if values[best] > self._value(genotype):
                    genotype = batch[best]
                    break
            else:
                return

    def _single_changes(self, genotype: FloatArray) -> list[FloatArray]:
        """Genotypes with one active gene changed: ±1 where ordered, any other choice where nominal; feasible if known."""
        indices = self.codec.decode(genotype[None, :])[0]
        out = []
        for gene, index in enumerate(indices):
            for choice in self._alternatives(gene, int(index)):
                changed = genotype.copy()
                self.codec.set_choice(changed, gene, choice)
                if not self._known_too_slow(changed):
                    out.append(changed)
        return out

    def _alternatives(self, gene: int, index: int) -> list[int]:
        if index < 0:
            return []
        count = len(self.space.genes[gene].choices)
        if self.space.genes[gene].kind == "nominal":
            return [c for c in range(count) if c != index]
        return [c for c in (index - 1, index + 1) if 0 <= c < count]

    def _values(self, genotypes: list[FloatArray]) -> Generator[list[FloatArray], None, list[float]]:
        """Their values; yields those whose phenotypes are unknown.

        Raises:
            _BudgetSpent: they cannot all be known within the budget.
        """
        unknown: dict[bytes, FloatArray] = {}
        for g in genotypes:
            if self._key(g) not in self._memo and self._key(g) != self._key(self._start.genotype):
                unknown.setdefault(self._key(g), g)
        if unknown:
            affordable = list(unknown.values())[: max(0, self.budget - len(self._memo))]
            if affordable:
                yield affordable
            if len(affordable) < len(unknown):
                raise _BudgetSpent
        return [self._value(g) for g in genotypes]

    def _value(self, genotype: FloatArray) -> float:
        """What is maximised: fitness; below every feasible value where the target is missed and the start meets it."""
        key = self._key(genotype)
        accuracy, latency_ms = self._start.accuracy, self._start.latency_ms
        if key in self._memo:
            accuracy, latency_ms = self._memo[key].accuracy, self._memo[key].latency_ms
        fitness = float(self.objective.fitness(accuracy, latency_ms))
        return fitness if bool(self.objective.feasible(latency_ms)) or not self._start_feasible() else fitness - 1e9

    def _known_too_slow(self, genotype: FloatArray) -> bool:
        latency_ms = self._latency_of(self.codec.decode(genotype[None, :])[0])
        return latency_ms is not None and self._start_feasible() and not bool(self.objective.feasible(latency_ms))

    def _start_feasible(self) -> bool:
        return bool(self.objective.feasible(self._start.latency_ms))

    def _consider(self, record: _Record) -> None:
        """Make the record leader if it is better."""
        accuracy = [self._leader.accuracy, record.accuracy]
        latency_ms = [self._leader.latency_ms, record.latency_ms]
        order = self.objective.ranking(accuracy, latency_ms)
        if len(order) and order[0] == 1:
            self._leader = self._judged(record)

    def _judged(self, r: _Record) -> Leader:
        return Leader(
            genotype=r.genotype,
            indices=self.codec.decode(r.genotype[None, :])[0],
            accuracy=r.accuracy,
            latency_ms=r.latency_ms,
            fitness=float(self.objective.fitness(r.accuracy, r.latency_ms)),
            origin=r.origin,
        )

    def _key(self, genotype: FloatArray) -> bytes:
        return self.codec.decode(genotype[None, :])[0].tobytes()

    def _orthonormal(self, directions: FloatArray | None) -> FloatArray:
        if directions is None:
            directions = generator(self.seed, 0, "polish.directions").standard_normal((self.codec.dimension, 4))
        if directions.ndim != 2 or directions.shape[0] != self.codec.dimension or not np.all(np.isfinite(directions)):
            raise SearchInputError(f"directions must be finite with shape ({self.codec.dimension}, k)")
        return np.asarray(np.linalg.qr(directions)[0], dtype=np.float64)

"""Polish: Nelder-Mead around the leader, then its ±1 neighbourhood; asked and told like any strategy.

A simplex in all 46 dimensions would spend its budget on its corners, so it lives in a plane of two random directions.
Measured on the OFA predictor at 20, 25 and 35 ms, 60 evaluations after a search of 200, gain in points (24 seeds):
neighbourhood alone 0.13 / 0.13-0.15 / 0.21; with the simplex first 0.14 / 0.14 / 0.19 in two random directions, 0.14 /
0.12 / 0.18 in four, 0.14 / 0.13 / 0.20 in the two leading eigenvectors of the elites, 0.12 / 0.10 / 0.14 in eight of
them with half the budget. So the simplex is kept small, and knowing the eigenvectors brings it nothing.

The algorithm is a generator over a memo of evaluated phenotypes, so its whole state is that memo: a restored polish
runs the generator again from the start, answers it from the memo, and stands where it stood.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from riwoa.search.base import (
    CallOrderError,
    LatencyOf,
    Leader,
    Outcome,
    Posterior,
    Proposal,
    Screen,
    SearchInputError,
    SearchParameters,
    Snapshot,
    arrange,
)
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.race import Cut
from riwoa.search.rng import generator
from riwoa.search.space import Space

Value = tuple[int, float]  # compared as tuples: failed (0, -inf) < too slow (1, -latency) < judged (2, fitness)
Batch = list[FloatArray]

REFLECT, EXPAND, CONTRACT, SHRINK = 1.0, 2.0, 0.5, 0.5  # Nelder & Mead (1965)
DIRECTIONS = 2  # that the simplex spans
SIMPLEX_SHARE = 0.25  # of the budget, at most
MOST_STEPS = 200  # of the simplex: known phenotypes cost nothing, so the budget alone would not end it
BATCH = 4  # neighbours asked at a time: fewer find more (first improvement), more keep workers busy


class _BudgetSpentError(Exception):
    """No further evaluation is allowed."""


@dataclass(frozen=True, slots=True)
class _Record:
    """An evaluated phenotype."""

    genotype: FloatArray
    accuracy: float
    latency_ms: float
    origin: tuple[int, int]


class _Known:
    """The phenotypes that a polish knows, and what each is worth to it.

    Args:
        codec: of the run.
        objective: judges.
        start: where the polish starts.
        latency_of: latency where it is free to know, or None.
    """

    def __init__(self, codec: Codec, objective: Objective, start: Leader, latency_of: LatencyOf | None) -> None:
        self.objective = objective
        self.start = start
        self.memo: dict[bytes, _Record] = {}  # of what was evaluated, by key
        self._codec = codec
        self._latency_of = latency_of

    def key(self, genotype: FloatArray) -> bytes:
        """Names the phenotype of a genotype."""
        return bytes(self._codec.decode(genotype[None, :])[0].tobytes())

    def judged(self, r: _Record) -> Leader:
        """An evaluated phenotype under the objective in force."""
        return Leader(
            genotype=r.genotype,
            indices=self._codec.decode(r.genotype[None, :])[0],
            accuracy=r.accuracy,
            latency_ms=r.latency_ms,
            fitness=float(self.objective.fitness(r.accuracy, r.latency_ms)),
            origin=r.origin,
        )

    def judge_by(self, objective: Objective, start: _Record | None = None) -> None:
        """Take another objective, and another start if one is given."""
        before = self.start
        self.objective = objective
        kept = _Record(before.genotype, before.accuracy, before.latency_ms, before.origin)
        self.start = self.judged(kept if start is None else start)

    def value(self, genotype: FloatArray) -> Value:
        """What is maximised; the phenotype is known or too slow."""
        key = self.key(genotype)
        if key == self.key(self.start.genotype):
            return (2, self.start.fitness)
        if key not in self.memo:
            return self.too_slow(genotype) or (0, -np.inf)
        record = self.memo[key]
        if np.isnan(record.accuracy):
            return (0, -np.inf)
        if self._start_feasible and not bool(self.objective.feasible(record.latency_ms)):
            return (1, -record.latency_ms)
        return (2, float(self.objective.fitness(record.accuracy, record.latency_ms)))

    def too_slow(self, genotype: FloatArray) -> Value | None:
        """Its value where it is known for free that it cannot replace a start that meets the target."""
        if self._latency_of is None or not self._start_feasible:
            return None
        latency_ms = self._latency_of(self._codec.decode(genotype[None, :])[0])
        if latency_ms is None or bool(self.objective.feasible(latency_ms)):
            return None
        return (1, -latency_ms)

    @property
    def _start_feasible(self) -> bool:
        return bool(self.objective.feasible(self.start.latency_ms))


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

    Raises:
        SearchInputError: a negative budget.
    """

    name = "polish"
    avoids_repeats = True

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
    ) -> None:
        if budget < 0:
            raise SearchInputError(f"the polish budget must not be negative, got {budget}")
        self.codec = Codec(space, seed)
        self.seed = seed
        self.budget = budget
        self.generation = start_generation
        self._known = _Known(self.codec, objective, leader, latency_of)
        self._directions = self._plane()
        self._waiting = False
        self._rewind()

    @property
    def objective(self) -> Objective:
        """The objective in force."""
        return self._known.objective

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to ask."""
        return self._batch is None

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
        if self._batch is None:
            raise CallOrderError("the polish is finished; take its leader")
        if self._waiting:
            raise CallOrderError("asked twice; tell the outcomes of the first ask before asking again")
        self._waiting = True
        parent = self.leader.origin
        return [Proposal(i, "polish", g.copy(), parent) for i, g in enumerate(self._batch)]

    def tell(self, outcomes: Sequence[Outcome]) -> None:
        """See ``Strategy.tell``. Late joiners compete for the lead."""
        if not self._waiting or self._batch is None:
            raise CallOrderError("nothing was asked; ask before telling")
        members = arrange(outcomes, len(self._batch), self.generation, self.codec)
        for row in range(len(members)):
            origin = (int(members.origin[row, 0]), int(members.origin[row, 1]))
            metrics = float(members.accuracy[row]), float(members.latency_ms[row])
            record = _Record(members.genotype[row], *metrics, origin)
            self._known.memo.setdefault(self._known.key(record.genotype), record)
            self._consider(record)
        self.generation += 1
        self._advance()

    def snapshot(self) -> Snapshot:
        """See ``Strategy.snapshot``."""
        records = list(self._known.memo.values())
        start = self._known.start
        return {
            "strategy": np.array(self.name),
            "generation": np.array(self.generation),
            **_columns("start", [_Record(start.genotype, start.accuracy, start.latency_ms, start.origin)]),
            **_columns("memo", records, self.codec.dimension),
        }

    def restore(self, snapshot: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """See ``Strategy.restore``."""
        if str(snapshot.get("strategy")) != self.name:
            raise SearchInputError(f"a snapshot of {snapshot.get('strategy')!s} cannot continue as {self.name}")
        (start,) = _records(snapshot, "start")
        if start.genotype.shape != (self.codec.dimension,):
            raise SearchInputError(
                f"the snapshot has {start.genotype.size} coordinates, this space {self.codec.dimension}"
            )
        self._known.judge_by(self.objective, start)
        self.generation = int(np.asarray(snapshot["generation"], dtype=np.int64))
        self._known.memo = {self._known.key(r.genotype): r for r in _records(snapshot, "memo")}
        self._rewind()

    def set_objective(self, objective: Objective) -> None:
        """See ``Strategy.set_objective``; the polish starts over, with what it knows."""
        if self._waiting:
            raise CallOrderError("the objective changes between generations; tell the outcomes first")
        self._known.judge_by(objective)
        self._rewind()

    def set_budget(self, budget: int) -> None:
        """Another budget; the polish plans anew over what it knows.

        Raises:
            CallOrderError: outcomes are outstanding.
            SearchInputError: a negative budget.
        """
        if self._waiting:
            raise CallOrderError("the budget changes between generations; tell the outcomes first")
        if budget < 0:
            raise SearchInputError(f"the polish budget must not be negative, got {budget}")
        self.budget = budget
        self._rewind()

    def set_screen(self, screen: Screen | None) -> None:
        """A polish draws no children to choose among."""

    def set_posterior(self, posterior: Posterior | None) -> None:
        """A polish asks what is near, whatever is believed of it."""

    def set_parameters(self, params: SearchParameters) -> None:
        """Nothing in the settings of the search concerns the polish."""

    # -- the algorithm -------------------------------------------------------------------------------------------------

    def _rewind(self) -> None:
        """Run the algorithm from its start over what is known, up to the first batch that is not."""
        self._leader = self._known.start
        for record in self._known.memo.values():
            self._consider(record)
        self._start_key = self._known.key(self._known.start.genotype)
        self._charged: set[bytes] = set()
        self._steps = self._algorithm()
        self._advance()

    def _advance(self) -> None:
        self._waiting = False
        try:
            self._batch: Batch | None = next(self._steps)
        except (StopIteration, _BudgetSpentError):
            self._batch = None

    def _algorithm(self) -> Generator[Batch, None, None]:
        best = yield from self._nelder_mead(int(SIMPLEX_SHARE * self.budget))
        yield from self._neighbours(best)

    def _nelder_mead(self, limit: int) -> Generator[Batch, None, FloatArray]:
        """Nelder-Mead in the plane of the random directions through the start, in at most ``limit`` evaluations.

        Ends when all corners are one phenotype: from then on every value is equal. Returns the best genotype it met.
        """
        best = self._known.start.genotype
        z = self._initial_simplex()
        try:
            values = yield from self._values(self._place(z), limit)
            for _ in range(MOST_STEPS):
                order = sorted(range(len(values)), key=lambda i: values[i], reverse=True)
                z, values = z[order], [values[i] for i in order]
                best = max(best, self._place(z[:1])[0], key=self._known.value)
                if len({self._known.key(g) for g in self._place(z)}) == 1:
                    break
                z, values = yield from self._simplex_step(z, values, limit)
        except _BudgetSpentError:
            pass
        return best

    def _simplex_step(
        self, z: FloatArray, values: list[Value], limit: int
    ) -> Generator[Batch, None, tuple[FloatArray, list[Value]]]:
        """One step, maximising. The corners ``z`` (k + 1, k) come best first."""
        centre, worst = z[:-1].mean(axis=0), z[-1]

        def corner_at(t: float) -> Generator[Batch, None, tuple[Value, FloatArray]]:
            corner = centre + t * (centre - worst)
            (value,) = yield from self._values(self._place(corner[None, :]), limit)
            return value, corner

        value, corner = yield from corner_at(REFLECT)
        if value > values[0]:
            further = yield from corner_at(EXPAND)
            value, corner = max((value, corner), further, key=lambda pair: pair[0])
        elif value <= values[-2]:
            known = max(value, values[-1])
            value, corner = yield from corner_at(CONTRACT if value > values[-1] else -CONTRACT)
            if value <= known:
                z = z[0] + SHRINK * (z - z[0])
                return z, (yield from self._values(self._place(z), limit))
        return np.concatenate((z[:-1], corner[None, :])), [*values[:-1], value]

    def _initial_simplex(self) -> FloatArray:
        """Offsets along the directions, shape (k + 1, k): the origin, and a step of a whole bin along each.

        The step moves the coordinate that it moves most, counted in bins, by one bin, away from the nearer wall. A
        smaller simplex would lie on the plateau of one phenotype.
        """
        in_bins = self._directions * self.codec.bins[:, None]
        most, column = np.argmax(np.abs(in_bins), axis=0), np.arange(self._directions.shape[1])
        inward = np.where(self._known.start.genotype[most] < 0.5, 1.0, -1.0)
        return np.concatenate((np.zeros((1, len(column))), np.diag(inward / in_bins[most, column])))

    def _place(self, z: FloatArray) -> Batch:
        """Genotypes at offsets (m, k) from the start."""
        return list(self.codec.reflect(self._known.start.genotype + z @ self._directions.T))

    def _neighbours(self, genotype: FloatArray) -> Generator[Batch, None, None]:
        """Move to the best of each batch of neighbours while one is better; ends at a local optimum."""
        draw = generator(self.seed, 0, "polish.order")
        while True:
            candidates = self._single_changes(genotype)
            candidates = [candidates[i] for i in draw.permutation(len(candidates))]
            for first in range(0, len(candidates), BATCH):
                batch = candidates[first : first + BATCH]
                values = yield from self._values(batch, self.budget)
                best = max(range(len(batch)), key=lambda i: values[i])
                if values[best] > self._known.value(genotype):
                    genotype = batch[best]
                    break
            else:
                return

    def _single_changes(self, genotype: FloatArray) -> Batch:
        """Genotypes with one active gene changed, to ±1 or, where nominal, to any other choice; none too slow."""
        indices = self.codec.decode(genotype[None, :])[0]
        out = []
        for gene in np.flatnonzero(indices >= 0):
            for choice in self.codec.space.neighbours(int(gene), int(indices[gene])):
                changed = genotype.copy()
                self.codec.set_choice(changed, int(gene), choice)
                if self._known.too_slow(changed) is None:
                    out.append(changed)
        return out

    def _values(self, genotypes: Batch, limit: int) -> Generator[Batch, None, list[Value]]:
        """Their values; yields those that have to be evaluated first.

        What is charged depends on the course of the algorithm alone, not on what the memo holds, so that a run over a
        fuller memo (after a restore) takes the same course.

        Raises:
            _BudgetSpentError: they cannot all be known within ``limit`` charged evaluations.
        """
        new: dict[bytes, FloatArray] = {}
        for g in genotypes:
            key = self._known.key(g)
            if key not in self._charged and key != self._start_key and self._known.too_slow(g) is None:
                new.setdefault(key, g)
        affordable = dict(list(new.items())[: max(0, limit - len(self._charged))])
        unknown = [g for key, g in affordable.items() if key not in self._known.memo]
        asked = unknown[: max(0, self.budget - len(self._known.memo))]
        self._charged.update(affordable)
        if asked:
            yield asked
        if len(affordable) < len(new) or len(asked) < len(unknown):
            raise _BudgetSpentError
        return [self._known.value(g) for g in genotypes]

    def _consider(self, record: _Record) -> None:
        """Make the record leader if it is better."""
        accuracy = [self._leader.accuracy, record.accuracy]
        latency_ms = [self._leader.latency_ms, record.latency_ms]
        order = self.objective.ranking(accuracy, latency_ms)
        if len(order) and order[0] == 1:
            self._leader = self._known.judged(record)

    def _plane(self) -> FloatArray:
        """Orthonormal random directions as columns, shape (D, k)."""
        d = self.codec.dimension
        directions = generator(self.seed, 0, "polish.directions").standard_normal((d, min(d, DIRECTIONS)))
        return np.asarray(np.linalg.qr(directions)[0], dtype=np.float64)


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

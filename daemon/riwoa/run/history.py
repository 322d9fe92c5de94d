"""What a run has committed so far, as the conductor needs it.

Totals, leader and front are held; of single individuals only the newest asked for, for a run may have any number. What
is asked for again is looked up in the journal (``recall``), so a resumed run need not read its whole past.
"""

from __future__ import annotations

import io
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.run.credit import Tally, tallies_from_json
from riwoa.run.limits import ReachedRanges, target_ranks
from riwoa.run.model_credit import ModelCredit, credit_from_json
from riwoa.run.scan import Scanned
from riwoa.search.base import Leader
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.hypervolume import Staircase
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord

Identity = tuple[int, int]  # (generation, slot)
KEPT = 16_384  # individuals whose metrics are held from one generation to the next


@dataclass(frozen=True, slots=True)
class Best:
    """The best individual of a run under an objective, within the target as soon as any was; or a runner-up."""

    generation: int
    individual: IndividualRecord
    fitness: float
    feasible: bool
    target_ms: float | None

    @classmethod
    def of(cls, generation: int, individual: IndividualRecord, objective: Objective) -> Best:
        """An individual that was evaluated in full, judged by an objective."""
        value, load = objective.standing(individual.metrics)
        fitness, feasible = float(objective.fitness(value, load)), bool(objective.feasible(load))
        return cls(generation, individual, fitness, feasible, objective.latency_target_ms)

    @property
    def rank(self) -> tuple[bool, float, float]:
        """Greater is better: within the target, then fitter, then faster."""
        return (self.feasible, self.fitness, -float(self.metrics["latency_ms"]))

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Its raw metrics."""
        return self.individual.metrics

    @property
    def origin(self) -> Identity:
        """Where it was found."""
        return (self.generation, self.individual.slot)

    def to_json(self) -> dict[str, Any]:
        """As journaled with each generation."""
        return {
            "generation": self.generation,
            "slot": self.individual.slot,
            "fitness": self.fitness,
            "feasible": self.feasible,
            "target_ms": self.target_ms,
            "metrics": dict(self.metrics),
            "architecture": dict(self.individual.architecture),
            "architecture_key": self.individual.architecture_key,
        }

    def to_target_json(self) -> dict[str, Any]:
        """As journaled of the best for one of several devices."""
        found = {"generation": self.generation, "slot": self.individual.slot, "metrics": dict(self.metrics)}
        return {**found, "architecture_key": self.individual.architecture_key}

    def as_leader(self, codec: Codec, objective: Objective) -> Leader:
        """As the polish takes it."""
        genotype = genotype_of(self.individual)
        accuracy, latency_ms = objective.standing(self.metrics)
        return Leader(
            genotype=genotype,
            indices=codec.decode(genotype[None, :])[0],
            accuracy=accuracy,
            latency_ms=latency_ms,
            fitness=self.fitness,
            origin=self.origin,
        )


class History:
    """Counters, credit, leader, Pareto archive, and accuracy and latency of the individuals asked for last.

    Args:
        objective: judges the leader.

    The archive takes in what the strategy is told of (``riwoa.search.driver``); here it is only restored.
    """

    def __init__(self, objective: Objective) -> None:
        self.generations = 0  # committed ones
        self.counters: Counter[str] = Counter()
        self.tallies: dict[str, Tally] = {}  # by operator
        self.prompts: dict[str, tuple[int, int]] = {}  # by strategy of prompt (``riwoa.run.prompt_choice``)
        self.model = ModelCredit()
        self.archive = ParetoArchive()
        self.digest = ""
        self.best: Best | None = None
        self.of_targets: tuple[Best | None, ...] = (None,) * len(objective.targets)  # the best for each device
        self.objective = objective
        self.reached = ReachedRanges()  # of the limited metrics
        # None where it was not evaluated in full.
        self._metrics: OrderedDict[Identity, Mapping[str, Any] | None] = OrderedDict()

    @property
    def hypervolume(self) -> float | None:
        """The front's, as the mean of the best value within each latency up to the target; None where none is wanted.

        That is its area above 0, by the target. Of a metric that is to be lowered nobody knows where 0 is: None.
        """
        objective = self.objective
        if not objective.front or objective.lowered or objective.limit is None:
            return None
        points = self.archive.front()
        values, loads = np.array([p.accuracy for p in points]), np.array([p.latency_ms for p in points])
        return Staircase.of(values, loads, objective.limit, 0.0).area / objective.limit

    def absorb(self, generation: int, individuals: Iterable[IndividualRecord]) -> None:
        """Take in the individuals of a generation that is about to be committed."""
        for i in individuals:
            if i.status != "ok":
                self._keep((generation, i.slot), None)
                continue
            self._keep((generation, i.slot), i.metrics)
            self.reached.take(self.objective, i.metrics)
            self.best = _better(self.best, generation, i, self.objective)
            if self.of_targets:
                self.of_targets = _better_each(self.of_targets, generation, i, self.objective)

    @property
    def targets_json(self) -> dict[str, Any]:
        """The best for each target, as journaled with each generation; empty without targets."""
        pairs = zip(self.objective.targets, self.of_targets, strict=True)
        return {target.name: None if best is None else best.to_target_json() for target, best in pairs}

    def committed(self, generation: int, counters: Mapping[str, Any], digest: str) -> None:
        """Stand on a committed generation's totals; only here, between two generations, are individuals let go."""
        self.generations = generation + 1
        self.counters = Counter({name: count for name, count in counters.items() if isinstance(count, int)})
        self.tallies = tallies_from_json(counters.get("operators", {}))
        self.prompts = {name: (joined, won) for name, (joined, won) in counters.get("prompts", {}).items()}
        self.model = credit_from_json(counters.get("model", {}))
        self.digest = digest
        while len(self._metrics) > KEPT:
            self._metrics.popitem(last=False)

    # -- single individuals ------------------------------------------------------------------------------------------

    def unheld(self, identities: Iterable[Identity | None]) -> list[Identity]:
        """Those whose metrics must be recalled before they are asked for; the others are now the last to be let go."""
        missing = []
        for identity in dict.fromkeys(identities):
            if identity is None:
                continue
            if identity in self._metrics:
                self._metrics.move_to_end(identity)
            else:
                missing.append(identity)
        return missing

    def recall(self, reader: JournalReader, run_id: int, identities: Iterable[Identity]) -> None:
        """Look committed individuals up, in one query."""
        for identity, metrics in reader.by_place.metrics_of(run_id, identities).items():
            self._keep(identity, metrics)

    def metrics(self, identity: Identity | None) -> Mapping[str, Any] | None:
        """Those of an individual that is held; None where it failed or there is none."""
        return self._metrics[identity] if identity is not None else None

    def fitness(self, identity: Identity | None) -> float | None:
        """Fitness of an individual that is held, under the objective in force."""
        metrics = self._metrics[identity] if identity is not None else None
        return float(self.objective.fitness(*self.objective.standing(metrics))) if metrics is not None else None

    def _keep(self, identity: Identity, metrics: Mapping[str, Any] | None) -> None:
        self._metrics[identity] = metrics

    # -- from the journal --------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, last: GenerationRecord, scanned: Scanned) -> None:
        """Stand on the last committed generation.

        ``scanned``: every individual of the run that was evaluated in full.
        """
        self.committed(last.generation, last.counters, last.digest)
        self.reached = scanned.reached
        self.of_targets = _of_targets(reader, last.run_id, scanned, self.objective)
        for key, metrics, *place in reader.by_place.points_at(last.run_id, scanned.front()):
            self.archive.add(ParetoPoint(key, *self.objective.standing(metrics), (place[0], place[1])))
        # The objective may have changed after this generation was committed and before the kill.
        if last.leader is not None and last.individuals[0].fitness_version == self.objective.version:
            leader = (last.leader["generation"], last.leader["slot"])
            self.best = _best_of(reader, last.run_id, [leader], self.objective)
        else:
            self.judge_by(self.objective, reader, last.run_id, scanned)

    def judge_by(self, objective: Objective, reader: JournalReader, run_id: int, scanned: Scanned) -> None:
        """Choose the leader anew among all that was ever committed: the target or the exponent changed.

        In a thread: until it is chosen, whoever looks sees the one before.
        """
        best = _best_of(reader, run_id, scanned.rivals(objective), objective)
        self.of_targets = _of_targets(reader, run_id, scanned, objective)
        self.objective, self.best, self.reached = objective, best, scanned.reached


def _best_of(reader: JournalReader, run_id: int, identities: Iterable[Identity], objective: Objective) -> Best | None:
    """The best of some committed individuals."""
    best = None
    for generation, slot in identities:
        individual = reader.individual(run_id, generation, slot)
        assert individual is not None, "a leader is committed"
        best = _better(best, generation, individual, objective)
    return best


def _of_targets(reader: JournalReader, run_id: int, scanned: Scanned, objective: Objective) -> tuple[Best | None, ...]:
    """The best for each target among committed individuals."""
    places = scanned.of_targets or (None,) * len(objective.targets)
    return tuple(None if place is None else _best_of(reader, run_id, [place], objective) for place in places)


def _better_each(
    best: Sequence[Best | None], generation: int, i: IndividualRecord, objective: Objective
) -> tuple[Best | None, ...]:
    """An individual in the place of those that it is better than for their targets."""
    ranks = target_ranks(objective, i.metrics)
    known = (None if b is None else target_ranks(objective, b.metrics)[t] for t, b in enumerate(best))
    new = Best.of(generation, i, objective)
    return tuple(
        new if rank is not None and (old is None or rank > old) else b
        for rank, old, b in zip(ranks, known, best, strict=True)
    )


def _better(best: Best | None, generation: int, i: IndividualRecord, objective: Objective) -> Best:
    """An individual if it is better than the best so far; among equals the faster, then the first."""
    other = Best.of(generation, i, objective)
    return other if best is None or other.rank > best.rank else best


def genotype_of(individual: IndividualRecord) -> FloatArray:
    """The vector of a journaled individual, shape (D,)."""
    return np.frombuffer(individual.genotype, dtype="<f8").astype(np.float64)


def pack_state(snapshot: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """A strategy's snapshot as the bytes of an uncompressed npz: the same arrays give the same bytes."""
    columns: dict[str, Any] = {k: snapshot[k] for k in sorted(snapshot)}
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


def unpack_state(data: bytes | None) -> dict[str, npt.NDArray[np.generic]]:
    """The snapshot that ``pack_state`` packed.

    Raises:
        JournalCorruptError: the bytes are not such a snapshot.
    """
    try:
        with np.load(io.BytesIO(data or b""), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, KeyError, EOFError) as error:
        raise JournalCorruptError(
            f"the search state in the journal cannot be read ({error}); `riwoactl verify` names the generation"
        ) from error

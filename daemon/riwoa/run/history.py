"""What a run has committed so far, as the conductor needs it.

Totals, leader and front are held; of single individuals only the newest asked for, for a run may have any number. What
is asked for again is looked up in the journal (``recall``), so a resumed run need not read its whole past.
"""

from __future__ import annotations

import io
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.run.credit import Tally, tallies_from_json
from riwoa.search.base import Leader
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.search.space import IntArray
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import GenerationRecord, IndividualRecord

Identity = tuple[int, int]  # (generation, slot)
Progress = Callable[[int, int], None]  # generations read, of how many
KEPT = 16_384  # individuals whose metrics are held from one generation to the next
_NEAR = 1e-9  # fitnesses closer than this are compared one by one: an array's last bits may differ from a number's


@dataclass(frozen=True, slots=True)
class Best:
    """The best individual of a run under an objective: within the target as soon as any individual was."""

    generation: int
    individual: IndividualRecord
    fitness: float
    feasible: bool
    target_ms: float | None

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

    def as_leader(self, indices: IntArray) -> Leader:
        """As the polish takes it."""
        return Leader(
            genotype=genotype_of(self.individual),
            indices=indices,
            accuracy=self.metrics["accuracy"],
            latency_ms=self.metrics["latency_ms"],
            fitness=self.fitness,
            origin=self.origin,
        )


class History:
    """Counters, credit, Pareto archive, leader, and accuracy and latency of the individuals asked for last."""

    def __init__(self, objective: Objective) -> None:
        self.generations = 0  # committed ones
        self.counters: Counter[str] = Counter()
        self.tallies: dict[str, Tally] = {}  # by operator
        self.archive = ParetoArchive()
        self.digest = ""
        self.best: Best | None = None
        self._objective = objective
        # None where it was not evaluated in full.
        self._metrics: OrderedDict[Identity, tuple[float, float] | None] = OrderedDict()

    def absorb(self, generation: int, individuals: Iterable[IndividualRecord]) -> None:
        """Take in the individuals of a generation that is about to be committed."""
        for i in individuals:
            if i.status != "ok":
                self._keep((generation, i.slot), None)
                continue
            accuracy, latency_ms = i.metrics["accuracy"], i.metrics["latency_ms"]
            self._keep((generation, i.slot), (accuracy, latency_ms))
            self.archive.add(ParetoPoint(i.architecture_key, accuracy, latency_ms, (generation, i.slot)))
            self.best = _better(self.best, generation, i, self._objective)

    def committed(self, generation: int, counters: Mapping[str, Any], digest: str) -> None:
        """Stand on a committed generation's totals; only here, between two generations, are individuals let go."""
        self.generations = generation + 1
        self.counters = Counter({name: count for name, count in counters.items() if isinstance(count, int)})
        self.tallies = tallies_from_json(counters.get("operators", {}))
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
        """Look committed individuals up."""
        for identity in identities:
            self._keep(identity, reader.metrics_of(run_id, *identity))

    def metrics(self, identity: Identity | None) -> tuple[float, float] | None:
        """(accuracy, latency_ms) of an individual that is held; None where it failed or there is none."""
        return self._metrics[identity] if identity is not None else None

    def fitness(self, identity: Identity | None) -> float | None:
        """Fitness of an individual that is held, under the objective in force."""
        metrics = self.metrics(identity)
        return float(self._objective.fitness(*metrics)) if metrics is not None else None

    def _keep(self, identity: Identity, metrics: tuple[float, float] | None) -> None:
        self._metrics[identity] = metrics

    # -- from the journal --------------------------------------------------------------------------------------------

    def restore(self, reader: JournalReader, last: GenerationRecord, look: Callable[[int, str], None]) -> None:
        """Stand on the last committed generation.

        ``look``: called with the generation and the key of each individual that was evaluated in full, in order.
        """
        self.committed(last.generation, last.counters, last.digest)
        self.archive = self._front(reader, last, look)
        # The objective may have changed after this generation was committed and before the kill.
        if last.leader is not None and last.individuals[0].fitness_version == self._objective.version:
            leader = (last.leader["generation"], last.leader["slot"])
            self.best = _best_of(reader, last.run_id, [leader], self._objective)
        else:
            self.judge_by(self._objective, reader, last.run_id)

    @staticmethod
    def _front(reader: JournalReader, last: GenerationRecord, look: Callable[[int, str], None]) -> ParetoArchive:
        found = ParetoArchive()
        for key, accuracy, latency_ms, generation, slot in reader.front_points(last.run_id):
            found.add(ParetoPoint(key, accuracy, latency_ms, (generation, slot)))
            look(generation, key)
        return found

    def judge_by(self, objective: Objective, reader: JournalReader, run_id: int) -> None:
        """Choose the leader anew among all that was ever committed: the target or the exponent changed.

        In a thread: until it is chosen, whoever looks sees the one before.
        """
        points = list(reader.front_points(run_id))
        best = None
        if points:
            accuracies, latencies_ms = (np.array([p[column] for p in points]) for column in (1, 2))
            fitness, feasible = objective.fitness(accuracies, latencies_ms), objective.feasible(latencies_ms)
            rivals = feasible if feasible.any() else np.ones(len(points), dtype=np.bool_)
            near = np.flatnonzero(rivals & (fitness >= fitness[rivals].max() - _NEAR))
            best = _best_of(reader, run_id, [points[row][3:] for row in near], objective)
        self._objective, self.best = objective, best


def _best_of(reader: JournalReader, run_id: int, identities: Iterable[Identity], objective: Objective) -> Best | None:
    """The best of some committed individuals."""
    best = None
    for generation, slot in identities:
        individual = reader.individual(run_id, generation, slot)
        assert individual is not None, "a leader is committed"
        best = _better(best, generation, individual, objective)
    return best


def _better(best: Best | None, generation: int, i: IndividualRecord, objective: Objective) -> Best:
    """An individual if it is better than the best so far; among equals the faster, then the first."""
    accuracy, latency_ms = i.metrics["accuracy"], i.metrics["latency_ms"]
    feasible, fitness = bool(objective.feasible(latency_ms)), float(objective.fitness(accuracy, latency_ms))
    challenger = Best(generation, i, fitness, feasible, objective.latency_target_ms)
    return challenger if best is None or challenger.rank > best.rank else best


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

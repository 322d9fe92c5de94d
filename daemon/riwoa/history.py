"""What a run has committed so far, as the conductor needs it; rebuilt from the journal at every start."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from riwoa.credit import Tally, tallies_from_json
from riwoa.search.base import Leader
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.search.space import IntArray
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord

Identity = tuple[int, int]  # (generation, slot)


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
    """Counters, credit, Pareto archive, leader, and the accuracy and latency of every individual."""

    def __init__(self, objective: Objective) -> None:
        self.generations = 0  # committed ones
        self.counters: Counter[str] = Counter()
        self.tallies: dict[str, Tally] = {}  # by operator
        self.archive = ParetoArchive()
        self.digest = ""
        self.best: Best | None = None
        self._objective = objective
        self._metrics: dict[Identity, tuple[float, float]] = {}

    def absorb(self, generation: int, individuals: Iterable[IndividualRecord]) -> None:
        """Take in the individuals of a generation that is about to be, or is, committed."""
        for i in individuals:
            if i.status != "ok":
                continue
            accuracy, latency_ms = i.metrics["accuracy"], i.metrics["latency_ms"]
            self._metrics[generation, i.slot] = (accuracy, latency_ms)
            self.archive.add(ParetoPoint(i.architecture_key, accuracy, latency_ms, (generation, i.slot)))
            self._challenge(generation, i)

    def committed(self, generation: int, counters: Mapping[str, Any], digest: str) -> None:
        """Stand on a committed generation's totals."""
        self.generations = generation + 1
        self.counters = Counter({name: count for name, count in counters.items() if isinstance(count, int)})
        self.tallies = tallies_from_json(counters.get("operators", {}))
        self.digest = digest

    def metrics(self, identity: Identity | None) -> tuple[float, float] | None:
        """(accuracy, latency_ms) of an individual; None where it failed or there is none."""
        return self._metrics.get(identity) if identity is not None else None

    def fitness(self, identity: Identity | None) -> float | None:
        """Fitness of an individual under the objective in force."""
        metrics = self.metrics(identity)
        return float(self._objective.fitness(*metrics)) if metrics is not None else None

    def judge_by(self, objective: Objective, reader: JournalReader, run_id: int) -> None:
        """Choose the leader anew among all that was ever committed: the target or the exponent changed."""
        self._objective = objective
        self.best = None
        for generation, individual in reader.individuals(run_id):
            if individual.status == "ok":
                self._challenge(generation, individual)

    def _challenge(self, generation: int, i: IndividualRecord) -> None:
        """Make an individual the leader if it is better; among equals the faster, then the first."""
        accuracy, latency_ms = i.metrics["accuracy"], i.metrics["latency_ms"]
        feasible = bool(self._objective.feasible(latency_ms))
        fitness = float(self._objective.fitness(accuracy, latency_ms))
        challenger = Best(generation, i, fitness, feasible, self._objective.latency_target_ms)
        best = self.best
        if best is None or challenger.rank > best.rank:
            self.best = challenger


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

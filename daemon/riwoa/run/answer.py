"""What a journal says of any device, at once: accuracies do not depend on the device, latencies do.

Every evaluation of an oracle counts for every latency table of its space. Nothing is written, and no worker is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from riwoa.config.schema import Config
from riwoa.errors import InputError
from riwoa.oracle.kind import DeviceLatency
from riwoa.run.prediction import Prediction, predict
from riwoa.run.scan import Place, scan_each
from riwoa.run.task import KeptLatencies, MetricOf
from riwoa.search.fitness import BoolArray, Constraint, FloatArray
from riwoa.search.space import INACTIVE, IntArray, Space, SpaceError
from riwoa.text import number
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json, RunRecord


@dataclass(frozen=True, slots=True)
class Target:
    """A device and what a network may take there.

    Attributes:
        name: of its latency table, as a person gave it.
        latency: by that table.
        within_ms: the most that a network may take.
    """

    name: str
    latency: DeviceLatency
    within_ms: float


@dataclass(frozen=True)
class Evaluations:
    """What an oracle found of its space, each architecture once, oldest first.

    Attributes:
        run: that was asked about.
        run_ids: whose evaluations these are: of the same oracle in the same space.
        space: of the architectures.
        metric: that is raised, or lowered.
        lowered: whether less of it is better.
        limits: beside latencies.
        indices: canonical, (n, genes).
        metrics: of each.
        places: the run, and the place there, of each.
    """

    run: RunRecord
    run_ids: tuple[int, ...]
    space: Space
    metric: str
    lowered: bool
    limits: tuple[Constraint, ...]
    indices: IntArray
    metrics: tuple[Json, ...]
    places: tuple[tuple[int, Place], ...]

    def __len__(self) -> int:
        return len(self.indices)

    @cached_property
    def values(self) -> FloatArray:
        """The more the better, (n,)."""
        found = np.array([float(m[self.metric]) for m in self.metrics])
        return -found if self.lowered else found

    @cached_property
    def architectures(self) -> list[Mapping[str, Any]]:
        """Of each."""
        return [self.space.architecture(row) for row in self.indices]

    @cached_property
    def able(self) -> BoolArray:
        """Which keep all further limits, (n,)."""
        kept = (all(c.metric in m and c.met(float(m[c.metric])) for c in self.limits) for m in self.metrics)
        return np.fromiter(kept, dtype=np.bool_, count=len(self))


@dataclass(frozen=True)
class Answer:
    """What a target gets.

    Attributes:
        target: that was asked for.
        latencies_ms: of all evaluated architectures there, (n,).
        within: which of them keep the target and the further limits, (n,).
        best: the row of the best evaluated; None where none is within.
        prediction: of the best network that a surrogate expects; None where too little is known.
        predicted_ms: what that takes.
        predicted_row: where it was evaluated, its row.
        unchecked: metrics with limits that only an evaluation tells: the prediction may not keep them.
    """

    target: Target
    latencies_ms: FloatArray
    within: BoolArray
    best: int | None
    prediction: Prediction | None
    predicted_ms: float | None
    predicted_row: int | None
    unchecked: tuple[str, ...]


def read_evaluations(reader: JournalReader, run: RunRecord, config: Config, *, alone: bool = False) -> Evaluations:
    """What the oracle of a run found, in that run and, unless it is to stand ``alone``, in all others of the journal.

    Raises:
        InputError: nothing was evaluated yet, or the journal does not say what was searched.
        StorageError: a row is damaged.
    """
    try:
        space = Space.from_json(run.provenance["space"])
    except (KeyError, SpaceError) as error:
        raise InputError(f"{reader.name}: the space of run {run.run_id} is not there ({error})") from None
    runs = [run] if alone else [r for r in reader.runs() if _is_alike(r, run)]
    metric, lowered = config.objective.optimised
    found: dict[str, tuple[Json, tuple[int, Place]]] = {}
    for one in runs:
        for key, metrics, generation, slot in reader.by_place.points_at(one.run_id, _places(reader, one)):
            if isinstance(value := metrics.get(metric), int | float) and np.isfinite(value):
                found.setdefault(key, (metrics, (one.run_id, (generation, slot))))
    if not found:
        raise InputError(f"run {run.run_id} has evaluated nothing yet; `riwoactl status` tells what it does")
    return Evaluations(
        run=run,
        run_ids=tuple(r.run_id for r in runs),
        space=space,
        metric=metric,
        lowered=lowered,
        limits=tuple(c for c in map(Constraint.parse, config.objective.constraints) if c.metric != "latency_ms"),
        indices=np.array([_indices(reader, space, key) for key in found], dtype=np.int64),
        metrics=tuple(metrics for metrics, _ in found.values()),
        places=tuple(place for _, place in found.values()),
    )


def _is_alike(run: RunRecord, other: RunRecord) -> bool:
    """Whether two runs had the same oracle and space: their evaluations are then as good as each other's."""
    mine, theirs = run.provenance, other.provenance
    alike = all(mine.get(name) == theirs.get(name) for name in ("oracle_version", "space"))
    return run.run_id == other.run_id or (alike and "oracle_version" in mine)


def _places(reader: JournalReader, run: RunRecord) -> list[Place]:
    """Where each architecture of a run was evaluated first."""
    first: dict[int, Place] = {}

    def take(architecture_id: int, metrics: Json, place: Place) -> None:
        first.setdefault(architecture_id, place)

    scan_each(reader, run.run_id, run.generations, take)
    return list(first.values())


def _indices(reader: JournalReader, space: Space, key: str) -> list[int]:
    """Canonical indices of an architecture by its key."""
    found = [INACTIVE if choice == "_" else int(choice) for choice in key.split(".")]
    if len(found) != len(space):
        raise InputError(f"{reader.name} holds an architecture that is none of its run's space: {key[:80]}")
    return found


def answer(found: Evaluations, target: Target, known: Mapping[str, MetricOf]) -> Answer:
    """The best evaluated and the best predicted network within a target.

    Args:
        found: what was evaluated.
        target: a device, and what a network may take there.
        known: further metrics that cost nothing to ask of an architecture, by name.

    Raises:
        InputError: no network of the space is so fast there.
    """
    least_ms = target.latency.range_ms[0]
    latencies_ms = np.array([target.latency.latency_of(a) for a in found.architectures])
    if target.within_ms < least_ms:
        fastest = int(np.argmin(latencies_ms))
        raise InputError(
            f"no network of this space takes at most {number(target.within_ms)} ms by {target.name}: the fastest takes "
            f"{least_ms:.3f} ms, the fastest that was evaluated {latencies_ms[fastest]:.3f} ms; name more"
        )
    within = found.able & (latencies_ms <= target.within_ms)
    rows = np.flatnonzero(within)
    best = int(rows[np.lexsort((latencies_ms[rows], -found.values[rows]))[0]]) if len(rows) else None

    def load(architecture: Mapping[str, Any]) -> float:
        loads = [c.load(known[c.metric](architecture)) for c in found.limits if c.metric in known]
        return max([target.latency.latency_of(architecture) / target.within_ms, *loads])

    load_of = KeptLatencies(found.space, load)

    def excess(indices: IntArray) -> FloatArray:
        return np.maximum(np.array([load_of(row) for row in indices]) - 1.0, 0.0)

    reach = latencies_ms / target.within_ms
    prediction = predict(found.space, found.indices, found.values, within, reach, excess)
    rows = np.flatnonzero((found.indices == prediction.indices).all(axis=1)) if prediction is not None else rows[:0]
    return Answer(
        target=target,
        latencies_ms=latencies_ms,
        within=within,
        best=best,
        prediction=prediction,
        predicted_ms=None if prediction is None else _latency_ms(found.space, target, prediction),
        predicted_row=int(rows[0]) if len(rows) else None,
        unchecked=tuple(c.metric for c in found.limits if c.metric not in known),
    )


def _latency_ms(space: Space, target: Target, prediction: Prediction) -> float:
    return target.latency.latency_of(space.architecture(prediction.indices))


def best_for_all(found: Evaluations, answers: Sequence[Answer]) -> int | None:
    """The row of the best evaluated network that is within every target; None where none is."""
    rows = np.flatnonzero(np.all([a.within for a in answers], axis=0))
    return int(rows[np.argmax(found.values[rows])]) if len(rows) else None

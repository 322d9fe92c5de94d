"""A run's past at a glance: which few of its individuals a resumed run must read.

Every individual is scanned, none is believed: a scan chooses (generation, slot) places, and what stands there is then
read with its checksum. So a row that a flipped bit has spoilt can be left out here, but never be used. Rows that are
not used are checked by the verification, once at the first start after they were committed, and all of them whenever
`riwoactl verify` is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from riwoa.run.limits import ReachedRanges, target_ranks
from riwoa.search.fitness import Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import Json

Progress = Callable[[int, int], None]  # generations read, of how many
Place = tuple[int, int]  # (generation, slot)
SLICE = 256  # generations scanned at a time: the writer folds its log in between
_NEAR = 1e-9  # fitnesses closer than this are compared one by one: an array's last bits may differ from a number's


class Scanned:
    """Individuals that were evaluated in full, in the order in which they were committed.

    Attributes:
        architecture_ids: the journal's numbers of their architectures.
        reached: what they have of each limited metric.
        of_targets: where the best for each target stands, None where nobody serves it; empty without targets.
    """

    def __init__(self, targets: int = 0) -> None:
        self.of_targets: list[Place | None] = [None] * targets
        self._ranks: list[tuple[float, float] | None] = [None] * targets
        self.architecture_ids: set[int] = set()
        self.reached = ReachedRanges()
        self._archive = ParetoArchive()
        self._accuracies: list[float] = []
        self._latencies_ms: list[float] = []
        self._places: list[Place] = []

    def add(self, architecture_id: int, accuracy: float, latency_ms: float, place: Place) -> None:
        """Take in the next individual."""
        self.architecture_ids.add(architecture_id)
        self._archive.add(ParetoPoint(str(architecture_id), accuracy, latency_ms, place))
        self._accuracies.append(accuracy)
        self._latencies_ms.append(latency_ms)
        self._places.append(place)

    def take_targets(self, ranks: Sequence[tuple[float, float] | None], place: Place) -> None:
        """Take in how good the next individual is for each target (``riwoa.run.limits.target_ranks``)."""
        for n, (rank, best) in enumerate(zip(ranks, self._ranks, strict=True)):
            if rank is not None and (best is None or rank > best):
                self._ranks[n], self.of_targets[n] = rank, place

    def front(self) -> list[Place]:
        """Where the Pareto front's individuals stand, in order."""
        return sorted(point.origin for point in self._archive.front())

    def rivals(self, objective: Objective) -> list[Place]:
        """Where those stand of which one is the best by an objective, in order: a few, equal but for the last bits."""
        if not self._places:
            return []
        accuracies, latencies_ms = np.array(self._accuracies), np.array(self._latencies_ms)
        fitness, feasible = objective.fitness(accuracies, latencies_ms), objective.feasible(latencies_ms)
        rivals = feasible if feasible.any() else np.ones(len(fitness), dtype=np.bool_)
        near = np.flatnonzero(rivals & (fitness >= fitness[rivals].max() - _NEAR))
        return [self._places[row] for row in near]


def scan(
    reader: JournalReader,
    run_id: int,
    generations: int,
    objective: Objective,
    progress: Progress = lambda done, total: None,
) -> Scanned:
    """Scan the first ``generations`` of a run, as an objective sees them."""
    found = Scanned(len(objective.targets))

    def take(architecture_id: int, metrics: Json, place: Place) -> None:
        standing = objective.standing({name: float(metrics[name]) for name in objective.metrics})
        found.reached.take(objective, metrics)
        found.add(architecture_id, *standing, place)
        if objective.targets:
            found.take_targets(target_ranks(objective, metrics), place)

    scan_each(reader, run_id, generations, take, progress)
    return found


def scan_each(
    reader: JournalReader,
    run_id: int,
    generations: int,
    take: Callable[[int, Json, Place], None],
    progress: Progress = lambda done, total: None,
) -> None:
    """Hand out what was evaluated in full in the first ``generations`` of a run, in order; NOT checked.

    Args:
        reader: of the journal.
        run_id: in it.
        generations: how many.
        take: is given the journal's number of an architecture, its metrics, and where it stands.
        progress: is told how far it is.

    Raises:
        RowDamagedError: ``take`` could make nothing of a row, and its checksum says why.
    """
    for start in range(0, generations, SLICE):
        end = min(start + SLICE, generations)
        for architecture_id, text, *place in reader.by_place.scan(run_id, start, end):
            try:
                take(architecture_id, json.loads(text), (place[0], place[1]))
            except (ValueError, KeyError, TypeError, AttributeError):  # damaged: reading it says so
                reader.by_place.points_at(run_id, [(place[0], place[1])])
                raise
        progress(end, generations)

"""The steps of earlier runs, as a prior of what a run learns of its own (``riwoa.run.experience``).

Of the runs whose evaluations the run knows (``riwoa.run.memory``; its provenance names them, and they are over, so a
resumed run reads the same), the newest steps, judged by this run's objective and with this device's latencies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from riwoa.learning.trajectories import Identity, Network, Trajectory
from riwoa.log import get_logger
from riwoa.run.task import SearchTask
from riwoa.search.fitness import Objective
from riwoa.search.space import SpaceError
from riwoa_storage.errors import JournalCorruptError
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord

MOST = 250  # newest steps of earlier runs
BEFORE = -1  # the generation of what was made before the run

_log = get_logger("learning")


def earlier_steps(reader: JournalReader, run_id: int, task: SearchTask, objective: Objective) -> list[Trajectory]:
    """Steps of the runs that a run remembers, oldest first; in the order of their making (``BEFORE``, 0) and so on.

    What is damaged, or says nothing to the objective, is left out.
    """
    told = reader.run(run_id).provenance.get("memory") or {}
    newest: list[Trajectory] = []
    for earlier in sorted(told.get("runs", ()), reverse=True):
        try:
            for step in _Steps(reader, earlier, task, objective).newest_first():
                if len(newest) == MOST:
                    break
                newest.append(step)
        except JournalCorruptError as error:
            _log.warning("steps_left_out", run_of=earlier, reason=str(error))
    return [replace(step, child=(BEFORE, n), parent=(BEFORE, n)) for n, step in enumerate(reversed(newest))]


class _Steps:
    """Of one earlier run."""

    def __init__(self, reader: JournalReader, run_id: int, task: SearchTask, objective: Objective) -> None:
        self._reader = reader
        self._run_id = run_id
        self._task = task
        self._objective = objective

    def newest_first(self) -> Iterator[Trajectory]:
        for generation in range(self._reader.generation_count(self._run_id) - 1, -1, -1):
            individuals = self._reader.generation(self._run_id, generation).individuals
            steps = [i for i in individuals if i.status == "ok" and i.parent is not None and not i.cache_hit]
            parents = self._parents(steps)
            for i in reversed(steps):
                before = parents.get(i.parent) if i.parent is not None else None
                after = self._network(i.architecture, i.metrics)
                if before is not None and after is not None:
                    expected = float(i.metrics.get("predicted", math.nan))
                    yield Trajectory((generation, i.slot), (BEFORE, 0), i.operator, before, after, expected)

    def _parents(self, children: Iterable[IndividualRecord]) -> Mapping[Identity, Network | None]:
        found: dict[Identity, Network | None] = {}
        for place in {i.parent for i in children if i.parent is not None}:
            parent = self._reader.individual(self._run_id, *place)
            if parent is not None and parent.status == "ok":
                found[place] = self._network(parent.architecture, parent.metrics)
        return found

    def _network(self, architecture: Mapping[str, Any], metrics: Mapping[str, Any]) -> Network | None:
        """None where this run's objective cannot judge it."""
        try:
            indices = self._task.space.indices(architecture)
        except SpaceError:
            return None
        here = {**metrics, **self._task.known_metrics(architecture, self._objective)}
        needed = [here.get(name) for name in self._objective.metrics]
        if not all(isinstance(value, int | float) and math.isfinite(value) for value in needed):
            return None
        value, load = self._objective.standing(here)
        return Network.of(indices, value, load, float(here.get("latency_ms", math.nan)))

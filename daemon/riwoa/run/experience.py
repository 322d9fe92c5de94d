"""What a run has learned of its own steps, from its committed generations alone.

The newest one or two ``BLOCK`` generations are remembered: where a block begins, what lies more than a block back is
forgotten and the rest is learned anew. So a resumed run, which reads those generations from the journal, knows exactly
what one knows that was never stopped, and there is no state to save.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from riwoa.learning.bank import Lesson, ReasoningBank
from riwoa.learning.order import StepOrder
from riwoa.learning.trajectories import Identity, Network, Trajectory
from riwoa.run.journal import RunJournal
from riwoa.search.fitness import Objective
from riwoa.search.space import INACTIVE, IntArray, Space
from riwoa_storage.reader import JournalReader
from riwoa_storage.records import IndividualRecord, Json

BLOCK = 250  # generations


class Experience:
    """Steps, their order and their lessons.

    Args:
        journal: of the run; read whenever more was committed, so only threads ask.
        space: of the run.
        seed: of the run.

    Attributes:
        steps: that are remembered, oldest first.
        order: learned from them.
    """

    def __init__(self, journal: RunJournal, space: Space, seed: int) -> None:
        self._journal = journal
        self._space = space
        self._bank = ReasoningBank(space, seed)
        self._forget(0, Objective(None))

    def _forget(self, start: int, objective: Objective) -> None:
        self._start = self._next = start  # generations: the first that is remembered, and the first that is not read
        self._objective = objective
        self._networks: dict[Identity, Network] = {}
        self.steps: list[Trajectory] = []
        self.order = StepOrder(self._space, objective.limit)
        self._lessons: list[Lesson] | None = None

    def read(self, generation: int, objective: Objective) -> None:
        """Know what was committed before a generation, by the objective in force. For a thread."""
        start = max(0, generation // BLOCK - 1) * BLOCK
        if start != self._start or objective != self._objective or generation < self._next:
            self._forget(start, objective)
        if self._next == generation:
            return
        with self._journal.reader() as reader:
            for number in range(self._next, generation):
                self._take(reader, number, reader.generation(self._journal.run_id, number).individuals)
        self._next = generation
        self._lessons = None

    def _take(self, reader: JournalReader, generation: int, individuals: Iterable[IndividualRecord]) -> None:
        evaluated = [i for i in individuals if i.status == "ok"]
        unknown = {i.parent for i in evaluated if i.parent is not None} - self._networks.keys()
        for key, metrics, *place in reader.by_place.points_at(self._journal.run_id, sorted(unknown)):
            self._networks[place[0], place[1]] = self._network(key, metrics)
        for i in evaluated:
            child = self._network(i.architecture_key, i.metrics)
            self._networks[generation, i.slot] = child
            if i.parent is None or i.cache_hit:
                continue
            expected = float(i.metrics.get("predicted", math.nan))
            step = Trajectory((generation, i.slot), i.parent, i.operator, self._networks[i.parent], child, expected)
            self.steps.append(step)
            self.order.learn(step, step.gain(self._objective))

    def _network(self, key: str, metrics: Json) -> Network:
        indices = np.array([INACTIVE if choice == "_" else int(choice) for choice in key.split(".")], dtype=np.int64)
        value, load = self._objective.standing(metrics)
        return Network.of(indices, value, load, float(metrics.get("latency_ms", math.nan)))

    @property
    def lessons(self) -> list[Lesson]:
        """Of the steps that are remembered, those of the most evidence first."""
        if self._lessons is None:
            self._lessons = self._bank.lessons(self.steps, self._objective)
        return self._lessons

    def lessons_for(self, parent: IntArray, most: int) -> list[Lesson]:
        """The most useful lessons for a parent of canonical indices (genes,)."""
        return self._bank.useful(self.lessons, parent, most)

"""What a prompt tells of a run's own steps: lessons of its bank, or simply the newest steps, in words.

All of it follows from committed generations: a resumed run composes the same request.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from riwoa.cognition.prompt import EarlierLesson, EarlierStep
from riwoa.learning.bank import Lesson
from riwoa.learning.trajectories import Trajectory
from riwoa.run.experience import Experience
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space


class Examples:
    """Reads a run's experience for those who write prompts.

    Args:
        experience: of the run; nobody else reads it.
        space: of the run.
    """

    def __init__(self, experience: Experience, space: Space) -> None:
        self._experience = experience
        self._space = space

    def lessons(self, generation: int, objective: Objective, parent: IntArray, most: int) -> list[EarlierLesson]:
        """Of what was committed before a generation, the most useful to a parent (genes,). For a thread."""
        if not most:
            return []
        self._experience.read(generation, objective)
        return [self._lesson(one, objective) for one in self._experience.lessons_for(parent, most)]

    def newest(self, generation: int, objective: Objective, parent: IntArray, most: int) -> list[EarlierStep]:
        """The newest steps that were committed before a generation, newest first: as many as there are lessons.

        So that a prompt that tells lessons and one that tells these differ in nothing else. For a thread.
        """
        count = len(self.lessons(generation, objective, parent, most))
        return [self._step(one, objective) for one in reversed(self._experience.steps[-count:])] if count else []

    def _lesson(self, lesson: Lesson, objective: Objective) -> EarlierLesson:
        return EarlierLesson(
            about=lesson.about,
            verdict=lesson.verdict,
            tries=lesson.tries,
            wins=lesson.wins,
            gain=lesson.value_gain,
            added_ms=lesson.latency_change_ms,
            example=self._step(lesson.example, objective, first=lesson.genes),
        )

    def _step(self, step: Trajectory, objective: Objective, first: Collection[int] = ()) -> EarlierStep:
        """A step in words, the changes of some genes before the others."""
        told, added_ms = self._space.in_words.genes, step.latency_change_ms
        changes = sorted(step.changes, key=lambda c: c.gene not in first)
        return EarlierStep(
            patch={told[c.gene].name: told[c.gene].choices[c.after] for c in changes},
            before={told[c.gene].name: told[c.gene].choices[c.before] for c in changes},
            gain=step.value_gain,
            added_ms=None if math.isnan(added_ms) else added_ms,
            won=step.gain(objective) > 0.0,
        )

"""What steps that are alike came to, in words: a bank of lessons for who proposes the next (after ReasoningBank, 2025).

Steps are grouped by where they began and what they changed; groups that changed the same are one lesson. The older half
of the evidence counts half as much. Where steps that are alike gained and lost, the lesson says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from riwoa.learning.clusters import clustered
from riwoa.learning.features import Part, StepFeatures
from riwoa.learning.trajectories import Trajectory, both_ends, gains
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.rng import generator
from riwoa.search.space import IntArray, Space

MOST = 1_000  # of the newest steps
FEWEST = 8  # before which nothing is said
HALF_LIFE = 100.0  # evaluations, after which a step counts half
SHARED = 0.6  # of a group's steps change a part in one direction: that is what the group is about
MOST_SHARED = 2  # parts that a lesson names
STEPS_A_GROUP, _MOST_GROUPS = 6, 24
_STATE = 0.5  # weight of where a step began, beside what it changed
GAINS, LOSES = 0.6, 0.25  # shares of wins from which and up to which a lesson is not mixed: most steps lose

Verdict = Literal["gains", "loses", "mixed"]
Direction = tuple[int, bool]  # number of a part, and whether there is more of it


@dataclass(frozen=True, slots=True)
class Lesson:
    """What came of steps that changed the same.

    Attributes:
        directions: the parts that they changed, and whether each grew: choices further up, or more of a choice.
        tries: steps.
        wins: of them, fitter than their parents.
        verdict: by the newer rather than the older.
        gain: of fitness, their mean, the newer counting more.
        value_gain: of the value, likewise.
        latency_change_ms: likewise; None where it is not known.
        example: of those that came out as the verdict says the one that changed the fewest genes, the newest of these.
        began: where they began, on average: positions of parts.
        genes: numbers of those that make up the parts.
    """

    directions: tuple[tuple[Part, bool], ...]
    tries: int
    wins: int
    verdict: Verdict
    gain: float
    value_gain: float
    latency_change_ms: float | None
    example: Trajectory
    began: FloatArray
    genes: frozenset[int]

    @property
    def about(self) -> str:
        """What the steps changed: "kernel up in stage4, depth down in stage5", "op conv to pool"."""
        if len(self.directions) == 2:
            (first, up), (second, grows) = self.directions
            if up != grows and first.choice is not None and (first.where, first.what) == (second.where, second.what):
                old, new = (second, first) if up else (first, second)
                return f"{old.named} {old.called} to {new.called}"
        return ", ".join(part.words(grows=grows) for part, grows in self.directions)


class ReasoningBank:
    """Lessons of a run's steps so far.

    Args:
        space: of the run.
        seed: of the run: groups begin at random.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._features = StepFeatures(space)

    def lessons(self, trajectories: Sequence[Trajectory], objective: Objective) -> list[Lesson]:
        """The lessons of some steps, oldest first, those of the most evidence first; [] while there are too few."""
        recent = trajectories[-MOST:]
        if len(recent) < FEWEST:
            return []
        steps = _Steps(self._features, self._space, recent, objective)
        points = steps.points()
        count = min(_MOST_GROUPS, max(2, len(recent) // STEPS_A_GROUP))
        groups = clustered(points, count, generator(self._seed, len(trajectories), "bank.groups"))
        merged: dict[tuple[Direction, ...], list[int]] = {}
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            merged.setdefault(steps.shared(rows), []).extend(rows.tolist())
        found = [steps.lesson(shared, np.sort(rows)) for shared, rows in merged.items() if shared and len(rows) > 1]
        return sorted(found, key=lambda lesson: -lesson.tries)

    def nearest(self, lessons: Sequence[Lesson], parent: IntArray, most: int) -> list[Lesson]:
        """The lessons of steps that began most like a parent (genes,), and that it could take, nearest first."""
        position = self._features.positions(parent[None, :])[0]
        room = self._features.room(parent)
        numbers = {part: n for n, part in enumerate(self._features.parts)}

        def possible(lesson: Lesson) -> bool:
            return all(room[numbers[part], int(grows)] for part, grows in lesson.directions)

        def away(lesson: Lesson) -> float:
            """Distance; a lesson of many tries reaches further."""
            return float(np.square(lesson.began - position).sum() / np.sqrt(lesson.tries))

        return sorted(filter(possible, lessons), key=away)[:most]

    def useful(self, lessons: Sequence[Lesson], parent: IntArray, most: int) -> list[Lesson]:
        """The nearest lessons that tell a parent (genes,) what to do, and one that tells what not to do.

        Most steps lose, and so do the nearest lessons; where few gain, mixed ones fill up, then those that lose.
        """
        ranked = self.nearest(lessons, parent, len(lessons))
        gaining, losing, mixed = ([one for one in ranked if one.verdict == v] for v in ("gains", "loses", "mixed"))
        told = gaining[: max(1, most - 1)] + losing[:1]
        among = {id(one) for one in told}
        rest = [one for one in (*gaining, *mixed, *losing) if id(one) not in among]
        return (told + rest)[:most]


class _Steps:
    """Steps as columns: what they changed, what they gained and what each counts."""

    def __init__(
        self, features: StepFeatures, space: Space, trajectories: Sequence[Trajectory], objective: Objective
    ) -> None:
        before, after = both_ends(trajectories, space)
        self._trajectories = trajectories
        self._parts, self._genes = features.parts, features.genes
        self._began = features.positions(before)
        self._steps = features.steps(before, after)
        self._gains = np.array(gains(trajectories, objective))
        self._weights = 0.5 ** (np.arange(len(trajectories))[::-1] / HALF_LIFE)

    def points(self) -> FloatArray:
        """What is grouped: beginnings and changes, each column by its spread."""
        return np.concatenate((_STATE * _scaled(self._began), _scaled(self._steps, centred=False)), axis=1)

    def shared(self, rows: IntArray) -> tuple[Direction, ...]:
        """What most of some steps changed in one direction, the greatest changes; () for nothing."""
        steps = self._steps[rows]
        up, down = (steps > 1e-9).mean(axis=0), (steps < -1e-9).mean(axis=0)
        size = np.abs(steps).mean(axis=0) * (np.maximum(up, down) >= SHARED)
        chosen = [int(part) for part in np.argsort(-size, kind="stable")[:MOST_SHARED] if size[part] > 0.0]
        return tuple(sorted((part, bool(up[part] > down[part])) for part in chosen))

    def lesson(self, shared: Sequence[Direction], rows: IntArray) -> Lesson:
        """What some steps, oldest first, came to."""
        weights, gained = self._weights[rows], self._gains[rows]
        won = gained > 0.0
        gain, share = float(np.average(gained, weights=weights)), float(np.average(won, weights=weights))
        # Mostly better and yet worse on average, or the other way about, is mixed too.
        verdict: Verdict = "mixed"
        if share >= GAINS and gain > 0.0:
            verdict = "gains"
        elif share <= LOSES and gain < 0.0:
            verdict = "loses"
        as_said = won if verdict != "loses" else ~won
        shown = rows[as_said] if as_said.any() else rows
        example = min(shown.tolist(), key=lambda row: (len(self._trajectories[row].changes), -row))
        its = [self._trajectories[row] for row in rows]
        changes_ms = np.array([t.latency_change_ms for t in its])
        return Lesson(
            directions=tuple((self._parts[part], grows) for part, grows in shared),
            tries=len(rows),
            wins=int(won.sum()),
            verdict=verdict,
            gain=gain,
            value_gain=float(np.average([t.value_gain for t in its], weights=weights)),
            latency_change_ms=None if np.isnan(changes_ms).any() else float(np.average(changes_ms, weights=weights)),
            example=self._trajectories[example],
            began=self._began[rows].mean(axis=0),
            genes=frozenset(gene for part, _ in shared for gene in self._genes[part]),
        )


def _scaled(columns: FloatArray, *, centred: bool = True) -> FloatArray:
    away = columns - columns.mean(axis=0) if centred else columns
    spread = np.sqrt(np.square(away).mean(axis=0))
    return np.asarray(away / np.where(spread > 1e-12, spread, 1.0))

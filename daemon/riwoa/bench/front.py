"""Strategies on a table with two aims: a value to make larger against a load to make smaller.

What counts is the share of the whole table's hypervolume that a search's own front spans, up to a reference point; the
table holds the true front. The load is known beforehand, as a latency is in the daemon. A strategy that looks for one
network raises the value alone, and its front is what it met on the way.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.arena import POPULATION, Found
from riwoa.bench.contest import Report, Settings, search_all
from riwoa.bench.landscape import Measured
from riwoa.bench.measures import summary
from riwoa.bench.table import Question, TableLandscape
from riwoa.errors import InputError
from riwoa.search.fitness import Objective

Point = tuple[float, float]  # load and value


@dataclass(frozen=True, slots=True)
class Reference:
    """The worst corner: what lies beyond it in load or below it in value counts for nothing."""

    load: float
    value: float


class Front:
    """The points that no other beats in both, with the area that they dominate up to a reference."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self.points: list[Point] = []  # both ascend

    def add(self, load: float, value: float) -> bool:
        """Add a point; whether the front grew by it."""
        if not (load < self._reference.load and value > self._reference.value):
            return False
        place = bisect_right(self.points, (load, math.inf))
        if place and self.points[place - 1][1] >= value:
            return False
        begin = bisect_right(self.points, (load, -math.inf))
        end = begin
        while end < len(self.points) and self.points[end][1] <= value:
            end += 1
        self.points[begin:end] = [(load, value)]
        return True

    @property
    def hypervolume(self) -> float:
        """The dominated area."""
        loads = [*(load for load, _ in self.points), self._reference.load]
        return sum(
            (right - left) * (value - self._reference.value)
            for left, right, (_, value) in zip(loads, loads[1:], self.points, strict=False)
        )


class HypervolumeShare:
    """The area of a search's front by that of the whole one; exactly 1 where it has all of it."""

    def __init__(self, reference: Reference, whole: Front) -> None:
        self._front = Front(reference)
        self._whole = whole

    def take(self, measured: Measured) -> float | None:
        """See ``Score``."""
        if math.isnan(measured.value) or not self._front.add(measured.load, measured.value):
            return None
        return 1.0 if self._front.points == self._whole.points else self._front.hypervolume / self._whole.hypervolume


class FrontLandscape(TableLandscape):
    """A table under a question with two aims.

    Raises:
        InputError: as ``TableLandscape``, or no row lies within the reference.
    """

    front = True

    def __init__(
        self, path: Path, question: Question, against: str, reference: Reference, join: Path | None = None
    ) -> None:
        super().__init__(path, replace(question, loads=(against,)), join)
        self._reference = reference
        self.load = self.columns[against]
        self.values = np.where(np.isnan(self.load), np.nan, self.values)
        self.whole = Front(reference)
        for row in np.flatnonzero(np.isfinite(self.values)):
            self.whole.add(float(self.load[row]), float(self.values[row]))
        if not self.whole.points:
            raise InputError(f"{path}: no row lies within the reference; raise its load or lower its value")
        self.best, self.worst = 1.0, 0.0
        self.aim = Objective(reference.load, front=True)

    @property
    def key(self) -> str:
        """See ``Landscape``."""
        return hashlib.sha256(json.dumps([super().key, asdict(self._reference)]).encode()).hexdigest()

    def score(self) -> HypervolumeShare:
        """See ``Landscape``."""
        return HypervolumeShare(self._reference, self.whole)

    def front_of(self, f: Found) -> list[Point]:
        """The front of a search: only what widened it can be on it."""
        front = Front(self._reference)
        for row in f.rows:
            assert row is not None
            front.add(float(self.load[row]), float(self.values[row]))
        return front.points


def bench_front(
    settings: Settings,
    path: Path,
    question: Question,
    against: str,
    reference: Reference,
    *,
    join: Path | None = None,
    out: Path | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Run every (strategy, seed).

    Raises:
        InputError: the table is missing or damaged, or nothing lies within the reference.
        UsageError: a strategy cannot take part.
        StateDirectoryError: ``out`` cannot be written.
    """
    landscape = FrontLandscape(path, question, against, reference, join)
    found = search_all(settings, landscape, out, progress)
    facts = {"table": str(path), "table_sha256": landscape.table.sha256, "population": POPULATION}
    return {
        "bench": "front",
        **summary(settings, landscape, found),
        "front": landscape.whole.points,
        "fronts": {name: landscape.front_of(_median_search(found, name)) for name in settings.strategies},
        "settings": {**facts, **asdict(question), "against": against, **_named(reference), **asdict(settings)},
    }


def _median_search(found: Sequence[Found], name: str) -> Found:
    """The search of a strategy whose share lies in the middle (the lower of two)."""
    runs = sorted(
        (f for f in found if f.strategy == name), key=lambda f: f.improvements[-1][1] if f.improvements else 0.0
    )
    return runs[(len(runs) - 1) // 2]


def _named(reference: Reference) -> dict[str, float]:
    return {"reference_load": reference.load, "reference_value": reference.value}

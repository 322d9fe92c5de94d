"""Where a contest takes place: architectures that are measured at once, what is free to know of them, what counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space


@dataclass(frozen=True, slots=True)
class Measured:
    """One architecture: ``value`` is to be large, NaN where it cannot be measured; ``load`` is to meet the target."""

    value: float
    load: float
    row: int | None = None  # of the table that knows it; elsewhere what names it to ``Landscape.report``


class Score(Protocol):
    """What a search has reached by its measurements; one object a search."""

    def take(self, measured: Measured) -> float | None:
        """The new score, where this measurement makes it better; else None."""
        ...


class BestWithin:
    """The best value within the constraints of an objective."""

    def __init__(self, aim: Objective) -> None:
        self._aim = aim
        self._best = -math.inf

    def take(self, measured: Measured) -> float | None:
        """See ``Score``."""
        if not (measured.value > self._best and bool(self._aim.feasible(measured.load))):
            return None
        self._best = measured.value
        return measured.value


class Landscape(Protocol):
    """Where a contest takes place."""

    @property
    def space(self) -> Space:
        """The architectures."""
        ...

    @property
    def aim(self) -> Objective:
        """What is within the constraints, and how to judge what is not."""
        ...

    @property
    def key(self) -> str:
        """Changes whenever any measurement might."""
        ...

    @property
    def front(self) -> bool:
        """Whether value and load are both to be made better, and a front is looked for."""
        ...

    @property
    def best(self) -> float | None:
        """The best score, where it is known."""
        ...

    @property
    def worst(self) -> float:
        """What a search that found nothing is credited with."""
        ...

    @property
    def earlier(self) -> Landscape | None:
        """Where somebody who remembers has searched before; of the same space, with no known best."""
        ...

    @property
    def earlier_is_same(self) -> bool:
        """Whether values are the same there."""
        ...

    def score(self) -> Score:
        """A fresh score."""
        ...

    def measure(self, indices: IntArray) -> Measured:
        """An architecture, from its canonical choice indices (genes,)."""
        ...

    def free_load(self, indices: IntArray) -> float | None:
        """Its load, None where nobody knows it beforehand."""
        ...

    @property
    def time_unit(self) -> str:
        """What ``time_of`` counts: "s", "epochs" or "queries"."""
        ...

    def time_of(self, measured: Measured) -> float:
        """What a full measurement takes, in ``time_unit``."""
        ...

    @property
    def own_time_counts(self) -> bool:
        """Whether a search's own computing takes its time as well, as it does where measurements are made for real."""
        ...

    @property
    def cheap_cost(self) -> float | None:
        """What a cheap measurement costs, in queries; None where there are none."""
        ...

    def cheap(self, row: int) -> float:
        """A cheap measurement of a row; NaN where there is none."""
        ...

    def report(self, row: int) -> float:
        """What is told of a winner and no search looks at; NaN for nothing."""
        ...


class Plain:
    """What most landscapes have in common: a best value to find, queries for time, nothing cheap or told."""

    aim: Objective
    front: bool = False
    best: float | None = None
    worst: float = 0.0
    time_unit: str = "queries"
    own_time_counts: bool = False
    cheap_cost: float | None = None
    earlier: Landscape | None = None
    earlier_is_same: bool = False

    def score(self) -> Score:
        """See ``Landscape``."""
        return BestWithin(self.aim)

    def time_of(self, measured: Measured) -> float:
        """One query."""
        return 1.0

    def cheap(self, row: int) -> float:
        """There is nothing cheaper."""
        return math.nan

    def report(self, row: int) -> float:
        """There is nothing else to tell."""
        return math.nan

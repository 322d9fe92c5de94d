"""One search's account: what it has queried and paid, what it reached, and when it is over.

Only queries of architectures that the search has not met count; one that cannot be measured counts too. Whether an
architecture is within the constraints is free to ask. A search is over when its budget is spent, when it has met the
best there is (where that is known: nothing that is told of a search changes after it), or when it only repeats itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from riwoa.bench.landscape import Landscape, Measured
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space

POPULATION = 20
MOST_REPEATS = 5  # budgets that a search may spend on repeats: then it has converged
_MOST_REFUSED = 50  # budgets that it may spend on what is known to be beyond the limit


@dataclass(frozen=True, slots=True)
class Found:
    """One search; ``improvements`` are (queries so far, score), each better than the one before.

    ``times`` (in the landscape's unit) and ``rows`` (see ``Measured``) belong to the improvements, one each.
    ``joined``, ``picked`` and ``trainings`` are of whole searches (``riwoa.bench.whole.Whole``).
    """

    strategy: str
    seed: int
    queries: int
    failed: int  # of these: could not be measured
    repeats: int
    generations: int
    improvements: tuple[tuple[int, float], ...]
    row: int | None  # of the last improvement
    given_up: int = 0  # of the queries: after a cheap measurement
    times: tuple[float, ...] = ()
    rows: tuple[int | None, ...] = ()
    joined: int = 0
    picked: int = 0
    trainings: int = 0
    own_s: float = field(default=0.0, compare=False)  # of the search's own computing
    time: float = field(default=0.0, compare=False)  # of the whole search, in the landscape's unit

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Found:
        """The search of ``asdict``, read back."""
        improvements = tuple((int(q), float(v)) for q, v in row["improvements"])
        many = {name: tuple(row.get(name, ())) for name in ("times", "rows")}
        return cls(**{**row, "improvements": improvements, **many})


class SearchOver(Exception):
    """Nothing more is to be asked: see ``Arena``."""


class Arena:
    """Where one search spends one budget.

    Args:
        landscape: answers.
        budget: queries.
        most_repeats: of known architectures, until the search is over.
        clock: seconds that the search takes; its processor's as a rule, for others may be at work beside.
    """

    def __init__(
        self,
        landscape: Landscape,
        budget: int,
        most_repeats: int | None = None,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        self.landscape = landscape
        self.budget = budget
        self.spent = 0.0  # of the budget
        self.repeats = 0
        self.known: dict[str, Measured] = {}  # every architecture that was queried, by key
        self.given_up: set[str] = set()  # keys
        self._most_repeats = MOST_REPEATS * budget if most_repeats is None else most_repeats
        self._refused = 0
        self._score = landscape.score()
        self._failed = 0
        self._time = 0.0
        self._improvements: list[tuple[int, float]] = []
        self._times: list[float] = []
        self._rows: list[int | None] = []
        self._clock = clock
        self._started_s = clock()
        self._measuring_s = 0.0

    def begin(self) -> None:
        """Have the search's time begin now, and not when the arena was made."""
        self._started_s = self._clock()

    @property
    def space(self) -> Space:
        """The architectures."""
        return self.landscape.space

    @property
    def aim(self) -> Objective:
        """See ``Landscape.aim``."""
        return self.landscape.aim

    @property
    def over(self) -> bool:
        """Whether nothing more is to be asked."""
        best = self.landscape.best
        met = best is not None and bool(self._improvements) and self._improvements[-1][1] >= best
        idle = self.repeats >= self._most_repeats or self._refused >= _MOST_REFUSED * self.budget
        return met or idle or self.spent >= self.budget

    def excess(self, indices: IntArray) -> float:
        """By what share an architecture is beyond the limit, at most 0 within it; free.

        Raises:
            SearchOver: nearly all that the search thinks of is beyond the limit.
        """
        limit, load = self.aim.limit, self.landscape.free_load(self.space.canonical(indices))
        beyond = -1.0 if limit is None or load is None else load / limit - 1.0
        if beyond > 0:
            self._refused += 1
            if self.over:
                raise SearchOver
        return beyond

    def query(self, indices: IntArray) -> Measured:
        """An architecture's measurement: counted if it is new.

        Raises:
            SearchOver: see there; what was asked remains unknown.
        """
        if self.over:
            raise SearchOver
        indices = self.space.canonical(indices)
        key = self.space.key(indices)
        if key not in self.known:
            return self.pay(key, indices)
        self.repeats += 1
        return self.known[key]

    def pay(
        self, key: str, indices: IntArray, hopeless: Callable[[Measured], bool] = lambda measured: False
    ) -> Measured:
        """The measurement of an architecture that is not known; without a value where it is ``hopeless``."""
        started_s = self._clock()
        measured = self.landscape.measure(indices)
        self._measuring_s += self._clock() - started_s
        self.known[key] = unvalued = Measured(math.nan, measured.load, measured.row)
        if hopeless(measured):
            self.given_up.add(key)
            return unvalued
        if self.spent >= self.budget:
            return unvalued  # the cheap measurement was the last
        self.given_up.discard(key)
        self.known[key] = measured
        self.spent += 1.0
        self._time += self.landscape.time_of(measured)
        self._judge(measured)
        return measured

    def pay_cheap(self, measured: Measured) -> float:
        """A cheap measurement of a row, paid with its share of a query."""
        cost = self.landscape.cheap_cost
        assert cost is not None
        assert measured.row is not None
        self.spent += cost
        self._time += cost * self.landscape.time_of(measured)
        return self.landscape.cheap(measured.row)

    def _judge(self, measured: Measured) -> None:
        if math.isnan(measured.value):
            self._failed += 1
            return
        score = self._score.take(measured)
        if score is not None:
            self._improvements.append((math.ceil(self.spent), score))
            self._times.append(self._time_with(self._own_s()))
            self._rows.append(measured.row)

    def _own_s(self) -> float:
        """What the search itself computed so far."""
        return self._clock() - self._started_s - self._measuring_s

    def _time_with(self, own_s: float) -> float:
        return self._time + (own_s if self.landscape.own_time_counts else 0.0)

    def found(self, strategy: str, seed: int, generations: int) -> Found:
        """What came of the search."""
        own_s = self._own_s()
        return Found(
            strategy=strategy,
            seed=seed,
            queries=len(self.known),
            failed=self._failed,
            repeats=self.repeats,
            generations=generations,
            improvements=tuple(self._improvements),
            row=self._rows[-1] if self._rows else None,
            given_up=len(self.given_up),
            times=tuple(self._times),
            rows=tuple(self._rows),
            own_s=own_s,
            time=self._time_with(own_s),
        )

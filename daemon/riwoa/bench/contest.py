"""Strategies over many seeds on a landscape that answers at once: what each had found after how many queries.

Only queries of architectures that the search has not met count, in slot order; one that cannot be measured counts too.
As in the other benchmarks the population is 20, the schedule as long as the budget would last without repeats, and a
search that has spent twenty schedules on repeats has converged.

Constraints are free to ask, as latencies are in the daemon: RI-IWOA, which can use them beforehand, may. As in the
daemon, it screens its children by a predictor that it learns from its own queries. "riwoa-blind" is RI-IWOA without
that knowledge of constraints, "riwoa-unscreened" without the predictor. "...-raced" gives candidates up by a cheap
measurement, as ``oracle.rungs`` does: each costs its share of a query, and one that is given up nothing more.

Every finished search is a line of a file, keyed by the landscape, the budget and the code of the search: a benchmark
that was killed, run again, goes on, and another strategy pays for its own searches alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import riwoa.search
from riwoa.bench.paired import compare, median_ratio
from riwoa.errors import UsageError
from riwoa.files.results import ResultFile
from riwoa.search.base import Identity, LatencyOf, Outcome, Proposal, SearchParameters
from riwoa.search.driver import Driver, Evaluated
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.racing import Race, Racing
from riwoa.search.space import IntArray, Space
from riwoa.search.strategies import STRATEGIES, make_strategy
from riwoa.surrogate import gaussian_process as surrogate
from riwoa.surrogate import screening
from riwoa.surrogate.screening import Screening

POPULATION = 20
BLIND = "riwoa-blind"
UNSCREENED = "riwoa-unscreened"
RACED = "-raced"
CONTESTANTS = (*STRATEGIES, BLIND, UNSCREENED, *(f"{name}{RACED}" for name in ("riwoa", "woa", "random")))
_CHEAP = "cheap"  # the one rung
RACE_CONFIDENCE = 0.9  # the default of oracle.rung_confidence
_MOST_SCHEDULES = 20

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is compared, and how long."""

    seeds: int = 30
    budget: int = 200
    strategies: tuple[str, ...] = ("riwoa", "woa", "random")


@dataclass(frozen=True, slots=True)
class Measured:
    """One architecture: ``value`` is to be large, NaN where it cannot be measured; ``load`` is to meet the target."""

    value: float
    load: float
    row: int | None = None  # of the table that knows it


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
    def best(self) -> float | None:
        """The best value within the constraints, where it is known."""
        ...

    @property
    def worst(self) -> float:
        """What a search that found nothing is credited with."""
        ...

    def measure(self, indices: IntArray) -> Measured:
        """An architecture, from its canonical choice indices (genes,)."""
        ...

    def free_load(self, indices: IntArray) -> float | None:
        """Its load, None where nobody knows it beforehand."""
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


@dataclass(frozen=True, slots=True)
class Found:
    """One search; ``improvements`` are (queries so far, value), each better than the one before."""

    strategy: str
    seed: int
    queries: int
    failed: int  # of these: could not be measured
    repeats: int
    generations: int
    improvements: tuple[tuple[int, float], ...]
    row: int | None  # of the table, of the last improvement
    given_up: int = 0  # of the queries: after a cheap measurement

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Found:
        """The search of ``asdict``, read back."""
        return cls(**{**row, "improvements": tuple((int(q), float(v)) for q, v in row["improvements"])})


def screening_of(contestant: str, space: Space) -> Screening | None:
    """A predictor of its own for who chooses by one."""
    strategy = STRATEGIES[contestant.partition("-")[0]]
    screens = strategy.screens(strategy.parameters()) and contestant != UNSCREENED
    return Screening(space) if screens else None


class Search:
    """One strategy spending one budget, driven as the daemon drives its own.

    Raises:
        UsageError: it is to race where nothing is cheap.
    """

    def __init__(self, name: str, seed: int, landscape: Landscape, budget: int) -> None:
        self._name = name
        self._seed = seed
        self._landscape = landscape
        self._budget = budget
        self._schedule = max(1, math.ceil(budget / POPULATION))
        if name.endswith(RACED) and landscape.cheap_cost is None:
            raise UsageError(f"--strategies: {name} races by cheap measurements; name them with --low-fidelity")
        params = SearchParameters(population=POPULATION, generations=self._schedule)
        constrained = landscape.aim.latency_target_ms is not None
        free: LatencyOf | None = landscape.free_load if constrained and name != BLIND else None
        plain = name.partition("-")[0]
        self._driver = Driver(
            make_strategy(plain, landscape.space, landscape.aim, seed, params, free),
            guide=screening_of(name, landscape.space),
            racing=Racing([_CHEAP], RACE_CONFIDENCE, seed) if name.endswith(RACED) else None,
        )
        self._known: dict[str, Measured] = {}  # every architecture that was queried, by key
        self._cheap: dict[str, float] = {}  # cheap measurements, paid once an architecture
        self._fitness: dict[Identity, float] = {}  # of everybody who was measured, to be beaten by children
        self._improvements: list[tuple[int, float]] = []
        self._row: int | None = None
        self._failed = self._repeats = 0
        self._given_up: set[str] = set()  # keys
        self._spent = 0.0  # of the budget

    def run(self) -> Found:
        """Ask and tell until the budget is spent, or the search only repeats itself."""
        most = _MOST_SCHEDULES * self._schedule * POPULATION
        while self._spent < self._budget and len(self._known) + self._repeats < most:
            proposals = self._driver.ask()
            race = self._driver.race()
            evaluated = [self._query(p, race) for p in proposals]
            if self._spent >= self._budget:
                break  # whatever of this generation lies beyond the budget was never evaluated
            generation = self._driver.strategy.generation
            self._driver.tell(told := [e for e in evaluated if e is not None])
            self._fitness |= {(generation, e.outcome.slot): self._fitness_of(e.outcome) for e in told}
        return Found(
            strategy=self._name,
            seed=self._seed,
            queries=len(self._known),
            failed=self._failed,
            repeats=self._repeats,
            generations=self._driver.strategy.generation,
            improvements=tuple(self._improvements),
            row=self._row,
            given_up=len(self._given_up),
        )

    def _fitness_of(self, o: Outcome) -> float:
        return float(self._landscape.aim.fitness(o.accuracy, o.latency_ms))

    def _query(self, p: Proposal, race: Race) -> Evaluated | None:
        """A proposal's measurement; a new one is counted, and judged, while the budget lasts (None beyond)."""
        indices = self._driver.codec.decode(p.genotype[None, :])[0]
        key, fresh = self._landscape.space.key(indices), False
        if key in self._known and key not in self._given_up:
            self._repeats += 1
        elif self._spent < self._budget:
            before = self._spent
            self._known[key] = self._measure(p, key, indices, race)
            fresh = math.isfinite(self._known[key].value)
            self._repeats += self._spent == before  # given up before, and again by what was paid for then
        if key not in self._known:
            return None
        m = self._known[key]
        metrics = {"accuracy": m.value}
        if math.isfinite(self._cheap.get(key, math.nan)):
            metrics[_CHEAP] = self._cheap[key]
        return Evaluated(Outcome(p.slot, p.operator, p.genotype, m.value, m.load, p.parent), metrics, fresh)

    def _measure(self, p: Proposal, key: str, indices: IntArray, race: Race) -> Measured:
        """Measured in full, unless it is given up by a cheap measurement: then without a value."""
        measured = self._landscape.measure(indices)
        unvalued = Measured(math.nan, measured.load, measured.row)
        if race.rungs and measured.row is not None and self._hopeless(p, key, measured, race):
            self._given_up.add(key)
            return unvalued
        if self._spent >= self._budget:
            return unvalued  # the cheap measurement was the last
        self._given_up.discard(key)
        self._spent += 1.0
        self._judge(measured)
        return measured

    def _hopeless(self, p: Proposal, key: str, m: Measured, race: Race) -> bool:
        """Whether to give an architecture up, as ``riwoa.run.evaluations`` would: its parent counts, too."""
        assert m.row is not None
        assert self._landscape.cheap_cost is not None
        if key not in self._cheap:
            self._spent += self._landscape.cheap_cost
            self._cheap[key] = self._landscape.cheap(m.row)
        needed = race.needed(m.load, self._parent_fitness(p))
        cheap = self._cheap[key]
        return math.isfinite(cheap) and race.verdict(_CHEAP, key, cheap, needed) == "given up"

    def _parent_fitness(self, p: Proposal) -> float | None:
        """Fitness of a proposal's parent; None where there is none, or it has no value."""
        fitness = self._fitness[p.parent] if p.parent is not None else -math.inf
        return fitness if math.isfinite(fitness) else None

    def _judge(self, m: Measured) -> None:
        if math.isnan(m.value):
            self._failed += 1
            return
        best = self._improvements[-1][1] if self._improvements else -math.inf
        if m.value > best and bool(self._landscape.aim.feasible(m.load)):
            self._improvements.append((math.ceil(self._spent), m.value))
            self._row = m.row


class SearchFile:
    """Finished searches of one landscape, budget and code (``key``), by strategy and seed.

    Raises:
        UsageError, StateDirectoryError: as ``ResultFile``.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._key = key
        self._file = ResultFile(path, "searches of a benchmark", b'{"key": "')
        self._known: dict[tuple[str, int], Found] = {}
        for row in self._file.rows():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line of something else
                if row["key"] == key:
                    found = Found.from_json(row["found"])
                    self._known[found.strategy, found.seed] = found

    def get(self, strategy: str, seed: int) -> Found | None:
        """A search that was finished before."""
        return self._known.get((strategy, seed))

    def put(self, found: Found) -> None:
        """Keep a search, durably."""
        self._file.append({"key": self._key, "found": asdict(found)})

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def search_all(
    settings: Settings, landscape: Landscape, out: Path | None, progress: Report = lambda done, total: None
) -> list[Found]:
    """Every (strategy, seed), by strategy, then seed; those that ``out`` holds are not searched again.

    Raises:
        StateDirectoryError: ``out`` cannot be written.
    """
    file = SearchFile(out, _key(landscape, settings.budget)) if out is not None else None
    pairs = [(name, seed) for name in settings.strategies for seed in range(settings.seeds)]
    found = []
    try:
        for done, (name, seed) in enumerate(pairs):
            progress(done, len(pairs))
            one = file.get(name, seed) if file is not None else None
            if one is None:
                one = Search(name, seed, landscape, settings.budget).run()
                if file is not None:
                    file.put(one)
            found.append(one)
    finally:
        if file is not None:
            file.close()
    progress(len(pairs), len(pairs))
    return found


def _key(landscape: Landscape, budget: int) -> str:
    """Everything that decides a search but strategy and seed, the code included."""
    files = [file for folder in riwoa.search.__path__ for file in sorted(Path(folder).glob("*.py"))]
    sources = [Path(str(file)).read_bytes() for file in (*files, screening.__file__, surrogate.__file__)]
    facts = [landscape.key, budget, POPULATION, _MOST_SCHEDULES]
    return hashlib.sha256(json.dumps(facts).encode() + b"".join(sources)).hexdigest()


# -- what came of it ---------------------------------------------------------------------------------------------------


def ladder(budget: int) -> list[int]:
    """Query counts to look at: 10, 20, 50, 100, 200, 500, ... and the budget."""
    steps = [factor * 10**power for power in range(1, len(str(budget)) + 1) for factor in (1, 2, 5)]
    return [*(step for step in steps if step < budget), budget]


def summary(settings: Settings, landscape: Landscape, found: Sequence[Found]) -> dict[str, Any]:
    """What the result objects share. A search that found nothing is credited with the landscape's worst value."""
    by_strategy = {name: [f for f in found if f.strategy == name] for name in settings.strategies}
    finals = {name: [_final(landscape, f) for f in runs] for name, runs in by_strategy.items()}
    ours = finals.get("riwoa")
    return {
        "ratio": median_ratio(ours, finals["random"]) if ours and "random" in finals else None,
        "ladder": ladder(settings.budget),
        "rows": [_row(name, landscape, runs, settings.budget) for name, runs in by_strategy.items()],
        "comparisons": [compare(ours, name, theirs) for name, theirs in finals.items() if ours and name != "riwoa"],
        "searches": [asdict(f) for f in found],
    }


def _row(name: str, landscape: Landscape, runs: Sequence[Found], budget: int) -> dict[str, Any]:
    finals = np.array([_final(landscape, f) for f in runs])
    curves = np.array([[_best_after(f, queries) for queries in ladder(budget)] for f in runs])
    reported = np.array([landscape.report(f.row) for f in runs if f.row is not None])
    known = reported[np.isfinite(reported)]
    return {
        "strategy": name,
        "seeds": len(runs),
        "value_mean": float(finals.mean()),
        "value_sd": _sd(finals),
        # Values that occurred, and so never a number between two of which one is "nothing yet".
        "curve_q25": [_number(v) for v in np.quantile(curves, 0.25, axis=0, method="inverted_cdf")],
        "curve_median": [_number(v) for v in np.quantile(curves, 0.5, axis=0, method="inverted_cdf")],
        "curve_q75": [_number(v) for v in np.quantile(curves, 0.75, axis=0, method="inverted_cdf")],
        **_to_best(landscape, runs),
        "report_mean": float(known.mean()) if len(known) else None,
        "report_sd": _sd(known),
        "found_share": sum(bool(f.improvements) for f in runs) / len(runs),
        "queries": sorted({f.queries for f in runs}),
        "failed_mean": float(np.mean([f.failed for f in runs])),
        "given_up_mean": float(np.mean([f.given_up for f in runs])),
        "repeats_mean": float(np.mean([f.repeats for f in runs])),
    }


def _to_best(landscape: Landscape, runs: Sequence[Found]) -> dict[str, float | None]:
    """Share of the searches that met a value as good as the best there is, and the median queries until then."""
    best = landscape.best
    if best is None:
        return {"reached_best_share": None, "queries_to_best_median": None}
    counts = [next((float(count) for count, value in f.improvements if value >= best), math.inf) for f in runs]
    middle = sorted(counts)[(len(counts) - 1) // 2]
    share = sum(math.isfinite(count) for count in counts) / len(counts)
    return {"reached_best_share": share, "queries_to_best_median": _number(middle)}


def _final(landscape: Landscape, f: Found) -> float:
    return f.improvements[-1][1] if f.improvements else landscape.worst


def _best_after(f: Found, queries: int) -> float:
    """Best value within the constraints after so many queries, −inf for none."""
    return max((value for count, value in f.improvements if count <= queries), default=-math.inf)


def _sd(values: FloatArray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _number(value: float) -> float | None:
    """The value as JSON can say it."""
    return float(value) if math.isfinite(value) else None

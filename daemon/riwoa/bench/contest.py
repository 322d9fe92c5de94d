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

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import riwoa.search
from riwoa.bench.paired import compare, median_ratio
from riwoa.errors import UsageError
from riwoa.files.ownership import begins_with, output_file, unwritable
from riwoa.run import racing
from riwoa.run.racing import Race, Racing
from riwoa.search.base import LatencyOf, Outcome, Proposal, SearchParameters
from riwoa.search.codec import Codec
from riwoa.search.fitness import FloatArray, Objective
from riwoa.search.pareto import ParetoArchive, ParetoPoint
from riwoa.search.race import EliminationThreshold
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
    """One strategy spending one budget.

    Raises:
        UsageError: it is to race where nothing is cheap.
    """

    def __init__(self, name: str, seed: int, landscape: Landscape, budget: int) -> None:
        self._name = name
        self._landscape = landscape
        self._budget = budget
        self._schedule = max(1, math.ceil(budget / POPULATION))
        self._codec = Codec(landscape.space, seed)
        params = SearchParameters(population=POPULATION, generations=self._schedule)
        constrained = landscape.aim.latency_target_ms is not None
        free: LatencyOf | None = landscape.free_load if constrained and name != BLIND else None
        plain = name.partition("-")[0]
        self._strategy = make_strategy(plain, landscape.space, landscape.aim, seed, params, free)
        self._screening = screening_of(name, landscape.space)
        self._seed = seed
        self._known: dict[bytes, Measured] = {}  # every architecture that was queried
        self._improvements: list[tuple[int, float]] = []
        self._row: int | None = None
        self._failed = self._repeats = self._given_up = 0
        self._spent = 0.0  # of the budget
        self._front = ParetoArchive()
        if name.endswith(RACED) and landscape.cheap_cost is None:
            raise UsageError(f"--strategies: {name} races by cheap measurements; name them with --low-fidelity")
        self._racing = Racing([_CHEAP], RACE_CONFIDENCE, seed) if name.endswith(RACED) else None

    def run(self) -> Found:
        """Ask and tell until the budget is spent, or the search only repeats itself."""
        most = _MOST_SCHEDULES * self._schedule * POPULATION
        while self._spent < self._budget and len(self._known) + self._repeats < most:
            if self._screening is not None:
                self._screening.guide(self._strategy)
            proposals = self._strategy.ask()
            threshold = EliminationThreshold(self._landscape.aim, self._strategy.cut, self._front.front())
            race = self._racing.race(threshold) if self._racing is not None else None
            measured = [self._query(p, race) for p in proposals]
            if self._spent >= self._budget:
                break  # whatever of this generation lies beyond the budget was never evaluated
            outcomes = [self._outcome(p, m) for p, m in zip(proposals, measured, strict=True) if m is not None]
            self._strategy.tell(outcomes)
        return Found(
            strategy=self._name,
            seed=self._seed,
            queries=len(self._known),
            failed=self._failed,
            repeats=self._repeats,
            generations=self._strategy.generation,
            improvements=tuple(self._improvements),
            row=self._row,
            given_up=self._given_up,
        )

    def _query(self, proposal: Proposal, race: Race | None) -> Measured | None:
        """A proposal's measurement; a new one is counted, and judged, while the budget lasts (None beyond)."""
        indices = self._codec.decode(proposal.genotype[None, :])[0]
        key = indices.tobytes()
        if key in self._known:
            self._repeats += 1
        elif self._spent < self._budget:
            self._known[key] = self._measure(indices, race)
        return self._known.get(key)

    def _measure(self, indices: IntArray, race: Race | None) -> Measured:
        measured = self._landscape.measure(indices)
        cheap = math.nan
        if race is not None and measured.row is not None:
            assert self._landscape.cheap_cost is not None
            self._spent += self._landscape.cheap_cost
            cheap, needed = self._landscape.cheap(measured.row), race.needed(measured.load, None)
            hopeless = math.isfinite(cheap) and race.hopeless(_CHEAP, cheap, needed)
            if hopeless and not race.audits(indices.tobytes().hex(), needed):
                self._given_up += 1
                return Measured(math.nan, measured.load, measured.row)
        if self._spent >= self._budget:
            return Measured(math.nan, measured.load, measured.row)  # the cheap measurement was the last
        self._spent += 1.0
        self._judge(measured)
        if math.isfinite(measured.value):
            self._learn(indices, measured, cheap)
        return measured

    def _learn(self, indices: IntArray, m: Measured, cheap: float) -> None:
        if self._screening is not None:
            self._screening.tell(indices, m.value, None)
        if self._racing is not None and math.isfinite(cheap):
            self._racing.learn({"accuracy": m.value, _CHEAP: cheap})
            self._front.add(ParetoPoint(indices.tobytes().hex(), m.value, m.load))

    def _judge(self, m: Measured) -> None:
        if math.isnan(m.value):
            self._failed += 1
            return
        best = self._improvements[-1][1] if self._improvements else -math.inf
        if m.value > best and bool(self._landscape.aim.feasible(m.load)):
            self._improvements.append((math.ceil(self._spent), m.value))
            self._row = m.row

    @staticmethod
    def _outcome(p: Proposal, m: Measured) -> Outcome:
        return Outcome(p.slot, p.operator, p.genotype, m.value, m.load, p.parent)


class SearchFile:
    """Finished searches by key and (strategy, seed); appended to as they come.

    Raises:
        StateDirectoryError: the file cannot be written.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._key = key
        self._known: dict[tuple[str, int], Found] = {}
        path = output_file(path, "searches of a benchmark", partial(begins_with, start=b'{"key": "'))
        try:
            text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise unwritable(path, error, "name another --out") from None
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):
            self._stream.write("\n")  # a kill cut the last line; what follows must not be glued to it

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            found = Found.from_json(row["found"])
            if row["key"] == self._key:
                self._known[found.strategy, found.seed] = found
        except (ValueError, TypeError, KeyError):
            return  # the line that a kill cut, or one of something else

    def get(self, strategy: str, seed: int) -> Found | None:
        """A search that was finished before."""
        return self._known.get((strategy, seed))

    def put(self, found: Found) -> None:
        """Keep a search."""
        self._stream.write(json.dumps({"key": self._key, "found": asdict(found)}) + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


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
    sources = [
        Path(str(file)).read_bytes() for file in (*files, racing.__file__, screening.__file__, surrogate.__file__)
    ]
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

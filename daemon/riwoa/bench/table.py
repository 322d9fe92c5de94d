"""Strategies on any table: what was measured once answers at once, so a search costs milliseconds and seeds are many.

Only queries of architectures that the search has not met count, in slot order; one that the table does not know, or did
not measure, counts too. As in the other benchmarks the population is 20, the schedule as long as the budget would last
without repeats, and a search that has spent twenty schedules on repeats has converged.

Constraints are free to ask, as latencies are in the daemon: whoever can use them beforehand may. Several become one:
the largest share of its limit that any column takes, with the target 1.

Every finished search is a line of a file, keyed by the table, the question and the code of the search: a benchmark that
was killed, run again, goes on, and another strategy pays for its own searches alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import riwoa.search
from riwoa.bench.paired import compare, median_ratio
from riwoa.errors import InputError, StateDirectoryError, UsageError
from riwoa.oracle.table import FloatArray, GeneKind, Table, column_names
from riwoa.search.base import LatencyOf, Outcome, Proposal, SearchParameters
from riwoa.search.codec import Codec
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray
from riwoa.search.strategies import make_strategy

POPULATION = 20
_MOST_SCHEDULES = 20
_CONSTRAINT = re.compile(r"\s*(?P<column>[^<>=]+?)\s*<=\s*(?P<limit>[^<>=\s]+)\s*")

Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Constraint:
    """A column must not exceed ``limit``."""

    column: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """From ``COLUMN<=NUMBER``.

        Raises:
            UsageError: it is not of that form, or the number is not positive.
        """
        match = _CONSTRAINT.fullmatch(text)
        try:
            limit = float(match["limit"]) if match else math.nan
        except ValueError:
            limit = math.nan
        if match is None or not (math.isfinite(limit) and limit > 0):
            raise UsageError(f"--constraint {text!r} is not of the form COLUMN<=NUMBER, with a number above 0")
        return cls(match["column"], limit)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a table; columns as ``riwoa.oracle.table`` names them."""

    genes: str
    kind: GeneKind
    maximize: str
    report: str | None = None
    constraints: tuple[Constraint, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """What the benchmark compares, and how long."""

    seeds: int = 30
    budget: int = 200
    strategies: tuple[str, ...] = ("riwoa", "woa", "random")


@dataclass(frozen=True, slots=True)
class Found:
    """One search; ``improvements`` are (queries so far, row of the table), each better than the one before."""

    strategy: str
    seed: int
    queries: int
    failed: int  # of these: not in the table, or not measured
    repeats: int
    generations: int
    improvements: tuple[tuple[int, int], ...]

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Found:
        """The search of ``asdict``, read back."""
        return cls(**{**row, "improvements": tuple((int(q), int(r)) for q, r in row["improvements"])})


class Landscape:
    """A table under one question.

    Raises:
        InputError: the table is missing or damaged, or no row meets the constraints.
    """

    def __init__(self, path: Path, question: Question, join: Path | None = None) -> None:
        named = [question.maximize, *(c.column for c in question.constraints)]
        report = [question.report] if question.report is not None else []
        found = {name: _placed(path, join, name) for name in (*named, *report)}
        self.question = question
        self.table = Table.open(path, question.genes, question.kind, list(found.values()))
        columns = {name: self.table.columns[place] for name, place in found.items()}
        self.report = columns[question.report] if question.report is not None else None
        shares = [_share_of_limit(path, c, columns[c.column]) for c in question.constraints]
        self.load: FloatArray = np.max(shares, axis=0) if shares else np.zeros(len(self.table.indices))
        self.values: FloatArray = np.where(np.isnan(self.load), np.nan, columns[question.maximize])
        if shares and float(np.nanmin(self.values)) < 0:
            raise InputError(f"{path}: {question.maximize} is below 0 somewhere; under a constraint, shift it above")
        self.aim = Objective(1.0 if shares else None)
        if not np.isfinite(self._judged).any():
            limits = ", ".join(f"{c.column} <= {c.limit:g}" for c in question.constraints)
            raise InputError(f"{path}: no row meets {limits}; raise a limit")

    @cached_property
    def _judged(self) -> FloatArray:
        """Values of the rows that meet the constraints, NaN elsewhere."""
        return np.where(self.aim.feasible(self.load), self.values, np.nan)

    @property
    def best_row(self) -> int:
        """The first of the best rows within the constraints."""
        return int(np.nanargmax(self._judged))

    @property
    def feasible_rows(self) -> int:
        """How many were measured and meet the constraints."""
        return int(np.isfinite(self._judged).sum())

    @property
    def worst(self) -> float:
        """What a search that found nothing is credited with."""
        return float(np.nanmin(self.values))

    def value(self, row: int | None) -> float:
        """What is to be made large; NaN where the table cannot say."""
        return math.nan if row is None else float(self.values[row])

    def free_load(self) -> LatencyOf | None:
        """Share of the limit by choice indices; None where nothing is constrained."""
        if self.aim.latency_target_ms is None:
            return None

        def load(indices: IntArray) -> float | None:
            row = self.table.row(indices)
            return None if row is None or math.isnan(self.load[row]) else float(self.load[row])

        return load


def _placed(path: Path, join: Path | None, name: str) -> str:
    """The column's place: in the table, else in the file that is joined to it."""
    if join is None or ":" in name or name in column_names(path):
        return name
    return f"{join.absolute()}:{name}"


def _share_of_limit(path: Path, constraint: Constraint, values: FloatArray) -> FloatArray:
    if float(np.nanmin(values)) < 0:
        raise InputError(f"{path}: {constraint.column} is below 0 somewhere; a constrained column is a cost")
    return values / constraint.limit


class Search:
    """One strategy spending one budget."""

    def __init__(self, name: str, seed: int, landscape: Landscape, budget: int) -> None:
        self._landscape = landscape
        self._budget = budget
        self._schedule = max(1, math.ceil(budget / POPULATION))
        self._codec = Codec(landscape.table.space, seed)
        params = SearchParameters(population=POPULATION, generations=self._schedule)
        space, free = landscape.table.space, landscape.free_load()
        self._strategy = make_strategy(name, space, landscape.aim, seed, params, free)
        self._seed = seed
        self._known: dict[bytes, int | None] = {}  # every architecture that was queried: its row
        self._improvements: list[tuple[int, int]] = []
        self._failed = self._repeats = 0

    def run(self) -> Found:
        """Ask and tell until the budget is spent, or the search only repeats itself."""
        most = _MOST_SCHEDULES * self._schedule * POPULATION
        while len(self._known) < self._budget and len(self._known) + self._repeats < most:
            proposals = self._strategy.ask()
            rows = [self._query(p) for p in proposals]
            if len(self._known) >= self._budget:
                break  # whatever of this generation lies beyond the budget was never evaluated
            self._strategy.tell([self._outcome(p, row) for p, row in zip(proposals, rows, strict=True)])
        return Found(
            strategy=self._strategy.name,
            seed=self._seed,
            queries=len(self._known),
            failed=self._failed,
            repeats=self._repeats,
            generations=self._strategy.generation,
            improvements=tuple(self._improvements),
        )

    def _query(self, proposal: Proposal) -> int | None:
        """The row of a proposal; a new one is counted, and judged, while the budget lasts."""
        indices = self._codec.decode(proposal.genotype[None, :])[0]
        key = indices.tobytes()
        if key in self._known:
            self._repeats += 1
        elif len(self._known) < self._budget:
            self._known[key] = self._landscape.table.row(indices)
            self._judge(self._known[key])
        return self._known.get(key)

    def _judge(self, row: int | None) -> None:
        value = self._landscape.value(row)
        if row is None or math.isnan(value):
            self._failed += 1
            return
        best = self._landscape.value(self._improvements[-1][1]) if self._improvements else -math.inf
        if value > best and bool(self._landscape.aim.feasible(self._landscape.load[row])):
            self._improvements.append((len(self._known), row))

    def _outcome(self, p: Proposal, row: int | None) -> Outcome:
        load = math.nan if row is None else float(self._landscape.load[row])
        return Outcome(p.slot, p.operator, p.genotype, self._landscape.value(row), load, p.parent)


class SearchFile:
    """Finished searches by question and (strategy, seed); appended to as they come.

    Raises:
        StateDirectoryError: the file cannot be written.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._key = key
        self._known: dict[tuple[str, int], Found] = {}
        try:
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise StateDirectoryError(f"cannot write {path} ({error.strerror}); name another --out") from None
        for line in text.splitlines():
            self._take(line)
        if text and not text.endswith("\n"):
            self._stream.write("\n")  # a kill cut the last line; what follows must not be glued to it

    def _take(self, line: str) -> None:
        try:
            row = json.loads(line)
            found = Found.from_json(row["found"])
        except (ValueError, TypeError, KeyError):
            return  # the line that a kill cut
        if row["key"] == self._key:
            self._known[found.strategy, found.seed] = found

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


def bench_table(
    settings: Settings,
    path: Path,
    question: Question,
    *,
    join: Path | None = None,
    out: Path | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Run every (strategy, seed).

    Raises:
        InputError: the table is missing or damaged, or nothing in it meets the constraints.
        StateDirectoryError: ``out`` cannot be written.
    """
    landscape = Landscape(path, question, join)
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
    facts = {"table": str(path), "table_sha256": landscape.table.sha256, "population": POPULATION}
    return {**summary(settings, landscape, found), "settings": {**facts, **asdict(question), **asdict(settings)}}


def _key(landscape: Landscape, budget: int) -> str:
    """Everything that decides a search but strategy and seed, the code included."""
    code = sorted(Path(folder) for folder in riwoa.search.__path__)
    sources = [file.read_bytes() for folder in code for file in sorted(folder.glob("*.py"))]
    facts = [landscape.table.sha256, asdict(landscape.question), budget, POPULATION, _MOST_SCHEDULES]
    return hashlib.sha256(json.dumps(facts).encode() + b"".join(sources)).hexdigest()


# -- what came of it ---------------------------------------------------------------------------------------------------


def ladder(budget: int) -> list[int]:
    """Query counts to look at: 10, 20, 50, 100, 200, 500, ... and the budget."""
    steps = [factor * 10**power for power in range(1, len(str(budget)) + 1) for factor in (1, 2, 5)]
    return [*(step for step in steps if step < budget), budget]


def summary(settings: Settings, landscape: Landscape, found: Sequence[Found]) -> dict[str, Any]:
    """The result object but its settings. A search that found nothing is credited with the table's worst value."""
    by_strategy = {name: [f for f in found if f.strategy == name] for name in settings.strategies}
    finals = {name: [_final(landscape, f) for f in runs] for name, runs in by_strategy.items()}
    ours, row = finals.get("riwoa"), landscape.best_row
    return {
        "bench": "table",
        "ratio": median_ratio(ours, finals["random"]) if ours and "random" in finals else None,
        "best": {
            "row": row,
            "value": landscape.value(row),
            "report": _number(landscape.report[row]) if landscape.report is not None else None,
            "feasible_rows": landscape.feasible_rows,
            "rows": len(landscape.values),
        },
        "ladder": ladder(settings.budget),
        "rows": [_row(name, landscape, runs, settings.budget) for name, runs in by_strategy.items()],
        "comparisons": [compare(ours, name, theirs) for name, theirs in finals.items() if ours and name != "riwoa"],
        "searches": [asdict(f) for f in found],
    }


def _row(name: str, landscape: Landscape, runs: Sequence[Found], budget: int) -> dict[str, Any]:
    finals = np.array([_final(landscape, f) for f in runs])
    curves = np.array([[_best_after(landscape, f, queries) for queries in ladder(budget)] for f in runs])
    to_best = sorted(_queries_to_best(landscape, f) for f in runs)
    winners = [f.improvements[-1][1] for f in runs if f.improvements]
    reported = landscape.report[winners] if landscape.report is not None else np.empty(0)
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
        "reached_best_share": sum(math.isfinite(q) for q in to_best) / len(runs),
        "queries_to_best_median": _number(to_best[(len(to_best) - 1) // 2]),
        "report_mean": float(known.mean()) if len(known) else None,
        "report_sd": _sd(known),
        "found_share": sum(bool(f.improvements) for f in runs) / len(runs),
        "queries": sorted({f.queries for f in runs}),
        "failed_mean": float(np.mean([f.failed for f in runs])),
        "repeats_mean": float(np.mean([f.repeats for f in runs])),
    }


def _final(landscape: Landscape, f: Found) -> float:
    return landscape.value(f.improvements[-1][1]) if f.improvements else landscape.worst


def _best_after(landscape: Landscape, f: Found, queries: int) -> float:
    """Best value within the constraints after so many queries, −inf for none."""
    rows = [row for count, row in f.improvements if count <= queries]
    return landscape.value(rows[-1]) if rows else -math.inf


def _queries_to_best(landscape: Landscape, f: Found) -> float:
    """Queries until a value as good as the table's best was met; infinite where it never was."""
    best = landscape.value(landscape.best_row)
    return next((float(count) for count, row in f.improvements if landscape.value(row) >= best), math.inf)


def _sd(values: FloatArray) -> float | None:
    return float(values.std(ddof=1)) if len(values) > 1 else None


def _number(value: float) -> float | None:
    """The value as JSON can say it."""
    return float(value) if math.isfinite(value) else None

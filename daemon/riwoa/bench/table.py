"""Strategies on any table: what was measured once answers at once, so a search costs milliseconds and seeds are many.

Several constraints become one: the largest share of its limit that any column takes, with the target 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.bench.arena import POPULATION
from riwoa.bench.contest import Report, Settings, search_all
from riwoa.bench.landscape import Measured, Plain
from riwoa.bench.measures import summary
from riwoa.errors import InputError, UsageError
from riwoa.oracle.table_file import FloatArray, GeneKind, Table, column_names
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space

_CONSTRAINT = re.compile(r"\s*(?P<column>[^<>=]+?)\s*<=\s*(?P<limit>[^<>=\s%]+)\s*(?P<percent>%?)\s*")


@dataclass(frozen=True, slots=True)
class Constraint:
    """A column must not exceed ``limit``; with ``of_rows``, not exceed what that many per cent of the rows keep to."""

    column: str
    limit: float
    of_rows: bool = False

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """From ``COLUMN<=NUMBER`` or ``COLUMN<=NUMBER%``.

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
        if match["percent"] and limit > 100:
            raise UsageError(f"--constraint {text!r}: no column is kept by more than 100 % of the rows")
        return cls(match["column"], limit, bool(match["percent"]))

    def __str__(self) -> str:
        return f"{self.column} <= {self.limit:g}{' %' if self.of_rows else ''}"

    def bound(self, values: FloatArray) -> float:
        """The greatest value of the column that keeps it."""
        return float(np.nanquantile(values, self.limit / 100.0)) if self.of_rows else self.limit


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a table; columns as ``riwoa.oracle.table_file`` names them."""

    genes: str
    kind: GeneKind
    maximize: str
    report: str | None = None
    constraints: tuple[Constraint, ...] = ()
    low_fidelity: str | None = None
    low_fidelity_cost: float | None = None  # in queries
    seconds: str | None = None  # what a query takes
    epochs: float | None = None  # where no column has seconds
    loads: tuple[str, ...] = ()  # more columns to read
    after: str | None = None  # what somebody who remembers has maximised before


class TableLandscape(Plain):
    """A table under one question.

    Raises:
        InputError: the table is missing or damaged, or no row meets the constraints.
    """

    def __init__(self, path: Path, question: Question, join: Path | None = None) -> None:
        named = [question.maximize, *(c.column for c in question.constraints)]
        optional = (question.report, question.low_fidelity, question.seconds)
        more = [*question.loads, *(name for name in optional if name is not None)]
        found = {name: _placed(path, join, name) for name in (*named, *more)}
        self.table = Table.open(path, question.genes, question.kind, list(found.values()))
        self._question = question
        self.columns = columns = {name: self.table.columns[place] for name, place in found.items()}
        self._report = columns[question.report] if question.report is not None else None
        self._cheap = columns[question.low_fidelity] if question.low_fidelity is not None else None
        self._seconds = columns[question.seconds] if question.seconds is not None else None
        shares = [_share_of_limit(path, c, columns[c.column]) for c in question.constraints]
        self.load: FloatArray = np.max(shares, axis=0) if shares else np.zeros(len(self.table.indices))
        self.values: FloatArray = np.where(np.isnan(self.load), np.nan, columns[question.maximize])
        if shares and float(np.nanmin(self.values)) < 0:
            raise InputError(f"{path}: {question.maximize} is below 0 somewhere; under a constraint, shift it above")
        self.aim = Objective(1.0 if shares else None)
        self.cheap_cost = question.low_fidelity_cost
        self.time_unit = "s" if question.seconds is not None else "epochs" if question.epochs is not None else "queries"
        self.worst = float(np.nanmin(self.values))
        self._judged: FloatArray = np.where(self.aim.feasible(self.load), self.values, np.nan)  # NaN beyond the limits
        if not np.isfinite(self._judged).any():
            limits = ", ".join(map(str, question.constraints))
            raise InputError(f"{path}: no row meets {limits}; raise a limit")
        self.best = float(np.nanmax(self._judged))

        if question.after is not None:
            self.earlier = TableLandscape(path, replace(question, maximize=question.after, after=None), join)
            self.earlier.best = None  # a search there is not over when it is met
            self.earlier_is_same = question.after == question.maximize

    @property
    def space(self) -> Space:
        """See ``Landscape``."""
        return self.table.space

    @property
    def key(self) -> str:
        """See ``Landscape``."""
        facts = json.dumps([self.table.sha256, asdict(self._question)])
        return hashlib.sha256(facts.encode()).hexdigest()

    @property
    def best_row(self) -> int:
        """The first of the best rows within the constraints."""
        return int(np.nanargmax(self._judged))

    @property
    def feasible_rows(self) -> int:
        """How many were measured and meet the constraints."""
        return int(np.isfinite(self._judged).sum())

    def measure(self, indices: IntArray) -> Measured:
        """See ``Landscape``; an architecture without a row, or without a number in it, cannot be measured."""
        row = self.table.row(indices)
        return Measured(math.nan, math.nan) if row is None else Measured(*self._numbers(row), row)

    def _numbers(self, row: int) -> tuple[float, float]:
        return float(self.values[row]), float(self.load[row])

    def free_load(self, indices: IntArray) -> float | None:
        """See ``Landscape``."""
        row = self.table.row(indices)
        load = math.nan if row is None else float(self.load[row])
        return None if math.isnan(load) else load

    def time_of(self, measured: Measured) -> float:
        """See ``Landscape``; a row without a number takes none."""
        if self._seconds is None:
            return self._question.epochs or 1.0
        seconds = math.nan if measured.row is None else float(self._seconds[measured.row])
        return seconds if math.isfinite(seconds) else 0.0

    def cheap(self, row: int) -> float:
        """See ``Landscape``."""
        return math.nan if self._cheap is None else float(self._cheap[row])

    def report(self, row: int) -> float:
        """See ``Landscape``."""
        return math.nan if self._report is None else float(self._report[row])


def _placed(path: Path, join: Path | None, name: str) -> str:
    """The column's place: in the table, else in the file that is joined to it."""
    if join is None or ":" in name or name in column_names(path):
        return name
    return f"{join.absolute()}:{name}"


def _share_of_limit(path: Path, constraint: Constraint, values: FloatArray) -> FloatArray:
    if float(np.nanmin(values)) < 0:
        raise InputError(f"{path}: {constraint.column} is below 0 somewhere; a constrained column is a cost")
    bound = constraint.bound(values)
    if bound <= 0:
        raise InputError(f"{path}: {constraint} leaves rows of nothing but 0; raise the limit")
    return values / bound


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
    landscape = TableLandscape(path, question, join)
    found = search_all(settings, landscape, out, progress)
    report = landscape.report(landscape.best_row)
    best = {
        "row": landscape.best_row,
        "value": landscape.best,
        "report": None if math.isnan(report) else report,
        "feasible_rows": landscape.feasible_rows,
        "rows": len(landscape.values),
    }
    facts = {"table": str(path), "table_sha256": landscape.table.sha256, "population": POPULATION}
    return {
        "bench": "table",
        "best": best,
        **summary(settings, landscape, found),
        "settings": {**facts, **asdict(question), **asdict(settings)},
    }

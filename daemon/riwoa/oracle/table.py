"""The kind ``table``: accuracies and latencies that somebody measured before, looked up in a file. numpy only."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from riwoa.config.kinds.table import TableSettings
from riwoa.errors import ConfigError, InputError
from riwoa.hardware.process import ProgressCallback
from riwoa.oracle.kind import DeviceLatency, OracleKind, Problem
from riwoa.oracle.protocol import CandidateError, Metrics
from riwoa.oracle.table_file import FloatArray, Table
from riwoa.search.catalogue import Catalogue
from riwoa.search.space import Space

if TYPE_CHECKING:
    from riwoa.config.schema import Config
    from riwoa.config.schema import Oracle as OracleTable

# Raised by hand whenever the same file gives other metrics.
RECIPE_VERSION = "table-1"
LOW_FIDELITY = "low_fidelity"  # the one rung below a row
_ROUNDED_ONE = 1.0 + 1e-6  # computed or stored in few digits, 1 can be a little more


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSpec:
    """An oracle that looks rows up in a file (riwoa.oracle.table_file says what the fields name)."""

    path: str
    genes: str
    gene_kind: Literal["nominal", "ordered"] = "nominal"
    accuracy: str
    report: str | None = None
    latency: str | None = None
    low_fidelity: str | None = None
    low_fidelity_cost: float | None = None  # of a look-up in that column, relative to a full evaluation
    threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """The first frame that a worker gets; a part of a run's digest."""
        return {"kind": "table", **asdict(self)}

    @classmethod
    def from_json(cls, frame: Mapping[str, Any]) -> TableSpec:
        """The specification of ``to_json``."""
        return cls(**{name: value for name, value in frame.items() if name != "kind"})


class TableKind(OracleKind):
    """A table of finished measurements."""

    name = "table"
    settings = TableSettings
    metrics = frozenset({"accuracy", "latency_ms", "low_fidelity", "report"})

    def spec(self, oracle: OracleTable) -> TableSpec:
        """See ``OracleKind.spec``.

        Raises:
            ConfigError: the table, or what to search it for, is not named.
        """
        table = oracle.table
        missing = [] if table.file is not None else ["oracle.table.file, the file"]
        missing += [] if table.accuracy is not None else ["oracle.table.accuracy, the column to raise"]
        if table.file is None or table.accuracy is None:
            raise ConfigError(*(f"oracle.kind = table needs {what}" for what in missing))
        return TableSpec(
            path=str(Path(table.file).absolute()),
            genes=table.genes,
            gene_kind="ordered" if table.order else "nominal",
            accuracy=table.accuracy,
            report=table.report,
            latency=table.latency,
            low_fidelity=table.low_fidelity,
            low_fidelity_cost=table.low_fidelity_cost,
            threads=oracle.threads,
        )

    async def problem(self, config: Config, latency_table: Path, progress: ProgressCallback | None = None) -> Problem:
        """See ``OracleKind.problem``."""
        spec = self.spec(config.oracle)
        table = TableOracle(spec)
        return Problem(
            space=table.space,
            spec=spec,
            latency_of=table.latency_ms,
            range_ms=table.range_ms,
            # Not the geometric mean of the range: one network without layers (0.01 ms) would make it a target for
            # stumps.
            auto_target_ms=table.median_ms,
            latency_sha256=table.latency_sha256,
            catalogue=table.catalogue(),
        )

    def device_latency(self, table: str, config: Config) -> DeviceLatency:
        """See ``OracleKind.device_latency``: a column of milliseconds, or FILE:COLUMN, as of this device."""
        found = TableOracle(replace(self.spec(config.oracle), latency=table))
        return DeviceLatency(found.latency_ms, found.range_ms, found.latency_sha256)

    def shipped(self, spec: Mapping[str, Any]) -> Mapping[str, Sequence[Path]]:
        """See ``OracleKind.shipped``: the file, and those beside it that hold columns."""
        path = Path(spec["path"])
        columns = [spec.get(role) for role in ("accuracy", "report", "latency", "low_fidelity")]
        beside = dict.fromkeys(path.parent / c.rpartition(":")[0] for c in columns if c is not None and ":" in c)
        return {"path": [path, *beside]}

    def build(self, spec: Mapping[str, Any]) -> TableOracle:
        """See ``OracleKind.build``."""
        return TableOracle(TableSpec.from_json(spec))


class TableOracle:
    """Accuracies and latencies of the rows of one table.

    Latencies are 0 where the specification names none.

    Raises:
        InputError: the table is missing, damaged or not what it should be.
    """

    def __init__(self, spec: TableSpec) -> None:
        named = (spec.accuracy, spec.report, spec.low_fidelity, spec.latency)
        path = Path(spec.path)
        self._spec = spec
        self._table = Table.open(path, spec.genes, spec.gene_kind, [name for name in named if name is not None])
        columns = self._table.columns
        # "report" is what a paper would report of the winner (test accuracy); no search looks at it.
        roles = {"accuracy": spec.accuracy, "report": spec.report, "low_fidelity": spec.low_fidelity}
        self._metrics = {
            role: _fractions(path, name, columns[name]) for role, name in roles.items() if name is not None
        }
        self._latency_ms = None if spec.latency is None else _milliseconds(path, spec.latency, columns[spec.latency])
        if not np.isfinite(self._usable).any():
            raise InputError(f"{path}: no row has all of {', '.join(filter(None, (spec.accuracy, spec.latency)))}")

    @property
    def space(self) -> Space:
        """Of the table's genes."""
        return self._table.space

    @property
    def version(self) -> str:
        """Hash of the files and of the columns that were read."""
        names = list(self._table.columns)
        roles = (self._spec.accuracy, self._spec.report, self._spec.low_fidelity, self._spec.latency)
        columns = [None if role is None else names.index(role) for role in roles]
        facts: list[object] = [RECIPE_VERSION, self._table.sha256, columns]
        # Such a column was once taken for percent: what was evaluated then must not be found again.
        if any(1.0 < np.nanmax(self._table.columns[role]) <= _ROUNDED_ONE for role in roles[:3] if role is not None):
            facts.append("fractions, rounded above 1")
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    @property
    def latency_sha256(self) -> str:
        """Hash of everything that decides a latency."""
        content = b"" if self._latency_ms is None else self._latency_ms.tobytes()
        return hashlib.sha256(self.space.sha256.encode() + self._table.indices.tobytes() + content).hexdigest()

    @property
    def range_ms(self) -> tuple[float, float]:
        """Least and greatest latency of the rows that can be evaluated."""
        if self._latency_ms is None:
            return 0.0, 0.0
        known = self._latency_ms[np.isfinite(self._usable)]
        return float(known.min()), float(known.max())

    @property
    def median_ms(self) -> float | None:
        """Latency that half of the rows that can be evaluated keep within; None where latencies are not named."""
        return None if self._latency_ms is None else float(np.median(self._latency_ms[np.isfinite(self._usable)]))

    def catalogue(self) -> Catalogue:
        """What exists, for a run that keeps account of it."""
        table, usable = self._table, np.isfinite(self._usable)
        latency_ms = np.zeros(len(usable)) if self._latency_ms is None else np.nan_to_num(self._latency_ms, nan=np.inf)
        return Catalogue(table.space, table.indices, usable, latency_ms, table.row)

    def evaluate(self, architecture: Mapping[str, Any]) -> Metrics:
        """The row's "accuracy", and where they are named and known "report" and "low_fidelity".

        Raises:
            CandidateError: the architecture is not in the table, or was not measured.
        """
        row = self._row(architecture)
        if row is None:
            raise CandidateError("not in the table")
        if not np.isfinite(self._usable[row]):
            raise CandidateError("in the table, but not measured")
        found = {role: float(values[row]) for role, values in self._metrics.items()}
        return {role: value for role, value in found.items() if math.isfinite(value)}

    def evaluate_at(self, rung: str, architecture: Mapping[str, Any]) -> Metrics:
        """The row's low fidelity as its "accuracy".

        Raises:
            CandidateError: as ``evaluate``, or the row lacks that number.
        """
        found = self.evaluate(architecture)
        if rung != LOW_FIDELITY or rung not in found:
            raise CandidateError(f"in the table, but without {rung}")
        return {"accuracy": found[rung]}

    def latency_ms(self, architecture: Mapping[str, Any]) -> float:
        """The row's latency; infinite where the table has none, so that no search that asks goes there."""
        if self._latency_ms is None:
            return 0.0
        row = self._row(architecture)
        value = math.inf if row is None else float(self._latency_ms[row])
        return math.inf if math.isnan(value) else value

    def _row(self, architecture: Mapping[str, Any]) -> int | None:
        return self._table.row(self.space.indices(architecture))

    @cached_property
    def _usable(self) -> FloatArray:
        """Finite where a row can be evaluated, (rows,)."""
        accuracy = self._metrics["accuracy"]
        return accuracy if self._latency_ms is None else accuracy + self._latency_ms


# -- numbers ----------------------------------------------------------------------------------------------------------


def _fractions(path: Path, name: str, values: FloatArray) -> FloatArray:
    """Accuracies between 0 and 1, NaN where not measured."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if low < 0.0 or high > 100.0 * _ROUNDED_ONE:
        raise InputError(
            f"{path}: {name} goes from {low:g} to {high:g}; an accuracy is a fraction or percent, and more is better: "
            "write a scaled column beside it"
        )
    if high <= _ROUNDED_ONE:
        return np.minimum(values, 1.0)
    _check_percent(path, name, values)
    return np.minimum(values, 100.0) / 100.0


def _check_percent(path: Path, name: str, values: FloatArray) -> None:
    """Refuse a column of numbers above 1 among which others look like fractions. 0 is the same in both.

    The accuracy of a network that learned nothing is a few percent or less, 1 % for a hundred classes: such a number,
    taken for a fraction, lies above all others. One that would lie among them may be one.
    """
    small = np.flatnonzero((values > 0.0) & (values <= _ROUNDED_ONE))
    large = np.flatnonzero(values > _ROUNDED_ONE)
    among = small[100.0 * values[small] < float(values[large].max())]
    mixed = among if len(small) < len(large) else small
    if len(mixed):
        raise InputError(
            f"{path}: {name} is {values[mixed[0]]:g} in row {mixed[0]} and {values[large[0]]:g} in row {large[0]}, as "
            "if fractions and percent were mixed; write all of the column as fractions, from 0 to 1"
        )


def _milliseconds(path: Path, name: str, values: FloatArray) -> FloatArray:
    if float(np.nanmin(values)) <= 0.0:
        row = int(np.nanargmin(values))
        raise InputError(
            f"{path}: {name} is {values[row]:g} in row {row}; a latency is above 0, NaN where not measured"
        )
    return values

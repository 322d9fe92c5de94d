"""Any table as an oracle: rows of genes, and what was once measured of each. numpy only.

A table is an ``.npz`` file as ``numpy.savez`` writes it, or text with commas (CSV) whose first line names its columns;
which of them, its content says. *Genes*
are columns of integers, in an ``.npz`` file also one array (rows, genes); the choices of a gene are the values that
occur. *Metrics* are columns of numbers, NaN (in a CSV file an empty cell) where nothing was measured. A metric may lie
in another file, ``FILE:COLUMN``, FILE beside the table; its rows are then the same architectures in the same order,
which is checked where that file holds the genes too.

An accuracy is a fraction or percent, the same in a whole column, of which every number is looked at: of 0 to 1 they are
fractions. Percent are most of them above 1, and none of them so small that it could as well be a fraction among the
others; a column that is neither is refused, since nothing here can know what was meant. Latencies are milliseconds.

Rows need not cover the product of all choices. An architecture without a row, or whose row lacks a number, cannot be
evaluated: it fails, and is counted. Everything else that is odd is refused when the table is opened.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from riwoa.datasets import npz
from riwoa.errors import InputError
from riwoa.files.content import ZIP, beginning, is_text
from riwoa.files.ownership import opened_file
from riwoa.oracle.protocol import CandidateError, Metrics, TableSpec
from riwoa.search.catalogue import Catalogue
from riwoa.search.space import Gene, IntArray, Space

FloatArray = npt.NDArray[np.float64]
GeneKind = Literal["nominal", "ordered"]

MAX_ROWS = 2_000_000
MAX_COORDINATES = 2_048  # of a genotype: the search keeps a square matrix of them
MAX_BYTES = 2 * 2**30  # of a CSV file, or of the arrays that are read
_MAX_GENE_VALUE = 2**31
_ROUNDED_ONE = 1.0 + 1e-6  # computed or stored in few digits, 1 can be a little more
_WHOLE = re.compile(r"[+-]?\d{1,10}", re.ASCII)
# Raised by hand whenever the same file gives other metrics.
RECIPE_VERSION = "table-1"
LOW_FIDELITY = "low_fidelity"  # the one rung below a row


@dataclass(frozen=True)
class Table:
    """Rows of one table, checked.

    Attributes:
        space: genes in the order of the columns, choices ascending.
        indices: choice indices of each row, (rows, genes).
        columns: the metrics that were asked for, by the name they were asked by, each (rows,); NaN where not measured.
        sha256: of the files' contents and of what was read from them.
    """

    space: Space
    indices: IntArray
    columns: Mapping[str, FloatArray]
    sha256: str
    _rows: Mapping[bytes, int] = field(repr=False)

    @classmethod
    def open(cls, path: Path, genes: str, kind: GeneKind, metrics: Sequence[str]) -> Table:
        """Read and check a table.

        Args:
            path: an ``.npz`` or ``.csv`` file.
            genes: names of the columns of genes, separated by commas.
            kind: whether the choices of the genes have an order.
            metrics: columns to read, each ``COLUMN`` or ``FILE:COLUMN``.

        Raises:
            InputError: says what is wrong, where, and what to do about it.
        """
        wanted = [name.strip() for name in genes.split(",") if name.strip()]
        if not wanted:
            raise InputError(f"{path}: no columns of genes are named; name an array of integers, or columns")
        places = {metric: _place(path, metric) for metric in metrics}
        files = dict.fromkeys([path, *(file for file, _ in places.values())])
        read = {
            file: _read(file, wanted, [name for at, name in places.values() if at == file], required=file == path)
            for file in files
        }
        found = read[path][0]
        rows = len(found[wanted[0]])
        for file, (genes_there, _) in read.items():
            for name, theirs in genes_there.items():
                if not np.array_equal(theirs, found[name]):
                    raise InputError(f"{file} and {path} differ in {name}: their rows must be in the same order")
        columns = {metric: read[file][1][name] for metric, (file, name) in places.items()}
        for metric, values in columns.items():
            _check_metric(path, metric, values, rows)
        space, indices = _space(path, kind, found)
        return cls(space, indices, columns, _sha256(wanted, kind, places, files), _numbered(path, indices))

    def row(self, indices: IntArray) -> int | None:
        """Number of the row of an architecture, from its choice indices (genes,); None where it has none."""
        return self._rows.get(np.ascontiguousarray(indices, dtype=np.int64).tobytes())


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


# -- reading ----------------------------------------------------------------------------------------------------------

_Read = tuple[dict[str, IntArray], dict[str, FloatArray]]


def _place(path: Path, metric: str) -> tuple[Path, str]:
    """File and column of ``COLUMN`` or ``FILE:COLUMN``."""
    file, colon, column = metric.rpartition(":")
    return (path.parent / file, column) if colon else (path, metric)


def _read(path: Path, genes: Sequence[str], metrics: Sequence[str], *, required: bool) -> _Read:
    """Genes and metrics of one file; genes that it lacks are left out where they are not required."""
    if _is_npz(path):
        return _read_npz(path, genes, metrics, required)
    return _read_csv(path, genes, metrics, required)


def _is_npz(path: Path) -> bool:
    """Whether a table is arrays rather than text, by its content; an empty or damaged one by its name.

    Raises:
        InputError: there is none, or it is neither.
    """
    if not os.path.isfile(path):
        raise InputError(f"there is no table at {path}; check its name")
    start, ending = beginning(path), path.suffix.lower()
    if start.startswith(ZIP) or ending == ".npz":
        return True
    if ending == ".csv" or is_text(start):
        return False
    raise InputError(f"{path} is neither .npz nor .csv; write it with numpy.savez, or as text with commas")


def _read_npz(path: Path, genes: Sequence[str], metrics: Sequence[str], required: bool) -> _Read:
    with npz.opened(path) as archive:
        names = npz.names(archive)
        if not names:
            raise InputError(f"{path} holds no arrays; write it with numpy.savez, or as text with commas")
        genes = [name for name in genes if required or name in names]
        for name in (*genes, *metrics):
            if name not in names:
                raise _no_column(path, name, names)
        headers = {name: npz.header(archive, name, path) for name in dict.fromkeys((*genes, *metrics))}
        _check_headers(path, headers, genes, metrics)
        found = {name: _whole_numbers(path, name, npz.values(archive, name)) for name in genes}
        return found, {name: np.asarray(npz.values(archive, name), dtype=np.float64) for name in metrics}


def _check_headers(path: Path, headers: Mapping[str, npz.Header], genes: Sequence[str], metrics: Sequence[str]) -> None:
    """Types and shapes, before any array is read."""
    for name, header in headers.items():
        gene, shape = name in genes, header.shape
        wanted, kinds, dimensions = ("integers", "iu", (1, 2)) if gene else ("numbers", "iuf", (1,))
        if header.dtype.kind not in kinds or len(shape) not in dimensions:
            more = " or (rows, genes)" if gene else ""
            raise InputError(f"{path}: {name} is {header.dtype} {shape}, should be {wanted} (rows,){more}")
        if name in metrics and len(shape) == 2:
            raise InputError(
                f"{path}: {name} is all the genes, {shape}, and no metric; name a column of numbers (rows,)"
            )
        if 0 in shape:
            raise InputError(f"{path}: {name} is empty, {shape}; a table needs rows")
        if shape[0] > MAX_ROWS:
            raise InputError(f"{path}: {name} has {shape[0]} rows, at most {MAX_ROWS} are read")
        if len(shape) == 2 and shape[1] > MAX_COORDINATES:
            raise InputError(f"{path}: {name} has {shape[1]} genes, at most {MAX_COORDINATES} are searched")
    total = sum(header.size_bytes for header in headers.values())
    if total > MAX_BYTES:
        raise InputError(f"{path}: its columns take {total / 2**30:.1f} GiB, at most {MAX_BYTES >> 30} are read")
    lengths = {name: header.shape[0] for name, header in headers.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: columns of different lengths, {lengths}")


def _whole_numbers(path: Path, name: str, values: npt.NDArray[Any]) -> IntArray:
    if int(values.min()) < -_MAX_GENE_VALUE or int(values.max()) >= _MAX_GENE_VALUE:
        raise InputError(f"{path}: {name} goes from {values.min()} to {values.max()}; number its choices from 0")
    return np.asarray(values, dtype=np.int64)


def _read_csv(path: Path, genes: Sequence[str], metrics: Sequence[str], required: bool) -> _Read:
    _check_size(path)
    try:
        with io.TextIOWrapper(opened_file(path), encoding="utf-8-sig", newline="") as stream:
            lines = _lines(path, stream)
            _, head = next(lines, (0, []))
            known = {column.strip() for column in head}
            cells: dict[str, array[Any]] = {name: array("q") for name in genes if required or name in known}
            numbers: dict[str, array[Any]] = {name: array("d") for name in metrics}
            places = {name: _position(path, name, head) for name in (*cells, *numbers)}
            for line, row in lines:
                if len(row) != len(head):
                    raise InputError(f"{path}: line {line} has {len(row)} cells, the first line {len(head)}")
                for name, column in cells.items():
                    column.append(_whole_number(path, line, name, row[places[name]]))
                for name, column in numbers.items():
                    column.append(_number(path, line, name, row[places[name]]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as text with commas ({error})") from None
    if not any(len(column) for column in (*cells.values(), *numbers.values())):
        raise InputError(f"{path} has no rows below its first line; a table needs rows")
    return (
        {name: np.array(column, dtype=np.int64) for name, column in cells.items()},
        {name: np.array(column, dtype=np.float64) for name, column in numbers.items()},
    )


def _check_size(path: Path) -> None:
    if os.path.isfile(path) and path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES >> 30} GiB; leave columns out, or write an .npz file")


def _lines(path: Path, stream: Any) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of each line that is not blank.

    Raises:
        InputError: there are too many.
    """
    reader = csv.reader(stream, strict=True)
    count = 0
    for row in reader:
        if row:
            if count > MAX_ROWS:  # the first line is no row
                raise InputError(f"{path} has more than {MAX_ROWS} rows, which are not read")
            count += 1
            yield reader.line_num, row


def _position(path: Path, name: str, head: Sequence[str]) -> int:
    found = [i for i, column in enumerate(head) if column.strip() == name]
    if not found:
        raise _no_column(path, name, head)
    if len(found) > 1:
        raise InputError(f"{path}: {len(found)} columns are called {name!r}; rename one")
    return found[0]


def column_names(path: Path) -> list[str]:
    """Of a table.

    Raises:
        InputError: it is missing or damaged.
    """
    if _is_npz(path):
        with npz.opened(path) as archive:
            return npz.names(archive)
    _check_size(path)
    try:
        with io.TextIOWrapper(opened_file(path), encoding="utf-8-sig", newline="") as stream:
            return [column.strip() for column in next(csv.reader(stream, strict=True), [])]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as text with commas ({error})") from None


def _no_column(path: Path, name: str, known: Sequence[str]) -> InputError:
    shown = ", ".join(column.strip() for column in known[:30]) + (", ..." if len(known) > 30 else "")
    return InputError(f"{path}: there is no column {name!r}; it has {shown}")


def _whole_number(path: Path, line: int, name: str, cell: str) -> int:
    text = cell.strip()
    if _WHOLE.fullmatch(text) is None or not -_MAX_GENE_VALUE <= int(text) < _MAX_GENE_VALUE:
        raise InputError(f"{path}: line {line}: {name} is {text[:40]!r}; a gene is a whole number, number its choices")
    return int(text)


def _number(path: Path, line: int, name: str, cell: str) -> float:
    try:
        return float(cell) if cell.strip() else math.nan
    except ValueError:
        raise InputError(
            f"{path}: line {line}: {name} is {cell.strip()[:40]!r}, should be a number, or empty where not measured"
        ) from None


# -- checking ---------------------------------------------------------------------------------------------------------


def _check_metric(path: Path, name: str, values: FloatArray, rows: int) -> None:
    if len(values) != rows:
        raise InputError(f"{name} has {len(values)} rows and {path} has {rows}; they must be the same architectures")
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise InputError(f"{path}: {name} is infinite in row {row}; leave it empty (NaN) where nothing was measured")
    if np.isnan(values).all():
        raise InputError(f"{path}: {name} holds no number at all; name another column")


def _space(path: Path, kind: GeneKind, found: Mapping[str, IntArray]) -> tuple[Space, IntArray]:
    """The genes, and the rows as choice indices (rows, genes)."""
    columns: dict[str, IntArray] = {}
    for name, values in found.items():
        each = {name: values} if values.ndim == 1 else {f"{name}.{i}": column for i, column in enumerate(values.T)}
        if taken := sorted(each.keys() & columns.keys()):
            raise InputError(f"{path}: two genes are called {taken[0]}; rename a column")
        columns |= each
    genes, indices = [], []
    for name, column in columns.items():
        choices, positions = np.unique(column, return_inverse=True)
        if len(choices) == 1:
            raise InputError(f"{path}: gene {name} is {choices[0]} in every row: nothing to choose; leave it out")
        if len(choices) > MAX_COORDINATES:
            raise InputError(f"{path}: gene {name} has {len(choices)} choices, at most {MAX_COORDINATES} are searched")
        genes.append(Gene(name, tuple(int(c) for c in choices), kind))
        indices.append(positions)
    coordinates = sum(len(g.choices) for g in genes) if kind == "nominal" else len(genes)
    if coordinates > MAX_COORDINATES:
        raise InputError(f"{path}: its genes take {coordinates} coordinates, at most {MAX_COORDINATES} are searched")
    return Space("table", tuple(genes)), np.stack(indices, axis=1).astype(np.int64)


def _numbered(path: Path, indices: IntArray) -> dict[bytes, int]:
    """Architecture -> number of its row."""
    numbers: dict[bytes, int] = {}
    for number, row in enumerate(indices):
        first = numbers.setdefault(row.tobytes(), number)
        if first != number:
            raise InputError(f"{path}: rows {first} and {number} are the same architecture; keep one, or average them")
    return numbers


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


def _sha256(
    genes: Sequence[str], kind: str, places: Mapping[str, tuple[Path, str]], files: Mapping[Path, object]
) -> str:
    """Of contents and columns: a file that moves stays the same table."""
    contents = {}
    for file in files:
        with file.open("rb") as stream:
            contents[file] = hashlib.file_digest(stream, "sha256").hexdigest()
    first, *_ = contents.values()
    facts = [first, list(genes), kind, [[contents[file], column] for file, column in places.values()]]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

"""A table of architectures: rows of genes, and what was once measured of each. numpy only.

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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from riwoa.datasets import npz
from riwoa.errors import InputError
from riwoa.files.content import ZIP, beginning, is_text
from riwoa.files.ownership import opened_file
from riwoa.oracle.cells import OPERATIONS, holds_cells
from riwoa.search.space import Gene, IntArray, Space

FloatArray = npt.NDArray[np.float64]
GeneKind = Literal["nominal", "ordered"]

MAX_ROWS = 2_000_000
MAX_COORDINATES = 2_048  # of a genotype: the search keeps a square matrix of them
MAX_BYTES = 2 * 2**30  # of a CSV file, or of the arrays that are read
_MAX_GENE_VALUE = 2**31
_WHOLE = re.compile(r"[+-]?\d{1,10}", re.ASCII)


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
    words: dict[str, Sequence[str]] = {}  # by gene: what its numbers stand for, where the file says so
    for name, values in found.items():
        each = {name: values} if values.ndim == 1 else {f"{name}.{i}": column for i, column in enumerate(values.T)}
        if taken := sorted(each.keys() & columns.keys()):
            raise InputError(f"{path}: two genes are called {taken[0]}; rename a column")
        columns |= each
        if _is_npz(path) and holds_cells(path, values):
            words |= dict.fromkeys(each, OPERATIONS)
    genes, indices = [], []
    for name, column in columns.items():
        choices, positions = np.unique(column, return_inverse=True)
        if len(choices) == 1:
            raise InputError(f"{path}: gene {name} is {choices[0]} in every row: nothing to choose; leave it out")
        if len(choices) > MAX_COORDINATES:
            raise InputError(f"{path}: gene {name} has {len(choices)} choices, at most {MAX_COORDINATES} are searched")
        called = tuple(words[name][c] for c in choices.tolist()) if name in words else None
        genes.append(Gene(name, tuple(choices.tolist()), kind, words=called))
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

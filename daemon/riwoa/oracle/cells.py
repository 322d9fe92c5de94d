"""NAS-Bench-201's cells: what the numbers in its tables stand for. numpy only.

A cell has six edges, each with one of five operations. Published tables number the operations, which tells a reader
nothing; where a table says what it is, its choices go by their names.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from riwoa.datasets import npz
from riwoa.errors import InputError
from riwoa.search.space import IntArray

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ("1<-0", "2<-0", "2<-1", "3<-0", "3<-1", "3<-2")

_EDGE = re.compile(r"(\w+)~(\d)")
_SOURCES = [edge.partition("<-")[2] for edge in EDGES]
_COMPARED = 64  # rows, of those that write their cells out
_MOST_BYTES = 64 * 2**20  # of a column of texts


def operations(architecture: str) -> tuple[int, ...]:
    """Indices into OPERATIONS, in the order of EDGES, of ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``.

    Raises:
        KeyError: it is no such text.
    """
    found = _EDGE.findall(architecture)
    if [source for _, source in found] != _SOURCES or any(name not in OPERATIONS for name, _ in found):
        raise KeyError(architecture[:100])
    return tuple(OPERATIONS.index(name) for name, _ in found)


def holds_cells(path: Path, rows: IntArray) -> bool:
    """Whether genes (rows, genes) of an ``.npz`` file are operations of cells, by what the file says of itself.

    It says so in its ``metadata`` (``riwoa.oracle.nas_bench_201``), or it has a column ``arch`` that writes each cell
    out. A file that says nothing that can be read holds numbers.
    """
    if rows.ndim != 2 or rows.shape[1] != len(EDGES) or rows.min() < 0 or rows.max() >= len(OPERATIONS):
        return False
    with contextlib.suppress(InputError):
        return _is_declared(path) or _are_written_out(path, rows)
    return False


def _is_declared(path: Path) -> bool:
    try:
        facts = json.loads("".join(_texts(path, "metadata", most=1)))
    except (ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and facts.get("operations") == list(OPERATIONS)


def _are_written_out(path: Path, rows: IntArray) -> bool:
    texts = _texts(path, "arch", most=_COMPARED)
    try:
        return bool(texts) and all(operations(t) == tuple(row) for t, row in zip(texts, rows.tolist(), strict=False))
    except KeyError:
        return False


def _texts(path: Path, name: str, most: int) -> Sequence[str]:
    """The first texts of a column; [] where there is no such column of texts."""
    with npz.opened(path) as archive:
        if name not in npz.names(archive):
            return []
        header = npz.header(archive, name, path)
        if header.dtype.kind not in "SU" or header.size_bytes > _MOST_BYTES:
            return []
        found = np.atleast_1d(npz.values(archive, name)).ravel()[:most].tolist()
    return [text.decode(errors="replace") if isinstance(text, bytes) else text for text in found]

"""NAS-Bench-201's official file as a compact table (Dong & Yang, "NAS-Bench-201", ICLR 2020).

``NAS-Bench-201-v1_1-096897.pth`` holds every epoch of every trial of 15,625 cells: nested dictionaries, 4.7 GB pickled,
tens of GB in memory. A search needs one number a cell, so it is read once and the last epochs are kept. The package's
own ``torch.load`` predates ``weights_only``; here the file is read by torch's restricted unpickler, and its dictionary
is handed to the package's API a cell at a time: the API copies what it is given.

The table, an ``.npz`` file that ``riwoa.oracle.table_file`` reads:

    ops                 uint8 (cells, 6), indices into OPERATIONS, in the order of EDGES
    {data}_{split}{E}   float32 (cells,), top-1 in percent after the last of E = 12 or 200 epochs, the mean over all
                        trials (``is_random=False``; left to itself the API draws one at random); NaN where not trained
    metadata            a JSON text that says all this

``data`` is c10v (CIFAR-10, trained on half of its images), c10, c100 or in16 (ImageNet16-120); ``split`` is train, val
or test.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from nas_201_api import NASBench201API

from riwoa import __version__
from riwoa.errors import InputError
from riwoa.files.ownership import regular_file, unwritable
from riwoa.oracle.cells import EDGES, OPERATIONS, operations
from riwoa.supernet.checkpoint import unpickled, why_not_unpickled
from riwoa_storage.durable import replace_durably

DATA = {"c10v": "cifar10-valid", "c10": "cifar10", "c100": "cifar100", "in16": "ImageNet16-120"}
SPLITS = {"train": "train-accuracy", "val": "valid-accuracy", "test": "test-accuracy"}
EPOCHS = {12: "less", 200: "full"}  # and what the file calls them

_READ_BYTES = 2**20

Report = Callable[[str, int, int], None]  # what is under way, how much is done, of how much


def convert(source: Path, out: Path, progress: Report = lambda what, done, total: None) -> dict[str, Any]:
    """Write the compact table of an official file; returns its metadata.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
        StateDirectoryError, FullDiskError: ``out`` cannot be written.
    """
    content = load(source, progress)
    names, infos = content["meta_archs"], content["arch2infos"]
    evaluated = sorted(int(index) for index in content["evaluated_indexes"])
    rows: list[tuple[int, ...]] = []
    accuracies: list[dict[str, float]] = []
    seeds: dict[str, set[int]] = {}
    for done, index in enumerate(evaluated):
        progress("converting", done, len(evaluated))
        try:
            rows.append(operations(names[index]))
            accuracies.append(_accuracies(names[index], infos.pop(index), seeds))  # popped: its memory is free again
        except (KeyError, IndexError, AttributeError, TypeError, AssertionError) as error:
            raise InputError(f"{source}: cell {index} is not as NAS-Bench-201 stores it ({error!r})") from None
    columns = _columns(accuracies)
    if not columns:
        raise InputError(f"{source} holds no trained cell; take NAS-Bench-201-v1_1-096897.pth")
    facts = _facts(source, columns, seeds)
    buffer = io.BytesIO()
    arrays = {"ops": np.array(rows, dtype=np.uint8), "metadata": np.array(json.dumps(facts)), **columns}
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for its own option
    try:
        replace_durably(out, buffer.getvalue())
    except OSError as error:
        raise unwritable(out, error, "name another --out") from None
    return facts


def is_converted(path: Path) -> bool:
    """Whether a file is what ``convert`` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {"ops.npy", "metadata.npy"} <= set(archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def load(source: Path, progress: Report = lambda what, done, total: None) -> dict[str, Any]:
    """The official file's dictionary; only what is listed here is unpickled, and no code runs.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    if not regular_file(source).is_file():
        raise InputError(f"there is no file at {source}; NAS-Bench-201's authors publish NAS-Bench-201-v1_1-096897.pth")
    try:
        with io.BufferedReader(_Watched(source, progress), _READ_BYTES) as stream:
            content = unpickled(stream)
    except Exception as error:  # torch raises whatever its unpickler met
        raise InputError(f"{source} is no intact NAS-Bench-201 file ({why_not_unpickled(error)})") from None
    wanted = {"meta_archs": (list,), "arch2infos": (dict,), "evaluated_indexes": (set, list, tuple)}
    if not isinstance(content, dict) or not all(isinstance(content.get(key), kinds) for key, kinds in wanted.items()):
        raise InputError(f"{source} is not NAS-Bench-201's dictionary of {', '.join(wanted)}")
    return content


class _Watched(io.FileIO):
    """A file that tells how far it has been read."""

    def __init__(self, path: Path, progress: Report) -> None:
        super().__init__(path)
        self._progress, self._size = progress, path.stat().st_size

    def readinto(self, buffer: Any) -> int | None:
        """See ``io.RawIOBase``."""
        count = super().readinto(buffer)
        self._progress("reading", self.tell(), self._size)
        return count


def _accuracies(architecture: str, info: Mapping[str, Any], seeds: dict[str, set[int]]) -> dict[str, float]:
    """Columns of one cell; the seeds of its trials are added to ``seeds``."""
    api = NASBench201API(
        {"meta_archs": [architecture], "arch2infos": {0: info}, "evaluated_indexes": [0]}, verbose=False
    )
    found: dict[str, float] = {}
    for epochs, key in EPOCHS.items():
        trained = info[key]["dataset_seed"]
        for short, name in DATA.items():
            if not trained.get(name):
                continue
            seeds.setdefault(f"{short} {epochs}", set()).update(int(seed) for seed in trained[name])
            more = api.get_more_info(0, name, iepoch=None, hp=str(epochs), is_random=False)
            found |= {f"{short}_{split}{epochs}": float(more[a]) for split, a in SPLITS.items() if a in more}
    return found


def _columns(rows: list[dict[str, float]]) -> dict[str, npt.NDArray[np.float32]]:
    """Every column that some cell has, in a fixed order."""
    order = [f"{short}_{split}{epochs}" for short in DATA for epochs in EPOCHS for split in SPLITS]
    return {
        name: np.array([row.get(name, np.nan) for row in rows], dtype=np.float32)
        for name in order
        if any(name in row for row in rows)
    }


def _facts(source: Path, columns: Mapping[str, Any], seeds: Mapping[str, set[int]]) -> dict[str, Any]:
    with source.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "benchmark": "NAS-Bench-201",
        "file": source.name,
        "sha256": sha256,
        "cells": len(next(iter(columns.values()))),
        "columns": list(columns),
        "accuracies": "top-1 in percent after the last epoch, mean over all trials (is_random=False)",
        "data": DATA,
        "seeds": {name: sorted(found) for name, found in sorted(seeds.items())},
        "operations": list(OPERATIONS),
        "edges": list(EDGES),
        "made_with": {"riwoa": __version__, "nas-bench-201": metadata.version("nas-bench-201")},
    }

"""The two tasks that proposals are judged on: OFA's predictor with its Note10 table, and the embedded supernet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from riwoa.bench import embedded
from riwoa.bench.subnets import SubnetLandscape
from riwoa.config.schema import Config
from riwoa.errors import InputError
from riwoa.hardware.lut import LatencyTable
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.oracle.predictor import AccuracyPredictor
from riwoa.search.fitness import Objective
from riwoa.search.space import Space
from riwoa.supernet.space import mobilenet_space, ofa_config

PREDICTOR_TARGET_MS = 25.0
PREDICTOR_RESOLUTIONS_PX = (160, 176, 192, 208, 224)
Architecture = Mapping[str, Any]


class Task(Protocol):
    """A space with an aim, latencies that are free and accuracies that may not be."""

    name: str
    space: Space
    aim: Objective
    facts: Mapping[str, Any]
    parents_at: tuple[int, ...]  # generations of a search that give parents: fewer where evaluations cost
    parents_a_search: int  # about

    def latency_ms(self, architecture: Architecture) -> float:
        """Of the whole network."""
        ...

    def layers_ms(self, architecture: Architecture) -> Mapping[str, float]:
        """Of its parts."""
        ...

    async def accuracies(self, architectures: Sequence[Architecture]) -> list[float]:
        """Fractions, in order; NaN where an evaluation failed."""
        ...


class _Tabled:
    """Latencies from a table, the last answers kept: a prompt asks for every change of a parent."""

    def __init__(self, table: LatencyTable | OfaLatencyTable) -> None:
        self._table = table
        self._latencies: dict[tuple[Any, ...], float] = {}

    def latency_ms(self, architecture: Architecture) -> float:
        """Of the whole network."""
        key = tuple(architecture.items())
        if key not in self._latencies:
            self._latencies[key] = self._table.latency_ms(ofa_config(architecture))
        return self._latencies[key]

    def layers_ms(self, architecture: Architecture) -> Mapping[str, float]:
        """Of its parts."""
        return self._table.layers_ms(ofa_config(architecture))


class PredictorTask(_Tabled):
    """OFA's ImageNet predictor and Note10 latencies, target 25 ms."""

    name = "predictor"
    parents_at: tuple[int, ...] = (3, 7, 11, 15, 19)
    parents_a_search = 60

    def __init__(self, folder: Path) -> None:
        self._predictor = AccuracyPredictor.load(folder / "acc_predictor.pth")
        super().__init__(OfaLatencyTable(folder / "latency_table@note10"))
        self.space = mobilenet_space(PREDICTOR_RESOLUTIONS_PX)
        self.aim = Objective(PREDICTOR_TARGET_MS, -1.0)
        self.facts: Mapping[str, Any] = {"target_ms": PREDICTOR_TARGET_MS, "device": "note10"}

    async def accuracies(self, architectures: Sequence[Architecture]) -> list[float]:
        """See ``Task.accuracies``."""
        return [float(a) for a in self._predictor.accuracies([ofa_config(x) for x in architectures])]


class EmbeddedTask(_Tabled):
    """The supernet of the package, on the embedded digits, and this device's latency table."""

    name = "embedded"
    parents_at: tuple[int, ...] = (2, 4, 6, 8)
    parents_a_search = 50

    def __init__(self, landscape: SubnetLandscape) -> None:
        super().__init__(landscape.table)
        self._evaluator = landscape.evaluator
        self.space, self.aim = landscape.space, landscape.aim
        sha256 = landscape.table.sha256
        self.facts: Mapping[str, Any] = {"target_ms": self.aim.latency_target_ms, "latency_table_sha256": sha256}

    async def accuracies(self, architectures: Sequence[Architecture]) -> list[float]:
        """See ``Task.accuracies``."""
        return await asyncio.to_thread(lambda: [self._accuracy(a) for a in architectures])

    def _accuracy(self, architecture: Architecture) -> float:
        key = self.space.key(self.space.indices(architecture))
        return self._evaluator.evaluation(key, architecture).accuracy


def data_with(name: str) -> Path | None:
    """The folder that RIWOA_DATA names, or ``../shared/data``: the first that holds a file; None where neither does."""
    places = map(Path, filter(None, [os.environ.get("RIWOA_DATA"), "../shared/data"]))
    return next((place for place in places if (place / name).exists()), None)


def data_folder() -> Path:
    """Where the tables of NAS-Bench-201 lie, and OFA's files beside.

    Raises:
        InputError: nowhere.
    """
    folder = data_with("nas-bench-201/accuracy.npz")
    if folder is None:
        raise InputError(
            "nas-bench-201/accuracy.npz is needed: RIWOA_DATA names its folder, or it lies in ../shared/data"
        )
    return folder.absolute()


def predictor_folder() -> Path:
    """Where OFA's published predictor and tables lie: ``once-for-all`` in RIWOA_DATA, or in ``../shared/data``.

    Raises:
        InputError: nowhere.
    """
    if (folder := data_with("once-for-all/acc_predictor.pth")) is not None:
        return folder / "once-for-all"
    raise InputError(
        "OFA's acc_predictor.pth and latency_table@note10 are needed: put them into $RIWOA_DATA/once-for-all"
    )


@asynccontextmanager
async def open_task(name: str, config: Config, table: LatencyTable, out: Path) -> AsyncIterator[Task]:
    """A task, ready to be asked; evaluations of the supernet are kept in ``out``.

    Raises:
        InputError: unknown, or its files are missing.
        RiwoaError: the oracle cannot be made.
    """
    if name == "predictor":
        try:
            folder = predictor_folder()
        except InputError as error:
            raise InputError(f"{error}, or leave this task out with --tasks embedded") from None
        yield PredictorTask(folder)
        return
    if name != "embedded":
        raise InputError(f"no task {name!r}; there are predictor and embedded")
    yield EmbeddedTask(embedded.Task(config, table, out).landscape())

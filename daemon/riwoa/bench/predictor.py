"""Strategies on OFA's accuracy predictor with its Note10 latency tables: the 46-gene space within a latency target.

Nobody knows the best network here. OFA's own evolution reaches 80.5 % at 20 ms and 81.9 % at 25 ms, with 50,100
queries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from riwoa.bench.arena import POPULATION
from riwoa.bench.contest import Report, Settings, search_all
from riwoa.bench.landscape import Measured, Plain
from riwoa.bench.measures import summary
from riwoa.bench.tasks import PREDICTOR_RESOLUTIONS_PX, PREDICTOR_TARGET_MS
from riwoa.hardware.ofa_table import OfaLatencyTable
from riwoa.oracle.predictor import AccuracyPredictor
from riwoa.search.fitness import Objective
from riwoa.search.space import IntArray, Space
from riwoa.supernet.space import mobilenet_space, ofa_config

FILES = ("acc_predictor.pth", "latency_table@note10/*.yaml")


class PredictorLandscape(Plain):
    """Predicted accuracies, in percent, and latencies in milliseconds.

    Args:
        folder: of OFA's published files.
        target_ms: what no winner may exceed.
        after_ms: within what somebody who remembers has searched before.

    Raises:
        RiwoaError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, target_ms: float = PREDICTOR_TARGET_MS, after_ms: float | None = None) -> None:
        self._predictor = AccuracyPredictor.load(folder / "acc_predictor.pth")
        self._table = OfaLatencyTable(folder / "latency_table@note10")
        self._latencies_ms: dict[bytes, float] = {}  # a search asks for the same ones again and again
        self.space: Space = mobilenet_space(PREDICTOR_RESOLUTIONS_PX)
        self.aim = Objective(target_ms)
        contents = [file.read_bytes() for pattern in FILES for file in sorted(folder.glob(pattern))]
        self.key = hashlib.sha256(json.dumps([target_ms, after_ms]).encode() + b"".join(contents)).hexdigest()
        if after_ms is not None:
            self.earlier, self.earlier_is_same = PredictorLandscape(folder, after_ms), True

    def measure(self, indices: IntArray) -> Measured:
        """See ``Landscape``; one at a time, since the last bits depend on the size of a batch."""
        (accuracy,) = self._predictor.accuracies([ofa_config(self.space.architecture(indices))])
        return Measured(100.0 * float(accuracy), self.free_load(indices))

    def layers_ms(self, architecture: Mapping[str, Any]) -> Mapping[str, float]:
        """Latencies of an architecture's blocks."""
        return self._table.layers_ms(ofa_config(architecture))

    def free_load(self, indices: IntArray) -> float:
        """See ``Landscape``."""
        key = indices.tobytes()
        if key not in self._latencies_ms:
            self._latencies_ms[key] = self._table.latency_ms(ofa_config(self.space.architecture(indices)))
        return self._latencies_ms[key]


def bench_predictor(
    settings: Settings,
    folder: Path,
    target_ms: float = PREDICTOR_TARGET_MS,
    *,
    after_ms: float | None = None,
    out: Path | None = None,
    progress: Report = lambda done, total: None,
) -> dict[str, Any]:
    """Run every (strategy, seed).

    Raises:
        RiwoaError: a file is missing or damaged, or ``out`` cannot be written.
    """
    landscape = PredictorLandscape(folder, target_ms, after_ms)
    found = search_all(settings, landscape, out, progress)
    facts = {"target_ms": target_ms, "after_ms": after_ms, "device": "note10", "population": POPULATION}
    return {
        "bench": "predictor",
        **summary(settings, landscape, found),
        "settings": {**facts, **asdict(settings)},
    }

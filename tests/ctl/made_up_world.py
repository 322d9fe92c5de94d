"""A journal of the default space in a made-up world in which choices add up, and another device's latency table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from riwoa.hardware.calibration import Interval
from riwoa.hardware.lut import LatencyTable, Timing
from riwoa.hardware.obtain import shipped_table
from riwoa.search.fitness import FloatArray
from riwoa.search.space import IntArray
from riwoa.supernet import geometry
from riwoa.supernet.geometry import Backbone
from riwoa.supernet.space import mobilenet_space, ofa_config
from riwoa.supernet.spec import SupernetSpec
from riwoa_storage.writer import JournalWriter

from .support import generation, individual

SPACE = mobilenet_space((24, 32, 40))
BACKBONE = Backbone(0.25, 10)
PROVENANCE: dict[str, Any] = {
    "seed": 0,
    "space": SPACE.to_json(),
    "oracle_version": "v",
    "oracle": SupernetSpec().to_json(),
}
_GAINS = np.random.default_rng(7).exponential(0.003, len(SPACE))  # of a choice, in a made-up world


def truth(indices: IntArray) -> FloatArray:
    """Accuracies of a world in which choices add up, (n,)."""
    return np.asarray(0.6 + np.where(indices < 0, 0, indices) @ _GAINS)


def milliseconds(by: LatencyTable, indices: IntArray) -> FloatArray:
    return np.array([by.latency_ms(ofa_config(SPACE.architecture(row))) for row in indices])


def drawn(count: int, seed: int = 0) -> IntArray:
    return SPACE.canonical(np.random.default_rng(seed).integers(0, 3, (count, len(SPACE))))


async def _commit(
    state: Path, indices: IntArray, values: FloatArray, config: Mapping[str, Any], provenance: Mapping[str, Any]
) -> None:
    by = LatencyTable.load(shipped_table())
    found = zip(indices, values.tolist(), milliseconds(by, indices).tolist(), strict=True)
    made = [individual(n, (SPACE.key(i), value, ms), SPACE.architecture(i)) for n, (i, value, ms) in enumerate(found)]
    sized = []
    for i in made:
        sizes = {"images": 3200, "parameters": geometry.parameters(ofa_config(i.architecture), BACKBONE)}
        sized.append(replace(i, metrics={**i.metrics, **sizes}))
    async with await JournalWriter.open(state / "journal.db") as journal:
        run_id = await journal.begin_run(provenance, config)
        await journal.commit_generation(generation(run_id, 0, tuple(sized)))


def commit(
    state: Path,
    indices: IntArray,
    objective: Mapping[str, Any] = {},
    *,
    noise: float = 0.0,
    oracle_settings: Mapping[str, Any] = {},
    **provenance: Any,
) -> Path:
    """One more run in a journal, of these architectures in the made-up world; ``noise`` is a standard deviation."""
    values = truth(indices) + noise * np.random.default_rng(3).normal(size=len(indices))
    config = {"objective": objective, "oracle": oracle_settings}
    asyncio.run(_commit(state, indices, values, config, {**PROVENANCE, **provenance}))
    return state


def slower_table() -> LatencyTable:
    """Of a device on which large kernels take four times as long, with an interval of 10 %."""

    def slower(key: str, timing: Timing) -> Timing:
        factor = 4.0 if "_k7_" in key else 1.0
        return replace(timing, **{n: factor * getattr(timing, n) for n in ("mean_ms", "p10_ms", "p50_ms", "p90_ms")})

    shipped = LatencyTable.load(shipped_table())
    entries = {key: slower(key, timing) for key, timing in shipped.entries.items()}
    return replace(shipped, entries=entries, correction={}, known=(), interval=Interval(0.9, 10.0, 5.0, 5.0, 10, 2))

"""How long networks take as they are deployed, by the clock that a latency table was built with. No torch at import."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from riwoa.hardware.process import ProgressCallback, throttled
from riwoa.hardware.runtime import COMMAND, TORCH, Runtime, Settings

if TYPE_CHECKING:
    from riwoa.hardware.bench import FloatArray

# The least and the greatest of six hold their median with 1 - 2 / 2**6 = 97 %. A part is every sixth round: a moment in
# which the machine was busy is in all of them, and moves their tenth percentiles as little as that of the whole.
PARTS = 6
_BUDGET_MS = 60_000.0
_LEAST_ROUNDS = 2 * PARTS
_MOST_CALLS_OF_TORCH = 100
_MOST_VISITS = 36
_CALLS = 3  # of a program, which counts its repeats itself


@dataclass(frozen=True, slots=True)
class DeployedNetwork:
    """A network as it is exported.

    Attributes:
        onnx: its file, before anything is described in its metadata.
        shape: of one picture, (channels, height, width).
        module: the same for torch.
        accuracy: of the file on the validation pictures; None where it is that of the module.
    """

    onnx: bytes
    shape: tuple[int, int, int]
    module: Any
    accuracy: float | None = None

    @property
    def sha256(self) -> str:
        """Identity of graph and weights."""
        return hashlib.sha256(self.onnx).hexdigest()


@dataclass(frozen=True, slots=True)
class MeasuredLatency:
    """Milliseconds of a batch, and between what they lie: the least and the greatest of six parts of the rounds."""

    ms: float
    low_ms: float
    high_ms: float

    @property
    def spread(self) -> float:
        """How far the parts lie from their middle, as a share of it."""
        return (self.high_ms - self.low_ms) / (2 * self.ms)

    def between(self, share: float) -> tuple[float, float]:
        """Least and most in another process, where all networks are off by a share; both are added as squares."""
        below, above = (math.hypot(end - self.ms, share * self.ms) for end in (self.low_ms, self.high_ms))
        return self.ms - below, self.ms + above


def time_deployed(
    networks: Sequence[DeployedNetwork],
    expected_ms: Sequence[float],
    settings: Settings,
    runtime: Runtime,
    progress: ProgressCallback | None = None,
) -> list[MeasuredLatency]:
    """Time networks among one another, once a round each, as the networks were that a table is calibrated on.

    Args:
        networks: to time.
        expected_ms: about how long each takes: slow ones get fewer rounds.
        settings: of the table.
        runtime: of the table, with the patience of today's configuration.
        progress: told of each round.

    Raises:
        TableError: the device is gone, or a program fails.
    """
    import numpy as np

    from riwoa.hardware.bench import Samples, undisturbed_ms

    samples = Samples.empty(0, len(networks), _rounds(runtime, expected_ms), 1)
    times = _measured(networks, samples, settings, runtime, progress)
    parts = [undisturbed_ms(times[:, i::PARTS]) for i in range(min(PARTS, times.shape[1]))]
    rows = np.vstack([undisturbed_ms(times), *parts])
    return [MeasuredLatency(*map(float, (row[0], row.min(), row.max()))) for row in rows.T]


def _measured(
    networks: Sequence[DeployedNetwork],
    samples: Any,
    settings: Settings,
    runtime: Runtime,
    progress: ProgressCallback | None,
) -> FloatArray:
    """(networks, rounds) milliseconds."""
    from riwoa.hardware import bench
    from riwoa.hardware.onnx_clock import CommandClock, OnnxClock, OnnxItem

    shapes = [(settings.batch_size, *network.shape) for network in networks]
    told = throttled(progress)
    with bench.thread_count(runtime.threads):
        if runtime.name == TORCH:
            clock = bench.clock_for(settings.compute, runtime.threads, settings.regime)
            items = zip(networks, shapes, strict=True)
            modules = [bench.timed(network.module, shape, settings.compute) for network, shape in items]
            return bench.measure([], modules, samples, clock, progress=told).networks
        files = [OnnxItem(network.onnx, shape) for network, shape in zip(networks, shapes, strict=True)]
        onnx_clock = OnnxClock(runtime, CommandClock(runtime) if runtime.name == COMMAND else None)
        return bench.measure([], files, samples, onnx_clock, progress=told).networks


def _rounds(runtime: Runtime, expected_ms: Sequence[float]) -> int:
    """As many as fit into a minute, within bounds."""
    if runtime.name == COMMAND:
        return _CALLS
    if runtime.name == TORCH:
        most, round_ms = _MOST_CALLS_OF_TORCH, sum(expected_ms)
    else:
        from riwoa.hardware.onnx_clock import expected_visit_ms

        most, round_ms = _MOST_VISITS, sum(map(expected_visit_ms, expected_ms))
    return max(_LEAST_ROUNDS, min(most, round(_BUDGET_MS / max(round_ms, 1.0))))

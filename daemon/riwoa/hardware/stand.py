"""Where things are timed: the clock of a runtime, what it is given, and how often. In a child; torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from riwoa.hardware import bench
from riwoa.hardware.onnx_clock import CommandClock, OnnxClock, network_items, operator_items
from riwoa.hardware.process import ProgressCallback, throttled
from riwoa.hardware.runtime import COMMAND, FLOAT32, INT8, TORCH, Runtime, Settings
from riwoa.supernet.geometry import Backbone, Operator
from riwoa.supernet.space import OfaConfig

MOST_VISITS = 12  # a repeat in onnxruntime is a visit of up to forty runs
_COMPARED, _COMPARED_VISITS = 6, 5  # networks in 8 bits and in float32, and visits of each
_CALLS = 2  # rounds of a program: it takes seconds a network, and counts its repeats itself


def rounds_of(runtime: Runtime, asked: int) -> int:
    """How many rounds are taken where ``asked`` would be in torch."""
    if runtime.name == COMMAND:
        return MOST_VISITS
    return asked if runtime.name == TORCH else min(asked, MOST_VISITS)


def network_every(runtime: Runtime, of_torch: int = 1) -> int:
    """In which rounds networks are timed: every so many-th."""
    return {TORCH: of_torch, COMMAND: MOST_VISITS // _CALLS}.get(runtime.name, 1)


def measure_here(
    settings: Settings,
    runtime: Runtime,
    ops: Sequence[Operator],
    configs: Sequence[OfaConfig],
    backbone: Backbone,
    samples: bench.Samples,
    saved: bench.PartialFile | None = None,
    progress: ProgressCallback | None = None,
) -> bench.Samples:
    """Take the rounds that ``samples`` lacks, in place, of operators and whole networks.

    Raises:
        TableError: there is no such device, or a program fails.
    """
    batch, compute = settings.batch_size, settings.compute
    with bench.thread_count(runtime.threads):
        if runtime.name == TORCH:
            clock = bench.clock_for(compute, runtime.threads, settings.regime)
            timed = bench.operator_items(ops, compute, batch)
            networks = bench.network_items(configs, backbone, compute, batch)
            return bench.measure(timed, networks, samples, clock, saved, throttled(progress))
        onnx_clock = OnnxClock(runtime, CommandClock(runtime) if runtime.name == COMMAND else None)
        precision = runtime.precision
        files = operator_items(ops, batch, precision), network_items(configs, backbone, batch, precision)
        return bench.measure(*files, samples, onnx_clock, saved, throttled(progress))


def int8_over_float32(configs: Sequence[OfaConfig], backbone: Backbone, runtime: Runtime, batch_size: int) -> float:
    """How many times as long as in float32 networks take in 8 bits here: the median of some, spread over the given."""
    some = configs[:: max(1, len(configs) // _COMPARED)][:_COMPARED]
    items = [item for precision in (INT8, FLOAT32) for item in network_items(some, backbone, batch_size, precision)]
    samples = bench.Samples.empty(0, len(items), _COMPARED_VISITS, 1)
    with bench.thread_count(runtime.threads):
        bench.measure([], items, samples, OnnxClock(runtime))
    small_ms, large_ms = bench.undisturbed_ms(samples.networks).reshape(2, -1)
    return float(np.median(small_ms / large_ms))
